//! Events: what is told of a change, to whoever listens.
//!
//! | who | does |
//! |---|---|
//! | [`kinds`], [`payloads`] | what can be told |
//! | [`push`] | owes an event, in the transaction of the change: what is rolled back was never owed |
//! | [`stamping`] | gives committed events their place in the stream of their tenant: the relay calls it |
//! | [`history`] | reads the stream, and removes what is too old |
//! | [`live`] | tells those who listen |
//!
//! The stream of a tenant is numbered from 1 without a gap, in the order in which the transactions were committed.

pub mod history;
pub mod kinds;
pub mod live;
pub mod payloads;
pub mod stamping;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types;
use diesel_async::RunQueryDsl;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::actor::Actor;
use crate::db::Transaction;
use crate::error::Result;
use crate::ids::{EventId, TenantId};
use crate::schema::outbox;
use crate::telemetry;

pub use history::{Bounds, after, bounds};
pub use kinds::{Kind, sample};
pub use payloads::Payload;
pub use stamping::stamp;

#[derive(Insertable)]
#[diesel(table_name = outbox, treat_none_as_default_value = false)]
struct NewEvent<'a> {
    tenant_id: TenantId,
    id: EventId,
    kind: &'a str,
    version: i16,
    subject_id: Uuid,
    payload: Value,
    actor_id: Option<Uuid>,
    trace_context: Value,
}

/// Owes an event to the tenant's subscribers, in the caller's transaction. `subject` is what it happened to.
pub async fn push<P: Payload>(tx: &Transaction, actor: &Actor, kind: Kind<P>, subject: Uuid, payload: &P) -> Result<()> {
    let row = NewEvent {
        tenant_id: actor.tenant,
        id: EventId::new(),
        kind: kind.name,
        version: kind.version,
        subject_id: subject,
        payload: serde_json::to_value(payload)?,
        actor_id: Some(actor.id()).filter(|id| !id.is_nil()),
        trace_context: telemetry::trace_context(),
    };
    tx.tells(row.id);
    diesel::insert_into(outbox::table).values(row).execute(&mut &**tx).await?;
    Ok(())
}

/// An event with its place in the stream of its tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, QueryableByName)]
pub struct Stamped {
    #[diesel(sql_type = sql_types::Uuid)]
    pub tenant: TenantId,
    /// From 1, without a gap.
    #[diesel(sql_type = sql_types::BigInt)]
    pub sequence: i64,
    #[diesel(sql_type = sql_types::Uuid)]
    pub id: EventId,
    #[diesel(sql_type = sql_types::Text)]
    pub kind: String,
    /// Of the payload, for the kind.
    #[diesel(sql_type = sql_types::SmallInt)]
    pub version: i16,
    /// What it happened to.
    #[diesel(sql_type = sql_types::Nullable<sql_types::Uuid>)]
    pub subject: Option<Uuid>,
    #[diesel(sql_type = sql_types::Jsonb)]
    pub payload: Value,
    /// The user or API key that did it; `None` for the system.
    #[diesel(sql_type = sql_types::Nullable<sql_types::Uuid>)]
    pub actor: Option<Uuid>,
    /// When the transaction of the change began.
    #[diesel(sql_type = sql_types::Timestamptz)]
    pub occurred_at: DateTime<Utc>,
    /// W3C trace context of the change.
    #[diesel(sql_type = sql_types::Jsonb)]
    pub trace_context: Value,
}

/// The columns of the outbox as [`Stamped`] names them.
const STAMPED: &str = "outbox.tenant_id AS tenant, outbox.sequence, outbox.id, outbox.kind, outbox.version, \
     outbox.subject_id AS subject, outbox.payload, outbox.actor_id AS actor, outbox.created_at AS occurred_at, outbox.trace_context";
