//! How endpoints are doing.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Double, Nullable, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::error::Result;
use crate::ids::{TenantId, WebhookEndpointId};

/// How one endpoint is doing.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct Statistics {
    #[diesel(sql_type = Uuid)]
    pub endpoint_id: WebhookEndpointId,
    /// In the time that was asked for.
    #[diesel(sql_type = BigInt)]
    pub attempts: i64,
    #[diesel(sql_type = BigInt)]
    pub succeeded: i64,
    /// 95 of 100 attempts took no longer; `None` without one.
    #[diesel(sql_type = Nullable<Double>)]
    pub p95_milliseconds: Option<f64>,
    /// Deliveries that it has not got yet.
    #[diesel(sql_type = BigInt)]
    pub pending: i64,
    /// When the oldest of them came to be.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub oldest_pending_at: Option<DateTime<Utc>>,
}

impl Statistics {
    /// Between 0 and 1; `None` without an attempt.
    pub fn success_rate(&self) -> Option<f64> {
        (self.attempts > 0).then(|| self.succeeded as f64 / self.attempts as f64)
    }
}

/// How these endpoints are doing, by their attempts since then.
pub async fn since(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    endpoints: &[WebhookEndpointId],
    since: DateTime<Utc>,
) -> Result<Vec<Statistics>> {
    let rows = diesel::sql_query(
        "SELECT wanted.id AS endpoint_id, made.attempts, made.succeeded, made.p95 AS p95_milliseconds, open.pending, open.oldest AS oldest_pending_at
         FROM unnest($2) AS wanted (id)
         CROSS JOIN LATERAL (
             SELECT count(*) AS attempts, count(*) FILTER (WHERE error_class IS NULL) AS succeeded,
                 percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95
             FROM webhook_attempts WHERE tenant_id = $1 AND endpoint_id = wanted.id AND at >= $3) AS made
         CROSS JOIN LATERAL (
             SELECT count(*) AS pending, min(created_at) AS oldest
             FROM webhook_deliveries WHERE tenant_id = $1 AND endpoint_id = wanted.id AND state = 'pending') AS open",
    )
    .bind::<Uuid, _>(tenant)
    .bind::<Array<Uuid>, _>(endpoints)
    .bind::<Timestamptz, _>(since)
    .load(&mut conn)
    .await?;
    Ok(rows)
}
