//! When each user sends which request.
//!
//! Arrivals do not wait for answers: they are laid down before the run, and each user keeps a timetable of its own. A request whose
//! time has come while its user still waits for the answer before is sent late, and its latency counts from when it was due.
//! (A load that sends the next request when the last is answered stops asking just when the server is slow, and so does not see it.)

use std::time::Duration;

/// A part of a run with one rate of arrivals.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    pub name: String,
    /// Requests per second, of all users together.
    pub rate: f64,
    pub seconds: f64,
    /// Whether the profile's limits hold here.
    pub judged: bool,
}

impl Stage {
    pub fn requests(&self) -> u64 {
        (self.rate * self.seconds).round() as u64
    }
}

/// When a request is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// The index of its stage.
    pub stage: usize,
    /// From the start of the run.
    pub at: Duration,
}

/// All arrivals of a run. The requests of all users are one sequence, of which each falls somewhere into its own part of time, and
/// the users take turns.
pub struct Timetable {
    stages: Vec<Stage>,
    users: u64,
}

impl Timetable {
    pub fn new(stages: Vec<Stage>, users: usize) -> Self {
        Self { stages, users: users.max(1) as u64 }
    }

    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    pub fn seconds(&self) -> f64 {
        self.stages.iter().map(|stage| stage.seconds).sum()
    }

    /// The slots of one user, in their order; users count from 0.
    pub fn of_user(&self, user: usize) -> impl Iterator<Item = Slot> + '_ {
        let total: u64 = self.stages.iter().map(Stage::requests).sum();
        (user as u64..total).step_by(usize::try_from(self.users).unwrap_or(usize::MAX)).map(|number| self.slot(number))
    }

    fn slot(&self, number: u64) -> Slot {
        let (mut first, mut start) = (0, 0.0);
        let last = self.stages.len().saturating_sub(1);
        for (index, stage) in self.stages.iter().enumerate() {
            if number < first + stage.requests() || index == last {
                let at = start + ((number - first) as f64 + fraction(number)) / stage.rate;
                return Slot { stage: index, at: Duration::from_secs_f64(at) };
            }
            first += stage.requests();
            start += stage.seconds;
        }
        Slot { stage: 0, at: Duration::ZERO }
    }
}

/// From 0 to 1 and the same in each run: SplitMix64 of the number.
fn fraction(number: u64) -> f64 {
    let mut x = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(rate: f64, seconds: f64) -> Stage {
        Stage { name: String::new(), rate, seconds, judged: true }
    }

    #[test]
    fn all_arrivals_come_at_their_rate() {
        let timetable = Timetable::new(vec![stage(100.0, 2.0), stage(300.0, 1.0)], 7);
        let mut all: Vec<Slot> = (0..7).flat_map(|user| timetable.of_user(user)).collect();
        assert_eq!(all.len(), 500);
        all.sort_by_key(|slot| slot.at);
        for (number, slot) in all.iter().enumerate() {
            let (stage, from) = if number < 200 { (0, number as f64 / 100.0) } else { (1, 2.0 + (number - 200) as f64 / 300.0) };
            assert_eq!(slot.stage, stage);
            let width = if stage == 0 { 0.01 } else { 1.0 / 300.0 };
            let at = slot.at.as_secs_f64();
            assert!((from..from + width + 1e-9).contains(&at), "{number}: {at}");
        }
    }

    #[test]
    fn a_user_has_its_turns_in_order() {
        let timetable = Timetable::new(vec![stage(1000.0, 1.0)], 10);
        let turns: Vec<Duration> = timetable.of_user(3).map(|slot| slot.at).collect();
        assert_eq!(turns.len(), 100);
        assert!(turns.is_sorted());
        assert_eq!(Timetable::new(vec![stage(1.0, 3.0)], 10).of_user(5).count(), 0, "more users than requests");
        assert_eq!(Timetable::new(vec![], 10).of_user(0).count(), 0);
    }

    #[test]
    fn fractions_are_spread() {
        let mean = (0..10_000).map(fraction).sum::<f64>() / 10_000.0;
        assert!((0.49..0.51).contains(&mean), "{mean}");
    }
}
