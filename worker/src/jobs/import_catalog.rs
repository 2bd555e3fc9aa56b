//! Applies an uploaded file to the catalog.

use mdl::imports::{self, End, ImportCatalog};
use mdl::{Result, warming};
use tracing::warn;

use super::{Done, JobContext};

pub async fn run(job: ImportCatalog, ctx: JobContext) -> Result<Done> {
    let last_attempt = ctx.attempt >= ctx.max_attempts;
    match imports::run(&ctx.app, ctx.tenant, job.import, ctx.cancelled().clone(), last_attempt).await? {
        End::Finished => {
            if let Err(error) = warming::after_import(&ctx.app, ctx.tenant, job.import).await {
                warn!(%error, import = %job.import, "Could not enqueue a warming after an import; the next one comes by itself");
            }
            Ok(Done::Finished)
        }
        End::Cancelled => Ok(Done::Cancelled),
    }
}
