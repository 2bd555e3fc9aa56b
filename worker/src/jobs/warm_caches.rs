//! Enqueues a warming for each tenant whose people have been there lately.

use mdl::Result;
use mdl::warming::{self, WarmCaches, used};

use super::{Done, JobContext};

pub async fn run(_: WarmCaches, ctx: JobContext) -> Result<Done> {
    if ctx.app.config.warming.is_on() {
        for tenant in used::tenants(&ctx.app).await? {
            warming::enqueue(&ctx.app, tenant).await?;
        }
    }
    Ok(Done::Finished)
}
