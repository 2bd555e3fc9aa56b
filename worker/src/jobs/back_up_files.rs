//! Stores the uploaded files that no backup has yet.

use std::time::Duration;

use mdl::Result;
use mdl::backups::{self, BackUpFiles, Progress};

use super::{Done, JobContext};

/// How long it waits while a backup is made, or old ones are removed.
const WAIT: Duration = Duration::from_secs(600);

pub async fn run(_: BackUpFiles, ctx: JobContext) -> Result<Done> {
    if !backups::are_set_up(&ctx.app) {
        return Ok(Done::Finished);
    }
    match ctx.cancelled().run_until_cancelled(backups::back_up_files(&ctx.app, &Progress::default())).await {
        Some(stored) => Ok(if stored? { Done::Finished } else { Done::Snooze(WAIT) }),
        None => Ok(Done::Cancelled),
    }
}
