//! Applies an uploaded file to the catalog.

use mdl::Result;
use mdl::imports::{self, End, ImportCatalog};

use super::{Done, JobContext};

pub async fn run(job: ImportCatalog, ctx: JobContext) -> Result<Done> {
    let last_attempt = ctx.attempt >= ctx.max_attempts;
    match imports::run(&ctx.app, ctx.tenant, job.import, ctx.cancelled().clone(), last_attempt).await? {
        End::Finished => Ok(Done::Finished),
        End::Cancelled => Ok(Done::Cancelled),
    }
}
