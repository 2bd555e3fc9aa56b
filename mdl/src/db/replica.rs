//! A read replica of PostgreSQL, and when a read may go there: once it has replayed all that the read must see.
//!
//! What a read must see is whatever this process has heard of its tenant, from this process and from others: the same news by
//! which kept answers become old (`versions`). So nobody who sees the present here is shown the past by the replica, and no
//! answer is kept that is older than the versions under which it is kept. How far the replica has to be is asked of the
//! primary, once after each change that was heard of; where the replica is, it is asked at each read. In doubt the primary
//! answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diesel::sql_types::{Bool, Nullable, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::bb8::Pool;
use metrics::counter;
use moka::sync::Cache;
use tracing::{info, warn};

use super::connecting::LastFailure;
use super::prepared::Prepare;
use super::{Db, PoolUse, PooledConnection, Rollback, take};
use crate::error::{Error, Result, causes};
use crate::ids::TenantId;
use crate::instruments;
use crate::versions::Versions;

/// How long the replica may take to say where it is, with the wait for a connection.
pub const PATIENCE: Duration = Duration::from_millis(250);
/// How long it is not asked after it did not answer.
const REST: Duration = Duration::from_secs(2);
/// Tenants whose position is remembered.
const MAX_TENANTS: u64 = 10_000;

pub struct Replica {
    pool: Pool<AsyncPgConnection>,
    /// Why the pool could not connect.
    failure: LastFailure,
    pool_size: u32,
    /// By tenant: after how many changes the primary was asked, and where it was.
    positions: Cache<TenantId, (u64, Position)>,
    start: Instant,
    /// Milliseconds since the start until which the replica is not asked; 0 while it answers.
    rests_until: AtomicU64,
    served: AtomicU64,
}

/// A position in the log of PostgreSQL, as it writes it: `16/B374D848`.
type Position = std::sync::Arc<str>;

impl Replica {
    pub fn new(pool: Pool<AsyncPgConnection>, failure: LastFailure, pool_size: u32) -> Self {
        Self {
            pool,
            failure,
            pool_size,
            positions: Cache::new(MAX_TENANTS),
            start: Instant::now(),
            rests_until: AtomicU64::new(0),
            served: AtomicU64::new(0),
        }
    }

    /// How many snapshots were taken here.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub fn pool_use(&self) -> PoolUse {
        PoolUse::of(self.pool_size, &self.pool.state())
    }

    /// A connection to the replica, if it has replayed all that this tenant's readers must see.
    pub async fn connection(&self, primary: &Db, tenant: TenantId) -> Option<PooledConnection> {
        let found = self.try_connection(primary, tenant).await;
        let outcome = match &found {
            Ok(_) => {
                self.served.fetch_add(1, Ordering::Relaxed);
                "replica"
            }
            Err(why) => why.name(),
        };
        counter!(instruments::DB_REPLICA_READS, "outcome" => outcome).increment(1);
        found.ok()
    }

    async fn try_connection(&self, primary: &Db, tenant: TenantId) -> Result<PooledConnection, Why> {
        if self.now() < self.rests_until.load(Ordering::Relaxed) {
            return Err(Why::Down);
        }
        let position = self.position(primary, &primary.versions, tenant).await.ok_or(Why::Unknown)?;
        match tokio::time::timeout(PATIENCE, self.ask(&position)).await {
            Ok(Ok(Some(conn))) => {
                if self.rests_until.swap(0, Ordering::Relaxed) != 0 {
                    info!("The read replica answers again");
                }
                Ok(conn)
            }
            Ok(Ok(None)) => Err(Why::Behind),
            Ok(Err(error)) => Err(self.rest(&error)),
            Err(_) => Err(self.rest(&Error::unavailable("the read replica", "it did not answer in time"))),
        }
    }

    /// How far the replica has to be. `None` while that cannot be known.
    async fn position(&self, primary: &Db, versions: &Versions, tenant: TenantId) -> Option<Position> {
        // First, so that the position is one of after all these changes.
        let changes = versions.changes(tenant)?;
        if let Some((known, position)) = self.positions.get(&tenant)
            && known == changes
        {
            return Some(position);
        }
        let position: Position = match current_position(primary).await {
            Ok(position) => position.into(),
            Err(error) => {
                warn!(error = causes(&error), "Could not ask the primary how far the read replica has to be");
                return None;
            }
        };
        self.positions.insert(tenant, (changes, position.clone()));
        Some(position)
    }

    /// A connection, if the server at its end has replayed up to this position. Asked on the connection that is then used:
    /// there may be several replicas behind one address.
    async fn ask(&self, position: &str) -> Result<Option<PooledConnection>> {
        #[derive(QueryableByName)]
        struct There {
            #[diesel(sql_type = Nullable<Bool>)]
            there: Option<bool>,
        }
        let unavailable = |error| Error::unavailable("the read replica", self.failure.explain(error));
        let conn = Rollback::of(take(&self.pool).await.map_err(unavailable)?);
        let mut asking = conn.conn();
        // One that is no replica any more has a history of its own.
        let question = sql_query("SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= $1::text::pg_lsn AS there");
        let row: There =
            diesel_async::RunQueryDsl::get_result(question.bind::<Text, _>(position).prepared(), &mut asking).await?;
        let conn = conn.keep();
        Ok((row.there == Some(true)).then_some(conn))
    }

    /// Leaves the replica alone for a while.
    fn rest(&self, error: &Error) -> Why {
        let until = self.now() + REST.as_millis() as u64;
        if self.rests_until.swap(until, Ordering::Relaxed) == 0 {
            warn!(error = causes(error), "The read replica does not answer: the primary serves all reads until it does");
        }
        Why::Down
    }

    /// Milliseconds since the start.
    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

/// Why the primary has to answer.
#[derive(Debug, Clone, Copy)]
enum Why {
    /// The replica has not replayed enough.
    Behind,
    /// It is not known what it has to have replayed: changes elsewhere are not heard of.
    Unknown,
    /// It does not answer.
    Down,
}

impl Why {
    fn name(self) -> &'static str {
        match self {
            Why::Behind => "behind",
            Why::Unknown => "unknown",
            Why::Down => "down",
        }
    }
}

/// Where the primary's log ends: after everything that was committed before.
async fn current_position(primary: &Db) -> Result<String> {
    #[derive(QueryableByName)]
    struct Now {
        #[diesel(sql_type = Text)]
        position: String,
    }
    let conn = Rollback::of(primary.get().await?);
    let mut asking = conn.conn();
    // Of what is inserted, not of what is written: a commit may be acknowledged before it is (synchronous_commit = off).
    let now: Now = diesel_async::RunQueryDsl::get_result(
        sql_query("SELECT pg_current_wal_insert_lsn()::text AS position").prepared(),
        &mut asking,
    )
    .await?;
    drop(conn.keep());
    Ok(now.position)
}
