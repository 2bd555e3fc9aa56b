//! Deletes idempotency keys past their time and sessions that ended long ago.

use mdl::maintenance::PruneCredentials;
use mdl::{Result, idempotency, sessions};
use tracing::info;

use super::{Done, JobContext};

pub async fn run(_: PruneCredentials, ctx: JobContext) -> Result<Done> {
    let keys = idempotency::prune(&ctx.app).await?;
    let ended = sessions::prune(&ctx.app).await?;
    info!("Deleted {keys} idempotency keys and {ended} sessions past their time");
    Ok(Done::Finished)
}
