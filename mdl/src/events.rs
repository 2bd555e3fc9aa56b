//! Events owed to subscribers: the outbox.
//!
//! A change pushes its event in its own transaction; what is rolled back was never owed.

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;
use uuid::Uuid;

use crate::actor::Actor;
use crate::error::Result;
use crate::ids::{EventId, TenantId};
use crate::schema::outbox;
use crate::telemetry;

/// Something that happened in the catalog: `metric.created`, `import.completed`, …
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: &'static str,
    /// The entity it happened to.
    pub subject: Uuid,
    pub payload: Value,
}

#[derive(Insertable)]
#[diesel(table_name = outbox)]
struct NewEvent<'a> {
    tenant_id: TenantId,
    id: EventId,
    kind: &'a str,
    subject_id: Uuid,
    payload: &'a Value,
    actor_id: Option<Uuid>,
    trace_context: Value,
}

/// Owes this event to the tenant's subscribers.
pub async fn push(mut conn: &AsyncPgConnection, actor: &Actor, event: &Event) -> Result<()> {
    let row = NewEvent {
        tenant_id: actor.tenant,
        id: EventId::new(),
        kind: event.kind,
        subject_id: event.subject,
        payload: &event.payload,
        actor_id: Some(actor.id()).filter(|id| !id.is_nil()),
        trace_context: telemetry::trace_context(),
    };
    diesel::insert_into(outbox::table).values(row).execute(&mut conn).await?;
    Ok(())
}
