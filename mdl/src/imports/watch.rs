//! Watches over a running import from another connection: publishes how far it is, and notices that it should stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use chrono::Utc;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::operations::cancel_asked;
use super::{Import, ImportState};
use crate::app::App;
use crate::db::Prepare;
use crate::error::{Result, causes};
use crate::schema::imports;

/// A quarter of the second within which cancelling has to work.
const INTERVAL: Duration = Duration::from_millis(250);

/// How far an import is.
#[derive(Debug, Default)]
pub struct Progress {
    pub bytes_read: Arc<AtomicU64>,
    /// Entries worked on within a transaction that is still open; 0 when each batch is committed by itself.
    pub rows_pending: AtomicI64,
}

/// Ends with the value's drop.
pub struct Watch {
    pub progress: Arc<Progress>,
    stop: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl Watch {
    pub fn start(app: &App, import: &Import, worker: &CancellationToken) -> Self {
        let progress = Arc::new(Progress::default());
        let stop = worker.child_token();
        let task = watch(app.clone(), import.clone(), progress.clone(), stop.clone());
        Self { progress, stop, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }

    /// Waits until somebody cancels the import, or the worker stops its jobs.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}

async fn watch(app: App, import: Import, progress: Arc<Progress>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match publish(&app, &import, &progress).await {
            Ok(true) => stop.cancel(),
            Ok(false) => {}
            // The import notices by itself when PostgreSQL is away.
            Err(error) => warn!(import = %import.id, error = causes(&error), "Could not publish the progress of an import"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Publishes, and returns whether the import is to be cancelled.
async fn publish(app: &App, import: &Import, progress: &Progress) -> Result<bool> {
    let tx = app.db.begin(import.tenant_id).await?;
    let asked = cancel_asked(&tx, import.tenant_id, import.id).await?;
    // Diesel has a method `load` too.
    let bytes_read = AtomicU64::load(&progress.bytes_read, Ordering::Relaxed) as i64;
    let pending = AtomicI64::load(&progress.rows_pending, Ordering::Relaxed);
    let running = imports::table
        .filter(imports::tenant_id.eq(import.tenant_id).and(imports::id.eq(import.id)))
        .filter(imports::state.eq(ImportState::Running));
    let bytes = (imports::bytes_read.eq(bytes_read), imports::updated_at.eq(Utc::now()));
    if pending > 0 {
        diesel::update(running).set((bytes, imports::rows_done.eq(pending))).prepared().execute(&mut &*tx).await?;
    } else {
        diesel::update(running).set(bytes).prepared().execute(&mut &*tx).await?;
    }
    tx.commit().await?;
    Ok(asked)
}
