//! Removes what is too old, and counts endpoints.

use std::time::Duration;

use mdl::instruments;
use mdl::webhooks::ledger;

use crate::Shared;
use crate::link::Outage;

/// How often.
const INTERVAL: Duration = Duration::from_secs(15);
/// Deliveries that one statement removes.
const BATCH: u32 = 1_000;

/// Until told to stop.
pub async fn upkeep(shared: Shared) {
    let mut outage = Outage::of("remove old webhook deliveries");
    loop {
        match once(&shared).await {
            Ok(()) => outage.over(),
            Err(error) => outage.failed(&error),
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn once(shared: &Shared) -> mdl::Result<()> {
    let tx = ledger::begin(&shared.db).await?;
    let states = ledger::states(&tx).await?;
    tx.commit().await?;
    for (state, count) in [("working", states.working), ("failing", states.failing), ("disabled", states.disabled)] {
        metrics::gauge!(instruments::WEBHOOK_ENDPOINTS, "state" => state).set(count as f64);
    }
    let age = Duration::from_secs(24 * 3600) * shared.app.config.webhooks.retention_days;
    while !shared.stop.is_cancelled() {
        let tx = ledger::begin(&shared.db).await?;
        let deleted = ledger::delete_finished(&tx, age, BATCH).await?;
        tx.commit().await?;
        if deleted < BATCH as usize {
            return Ok(());
        }
    }
    Ok(())
}
