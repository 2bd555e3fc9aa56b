//! Makes a backup and restores it on trial.

use std::time::Duration;

use mdl::Result;
use mdl::backups::{self, BackUp, Progress};

use super::{Done, JobContext};

/// How long it waits while another backup is made, or old ones are removed.
const WAIT: Duration = Duration::from_secs(600);

pub async fn run(job: BackUp, ctx: JobContext) -> Result<Done> {
    let progress = Progress::default();
    let done = unless_stopped(&ctx, backups::back_up_and_verify(&ctx.app, &job, &progress)).await?;
    if done == Done::Cancelled {
        backups::cancelled(&ctx.app, job.id, &progress).await;
    }
    Ok(done)
}

/// Stops when it is asked to: what is left is removed by the next backup, trial restore or clean-up. Comes again when somebody
/// else has the lock.
pub(super) async fn unless_stopped(ctx: &JobContext, work: impl Future<Output = Result<()>>) -> Result<Done> {
    match ctx.cancelled().run_until_cancelled(work).await {
        Some(Err(error)) if backups::is_busy(&error) => Ok(Done::Snooze(WAIT)),
        Some(done) => done.map(|()| Done::Finished),
        None => Ok(Done::Cancelled),
    }
}
