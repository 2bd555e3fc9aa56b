//! What the relay and the workers write to the ledger. Every statement here serves all tenants, and so runs in a
//! transaction of [`crate::db::Db::dispatch`]; only [`hold`] is for a handler's own transaction.
//!
//! Rows are always locked in the order of their ids or not waited for at all, so that these statements cannot block each
//! other in a circle. All times are the database's: the clocks of the workers do not matter.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Double, Int2, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;

use super::{CHANNEL, JobState};
use crate::error::Result;
use crate::ids::{JobId, TenantId};

/// Most characters of an error that the ledger keeps.
const LONGEST_ERROR: usize = 4_000;

/// Rows that one statement rescues; the next round takes the next ones.
const RESCUE_BATCH: i64 = 1_000;

/// A job whose id belongs into Redis.
#[derive(Debug, Clone, QueryableByName)]
pub struct Due {
    #[diesel(sql_type = Uuid)]
    pub id: JobId,
    #[diesel(sql_type = Int2)]
    pub priority: i16,
    #[diesel(sql_type = Timestamptz)]
    pub run_at: DateTime<Utc>,
}

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
}

/// The end of one attempt; written only if the lease still has this token.
#[derive(Debug, Clone)]
pub struct End {
    pub id: JobId,
    pub lease_token: i64,
    pub outcome: Outcome,
}

/// What became of a job by [`finish`] or [`rescue`].
#[derive(Debug, Clone, QueryableByName)]
pub struct Settled {
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
}

/// Moves due jobs of a queue from `waiting` to `dispatched`, greatest priority first, then oldest, so that at most `window`
/// are dispatched. Several relays at once share the rows between them, and may then pass the window a little.
pub async fn dispatch(mut conn: &AsyncPgConnection, queue: &str, window: u32) -> Result<Vec<Due>> {
    let rows = sql_query(
        "UPDATE jobs SET state = 'dispatched', dispatched_at = now()
         FROM (SELECT id FROM jobs
               WHERE queue = $1 AND state = 'waiting' AND run_at <= now()
               ORDER BY priority DESC, run_at
               LIMIT greatest($2 - (SELECT count(*) FROM jobs WHERE queue = $1 AND state = 'dispatched'), 0)
               FOR UPDATE SKIP LOCKED) AS due
         WHERE jobs.id = due.id
         RETURNING jobs.id, jobs.priority, jobs.run_at",
    )
    .bind::<Text, _>(queue)
    .bind::<BigInt, _>(i64::from(window))
    .load(&mut conn)
    .await?;
    Ok(rows)
}

/// How long until the next waiting job of these queues is due, if that is sooner than `within`. Zero when some are due that
/// [`dispatch`] did not move, because there was no room or because another relay was moving them.
pub async fn next_due(mut conn: &AsyncPgConnection, queues: &[&str], within: Duration) -> Result<Option<Duration>> {
    #[derive(QueryableByName)]
    struct Next {
        #[diesel(sql_type = Nullable<Double>)]
        seconds: Option<f64>,
    }
    // Asked for in this order because a long backlog answers the first question at its first row.
    let next: Next = sql_query(
        "SELECT CASE WHEN EXISTS (SELECT FROM jobs WHERE queue = ANY($1) AND state = 'waiting' AND run_at <= now()) THEN 0.0
             ELSE (SELECT extract(epoch FROM min(run_at) - now())::float8 FROM jobs
                   WHERE queue = ANY($1) AND state = 'waiting' AND run_at < now() + $2 * interval '1 second') END AS seconds",
    )
    .bind::<Array<Text>, _>(queues)
    .bind::<Double, _>(within.as_secs_f64())
    .get_result(&mut conn)
    .await?;
    Ok(next.seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
}

/// Jobs of a queue that were dispatched longer than `age` ago and that nobody has claimed: what Redis should still know.
pub async fn dispatched(mut conn: &AsyncPgConnection, queue: &str, age: Duration, limit: u32) -> Result<Vec<Due>> {
    let rows = sql_query(
        "SELECT id, priority, run_at FROM jobs
         WHERE queue = $1 AND state = 'dispatched' AND dispatched_at <= now() - $2 * interval '1 second'
         ORDER BY priority DESC, run_at LIMIT $3",
    )
    .bind::<Text, _>(queue)
    .bind::<Double, _>(age.as_secs_f64())
    .bind::<BigInt, _>(i64::from(limit))
    .load(&mut conn)
    .await?;
    Ok(rows)
}

/// Takes those of these jobs that are still dispatched, as `worker`, for the time of a lease.
pub async fn claim(
    mut conn: &AsyncPgConnection,
    queue: &str,
    ids: &[JobId],
    worker: &str,
    lease: Duration,
) -> Result<Vec<Claimed>> {
    let rows = sql_query(claim_statement("AND id = ANY($4)", ""))
        .bind::<Text, _>(queue)
        .bind::<Text, _>(worker)
        .bind::<Double, _>(lease.as_secs_f64())
        .bind::<Array<Uuid>, _>(ids)
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
    let rows = sql_query(claim_statement("", "LIMIT $4"))
        .bind::<Text, _>(queue)
        .bind::<Text, _>(worker)
        .bind::<Double, _>(lease.as_secs_f64())
        .bind::<BigInt, _>(i64::try_from(count).unwrap_or(i64::MAX))
        .load(&mut conn)
        .await?;
    Ok(rows)
}

fn claim_statement(condition: &str, limit: &str) -> String {
    format!(
        "UPDATE jobs SET state = 'running', attempt = attempt + 1, lease_token = lease_token + 1,
             lease_until = now() + $3 * interval '1 second', worker = $2, started_at = now()
         FROM (SELECT id FROM jobs WHERE queue = $1 AND state = 'dispatched' {condition}
               ORDER BY priority DESC, run_at {limit} FOR UPDATE SKIP LOCKED) AS free
         WHERE jobs.id = free.id
         RETURNING jobs.tenant_id, jobs.id, kind, payload, attempt, max_attempts, lease_token, trace_context,
             greatest(extract(epoch FROM now() - run_at), 0)::float8 AS waited_seconds"
    )
}

/// Prolongs these leases, and answers with those that were still held: the others belong to somebody else now.
pub async fn renew(mut conn: &AsyncPgConnection, held: &[(JobId, i64)], lease: Duration) -> Result<Vec<Renewed>> {
    let (ids, tokens): (Vec<JobId>, Vec<i64>) = held.iter().copied().unzip();
    let rows = sql_query(
        "UPDATE jobs SET lease_until = now() + $3 * interval '1 second'
         FROM (SELECT jobs.id FROM jobs JOIN unnest($1, $2) AS held (id, token) ON jobs.id = held.id AND jobs.lease_token = held.token
               WHERE jobs.state = 'running' ORDER BY jobs.id FOR UPDATE OF jobs) AS mine
         WHERE jobs.id = mine.id
         RETURNING jobs.id, lease_token, cancel_requested_at IS NOT NULL AS cancel_requested",
    )
    .bind::<Array<Uuid>, _>(ids)
    .bind::<Array<BigInt>, _>(tokens)
    .bind::<Double, _>(lease.as_secs_f64())
    .load(&mut conn)
    .await?;
    Ok(rows)
}

/// Writes the ends of attempts. A job that is missing from the answer was no longer held with that token: its end is void.
///
/// A job whose cancellation was requested is not repeated, whatever its attempt came to.
pub async fn finish(mut conn: &AsyncPgConnection, ends: &[End]) -> Result<Vec<Settled>> {
    let mut ids = Vec::with_capacity(ends.len());
    let mut tokens = Vec::with_capacity(ends.len());
    let mut outcomes = Vec::with_capacity(ends.len());
    let mut errors = Vec::with_capacity(ends.len());
    let mut delays = Vec::with_capacity(ends.len());
    for end in ends {
        let (outcome, error, delay) = match &end.outcome {
            Outcome::Succeeded => ("succeeded", None, 0.0),
            Outcome::Failed { error, retry_in } => ("failed", Some(storable(error)), retry_in.as_secs_f64()),
            Outcome::Dead { error } => ("dead", Some(storable(error)), 0.0),
            Outcome::Cancelled => ("cancelled", None, 0.0),
            Outcome::Returned => ("returned", None, 0.0),
        };
        ids.push(end.id);
        tokens.push(end.lease_token);
        outcomes.push(outcome);
        errors.push(error);
        delays.push(delay);
    }
    let settled: Vec<Settled> = sql_query(
        "UPDATE jobs SET state = decided.state, lease_until = NULL,
             attempt = attempt - CASE WHEN decided.outcome = 'returned' THEN 1 ELSE 0 END,
             run_at = CASE WHEN decided.state = 'waiting' THEN now() + decided.delay * interval '1 second' ELSE run_at END,
             last_error = coalesce(decided.error, last_error),
             finished_at = CASE WHEN decided.state <> 'waiting' THEN now() END
         FROM (SELECT jobs.id, outcome, error, delay,
                   CASE WHEN outcome = 'succeeded' THEN 'succeeded'
                        WHEN outcome = 'cancelled' OR cancel_requested_at IS NOT NULL THEN 'cancelled'
                        WHEN outcome = 'dead' OR outcome = 'failed' AND attempt >= max_attempts THEN 'dead'
                        ELSE 'waiting' END AS state
               FROM jobs JOIN unnest($1, $2, $3, $4, $5) AS ended (id, token, outcome, error, delay)
                   ON jobs.id = ended.id AND jobs.lease_token = ended.token
               WHERE jobs.state = 'running' ORDER BY jobs.id FOR UPDATE OF jobs) AS decided
         WHERE jobs.id = decided.id
         RETURNING jobs.id, queue, kind, jobs.state, lease_token, last_error",
    )
    .bind::<Array<Uuid>, _>(ids)
    .bind::<Array<BigInt>, _>(tokens)
    .bind::<Array<Text>, _>(outcomes)
    .bind::<Array<Nullable<Text>>, _>(errors)
    .bind::<Array<Double>, _>(delays)
    .load(&mut conn)
    .await?;
    if ends.iter().any(|end| end.outcome == Outcome::Returned) {
        // Another worker may take them at once.
        super::notify(conn, CHANNEL, "").await?;
    }
    Ok(settled)
}

/// Takes jobs back whose lease has ended: their worker died, hangs, or cannot reach us.
pub async fn rescue(mut conn: &AsyncPgConnection) -> Result<Vec<Settled>> {
    let rows = sql_query(
        "UPDATE jobs SET state = decided.state, lease_until = NULL,
             run_at = CASE WHEN decided.state = 'waiting' THEN now() ELSE run_at END,
             last_error = format('Worker %s gave no sign of life during attempt %s of %s', worker, attempt, max_attempts),
             finished_at = CASE WHEN decided.state <> 'waiting' THEN now() END
         FROM (SELECT id, CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled'
                               WHEN attempt >= max_attempts THEN 'dead'
                               ELSE 'waiting' END AS state
               FROM jobs WHERE state = 'running' AND lease_until < now()
               ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED) AS decided
         WHERE jobs.id = decided.id
         RETURNING jobs.id, queue, kind, jobs.state, lease_token, last_error",
    )
    .bind::<BigInt, _>(RESCUE_BATCH)
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
