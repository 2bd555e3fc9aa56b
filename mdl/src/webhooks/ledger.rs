//! What the couriers read and write. Every statement here serves all tenants, and so runs in a transaction of
//! [`begin`].
//!
//! A delivery is claimed by moving its `next_attempt_at` to the end of a lease, and by counting its `attempt` up. Whoever
//! claimed it may write what came of that attempt as long as no later one was begun; if nobody does, it is due again when the
//! lease is over. All times are the database's.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Double, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use serde_json::Value;

use super::{DeliveryState, Endpoint, ErrorClass, Origin, WebhookUrl};
use crate::db::{Db, Prepare, Transaction};
use crate::error::Result;
use crate::ids::{TenantId, WebhookDeliveryId, WebhookEndpointId};
use crate::schema::webhook_endpoints as endpoints;

/// A transaction for the statements of this module: [`Db::dispatch_by_index`], and without sorting. An index has the order;
/// sorting all rows anew for each endpoint takes a thousand times as long.
pub async fn begin(db: &Db) -> Result<Transaction> {
    let tx = db.dispatch_by_index().await?;
    let mut conn: &AsyncPgConnection = &tx;
    conn.batch_execute("SET LOCAL enable_sort = off").await?;
    Ok(tx)
}

/// An endpoint that something is due for.
#[derive(Debug, Clone, QueryableByName)]
pub struct Waiting {
    #[diesel(sql_type = Uuid)]
    pub tenant_id: TenantId,
    #[diesel(sql_type = Uuid)]
    pub endpoint_id: WebhookEndpointId,
    #[diesel(sql_type = Text)]
    pub url: WebhookUrl,
    /// Its last attempt failed.
    #[diesel(sql_type = Bool)]
    pub failing: bool,
    #[diesel(sql_type = Bool)]
    pub rate_limited: bool,
    /// How many deliveries are due, counted up to a limit.
    #[diesel(sql_type = BigInt)]
    pub due: i64,
}

/// The endpoints that something is due for and that may be called now. Counts at most `limit` deliveries of each: a long
/// backlog of one costs no more than a short one.
pub async fn waiting(mut conn: &AsyncPgConnection, limit: usize) -> Result<Vec<Waiting>> {
    // From one endpoint to the next by the index, however many deliveries lie between them.
    let rows = sql_query(
        "WITH RECURSIVE pending (endpoint_id) AS (
             (SELECT endpoint_id FROM webhook_deliveries WHERE state = 'pending' ORDER BY endpoint_id LIMIT 1)
             UNION ALL
             SELECT (SELECT next.endpoint_id FROM webhook_deliveries AS next
                     WHERE next.state = 'pending' AND next.endpoint_id > pending.endpoint_id ORDER BY next.endpoint_id LIMIT 1)
             FROM pending WHERE pending.endpoint_id IS NOT NULL)
         SELECT endpoints.tenant_id, endpoints.id AS endpoint_id, url, failing_since IS NOT NULL AS failing,
             rate_limit IS NOT NULL AS rate_limited, due.count AS due
         FROM pending JOIN webhook_endpoints AS endpoints ON endpoints.id = pending.endpoint_id
         CROSS JOIN LATERAL (
             SELECT count(*) FROM (
                 SELECT FROM webhook_deliveries AS due
                 WHERE due.state = 'pending' AND due.endpoint_id = pending.endpoint_id AND due.next_attempt_at <= now()
                 LIMIT $1) AS counted) AS due (count)
         WHERE enabled AND (not_before IS NULL OR not_before <= now()) AND due.count > 0",
    )
    .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX))
    .load(&mut conn)
    .await?;
    Ok(rows)
}

/// So many deliveries of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Share {
    #[diesel(sql_type = Uuid)]
    pub endpoint_id: WebhookEndpointId,
    #[diesel(sql_type = BigInt)]
    pub count: i64,
}

/// What is left of these shares by the rate limits of their endpoints, which all must have one; it is used up by this. A
/// second's worth can be saved up.
pub async fn within_rate_limits(mut conn: &AsyncPgConnection, shares: &[Share]) -> Result<Vec<Share>> {
    let (ids, counts) = columns(shares);
    let rows = sql_query(
        "WITH wanted AS MATERIALIZED (
             SELECT endpoints.id, greatest(coalesce(not_before, '-infinity'), now() - interval '1 second') AS since,
                 least(wanted.count, floor(rate_limit * extract(epoch FROM
                     now() - greatest(coalesce(not_before, '-infinity'), now() - interval '1 second')))::bigint) AS count
             FROM unnest($1, $2) AS wanted (id, count) JOIN webhook_endpoints AS endpoints ON endpoints.id = wanted.id
             WHERE rate_limit IS NOT NULL ORDER BY endpoints.id FOR UPDATE OF endpoints SKIP LOCKED)
         UPDATE webhook_endpoints SET not_before = wanted.since + wanted.count * interval '1 second' / rate_limit
         FROM wanted WHERE webhook_endpoints.id = wanted.id AND wanted.count > 0
         RETURNING webhook_endpoints.id AS endpoint_id, wanted.count",
    )
    .bind::<Array<Uuid>, _>(ids)
    .bind::<Array<BigInt>, _>(counts)
    .prepared()
    .load(&mut conn)
    .await?;
    Ok(rows)
}

/// A delivery of which an attempt is to be made now.
#[derive(Debug, Clone, QueryableByName)]
pub struct Claimed {
    #[diesel(sql_type = Uuid)]
    pub tenant_id: TenantId,
    #[diesel(sql_type = Uuid)]
    pub id: WebhookDeliveryId,
    #[diesel(sql_type = Uuid)]
    pub endpoint_id: WebhookEndpointId,
    #[diesel(sql_type = Text)]
    pub kind: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    pub sequence: Option<i64>,
    #[diesel(sql_type = Jsonb)]
    pub payload: Value,
    #[diesel(sql_type = Timestamptz)]
    pub occurred_at: DateTime<Utc>,
    #[diesel(sql_type = Text)]
    pub origin: Origin,
    /// From 1.
    #[diesel(sql_type = Integer)]
    pub attempt: i32,
    #[diesel(sql_type = Jsonb)]
    pub trace_context: Value,
    /// When it was taken, by the clock of the database: that of a worker may be wrong, and then receivers would take what it
    /// signs for old.
    #[diesel(sql_type = Timestamptz)]
    pub claimed_at: DateTime<Utc>,
    /// From when it was due to this claim.
    #[diesel(sql_type = Double)]
    pub waited_seconds: f64,
}

/// Takes due deliveries by these shares, the oldest of each endpoint first, for the time of a lease.
pub async fn claim(mut conn: &AsyncPgConnection, shares: &[Share], lease: Duration) -> Result<Vec<Claimed>> {
    let (ids, counts) = columns(shares);
    let rows = sql_query(
        "WITH mine AS MATERIALIZED (
             SELECT due.tenant_id, due.id, due.next_attempt_at FROM unnest($1, $2) AS share (endpoint_id, count)
             CROSS JOIN LATERAL (
                 SELECT tenant_id, id, next_attempt_at FROM webhook_deliveries
                 WHERE state = 'pending' AND endpoint_id = share.endpoint_id AND next_attempt_at <= now()
                 ORDER BY next_attempt_at LIMIT share.count FOR UPDATE SKIP LOCKED) AS due)
         UPDATE webhook_deliveries AS claimed
         SET attempt = attempt + 1, next_attempt_at = now() + $3 * interval '1 second'
         FROM mine WHERE claimed.tenant_id = mine.tenant_id AND claimed.id = mine.id
         RETURNING claimed.tenant_id, claimed.id, endpoint_id, kind, sequence, payload, occurred_at, origin, attempt, trace_context,
             now() AS claimed_at, extract(epoch FROM now() - mine.next_attempt_at)::float8 AS waited_seconds",
    )
    .bind::<Array<Uuid>, _>(ids)
    .bind::<Array<BigInt>, _>(counts)
    .bind::<Double, _>(lease.as_secs_f64())
        .prepared()
    .load(&mut conn)
    .await?;
    Ok(rows)
}

/// Gives claims up of which no attempt was made: the deliveries are due as they were before, and that was no attempt.
pub async fn hand_back(mut conn: &AsyncPgConnection, unbegun: &[Claimed]) -> Result<()> {
    let waited = |claimed: &Claimed| TimeDelta::microseconds((claimed.waited_seconds * 1e6).round() as i64);
    let due = |claimed: &Claimed| claimed.claimed_at - waited(claimed);
    sql_query(
        "WITH mine AS MATERIALIZED (
             SELECT deliveries.tenant_id, deliveries.id, unbegun.due FROM webhook_deliveries AS deliveries
             JOIN unnest($1, $2, $3, $4) AS unbegun (tenant_id, id, attempt, due)
                 ON unbegun.tenant_id = deliveries.tenant_id AND unbegun.id = deliveries.id AND unbegun.attempt = deliveries.attempt
             WHERE deliveries.state = 'pending' ORDER BY deliveries.id FOR UPDATE OF deliveries)
         UPDATE webhook_deliveries AS deliveries SET attempt = attempt - 1, next_attempt_at = mine.due
         FROM mine WHERE deliveries.tenant_id = mine.tenant_id AND deliveries.id = mine.id",
    )
    .bind::<Array<Uuid>, _>(unbegun.iter().map(|claimed| claimed.tenant_id).collect::<Vec<_>>())
    .bind::<Array<Uuid>, _>(unbegun.iter().map(|claimed| claimed.id).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(unbegun.iter().map(|claimed| claimed.attempt).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(unbegun.iter().map(due).collect::<Vec<_>>())
    .execute(&mut conn)
    .await?;
    Ok(())
}

/// These endpoints, of any tenants.
pub async fn endpoints(mut conn: &AsyncPgConnection, ids: &[WebhookEndpointId]) -> Result<Vec<Endpoint>> {
    Ok(endpoints::table.filter(endpoints::id.eq_any(ids)).select(Endpoint::as_select()).load(&mut conn).await?)
}

/// What came of one attempt.
#[derive(Debug, Clone)]
pub struct Ended {
    pub tenant_id: TenantId,
    pub id: WebhookDeliveryId,
    pub endpoint_id: WebhookEndpointId,
    pub origin: Origin,
    pub attempt: i32,
    pub at: DateTime<Utc>,
    pub duration: Duration,
    pub status: Option<u16>,
    /// Why it failed: what kind of failure, and a sentence.
    pub failure: Option<(ErrorClass, String)>,
    /// Without the NUL character, which PostgreSQL cannot store.
    pub response: String,
    /// When the next attempt is to be made, if there is to be one after a failure.
    pub retry_in: Option<Duration>,
    /// For how long the receiver wants to be left alone.
    pub pause: Option<Duration>,
}

impl Ended {
    /// Where this leaves the delivery.
    pub fn state(&self) -> DeliveryState {
        match (&self.failure, self.retry_in) {
            (None, _) => DeliveryState::Delivered,
            (Some(_), Some(_)) => DeliveryState::Pending,
            (Some(_), None) => DeliveryState::Failed,
        }
    }

    /// Whether the endpoint has failed; `None` when this does not count against it: somebody tries out what may not be there yet,
    /// or the fault is ours.
    fn failed(&self) -> Option<bool> {
        match &self.failure {
            None => Some(false),
            Some((ErrorClass::Secret, _)) => None,
            Some(_) if self.origin == Origin::Test => None,
            Some(_) => Some(true),
        }
    }
}

/// Writes what came of attempts. Those of which a later attempt was begun, or that were discarded or removed meanwhile, are
/// left out. Returns how many were written.
pub async fn settle(mut conn: &AsyncPgConnection, ended: &[Ended]) -> Result<usize> {
    fn all<'a, T>(ended: &'a [Ended], column: impl Fn(&'a Ended) -> T) -> Vec<T> {
        ended.iter().map(column).collect()
    }
    let failure = |ended: &Ended| ended.failure.as_ref().map(|(class, _)| class.as_str());
    let written = sql_query(
        "WITH ended AS MATERIALIZED (
             SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                 AS ended (tenant_id, id, attempt, state, delay, at, duration_ms, status, error_class, error, response)),
         mine AS MATERIALIZED (
             SELECT deliveries.tenant_id, deliveries.id FROM webhook_deliveries AS deliveries
             JOIN ended ON ended.tenant_id = deliveries.tenant_id AND ended.id = deliveries.id AND ended.attempt = deliveries.attempt
             WHERE deliveries.state = 'pending' ORDER BY deliveries.id FOR UPDATE OF deliveries),
         settled AS (
             UPDATE webhook_deliveries AS deliveries
             SET state = ended.state,
                 next_attempt_at = CASE WHEN ended.state = 'pending' THEN now() + ended.delay * interval '1 second' ELSE next_attempt_at END,
                 finished_at = CASE WHEN ended.state <> 'pending' THEN now() END
             FROM mine, ended
             WHERE deliveries.tenant_id = mine.tenant_id AND deliveries.id = mine.id
               AND ended.tenant_id = mine.tenant_id AND ended.id = mine.id AND ended.attempt = deliveries.attempt
             RETURNING deliveries.tenant_id, deliveries.id, deliveries.endpoint_id, deliveries.attempt)
         INSERT INTO webhook_attempts (tenant_id, delivery_id, attempt, endpoint_id, at, duration_ms, status, error_class, error, response)
         SELECT tenant_id, id, attempt, endpoint_id, at, duration_ms, status, error_class, error, response
         FROM settled JOIN ended USING (tenant_id, id, attempt)",
    )
    .bind::<Array<Uuid>, _>(all(ended, |ended| ended.tenant_id))
    .bind::<Array<Uuid>, _>(all(ended, |ended| ended.id))
    .bind::<Array<Integer>, _>(all(ended, |ended| ended.attempt))
    .bind::<Array<Text>, _>(all(ended, |ended| ended.state().as_str()))
    .bind::<Array<Double>, _>(all(ended, |ended| ended.retry_in.unwrap_or_default().as_secs_f64()))
    .bind::<Array<Timestamptz>, _>(all(ended, |ended| ended.at))
    .bind::<Array<Integer>, _>(all(ended, |ended| i32::try_from(ended.duration.as_millis()).unwrap_or(i32::MAX)))
    .bind::<Array<Nullable<Integer>>, _>(all(ended, |ended| ended.status.map(i32::from)))
    .bind::<Array<Nullable<Text>>, _>(all(ended, failure))
    .bind::<Array<Nullable<Text>>, _>(all(ended, |ended| ended.failure.as_ref().map(|(_, error)| error.as_str())))
    .bind::<Array<Text>, _>(all(ended, |ended| ended.response.as_str()))
        .prepared()
    .execute(&mut conn)
    .await?;
    Ok(written)
}

/// Notes of endpoints since when they fail, or that they do no more, and until when they want to be left alone: by the last
/// attempt of each, in the order given. Returns those that have failed for longer than `patience`, and were tried again and again: a
/// failure after more than `silence` is the first one anew.
pub async fn note_health(
    mut conn: &AsyncPgConnection,
    ended: &[Ended],
    patience: Duration,
    silence: Duration,
) -> Result<Vec<(TenantId, WebhookEndpointId)>> {
    #[derive(QueryableByName)]
    struct Lost {
        #[diesel(sql_type = Uuid)]
        tenant_id: TenantId,
        #[diesel(sql_type = Uuid)]
        id: WebhookEndpointId,
    }
    let mut last: std::collections::BTreeMap<WebhookEndpointId, (Option<bool>, Option<f64>)> = std::collections::BTreeMap::new();
    for ended in ended {
        let (failed, pause) = last.entry(ended.endpoint_id).or_default();
        *failed = ended.failed().or(*failed);
        *pause = ended.pause.map(|pause| pause.as_secs_f64()).or(*pause);
    }
    let ids: Vec<_> = last.keys().copied().collect();
    let (failed, pauses): (Vec<Option<bool>>, Vec<Option<f64>>) = last.values().copied().unzip();
    let lost: Vec<Lost> = sql_query(
        "WITH last AS MATERIALIZED (SELECT * FROM unnest($1, $2, $3) AS last (id, failed, pause)),
         noted AS (
             UPDATE webhook_endpoints AS endpoints
             SET failing_since = CASE WHEN last.failed IS NULL THEN failing_since
                     WHEN last.failed AND last_failed_at >= now() - $5 * interval '1 second' THEN coalesce(failing_since, now())
                     WHEN last.failed THEN now() END,
                 last_failed_at = CASE WHEN last.failed THEN now() ELSE last_failed_at END,
                 not_before = greatest(not_before, now() + last.pause * interval '1 second')
             FROM last WHERE endpoints.id = last.id
                 AND (last.failed OR NOT last.failed AND failing_since IS NOT NULL OR last.pause IS NOT NULL)
             RETURNING tenant_id, endpoints.id, enabled, last.failed, failing_since)
         SELECT tenant_id, id FROM noted WHERE enabled AND failed AND failing_since < now() - $4 * interval '1 second'",
    )
    .bind::<Array<Uuid>, _>(ids)
    .bind::<Array<Nullable<Bool>>, _>(failed)
    .bind::<Array<Nullable<Double>>, _>(pauses)
    .bind::<Double, _>(patience.as_secs_f64())
    .bind::<Double, _>(silence.as_secs_f64())
    .prepared()
    .load(&mut conn)
    .await?;
    Ok(lost.into_iter().map(|lost| (lost.tenant_id, lost.id)).collect())
}

/// Removes up to `limit` deliveries that ended longer than `age` ago, with their attempts. Returns how many there were.
pub async fn delete_finished(mut conn: &AsyncPgConnection, age: Duration, limit: u32) -> Result<usize> {
    let deleted = sql_query(
        "WITH old AS MATERIALIZED (
             SELECT tenant_id, id FROM webhook_deliveries WHERE finished_at < now() - $1 * interval '1 second'
             ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED)
         DELETE FROM webhook_deliveries AS deliveries USING old WHERE deliveries.tenant_id = old.tenant_id AND deliveries.id = old.id",
    )
    .bind::<Double, _>(age.as_secs_f64())
    .bind::<BigInt, _>(i64::from(limit))
    .execute(&mut conn)
    .await?;
    Ok(deleted)
}

/// How many endpoints of all tenants work, fail, or are disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct States {
    #[diesel(sql_type = BigInt)]
    pub working: i64,
    #[diesel(sql_type = BigInt)]
    pub failing: i64,
    #[diesel(sql_type = BigInt)]
    pub disabled: i64,
}

pub async fn states(mut conn: &AsyncPgConnection) -> Result<States> {
    let states = sql_query(
        "SELECT count(*) FILTER (WHERE enabled AND failing_since IS NULL) AS working,
             count(*) FILTER (WHERE enabled AND failing_since IS NOT NULL) AS failing,
             count(*) FILTER (WHERE NOT enabled) AS disabled
         FROM webhook_endpoints",
    );
    Ok(states.get_result(&mut conn).await?)
}

fn columns(shares: &[Share]) -> (Vec<WebhookEndpointId>, Vec<i64>) {
    shares.iter().map(|share| (share.endpoint_id, share.count)).unzip()
}
