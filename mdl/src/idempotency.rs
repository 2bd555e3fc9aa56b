//! Answers of mutations sent with `Idempotency-Key`.
//!
//! The first request with a key runs, and its answer is stored when it did something; the same request again gets that answer.
//! The same key with another request is a conflict. So is the same request while the first still runs: it is told so at once
//! rather than kept waiting. A request that comes to nothing gives its key back. One that dies keeps it until its lease ends, after which
//! the same request may run again; if it died between its commit and storing the answer, that runs it twice.
//!
//! Keys belong to a credential's user or API key, and are forgotten after 24 hours. The anonymous have none.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Binary, Bool, Double, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;
use uuid::Uuid;

use crate::actor::Actor;
use crate::app::App;
use crate::db::Db;
use crate::error::{Code, Error, Result};
use crate::ids::TenantId;
use crate::schema::idempotency_keys;
use crate::tenants;

const OTHER_REQUEST: Error = Error::IdempotencyConflict("This idempotency key was used for another request");
const STILL_RUNS: Error = Error::IdempotencyConflict("The first request with this idempotency key still runs; try again");

/// What to do with a request.
pub enum Outcome {
    /// Run it, then say how it went.
    Run(Guard),
    /// It ran before: this was the answer.
    Stored(Value),
}

/// The right to run the request of a key. End it with [`Guard::finish`] or [`Guard::release`]; when it is dropped instead, the
/// key stays taken until the lease ends.
#[must_use = "finish or release it, or the key stays taken until its lease ends"]
pub struct Guard {
    db: Db,
    tenant: TenantId,
    actor: Uuid,
    key: String,
    locked_until: DateTime<Utc>,
}

/// Takes a key for a request. `request_hash` covers everything that makes the request what it is: document, operation name and
/// variables.
///
/// Problem: `idempotency_key`. Conflicts: another request used the key; the first request still runs.
pub async fn begin(app: &App, actor: &Actor, key: &str, request_hash: &[u8; 32]) -> Result<Outcome> {
    if key.is_empty() || key.len() > 255 || !key.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        let message = "An idempotency key has 1 to 255 printable ASCII characters";
        return Err(Error::invalid("idempotency_key", Code::Invalid, message));
    }
    // A request is given up at its timeout; one that still holds the key after twice that has died.
    let lease = Duration::from_secs(app.config.http.request_timeout_seconds * 2);
    let tx = app.db.begin(actor.tenant).await?;
    let locked_until = take(&tx, actor, key, request_hash, lease).await?;
    let stored = if locked_until.is_none() { read(&tx, actor, key).await? } else { None };
    tx.commit().await?;
    match (locked_until, stored) {
        (Some(locked_until), _) => Ok(Outcome::Run(Guard {
            db: app.db.clone(),
            tenant: actor.tenant,
            actor: actor.id(),
            key: key.to_owned(),
            locked_until,
        })),
        (None, Some((hash, _))) if hash != request_hash => Err(OTHER_REQUEST),
        (None, Some((_, Some(answer)))) => Ok(Outcome::Stored(answer)),
        // Without a row, it failed and was given back between our two statements.
        (None, Some((_, None)) | None) => Err(STILL_RUNS),
    }
}

impl Guard {
    /// Stores the answer of a request that succeeded, and forgets a few keys of the tenant that are past their time.
    pub async fn finish(self, answer: &Value) -> Result<()> {
        let tx = self.db.begin(self.tenant).await?;
        let mut conn: &AsyncPgConnection = &tx;
        diesel::update(idempotency_keys::table.find((self.tenant, self.actor, &self.key)))
            .filter(idempotency_keys::locked_until.eq(self.locked_until))
            .set(idempotency_keys::response.eq(answer))
            .execute(&mut conn)
            .await?;
        diesel::sql_query(
            "DELETE FROM idempotency_keys WHERE (tenant_id, actor_id, key) IN (
                 SELECT tenant_id, actor_id, key FROM idempotency_keys
                  WHERE tenant_id = $1 AND created_at < now() - interval '24 hours'
                  ORDER BY created_at LIMIT 10 FOR UPDATE SKIP LOCKED)",
        )
        .bind::<SqlUuid, _>(self.tenant)
        .execute(&mut conn)
        .await?;
        tx.commit().await
    }

    /// Gives the key back: the request failed, and may be sent again.
    pub async fn release(self) -> Result<()> {
        let tx = self.db.begin(self.tenant).await?;
        let mut conn: &AsyncPgConnection = &tx;
        diesel::delete(idempotency_keys::table.find((self.tenant, self.actor, &self.key)))
            .filter(idempotency_keys::locked_until.eq(self.locked_until))
            .execute(&mut conn)
            .await?;
        tx.commit().await
    }
}

/// Deletes the keys of all tenants that are past their time. Answers how many.
pub async fn prune(app: &App) -> Result<u64> {
    let mut deleted = 0;
    for tenant in tenants::all_ids(app).await? {
        let tx = app.db.begin(tenant).await?;
        let old = idempotency_keys::table
            .filter(idempotency_keys::tenant_id.eq(tenant))
            .filter(sql::<Bool>("created_at < now() - interval '24 hours'"));
        deleted += diesel::delete(old).execute(&mut &*tx).await? as u64;
        tx.commit().await?;
    }
    Ok(deleted)
}

/// Inserts the key, or takes over one that is past its time or whose run has died. `None` when it is somebody's.
async fn take(
    mut conn: &AsyncPgConnection,
    actor: &Actor,
    key: &str,
    request_hash: &[u8],
    lease: Duration,
) -> Result<Option<DateTime<Utc>>> {
    #[derive(QueryableByName)]
    struct Taken {
        #[diesel(sql_type = Timestamptz)]
        locked_until: DateTime<Utc>,
    }
    let taken: Option<Taken> = diesel::sql_query(
        "INSERT INTO idempotency_keys AS stored (tenant_id, actor_id, key, request_hash, locked_until)
         VALUES ($1, $2, $3, $4, clock_timestamp() + $5 * interval '1 second')
         ON CONFLICT (tenant_id, actor_id, key) DO UPDATE
            SET request_hash = excluded.request_hash, response = NULL, created_at = now(), locked_until = excluded.locked_until
          WHERE stored.created_at < now() - interval '24 hours'
             OR (stored.response IS NULL AND stored.locked_until < now() AND stored.request_hash = excluded.request_hash)
         RETURNING locked_until",
    )
    .bind::<SqlUuid, _>(actor.tenant)
    .bind::<SqlUuid, _>(actor.id())
    .bind::<Text, _>(key)
    .bind::<Binary, _>(request_hash)
    .bind::<Double, _>(lease.as_secs_f64())
    .get_result(&mut conn)
    .await
    .optional()?;
    Ok(taken.map(|taken| taken.locked_until))
}

async fn read(mut conn: &AsyncPgConnection, actor: &Actor, key: &str) -> Result<Option<(Vec<u8>, Option<Value>)>> {
    let query = idempotency_keys::table
        .find((actor.tenant, actor.id(), key))
        .select((idempotency_keys::request_hash, idempotency_keys::response));
    Ok(query.first(&mut conn).await.optional()?)
}
