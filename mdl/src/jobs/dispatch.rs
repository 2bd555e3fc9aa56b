//! Which jobs go to Redis next. Statements of the relay, in a transaction of [`crate::db::Db::dispatch`].
//!
//! Tenants take turns. Each may have its share of a queue's window in Redis, so that there is always room for the first job
//! of another; and a job's *turn*, by which Redis orders the jobs of one priority, continues where its tenant's dispatched
//! jobs end, or begins where the queue is now. (This is start-time fair queueing: Goyal, Vin and Cheng, 1996.) So a job of a
//! tenant that has nothing in the queue goes before the backlog of the others, and two backlogs are worked off one by one; or, where
//! a tenant has a greater weight, so many of its jobs for one of another's.
//!
//! A queue may have tens of thousands of jobs of few tenants: the statements step from one (tenant, priority) to the next in
//! the index, and never look at all of what waits.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Double, Int2, Nullable, Text, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::db::Prepare;
use crate::error::Result;
use crate::ids::{JobId, TenantId};
use crate::tenants::SYSTEM;

/// Between the turns of two jobs of a tenant whose weight is 1. With a greater weight they are closer, and so come sooner.
const STEP: i64 = 100;

/// A job whose id belongs into Redis.
#[derive(Debug, Clone, QueryableByName)]
pub struct Due {
    #[diesel(sql_type = Uuid)]
    pub tenant_id: TenantId,
    #[diesel(sql_type = Uuid)]
    pub id: JobId,
    #[diesel(sql_type = Int2)]
    pub priority: i16,
    /// Among the jobs of its priority, least first.
    #[diesel(sql_type = BigInt)]
    pub turn: i64,
}

/// Waits until no operator is changing the settings of queues, and keeps them as they are until the transaction ends: what is
/// paused after that finds nothing on its way.
pub async fn settle_settings(mut conn: &AsyncPgConnection) -> Result<()> {
    sql_query("SELECT pg_advisory_xact_lock_shared($1)").bind::<BigInt, _>(SETTINGS_LOCK).prepared().execute(&mut conn).await?;
    Ok(())
}

/// The advisory lock that relays share, and that an operator has alone who changes the settings of queues.
pub(super) const SETTINGS_LOCK: i64 = 0x6d64_6c5f_7175_6575;

/// Moves due jobs of a queue from `waiting` to `dispatched`: of each tenant so many that it has its share of the `window` by its
/// weight, the greatest priority first, then the oldest. None of what is paused, nor more than the limits of concurrency let run at once.
/// Of two relays at once the second may find nothing left.
///
/// A tenant that had the window for itself keeps what it has of it; so there may be more ids than the window for a while.
pub async fn dispatch(mut conn: &AsyncPgConnection, queue: &str, window: u32) -> Result<Vec<Due>> {
    let rows = sql_query(
        "WITH RECURSIVE groups AS (
             (SELECT tenant_id, priority, run_at FROM jobs WHERE queue = $1 AND state = 'waiting'
              ORDER BY tenant_id, priority, run_at LIMIT 1)
             UNION ALL
             SELECT next.* FROM groups, LATERAL (
                 SELECT tenant_id, priority, run_at FROM jobs
                 WHERE queue = $1 AND state = 'waiting' AND (tenant_id, priority) > (groups.tenant_id, groups.priority)
                 ORDER BY tenant_id, priority, run_at LIMIT 1) AS next
         ), active AS (
             SELECT tenant_id, state, priority, turn FROM jobs WHERE queue = $1 AND state IN ('dispatched', 'running')
         ), under_way AS (
             SELECT tenant_id, count(*) AS jobs, count(*) FILTER (WHERE state = 'dispatched') AS dispatched
             FROM active GROUP BY tenant_id
         ), turns AS (
             SELECT tenant_id, priority, min(turn) AS first, max(turn) AS last
             FROM active WHERE state = 'dispatched' GROUP BY tenant_id, priority
         ), settings AS (
             SELECT tenant_id, paused_at, concurrency, weight FROM queue_settings WHERE queue = $1
         ), waiting AS (
             SELECT tenant_id, priority FROM groups
             WHERE run_at <= now()
               AND NOT EXISTS (SELECT FROM settings WHERE settings.tenant_id IN (groups.tenant_id, $3) AND paused_at IS NOT NULL)
         ), sharing AS (
             SELECT tenant_id, coalesce(weight, 1) AS weight, concurrency
             FROM (SELECT tenant_id FROM waiting UNION SELECT tenant_id FROM turns) AS tenants LEFT JOIN settings USING (tenant_id)
         ), room AS (
             SELECT tenant_id, $4::bigint / weight AS step, least(
                 ceil($2::float8 * weight / (SELECT sum(weight) FROM sharing))::bigint - coalesce(dispatched, 0),
                 concurrency - coalesce(jobs, 0)) AS jobs
             FROM sharing LEFT JOIN under_way USING (tenant_id)
         ), next AS MATERIALIZED (
             SELECT tenant_id, priority, room.step, room.jobs AS room, greatest(
                 (SELECT last + room.step FROM turns
                  WHERE turns.tenant_id = waiting.tenant_id AND turns.priority = waiting.priority),
                 (SELECT min(first) FROM turns WHERE turns.priority = waiting.priority),
                 0) AS turn
             FROM waiting JOIN room USING (tenant_id) WHERE room.jobs > 0
         ), candidates AS (
             SELECT tenant_id, due.id, priority, room,
                 row_number() OVER (PARTITION BY tenant_id ORDER BY priority DESC, due.run_at, due.id) AS place,
                 turn + step * (row_number() OVER (PARTITION BY tenant_id, priority ORDER BY due.run_at, due.id) - 1) AS turn
             FROM next, LATERAL (
                 SELECT id, run_at FROM jobs
                 WHERE queue = $1 AND state = 'waiting' AND jobs.tenant_id = next.tenant_id
                   AND jobs.priority = next.priority AND run_at <= now()
                 ORDER BY run_at LIMIT next.room) AS due
         ), chosen AS (
             SELECT tenant_id, id, turn FROM candidates WHERE place <= room ORDER BY priority DESC, turn, id
             LIMIT (SELECT concurrency - least(concurrency, (SELECT count(*) FROM active)) FROM settings WHERE tenant_id = $3)
         ), free AS (
             SELECT found.*, chosen.turn FROM chosen CROSS JOIN LATERAL (
                 SELECT jobs.tenant_id, jobs.id FROM jobs WHERE jobs.tenant_id = chosen.tenant_id AND jobs.id = chosen.id
                     AND state IS NOT DISTINCT FROM 'waiting' FOR UPDATE SKIP LOCKED) AS found
         )
         UPDATE jobs SET state = 'dispatched', dispatched_at = now(), turn = free.turn
         FROM free
         WHERE jobs.tenant_id = free.tenant_id AND jobs.id = free.id
         RETURNING jobs.tenant_id, jobs.id, jobs.priority, jobs.turn",
    )
    .bind::<Text, _>(queue)
    .bind::<BigInt, _>(i64::from(window))
    .bind::<Uuid, _>(SYSTEM)
    .bind::<BigInt, _>(STEP)
    .load(&mut conn)
    .await?;
    Ok(rows)
}

/// How long until the next waiting job of these queues is due, if that is sooner than `within`. Zero when some are due that
/// [`dispatch`] did not move: there was no room, another relay was moving them, or they are paused.
pub async fn next_due(mut conn: &AsyncPgConnection, queues: &[&str], within: Duration) -> Result<Option<Duration>> {
    #[derive(QueryableByName)]
    struct Next {
        #[diesel(sql_type = Nullable<Double>)]
        seconds: Option<f64>,
    }
    let next: Next = sql_query(
        "WITH RECURSIVE groups AS (
             (SELECT queue, tenant_id, priority, run_at FROM jobs WHERE state = 'waiting'
              ORDER BY queue, tenant_id, priority, run_at LIMIT 1)
             UNION ALL
             SELECT next.* FROM groups, LATERAL (
                 SELECT queue, tenant_id, priority, run_at FROM jobs
                 WHERE state = 'waiting'
                   AND (queue, tenant_id, priority) > (groups.queue, groups.tenant_id, groups.priority)
                 ORDER BY queue, tenant_id, priority, run_at LIMIT 1) AS next
         )
         SELECT extract(epoch FROM min(run_at) - now())::float8 AS seconds FROM groups
         WHERE queue = ANY($1) AND run_at < now() + $2 * interval '1 second'",
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
        "SELECT tenant_id, id, priority, turn FROM jobs
         WHERE queue = $1 AND state = 'dispatched' AND dispatched_at <= now() - $2 * interval '1 second'
         ORDER BY priority DESC, turn, id LIMIT $3",
    )
    .bind::<Text, _>(queue)
    .bind::<Double, _>(age.as_secs_f64())
    .bind::<BigInt, _>(i64::from(limit))
    .load(&mut conn)
    .await?;
    Ok(rows)
}
