//! What operators do to jobs: retry, cancel, discard, reschedule; one, several, or all that a filter lets through.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::json;
use uuid::Uuid;

use super::store::{Filter, matching};
use super::{CANCEL_CHANNEL, CHANNEL, JobState, live, notify};
use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::audit;
use crate::error::{Code, Error, Result};
use crate::ids::{JobId, TenantId};
use crate::schema::jobs;

/// Most jobs that one call changes; the next call changes the next.
pub const MAX_STEERED: i64 = 100_000;

/// Ids that the audit log names; of more it has the filter and the count.
const AUDITED_IDS: usize = 100;

/// What is to be done to jobs. Jobs in other states than those it is for are left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Dead, cancelled and discarded jobs run again, and those that failed and wait for their next attempt: at once and with all
    /// their attempts. Not if another job has their unique key by now.
    Retry,
    /// Jobs that have not begun are cancelled; those that run are asked to stop.
    Cancel,
    /// Dead jobs are no longer in anybody's way, and are deleted in time.
    Discard,
    /// Waiting jobs are due at this time instead.
    Reschedule(DateTime<Utc>),
}

impl Action {
    /// The states of the jobs that it is for.
    pub fn states(self) -> &'static [JobState] {
        match self {
            Action::Retry => &[JobState::Waiting, JobState::Dead, JobState::Cancelled, JobState::Discarded],
            Action::Cancel => &JobState::UNFINISHED,
            Action::Discard => &[JobState::Dead],
            Action::Reschedule(_) => &[JobState::Waiting],
        }
    }

    /// What the audit log calls it.
    fn audited(self) -> &'static str {
        match self {
            Action::Retry => "job.retried",
            Action::Cancel => "job.cancel_requested",
            Action::Discard => "job.discarded",
            Action::Reschedule(_) => "job.rescheduled",
        }
    }
}

/// Does something to the actor's tenant's jobs that a filter lets through and that are in a state for it, [`MAX_STEERED`] at most,
/// the oldest first. Answers how many. With `dry_run` it finds out how many, and changes nothing.
///
/// Problem: `filter` (lets everything through: that is never meant).
pub async fn steer(app: &App, actor: &Actor, action: Action, filter: &Filter, dry_run: bool) -> Result<u64> {
    actor.require(Permission::Operate)?;
    if filter.is_empty() {
        return Err(Error::invalid("filter", Code::Required, "Give ids or at least one condition"));
    }
    let tx = app.db.begin(actor.tenant).await?;
    let ids = lock(&tx, actor.tenant, action, filter).await?;
    let changed = change(&tx, actor.tenant, action, &ids).await?;
    if dry_run {
        // What was changed is rolled back with the transaction.
        return Ok(changed.len() as u64);
    }
    if !changed.is_empty() {
        let entity = if changed.len() == 1 { changed[0].id.0 } else { Uuid::nil() };
        let named: Vec<_> = changed.iter().take(AUDITED_IDS).map(|job| job.id).collect();
        let mut details = json!({ "count": changed.len(), "jobs": named, "filter": filter });
        if let Action::Reschedule(time) = action {
            details["runAt"] = json!(time);
        }
        audit::record(&tx, actor, action.audited(), ("job", entity), &details).await?;
        if changed.iter().any(|job| job.state == JobState::Running) {
            notify(&tx, CANCEL_CHANNEL, "").await?;
        }
        notify(&tx, CHANNEL, "").await?;
    }
    tx.commit().await?;
    if !changed.is_empty() {
        live::tell(app, actor.tenant, changed.iter().map(|job| job.id)).await;
    }
    Ok(changed.len() as u64)
}

/// The jobs it is about, locked in the order of their ids as everywhere.
async fn lock(mut conn: &AsyncPgConnection, tenant: TenantId, action: Action, filter: &Filter) -> Result<Vec<JobId>> {
    // A locking query takes no boxed one, so the filter is asked first and the states again when the rows are locked.
    let found: Vec<JobId> = matching(&[tenant], filter)
        .filter(jobs::state.eq_any(action.states()))
        .order(jobs::id)
        .limit(MAX_STEERED)
        .select(jobs::id)
        .load(&mut conn)
        .await?;
    Ok(jobs::table
        .filter(jobs::tenant_id.eq(tenant).and(jobs::id.eq_any(found)).and(jobs::state.eq_any(action.states())))
        .order(jobs::id)
        .select(jobs::id)
        .for_update()
        .load(&mut conn)
        .await?)
}

#[derive(QueryableByName)]
struct Changed {
    #[diesel(sql_type = SqlUuid)]
    id: JobId,
    #[diesel(sql_type = Text)]
    state: JobState,
}

async fn change(mut conn: &AsyncPgConnection, tenant: TenantId, action: Action, ids: &[JobId]) -> Result<Vec<Changed>> {
    let statement = match action {
        Action::Retry => {
            "UPDATE jobs SET state = 'waiting', run_at = now(), attempt = 0, cancel_requested_at = NULL, finished_at = NULL
             FROM (SELECT DISTINCT ON (kind, coalesce(unique_key, id::text)) id FROM jobs
                   WHERE tenant_id = $1 AND id = ANY($2) ORDER BY kind, coalesce(unique_key, id::text), id DESC) AS newest
             WHERE jobs.tenant_id = $1 AND jobs.id = newest.id
               AND (jobs.state <> 'waiting' OR jobs.attempt > 0)
               AND NOT EXISTS (SELECT FROM jobs AS other
                               WHERE other.tenant_id = $1 AND other.kind = jobs.kind AND other.unique_key = jobs.unique_key
                                 AND other.id <> jobs.id
                                 AND (other.unique_until IS NOT NULL
                                      OR other.state IN ('held', 'waiting', 'dispatched', 'running')))
             RETURNING jobs.id, jobs.state"
        }
        Action::Cancel => {
            "UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, now()),
                 state = CASE WHEN state = 'running' THEN state ELSE 'cancelled' END,
                 finished_at = CASE WHEN state = 'running' THEN NULL ELSE now() END
             WHERE tenant_id = $1 AND id = ANY($2) RETURNING id, state"
        }
        Action::Discard => "UPDATE jobs SET state = 'discarded' WHERE tenant_id = $1 AND id = ANY($2) RETURNING id, state",
        Action::Reschedule(time) => {
            let query = sql_query("UPDATE jobs SET run_at = $3 WHERE tenant_id = $1 AND id = ANY($2) RETURNING id, state")
                .bind::<SqlUuid, _>(tenant)
                .bind::<Array<SqlUuid>, _>(ids)
                .bind::<Timestamptz, _>(time);
            return Ok(query.load(&mut conn).await?);
        }
    };
    let query = sql_query(statement).bind::<SqlUuid, _>(tenant).bind::<Array<SqlUuid>, _>(ids);
    Ok(query.load(&mut conn).await?)
}
