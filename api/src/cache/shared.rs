//! Kept answers in Redis, for all processes. What Redis does not give in time is made anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mdl::config::RedisConfig;
use mdl::error::causes;
use mdl::lazy_redis::LazyRedis;
use redis::cmd;
use tracing::{debug, error};

use super::entry::Entry;
use super::question::Key;

/// How long Redis may take: less than most answers take to be made.
const PATIENCE: Duration = Duration::from_millis(100);

/// A connection of its own, so that long answers do not delay the news of changes.
pub struct Shared {
    commands: LazyRedis,
    prefix: String,
}

impl Shared {
    /// `None` when the address of Redis is not one.
    pub fn new(config: &RedisConfig) -> Option<Self> {
        let commands = LazyRedis::new(config.url.as_str(), PATIENCE);
        let commands = commands.inspect_err(|error| error!(error = causes(error), "The response cache is off")).ok()?;
        Some(Self { commands, prefix: config.prefix.clone() })
    }

    pub async fn get(&self, key: &Key) -> Option<Entry> {
        let read = async {
            let mut pipe = redis::pipe();
            pipe.get(self.key(key)).pttl(self.key(key));
            let (value, left): (Option<Vec<u8>>, i64) = pipe.query_async(&mut self.commands.get()?).await?;
            Ok::<_, redis::RedisError>(value.zip(u64::try_from(left).ok()))
        };
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(Ok(found)) => found.and_then(|(value, left)| decode(value.into(), Duration::from_millis(left))),
            Ok(Err(error)) => {
                debug!(%error, "Could not read a kept answer from Redis");
                None
            }
            Err(_) => None,
        }
    }

    /// Behind the caller's back: nobody needs to wait for it.
    pub fn put(self: &Arc<Self>, key: Key, entry: Arc<Entry>) {
        let shared = self.clone();
        tokio::spawn(async move {
            let left = entry.expires.saturating_duration_since(Instant::now());
            let write = async {
                let mut command = cmd("SET");
                // The first stays: nobody who has seen it may see an older one after it.
                command.arg(shared.key(&key)).arg(encode(&entry)).arg("NX").arg("PX").arg(left.as_millis().max(1) as u64);
                command.query_async::<()>(&mut shared.commands.get()?).await
            };
            if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, write).await {
                debug!(%error, "Could not share a kept answer");
            }
        });
    }

    fn key(&self, key: &Key) -> Vec<u8> {
        [self.prefix.as_bytes(), b":answer:", key].concat()
    }
}

/// When it was made, in eight bytes, and the body.
fn encode(entry: &Entry) -> Vec<u8> {
    [&entry.made_at.to_be_bytes(), &entry.body[..]].concat()
}

fn decode(value: Bytes, left: Duration) -> Option<Entry> {
    let made_at = value.first_chunk().copied().map(u64::from_be_bytes)?;
    Some(Entry::made_at(value.slice(8..), made_at, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_survive_redis() {
        let entry = Entry::new("{\"data\":{}}".into(), Duration::from_secs(9));
        let back = decode(encode(&entry).into(), Duration::from_secs(8)).unwrap();
        assert_eq!((back.body, back.made_at, back.etag), (entry.body, entry.made_at, entry.etag));
        assert!(decode(Bytes::from_static(b"short"), Duration::ZERO).is_none());
    }
}
