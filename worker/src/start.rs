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
    match migrations::pending(&app.db).await {
        Ok(false) => Ok(()),
        Ok(true) => Err("the database lacks migrations of this version; run `mdl-api migrate`".to_owned()),
        Err(error) => match causes(&error) {
            // Before the first migration there is no table that says which were applied.
            reason if reason.contains("__diesel_schema_migrations") => {
                Err("the database is empty; run `mdl-api migrate`".to_owned())
            }
            reason => Err(reason),
        },
    }
}
