//! How fast this process answers, for operators.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::{Context, Object, Result, SimpleObject};
use chrono::{DateTime, TimeDelta, Utc};
use mdl::actor::Permission;
use mdl::db::PoolUse as Connections;
use mdl::documents::to_hex;

use super::context::ContextExt;
use super::error::top_level;
use super::guard::Needs;
use crate::performance::{Measured, Performance, WINDOW, Window};

/// Reads that are listed.
const MAX_SLOW_READS: usize = 20;

/// How fast one server answers this tenant's operations, over the last minutes.
#[derive(SimpleObject)]
pub struct PerformanceStats {
    /// Which process of the API answered. Each counts for itself: behind a load balancer, ask until all have answered.
    instance: String,
    /// From when on operations are counted: five to ten minutes ago, or when the process started.
    since: DateTime<Utc>,
    /// This tenant's operations, those first that took the most time altogether. At most 100.
    operations: Vec<OperationPerformance>,
    /// This tenant's slowest reads of the database among those that took longer than DATABASE_SLOW_STATEMENT_MILLISECONDS in the last
    /// ten minutes, the slowest first. At most 20.
    slowest_reads: Vec<SlowRead>,
    /// Connections to PostgreSQL, for all tenants.
    postgresql: PoolUse,
    /// Connections to the read replica, for all tenants; null when there is none.
    read_replica: Option<PoolUse>,
    /// Connections to Redis, for all tenants. The caches and live updates have a few more of their own.
    redis: PoolUse,
}

/// How one operation of a document fares. Percentiles are of the time from the parsed request to the answer, within 3 percent.
#[derive(SimpleObject)]
pub struct OperationPerformance {
    /// Its name in the document; null if it has none.
    name: Option<String>,
    /// SHA-256 of the document's text, in hexadecimal.
    document_hash: String,
    /// Requests.
    count: i64,
    /// Requests that were answered with errors, or not at all.
    errors: i64,
    /// The share of requests whose answer was kept from before, from 0 to 1; null if answers like this are not kept.
    hit_rate: Option<f64>,
    /// The time that half of the requests took at most.
    p50_milliseconds: f64,
    /// The time that 95 percent of the requests took at most.
    p95_milliseconds: f64,
    /// The time that 99 percent of the requests took at most.
    p99_milliseconds: f64,
}

/// A read of the database that took long.
#[derive(SimpleObject)]
pub struct SlowRead {
    /// The name of the operation that it was for; null if it has none.
    operation: Option<String>,
    /// The text of the slowest of its statements, with `$1`, `$2`, … for values; null if none took that long by itself, so that the wait for a
    /// connection did.
    statement: Option<String>,
    /// How long it took, with the wait for a connection.
    milliseconds: f64,
    /// When it ended.
    at: DateTime<Utc>,
}

/// The connections of a pool.
#[derive(SimpleObject)]
pub struct PoolUse {
    /// Connections that there may be.
    size: u32,
    /// Connections that there are.
    open: u32,
    /// Connections that nobody uses now.
    idle: u32,
    /// Requests that wait for one.
    waiting: u32,
}

/// Operations that are listed.
const MAX_OPERATIONS: usize = 100;

#[derive(Default)]
pub struct PerformanceQueries;

#[Object]
impl PerformanceQueries {
    /// How fast the server that answers has been lately. Needs the permission OPERATE.
    #[graphql(guard = "Needs(Permission::Operate)")]
    async fn performance_stats(&self, ctx: &Context<'_>) -> Result<PerformanceStats> {
        let performance = ctx.data_unchecked::<Arc<Performance>>();
        let (app, tenant) = (ctx.app(), ctx.actor().map_err(top_level)?.tenant);
        let operations = performance.of_tenant(tenant).into_iter().take(MAX_OPERATIONS);
        let since = Utc::now() - TimeDelta::from_std(2 * WINDOW).unwrap_or(TimeDelta::MAX);
        let slow = app.db.slow_reads(tenant, since).into_iter().take(MAX_SLOW_READS);
        Ok(PerformanceStats {
            instance: mdl::telemetry::process_name(),
            since: performance.since(),
            operations: operations.map(|(measured, window)| OperationPerformance::of(&measured, &window)).collect(),
            slowest_reads: slow
                .map(|read| SlowRead {
                    operation: read.operation.as_deref().map(str::to_owned),
                    statement: read.statement,
                    milliseconds: milliseconds(read.took),
                    at: read.at,
                })
                .collect(),
            postgresql: app.db.pool_use().into(),
            read_replica: app.db.replica_use().map(PoolUse::from),
            redis: app.redis_use().into(),
        })
    }
}

impl OperationPerformance {
    fn of(measured: &Measured, window: &Window) -> Self {
        let quantile = |share| milliseconds(window.quantile(share));
        Self {
            name: measured.name.clone(),
            document_hash: to_hex(&measured.document),
            count: whole(window.count),
            errors: whole(window.errors),
            hit_rate: (window.kept > 0).then(|| window.hits as f64 / window.kept as f64),
            p50_milliseconds: quantile(0.5),
            p95_milliseconds: quantile(0.95),
            p99_milliseconds: quantile(0.99),
        }
    }
}

impl From<Connections> for PoolUse {
    fn from(pool: Connections) -> Self {
        let Connections { size, open, idle, waiting } = pool;
        Self { size, open, idle, waiting }
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
