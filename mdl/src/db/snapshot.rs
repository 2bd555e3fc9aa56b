//! The read transaction of one operation.

use std::sync::Arc;
use std::time::Instant;

use chrono::Utc;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use tokio::sync::{Mutex, OnceCell};
use tracing::warn;

use super::slow::SlowRead;
use super::timing::{COMMIT, with_slowest};
use super::transaction::spoil;
use super::{Db, PooledConnection, Rollback, roll_back};
use crate::error::{Error, Result, causes};
use crate::ids::TenantId;
use crate::instruments;

/// One operation's view of the database: everything it reads is of one moment.
///
/// The first read opens the transaction, in the same round trip as its own statement. An operation that reads nothing
/// (a cache hit) takes no connection.
pub struct Snapshot {
    db: Db,
    tenant: TenantId,
    /// Whether it may be taken on the read replica.
    elsewhere: bool,
    /// The name of the operation, for slow reads.
    operation: Option<Arc<str>>,
    conn: OnceCell<PooledConnection>,
    opening: Mutex<()>,
}

impl Snapshot {
    pub(super) fn new(db: Db, tenant: TenantId, elsewhere: bool) -> Self {
        Self { db, tenant, elsewhere, operation: None, conn: OnceCell::new(), opening: Mutex::new(()) }
    }

    /// The same, of an operation with this name.
    pub fn named(mut self, operation: Option<Arc<str>>) -> Self {
        self.operation = operation;
        self
    }

    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Runs one store function on this snapshot.
    pub async fn read<T>(&self, query: impl AsyncFnOnce(&AsyncPgConnection) -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let (result, slowest) = with_slowest(self.read_untimed(query)).await;
        let took = start.elapsed();
        metrics::histogram!(instruments::DB_READ_SECONDS).record(took.as_secs_f64());
        if took >= self.db.timing.slow {
            let (operation, statement) = (self.operation.clone(), slowest.map(|slowest| slowest.text));
            self.db.slow.add(SlowRead { tenant: self.tenant, operation, statement, took, at: Utc::now() });
        }
        result
    }

    async fn read_untimed<T>(&self, query: impl AsyncFnOnce(&AsyncPgConnection) -> Result<T>) -> Result<T> {
        if let Some(conn) = self.conn.get() {
            return query(conn).await;
        }
        let opening = self.opening.lock().await;
        if let Some(conn) = self.conn.get() {
            drop(opening);
            return query(conn).await;
        }
        let conn = Rollback::of(self.connect().await?);
        let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL app.tenant_id = '{}'", self.tenant);
        let mut opener: &AsyncPgConnection = conn.conn();
        // try_join! polls in order, so the opening is in the server's queue before the first statement.
        let (_, rows) =
            futures::try_join!(async { opener.batch_execute(&begin).await.map_err(Error::from) }, query(conn.conn()))?;
        let _already_set = self.conn.set(conn.keep());
        Ok(rows)
    }

    async fn connect(&self) -> Result<PooledConnection> {
        if self.elsewhere
            && let Some(replica) = &self.db.replica
            && let Some(conn) = replica.connection(&self.db, self.tenant).await
        {
            return Ok(conn);
        }
        self.db.get().await
    }

    /// Ends the snapshot and returns its connection to the pool.
    pub async fn finish(mut self) {
        if let Some(mut conn) = self.conn.take()
            && let Err(error) = conn.batch_execute(COMMIT).await
        {
            warn!(error = causes(&error), "Could not end a read snapshot");
            spoil(&mut conn);
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            roll_back(conn);
        }
    }
}
