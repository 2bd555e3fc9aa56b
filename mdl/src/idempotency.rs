//! Answers of mutations sent with `Idempotency-Key`.
//!
//! The first request with a key runs, and its answer is stored when it did something; the same request again gets that answer.
//! The same key with another request is a conflict. So is the same request while the first still runs: it is told so at once
//! rather than kept waiting. A request that comes to nothing gives its key back. One that dies keeps it until its lease ends, after which
//! the same request may run again, unless it has changed something: every change marks the key in its own transaction, and cannot
//! be committed by a run that has lost the key to another.
//!
//! Keys belong to a credential's user or API key, and are forgotten after 24 hours. The anonymous have none.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::dsl::{not, sql};
use diesel::prelude::*;
use diesel::sql_types::{Binary, Bool, Double, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;
use uuid::Uuid;

use crate::actor::Actor;
use crate::app::App;
use crate::db::{Db, Prepare, Transaction};
use crate::error::{Code, Error, Result};
use crate::ids::TenantId;
use crate::schema::idempotency_keys;
use crate::tenants;

const OTHER_REQUEST: Error = Error::IdempotencyConflict("This idempotency key was used for another request");
const ANSWER_LOST: Error = Error::IdempotencyConflict(
    "The first request with this idempotency key has changed something, and its answer was lost: \
     look at what there is before you send it with another key",
);
const LOST: Error = Error::IdempotencyConflict("This request took so long that another one has its idempotency key");
const STILL_RUNS: Error = Error::IdempotencyConflict("The first request with this idempotency key still runs; try again");

/// Of a key that is past its time.
const OLD: &str = "idempotency_keys.created_at < now() - interval '24 hours'";
/// Of a key whose run has died before it changed anything: it is free for the same request.
const DIED: &str = "(idempotency_keys.response IS NULL AND NOT idempotency_keys.wrote AND idempotency_keys.locked_until < now())";

/// What to do with a request.
pub enum Outcome {
    /// Run it, then say how it went.
    Run(Guard),
    /// It ran before: this was the answer.
    Stored(Value),
}

/// The right to run the request of a key. End it with [`Guard::end`] or [`Guard::release`]; when it is dropped instead, the key stays
/// taken until the lease ends.
#[must_use = "end or release it, or the key stays taken until its lease ends"]
pub struct Guard {
    db: Db,
    tenant: TenantId,
    actor: Uuid,
    held: Arc<Held>,
}

/// A key, as the run of a request holds it.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    key: String,
    /// Names the run.
    locked_until: DateTime<Utc>,
}

/// Takes a key for a request. `request_hash` covers everything that makes the request what it is: document, operation name and
/// variables. It is [blinded](crate::tokens::Keys::blind), since variables may hold secrets.
///
/// Problem: `Idempotency-Key`. Conflicts: another request used the key; the first request still runs.
pub async fn begin(app: &App, actor: &Actor, key: &str, request_hash: &[u8; 32]) -> Result<Outcome> {
    if key.is_empty() || key.len() > 255 || !key.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        let message = "An idempotency key has 1 to 255 printable ASCII characters";
        return Err(Error::invalid("Idempotency-Key", Code::Invalid, message));
    }
    // A request is given up at its timeout; one that still holds the key after twice that has died.
    let lease = Duration::from_secs(app.config.http.request_timeout_seconds * 2);
    let tx = app.db.begin(actor.tenant).await?;
    // Without a lock first: a run that has changed something holds one until it commits, and nobody is to wait for that here.
    if let Some(stored) = read(&tx, actor, key).await?.filter(|stored| !stored.is_free) {
        return stored.outcome(request_hash);
    }
    let locked_until = take(&tx, actor, key, request_hash, lease).await?;
    let stored = if locked_until.is_none() { read(&tx, actor, key).await? } else { None };
    tx.commit().await?;
    match (locked_until, stored) {
        (Some(locked_until), _) => {
            let held = Arc::new(Held { key: key.to_owned(), locked_until });
            Ok(Outcome::Run(Guard { db: app.db.clone(), tenant: actor.tenant, actor: actor.id(), held }))
        }
        (None, Some(stored)) => stored.outcome(request_hash),
        // It failed and was given back between our two statements.
        (None, None) => Err(STILL_RUNS),
    }
}

impl Stored {
    /// Of a key that is somebody's.
    fn outcome(self, request_hash: &[u8; 32]) -> Result<Outcome> {
        match self {
            stored if stored.request_hash != request_hash => Err(OTHER_REQUEST),
            Stored { response: Some(answer), .. } => Ok(Outcome::Stored(answer)),
            stored if stored.wrote && stored.is_over => Err(ANSWER_LOST),
            _ => Err(STILL_RUNS),
        }
    }
}

impl Held {
    /// Notes, in the transaction of a change, that there is one. Fails when another run has the key by now.
    pub(crate) async fn mark(&self, tx: &Transaction, actor: &Actor) -> Result<()> {
        let own = idempotency_keys::table
            .find((actor.tenant, actor.id(), &self.key))
            .filter(idempotency_keys::locked_until.eq(self.locked_until));
        match diesel::update(own).set(idempotency_keys::wrote.eq(true)).prepared().execute(&mut &**tx).await? {
            0 => Err(LOST),
            _ => Ok(()),
        }
    }
}

impl Guard {
    /// What marks the changes of the request.
    pub fn held(&self) -> Arc<Held> {
        self.held.clone()
    }

    /// Stores the answer of a request, and forgets a few keys of the tenant that are past their time. One that came to nothing gives the
    /// key back, if it really has not changed anything.
    pub async fn end(self, answer: &Value, came_to_nothing: bool) -> Result<()> {
        let tx = self.db.begin(self.tenant).await?;
        let mut conn: &AsyncPgConnection = &tx;
        if came_to_nothing && self.give_back(conn).await? {
            return tx.commit().await;
        }
        diesel::update(idempotency_keys::table.find((self.tenant, self.actor, &self.held.key)))
            .filter(idempotency_keys::locked_until.eq(self.held.locked_until))
            .set(idempotency_keys::response.eq(answer))
            .prepared()
            .execute(&mut conn)
            .await?;
        diesel::sql_query(format!(
            "DELETE FROM idempotency_keys WHERE (tenant_id, actor_id, key) IN (
                 SELECT tenant_id, actor_id, key FROM idempotency_keys
                  WHERE tenant_id = $1 AND {OLD}
                  ORDER BY created_at LIMIT 10 FOR UPDATE SKIP LOCKED)",
        ))
        .bind::<SqlUuid, _>(self.tenant)
        .prepared()
        .execute(&mut conn)
        .await?;
        tx.commit().await
    }

    /// Gives the key back: the request was not executed, and may be sent again.
    pub async fn release(self) -> Result<()> {
        let tx = self.db.begin(self.tenant).await?;
        self.give_back(&tx).await?;
        tx.commit().await
    }

    /// Whether there was nothing against it.
    async fn give_back(&self, mut conn: &AsyncPgConnection) -> Result<bool> {
        let unused = idempotency_keys::table
            .find((self.tenant, self.actor, &self.held.key))
            .filter(idempotency_keys::locked_until.eq(self.held.locked_until).and(not(idempotency_keys::wrote)));
        Ok(diesel::delete(unused).execute(&mut conn).await? == 1)
    }
}

/// Deletes the keys of all tenants that are past their time. Answers how many.
pub async fn prune(app: &App) -> Result<u64> {
    let mut deleted = 0;
    for tenant in tenants::all_ids(app).await? {
        let tx = app.db.begin(tenant).await?;
        let old = idempotency_keys::table.filter(idempotency_keys::tenant_id.eq(tenant)).filter(sql::<Bool>(OLD));
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
    let taken: Option<Taken> = diesel::sql_query(format!(
        "INSERT INTO idempotency_keys (tenant_id, actor_id, key, request_hash, locked_until)
         VALUES ($1, $2, $3, $4, clock_timestamp() + $5 * interval '1 second')
         ON CONFLICT (tenant_id, actor_id, key) DO UPDATE
            SET request_hash = excluded.request_hash, response = NULL, created_at = now(), locked_until = excluded.locked_until, wrote = false
          WHERE {OLD} OR ({DIED} AND idempotency_keys.request_hash = excluded.request_hash)
         RETURNING locked_until",
    ))
    .bind::<SqlUuid, _>(actor.tenant)
    .bind::<SqlUuid, _>(actor.id())
    .bind::<Text, _>(key)
    .bind::<Binary, _>(request_hash)
    .bind::<Double, _>(lease.as_secs_f64())
        .prepared()
    .get_result(&mut conn)
    .await
    .optional()?;
    Ok(taken.map(|taken| taken.locked_until))
}

#[derive(Queryable)]
struct Stored {
    request_hash: Vec<u8>,
    response: Option<Value>,
    wrote: bool,
    /// The lease.
    is_over: bool,
    /// For whoever sends the same request, or after a day for anybody.
    is_free: bool,
}

async fn read(mut conn: &AsyncPgConnection, actor: &Actor, key: &str) -> Result<Option<Stored>> {
    use idempotency_keys::{request_hash, response, wrote};
    let query = idempotency_keys::table.find((actor.tenant, actor.id(), key)).select((
        request_hash,
        response,
        wrote,
        sql::<Bool>("locked_until < now()"),
        sql::<Bool>(&format!("{OLD} OR {DIED}")),
    ));
    Ok(query.first(&mut conn).await.optional()?)
}
