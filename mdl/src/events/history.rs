//! The stream of a tenant, as it is kept in PostgreSQL: for those who missed something.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Integer, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{STAMPED, Stamped};
use crate::db::Prepare;
use crate::error::Result;
use crate::ids::TenantId;
use crate::schema::event_streams;

/// How far a stream goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The least sequence that is kept; one more than `last` when none is.
    pub kept_from: i64,
    /// The greatest sequence; 0 before the first event.
    pub last: i64,
}

/// The bounds of a tenant's stream.
pub async fn bounds(mut conn: &AsyncPgConnection, tenant: TenantId) -> Result<Bounds> {
    let row: Option<(i64, i64)> = event_streams::table
        .filter(event_streams::tenant_id.eq(tenant))
        .select((event_streams::kept_from, event_streams::last_sequence))
        .first(&mut conn)
        .await
        .optional()?;
    Ok(row.map_or(Bounds { kept_from: 1, last: 0 }, |(kept_from, last)| Bounds { kept_from, last }))
}

/// The last sequence of each of these tenants that has a stream; of all that have got events since a time when `since` is given.
/// Needs a transaction of [`dispatch`](crate::db::Db::dispatch).
pub async fn last_of_each(
    mut conn: &AsyncPgConnection,
    tenants: Option<&[TenantId]>,
    since: Option<DateTime<Utc>>,
) -> Result<Vec<(TenantId, i64)>> {
    let mut streams = event_streams::table.select((event_streams::tenant_id, event_streams::last_sequence)).into_boxed();
    if let Some(tenants) = tenants {
        streams = streams.filter(event_streams::tenant_id.eq_any(tenants));
    }
    if let Some(since) = since {
        streams = streams.filter(event_streams::updated_at.gt(since));
    }
    Ok(streams.load(&mut conn).await?)
}

/// The events of a tenant after a sequence, at most `limit` of them, in order. Whoever asks has looked at the [`bounds`]: what
/// is no longer kept is left out without a word.
pub async fn after(mut conn: &AsyncPgConnection, tenant: TenantId, sequence: i64, limit: i64) -> Result<Vec<Stamped>> {
    Ok(sql_query(format!("SELECT {STAMPED} FROM outbox WHERE tenant_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3"))
        .bind::<SqlUuid, _>(tenant)
        .bind::<BigInt, _>(sequence)
        .bind::<BigInt, _>(limit)
        .prepared()
        .load(&mut conn)
        .await?)
}

/// Removes the oldest events of each tenant, at most `limit` of each, that were published more than `days` ago. Answers how
/// many there were. Needs a transaction of [`dispatch`](crate::db::Db::dispatch).
pub async fn prune(mut conn: &AsyncPgConnection, days: i32, limit: i64) -> Result<usize> {
    #[derive(QueryableByName)]
    struct Old {
        #[diesel(sql_type = SqlUuid)]
        tenant_id: TenantId,
        #[diesel(sql_type = BigInt)]
        last: i64,
    }
    // From the oldest on, so that what is kept has no gap.
    let old: Vec<Old> = sql_query(
        "SELECT stream.tenant_id,
                coalesce(min(sequence) FILTER (WHERE published_at >= now() - make_interval(days => $1)) - 1, max(sequence)) AS last
         FROM event_streams AS stream,
         LATERAL (SELECT sequence, published_at FROM outbox
                  WHERE outbox.tenant_id = stream.tenant_id AND sequence >= stream.kept_from
                  ORDER BY sequence LIMIT $2) AS oldest
         WHERE (SELECT published_at FROM outbox WHERE outbox.tenant_id = stream.tenant_id AND sequence >= stream.kept_from
                ORDER BY sequence LIMIT 1) < now() - make_interval(days => $1)
         GROUP BY stream.tenant_id",
    )
    .bind::<Integer, _>(days)
    .bind::<BigInt, _>(limit)
    .load(&mut conn)
    .await?;
    if old.is_empty() {
        return Ok(0);
    }
    let (tenants, last): (Vec<_>, Vec<_>) = old.into_iter().map(|old| (old.tenant_id, old.last)).unzip();
    sql_query(
        "UPDATE event_streams AS stream SET kept_from = old.last + 1
         FROM unnest($1, $2) AS old (tenant_id, last) WHERE stream.tenant_id = old.tenant_id",
    )
    .bind::<Array<SqlUuid>, _>(&tenants)
    .bind::<Array<BigInt>, _>(&last)
    .execute(&mut conn)
    .await?;
    let removed = sql_query(
        "DELETE FROM outbox USING unnest($1, $2) AS old (tenant_id, last)
         WHERE outbox.tenant_id = old.tenant_id AND sequence <= old.last",
    )
    .bind::<Array<SqlUuid>, _>(&tenants)
    .bind::<Array<BigInt>, _>(&last)
    .execute(&mut conn)
    .await?;
    Ok(removed)
}
