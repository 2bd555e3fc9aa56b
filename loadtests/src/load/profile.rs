//! The four kinds of run, and what each has to hold.

use std::time::Duration;

use clap::ValueEnum;

use super::tally::Tally;
use super::timetable::Stage;

/// What most requests may take: 95 of 100 are to be answered within it.
pub const P95_LIMIT: Duration = Duration::from_millis(50);

const STRESS_STAGES: usize = 10;
const SOAK_STAGES: usize = 10;
const SPIKE_TIMES: f64 = 4.0;

/// How the load runs.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Profile {
    /// One rate for a minute. No errors, and the 95th percentile stays below 50 ms.
    Steady,
    /// Ten stages, from a tenth of the rate to all of it; tells the highest one that was kept. Ends when users are left waiting.
    /// Fails when not even the first stage was kept.
    Stress,
    /// The rate, four times as much for a while, and the rate again. No errors; below 50 ms before, and again once it has recovered.
    Spike,
    /// One rate for an hour, judged in ten parts, so that what gets slower or leaks is seen.
    Soak,
}

impl Profile {
    pub fn default_seconds(self) -> f64 {
        match self {
            Self::Steady => 60.0,
            Self::Stress | Self::Spike => 100.0,
            Self::Soak => 3600.0,
        }
    }

    /// The stages of a run of `seconds` with `rate` requests per second.
    pub fn stages(self, rate: f64, seconds: f64) -> Vec<Stage> {
        let stage = |name: &str, rate, share, judged| Stage { name: name.to_owned(), rate, seconds: seconds * share, judged };
        match self {
            Self::Steady => vec![stage("steady", rate, 1.0, true)],
            Self::Stress => (1..=STRESS_STAGES)
                .map(|number| {
                    let share = number as f64 / STRESS_STAGES as f64;
                    stage(&format!("{:.0}/s", rate * share), rate * share, 1.0 / STRESS_STAGES as f64, number == 1)
                })
                .collect(),
            Self::Spike => vec![
                stage("before", rate, 0.3, true),
                stage("spike", rate * SPIKE_TIMES, 0.1, false),
                stage("recovery", rate, 0.1, false),
                stage("after", rate, 0.5, true),
            ],
            Self::Soak => {
                (1..=SOAK_STAGES).map(|number| stage(&format!("part {number}"), rate, 1.0 / SOAK_STAGES as f64, true)).collect()
            }
        }
    }

    /// Whether users that are left waiting end the run, since more of the same would teach nothing.
    pub fn ends_when_overloaded(self) -> bool {
        self == Self::Stress
    }

    /// What is wrong with a run, as sentences; none if nothing is.
    pub fn problems(self, stages: &[Stage], tallies: &[Tally]) -> Vec<String> {
        let mut problems = Vec::new();
        for (stage, tally) in stages.iter().zip(tallies) {
            if tally.failed() > 0 && (stage.judged || self == Self::Spike) {
                problems.push(format!("{}: {} requests failed", stage.name, tally.failed()));
            }
            if stage.judged && !within_limit(tally) {
                let p95 = tally.percentile(0.95).map_or("nothing".to_owned(), |p95| format!("{:.1} ms", p95.as_secs_f64() * 1e3));
                problems.push(format!(
                    "{}: the 95th percentile is {p95}, and is to be below {} ms",
                    stage.name,
                    P95_LIMIT.as_millis()
                ));
            }
        }
        problems
    }
}

/// The last stage up to which everything was answered in time.
pub fn highest_kept<'a>(stages: &'a [Stage], tallies: &[Tally]) -> Option<&'a Stage> {
    let kept = stages.iter().zip(tallies).take_while(|(_, tally)| tally.failed() == 0 && within_limit(tally)).count();
    kept.checked_sub(1).map(|last| &stages[last])
}

fn within_limit(tally: &Tally) -> bool {
    tally.percentile(0.95).is_some_and(|p95| p95 < P95_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(milliseconds: u64, unsent: u64) -> Tally {
        let mut tally = Tally::default();
        (0..100).for_each(|_| tally.answered(Duration::from_millis(milliseconds), true));
        (0..unsent).for_each(|_| tally.not_sent());
        tally
    }

    #[test]
    fn stages_fill_the_time() {
        for profile in Profile::value_variants() {
            let stages = profile.stages(200.0, 50.0);
            let seconds: f64 = stages.iter().map(|stage| stage.seconds).sum();
            assert!((seconds - 50.0).abs() < 1e-9, "{profile:?}");
            assert!(stages[0].judged, "{profile:?}");
        }
        assert_eq!(Profile::Stress.stages(200.0, 50.0)[9].rate, 200.0);
    }

    #[test]
    fn errors_and_slowness_are_problems_where_they_are_judged() {
        let steady = Profile::Steady.stages(10.0, 10.0);
        assert_eq!(Profile::Steady.problems(&steady, &[tally(20, 0)]), [""; 0]);
        assert_eq!(Profile::Steady.problems(&steady, &[tally(20, 1)]), ["steady: 1 requests failed"]);
        assert_eq!(Profile::Steady.problems(&steady, &[tally(60, 0)]).len(), 1);
        assert_eq!(Profile::Steady.problems(&steady, &[Tally::default()]).len(), 1, "nothing was sent");
        let spike = Profile::Spike.stages(10.0, 10.0);
        let run = |during, after| [tally(1, 0), during, tally(300, 0), after];
        assert_eq!(Profile::Spike.problems(&spike, &run(tally(900, 0), tally(1, 0))), [""; 0]);
        assert_eq!(Profile::Spike.problems(&spike, &run(tally(900, 2), tally(60, 0))).len(), 2);
    }

    #[test]
    fn stress_tells_the_highest_rate_that_was_kept() {
        let stages = Profile::Stress.stages(100.0, 10.0);
        let tallies = [tally(1, 0), tally(2, 0), tally(70, 0), tally(3, 0)];
        assert_eq!(highest_kept(&stages, &tallies).unwrap().rate, 20.0);
        assert_eq!(highest_kept(&stages, &[tally(70, 0)]), None);
        assert_eq!(Profile::Stress.problems(&stages, &tallies), [""; 0]);
        assert_eq!(Profile::Stress.problems(&stages, &[tally(70, 0)]).len(), 1);
    }
}
