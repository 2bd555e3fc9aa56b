//! Background work. The `jobs` table is the ledger; Redis only carries ids to the workers.
//!
//! A job is enqueued in the transaction of the change that needs it. The relay moves due ids to Redis, a worker claims the
//! row with a lease and a fencing token, and its end is written with that token (see `ledger`).

pub mod batches;
pub mod dispatch;
pub mod ledger;
pub mod live;
mod prune;
pub mod queues;
mod redact;
pub mod steer;
pub mod store;
pub mod workers;

pub use prune::prune;
pub use redact::redacted;

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::prelude::*;
use diesel::sql_types;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use rand::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::actor::Actor;
use crate::db::Prepare;
use crate::error::Result;
use crate::ids::{BatchId, JobId, TenantId};
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
    /// For the jobs of a batch to end.
    Held,
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
    /// Was dead, and somebody decided to leave it at that.
    Discarded,
}

crate::text::text_enum!(JobState {
    Held = "held",
    Waiting = "waiting",
    Dispatched = "dispatched",
    Running = "running",
    Succeeded = "succeeded",
    Dead = "dead",
    Cancelled = "cancelled",
    Discarded = "discarded",
});

impl JobState {
    /// The states of jobs that are still to end by themselves.
    pub const UNFINISHED: [JobState; 4] = [Self::Held, Self::Waiting, Self::Dispatched, Self::Running];
}

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
    pub trace_context: Value,
    pub enqueued_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    /// Of the last attempt.
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    /// Which jobs it was enqueued together with.
    pub batch_id: Option<BatchId>,
    /// The batch after which it runs.
    pub waits_for: Option<BatchId>,
    /// How far the handler says it is, of `progress_total`, in units of its own.
    pub progress_done: Option<i64>,
    pub progress_total: Option<i64>,
    pub progress_message: Option<String>,
}

impl JobRow {
    /// The id of the trace that it was enqueued in and runs in; `None` when nothing was traced.
    pub fn trace_id(&self) -> Option<&str> {
        // version-traceid-parentid-flags, as the W3C has it.
        self.trace_context["traceparent"].as_str()?.split('-').nth(1)
    }
}

/// When and how to enqueue; `Default` is at once.
#[derive(Debug, Clone, Default)]
pub struct Enqueue {
    /// At most one unfinished job of the kind has this key.
    pub unique_key: Option<String>,
    /// With a `unique_key`: none other is enqueued for this long from now, even if this one has ended.
    pub unique_for: Option<Duration>,
    pub run_at: Option<DateTime<Utc>>,
    /// Greater runs earlier.
    pub priority: i16,
}

/// A job of a kind that the caller knows by name only, as schedules do.
#[derive(Debug, Clone)]
pub struct RawJob<'a> {
    pub queue: &'a str,
    pub kind: &'a str,
    pub payload: Value,
    pub max_attempts: i32,
}

#[derive(Insertable)]
#[diesel(table_name = jobs)]
struct NewJob<'a> {
    tenant_id: TenantId,
    id: JobId,
    queue: &'a str,
    kind: &'a str,
    payload: Value,
    state: JobState,
    priority: i16,
    /// The database's clock when not given.
    run_at: Option<DateTime<Utc>>,
    unique_key: Option<&'a str>,
    unique_until: Option<DateTime<Utc>>,
    max_attempts: i32,
    trace_context: Value,
    enqueued_by: Option<Uuid>,
    waits_for: Option<BatchId>,
}

/// Adds a job to the ledger, in the caller's transaction. `None` when the unique key is another's: of an unfinished job, or
/// of one whose period is not over.
pub async fn enqueue<J: Job>(conn: &AsyncPgConnection, actor: &Actor, job: &J, how: &Enqueue) -> Result<Option<JobId>> {
    insert(conn, actor, raw(job)?, how, None).await
}

/// As [`enqueue`], of a kind that is known by name only.
pub async fn enqueue_raw(conn: &AsyncPgConnection, actor: &Actor, job: RawJob<'_>, how: &Enqueue) -> Result<Option<JobId>> {
    insert(conn, actor, job, how, None).await
}

/// Adds many jobs of one kind to the ledger in one statement, in the caller's transaction; to `batch`, if it is given.
pub async fn enqueue_many<J: Job>(
    mut conn: &AsyncPgConnection,
    actor: &Actor,
    jobs: &[J],
    priority: i16,
    batch: Option<BatchId>,
) -> Result<Vec<JobId>> {
    let ids: Vec<JobId> = jobs.iter().map(|_| JobId::new()).collect();
    let payloads = jobs.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    diesel::sql_query(
        "INSERT INTO jobs (tenant_id, id, queue, kind, payload, priority, max_attempts, trace_context, enqueued_by, batch_id)
         SELECT $1, new.id, $2, $3, new.payload, $4, $5, $6, $7, $8 FROM unnest($9, $10) AS new (id, payload)",
    )
    .bind::<sql_types::Uuid, _>(actor.tenant)
    .bind::<sql_types::Text, _>(J::QUEUE)
    .bind::<sql_types::Text, _>(J::KIND)
    .bind::<sql_types::Int2, _>(priority)
    .bind::<sql_types::Integer, _>(J::MAX_ATTEMPTS)
    .bind::<sql_types::Jsonb, _>(telemetry::trace_context())
    .bind::<sql_types::Nullable<sql_types::Uuid>, _>(enqueued_by(actor))
    .bind::<sql_types::Nullable<sql_types::Uuid>, _>(batch)
    .bind::<sql_types::Array<sql_types::Uuid>, _>(&ids)
    .bind::<sql_types::Array<sql_types::Jsonb>, _>(payloads)
    .prepared()
    .execute(&mut conn)
    .await?;
    if !ids.is_empty() {
        notify(conn, CHANNEL, J::QUEUE).await?;
    }
    Ok(ids)
}

fn raw<J: Job>(job: &J) -> Result<RawJob<'static>> {
    Ok(RawJob { queue: J::QUEUE, kind: J::KIND, payload: serde_json::to_value(job)?, max_attempts: J::MAX_ATTEMPTS })
}

async fn insert(
    mut conn: &AsyncPgConnection,
    actor: &Actor,
    job: RawJob<'_>,
    how: &Enqueue,
    waits_for: Option<BatchId>,
) -> Result<Option<JobId>> {
    let unique_key = how.unique_key.as_deref();
    if unique_key.is_some() {
        // A key whose period is over is free again, unless its job is unfinished.
        let over = jobs::table
            .filter(jobs::tenant_id.eq(actor.tenant).and(jobs::kind.eq(job.kind)).and(jobs::unique_key.eq(unique_key)))
            .filter(jobs::unique_until.le(now));
        diesel::update(over).set(jobs::unique_until.eq(None::<DateTime<Utc>>)).execute(&mut conn).await?;
    }
    let row = NewJob {
        tenant_id: actor.tenant,
        id: JobId::new(),
        queue: job.queue,
        kind: job.kind,
        payload: job.payload,
        state: if waits_for.is_some() { JobState::Held } else { JobState::Waiting },
        priority: how.priority,
        run_at: how.run_at,
        unique_key,
        unique_until: how.unique_for.filter(|_| unique_key.is_some()).map(|period| Utc::now() + period),
        max_attempts: job.max_attempts,
        trace_context: telemetry::trace_context(),
        enqueued_by: enqueued_by(actor),
        waits_for,
    };
    let id = diesel::insert_into(jobs::table)
        .values(&row)
        .on_conflict_do_nothing()
        .returning(jobs::id)
        .prepared()
        .get_result(&mut conn)
        .await
        .optional()?;
    if id.is_some() {
        notify(conn, CHANNEL, job.queue).await?;
    }
    Ok(id)
}

/// `None` for the system.
fn enqueued_by(actor: &Actor) -> Option<Uuid> {
    Some(actor.id()).filter(|id| !id.is_nil())
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
    let found: Option<Now> = diesel::sql_query(
        "UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, now()),
             state = CASE WHEN state = 'running' THEN state ELSE 'cancelled' END,
             finished_at = CASE WHEN state = 'running' THEN NULL ELSE now() END
         WHERE tenant_id = $1 AND id = $2 AND state IN ('held', 'waiting', 'dispatched', 'running')
         RETURNING state",
    )
    .bind::<diesel::sql_types::Uuid, _>(tenant)
    .bind::<diesel::sql_types::Uuid, _>(id)
    .get_result(&mut conn)
    .await
    .optional()?;
    match found {
        None => Ok(by_id(conn, tenant, id).await?.map(|job| job.state)),
        Some(job) => {
            if job.state == JobState::Running {
                notify(conn, CANCEL_CHANNEL, &id.to_string()).await?;
            }
            Ok(Some(job.state))
        }
    }
}

/// Sends a notification when the caller's transaction commits, and none when it does not.
pub(crate) async fn notify(mut conn: &AsyncPgConnection, channel: &str, payload: &str) -> Result<()> {
    diesel::sql_query("SELECT pg_notify($1, $2)")
        .bind::<diesel::sql_types::Text, _>(channel)
        .bind::<diesel::sql_types::Text, _>(payload)
        .prepared()
        .execute(&mut conn)
        .await?;
    Ok(())
}
