//! Finds when it is time to warm what the apis keep, and enqueues a job for each tenant. It is time when some minutes have
//! passed since the last time, and when an api has started.

use std::time::Duration;

use mdl::warming;

use crate::Shared;
use crate::link::Outage;

/// How long an api that has started waits at most.
const LOOK: Duration = Duration::from_secs(2);

/// Looks until told to stop.
pub async fn schedule(shared: Shared) {
    if !shared.app.config.warming.is_on() {
        return shared.stop.cancelled().await;
    }
    let mut outage = Outage::of("find out what is to be warmed");
    loop {
        match look(&shared).await {
            Ok(()) => outage.over(),
            Err(error) => outage.failed(&error),
        }
        if shared.stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
            return;
        }
    }
}

async fn look(shared: &Shared) -> mdl::Result<()> {
    for tenant in warming::due(&shared.app).await? {
        warming::enqueue(&shared.app, tenant).await?;
    }
    Ok(())
}
