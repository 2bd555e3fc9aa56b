//! Looks how old the newest verified backup is.

use mdl::Result;
use mdl::backups::{WatchBackups, watch};

use super::{Done, JobContext};

pub async fn run(_: WatchBackups, ctx: JobContext) -> Result<Done> {
    watch::overdue(&ctx.app).await?;
    Ok(Done::Finished)
}
