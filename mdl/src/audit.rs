//! The audit log: one row for each change, in the transaction of the change.
//!
//! Whatever is recorded is a change, so this is also where a transaction learns what it touched: the versions of that are
//! bumped when it commits, and no kept answer survives it; and where the idempotency key of its request learns that it is used up.

use std::sync::OnceLock;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::actor::{Actor, Subject};
use crate::db::Transaction;
use crate::error::Result;
use crate::ids::{AuditId, TenantId};
use crate::schema::audit_log;
use crate::versions::{Entities, Touched};

/// Who gives the command that this process does, if it does one. Of the process, since what a command calls acts as the system in
/// many places, and all of it is that person's doing.
static OPERATOR: OnceLock<Value> = OnceLock::new();

/// Has the entries that this process makes as the system say who gave it its command: `operator` in their details.
pub fn name_operator(operator: Value) {
    // A process does one command, so a second name is the same.
    let _named = OPERATOR.set(operator);
}

#[derive(Insertable)]
#[diesel(table_name = audit_log, treat_none_as_default_value = false)]
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

/// Records that the actor did `action` (`metric.created`, `user.suspended`, …) to the entity. `details` is an object, and must
/// hold no secret. Touches whatever can change with a thing of this kind.
pub async fn record(tx: &Transaction, actor: &Actor, action: &str, entity: (&str, Uuid), details: &Value) -> Result<()> {
    record_touching(tx, actor, action, entity, details, Entities::of_kind(entity.0)).await
}

/// The same, by somebody who knows what it touches.
pub async fn record_touching(
    tx: &Transaction,
    actor: &Actor,
    action: &str,
    entity: (&str, Uuid),
    details: &Value,
    touched: impl Into<Touched>,
) -> Result<()> {
    let named = OPERATOR.get().filter(|_| actor.subject == Subject::System).map(|operator| {
        let mut details = details.clone();
        details["operator"] = operator.clone();
        details
    });
    let entry = NewEntry {
        tenant_id: actor.tenant,
        id: AuditId::new(),
        actor_kind: actor.kind(),
        actor_id: Some(actor.id()).filter(|id| !id.is_nil()),
        action,
        entity_kind: entity.0,
        entity_id: Some(entity.1),
        details: named.as_ref().unwrap_or(details),
        request_id: actor.request_id.as_deref(),
    };
    tx.touch(touched);
    diesel::insert_into(audit_log::table).values(entry).execute(&mut &**tx).await?;
    match &actor.once {
        Some(once) => once.mark(tx, actor).await,
        None => Ok(()),
    }
}
