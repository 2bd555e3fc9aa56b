//! Brings events to the streams that somebody listens to: as Redis tells of them, and every two seconds whatever it did not.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Msg, RedisError, RedisResult};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::wire::{News, decode};
use super::{Inner, Stream};
use crate::error::{Result, causes};
use crate::events::history;
use crate::ids::TenantId;
use crate::jobs;

/// How often PostgreSQL is asked how far the streams go: how late an event is that Redis did not tell of.
const ASK: Duration = Duration::from_secs(2);
/// Between two attempts to subscribe.
const RECONNECT: Duration = Duration::from_secs(1);
/// How long Redis may take to let us subscribe.
const PATIENCE: Duration = Duration::from_millis(500);

/// Feeds the streams until all who could listen are gone.
pub async fn follow(inner: Weak<Inner>) {
    let mut ticks = interval(ASK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard: Option<Heard> = None;
    let mut retry = Instant::now();
    let (mut lost, mut blind) = (false, false);
    while let Some(inner) = inner.upgrade() {
        if heard.is_none() && retry <= Instant::now() {
            match timeout(PATIENCE, subscribe(&inner)).await.unwrap_or_else(|_| Err(silence())) {
                Ok(subscribed) => {
                    heard = Some(subscribed);
                    if std::mem::take(&mut lost) {
                        info!("Hears of events again as they happen");
                    }
                    // What was published while nobody listened.
                    ticks.reset_immediately();
                }
                Err(error) => {
                    retry = Instant::now() + RECONNECT;
                    if !std::mem::replace(&mut lost, true) {
                        warn!(
                            error = causes(&error),
                            "Cannot hear of events as they happen; asking PostgreSQL every {} s",
                            ASK.as_secs()
                        );
                    }
                }
            }
        }
        if let Some(redis) = &mut heard
            && !matches!(timeout(PATIENCE, redis.hear_of_jobs(&inner)).await, Ok(Ok(())))
        {
            // Lost, it seems.
            heard = None;
            continue;
        }
        let message = async {
            match &mut heard {
                Some(heard) => heard.messages.next().await,
                None => {
                    tokio::time::sleep_until(retry).await;
                    None
                }
            }
        };
        tokio::select! {
            message = message => match message {
                Some(message) => hear(&inner, &message),
                None => heard = None,
            },
            () = inner.jobs.turned() => {}
            _ = ticks.tick() => match ask(&inner).await {
                Ok(()) => blind = false,
                Err(error) if !std::mem::replace(&mut blind, true) => warn!(error = causes(&error), "Cannot ask for new events"),
                Err(_) => {}
            },
        }
    }
}

/// The subscription to Redis.
struct Heard {
    control: PubSubSink,
    messages: PubSubStream,
    /// Whether it is to the news of jobs, too: there are many.
    jobs: bool,
}

impl Heard {
    /// Subscribes to the news of jobs when somebody listens to jobs, and only then.
    async fn hear_of_jobs(&mut self, inner: &Inner) -> RedisResult<()> {
        match (self.jobs, inner.jobs.are_heard()) {
            (false, true) => self.control.subscribe(&inner.jobs_channel).await?,
            (true, false) => self.control.unsubscribe(&inner.jobs_channel).await?,
            _ => return Ok(()),
        }
        self.jobs = !self.jobs;
        Ok(())
    }
}

async fn subscribe(inner: &Inner) -> RedisResult<Heard> {
    let (mut control, messages) = inner.client.get_async_pubsub().await?.split();
    control.subscribe(&inner.channel).await?;
    Ok(Heard { control, messages, jobs: false })
}

/// Passes a message on to the stream that it is about, if anybody listens.
fn hear(inner: &Arc<Inner>, message: &Msg) {
    if message.get_channel_name() == inner.jobs_channel {
        return match jobs::live::decode(message.get_payload_bytes()) {
            Ok(news) => inner.jobs.hint(news),
            Err(error) => warn!(error = causes(&error), "Could not read what was told of jobs"),
        };
    }
    let News { tenant, last, events } = match decode(message.get_payload_bytes()) {
        Ok(news) => news,
        Err(error) => return warn!(error = causes(&error), "Could not read what was told of events"),
    };
    let Some(stream) = inner.streams().get(&tenant).cloned() else { return };
    // Who reads what is missing waits for those who have no room.
    if events.is_empty() || !stream.has_room(events.len()) || stream.pass_on(&events).is_err() {
        fetch(inner, stream, last);
    }
}

/// Asks PostgreSQL how far the streams go that somebody listens to.
async fn ask(inner: &Arc<Inner>) -> Result<()> {
    let tenants: Vec<TenantId> = inner.streams().keys().copied().collect();
    if tenants.is_empty() {
        return Ok(());
    }
    let tx = inner.db.dispatch().await?;
    let streams = history::last_of_each(&tx, Some(&tenants), None).await?;
    tx.commit().await?;
    for (tenant, last) in streams {
        let stream = inner.streams().get(&tenant).cloned();
        if let Some(stream) = stream {
            fetch(inner, stream, last);
        }
    }
    Ok(())
}

/// Reads what a stream lacks up to this sequence, beside the feed.
fn fetch(inner: &Arc<Inner>, stream: Arc<Stream>, last: i64) {
    if stream.state().position.is_none_or(|position| position >= last) {
        return;
    }
    let db = inner.db.clone();
    tokio::spawn(async move {
        if let Err(error) = stream.catch_up(&db, last).await {
            warn!(tenant.id = %stream.tenant, error = causes(&error), "Could not read new events; trying again");
        }
    });
}

fn silence() -> RedisError {
    (redis::ErrorKind::Io, "Redis did not answer in time").into()
}
