//! Whether this process lives, and whether it can do its work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mdl::{App, Error, migrations};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use super::Server;

/// How long one server may take to answer. Shorter than the second that probes wait by default.
const PATIENCE: Duration = Duration::from_millis(700);
/// How long an answer is repeated: anybody may ask, and each question costs a connection.
const FRESH: Duration = Duration::from_millis(500);

/// The last report.
#[derive(Default)]
pub struct Readiness(Mutex<Option<(Instant, Report)>>);

#[derive(Clone)]
struct Report {
    ready: bool,
    body: Value,
}

/// `/health`: this process answers.
pub async fn alive() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `/health/ready`: the servers it needs answer. Without Redis it is slower, and still of use.
pub async fn ready(State(server): State<Arc<Server>>) -> Response {
    let mut last = server.readiness.0.lock().await;
    let report = match &*last {
        Some((at, report)) if at.elapsed() < FRESH => report.clone(),
        _ => {
            let report = ask(&server.app).await;
            *last = Some((Instant::now(), report.clone()));
            report
        }
    };
    drop(last);
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report.body)).into_response()
}

async fn ask(app: &App) -> Report {
    let (postgresql, redis) =
        tokio::join!(tokio::time::timeout(PATIENCE, app.db.ping()), tokio::time::timeout(PATIENCE, app.ping_redis()),);
    let postgresql = error_class(postgresql);
    let redis = error_class(redis);
    let migrations = match postgresql {
        Some(_) => "unknown",
        None => match tokio::time::timeout(PATIENCE, migrations::pending(&app.db)).await {
            Ok(Ok(false)) => "applied",
            // A database that was never migrated has no table of migrations.
            _ => "pending",
        },
    };
    let ready = postgresql.is_none() && migrations == "applied";
    let state = |error: Option<&str>| if error.is_none() { "up" } else { "down" };
    let mut body = json!({
        "status": if ready { "ready" } else { "unavailable" },
        "postgresql": state(postgresql),
        "redis": state(redis),
        "migrations": migrations,
    });
    let errors: Map<String, Value> = [("postgresql", postgresql), ("redis", redis)]
        .into_iter()
        .filter_map(|(name, error)| Some((name.to_owned(), error?.into())))
        .collect();
    if !errors.is_empty() {
        body["errors"] = errors.into();
    }
    Report { ready, body }
}

/// The class of an error: its text may name hosts and users.
fn error_class<E>(answer: Result<Result<(), Error>, E>) -> Option<&'static str> {
    match answer {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.code()),
        Err(_) => Some("TIMEOUT"),
    }
}
