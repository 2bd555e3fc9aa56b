//! Who listens live, in this process.
//!
//! | who | does |
//! |---|---|
//! | [`wire`] | what the relay tells Redis |
//! | [`feed`] | one subscription to Redis for all listeners, those of jobs too; asks PostgreSQL every two seconds what Redis did not tell |
//! | [`filter`] | which events a listener wants |
//! | [`mod@queue`] | what waits for one listener; listeners of jobs have the same |
//! | [`subscription`] | one listener: first what it missed, from PostgreSQL, then what comes |
//!
//! Everybody goes by the sequence. The stream of a tenant has a position here, and takes nothing but the next event: what was
//! told twice is passed over, and what is missing is read from PostgreSQL. So Redis may lose messages, forget everything or be
//! away; that costs two seconds.
//!
//! A listener's queue is bounded. One that has no room for a while is told nothing more, and goes on from PostgreSQL, at its own
//! pace, as one that comes back does. Whether its client takes anything at all is for the connection to see.

mod feed;
mod filter;
mod queue;
mod subscription;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use redis::Client;
use tokio_util::task::AbortOnDropHandle;

use super::{Bounds, Stamped, history};
use crate::config::RedisConfig;
use crate::db::Db;
use crate::error::Result;
use crate::ids::TenantId;
use crate::jobs;

pub use filter::Filter;
pub(crate) use queue::{PORTION, Receiver, Sender, queue, wait_for_room};
pub use subscription::Subscription;
pub use wire::{channel, encode};

/// Events that are read from PostgreSQL at once.
const PAGE: i64 = 500;
/// How long the listeners of a tenant wait for one of them that has no room. More would be a delay for all; less would have
/// healthy ones read for themselves what one read could have told them.
const PATIENCE: Duration = Duration::from_secs(1);

/// The listeners of this process. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Live(Arc<Inner>);

struct Inner {
    db: Db,
    client: Client,
    channel: String,
    jobs_channel: String,
    /// Those that somebody listens to.
    streams: Mutex<HashMap<TenantId, Arc<Stream>>>,
    next_listener: AtomicU64,
    /// Who listens to jobs: not to events, but through the same subscription to Redis.
    jobs: jobs::live::Streams,
    /// Runs from the first listener on.
    feed: OnceLock<AbortOnDropHandle<()>>,
}

/// The stream of one tenant.
struct Stream {
    tenant: TenantId,
    state: Mutex<State>,
    /// Held by who reads what is missing: once is enough.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The last sequence that was passed on; unknown until it was first read.
    position: Option<i64>,
    listeners: BTreeMap<u64, Listener>,
}

struct Listener {
    filter: Filter,
    queue: Sender<Stamped>,
}

/// An event that does not come next was told of: some are missing.
struct Missing;

impl Live {
    /// Connects when somebody listens.
    pub fn new(db: Db, config: &RedisConfig) -> Result<Self> {
        Ok(Self(Arc::new(Inner {
            jobs: jobs::live::Streams::new(db.clone()),
            db,
            client: Client::open(config.url.as_str())?,
            channel: channel(&config.prefix),
            jobs_channel: jobs::live::channel(&config.prefix),
            streams: Mutex::default(),
            next_listener: AtomicU64::new(0),
            feed: OnceLock::new(),
        })))
    }

    /// Listens to the events of a tenant: those after a sequence, or those from now on.
    pub async fn subscribe(&self, tenant: TenantId, filter: Filter, after: Option<i64>) -> Result<Subscription> {
        self.start();
        Subscription::begin(self.clone(), tenant, filter, after).await
    }

    /// Listens to what becomes of the jobs of a tenant that a filter lets through.
    pub async fn subscribe_to_jobs(&self, tenant: TenantId, filter: jobs::store::Filter) -> Result<jobs::live::Subscription> {
        self.start();
        self.0.jobs.subscribe(tenant, filter).await
    }

    fn start(&self) {
        self.0.feed.get_or_init(|| AbortOnDropHandle::new(tokio::spawn(feed::follow(Arc::downgrade(&self.0)))));
    }

    /// The bounds of a tenant's stream.
    pub async fn bounds(&self, tenant: TenantId) -> Result<Bounds> {
        let snapshot = self.0.db.snapshot(tenant);
        let bounds = snapshot.read(async |conn| history::bounds(conn, tenant).await).await?;
        snapshot.finish().await;
        Ok(bounds)
    }

    /// Adds a listener, and says after which sequence it hears everything.
    async fn join(&self, tenant: TenantId, filter: Filter) -> Result<(Joined, i64)> {
        let (sender, queue) = queue();
        let id = self.0.next_listener.fetch_add(1, Ordering::Relaxed);
        let listener = Listener { filter, queue: sender };
        let stream = {
            let mut streams = self.0.streams();
            let stream = streams.entry(tenant).or_insert_with(|| Stream::new(tenant)).clone();
            // Before the map is given back: a stream without listeners is forgotten.
            stream.state().listeners.insert(id, listener);
            stream
        };
        // From here on its drop takes the listener away again.
        let joined = Joined { live: self.clone(), tenant, id, queue };
        let position = stream.position(&self.0.db).await?;
        Ok((joined, position))
    }
}

impl Inner {
    fn streams(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    fn new(tenant: TenantId) -> Arc<Self> {
        Arc::new(Self { tenant, state: Mutex::default(), reading: tokio::sync::Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last sequence that was passed on. A stream that is new begins where it ends in PostgreSQL.
    async fn position(&self, db: &Db) -> Result<i64> {
        let known = self.state().position;
        if let Some(position) = known {
            return Ok(position);
        }
        let _reading = self.reading.lock().await;
        let known = self.state().position;
        if let Some(position) = known {
            return Ok(position);
        }
        let snapshot = db.snapshot(self.tenant);
        let bounds = snapshot.read(async |conn| history::bounds(conn, self.tenant).await).await?;
        snapshot.finish().await;
        self.state().position = Some(bounds.last);
        Ok(bounds.last)
    }

    /// Passes on those of these events that come next.
    fn pass_on(&self, events: &[Arc<Stamped>]) -> Result<(), Missing> {
        let mut state = self.state();
        let Some(mut position) = state.position else { return Ok(()) };
        for event in events {
            if event.sequence <= position {
                continue;
            }
            if event.sequence != position + 1 {
                return Err(Missing);
            }
            position = event.sequence;
            state.position = Some(position);
            state.listeners.retain(|_, listener| listener.offer(event));
        }
        Ok(())
    }

    /// Whether every listener has room for so many events.
    fn has_room(&self, count: usize) -> bool {
        self.state().listeners.values().all(|listener| listener.queue.has_room(count))
    }

    /// Leaves no listener that has no room for the next events. Those who lack it for too long read for themselves.
    async fn make_room(&self) {
        wait_for_room(PATIENCE, || self.has_room(PORTION)).await;
        self.state().listeners.retain(|_, listener| listener.queue.has_room(PORTION));
    }

    /// Reads what is missing up to this sequence from PostgreSQL, and passes it on.
    async fn catch_up(&self, db: &Db, last: i64) -> Result<()> {
        let _reading = self.reading.lock().await;
        loop {
            let position = self.state().position;
            // Unknown, or another has read it meanwhile.
            let Some(position) = position.filter(|position| *position < last) else { return Ok(()) };
            let events = read(db, self.tenant, position, PAGE).await?;
            let full = events.len() as i64 == PAGE;
            for portion in events.chunks(PORTION) {
                self.make_room().await;
                if self.pass_on(portion).is_err() {
                    // Removed before they were passed on. The listeners find that out when they read for themselves.
                    let mut state = self.state();
                    state.listeners.clear();
                    state.position = events.last().map(|event| event.sequence);
                }
            }
            if !full {
                return Ok(());
            }
        }
    }
}

impl Listener {
    /// Gives it an event that it wants. `false` when it is not to get any more.
    fn offer(&self, event: &Arc<Stamped>) -> bool {
        !self.filter.wants(event) || self.queue.offer(event)
    }
}

/// A listener's end of its queue. Dropped, it listens no more.
struct Joined {
    live: Live,
    tenant: TenantId,
    id: u64,
    queue: Receiver<Stamped>,
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut streams = self.live.0.streams();
        let Some(stream) = streams.get(&self.tenant) else { return };
        let mut state = stream.state();
        state.listeners.remove(&self.id);
        let alone = state.listeners.is_empty();
        drop(state);
        if alone {
            streams.remove(&self.tenant);
        }
    }
}

/// Events of a tenant after a sequence.
async fn read(db: &Db, tenant: TenantId, after: i64, limit: i64) -> Result<Vec<Arc<Stamped>>> {
    let snapshot = db.snapshot(tenant);
    let events = snapshot.read(async |conn| history::after(conn, tenant, after, limit).await).await?;
    snapshot.finish().await;
    Ok(events.into_iter().map(Arc::new).collect())
}
