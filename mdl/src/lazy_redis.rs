//! A connection to Redis for commands that are not worth waiting for: made when it is first used, and made again by itself.

use std::sync::OnceLock;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisResult};

/// Longest pause between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(200);

/// A connection of its own beside the pool, so that its commands wait for nobody else's.
pub struct LazyRedis {
    client: Client,
    /// What connecting and what a command may take.
    patience: Duration,
    made: OnceLock<ConnectionManager>,
}

impl LazyRedis {
    /// Connects nowhere yet. Fails when the address is none.
    pub fn new(url: &str, patience: Duration) -> RedisResult<Self> {
        Ok(Self { client: Client::open(url)?, patience, made: OnceLock::new() })
    }

    /// The connection; all who have it share it. Needs a runtime.
    pub fn get(&self) -> RedisResult<ConnectionManager> {
        if let Some(made) = self.made.get() {
            return Ok(made.clone());
        }
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_max_delay(RECONNECT)
            .set_connection_timeout(Some(self.patience))
            .set_response_timeout(Some(self.patience));
        let made = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        Ok(self.made.get_or_init(|| made).clone())
    }
}
