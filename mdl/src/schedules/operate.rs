//! What operators of the deployment do with a schedule.

use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::prelude::*;
use diesel::sql_types::Timestamptz;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::json;
use uuid::Uuid;

use super::fire::insert;
use super::{Outcome, Schedule, Slot};
use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::audit;
use crate::error::{Error, Result};
use crate::jobs::{self, Enqueue};
use crate::schema::schedules;
use crate::tenants::{SYSTEM, require_system};

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

async fn by_name(mut conn: &AsyncPgConnection, name: &str) -> Result<Schedule> {
    let found = schedules::table.find((SYSTEM, name)).select(Schedule::as_select()).for_update().first(&mut conn).await;
    found.optional()?.ok_or_else(|| Error::not_found("schedule", name))
}
