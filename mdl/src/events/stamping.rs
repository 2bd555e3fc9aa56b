//! Gives events their sequence. Only the relay's leader does, on the connection that makes it the leader.
//!
//! Each transaction that wrote events has taken a position just before its commit, under a lock of its tenant (see the
//! migration). So the positions that can be seen are those of commits before all others to come, and events are numbered in
//! the order of positions, within a transaction in the order of their ids.

use std::collections::HashMap;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Double, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{STAMPED, Stamped};
use crate::db::Prepare;
use crate::error::Result;
use crate::ids::{EventId, TenantId};

/// The advisory lock whose holder stamps.
const LEADER: &str = "mdl:events";

/// Makes this connection one for stamping: it works for all tenants, and gives up leading by itself when its program hangs.
///
/// PostgreSQL ends the session, and with it the lock, when nothing has come for `silence`, within a transaction or without.
pub async fn prepare(mut conn: &AsyncPgConnection, silence: Duration) -> Result<()> {
    let millis = silence.as_millis();
    let seconds = silence.as_secs().max(2) / 2;
    // The tables are large and what is wanted of them is small: an index is always the best plan.
    conn.batch_execute(&format!(
        "SET app.dispatcher = 'on'; SET idle_session_timeout = {millis}; SET idle_in_transaction_session_timeout = {millis};
         SET tcp_keepalives_idle = {seconds}; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = {seconds};
         SET tcp_user_timeout = {millis};
         SET jit = off; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"
    ))
    .await?;
    Ok(())
}

/// Whether this connection leads from now on: until it is closed. One of all programs does.
pub async fn lead(mut conn: &AsyncPgConnection) -> Result<bool> {
    #[derive(QueryableByName)]
    struct Led {
        #[diesel(sql_type = diesel::sql_types::Bool)]
        led: bool,
    }
    let led: Led = sql_query("SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS led")
        .bind::<Text, _>(LEADER)
        .get_result(&mut conn)
        .await?;
    Ok(led.led)
}

/// Whether there is anything to stamp.
pub async fn is_due(mut conn: &AsyncPgConnection) -> Result<bool> {
    let due: i64 =
        diesel::select(diesel::dsl::sql::<BigInt>("(SELECT count(*) FROM (SELECT FROM outbox_commits LIMIT 1) AS due)"))
            .prepared()
            .get_result(&mut conn)
            .await?;
    Ok(due > 0)
}

/// Numbers the next events of every tenant, at most `limit` of each, and gives them in order. Within the caller's transaction;
/// until that is committed nobody sees a number.
pub async fn stamp(mut conn: &AsyncPgConnection, limit: i64) -> Result<Vec<Stamped>> {
    let mut stamped: Vec<Stamped> = sql_query(format!(
        "WITH due AS MATERIALIZED (
             SELECT waiting.tenant_id, next.id,
                    row_number() OVER (PARTITION BY waiting.tenant_id ORDER BY next.position, next.id) AS place
             FROM (SELECT DISTINCT tenant_id FROM outbox_commits) AS waiting,
             LATERAL (
                 SELECT event.id, commit.position
                 FROM (SELECT transaction_id, position FROM outbox_commits AS c
                       WHERE c.tenant_id = waiting.tenant_id ORDER BY position LIMIT $1) AS commit,
                 LATERAL (SELECT o.id FROM outbox AS o
                          WHERE o.tenant_id = waiting.tenant_id AND o.transaction_id = commit.transaction_id AND o.sequence IS NULL
                          ORDER BY o.id LIMIT $1) AS event
                 ORDER BY commit.position, event.id LIMIT $1
             ) AS next
         ), counted AS (
             SELECT tenant_id, count(*) AS count FROM due GROUP BY tenant_id
         ), streams AS (
             INSERT INTO event_streams AS stream (tenant_id, last_sequence) SELECT tenant_id, count FROM counted
             ON CONFLICT (tenant_id) DO UPDATE SET last_sequence = stream.last_sequence + excluded.last_sequence, updated_at = now()
             RETURNING tenant_id, last_sequence
         )
         UPDATE outbox SET sequence = streams.last_sequence - counted.count + due.place, published_at = now()
         FROM due JOIN streams USING (tenant_id) JOIN counted USING (tenant_id)
         WHERE outbox.tenant_id = due.tenant_id AND outbox.id = due.id
         RETURNING {STAMPED}"
    ))
    .bind::<BigInt, _>(limit)
        .prepared()
    .load(&mut conn)
    .await?;
    stamped.sort_unstable_by_key(|event| (event.tenant, event.sequence));
    Ok(stamped)
}

/// Forgets the transactions of these tenants of which no event waits any more.
pub async fn forget_commits(mut conn: &AsyncPgConnection, tenants: &[TenantId]) -> Result<()> {
    sql_query(
        "DELETE FROM outbox_commits AS commit WHERE tenant_id = ANY ($1) AND NOT EXISTS (
             SELECT FROM outbox WHERE outbox.tenant_id = commit.tenant_id
             AND outbox.transaction_id = commit.transaction_id AND sequence IS NULL)",
    )
    .bind::<Array<SqlUuid>, _>(tenants)
    .prepared()
    .execute(&mut conn)
    .await?;
    Ok(())
}

/// How many events wait for their sequence, and how long the oldest has.
#[derive(Debug, Clone, Copy, PartialEq, QueryableByName)]
pub struct Backlog {
    #[diesel(sql_type = BigInt)]
    pub count: i64,
    #[diesel(sql_type = Double)]
    pub oldest_seconds: f64,
}

pub async fn backlog(mut conn: &AsyncPgConnection) -> Result<Backlog> {
    Ok(sql_query(
        "SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::double precision AS oldest_seconds
         FROM outbox_commits JOIN outbox USING (tenant_id, transaction_id) WHERE sequence IS NULL",
    )
    .get_result(&mut conn)
    .await?)
}

/// That a transaction wrote to a kind of things (`metric`, `objective`, …).
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct Told {
    #[diesel(sql_type = SqlUuid)]
    pub tenant: TenantId,
    #[diesel(sql_type = Text)]
    pub thing: String,
    /// One of the events that tell of it.
    #[diesel(sql_type = SqlUuid)]
    pub event: EventId,
}

/// What events tell of, transaction by transaction, that were stamped after these sequences or wait for theirs. Needs a
/// transaction of [`dispatch`](crate::db::Db::dispatch).
pub async fn told_since(mut conn: &AsyncPgConnection, since: &HashMap<TenantId, i64>) -> Result<Vec<Told>> {
    let (tenants, sequences): (Vec<TenantId>, Vec<i64>) = since.iter().map(|(tenant, sequence)| (*tenant, *sequence)).unzip();
    Ok(sql_query(
        "SELECT DISTINCT ON (tenant_id, transaction_id, thing) tenant_id AS tenant, thing, id AS event
         FROM (SELECT outbox.tenant_id, transaction_id, split_part(kind, '.', 1) AS thing, outbox.id
               FROM unnest($1, $2) AS seen (tenant_id, sequence)
               JOIN outbox ON outbox.tenant_id = seen.tenant_id AND outbox.sequence > seen.sequence
               UNION ALL
               SELECT outbox.tenant_id, transaction_id, split_part(kind, '.', 1), outbox.id
               FROM outbox_commits JOIN outbox USING (tenant_id, transaction_id)
               WHERE sequence IS NULL) AS told",
    )
    .bind::<Array<SqlUuid>, _>(tenants)
    .bind::<Array<BigInt>, _>(sequences)
    .load(&mut conn)
    .await?)
}
