//! What operators see of a worker: /health, /health/ready and /metrics, on a port of their own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use mdl::{App, instruments};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::link::Link;

/// How long a server may take to answer before it counts as away.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often the recorder folds what was recorded, so that it does not grow between two scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Ops {
    app: App,
    redis: Arc<Mutex<Link>>,
    metrics: PrometheusHandle,
}

/// Takes the port; fails with a sentence when somebody else has it.
pub async fn bind(app: &App) -> anyhow::Result<TcpListener> {
    let address = app.config.worker.ops_addr;
    TcpListener::bind(address).await.with_context(|| {
        format!("Cannot serve /health and /metrics on {address}; choose another address with MDL_WORKER_OPS_ADDR")
    })
}

/// Serves until the program ends.
pub async fn serve(app: App, listener: TcpListener, metrics: PrometheusHandle) -> anyhow::Result<()> {
    let redis = Arc::new(Mutex::new(Link::new(&app.config.redis, PATIENCE)?));
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    let router = Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(render))
        .with_state(Ops { app, redis, metrics });
    Ok(axum::serve(listener, router).await?)
}

/// Whether the servers answer that the worker needs. Without Redis it works, more slowly; without PostgreSQL not at all.
async fn ready(State(ops): State<Ops>) -> (StatusCode, Json<Value>) {
    let postgresql = async {
        match tokio::time::timeout(PATIENCE, ops.app.db.ping()).await {
            Ok(Ok(())) => "ok",
            Ok(Err(error)) => error.code(),
            Err(_) => "TIMEOUT",
        }
    };
    let redis = async {
        let mut link = ops.redis.lock().await;
        match tokio::time::timeout(PATIENCE, link.query::<String>(&redis::cmd("PING"))).await {
            Ok(Ok(_)) => "ok",
            Ok(Err(error)) => mdl::Error::from(error).code(),
            Err(_) => "TIMEOUT",
        }
    };
    let (postgresql, redis) = tokio::join!(postgresql, redis);
    let status = if postgresql == "ok" && redis == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "postgresql": postgresql, "redis": redis })))
}

async fn render(State(ops): State<Ops>) -> String {
    let pool = ops.app.db.pool_state();
    let idle = f64::from(pool.idle_connections);
    metrics::gauge!(instruments::DB_POOL_CONNECTIONS, "state" => "idle").set(idle);
    metrics::gauge!(instruments::DB_POOL_CONNECTIONS, "state" => "used").set(f64::from(pool.connections) - idle);
    instruments::sample_process();
    ops.metrics.render()
}
