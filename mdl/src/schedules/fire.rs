//! The times that come: each is taken once, by whoever inserts its row.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::dsl::{max, now};
use diesel::prelude::*;
use diesel::sql_types::Timestamptz;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{CatchUp, Outcome, Overlap, Schedule, Slot};
use crate::actor::Actor;
use crate::db::Db;
use crate::error::Result;
use crate::ids::JobId;
use crate::jobs::{self, Enqueue};
use crate::schema::{schedule_slots, schedules};
use crate::tenants::SYSTEM;

/// How late a time may be noticed by a schedule that does not catch up.
const LATE: TimeDelta = TimeDelta::minutes(1);

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

async fn slot(mut conn: &AsyncPgConnection, schedule: &Schedule, time: DateTime<Utc>) -> Result<Slot> {
    Ok(schedule_slots::table.find((SYSTEM, &schedule.name, time)).select(Slot::as_select()).first(&mut conn).await?)
}

pub async fn insert(
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
