//! PostgreSQL: the pool, and the only two ways to it.
//!
//! [`Db::begin`] opens a transaction that writes for one tenant; [`Snapshot`] is the lazily opened read transaction of one
//! operation. Both set `app.tenant_id` for their transaction, which the row-level security policies look at: without one
//! of them a connection sees no tenant's rows. [`Db::dispatch`] is for the relay and the worker, which serve all tenants.
//!
//! Queries of the api may read from a replica, once that has replayed what they must see: [`Db::snapshot_elsewhere`].
//!
//! Store functions borrow `&AsyncPgConnection`; Diesel pipelines what several of them send at once.

mod connecting;
mod prepared;
mod replica;
mod slow;
mod snapshot;
mod timing;
mod transaction;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use diesel::ConnectionError;
use diesel_async::pooled_connection::bb8::{Pool, RunError};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, PoolableConnection, RecyclingMethod};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use futures::FutureExt;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::warn;

use crate::config::DatabaseConfig;
use crate::error::{Error, Result, causes};
use crate::ids::TenantId;
use crate::instruments;
use crate::versions::Versions;
use connecting::LastFailure;
use replica::Replica;
use slow::SlowReads;

pub use prepared::{MAX_PREPARED, Prepare};
pub use slow::SlowRead;
pub use snapshot::Snapshot;
use timing::Timing;
pub use transaction::Transaction;
use transaction::{Rollback, roll_back};

type PooledConnection = bb8::PooledConnection<'static, AsyncDieselConnectionManager<AsyncPgConnection>>;

/// The connections of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    /// Those that there may be.
    pub size: u32,
    /// Those that there are.
    pub open: u32,
    pub idle: u32,
    /// Those who wait for one.
    pub waiting: u32,
}

impl PoolUse {
    pub fn of(size: u32, state: &bb8::State) -> Self {
        let waiting = u32::try_from(state.statistics.pending_gets()).unwrap_or(u32::MAX);
        Self { size, open: state.connections, idle: state.idle_connections, waiting }
    }
}

/// The pool of connections, as the role that owns nothing.
#[derive(Clone)]
pub struct Db {
    pool: Pool<AsyncPgConnection>,
    /// Why the pool could not connect.
    failure: LastFailure,
    /// Most connections of the pool.
    pool_size: u32,
    /// Where queries may read, if there is one.
    replica: Option<Arc<Replica>>,
    slow: Arc<SlowReads>,
    timing: Timing,
    url: Arc<str>,
    statement_timeout: Duration,
    versions: Versions,
}

impl Db {
    /// Makes the pool without connecting: the first use connects, so a program starts while PostgreSQL is away. Commits bump
    /// `versions`.
    pub fn new(config: &DatabaseConfig, versions: Versions) -> Self {
        let timing = Timing { statements: Arc::default(), slow: Duration::from_millis(config.slow_statement_milliseconds) };
        let statement_timeout = Duration::from_secs(config.statement_timeout_seconds);
        let open = |url: &str, wait| pool(url, config.pool_size, wait, statement_timeout, &timing);
        let replica = config.read_url.as_deref().map(|url| {
            // Who waits for the replica could ask the primary.
            let (pool, failure) = open(url, replica::PATIENCE);
            Arc::new(Replica::new(pool, failure, config.pool_size))
        });
        let (pool, failure) = open(&config.url, Duration::from_secs(config.pool_wait_seconds));
        Self {
            pool,
            failure,
            pool_size: config.pool_size,
            replica,
            slow: Arc::default(),
            timing,
            url: config.url.as_str().into(),
            statement_timeout,
            versions,
        }
    }

    /// A transaction that reads and writes for one tenant. Rolls back unless committed.
    pub async fn begin(&self, tenant: TenantId) -> Result<Transaction> {
        self.transaction(Some(tenant), &format!("BEGIN; SET LOCAL app.tenant_id = '{tenant}'")).await
    }

    /// A transaction for a credential check before the tenant is known: sees the one tenant with this slug, and nothing else.
    pub async fn begin_by_slug(&self, slug: &str) -> Result<Transaction> {
        let tx = self.transaction(None, "BEGIN").await?;
        let mut conn: &AsyncPgConnection = &tx;
        diesel_async::RunQueryDsl::execute(
            diesel::sql_query("SELECT set_config('app.tenant_slug', $1, true)").bind::<diesel::sql_types::Text, _>(slug),
            &mut conn,
        )
        .await?;
        Ok(tx)
    }

    /// A transaction that sees the jobs, the outbox and (only to read) the published documents of all tenants, and nothing
    /// else. For the relay, the worker, and the check of documents before a deployment.
    pub async fn dispatch(&self) -> Result<Transaction> {
        self.transaction(None, "BEGIN; SET LOCAL app.dispatcher = 'on'; SET LOCAL plan_cache_mode = force_custom_plan").await
    }

    /// The same for statements that want few rows of tables that grow and shrink quickly. PostgreSQL knows what is in those only
    /// after it has counted: it would read them from end to end, or walk through all rows that were there. By an index it finds
    /// the few, and an index scan marks what it finds to be gone, so that the next one does not look at it again.
    pub async fn dispatch_by_index(&self) -> Result<Transaction> {
        let opening = "BEGIN; SET LOCAL app.dispatcher = 'on'; \
                       SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off; \
                       SET LOCAL plan_cache_mode = force_custom_plan";
        self.transaction(None, opening).await
    }

    /// The read snapshot of one operation; takes a connection when it is first read from.
    pub fn snapshot(&self, tenant: TenantId) -> Snapshot {
        Snapshot::new(self.clone(), tenant, false)
    }

    /// The same for a query whose answer may be kept, and so is made of what has versions: on the read replica, if there is one
    /// that has replayed everything that this process has heard of.
    pub fn snapshot_elsewhere(&self, tenant: TenantId) -> Snapshot {
        Snapshot::new(self.clone(), tenant, true)
    }

    /// Whether there is a read replica.
    pub fn has_replica(&self) -> bool {
        self.replica.is_some()
    }

    /// How many snapshots were taken on the read replica. Tests count with it.
    pub fn replica_reads(&self) -> u64 {
        self.replica.as_ref().map_or(0, |replica| replica.served())
    }

    /// Reads of a tenant since then that took longer than a setting says, the slowest first; of the last thousand of all tenants.
    pub fn slow_reads(&self, tenant: TenantId, since: DateTime<Utc>) -> Vec<SlowRead> {
        self.slow.of(tenant, since)
    }

    /// A connection outside the pool, for `COPY` and `LISTEN`. The driver task ends when the client is dropped.
    pub async fn dedicated(&self) -> Result<DedicatedConnection> {
        let mut config: tokio_postgres::Config = self.url.parse()?;
        configure(&mut config, self.statement_timeout);
        let (client, connection) = config.connect(tls()?).await.map_err(|e| Error::unavailable("PostgreSQL", e))?;
        Ok(DedicatedConnection { client, connection })
    }

    /// A connection outside the pool for the caller alone, for what is to end with it: the lock of a session.
    pub async fn alone(&self) -> Result<AsyncPgConnection> {
        let connected = establish(&self.url, self.statement_timeout, &self.timing).await;
        connected.map_err(|error| Error::unavailable("PostgreSQL", error))
    }

    /// Whether PostgreSQL answers.
    pub async fn ping(&self) -> Result<()> {
        let conn = Rollback::of(self.get().await?);
        let mut asked = conn.conn();
        asked.batch_execute("SELECT 1").await?;
        drop(conn.keep());
        Ok(())
    }

    /// How many statements this pool has sent. Tests count with it.
    pub fn statements_sent(&self) -> u64 {
        self.timing.statements.load(Ordering::Relaxed)
    }

    /// Connections open and idle.
    pub fn pool_state(&self) -> bb8::State {
        self.pool.state()
    }

    /// How the connections to the primary are used now.
    pub fn pool_use(&self) -> PoolUse {
        PoolUse::of(self.pool_size, &self.pool.state())
    }

    /// The same of the read replica, if there is one.
    pub fn replica_use(&self) -> Option<PoolUse> {
        self.replica.as_ref().map(|replica| replica.pool_use())
    }

    /// Whether all connections that there may be are in use.
    pub fn is_busy(&self) -> bool {
        let pool = self.pool_use();
        pool.idle == 0 && pool.open >= pool.size
    }

    async fn get(&self) -> Result<PooledConnection> {
        let start = Instant::now();
        let unavailable = |error| Error::unavailable("PostgreSQL", self.failure.explain(error));
        let conn = take(&self.pool).await.map_err(unavailable)?;
        metrics::histogram!(instruments::DB_POOL_WAIT_SECONDS).record(start.elapsed().as_secs_f64());
        Ok(conn)
    }

    async fn transaction(&self, tenant: Option<TenantId>, opening: &str) -> Result<Transaction> {
        // Whoever goes away meanwhile leaves it half open.
        let conn = Rollback::of(self.get().await?);
        let mut opener = conn.conn();
        opener.batch_execute(opening).await?;
        Ok(Transaction::new(conn.keep(), tenant, self.versions.clone()))
    }
}

/// A connection as another role than the pool's, without a limit to the time of its statements: for backups. It ends when the
/// client is dropped.
pub async fn connect_as(mut config: tokio_postgres::Config) -> Result<tokio_postgres::Client> {
    configure(&mut config, Duration::ZERO);
    let (client, connection) = config.connect(tls()?).await.map_err(|e| Error::unavailable("PostgreSQL", e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            // Whoever waits for an answer on it hears of it as well.
            tracing::debug!(%error, "A connection for backups has ended");
        }
    });
    Ok(client)
}

/// A raw connection and the driver that must be polled (spawned) for it to move.
pub struct DedicatedConnection {
    pub client: tokio_postgres::Client,
    pub connection: tokio_postgres::Connection<
        tokio_postgres::Socket,
        <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<tokio_postgres::Socket>>::Stream,
    >,
}

/// A pool that connects when it is first used, and why it could not.
fn pool(
    url: &str,
    size: u32,
    wait: Duration,
    statement_timeout: Duration,
    timing: &Timing,
) -> (Pool<AsyncPgConnection>, LastFailure) {
    let timing = timing.clone();
    let failure = LastFailure::default();
    let noted = failure.clone();
    let mut manager = ManagerConfig::<AsyncPgConnection>::default();
    // The default asks the server whether it is there at each checkout, which costs a round trip.
    manager.recycling_method = RecyclingMethod::Fast;
    manager.custom_setup = Box::new(move |url| {
        let (url, timing, noted) = (url.to_owned(), timing.clone(), noted.clone());
        async move {
            let connected = establish(&url, statement_timeout, &timing).await;
            noted.note(connected.as_ref().err().map(|error| error as &dyn std::error::Error));
            connected
        }
        .boxed()
    });
    let manager = AsyncDieselConnectionManager::new_with_config(url, manager);
    let pool = Pool::builder().max_size(size).connection_timeout(wait).test_on_check_out(false).build_unchecked(manager);
    (pool, failure)
}

/// A connection of the pool that is alive, and keeps no more statements prepared than it may.
async fn take(pool: &Pool<AsyncPgConnection>) -> Result<PooledConnection, RunError> {
    loop {
        let mut conn = pool.get_owned().await?;
        // After a restart of PostgreSQL the pool is full of dead connections. It drops what is returned broken.
        if !conn.is_broken() {
            prepared::forget_too_many(&mut conn);
            return Ok(conn);
        }
    }
}

async fn establish(url: &str, statement_timeout: Duration, timing: &Timing) -> Result<AsyncPgConnection, ConnectionError> {
    let bad = |e: &dyn std::error::Error| ConnectionError::BadConnection(causes(e));
    let mut config: tokio_postgres::Config = url.parse().map_err(|e: tokio_postgres::Error| bad(&e))?;
    configure(&mut config, statement_timeout);
    let (client, connection) = config.connect(tls().map_err(|e| bad(&e))?).await.map_err(|e| bad(&e))?;
    let mut conn = AsyncPgConnection::try_from_client_and_connection(client, connection).await?;
    conn.set_instrumentation(timing.of_connection());
    Ok(conn)
}

fn configure(config: &mut tokio_postgres::Config, statement_timeout: Duration) {
    if config.get_application_name().is_none() {
        config.application_name("mdl");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(5));
    }
    if config.get_ssl_mode() == SslMode::Prefer && config.get_hosts().iter().all(is_local) {
        config.ssl_mode(SslMode::Disable);
    }
    let options = config.get_options().unwrap_or_default();
    // Statements here are short: to compile one takes longer than to run it.
    config.options(format!("{options} -c statement_timeout={} -c jit=off", statement_timeout.as_millis()));
}

fn is_local(host: &tokio_postgres::config::Host) -> bool {
    match host {
        tokio_postgres::config::Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1"),
        tokio_postgres::config::Host::Unix(_) => true,
    }
}

/// TLS that trusts what the operating system trusts.
fn tls() -> Result<MakeRustlsConnect> {
    static TLS: std::sync::OnceLock<rustls::ClientConfig> = std::sync::OnceLock::new();
    let config = TLS.get_or_init(|| {
        let mut roots = rustls::RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            warn!(%error, "Could not read a certificate authority of the system");
        }
        roots.add_parsable_certificates(found.certs);
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports the default TLS versions")
            .with_root_certificates(roots)
            .with_no_client_auth()
    });
    Ok(MakeRustlsConnect::new(config.clone()))
}
