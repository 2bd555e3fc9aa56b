//! What a request or a job is given.

use std::sync::Arc;
use std::time::Duration;

use bb8_redis::RedisConnectionManager;

use crate::config::Config;
use crate::db::{Db, PoolUse};
use crate::error::{Error, Result};
use crate::events::live::Live;
use crate::passwords;
use crate::sealing::Sealer;
use crate::storage::Storage;
use crate::versions::Versions;

pub type RedisPool = bb8::Pool<RedisConnectionManager>;

/// The servers this program talks to, and how it was told to behave. Cheap to clone.
#[derive(Clone)]
pub struct App {
    pub config: Arc<Config>,
    pub db: Db,
    pub redis: RedisPool,
    /// What caches go by. Every commit bumps them.
    pub versions: Versions,
    /// Who listens to events in this process.
    pub live: Live,
    pub storage: Storage,
    /// Hashes and checks passwords, a bounded number at once.
    pub passwords: passwords::Hasher,
    /// Encrypts the secrets of webhooks.
    pub sealer: Sealer,
}

impl App {
    /// Connects lazily: a server that is away is noticed by the first request that needs it, and by `/health/ready`.
    ///
    /// Problem: a setting that cannot be right, as [`Config::check`] finds it.
    pub fn new(config: Config) -> Result<Self> {
        let config = config.without_blanks();
        config.check()?;
        let manager = RedisConnectionManager::new(config.redis.url.as_str()).map_err(Error::from)?;
        let redis = bb8::Pool::builder()
            .max_size(config.redis.pool_size)
            .connection_timeout(Duration::from_secs(2))
            // The manager cannot tell a broken connection; one PING keeps those of before a restart of Redis out.
            .test_on_check_out(true)
            .build_unchecked(manager);
        let versions = Versions::new(&config.redis)?;
        let db = Db::new(&config.database, versions.clone());
        Ok(Self {
            live: Live::new(db.clone(), &config.redis)?,
            db,
            versions,
            redis,
            storage: Storage::new(&config.storage)?,
            passwords: passwords::Hasher::new(config.auth.password_checks),
            sealer: Sealer::new(&config.webhooks.keys),
            config: Arc::new(config),
        })
    }

    /// Whether Redis answers. A pool that cannot connect tries again until its time is over; a connection beside it says at once
    /// what is wrong.
    pub async fn ping_redis(&self) -> Result<()> {
        let reached = async { self.redis.dedicated_connection().await.map(drop).map_err(Error::from) };
        let pooled = async { self.redis.get().await.map_err(|e| Error::unavailable("Redis", e)) };
        let ((), mut conn) = tokio::try_join!(reached, pooled)?;
        let _pong: String = redis::cmd("PING").query_async(&mut *conn).await?;
        Ok(())
    }

    /// How the connections to Redis are used now; the caches have some of their own.
    pub fn redis_use(&self) -> PoolUse {
        PoolUse::of(self.config.redis.pool_size, &self.redis.state())
    }

    /// A Redis key or channel of this deployment.
    pub fn redis_key(&self, name: &str) -> String {
        format!("{}:{name}", self.config.redis.prefix)
    }
}
