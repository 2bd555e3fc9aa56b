//! Times by the clock on the wall: a cron expression and a time zone.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;

/// When something happens again and again.
///
/// Where the clock is put forward, a time in the gap happens at the end of it; where it is put back, a fixed time happens once.
///
/// ```
/// use chrono::{DateTime, Utc};
/// use mdl::cron::Timing;
///
/// let timing: Timing = "0 2 * * * Europe/Berlin".parse()?;
/// let noon: DateTime<Utc> = "2026-01-01T12:00:00Z".parse()?;
/// assert_eq!(timing.next(noon), Some("2026-01-02T01:00:00Z".parse()?));
/// assert_eq!(timing.latest(noon), Some("2026-01-01T01:00:00Z".parse()?));
/// assert!("every now and then".parse::<Timing>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    cron: Cron,
    zone: Tz,
}

impl Timing {
    /// The cron expression: minute, hour, day of month, month, day of week; with a sixth part, seconds come first.
    pub fn expression(&self) -> &str {
        self.cron.as_str()
    }

    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The last time until `at`, which counts itself. `None` when there is none.
    pub fn latest(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // An error says that it searched as far as the calendar goes.
        self.cron.find_previous_occurrence(&at.with_timezone(&self.zone), true).ok().map(|time| time.to_utc())
    }

    /// The first time after `after`. `None` when there is none.
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.cron.find_next_occurrence(&after.with_timezone(&self.zone), false).ok().map(|time| time.to_utc())
    }

    /// The next few times after `after`.
    pub fn upcoming(&self, after: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
        std::iter::successors(self.next(after), |time| self.next(*time)).take(count).collect()
    }
}

impl FromStr for Timing {
    type Err = String;

    /// An expression and, behind it, the name of a time zone; UTC without.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (expression, zone) = match text.rsplit_once(char::is_whitespace).map(|(before, last)| (before, last.parse::<Tz>())) {
            Some((expression, Ok(zone))) => (expression, zone),
            _ => (text, Tz::UTC),
        };
        let cron = Cron::from_str(expression).map_err(|error| format!("{expression:?} is no cron expression: {error}"))?;
        Ok(Self { cron, zone })
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.expression(), self.zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> DateTime<Utc> {
        time.parse().unwrap()
    }

    #[test]
    fn a_daily_time_happens_once_on_the_days_when_clocks_change() {
        let timing: Timing = "30 2 * * * Europe/Berlin".parse().unwrap();
        // 2026-03-29: 02:00 to 03:00 is left out. 2026-10-25: it happens twice.
        for (day, runs) in [("2026-03-28T22:00:00Z", 1), ("2026-10-24T22:00:00Z", 1)] {
            let from = at(day);
            let times = timing.upcoming(from, 5).into_iter().filter(|time| *time < from + chrono::TimeDelta::hours(24)).count();
            assert_eq!(times, runs, "{day}");
        }
    }

    #[test]
    fn latest_and_next_meet() {
        let timing: Timing = "*/5 * * * *".parse().unwrap();
        assert_eq!(timing.latest(at("2026-11-21T10:05:00Z")), Some(at("2026-11-21T10:05:00Z")));
        assert_eq!(timing.latest(at("2026-11-21T10:09:59Z")), Some(at("2026-11-21T10:05:00Z")));
        assert_eq!(timing.next(at("2026-11-21T10:05:00Z")), Some(at("2026-11-21T10:10:00Z")));
        assert_eq!(timing.to_string(), "*/5 * * * * UTC");
    }
}
