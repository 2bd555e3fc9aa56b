//! Removes old backups, and what died ones left.

use mdl::Result;
use mdl::backups::{self, PruneBackups};

use super::back_up::unless_stopped;
use super::{Done, JobContext};

pub async fn run(_: PruneBackups, ctx: JobContext) -> Result<Done> {
    // Where backups are not set up, there are none to remove.
    if ctx.app.config.backup.database_url.is_none() {
        return Ok(Done::Finished);
    }
    unless_stopped(&ctx, async { backups::prune(&ctx.app, false).await.map(drop) }).await
}
