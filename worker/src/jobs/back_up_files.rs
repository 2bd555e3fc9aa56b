//! Stores the uploaded files that no backup has yet.

use mdl::Result;
use mdl::backups::{self, BackUpFiles, Progress};

use super::back_up::unless_stopped;
use super::{Done, JobContext};

pub async fn run(_: BackUpFiles, ctx: JobContext) -> Result<Done> {
    if !backups::are_set_up(&ctx.app) {
        return Ok(Done::Finished);
    }
    unless_stopped(&ctx, backups::back_up_files(&ctx.app, &Progress::default())).await
}
