//! Writes down what came of attempts, several at once, and gives up on endpoints that are beyond hope.

use std::time::Duration;

use mdl::error::causes;
use mdl::ids::{TenantId, WebhookEndpointId};
use mdl::instruments;
use mdl::webhooks::ledger::{self, Claimed, Ended};
use mdl::webhooks::{DeliveryState, DisabledReason, ErrorClass, health, retries};
use tokio::sync::mpsc::UnboundedReceiver;
use tracing::{debug, info, warn};

use crate::Shared;
use crate::link::{Outage, RETRY};

/// Most attempts that one statement writes.
const BATCH: usize = 500;

/// An attempt that is over, and not yet written down.
pub struct Sent {
    pub ended: Ended,
    /// The receiver wants no more.
    pub gone: bool,
}

impl Sent {
    /// Whether somebody was there.
    pub fn answered(&self) -> bool {
        let silent = [ErrorClass::Connect, ErrorClass::Timeout, ErrorClass::Protocol];
        !self.ended.failure.as_ref().is_some_and(|(class, _)| silent.contains(class))
    }
}

/// Writes until nobody can send any more.
pub async fn record(mut sent: UnboundedReceiver<Sent>, shared: Shared) {
    let mut outage = Outage::of("write down what came of webhooks");
    let mut batch = Vec::new();
    while sent.recv_many(&mut batch, BATCH).await > 0 {
        let (ended, gone): (Vec<Ended>, Vec<bool>) = batch.drain(..).map(|sent| (sent.ended, sent.gone)).unzip();
        let failing = loop {
            match write(&shared, &ended).await {
                Ok(failing) => break failing,
                Err(error) => {
                    outage.failed(&error);
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        outage.over();
        ended.iter().for_each(tell);
        let gone = ended.iter().zip(gone).filter(|(_, gone)| *gone);
        let gone = gone.map(|(ended, _)| (ended.tenant_id, ended.endpoint_id, DisabledReason::Gone));
        let failing = failing.into_iter().map(|(tenant, id)| (tenant, id, DisabledReason::Failing));
        for (tenant, id, reason) in gone.chain(failing) {
            // Should this fail, then the next failure tries again.
            if let Err(error) = health::give_up(&shared.app, tenant, id, reason).await {
                warn!(webhook.endpoint = %id, error = causes(&error), "Could not disable a webhook endpoint");
            }
        }
    }
}

/// Hands deliveries back that were claimed ahead and did not begin, until nobody can send any more.
pub async fn hand_back(mut unbegun: UnboundedReceiver<Claimed>, shared: Shared) {
    let mut outage = Outage::of("hand webhooks back that have not begun");
    let mut batch = Vec::new();
    while unbegun.recv_many(&mut batch, BATCH).await > 0 {
        while let Err(error) = return_all(&shared, &batch).await {
            outage.failed(&error);
            tokio::time::sleep(RETRY).await;
        }
        outage.over();
        batch.clear();
        shared.webhooks.notify_one();
    }
}

async fn return_all(shared: &Shared, unbegun: &[Claimed]) -> mdl::Result<()> {
    let tx = ledger::begin(&shared.db).await?;
    ledger::hand_back(&tx, unbegun).await?;
    tx.commit().await
}

async fn write(shared: &Shared, ended: &[Ended]) -> mdl::Result<Vec<(TenantId, WebhookEndpointId)>> {
    let settings = &shared.app.config.webhooks;
    let patience = Duration::from_secs(3600) * settings.disable_after_hours;
    let silence = retries::longest_silence(&settings.retry_seconds);
    let tx = ledger::begin(&shared.db).await?;
    let written = ledger::settle(&tx, ended).await?;
    let failing = ledger::note_health(&tx, ended, patience, silence).await?;
    tx.commit().await?;
    if written < ended.len() {
        let void = ended.len() - written;
        info!("{void} attempts of webhooks came to nothing: their deliveries were discarded, removed, or taken up by others");
        metrics::counter!(instruments::WEBHOOK_ATTEMPTS, "outcome" => "void").increment(void as u64);
    }
    Ok(failing)
}

/// Counts an attempt, and logs it.
fn tell(ended: &Ended) {
    let error = ended.failure.as_ref().map(|(_, error)| error.as_str()).unwrap_or_default();
    let outcome = match ended.state() {
        DeliveryState::Delivered => {
            debug!(webhook.id = %ended.id, webhook.endpoint = %ended.endpoint_id, "Delivered a webhook");
            "delivered"
        }
        DeliveryState::Pending => {
            debug!(webhook.id = %ended.id, webhook.endpoint = %ended.endpoint_id, error, "An attempt of a webhook failed");
            "retried"
        }
        DeliveryState::Failed | DeliveryState::Discarded => {
            info!(webhook.id = %ended.id, webhook.endpoint = %ended.endpoint_id, error, "Gave up a webhook");
            "failed"
        }
    };
    metrics::counter!(instruments::WEBHOOK_ATTEMPTS, "outcome" => outcome).increment(1);
    metrics::histogram!(instruments::WEBHOOK_ATTEMPT_SECONDS).record(ended.duration.as_secs_f64());
}
