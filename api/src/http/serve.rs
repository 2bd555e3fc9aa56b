//! The program: from settings to two open ports, and to an end without loss.

use std::time::Duration;

use anyhow::Context;
use mdl::config::Config;
use mdl::tokens::Keys;
use mdl::{App, Error, instruments, migrations, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::listen::Patience;
use super::places::Limits;
use super::{listen, ops, router_with};
use crate::live::LiveConnections;

/// Between two attempts to migrate a database that is away.
const MIGRATION_RETRY: Duration = Duration::from_secs(2);
/// How long the last writes may take to become known to other processes.
const LAST_NEWS: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT. Neither PostgreSQL nor Redis need be there yet: `/health/ready` says so.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let _telemetry = telemetry::init(&config.telemetry, "mdl-api")?;
    std::panic::set_hook(Box::new(|panic| error!(panic = %panic, "A part of the program panicked")));
    let recorder = instruments::install()?;
    let listener = listen::bind(config.http.addr, "MDL_HTTP_ADDR").await?;
    let ops_listener = listen::bind(config.http.ops_addr, "MDL_OPS_ADDR").await?;
    let keys = Keys::load(&config.auth)?;
    let app = App::new(config).map_err(crate::cli::explain)?;
    if !app.config.http.web_dir.is_dir() {
        warn!(path = %app.config.http.web_dir.display(), "MDL_WEB_DIR is no folder: GraphiQL is not served");
    }
    if app.config.http.migrate_on_start {
        migrate(&app.config).await?;
    }

    let grace = Duration::from_secs(app.config.http.shutdown_grace_seconds);
    let (stop, stopped) = watch::channel(false);
    let live = LiveConnections::new(app.clone(), CancellationToken::new());
    let live_ends = live.stop().clone();
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = signals.0.recv() => "SIGTERM",
            _ = signals.1.recv() => "SIGINT",
        };
        info!("Stopping on {name}: running requests may take {} s", grace.as_secs());
        stop.send_replace(true);
        live_ends.cancel();
    });
    tokio::spawn(ops::keep_small(recorder.clone()));
    info!(
        http.address = %listener.local_addr()?,
        ops.address = %ops_listener.local_addr()?,
        version = env!("CARGO_PKG_VERSION"),
        "Serving"
    );
    let limits = Limits::of_public(&app.config);
    let patience = Patience::of(&app.config.http);
    let router = router_with(app.clone(), keys, live.clone());
    let public = listen::serve(listener, router, limits, patience, stopped.clone(), grace);
    let versions = app.versions.clone();
    let private = listen::serve(ops_listener, ops::router(app, recorder), Limits::of_operators(), patience, stopped, grace);
    tokio::try_join!(public, private)?;
    if tokio::time::timeout(grace, live.ended()).await.is_err() {
        warn!("Some websockets do not end and are given up");
    }
    versions.settle(LAST_NEWS).await;
    info!("Stopped");
    Ok(())
}

/// Migrates before serving. While the database is away, it is tried again beside serving.
async fn migrate(config: &Config) -> anyhow::Result<()> {
    let owner_url = config.database.owner_url.clone().context("MDL_MIGRATE_ON_START needs DATABASE_OWNER_URL")?;
    match migrations::run(&owner_url).await {
        Ok(applied) => report(&applied),
        Err(Error::Unavailable { .. }) => {
            warn!("PostgreSQL is not available; migrating when it is");
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(MIGRATION_RETRY).await;
                    match migrations::run(&owner_url).await {
                        Ok(applied) => return report(&applied),
                        Err(Error::Unavailable { .. }) => {}
                        Err(error) => return error!(error = %crate::cli::explain(error), "Could not migrate the database"),
                    }
                }
            });
        }
        Err(error) => return Err(crate::cli::explain(error).context("Could not migrate the database")),
    }
    Ok(())
}

fn report(applied: &[String]) {
    for name in applied {
        info!(migration = name, "Migrated the database");
    }
}
