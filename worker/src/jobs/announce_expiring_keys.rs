//! Says of API keys that they will soon stop working.

use mdl::maintenance::AnnounceExpiringKeys;
use mdl::{Result, api_keys};
use tracing::info;

use super::{Done, JobContext};

pub async fn run(_: AnnounceExpiringKeys, ctx: JobContext) -> Result<Done> {
    let announced = api_keys::announce_expiring(&ctx.app).await?;
    info!("Announced {announced} API keys that will soon stop working");
    Ok(Done::Finished)
}
