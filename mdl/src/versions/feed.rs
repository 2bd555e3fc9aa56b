//! The subscription: one connection per process, over which every change comes, and a beat of this process's own.
//!
//! The beat goes to Redis as a change does and comes back over the same connection, which keeps the order: when a beat has
//! come back, everything that was published before it was sent has been heard.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use redis::aio::PubSubStream;
use redis::{AsyncTypedCommands, RedisError, RedisResult};
use tracing::{info, warn};
use uuid::Uuid;

use super::{Inner, REDIS_TIMEOUT, wire};
use crate::error::causes;

/// Between two beats. Several have to be lost before the tokens are not believed.
const BEAT: Duration = Duration::from_millis(100);
/// Without a beat for so long, the subscription is given up for another.
const GIVE_UP: Duration = Duration::from_secs(3);
/// Between two attempts to subscribe.
const RECONNECT: Duration = Duration::from_millis(200);

/// Never returns.
pub async fn follow(inner: Arc<Inner>) {
    let own = format!("{}:beat:{}", wire::channel(&inner.prefix), Uuid::new_v4().simple());
    let mut lost = false;
    loop {
        let ended = subscribed(&inner, &own, &mut lost).await;
        inner.beat.store(0, Ordering::Relaxed);
        inner.write().forget_all();
        if let Err(error) = ended
            && !lost
        {
            lost = true;
            warn!(
                error = causes(&error),
                "Lost the subscription to changes: until it is back, answers are kept for a second at most"
            );
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// Follows over one connection until it breaks.
async fn subscribed(inner: &Inner, own: &str, lost: &mut bool) -> RedisResult<()> {
    let connecting = async {
        let mut subscription = inner.client.get_async_pubsub().await?;
        subscription.subscribe(&[wire::channel(&inner.prefix).as_str(), own]).await?;
        Ok::<_, RedisError>(subscription)
    };
    let connected = tokio::time::timeout(REDIS_TIMEOUT, connecting).await;
    let subscription = connected.map_err(|_| silence("Redis did not answer in time"))??;
    // What was read before may have changed while nobody listened.
    inner.write().forget_all();
    // Without the other half the connection would end.
    let (_requests, messages) = subscription.split();
    tokio::select! {
        ended = listen(inner, own, messages, lost) => ended,
        never = beat(inner, own) => never,
    }
}

async fn listen(inner: &Inner, own: &str, mut messages: PubSubStream, lost: &mut bool) -> RedisResult<()> {
    let mut last_beat = tokio::time::Instant::now();
    loop {
        let next = tokio::time::timeout_at(last_beat + GIVE_UP, messages.next()).await;
        let message = next.map_err(|_| silence("no beat came back"))?.ok_or_else(|| silence("the connection was closed"))?;
        if message.get_channel_name() != own {
            let (tenant, change) =
                wire::decode(message.get_payload_bytes()).map_err(|_| silence("a change could not be read"))?;
            inner.write().heard(tenant, &change);
            continue;
        }
        last_beat = tokio::time::Instant::now();
        let sent = std::str::from_utf8(message.get_payload_bytes()).ok().and_then(|text| text.parse().ok());
        inner.heard_beat(sent.unwrap_or(0));
        if *lost {
            *lost = false;
            info!("Follows changes again");
        }
    }
}

async fn beat(inner: &Inner, own: &str) -> RedisResult<()> {
    let mut ticks = tokio::time::interval(BEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // One that is lost is noticed by its not coming back.
        let _lost = inner.commands.get()?.publish(own, inner.now()).await;
    }
}

fn silence(what: &'static str) -> RedisError {
    (redis::ErrorKind::Io, what).into()
}
