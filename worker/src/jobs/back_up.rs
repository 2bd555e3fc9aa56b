//! Makes a backup and restores it on trial.

use mdl::Result;
use mdl::backups::{self, BackUp, Progress};

use super::{Done, JobContext};

pub async fn run(job: BackUp, ctx: JobContext) -> Result<Done> {
    unless_cancelled(&ctx, backups::back_up_and_verify(&ctx.app, &job, &Progress::default())).await
}

/// Stops when it is asked to: what is left is removed by the next backup or trial restore.
pub(super) async fn unless_cancelled(ctx: &JobContext, work: impl Future<Output = Result<()>>) -> Result<Done> {
    match ctx.cancelled().run_until_cancelled(work).await {
        Some(done) => done.map(|()| Done::Finished),
        None => Ok(Done::Cancelled),
    }
}
