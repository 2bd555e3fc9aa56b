//! When a failed delivery is tried again.

use std::time::{Duration, SystemTime};

use rand::Rng;

/// The most of a `Retry-After` that is honoured.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// What chance makes of a delay at most.
const LONGEST_CHANCE: f64 = 1.1;
/// How late an attempt may be: its host was left alone for a while, or no worker was there.
const LATE: Duration = Duration::from_secs(3600);

/// The longest time between two attempts at an endpoint that is tried again and again.
pub fn longest_silence(schedule: &[u64]) -> Duration {
    let longest = schedule.iter().max().map_or(0.0, |seconds| *seconds as f64 * LONGEST_CHANCE);
    LONGEST_PAUSE.max(Duration::from_secs_f64(longest)) + LATE
}

/// How long after the failure of `attempt` (from 1) the next is made; `None` when it was the last. Up to a tenth is added by
/// chance, so that what failed together does not come back together.
pub fn delay(schedule: &[u64], attempt: i32) -> Option<Duration> {
    let seconds = *schedule.get(usize::try_from(attempt).ok()?.checked_sub(1)?)? as f64;
    Some(Duration::from_secs_f64(seconds * rand::rng().random_range(1.0..=LONGEST_CHANCE)))
}

/// What a `Retry-After` header asks for: seconds, or a date.
pub fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let asked = match header.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(header.trim()).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(asked.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_follow_the_schedule_and_end_with_it() {
        for (attempt, seconds) in [(1, 5.0), (2, 300.0)] {
            let delay = delay(&[5, 300], attempt).unwrap().as_secs_f64();
            assert!((seconds..=seconds * 1.1).contains(&delay), "{delay}");
        }
        assert_eq!(delay(&[5, 300], 3), None);
        assert_eq!(delay(&[], 1), None);
    }

    #[test]
    fn nobody_is_silent_for_longer_than_the_longest_delay() {
        assert_eq!(longest_silence(&[5, 300]), LONGEST_PAUSE + LATE, "a receiver may ask for a day");
        assert_eq!(longest_silence(&[5, 1_000_000, 300]).as_secs(), 1_100_000 + LATE.as_secs());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sat, 21 Nov 2026 10:00:00 GMT").unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sat, 21 Nov 2026 10:01:00 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Sat, 21 Nov 2026 09:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("99999999999", now), Some(LONGEST_PAUSE));
        assert_eq!(retry_after("soon", now), None);
    }
}
