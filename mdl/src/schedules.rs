//! What runs by the clock.
//!
//! The actors: the workers declare their table of schedules ([`declare`](fn@declare)), say from time to time that they still have it
//! ([`declare_again`]), and each of them looks for times that have come ([`fire`](fn@fire)). A time is a row of `schedule_slots` whose key is the schedule and the time: whoever inserts it enqueues the job,
//! in the same transaction, so that any number of workers fire once. The clock is the database's.
//!
//! Schedules belong to no company: their rows and jobs are of the tenant [`SYSTEM`].

mod declare;
mod fire;
mod operate;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;

use crate::cron::Timing;
use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::jobs::RawJob;
use crate::schema::{schedule_slots, schedules};
use crate::tenants::SYSTEM;
use crate::text::text_enum;

pub use declare::{Replaced, declare, declare_again};
pub use fire::fire;
pub use operate::{pause, resume, run_now};

/// What happens at a time when the job of the time before still waits or runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// The time is skipped.
    Skip,
    /// Another job waits its turn.
    Queue,
}
text_enum!(Overlap { Skip = "skip", Queue = "queue" });

/// What happens when nobody was there at one or several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// It runs once, as soon as somebody is there.
    Once,
    /// It runs at its next time.
    Never,
}
text_enum!(CatchUp { Once = "once", Never = "never" });

/// What became of one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its job was enqueued.
    Fired,
    /// Its job was enqueued because an operator asked for it.
    Requested,
    /// The job before still waited or ran.
    Skipped,
    /// Nobody was there, and it is not made up for.
    Missed,
}
text_enum!(Outcome { Fired = "fired", Requested = "requested", Skipped = "skipped", Missed = "missed" });

/// A schedule as the workers' table has it.
#[derive(Debug, Clone)]
pub struct Definition {
    pub name: &'static str,
    /// What it does, in a sentence.
    pub description: &'static str,
    pub timing: Timing,
    pub overlap: Overlap,
    pub catch_up: CatchUp,
    pub enabled: bool,
    pub job: RawJob<'static>,
}

/// A schedule as the database has it.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = schedules)]
pub struct Schedule {
    pub name: String,
    pub description: String,
    pub expression: String,
    pub time_zone: String,
    pub overlap: Overlap,
    pub catch_up: CatchUp,
    /// `false` when the settings have switched it off.
    pub enabled: bool,
    pub queue: String,
    pub kind: String,
    pub payload: Value,
    pub max_attempts: i32,
    /// Times before this are not made up for.
    pub since: DateTime<Utc>,
    pub paused_at: Option<DateTime<Utc>>,
}

impl Schedule {
    /// Whether its times count.
    pub fn is_active(&self) -> bool {
        self.enabled && self.paused_at.is_none()
    }

    /// Its next times from now on; none when it is off or paused.
    pub fn upcoming(&self, count: usize) -> Result<Vec<DateTime<Utc>>> {
        if !self.is_active() {
            return Ok(Vec::new());
        }
        Ok(self.timing()?.upcoming(Utc::now(), count))
    }

    fn timing(&self) -> Result<Timing> {
        format!("{} {}", self.expression, self.time_zone).parse().map_err(|error: String| Error::internal(error))
    }

    fn job(&self) -> RawJob<'_> {
        let Self { queue, kind, payload, max_attempts, .. } = self;
        RawJob { queue, kind, payload: payload.clone(), max_attempts: *max_attempts }
    }
}

/// One time of a schedule, and what became of it.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = schedule_slots)]
pub struct Slot {
    pub schedule: String,
    pub slot: DateTime<Utc>,
    pub outcome: Outcome,
    /// The job may have been pruned since.
    pub job_id: Option<JobId>,
    pub fired_at: DateTime<Utc>,
}

/// Every schedule, by name. Any tenant's transaction may read them.
pub async fn all(mut conn: &AsyncPgConnection) -> Result<Vec<Schedule>> {
    let query = schedules::table.filter(schedules::tenant_id.eq(SYSTEM)).order(schedules::name).select(Schedule::as_select());
    Ok(query.load(&mut conn).await?)
}

/// The last times of a schedule, newest first.
pub async fn slots(mut conn: &AsyncPgConnection, name: &str, count: i64) -> Result<Vec<Slot>> {
    let query = schedule_slots::table
        .filter(schedule_slots::tenant_id.eq(SYSTEM).and(schedule_slots::schedule.eq(name)))
        .order(schedule_slots::slot.desc())
        .limit(count)
        .select(Slot::as_select());
    Ok(query.load(&mut conn).await?)
}
