//! What runs by the clock, and the task that looks at it.
//!
//! [`TABLE`] is the one list. A new line needs a job whose payload has a `Default`; its times are UTC unless it says otherwise.
//! Operators give other times, or none, with `MDL_SCHEDULES`.

use std::time::{Duration, Instant};

use anyhow::Context;
use mdl::backups::{BackUp, BackUpFiles, PruneBackups, RestoreDrillJob, WatchBackups};
use mdl::config::ScheduleConfig;
use mdl::cron::Timing;
use mdl::instruments;
use mdl::jobs::{Job, RawJob};
use mdl::maintenance::{AnnounceExpiringKeys, PruneCredentials, PruneJobs, TidyImports};
use mdl::schedules::{self, CatchUp, Definition, Outcome, Overlap, Replaced};
use mdl::warming::WarmCaches;
use tracing::{info, warn};

use crate::Shared;
use crate::link::Outage;

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    pub name: &'static str,
    description: &'static str,
    /// Cron, and a time zone unless it is UTC.
    timing: &'static str,
    overlap: Overlap,
    catch_up: CatchUp,
    job: fn() -> serde_json::Result<RawJob<'static>>,
}

/// Everything that runs by the clock.
pub const TABLE: &[Line] = &[
    Line::new::<TidyImports>("tidy_imports", "*/10 * * * *", "Ends imports whose job was lost").never_late(),
    Line::new::<WarmCaches>("warm_caches", "*/5 * * * *", "Makes the answers that are used most, where warming is set up")
        .never_late(),
    Line::new::<AnnounceExpiringKeys>("announce_expiring_keys", "0 6 * * *", "Announces API keys that expire within a week"),
    Line::new::<PruneJobs>("prune_jobs", "20 1 * * *", "Deletes jobs that ended long ago"),
    Line::new::<PruneCredentials>("prune_credentials", "40 1 * * *", "Deletes idempotency keys and sessions past their time"),
    Line::new::<BackUp>("back_up", "0 2 * * *", "Backs up the database and the uploaded files, and restores the backup on trial"),
    Line::new::<BackUpFiles>("back_up_files", "0 3 * * *", "Stores the uploaded files that no backup has yet"),
    Line::new::<PruneBackups>(
        "prune_backups",
        "0 5 * * *",
        "Removes backups that are older than their place keeps them, and what died ones left",
    ),
    Line::new::<RestoreDrillJob>(
        "restore_drill",
        "0 4 * * 0",
        "Restores the newest backup of each place on trial, with all its files",
    ),
    Line::new::<WatchBackups>("watch_backups", "*/15 * * * *", "Looks how old the newest verified backup is").never_late(),
];

impl Line {
    /// A job that is skipped while the one before still runs, and that is made up for once after nobody was there.
    const fn new<J: Job + Default>(name: &'static str, timing: &'static str, description: &'static str) -> Self {
        Self { name, description, timing, overlap: Overlap::Skip, catch_up: CatchUp::Once, job: payload::<J> }
    }

    /// A time at which nobody was there passes.
    const fn never_late(self) -> Self {
        Self { catch_up: CatchUp::Never, ..self }
    }
}

fn payload<J: Job + Default>() -> serde_json::Result<RawJob<'static>> {
    let payload = serde_json::to_value(J::default())?;
    Ok(RawJob { queue: J::QUEUE, kind: J::KIND, payload, max_attempts: J::MAX_ATTEMPTS })
}

/// The table with the operator's settings. Fails with a sentence when they name what is not in it.
pub fn definitions(table: &[Line], settings: &ScheduleConfig) -> anyhow::Result<Vec<Definition>> {
    for given in &settings.overrides {
        let names = || table.iter().map(|line| line.name).collect::<Vec<_>>().join(", ");
        let known = table.iter().any(|line| line.name == given.name);
        anyhow::ensure!(known, "MDL_SCHEDULES names {:?}, but there are only {}", given.name, names());
    }
    let definition = |line: &Line| -> anyhow::Result<Definition> {
        let given = settings.overrides.iter().rfind(|given| given.name == line.name);
        let own = line.timing.parse::<Timing>().map_err(anyhow::Error::msg).with_context(|| line.name)?;
        Ok(Definition {
            name: line.name,
            description: line.description,
            timing: given.and_then(|given| given.timing.clone()).unwrap_or(own),
            overlap: line.overlap,
            catch_up: line.catch_up,
            enabled: given.is_none_or(|given| given.timing.is_some()),
            job: (line.job)()?,
        })
    };
    table.iter().map(definition).collect()
}

/// The table as rows in Markdown, as docs/operations/jobs.md has them: schedule, times, what it does.
pub fn reference() -> String {
    TABLE.iter().map(|line| format!("| `{}` | `{}` | {} |\n", line.name, line.timing, line.description)).collect()
}

/// How often the table is looked at when no time comes sooner: an operator may have resumed a schedule.
const LOOK: Duration = Duration::from_secs(10);

/// How often a worker says that it has these schedules, so that a restart of an older one, which lacks some, does no lasting harm.
const DECLARE: Duration = Duration::from_secs(60);

/// How long after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// That this worker has declared its schedules.
struct Declared {
    at: Instant,
    /// Those that another worker has replaced since, as the log has told.
    replaced: Vec<Replaced>,
}

/// Fires what is due until told to stop.
pub async fn keep(shared: Shared, definitions: Vec<Definition>) {
    let names: Vec<_> = definitions.iter().map(|definition| definition.name).collect();
    let mut outage = Outage::of("look at the schedules");
    let mut declared = None;
    while !shared.stop.is_cancelled() {
        let wait = match look(&shared, &definitions, &names, &mut declared).await {
            Ok(wait) => {
                outage.over();
                // A time is never met exactly; a moment after it, it has come.
                wait.map_or(LOOK, |wait| (wait + Duration::from_millis(20)).min(LOOK))
            }
            Err(error) => {
                outage.failed(&error);
                RETRY
            }
        };
        let _stopped = shared.stop.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}

async fn look(
    shared: &Shared,
    definitions: &[Definition],
    names: &[&'static str],
    declared: &mut Option<Declared>,
) -> mdl::Result<Option<Duration>> {
    match declared {
        None => {
            schedules::declare(&shared.db, definitions).await?;
            *declared = Some(Declared { at: Instant::now(), replaced: Vec::new() });
        }
        Some(before) if before.at.elapsed() >= DECLARE => {
            let replaced = schedules::declare_again(&shared.db, definitions).await?;
            for Replaced { schedule, ours, theirs } in replaced.iter().filter(|one| !before.replaced.contains(one)) {
                warn!(
                    schedule,
                    ours, theirs, "Another worker's settings have replaced those of this one: all of them need the same"
                );
            }
            *before = Declared { at: Instant::now(), replaced };
        }
        Some(_) => {}
    }
    let (taken, next) = schedules::fire(&shared.db, names).await?;
    for slot in taken {
        let (schedule, outcome) = (slot.schedule, slot.outcome.as_str());
        match slot.outcome {
            Outcome::Fired | Outcome::Requested => info!(schedule, time = %slot.slot, "Enqueued a job by the clock"),
            Outcome::Skipped => warn!(schedule, time = %slot.slot, "Skipped a time: the job before has not ended"),
            Outcome::Missed => warn!(schedule, time = %slot.slot, "Missed a time: no worker was there"),
        }
        metrics::counter!(instruments::SCHEDULE_TIMES, "schedule" => schedule, "outcome" => outcome).increment(1);
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(overrides: &[&str]) -> ScheduleConfig {
        ScheduleConfig { overrides: overrides.iter().map(|text| text.parse().unwrap()).collect(), jobs_keep_days: 7 }
    }

    #[test]
    fn the_table_can_be_read() {
        assert_eq!(definitions(TABLE, &settings(&[])).unwrap().len(), TABLE.len());
    }

    #[test]
    fn settings_win_and_must_name_what_there_is() {
        let given = definitions(TABLE, &settings(&["prune_jobs=5 4 * * * Asia/Tokyo", "tidy_imports=off"])).unwrap();
        let of = |name: &str| given.iter().find(|definition| definition.name == name).unwrap();
        assert_eq!(of("prune_jobs").timing.to_string(), "5 4 * * * Asia/Tokyo");
        assert!(!of("tidy_imports").enabled && of("prune_jobs").enabled);
        let error = definitions(TABLE, &settings(&["prune_job=off"])).unwrap_err().to_string();
        assert!(error.contains("\"prune_job\"") && error.contains("prune_jobs"), "{error}");
    }
}
