//! Ends imports that nobody will go on with.

use mdl::maintenance::TidyImports;
use mdl::{Result, imports};
use tracing::info;

use super::{Done, JobContext};

pub async fn run(_: TidyImports, ctx: JobContext) -> Result<Done> {
    let ended = imports::tidy(&ctx.app).await?;
    if ended > 0 {
        info!("Ended {ended} imports whose jobs had ended before them");
    }
    Ok(Done::Finished)
}
