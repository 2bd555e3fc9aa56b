//! A transaction that writes: what it changes becomes known when it commits.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use diesel_async::{AnsiTransactionManager, AsyncPgConnection, SimpleAsyncConnection, TransactionManager};
use futures::future::BoxFuture;
use futures::join;
use tracing::Instrument;

use super::PooledConnection;
use super::timing::{COMMIT, COMMIT_AND_GO_ON, ROLLBACK};
use crate::error::{Error, Result};
use crate::ids::{EventId, TenantId};
use crate::instruments;
use crate::versions::{Change, Touched, Versions};

/// An open transaction. Dropping it rolls back.
#[must_use = "a transaction that is not committed is rolled back"]
pub struct Transaction {
    conn: Option<PooledConnection>,
    began: Instant,
    tenant: Option<TenantId>,
    versions: Versions,
    /// What the commit makes known.
    news: Mutex<News>,
}

#[derive(Default)]
struct News {
    touched: Touched,
    perhaps: Option<Perhaps>,
    events: Vec<EventId>,
}

/// What is out of date after the commit if a look says so.
struct Perhaps {
    touched: Touched,
    look: Look,
}

type Look = Box<dyn for<'c> FnOnce(&'c AsyncPgConnection) -> BoxFuture<'c, Result<bool>> + Send>;

impl Transaction {
    /// One that has begun on this connection.
    pub(super) fn new(conn: PooledConnection, tenant: Option<TenantId>, versions: Versions) -> Self {
        Self { conn: Some(conn), began: Instant::now(), tenant, versions, news: Mutex::default() }
    }

    /// Notes that answers made of these are out of date once this commits. [`audit::record`](crate::audit::record) calls it.
    pub fn touch(&self, touched: impl Into<Touched>) {
        self.news().touched.merge(touched.into());
    }

    /// Notes that these are out of date as well if `look` finds so, right after the commit: what others have
    /// committed meanwhile counts, and what they commit later they tell themselves. One look for each transaction.
    pub fn touch_if(
        &self,
        touched: impl Into<Touched>,
        look: impl for<'c> FnOnce(&'c AsyncPgConnection) -> BoxFuture<'c, Result<bool>> + Send + 'static,
    ) {
        let before = self.news().perhaps.replace(Perhaps { touched: touched.into(), look: Box::new(look) });
        debug_assert!(before.is_none(), "a look would be lost");
    }

    /// Notes an event that tells of this. [`events::push`](crate::events::push) calls it.
    pub fn tells(&self, event: EventId) {
        self.news().events.push(event);
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits, and makes known what has changed. When this returns, this process serves nothing older, and the others know,
    /// unless Redis is slow.
    pub async fn commit(mut self) -> Result<()> {
        let News { touched, perhaps, events } = std::mem::take(&mut *self.news());
        let mut change = Change::of(touched);
        match self.tenant {
            // As a task of its own: the caller may go away between the commit and the news of it.
            Some(tenant) if !change.is_empty() || perhaps.is_some() => {
                let committing = tokio::spawn(async move {
                    let committed = match perhaps {
                        None => self.end().await,
                        Some(Perhaps { touched, look }) => {
                            let (committed, found) = self.end_with_look(tenant, look).await;
                            if found {
                                change.merge(Change::of(touched));
                            }
                            committed
                        }
                    };
                    let versions = self.versions.clone();
                    // Gives the connection back, before Redis is waited for.
                    drop(self);
                    // After a failure, too: the connection may have broken just after PostgreSQL had committed. Or it will commit
                    // yet, so the events do not count as told.
                    let change = if committed.is_ok() { change.with_events(events) } else { change };
                    versions.bump(tenant, change).await;
                    committed
                });
                committing.in_current_span().await.map_err(Error::internal)?
            }
            _ => self.end().await,
        }
    }

    async fn end(&mut self) -> Result<()> {
        // Taken only after the answer: a commit that fails, or whose caller goes away, ends in the drop below.
        let conn = self.conn.as_mut().expect("present until commit or drop");
        conn.batch_execute(COMMIT).await?;
        self.conn = None;
        self.count();
        Ok(())
    }

    /// Commits and looks, in one round trip. What cannot be looked up counts as found.
    async fn end_with_look(&mut self, tenant: TenantId, look: Look) -> (Result<()>, bool) {
        let opening = format!("BEGIN READ ONLY; SET LOCAL app.tenant_id = '{tenant}'");
        let (mut committing, mut opener, looker): (&AsyncPgConnection, &AsyncPgConnection, &AsyncPgConnection) =
            (self, self, self);
        // join! polls in order, so the server gets them in this one. The second transaction ends with the drop.
        let (committed, opened, found) =
            join!(committing.batch_execute(COMMIT_AND_GO_ON), opener.batch_execute(&opening), look(looker));
        if committed.is_ok() {
            self.count();
        }
        (committed.map_err(Error::from), opened.is_err() || found.unwrap_or(true))
    }

    fn count(&self) {
        metrics::histogram!(instruments::DB_TRANSACTION_SECONDS, "kind" => "write").record(self.began.elapsed().as_secs_f64());
    }
}

impl Deref for Transaction {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        self.conn.as_deref().expect("present until commit or drop")
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            roll_back(conn);
        }
    }
}

/// Ends an abandoned transaction behind the caller's back, so that its connection can be used again.
pub(super) fn roll_back(mut conn: PooledConnection) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        if let Err(error) = conn.batch_execute(ROLLBACK).await {
            // The server has rolled back by itself.
            tracing::debug!(%error, "Could not roll back");
            spoil(&mut conn);
        }
    });
}

/// Keeps the pool from giving this connection to anybody else.
pub(super) fn spoil(conn: &mut AsyncPgConnection) {
    AnsiTransactionManager::transaction_manager_status_mut(conn).set_in_error();
}

/// Holds a connection while its transaction opens, or a statement runs without one: a failure or a cancelled request must not return it
/// half open, or with an answer to come.
pub(super) struct Rollback(Option<PooledConnection>);

impl Rollback {
    pub fn of(conn: PooledConnection) -> Self {
        Self(Some(conn))
    }

    pub fn conn(&self) -> &AsyncPgConnection {
        self.0.as_deref().expect("present until kept")
    }

    pub fn keep(mut self) -> PooledConnection {
        self.0.take().expect("present until kept")
    }
}

impl Drop for Rollback {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            roll_back(conn);
        }
    }
}
