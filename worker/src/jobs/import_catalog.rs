//! Applies an uploaded file to the catalog.

use std::convert::Infallible;
use std::time::Duration;

use mdl::error::causes;
use mdl::ids::ImportId;
use mdl::imports::{self, End, ImportCatalog};
use mdl::jobs::ledger::Progress;
use mdl::{Result, warming};
use tracing::{info, warn};

use super::{Done, JobContext};

/// Between two looks at how far the import is.
const LOOK: Duration = Duration::from_secs(1);

/// Until the next look at an import that another worker has. That one may have lost its job and stand still: its connection, and with
/// it the import, is its own until it ends.
const ELSEWHERE: Duration = Duration::from_secs(10);

pub async fn run(job: ImportCatalog, ctx: JobContext) -> Result<Done> {
    let last_attempt = ctx.attempt >= ctx.max_attempts;
    let importing = imports::run(&ctx.app, ctx.tenant, job.import, ctx.cancelled().clone(), last_attempt);
    let end = tokio::select! {
        end = importing => end?,
        never = follow(&ctx, job.import) => match never {},
    };
    report(&ctx, job.import, &mut None).await;
    match end {
        End::Finished => {
            if let Err(error) = warming::after_import(&ctx.app, ctx.tenant, job.import).await {
                warn!(error = causes(&error), import = %job.import, "Could not enqueue a warming after an import; the next one comes by itself");
            }
            Ok(Done::Finished)
        }
        End::Cancelled => Ok(Done::Cancelled),
        End::Elsewhere => {
            info!(import = %job.import, "Another worker is still at an import; looking again in {} s", ELSEWHERE.as_secs());
            Ok(Done::Snooze(ELSEWHERE))
        }
    }
}

/// Lets the job's progress follow the import's.
async fn follow(ctx: &JobContext, import: ImportId) -> Infallible {
    let mut last = None;
    loop {
        tokio::time::sleep(LOOK).await;
        report(ctx, import, &mut last).await;
    }
}

/// Says how far the import is, if that is not what was said last. No import fails because it could not be said.
async fn report(ctx: &JobContext, import: ImportId, last: &mut Option<Progress>) {
    let said = async {
        let now = progress(ctx, import).await?;
        if now != *last
            && let Some(progress) = &now
        {
            ctx.progress(progress).await?;
            *last = now;
        }
        Ok::<_, mdl::Error>(())
    };
    if let Err(error) = said.await {
        warn!(error = causes(&error), %import, "Could not say how far an import is");
    }
}

async fn progress(ctx: &JobContext, import: ImportId) -> Result<Option<Progress>> {
    let snapshot = ctx.app.db.snapshot(ctx.tenant);
    let found = snapshot.read(async |conn| imports::store::by_id(conn, ctx.tenant, import).await).await?;
    snapshot.finish().await;
    Ok(found.map(|import| {
        let message = if import.rows_total.is_some() { "entries" } else { "reading the file through" };
        Progress { done: import.rows_done, total: import.rows_total, message: Some(message.to_owned()) }
    }))
}
