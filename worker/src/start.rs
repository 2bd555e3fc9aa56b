//! Waiting for what a worker needs before it can work.

use std::time::{Duration, Instant};

use mdl::error::causes;
use mdl::{App, migrations};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// How often the servers are asked.
const ASK: Duration = Duration::from_secs(1);

/// How often the log says what is missing.
const SAY: Duration = Duration::from_secs(10);

/// Waits until PostgreSQL answers and has every migration, or until told to stop. Redis is not waited for: the worker does
/// without while it is away.
pub async fn database(app: &App, stop: &CancellationToken) {
    let mut said: Option<Instant> = None;
    while !stop.is_cancelled() {
        let Err(missing) = database_is_ready(app).await else { return };
        if said.is_none_or(|said| said.elapsed() >= SAY) {
            info!("Waiting: {missing}");
            said = Some(Instant::now());
        }
        let _stopped = stop.run_until_cancelled(tokio::time::sleep(ASK)).await;
    }
}

async fn database_is_ready(app: &App) -> Result<(), String> {
    // A new connection, since the pool does not say why it cannot connect.
    app.db.dedicated().await.map_err(|error| causes(&error))?;
    match migrations::lacking(&app.db).await {
        Ok(None) => Ok(()),
        Ok(Some(lacking)) => Err(lacking.to_owned()),
        Err(error) => Err(causes(&error)),
    }
}
