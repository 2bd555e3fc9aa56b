//! What the workers write to the ledger. Every statement here serves all tenants, and so runs in a
//! transaction of [`crate::db::Db::dispatch_by_index`]; only [`hold`] is for a handler's own transaction.
//!
//! Rows are always locked in the order of their ids or not waited for at all, so that these statements cannot block each
//! other in a circle. All times are the database's: the clocks of the workers do not matter.
//!
//! Known jobs are found one by one, by their key (hence `LATERAL`, and `state IS NOT DISTINCT FROM`, which no index of jobs in
//! one state offers itself for). As a join PostgreSQL would read all jobs that are under way to find ten of them.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Double, Integer, Jsonb, Nullable, Text, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;

use super::{CHANNEL, JobState};
use crate::db::Prepare;
use crate::error::Result;
use crate::ids::{BatchId, JobId, TenantId};

/// Most characters of an error that the ledger keeps.
const LONGEST_ERROR: usize = 4_000;

/// Rows that one statement rescues; the next round takes the next ones.
const RESCUE_BATCH: i64 = 1_000;

/// A job that a worker has taken.
#[derive(Debug, Clone, QueryableByName)]
pub struct Claimed {
    #[diesel(sql_type = Uuid)]
    pub tenant_id: TenantId,
    #[diesel(sql_type = Uuid)]
    pub id: JobId,
    #[diesel(sql_type = Text)]
    pub kind: String,
    #[diesel(sql_type = Jsonb)]
    pub payload: Value,
    /// From 1.
    #[diesel(sql_type = Integer)]
    pub attempt: i32,
    #[diesel(sql_type = Integer)]
    pub max_attempts: i32,
    #[diesel(sql_type = BigInt)]
    pub lease_token: i64,
    #[diesel(sql_type = Jsonb)]
    pub trace_context: Value,
    /// From when it was due to this claim.
    #[diesel(sql_type = Double)]
    pub waited_seconds: f64,
}

/// A job that this worker still holds after a renewal.
#[derive(Debug, Clone, QueryableByName)]
pub struct Renewed {
    #[diesel(sql_type = Uuid)]
    pub id: JobId,
    #[diesel(sql_type = BigInt)]
    pub lease_token: i64,
    #[diesel(sql_type = diesel::sql_types::Bool)]
    pub cancel_requested: bool,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    /// To be repeated after `retry_in`; dead when it was the last attempt.
    Failed {
        error: String,
        retry_in: Duration,
    },
    /// Not worth repeating.
    Dead {
        error: String,
    },
    /// Stopped because somebody asked for it.
    Cancelled,
    /// Handed back unfinished by a worker that stops; the attempt does not count.
    Returned,
    /// Handed back by a worker that had claimed it and not begun it: that was no attempt.
    Unbegun,
    /// Not yet possible, by what the handler found: to be done later, and the attempt does not count.
    Snoozed {
        run_in: Duration,
    },
}

/// The end of one attempt; written only if the lease still has this token.
#[derive(Debug, Clone)]
pub struct End {
    pub tenant: TenantId,
    pub id: JobId,
    pub lease_token: i64,
    pub outcome: Outcome,
}

/// How far a job has come, in units of its own: rows, bytes, receivers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    pub done: i64,
    /// `None` when it is not known how much there is to do.
    pub total: Option<i64>,
    /// What it is doing, in a few words.
    pub message: Option<String>,
}

/// What became of a job by [`finish`] or [`rescue`].
#[derive(Debug, Clone, QueryableByName)]
pub struct Settled {
    #[diesel(sql_type = Uuid)]
    pub tenant_id: TenantId,
    #[diesel(sql_type = Uuid)]
    pub id: JobId,
    #[diesel(sql_type = Text)]
    pub queue: String,
    #[diesel(sql_type = Text)]
    pub kind: String,
    #[diesel(sql_type = Text)]
    pub state: JobState,
    #[diesel(sql_type = BigInt)]
    pub lease_token: i64,
    #[diesel(sql_type = Nullable<Text>)]
    pub last_error: Option<String>,
    #[diesel(sql_type = Nullable<Uuid>)]
    pub batch_id: Option<BatchId>,
}

/// Takes those of these jobs that are still dispatched, as `worker`, for the time of a lease.
pub async fn claim(
    mut conn: &AsyncPgConnection,
    queue: &str,
    jobs: &[(TenantId, JobId)],
    worker: &str,
    lease: Duration,
) -> Result<Vec<Claimed>> {
    let (tenants, ids): (Vec<TenantId>, Vec<JobId>) = jobs.iter().copied().unzip();
    let found = "SELECT found.* FROM unnest($4, $5) AS wanted (tenant_id, id) CROSS JOIN LATERAL (
                     SELECT jobs.tenant_id, jobs.id FROM jobs WHERE jobs.tenant_id = wanted.tenant_id AND jobs.id = wanted.id
                         AND queue = $1 AND state IS NOT DISTINCT FROM 'dispatched' FOR UPDATE SKIP LOCKED) AS found";
    let rows = sql_query(claim_statement(found))
        .bind::<Text, _>(queue)
        .bind::<Text, _>(worker)
        .bind::<Double, _>(lease.as_secs_f64())
        .bind::<Array<Uuid>, _>(tenants)
        .bind::<Array<Uuid>, _>(ids)
        .prepared()
        .load(&mut conn)
        .await?;
    Ok(rows)
}

/// Takes the next dispatched jobs without asking Redis, for when it does not answer.
pub async fn claim_next(
    mut conn: &AsyncPgConnection,
    queue: &str,
    count: usize,
    worker: &str,
    lease: Duration,
) -> Result<Vec<Claimed>> {
    let found = "SELECT tenant_id, id FROM jobs WHERE queue = $1 AND state = 'dispatched'
                 ORDER BY priority DESC, turn, id LIMIT $4 FOR UPDATE SKIP LOCKED";
    let rows = sql_query(claim_statement(found))
        .bind::<Text, _>(queue)
        .bind::<Text, _>(worker)
        .bind::<Double, _>(lease.as_secs_f64())
        .bind::<BigInt, _>(i64::try_from(count).unwrap_or(i64::MAX))
        .prepared()
        .load(&mut conn)
        .await?;
    Ok(rows)
}

fn claim_statement(found: &str) -> String {
    format!(
        "UPDATE jobs SET state = 'running', attempt = attempt + 1, lease_token = lease_token + 1,
             lease_until = now() + $3 * interval '1 second', worker = $2, started_at = now(),
             progress_done = NULL, progress_total = NULL, progress_message = NULL
         FROM ({found}) AS free
         WHERE jobs.tenant_id = free.tenant_id AND jobs.id = free.id
         RETURNING jobs.tenant_id, jobs.id, kind, payload, attempt, max_attempts, lease_token, trace_context,
             greatest(extract(epoch FROM now() - run_at), 0)::float8 AS waited_seconds"
    )
}

/// Prolongs these leases, and answers with those that were still held: the others belong to somebody else now.
pub async fn renew(mut conn: &AsyncPgConnection, held: &[(TenantId, JobId, i64)], lease: Duration) -> Result<Vec<Renewed>> {
    let mut held = held.to_vec();
    held.sort_unstable_by_key(|(_, id, _)| *id);
    let (tenants, ids, tokens): (Vec<TenantId>, Vec<JobId>, Vec<i64>) = held.into_iter().collect();
    let rows = sql_query(
        "UPDATE jobs SET lease_until = now() + $4 * interval '1 second'
         FROM (SELECT found.* FROM unnest($1, $2, $3) AS held (tenant_id, id, token) CROSS JOIN LATERAL (
                   SELECT jobs.tenant_id, jobs.id FROM jobs WHERE jobs.tenant_id = held.tenant_id AND jobs.id = held.id
                       AND lease_token = token AND state IS NOT DISTINCT FROM 'running' FOR UPDATE) AS found) AS mine
         WHERE jobs.tenant_id = mine.tenant_id AND jobs.id = mine.id
         RETURNING jobs.id, lease_token, cancel_requested_at IS NOT NULL AS cancel_requested",
    )
    .bind::<Array<Uuid>, _>(tenants)
    .bind::<Array<Uuid>, _>(ids)
    .bind::<Array<BigInt>, _>(tokens)
    .bind::<Double, _>(lease.as_secs_f64())
    .prepared()
    .load(&mut conn)
    .await?;
    Ok(rows)
}

/// Writes the ends of attempts. A job that is missing from the answer was no longer held with that token: its end is void.
///
/// A job whose cancellation was requested is not repeated, whatever its attempt came to.
pub async fn finish(mut conn: &AsyncPgConnection, ends: &[End]) -> Result<Vec<Settled>> {
    let mut tenants = Vec::with_capacity(ends.len());
    let mut ids = Vec::with_capacity(ends.len());
    let mut tokens = Vec::with_capacity(ends.len());
    let mut outcomes = Vec::with_capacity(ends.len());
    let mut errors = Vec::with_capacity(ends.len());
    let mut delays = Vec::with_capacity(ends.len());
    let mut in_order: Vec<&End> = ends.iter().collect();
    in_order.sort_unstable_by_key(|end| end.id);
    for end in in_order {
        let (outcome, error, delay) = match &end.outcome {
            Outcome::Succeeded => ("succeeded", None, 0.0),
            Outcome::Failed { error, retry_in } => ("failed", Some(storable(error)), retry_in.as_secs_f64()),
            Outcome::Dead { error } => ("dead", Some(storable(error)), 0.0),
            Outcome::Cancelled => ("cancelled", None, 0.0),
            Outcome::Returned => ("returned", None, 0.0),
            Outcome::Unbegun => ("unbegun", None, 0.0),
            Outcome::Snoozed { run_in } => ("snoozed", None, run_in.as_secs_f64()),
        };
        tenants.push(end.tenant);
        ids.push(end.id);
        tokens.push(end.lease_token);
        outcomes.push(outcome);
        errors.push(error);
        delays.push(delay);
    }
    let settled: Vec<Settled> = sql_query(
        "WITH decided AS (
             SELECT found.*, token, outcome, error, delay,
                 CASE WHEN outcome = 'succeeded' THEN 'succeeded'
                      WHEN outcome = 'cancelled' OR cancel_requested_at IS NOT NULL THEN 'cancelled'
                      WHEN outcome = 'dead' OR outcome = 'failed' AND attempt >= max_attempts THEN 'dead'
                      ELSE 'waiting' END AS state
             FROM unnest($1, $2, $3, $4, $5, $6) AS ended (tenant_id, id, token, outcome, error, delay) CROSS JOIN LATERAL (
                 SELECT tenant_id, id, attempt, max_attempts, cancel_requested_at, worker, started_at
                 FROM jobs WHERE jobs.tenant_id = ended.tenant_id AND jobs.id = ended.id
                     AND lease_token = token AND state IS NOT DISTINCT FROM 'running' FOR UPDATE) AS found
         ), noted AS (
             INSERT INTO job_attempts (tenant_id, job_id, lease_token, number, worker, started_at, outcome, error)
             SELECT tenant_id, id, token, attempt, worker, started_at,
                 CASE WHEN outcome = 'failed' AND state <> 'waiting' THEN state ELSE outcome END, error
             FROM decided WHERE outcome NOT IN ('succeeded', 'snoozed', 'unbegun')
         )
         UPDATE jobs SET state = decided.state, lease_until = NULL,
             attempt = jobs.attempt - CASE WHEN decided.outcome IN ('returned', 'unbegun', 'snoozed') THEN 1 ELSE 0 END,
             run_at = CASE WHEN decided.outcome IN ('failed', 'snoozed') AND decided.state = 'waiting'
                           THEN now() + decided.delay * interval '1 second' ELSE run_at END,
             last_error = CASE WHEN decided.state <> 'succeeded' THEN coalesce(decided.error, last_error) END,
             finished_at = CASE WHEN decided.state <> 'waiting' THEN now() END
         FROM decided
         WHERE jobs.tenant_id = decided.tenant_id AND jobs.id = decided.id
         RETURNING jobs.tenant_id, jobs.id, queue, kind, jobs.state, lease_token, last_error, batch_id",
    )
    .bind::<Array<Uuid>, _>(tenants)
    .bind::<Array<Uuid>, _>(ids)
    .bind::<Array<BigInt>, _>(tokens)
    .bind::<Array<Text>, _>(outcomes)
    .bind::<Array<Nullable<Text>>, _>(errors)
    .bind::<Array<Double>, _>(delays)
    .prepared()
    .load(&mut conn)
    .await?;
    if ends.iter().any(|end| matches!(end.outcome, Outcome::Returned | Outcome::Unbegun)) {
        // Another worker may take them at once.
        super::notify(conn, CHANNEL, "").await?;
    }
    Ok(settled)
}

/// Takes jobs back whose lease has ended: their worker died, hangs, or cannot reach us.
pub async fn rescue(mut conn: &AsyncPgConnection) -> Result<Vec<Settled>> {
    let rows = sql_query(
        "WITH decided AS (
             SELECT tenant_id, id, lease_token, attempt, worker, started_at,
                 format('Worker %s gave no sign of life during attempt %s of %s', worker, attempt, max_attempts) AS error,
                 CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled'
                      WHEN attempt >= max_attempts THEN 'dead'
                      ELSE 'waiting' END AS state
             FROM jobs WHERE state = 'running' AND lease_until < now()
             ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
         ), noted AS (
             INSERT INTO job_attempts (tenant_id, job_id, lease_token, number, worker, started_at, outcome, error)
             SELECT tenant_id, id, lease_token, attempt, worker, started_at, 'lost', error FROM decided
         )
         UPDATE jobs SET state = decided.state, lease_until = NULL,
             run_at = CASE WHEN decided.state = 'waiting' THEN now() ELSE run_at END,
             last_error = decided.error,
             finished_at = CASE WHEN decided.state <> 'waiting' THEN now() END
         FROM decided
         WHERE jobs.tenant_id = decided.tenant_id AND jobs.id = decided.id
         RETURNING jobs.tenant_id, jobs.id, queue, kind, jobs.state, jobs.lease_token, last_error, batch_id",
    )
    .bind::<BigInt, _>(RESCUE_BATCH)
    .prepared()
    .load(&mut conn)
    .await?;
    Ok(rows)
}

/// Whether this attempt still owns its job, and makes sure that it does until the transaction ends. For the handler's own
/// transaction, as its last statement: the row stays locked until then, and the renewal of leases waits for it.
pub async fn hold(mut conn: &AsyncPgConnection, tenant: TenantId, id: JobId, lease_token: i64) -> Result<bool> {
    use crate::schema::jobs;
    let found: Option<JobId> = jobs::table
        .select(jobs::id)
        .filter(jobs::tenant_id.eq(tenant).and(jobs::id.eq(id)))
        .filter(jobs::lease_token.eq(lease_token).and(jobs::state.eq(JobState::Running)))
        .for_share()
        .first(&mut conn)
        .await
        .optional()?;
    Ok(found.is_some())
}

/// Says how far a running job has come, in a transaction of its own. Void when the attempt no longer owns its job.
pub async fn report_progress(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    (id, lease_token): (JobId, i64),
    progress: &Progress,
) -> Result<()> {
    use crate::schema::jobs;
    let held = jobs::table
        .filter(jobs::tenant_id.eq(tenant).and(jobs::id.eq(id)))
        .filter(jobs::lease_token.eq(lease_token).and(jobs::state.eq(JobState::Running)));
    diesel::update(held)
        .set((
            jobs::progress_done.eq(progress.done),
            jobs::progress_total.eq(progress.total),
            jobs::progress_message.eq(progress.message.as_deref().map(storable)),
        ))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// An error as PostgreSQL can store it: without the NUL character, and not endless.
fn storable(error: &str) -> String {
    error.chars().filter(|c| *c != '\0').take(LONGEST_ERROR).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_made_storable() {
        assert_eq!(storable("a\0b"), "ab");
        assert_eq!(storable(&"é".repeat(5_000)).chars().count(), LONGEST_ERROR);
    }
}
