//! Restores the newest backups on trial.

use mdl::Result;
use mdl::backups::{self, Progress, RestoreDrillJob};

use super::back_up::unless_stopped;
use super::{Done, JobContext};

pub async fn run(_: RestoreDrillJob, ctx: JobContext) -> Result<Done> {
    let progress = Progress::default();
    let done = unless_stopped(&ctx, backups::drill(&ctx.app, &progress)).await?;
    if done == Done::Cancelled {
        backups::cancelled(&ctx.app, None, &progress).await;
    }
    Ok(done)
}
