//! Instruments of what the database knows, which each worker shows alike: it does not matter which of them is asked.

use std::time::Duration;

use mdl::backups;

use crate::Shared;
use crate::link::Outage;

const LOOK: Duration = Duration::from_secs(60);

/// Looks every minute until told to stop.
pub async fn keep(shared: Shared) {
    let mut outage = Outage::of("look at the newest backups");
    while !shared.stop.is_cancelled() {
        match backups::watch::show(&shared.app).await {
            Ok(()) => outage.over(),
            Err(error) => outage.failed(&error),
        }
        let _stopped = shared.stop.run_until_cancelled(tokio::time::sleep(LOOK)).await;
    }
}
