//! The audit log: one row for each change, in the transaction of the change.
//!
//! Whatever is recorded is a change, so this is also where a transaction learns what it touched: the versions of that are
//! bumped when it commits, and no kept answer survives it.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::actor::Actor;
use crate::db::Transaction;
use crate::error::Result;
use crate::ids::{AuditId, TenantId};
use crate::schema::audit_log;
use crate::versions::Entities;

#[derive(Insertable)]
#[diesel(table_name = audit_log)]
struct NewEntry<'a> {
    tenant_id: TenantId,
    id: AuditId,
    actor_kind: &'a str,
    actor_id: Option<Uuid>,
    action: &'a str,
    entity_kind: &'a str,
    entity_id: Option<Uuid>,
    details: &'a Value,
    request_id: Option<&'a str>,
}

/// Records that the actor did `action` (`metric.created`, `user.suspended`, …) to the entity. `details` must hold no secret.
pub async fn record(tx: &Transaction, actor: &Actor, action: &str, entity: (&str, Uuid), details: &Value) -> Result<()> {
    let entry = NewEntry {
        tenant_id: actor.tenant,
        id: AuditId::new(),
        actor_kind: actor.kind(),
        actor_id: Some(actor.id()).filter(|id| !id.is_nil()),
        action,
        entity_kind: entity.0,
        entity_id: Some(entity.1),
        details,
        request_id: actor.request_id.as_deref(),
    };
    tx.touch(Entities::of_kind(entity.0));
    diesel::insert_into(audit_log::table).values(entry).execute(&mut &**tx).await?;
    Ok(())
}
