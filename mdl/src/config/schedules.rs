use std::str::FromStr;

use crate::cron::Timing;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Schedules")]
pub struct ScheduleConfig {
    /// Other times for what runs by the clock, or none: `back_up=30 1 * * * Europe/Berlin;tidy_imports=off`. Five parts of cron
    /// (six with seconds first), and a time zone unless it is UTC. Separated by semicolons
    #[arg(id = "schedules", long = "schedules", env = "MDL_SCHEDULES", value_delimiter = ';')]
    pub overrides: Vec<ScheduleOverride>,
    /// Days that jobs are kept which succeeded, were cancelled or discarded. Dead ones are kept until somebody retries or
    /// discards them
    #[arg(id = "jobs_keep_days", long = "jobs-keep-days", env = "MDL_JOBS_KEEP_DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub jobs_keep_days: u32,
}

/// What an operator set for one schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleOverride {
    pub name: String,
    /// `None`: it is off.
    pub timing: Option<Timing>,
}

impl FromStr for ScheduleOverride {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, timing) = text.split_once('=').ok_or("must be name=expression or name=off")?;
        let timing = match timing.trim() {
            "off" => None,
            timing => Some(timing.parse()?),
        };
        Ok(Self { name: name.trim().to_owned(), timing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides() {
        let given: ScheduleOverride = "back_up = 30 1 * * * Europe/Berlin".parse().unwrap();
        assert_eq!(given.name, "back_up");
        assert_eq!(given.timing.unwrap().to_string(), "30 1 * * * Europe/Berlin");
        assert_eq!("tidy_imports=off".parse::<ScheduleOverride>().unwrap().timing, None);
        for bad in ["tidy_imports", "back_up=never"] {
            assert!(bad.parse::<ScheduleOverride>().is_err(), "{bad}");
        }
    }
}
