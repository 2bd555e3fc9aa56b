//! What people do with deliveries. What they ask for is sent by a worker, soon after.

use chrono::Utc;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::json;

use super::{CHANNEL, Delivery, DeliveryState, store};
use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::audit;
use crate::error::{Code, Error, Result};
use crate::ids::WebhookDeliveryId;
use crate::jobs::notify;
use crate::schema::{webhook_deliveries as deliveries, webhook_endpoints as endpoints};

/// Makes one more attempt at once, with the same id as those before: for a delivery that waits for its next attempt, has
/// failed, or was discarded.
pub async fn retry(app: &App, actor: &Actor, id: WebhookDeliveryId) -> Result<Delivery> {
    actor.require(Permission::Webhooks)?;
    let tx = app.db.begin(actor.tenant).await?;
    let found: Option<(Delivery, bool)> = deliveries::table
        .inner_join(
            endpoints::table.on(endpoints::tenant_id.eq(deliveries::tenant_id).and(endpoints::id.eq(deliveries::endpoint_id))),
        )
        .filter(deliveries::tenant_id.eq(actor.tenant).and(deliveries::id.eq(id)))
        .select((Delivery::as_select(), endpoints::enabled))
        .for_update()
        .first(&mut &*tx)
        .await
        .optional()?;
    let (delivery, enabled) = found.ok_or_else(|| Error::not_found("webhook delivery", id))?;
    if !enabled {
        return Err(Error::invalid("id", Code::Invalid, "Its endpoint is disabled: enable that first"));
    }
    if delivery.state == DeliveryState::Delivered {
        return Err(Error::invalid("id", Code::Invalid, "It was delivered. To send the event once more, replay it"));
    }
    diesel::update(deliveries::table.find((actor.tenant, id)))
        .set((
            deliveries::state.eq(DeliveryState::Pending),
            deliveries::next_attempt_at.eq(Utc::now()),
            deliveries::finished_at.eq(None::<chrono::DateTime<Utc>>),
        ))
        .execute(&mut &*tx)
        .await?;
    audit::record(&tx, actor, "webhook.delivery_retried", ("webhook", delivery.endpoint_id.0), &json!({ "delivery": id }))
        .await?;
    notify(&tx, CHANNEL, "").await?;
    let delivery = store::deliveries_by_ids(&tx, actor.tenant, &[id]).await?.pop();
    tx.commit().await?;
    delivery.ok_or_else(|| Error::not_found("webhook delivery", id))
}
