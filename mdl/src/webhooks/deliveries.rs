//! What people do with deliveries. What they ask for is sent by a worker, soon after.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::json;

use super::endpoints::check_kinds;
use super::owe::{NewDelivery, insert};
use super::{CHANNEL, Delivery, DeliveryState, Endpoint, Origin, store};
use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::db::Transaction;
use crate::error::{Code, Error, Result};
use crate::events::Stamped;
use crate::ids::{EventId, TenantId, WebhookDeliveryId, WebhookEndpointId};
use crate::jobs::notify;
use crate::schema::{webhook_deliveries as deliveries, webhook_endpoints as endpoints};
use crate::text::Problems;
use crate::{audit, events, telemetry};

/// Most events that are replayed at once.
pub const MAX_REPLAYED: usize = 10_000;
/// Events that are read at once.
const READ: i64 = 1_000;

/// Sends an endpoint a made-up event of a kind, whatever kinds it wants otherwise. There is one attempt.
pub async fn test(app: &App, actor: &Actor, id: WebhookEndpointId, kind: &str) -> Result<Delivery> {
    actor.require(Permission::Webhooks)?;
    let Some(payload) = events::sample(kind) else {
        return Err(Error::invalid("kind", Code::NotFound, format!("There are no events of the kind {kind:?}")));
    };
    let tx = app.db.begin(actor.tenant).await?;
    let endpoint = enabled(&tx, actor.tenant, id).await?;
    let delivery = NewDelivery {
        tenant_id: actor.tenant,
        id: WebhookDeliveryId::new(),
        endpoint_id: endpoint.id,
        event_id: EventId::new(),
        sequence: None,
        kind,
        payload: &payload,
        occurred_at: Utc::now(),
        origin: Origin::Test,
        replay_of: None,
        trace_context: &telemetry::trace_context(),
    };
    insert(&tx, std::slice::from_ref(&delivery)).await?;
    audit::record(&tx, actor, "webhook.tested", ("webhook", id.0), &json!({ "kind": kind, "delivery": delivery.id })).await?;
    let made = store::deliveries_by_ids(&tx, actor.tenant, &[delivery.id]).await?.pop();
    tx.commit().await?;
    made.ok_or_else(|| Error::internal("a delivery is gone that was just made"))
}

/// Which events are to be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The first sequence.
    pub from: i64,
    /// The last sequence; the newest event's if not set.
    pub to: Option<i64>,
    /// Only these kinds, of those that the endpoint wants.
    pub kinds: Option<Vec<String>>,
}

impl Replay {
    fn check(&self) -> Result<()> {
        let mut problems = Problems::default();
        if self.from < 1 {
            problems.add("from", Code::OutOfRange, "Must be at least 1");
        }
        if self.to.is_some_and(|to| to < self.from) {
            problems.add("to", Code::OutOfRange, "Must not be before the first");
        }
        if self.kinds.as_ref().is_some_and(Vec::is_empty) {
            problems.add("kinds", Code::Required, "Must name a kind; leave it out for all that the endpoint is told of");
        }
        check_kinds(&mut problems, "kinds", self.kinds.as_deref().unwrap_or_default());
        problems.check()
    }

    fn includes(&self, kind: &str) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|included| included == kind))
    }
}

/// Sends an endpoint events again that it wants, with new ids. Returns how many there were.
///
/// Problems: `from` (below 1, or no longer kept), `to` (before `from`, or more than [`MAX_REPLAYED`] events away), `kinds`.
pub async fn replay(app: &App, actor: &Actor, id: WebhookEndpointId, replay: &Replay) -> Result<usize> {
    actor.require(Permission::Webhooks)?;
    replay.check()?;
    let tx = app.db.begin(actor.tenant).await?;
    let endpoint = enabled(&tx, actor.tenant, id).await?;
    let bounds = events::bounds(&tx, actor.tenant).await?;
    let (from, to) = (replay.from, replay.to.map_or(bounds.last, |to| to.min(bounds.last)));
    if from < bounds.kept_from {
        let message = format!("Events before {} are no longer kept", bounds.kept_from);
        return Err(Error::invalid("from", Code::OutOfRange, message));
    }
    let (mut after, mut count) = (from - 1, 0);
    while after < to {
        let events: Vec<Stamped> = events::after(&tx, actor.tenant, after, READ).await?;
        let Some(last) = events.last().map(|event| event.sequence) else { break };
        after = last;
        let asked = events.iter().filter(|event| event.sequence <= to && replay.includes(&event.kind));
        let wanted: Vec<&Stamped> = asked.filter(|event| endpoint.settings.wants(&event.kind, &event.payload)).collect();
        count += wanted.len();
        if count > MAX_REPLAYED {
            let message = format!("There are more than {MAX_REPLAYED} events in between; replay them in parts");
            return Err(Error::invalid("to", Code::TooMany, message));
        }
        let before = delivered_before(&tx, actor.tenant, id, &wanted).await?;
        let again = wanted.iter().map(|event| NewDelivery {
            origin: Origin::Replay,
            replay_of: before.get(&event.id).copied(),
            ..NewDelivery::of(event, id)
        });
        insert(&tx, &again.collect::<Vec<_>>()).await?;
    }
    let details = json!({ "from": from, "to": to, "kinds": replay.kinds, "count": count });
    audit::record(&tx, actor, "webhook.replayed", ("webhook", id.0), &details).await?;
    tx.commit().await?;
    Ok(count)
}

/// The first deliveries of these events to an endpoint, as far as there were any.
async fn delivered_before(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    endpoint: WebhookEndpointId,
    events: &[&Stamped],
) -> Result<HashMap<EventId, WebhookDeliveryId>> {
    let ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
    let rows: Vec<(EventId, WebhookDeliveryId)> = deliveries::table
        .filter(deliveries::tenant_id.eq(tenant).and(deliveries::endpoint_id.eq(endpoint)))
        .filter(deliveries::event_id.eq_any(ids).and(deliveries::origin.eq(Origin::Event)))
        .select((deliveries::event_id, deliveries::id))
        .load(&mut conn)
        .await?;
    Ok(rows.into_iter().collect())
}

/// The endpoint, which is to be told something and so must be enabled; locked until the transaction ends.
async fn enabled(tx: &Transaction, tenant: TenantId, id: WebhookEndpointId) -> Result<Endpoint> {
    let endpoint = store::lock(tx, tenant, id).await?.ok_or_else(|| Error::unknown_id("webhook endpoint"))?;
    if !endpoint.enabled {
        return Err(Error::invalid("id", Code::Invalid, "The endpoint is disabled: enable it first"));
    }
    Ok(endpoint)
}

/// Makes one more attempt at once, with the same id as those before: for a delivery that waits for its next attempt, has
/// failed, or was discarded. Whoever asks for it knows more than the receiver did when it asked for time: its pause is over.
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
    let (delivery, enabled) = found.ok_or_else(|| Error::unknown_id("webhook delivery"))?;
    if !enabled {
        return Err(Error::invalid("id", Code::Invalid, "Its endpoint is disabled: enable that first"));
    }
    if delivery.state == DeliveryState::Delivered {
        return Err(Error::invalid("id", Code::Invalid, "It was delivered. To send the event once more, replay it"));
    }
    diesel::update(deliveries::table.find((actor.tenant, id)))
        .set((
            deliveries::state.eq(DeliveryState::Pending),
            deliveries::next_attempt_at.eq(now),
            deliveries::finished_at.eq(None::<DateTime<Utc>>),
        ))
        .execute(&mut &*tx)
        .await?;
    let pause: Option<DateTime<Utc>> = None;
    diesel::update(endpoints::table.find((actor.tenant, delivery.endpoint_id)))
        .set(endpoints::not_before.eq(pause))
        .execute(&mut &*tx)
        .await?;
    audit::record(&tx, actor, "webhook.delivery_retried", ("webhook", delivery.endpoint_id.0), &json!({ "delivery": id }))
        .await?;
    notify(&tx, CHANNEL, "").await?;
    let delivery = store::deliveries_by_ids(&tx, actor.tenant, &[id]).await?.pop();
    tx.commit().await?;
    delivery.ok_or_else(|| Error::unknown_id("webhook delivery"))
}
