//! Connections that come back by themselves, and the two log lines of an outage.

use std::error::Error;
use std::time::{Duration, Instant};

use mdl::config::RedisConfig;
use mdl::error::causes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, RedisResult};
use tracing::{info, warn};

/// How long a failed step waits before it is tried again.
pub const RETRY: Duration = Duration::from_millis(500);

/// One connection to Redis of its owner's own: made when first used, and anew after a failure.
///
/// (A blocking pop holds up everything behind it on the same connection, and needs a longer response timeout.)
pub struct Link {
    client: Client,
    config: AsyncConnectionConfig,
    conn: Option<MultiplexedConnection>,
}

impl Link {
    /// `response_timeout` is how long one command may take.
    pub fn new(redis: &RedisConfig, response_timeout: Duration) -> RedisResult<Self> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(response_timeout));
        Ok(Self { client: Client::open(redis.url.as_str())?, config, conn: None })
    }

    pub async fn query<T: FromRedisValue>(&mut self, command: &redis::Cmd) -> RedisResult<T> {
        let conn = match &mut self.conn {
            Some(conn) => conn,
            none => none.insert(self.client.get_multiplexed_async_connection_with_config(&self.config).await?),
        };
        let answer = command.query_async(conn).await;
        if answer.is_err() {
            // After an answer that came too late, or none, the connection is of no more use.
            self.conn = None;
        }
        answer
    }
}

/// Says once that something does not work, and once that it does again.
pub struct Outage {
    what: &'static str,
    since: Option<Instant>,
}

impl Outage {
    /// `what` completes the sentence "Could not …".
    pub fn of(what: &'static str) -> Self {
        Self { what, since: None }
    }

    pub fn failed(&mut self, error: &dyn Error) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            warn!(error = causes(error), "Could not {}; trying again until it works", self.what);
        }
    }

    pub fn is_on(&self) -> bool {
        self.since.is_some()
    }

    pub fn over(&mut self) {
        if let Some(since) = self.since.take() {
            info!("Can {} again, after {:.1} s", self.what, since.elapsed().as_secs_f64());
        }
    }
}
