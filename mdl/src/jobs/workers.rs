//! The processes that do the jobs, as they say of themselves.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::prelude::*;
use diesel::upsert::excluded;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::db::Db;
use crate::error::Result;
use crate::schema::workers;
use crate::tenants::SYSTEM;

/// How often a worker writes its row.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// After how much silence a worker counts as gone.
pub const SILENCE: Duration = Duration::from_secs(30);

/// A worker as its row says.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = workers)]
pub struct Worker {
    pub name: String,
    pub host: String,
    pub pid: i64,
    pub version: String,
    pub queues: Vec<String>,
    /// Jobs of all tenants.
    pub running: i32,
    /// Resident; `None` where the system does not say.
    pub memory_bytes: Option<i64>,
    pub started_at: DateTime<Utc>,
    pub last_seen_at: DateTime<Utc>,
    /// When it was told to stop and did.
    pub stopped_at: Option<DateTime<Utc>>,
}

impl Worker {
    /// Whether it has neither stopped nor fallen silent.
    pub fn is_alive(&self) -> bool {
        let silence = (Utc::now() - self.last_seen_at).to_std().unwrap_or_default();
        self.stopped_at.is_none() && silence < SILENCE
    }
}

/// What a worker says of itself.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = workers)]
pub struct SignOfLife<'a> {
    pub name: &'a str,
    pub host: &'a str,
    pub pid: i64,
    pub version: &'a str,
    pub queues: &'a [&'a str],
    pub running: i32,
    pub memory_bytes: Option<i64>,
}

/// Writes a worker's row; with `stopped`, for the last time.
pub async fn beat(db: &Db, sign: &SignOfLife<'_>, stopped: bool) -> Result<()> {
    let tx = db.begin(SYSTEM).await?;
    let stopped_at = stopped.then(Utc::now);
    diesel::insert_into(workers::table)
        .values((workers::tenant_id.eq(SYSTEM), sign, workers::stopped_at.eq(stopped_at)))
        .on_conflict((workers::tenant_id, workers::name))
        .do_update()
        .set((
            workers::running.eq(excluded(workers::running)),
            workers::memory_bytes.eq(excluded(workers::memory_bytes)),
            workers::last_seen_at.eq(now),
            workers::stopped_at.eq(excluded(workers::stopped_at)),
        ))
        .execute(&mut &*tx)
        .await?;
    tx.commit().await
}

/// The workers of the last day, those that started last first. Any tenant's transaction may read them.
pub async fn all(mut conn: &AsyncPgConnection) -> Result<Vec<Worker>> {
    let query =
        workers::table.filter(workers::tenant_id.eq(SYSTEM)).order(workers::started_at.desc()).select(Worker::as_select());
    Ok(query.load(&mut conn).await?)
}
