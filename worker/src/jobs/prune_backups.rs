//! Removes old backups.

use mdl::Result;
use mdl::backups::{self, PruneBackups};

use super::{Done, JobContext};

pub async fn run(_: PruneBackups, ctx: JobContext) -> Result<Done> {
    // Where backups are not set up, there are none to remove.
    if ctx.app.config.backup.database_url.is_some() {
        backups::prune(&ctx.app, false).await?;
    }
    Ok(Done::Finished)
}
