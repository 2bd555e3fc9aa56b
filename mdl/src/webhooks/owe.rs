//! From events to what is owed for them.

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;

use super::{CHANNEL, Origin, Settings};
use crate::error::Result;
use crate::events::Stamped;
use crate::ids::{EventId, TenantId, WebhookDeliveryId, WebhookEndpointId};
use crate::jobs::notify;
use crate::schema::{webhook_deliveries, webhook_endpoints as endpoints};

/// Rows of one INSERT: PostgreSQL takes 65,535 values.
const INSERT_ROWS: usize = 2_000;

/// A delivery to be made, as soon as the caller's transaction commits.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = webhook_deliveries)]
pub(super) struct NewDelivery<'a> {
    pub tenant_id: TenantId,
    pub id: WebhookDeliveryId,
    pub endpoint_id: WebhookEndpointId,
    pub event_id: EventId,
    pub sequence: Option<i64>,
    pub kind: &'a str,
    pub payload: &'a Value,
    pub occurred_at: chrono::DateTime<chrono::Utc>,
    pub origin: Origin,
    pub replay_of: Option<WebhookDeliveryId>,
    pub trace_context: &'a Value,
}

impl<'a> NewDelivery<'a> {
    pub fn of(event: &'a Stamped, endpoint: WebhookEndpointId) -> Self {
        Self {
            tenant_id: event.tenant,
            id: WebhookDeliveryId::new(),
            endpoint_id: endpoint,
            event_id: event.id,
            sequence: Some(event.sequence),
            kind: &event.kind,
            payload: &event.payload,
            occurred_at: event.occurred_at,
            origin: Origin::Event,
            replay_of: None,
            trace_context: &event.trace_context,
        }
    }
}

/// Owes these events, of any tenants, to the enabled endpoints that want them. For the relay, in the transaction that stamps
/// them (of [`dispatch`](crate::db::Db::dispatch)); owing an event twice is owing it once.
pub async fn owe(mut conn: &AsyncPgConnection, events: &[Stamped]) -> Result<()> {
    let mut tenants: Vec<TenantId> = events.iter().map(|event| event.tenant).collect();
    tenants.sort_unstable();
    tenants.dedup();
    let receivers: Vec<(TenantId, WebhookEndpointId, Settings)> = endpoints::table
        .filter(endpoints::tenant_id.eq_any(&tenants).and(endpoints::enabled))
        .select((endpoints::tenant_id, endpoints::id, Settings::as_select()))
        .load(&mut conn)
        .await?;
    let mut owed = Vec::new();
    for event in events {
        let wanted = receivers
            .iter()
            .filter(|(tenant, _, settings)| *tenant == event.tenant && settings.wants(&event.kind, &event.payload));
        owed.extend(wanted.map(|(_, endpoint, _)| NewDelivery::of(event, *endpoint)));
    }
    insert(conn, &owed).await
}

/// Adds deliveries and wakes the couriers, when the caller's transaction commits.
pub(super) async fn insert(mut conn: &AsyncPgConnection, deliveries: &[NewDelivery<'_>]) -> Result<()> {
    for rows in deliveries.chunks(INSERT_ROWS) {
        diesel::insert_into(webhook_deliveries::table).values(rows).on_conflict_do_nothing().execute(&mut conn).await?;
    }
    if !deliveries.is_empty() {
        notify(conn, CHANNEL, "").await?;
    }
    Ok(())
}
