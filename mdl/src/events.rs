//! Events owed to subscribers: the outbox.
//!
//! A change pushes its event in its own transaction; what is rolled back was never owed.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Nullable, Text, Uuid as SqlUuid};
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

/// What kinds of things (`metric`, `objective`, …) unpublished events tell of, tenant by tenant, that have been committed since a
/// snapshot of PostgreSQL, and the snapshot of now. With events younger than `oldest`; all of those without a snapshot. Needs
/// a transaction of [`dispatch`](crate::db::Db::dispatch).
pub async fn committed_since(
    mut conn: &AsyncPgConnection,
    since: Option<&str>,
    oldest: EventId,
) -> Result<(String, Vec<(TenantId, String)>)> {
    #[derive(QueryableByName)]
    struct Now {
        #[diesel(sql_type = Text)]
        snapshot: String,
    }
    #[derive(QueryableByName)]
    struct Changed {
        #[diesel(sql_type = SqlUuid)]
        tenant_id: TenantId,
        #[diesel(sql_type = Text)]
        kind: String,
    }
    // Taken before the events are read: what is committed in between is found now and again the next time.
    let now: Now = sql_query("SELECT pg_current_snapshot()::text AS snapshot").get_result(&mut conn).await?;
    // xmin has 32 of a transaction id's 64 bits; the others are those of the newest id, or one less.
    let changed: Vec<Changed> = sql_query(
        "SELECT DISTINCT tenant_id, split_part(kind, '.', 1) AS kind
         FROM outbox, LATERAL (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS newest) AS clock
         WHERE published_at IS NULL AND id > $1
           AND ($2 IS NULL OR NOT pg_visible_in_snapshot(
               (outbox.xmin::text::bigint + (newest >> 32 << 32)
                   - CASE WHEN outbox.xmin::text::bigint > (newest & 4294967295) THEN 4294967296 ELSE 0 END)::text::xid8,
               $2::pg_snapshot))",
    )
    .bind::<SqlUuid, _>(oldest)
    .bind::<Nullable<Text>, _>(since)
    .load(&mut conn)
    .await?;
    Ok((now.snapshot, changed.into_iter().map(|changed| (changed.tenant_id, changed.kind)).collect()))
}

/// An event that has its place among those of its tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamped {
    pub tenant: TenantId,
    /// From 1, without a gap.
    pub sequence: i64,
    pub id: EventId,
    pub kind: String,
    pub subject: Option<Uuid>,
    pub payload: Value,
    pub actor: Option<Uuid>,
    pub occurred_at: DateTime<Utc>,
    pub trace_context: Value,
}
