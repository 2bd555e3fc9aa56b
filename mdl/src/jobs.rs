//! Background work. The `jobs` table is the ledger; Redis only carries ids to the workers.
//!
//! A job is enqueued in the transaction of the change that needs it. The relay moves due ids to Redis, a worker claims the
//! row with a lease and a fencing token, and its end is written with that token (see `ledger`).

pub mod ledger;

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use rand::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::actor::Actor;
use crate::error::Result;
use crate::ids::{JobId, TenantId};
use crate::schema::jobs;
use crate::telemetry;

/// The PostgreSQL notification that wakes the relay; its payload is the queue's name.
pub const CHANNEL: &str = "mdl_jobs";

/// The PostgreSQL notification that makes workers look whether one of their jobs is to be cancelled.
pub const CANCEL_CHANNEL: &str = "mdl_job_cancel";

/// A kind of job: its payload (ids, not copies) and how it is run.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The stored name, `verb_noun`: `import_catalog`.
    const KIND: &'static str;
    const QUEUE: &'static str;
    const MAX_ATTEMPTS: i32;
    /// How long one attempt may take.
    const TIMEOUT: Duration;

    /// How long to wait before the next attempt, when `attempt` (from 1) has failed: doubling from 2 s up to 10 minutes,
    /// with half of it left to chance so that many that failed together do not come back together.
    fn backoff(attempt: i32) -> Duration {
        let ceiling = 2f64.powi(attempt.clamp(1, 20)).min(600.0);
        Duration::from_secs_f64(rand::rng().random_range(ceiling / 2.0..=ceiling))
    }
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// For its time, or for room in the queue.
    Waiting,
    /// Its id is in Redis, for the next free worker.
    Dispatched,
    /// A worker holds its lease.
    Running,
    Succeeded,
    /// Out of attempts, or not worth repeating: kept with its error.
    Dead,
    Cancelled,
}

crate::text::text_enum!(JobState {
    Waiting = "waiting",
    Dispatched = "dispatched",
    Running = "running",
    Succeeded = "succeeded",
    Dead = "dead",
    Cancelled = "cancelled",
});

/// A job as the ledger knows it.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = jobs)]
pub struct JobRow {
    pub tenant_id: TenantId,
    pub id: JobId,
    pub queue: String,
    pub kind: String,
    pub payload: Value,
    pub state: JobState,
    pub priority: i16,
    pub run_at: DateTime<Utc>,
    pub unique_key: Option<String>,
    /// Attempts begun so far.
    pub attempt: i32,
    pub max_attempts: i32,
    /// Which worker has it, or had it last.
    pub worker: Option<String>,
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// Of the last attempt that failed. Internal detail: for operators only.
    pub last_error: Option<String>,
    pub enqueued_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    /// Of the last attempt.
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
}

/// When and how to enqueue; `Default` is at once.
#[derive(Debug, Clone, Default)]
pub struct Enqueue {
    /// At most one unfinished job of the kind has this key.
    pub unique_key: Option<String>,
    pub run_at: Option<DateTime<Utc>>,
    /// Greater runs earlier.
    pub priority: i16,
}

#[derive(Insertable)]
#[diesel(table_name = jobs)]
struct NewJob<'a> {
    tenant_id: TenantId,
    id: JobId,
    queue: &'a str,
    kind: &'a str,
    payload: Value,
    priority: i16,
    /// The database's clock when not given.
    run_at: Option<DateTime<Utc>>,
    unique_key: Option<&'a str>,
    max_attempts: i32,
    trace_context: Value,
    enqueued_by: Option<Uuid>,
}

/// Adds a job to the ledger, in the caller's transaction. `None` when an unfinished job has the same unique key.
pub async fn enqueue<J: Job>(mut conn: &AsyncPgConnection, actor: &Actor, job: &J, how: &Enqueue) -> Result<Option<JobId>> {
    let row = NewJob {
        tenant_id: actor.tenant,
        id: JobId::new(),
        queue: J::QUEUE,
        kind: J::KIND,
        payload: serde_json::to_value(job)?,
        priority: how.priority,
        run_at: how.run_at,
        unique_key: how.unique_key.as_deref(),
        max_attempts: J::MAX_ATTEMPTS,
        trace_context: telemetry::trace_context(),
        enqueued_by: Some(actor.id()).filter(|id| !id.is_nil()),
    };
    let id = diesel::insert_into(jobs::table)
        .values(&row)
        .on_conflict_do_nothing()
        .returning(jobs::id)
        .get_result(&mut conn)
        .await
        .optional()?;
    if id.is_some() {
        notify(conn, CHANNEL, J::QUEUE).await?;
    }
    Ok(id)
}

/// The job with this id.
pub async fn by_id(mut conn: &AsyncPgConnection, tenant: TenantId, id: JobId) -> Result<Option<JobRow>> {
    Ok(jobs::table
        .select(JobRow::as_select())
        .filter(jobs::tenant_id.eq(tenant).and(jobs::id.eq(id)))
        .first(&mut conn)
        .await
        .optional()?)
}

/// Asks for a job to be stopped, in the caller's transaction. One that has not begun is cancelled at once; of one that runs,
/// its worker hears within a second. Answers with the state it is in now: `Cancelled`, `Running`, or how it had already
/// ended; `None` when there is no such job.
///
/// A handler's transaction may lock its own rows before the job's (see [`ledger::hold`]), so lock them in that order too.
pub async fn request_cancel(mut conn: &AsyncPgConnection, tenant: TenantId, id: JobId) -> Result<Option<JobState>> {
    #[derive(QueryableByName)]
    struct Now {
        #[diesel(sql_type = diesel::sql_types::Text)]
        state: JobState,
    }
    let now: Option<Now> = diesel::sql_query(
        "UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, now()),
             state = CASE WHEN state = 'running' THEN state ELSE 'cancelled' END,
             finished_at = CASE WHEN state = 'running' THEN NULL ELSE now() END
         WHERE tenant_id = $1 AND id = $2 AND state IN ('waiting', 'dispatched', 'running')
         RETURNING state",
    )
    .bind::<diesel::sql_types::Uuid, _>(tenant)
    .bind::<diesel::sql_types::Uuid, _>(id)
    .get_result(&mut conn)
    .await
    .optional()?;
    match now {
        None => Ok(by_id(conn, tenant, id).await?.map(|job| job.state)),
        Some(now) => {
            if now.state == JobState::Running {
                notify(conn, CANCEL_CHANNEL, &id.to_string()).await?;
            }
            Ok(Some(now.state))
        }
    }
}

/// Sends a notification when the caller's transaction commits, and none when it does not.
pub(crate) async fn notify(mut conn: &AsyncPgConnection, channel: &str, payload: &str) -> Result<()> {
    diesel::sql_query("SELECT pg_notify($1, $2)")
        .bind::<diesel::sql_types::Text, _>(channel)
        .bind::<diesel::sql_types::Text, _>(payload)
        .execute(&mut conn)
        .await?;
    Ok(())
}
