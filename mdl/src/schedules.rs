//! What runs by the clock.
//!
//! The actors: the workers declare their table of schedules ([`declare`]), say from time to time that they still have it
//! ([`declare_again`]), and each of them looks for times that have come ([`fire`]). A time is a row of `schedule_slots` whose key is the schedule and the time: whoever inserts it enqueues the job,
//! in the same transaction, so that any number of workers fire once. The clock is the database's.
//!
//! Schedules belong to no company: their rows and jobs are of the tenant [`SYSTEM`].

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::dsl::{max, now, sql};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Timestamptz};
use diesel::upsert::excluded;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::{Value, json};
use tracing::warn;
use uuid::Uuid;

use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::audit;
use crate::cron::Timing;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::jobs::{self, Enqueue, RawJob};
use crate::schema::{schedule_slots, schedules};
use crate::tenants::{SYSTEM, require_system};
use crate::text::text_enum;

/// How late a time may be noticed by a schedule that does not catch up.
const LATE: TimeDelta = TimeDelta::minutes(1);

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

/// Makes the database's schedules those of this table. A new or changed one does not make up for times before now. One that is not
/// in the table stays while a worker of another version may have it. The log tells whose times are not those that another worker has.
pub async fn declare(db: &Db, table: &[Definition]) -> Result<()> {
    let tx = db.begin(SYSTEM).await?;
    let declared = schedules::table
        .filter(schedules::tenant_id.eq(SYSTEM))
        .filter(sql::<Bool>("declared_at > now() - interval '2 minutes'"))
        .select(Schedule::as_select());
    let others: Vec<Schedule> = declared.load(&mut &*tx).await?;
    for definition in table {
        let row = (
            schedules::tenant_id.eq(SYSTEM),
            schedules::name.eq(definition.name),
            (schedules::description.eq(definition.description), schedules::enabled.eq(definition.enabled)),
            schedules::expression.eq(definition.timing.expression()),
            schedules::time_zone.eq(definition.timing.zone().name()),
            (schedules::overlap.eq(definition.overlap), schedules::catch_up.eq(definition.catch_up)),
            (schedules::queue.eq(definition.job.queue), schedules::kind.eq(definition.job.kind)),
            (schedules::payload.eq(&definition.job.payload), schedules::max_attempts.eq(definition.job.max_attempts)),
        );
        let changed = schedules::expression
            .ne(excluded(schedules::expression))
            .or(schedules::time_zone.ne(excluded(schedules::time_zone)))
            .or(schedules::enabled.ne(excluded(schedules::enabled)));
        diesel::insert_into(schedules::table)
            .values(row)
            .on_conflict((schedules::tenant_id, schedules::name))
            .do_update()
            .set((
                schedules::description.eq(excluded(schedules::description)),
                schedules::since.eq(diesel::dsl::case_when(changed, now.into_sql::<Timestamptz>()).otherwise(schedules::since)),
                schedules::expression.eq(excluded(schedules::expression)),
                schedules::time_zone.eq(excluded(schedules::time_zone)),
                (schedules::overlap.eq(excluded(schedules::overlap)), schedules::catch_up.eq(excluded(schedules::catch_up))),
                schedules::enabled.eq(excluded(schedules::enabled)),
                (schedules::queue.eq(excluded(schedules::queue)), schedules::kind.eq(excluded(schedules::kind))),
                schedules::payload.eq(excluded(schedules::payload)),
                schedules::max_attempts.eq(excluded(schedules::max_attempts)),
                schedules::declared_at.eq(now),
            ))
            .execute(&mut &*tx)
            .await?;
    }
    let names: Vec<_> = table.iter().map(|definition| definition.name).collect();
    let unknown = schedules::table.filter(schedules::tenant_id.eq(SYSTEM).and(schedules::name.ne_all(names)));
    diesel::delete(unknown.filter(sql::<Bool>("declared_at < now() - interval '1 day'"))).execute(&mut &*tx).await?;
    tx.commit().await?;
    for definition in table {
        if let Some((before, after)) = others.iter().find_map(|other| replaced(other, definition)) {
            let schedule = definition.name;
            warn!(schedule, before, after, "This worker's settings replace those of another worker: all of them need the same");
        }
    }
    Ok(())
}

/// When a schedule ran, and when it does now, if a definition changes that.
fn replaced(before: &Schedule, definition: &Definition) -> Option<(String, String)> {
    fn times(enabled: bool, expression: &str, zone: &str) -> String {
        if enabled { format!("{expression} {zone}") } else { "off".to_owned() }
    }
    let timing = &definition.timing;
    let old = times(before.enabled, &before.expression, &before.time_zone);
    let new = times(definition.enabled, timing.expression(), timing.zone().name());
    (before.name == definition.name && old != new).then_some((old, new))
}

/// Says that a worker has these schedules. What they are is left as it is, because another version may have declared it since; but
/// when one is missing, which an older version may have removed, all are declared.
pub async fn declare_again(db: &Db, table: &[Definition]) -> Result<()> {
    let names: Vec<_> = table.iter().map(|definition| definition.name).collect();
    let tx = db.begin(SYSTEM).await?;
    let there = diesel::update(schedules::table.filter(schedules::tenant_id.eq(SYSTEM).and(schedules::name.eq_any(names))))
        .set(schedules::declared_at.eq(now))
        .execute(&mut &*tx)
        .await?;
    tx.commit().await?;
    if there < table.len() { declare(db, table).await } else { Ok(()) }
}

/// Enqueues the jobs of those schedules whose time has come, among those with these names. Answers with the times that this
/// call has taken, and how long until the next time of any.
pub async fn fire(db: &Db, names: &[&str]) -> Result<(Vec<Slot>, Option<Duration>)> {
    let tx = db.begin(SYSTEM).await?;
    let at: DateTime<Utc> = diesel::select(now.into_sql::<Timestamptz>()).get_result(&mut &*tx).await?;
    let table: Vec<Schedule> = schedules::table
        .filter(schedules::tenant_id.eq(SYSTEM).and(schedules::name.eq_any(names)))
        .order(schedules::name)
        .select(Schedule::as_select())
        .load(&mut &*tx)
        .await?;
    let mut taken = Vec::new();
    let mut next: Option<DateTime<Utc>> = None;
    for schedule in table.iter().filter(|schedule| schedule.is_active()) {
        let timing = schedule.timing()?;
        if let Some(time) = timing.latest(at)
            && time > last(&tx, schedule).await?
        {
            taken.extend(take(&tx, schedule, time, at - time).await?);
        }
        next = next.into_iter().chain(timing.next(at)).min();
    }
    tx.commit().await?;
    Ok((taken, next.and_then(|next| (next - at).to_std().ok())))
}

/// The last time that was taken; what lies before it is not looked at again.
async fn last(mut conn: &AsyncPgConnection, schedule: &Schedule) -> Result<DateTime<Utc>> {
    let last: Option<DateTime<Utc>> = schedule_slots::table
        .filter(schedule_slots::tenant_id.eq(SYSTEM).and(schedule_slots::schedule.eq(&schedule.name)))
        .filter(schedule_slots::outcome.ne(Outcome::Requested))
        .select(max(schedule_slots::slot))
        .first(&mut conn)
        .await?;
    Ok(last.map_or(schedule.since, |last| last.max(schedule.since)))
}

/// Takes a time and enqueues its job. `None` when another worker has taken it.
async fn take(conn: &AsyncPgConnection, schedule: &Schedule, time: DateTime<Utc>, late: TimeDelta) -> Result<Option<Slot>> {
    if schedule.catch_up == CatchUp::Never && late > LATE {
        return insert(conn, schedule, time, Outcome::Missed, None).await;
    }
    // Inserted first: another worker with the same time waits here for our commit, and then has nothing to do.
    if insert(conn, schedule, time, Outcome::Skipped, None).await?.is_none() {
        return Ok(None);
    }
    let unique_key = (schedule.overlap == Overlap::Skip).then(|| format!("schedule:{}", schedule.name));
    let how = Enqueue { unique_key, ..Enqueue::default() };
    match jobs::enqueue_raw(conn, &Actor::system(SYSTEM), schedule.job(), &how).await? {
        Some(job) => update(conn, schedule, time, Outcome::Fired, job).await.map(Some),
        None => slot(conn, schedule, time).await.map(Some),
    }
}

/// Enqueues the job of a schedule now, besides its times. Only for members of [`SYSTEM`] with `operate`, and the command line.
///
/// Problem: `name` (no such schedule).
pub async fn run_now(app: &App, actor: &Actor, name: &str) -> Result<Slot> {
    require_system(actor, Permission::Operate)?;
    let tx = app.db.begin(SYSTEM).await?;
    let schedule = by_name(&tx, name).await?;
    let job = jobs::enqueue_raw(&tx, actor, schedule.job(), &Enqueue::default()).await?;
    let time: DateTime<Utc> = diesel::select(now.into_sql::<Timestamptz>()).get_result(&mut &*tx).await?;
    let slot = insert(&tx, &schedule, time, Outcome::Requested, job).await?;
    let details = json!({ "name": name, "job": job });
    audit::record(&tx, actor, "schedule.requested", ("schedule", Uuid::nil()), &details).await?;
    tx.commit().await?;
    slot.ok_or_else(|| Error::internal("two requests at the same microsecond"))
}

/// Lets a schedule rest: its times pass without a job, and are not made up for. As [`run_now`].
pub async fn pause(app: &App, actor: &Actor, name: &str) -> Result<Schedule> {
    set_paused(app, actor, name, true).await
}

/// Lets the times of a schedule count again. As [`run_now`].
pub async fn resume(app: &App, actor: &Actor, name: &str) -> Result<Schedule> {
    set_paused(app, actor, name, false).await
}

async fn set_paused(app: &App, actor: &Actor, name: &str, paused: bool) -> Result<Schedule> {
    require_system(actor, Permission::Operate)?;
    let tx = app.db.begin(SYSTEM).await?;
    let schedule = by_name(&tx, name).await?;
    if schedule.paused_at.is_some() == paused {
        return Ok(schedule);
    }
    let paused_at = paused.then(Utc::now);
    let changed = diesel::update(schedules::table.find((SYSTEM, name)))
        .set((schedules::paused_at.eq(paused_at), schedules::since.eq(now)))
        .returning(Schedule::as_returning())
        .get_result(&mut &*tx)
        .await?;
    let action = if paused { "schedule.paused" } else { "schedule.resumed" };
    audit::record(&tx, actor, action, ("schedule", Uuid::nil()), &json!({ "name": name })).await?;
    tx.commit().await?;
    Ok(changed)
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

async fn by_name(mut conn: &AsyncPgConnection, name: &str) -> Result<Schedule> {
    let found = schedules::table.find((SYSTEM, name)).select(Schedule::as_select()).for_update().first(&mut conn).await;
    found.optional()?.ok_or_else(|| Error::not_found("schedule", name))
}

async fn slot(mut conn: &AsyncPgConnection, schedule: &Schedule, time: DateTime<Utc>) -> Result<Slot> {
    Ok(schedule_slots::table.find((SYSTEM, &schedule.name, time)).select(Slot::as_select()).first(&mut conn).await?)
}

async fn insert(
    mut conn: &AsyncPgConnection,
    schedule: &Schedule,
    time: DateTime<Utc>,
    outcome: Outcome,
    job: Option<JobId>,
) -> Result<Option<Slot>> {
    let row = (
        schedule_slots::tenant_id.eq(SYSTEM),
        schedule_slots::schedule.eq(&schedule.name),
        schedule_slots::slot.eq(time),
        schedule_slots::outcome.eq(outcome),
        schedule_slots::job_id.eq(job),
    );
    let inserted = diesel::insert_into(schedule_slots::table)
        .values(row)
        .on_conflict_do_nothing()
        .returning(Slot::as_returning())
        .get_result(&mut conn)
        .await;
    Ok(inserted.optional()?)
}

async fn update(
    mut conn: &AsyncPgConnection,
    schedule: &Schedule,
    time: DateTime<Utc>,
    outcome: Outcome,
    job: JobId,
) -> Result<Slot> {
    Ok(diesel::update(schedule_slots::table.find((SYSTEM, &schedule.name, time)))
        .set((schedule_slots::outcome.eq(outcome), schedule_slots::job_id.eq(job)))
        .returning(Slot::as_returning())
        .get_result(&mut conn)
        .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_with_other_settings_is_noticed() {
        let definition = |timing: &str, enabled| Definition {
            name: "back_up",
            description: "",
            timing: timing.parse().unwrap(),
            overlap: Overlap::Skip,
            catch_up: CatchUp::Once,
            enabled,
            job: RawJob { queue: "backups", kind: "back_up", payload: Value::Null, max_attempts: 1 },
        };
        let before = Schedule {
            name: "back_up".to_owned(),
            description: String::new(),
            expression: "0 2 * * *".to_owned(),
            time_zone: "UTC".to_owned(),
            overlap: Overlap::Skip,
            catch_up: CatchUp::Once,
            enabled: true,
            queue: "backups".to_owned(),
            kind: "back_up".to_owned(),
            payload: Value::Null,
            max_attempts: 1,
            since: Utc::now(),
            paused_at: None,
        };
        assert_eq!(replaced(&before, &definition("0 2 * * *", true)), None);
        let off = replaced(&before, &definition("0 2 * * *", false));
        assert_eq!(off, Some(("0 2 * * * UTC".to_owned(), "off".to_owned())));
        let (_, after) = replaced(&before, &definition("30 1 * * * Europe/Berlin", true)).unwrap();
        assert_eq!(after, "30 1 * * * Europe/Berlin");
    }
}
