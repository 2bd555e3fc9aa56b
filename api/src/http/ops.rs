//! The port for operators: instruments, and whether the process lives. Not for the public.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use mdl::{App, instruments};
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;

use super::health;

/// What is behind the ops port.
pub fn router(app: App, recorder: PrometheusHandle) -> Router {
    let app = Arc::new(app);
    let scrape = move || {
        let (app, recorder) = (app.clone(), recorder.clone());
        async move {
            sample_pool(&app);
            instruments::sample_process();
            gauge!(instruments::CACHE_LIVE).set(f64::from(u8::from(app.versions.is_live())));
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], recorder.render()).into_response()
        }
    };
    Router::new().route("/metrics", get(scrape)).route("/health", get(health::alive))
}

/// Folds what histograms have collected, so that they do not grow while nobody scrapes. Never returns.
pub async fn keep_small(recorder: PrometheusHandle) {
    let mut ticks = tokio::time::interval(Duration::from_secs(5));
    loop {
        ticks.tick().await;
        recorder.run_upkeep();
    }
}

fn sample_pool(app: &App) {
    let state = app.db.pool_state();
    gauge!(instruments::DB_POOL_CONNECTIONS, "state" => "idle").set(state.idle_connections);
    gauge!(instruments::DB_POOL_CONNECTIONS, "state" => "used").set(state.connections.saturating_sub(state.idle_connections));
}
