//! Deletes jobs that ended long ago.

use mdl::maintenance::PruneJobs;
use mdl::{Result, jobs};
use tracing::info;

use super::{Done, JobContext};

pub async fn run(_: PruneJobs, ctx: JobContext) -> Result<Done> {
    let deleted = jobs::prune(&ctx.app).await?;
    info!("Deleted {deleted} jobs that ended long ago");
    Ok(Done::Finished)
}
