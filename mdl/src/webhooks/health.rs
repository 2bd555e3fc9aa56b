//! When an endpoint is given up.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::json;
use tracing::info;

use super::{DeliveryState, DisabledReason};
use crate::actor::Actor;
use crate::app::App;
use crate::error::Result;
use crate::events::payloads::WebhookPayload;
use crate::ids::{TenantId, WebhookEndpointId};
use crate::schema::{webhook_deliveries as deliveries, webhook_endpoints as endpoints};
use crate::{audit, events};

/// Disables an endpoint that is gone or has failed for too long, and says so: in the audit log, and with an event to whoever
/// else listens. One that is disabled already, or is there no more, is left as it is.
pub async fn give_up(app: &App, tenant: TenantId, id: WebhookEndpointId, reason: DisabledReason) -> Result<()> {
    let tx = app.db.begin(tenant).await?;
    let enabled = endpoints::table.find((tenant, id)).filter(endpoints::enabled);
    let disabled: Option<(String, Option<DateTime<Utc>>)> = diesel::update(enabled)
        .set((
            endpoints::enabled.eq(false),
            endpoints::disabled_reason.eq(reason),
            endpoints::revision.eq(endpoints::revision + 1),
            endpoints::updated_at.eq(Utc::now()),
            endpoints::updated_by.eq(None::<uuid::Uuid>),
        ))
        .returning((endpoints::description, endpoints::failing_since))
        .get_result(&mut &*tx)
        .await
        .optional()?;
    let Some((description, failing_since)) = disabled else { return Ok(()) };
    let discarded = discard(&tx, tenant, id).await?;
    let actor = Actor::system(tenant);
    let details = json!({ "reason": reason, "failingSince": failing_since, "discarded": discarded });
    audit::record(&tx, &actor, "webhook.disabled", ("webhook", id.0), &details).await?;
    let payload =
        WebhookPayload { id: id.0, description, reason: reason.as_str().to_owned(), failing_since, discarded: discarded as i64 };
    events::push(&tx, &actor, events::kinds::WEBHOOK_ENDPOINT_DISABLED, id.0, &payload).await?;
    tx.commit().await?;
    info!(webhook.endpoint = %id, %tenant, reason = reason.as_str(), "Disabled a webhook endpoint, and discarded {discarded} deliveries");
    Ok(())
}

/// Gives up what an endpoint has not got yet. Returns how much that was.
pub(super) async fn discard(mut conn: &AsyncPgConnection, tenant: TenantId, id: WebhookEndpointId) -> Result<usize> {
    let pending = deliveries::table
        .filter(deliveries::tenant_id.eq(tenant).and(deliveries::endpoint_id.eq(id)))
        .filter(deliveries::state.eq(DeliveryState::Pending));
    Ok(diesel::update(pending)
        .set((deliveries::state.eq(DeliveryState::Discarded), deliveries::finished_at.eq(Utc::now())))
        .execute(&mut conn)
        .await?)
}
