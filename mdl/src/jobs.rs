//! Background work. The `jobs` table is the ledger; Redis only carries ids to the workers.
//!
//! A job is enqueued in the transaction of the change that needs it. The relay moves due ids to Redis, a worker claims the
//! row with a lease and a fencing token, and its end is written with that token (see `ledger`).

pub mod ledger;

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use rand::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::actor::Actor;
use crate::error::Result;
use crate::ids::{JobId, TenantId};
use crate::schema::jobs;
use crate::telemetry;

/// The PostgreSQL notification that wakes the relay; its payload is the queue's name.
pub const CHANNEL: &str = "mdl_jobs";

/// A kind of job: its payload (ids, not copies) and how it is run.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The stored name, `verb_noun`: `import_catalog`.
    const KIND: &'static str;
    const QUEUE: &'static str;
    const MAX_ATTEMPTS: i32;
    /// How long one attempt may take.
    const TIMEOUT: Duration;

    /// How long to wait before the next attempt, when `attempt` (from 1) has failed: doubling from 2 s up to 10 minutes,
    /// with half of it left to chance so that many that failed together do not come back together.
    fn backoff(attempt: i32) -> Duration {
        let ceiling = 2f64.powi(attempt.clamp(1, 20)).min(600.0);
        Duration::from_secs_f64(rand::rng().random_range(ceiling / 2.0..=ceiling))
    }
}

/// When and how to enqueue; `Default` is at once.
#[derive(Debug, Clone, Default)]
pub struct Enqueue {
    /// At most one unfinished job of the kind has this key.
    pub unique_key: Option<String>,
    pub run_at: Option<DateTime<Utc>>,
    /// Greater runs earlier.
    pub priority: i16,
}

#[derive(Insertable)]
#[diesel(table_name = jobs)]
struct NewJob<'a> {
    tenant_id: TenantId,
    id: JobId,
    queue: &'a str,
    kind: &'a str,
    payload: Value,
    priority: i16,
    run_at: DateTime<Utc>,
    unique_key: Option<&'a str>,
    max_attempts: i32,
    trace_context: Value,
    enqueued_by: Option<Uuid>,
}

/// Adds a job to the ledger, in the caller's transaction. `None` when an unfinished job has the same unique key.
pub async fn enqueue<J: Job>(mut conn: &AsyncPgConnection, actor: &Actor, job: &J, how: &Enqueue) -> Result<Option<JobId>> {
    let row = NewJob {
        tenant_id: actor.tenant,
        id: JobId::new(),
        queue: J::QUEUE,
        kind: J::KIND,
        payload: serde_json::to_value(job)?,
        priority: how.priority,
        run_at: how.run_at.unwrap_or_else(Utc::now),
        unique_key: how.unique_key.as_deref(),
        max_attempts: J::MAX_ATTEMPTS,
        trace_context: telemetry::trace_context(),
        enqueued_by: Some(actor.id()).filter(|id| !id.is_nil()),
    };
    let id = diesel::insert_into(jobs::table)
        .values(&row)
        .on_conflict_do_nothing()
        .returning(jobs::id)
        .get_result(&mut conn)
        .await
        .optional()?;
    if id.is_some() {
        // Delivered when the transaction commits, and not at all when it does not.
        diesel::sql_query("SELECT pg_notify($1, $2)")
            .bind::<diesel::sql_types::Text, _>(CHANNEL)
            .bind::<diesel::sql_types::Text, _>(J::QUEUE)
            .execute(&mut conn)
            .await?;
    }
    Ok(id)
}
