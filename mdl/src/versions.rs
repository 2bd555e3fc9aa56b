//! Versions of what answers are made of, by which a cache knows that what it holds is out of date.
//!
//! For each tenant and [`Entity`] there is a version: a random token that every write replaces. A [`Thing`] has one of its own from
//! the first time that it is written. An answer is kept under the tokens of all that it was made of; after a write nobody asks for
//! it again. A token is never counted up, since a counter that is lost begins again and comes back to values under which old
//! answers are still held.
//!
//! | who | does |
//! |---|---|
//! | [`Transaction::commit`](crate::db::Transaction::commit) | bumps what the transaction touched: [`Versions::bump`] |
//! | [`entities`] | what has a version |
//! | [`local`] | this process's copy of the tokens, and of its own writes that Redis has not told back yet |
//! | [`feed`] | one subscription per process: the changes of all processes, and a beat of its own that proves it is alive |
//! | [`wire`] | how tokens stand in Redis and in messages |
//! | [`mod@purge`] | lets an operator bump by hand |
//!
//! While no beat has come back for [`TRUST`], and for [`GRACE`] after, the tokens are not believed: [`Versions::stamp`] then gives the current slice of
//! time instead, so that nothing older than [`SLICE`] is served. ADR 7 tells why this is never wrong.

mod entities;
mod feed;
mod local;
mod purge;
mod wire;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use metrics::{counter, histogram};
use redis::{Client, RedisResult};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{info, warn};

use crate::config::RedisConfig;
use crate::error::causes;
use crate::ids::{EventId, TenantId};
use crate::instruments;
use crate::lazy_redis::LazyRedis;
use local::Local;

pub use entities::{Entities, Entity, Part, Thing, Touched};
pub use purge::{Purge, purge};
pub use wire::Change;

/// How long a beat proves that the subscription tells everything: writes elsewhere are known here after this at the latest.
pub const TRUST: Duration = Duration::from_millis(500);
/// How long the tokens are not believed after such a proof was missing: others may not have been able to tell Redis of their
/// writes either, and need some attempts.
pub const GRACE: Duration = Duration::from_secs(2);
/// Without that proof an answer is kept no longer than to the end of the current slice of time.
pub const SLICE: Duration = Duration::from_secs(1);

/// How long a commit waits until the others can know of it, before it goes on without waiting.
const BUMP_PATIENCE: Duration = Duration::from_millis(50);
/// How long a request waits for the tokens of a tenant that it is the first to ask for.
const LOAD_PATIENCE: Duration = Duration::from_millis(100);
/// How long Redis may take to answer one command.
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two attempts to tell Redis of a write.
const RETRY: Duration = Duration::from_millis(250);

/// What an answer is kept under, besides what was asked: changes whenever something that the answer is made of does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub bytes: [u8; 32],
    /// Whether other processes have the same stamp, so that an answer can be shared with them.
    pub shared: bool,
    /// Grows with what this process hears: of two stamps, the one with more is not the older.
    pub at: u64,
}

/// The versions of all tenants. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Versions(Arc<Inner>);

struct Inner {
    /// To subscribe with.
    client: Client,
    prefix: String,
    commands: LazyRedis,
    local: RwLock<Local>,
    /// Whether anybody in this process asks for stamps.
    following: AtomicBool,
    start: Instant,
    /// When the last beat that came back was sent, in microseconds since the start; 0 when there was none.
    beat: AtomicU64,
    /// When beats came back again after they had not, in microseconds since the start.
    resumed: AtomicU64,
    /// Writes that Redis could not be told of yet.
    owed: Mutex<HashMap<TenantId, Change>>,
    sending: TaskTracker,
}

impl Versions {
    /// Connects lazily.
    pub fn new(config: &RedisConfig) -> RedisResult<Self> {
        Ok(Self(Arc::new(Inner {
            client: Client::open(config.url.as_str())?,
            prefix: config.prefix.clone(),
            commands: LazyRedis::new(config.url.as_str(), REDIS_TIMEOUT)?,
            local: RwLock::default(),
            following: AtomicBool::new(false),
            start: Instant::now(),
            beat: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            owed: Mutex::default(),
            sending: TaskTracker::new(),
        })))
    }

    /// Follows the changes of all processes until the handle is dropped. Without it every stamp is a slice of time.
    pub fn follow(&self) -> AbortOnDropHandle<()> {
        self.0.following.store(true, Ordering::Relaxed);
        AbortOnDropHandle::new(tokio::spawn(feed::follow(self.0.clone())))
    }

    /// Whether the tokens can be believed now.
    pub fn is_live(&self) -> bool {
        self.0.is_live()
    }

    /// How many changes of a tenant were heard of, or `None` while those of other processes are not heard of at once. As long as
    /// it stays the same, so do the versions.
    pub fn changes(&self, tenant: TenantId) -> Option<u64> {
        let known = self.0.read().changes(tenant);
        let changes = known.unwrap_or_else(|| self.0.write().begin_counting(tenant));
        // Last, so that nothing was missed before it was counted.
        self.0.is_live().then_some(changes)
    }

    /// The versions of all that an answer is made of, now. Ask for it before the data is read.
    pub async fn stamp(&self, tenant: TenantId, made_of: &Touched) -> Stamp {
        let inner = &self.0;
        if inner.is_live() {
            if let Some(stamp) = inner.read().stamp(tenant, made_of) {
                return stamp;
            }
            // On failure, the slice of time serves.
            let loaded = tokio::time::timeout(LOAD_PATIENCE, inner.load(tenant)).await;
            if matches!(loaded, Ok(Ok(())))
                && inner.is_live()
                && let Some(stamp) = inner.read().stamp(tenant, made_of)
            {
                return stamp;
            }
        }
        let slice = inner.start.elapsed().as_nanos() / SLICE.as_nanos();
        inner.read().slice_stamp(tenant, slice)
    }

    /// Makes everything old that was made of these. In this process at once; other processes know when this returns, unless
    /// Redis is slow or away: then they are told behind the caller's back, until it has worked.
    pub async fn bump(&self, tenant: TenantId, change: Change) {
        if change.is_empty() {
            return;
        }
        self.0.wrote(tenant, &change);
        let sending = self.0.sending.spawn(self.0.clone().send(tenant, change));
        if tokio::time::timeout(BUMP_PATIENCE, sending).await.is_err() {
            counter!(instruments::CACHE_BUMPS, "outcome" => "late").increment(1);
        }
    }

    /// Those of these events whose writers have not told what they changed: they may have died before, or it was long ago.
    pub async fn untold(&self, events: Vec<EventId>) -> RedisResult<Vec<EventId>> {
        wire::untold(&mut self.0.commands.get()?, &self.0.prefix, events).await
    }

    /// Waits until Redis has been told of all writes; a program that ends calls it last.
    pub async fn settle(&self, patience: Duration) {
        self.0.sending.close();
        if tokio::time::timeout(patience, self.0.sending.wait()).await.is_err() {
            warn!("Redis could not be told of the last writes: caches learn of them when they expire");
        }
    }
}

impl Inner {
    fn is_live(&self) -> bool {
        let now = self.now();
        self.hears(now) && now.saturating_sub(self.resumed.load(Ordering::Relaxed)) > GRACE.as_micros() as u64
    }

    /// Whether a beat that was sent lately has come back.
    fn hears(&self, now: u64) -> bool {
        let beat = self.beat.load(Ordering::Acquire);
        beat != 0 && now.saturating_sub(beat) < TRUST.as_micros() as u64
    }

    /// A beat that was sent then has come back.
    fn heard_beat(&self, sent: u64) {
        let now = self.now();
        if !self.hears(now) {
            // First, so that nobody believes the tokens in between.
            self.resumed.store(now, Ordering::Release);
        }
        self.beat.store(sent, Ordering::Release);
    }

    /// Microseconds since the start; never 0.
    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64 + 1
    }

    /// Gets a tenant's tokens from Redis, and makes those that are not there.
    async fn load(&self, tenant: TenantId) -> RedisResult<()> {
        loop {
            let epoch = self.write().begin_loading(tenant);
            let known = wire::load(&mut self.commands.get()?, &self.prefix, tenant).await?;
            if self.write().loaded(tenant, epoch, known) {
                return Ok(());
            }
        }
    }

    /// Notes a write of this process, if anybody asks for stamps.
    fn wrote(&self, tenant: TenantId, change: &Change) {
        if self.following.load(Ordering::Relaxed) {
            self.write().wrote(tenant, change);
        }
    }

    /// Tells Redis, and through it the others. What does not work is owed, and tried again until it does.
    async fn send(self: Arc<Self>, tenant: TenantId, change: Change) {
        let Err(error) = self.try_send(tenant, &change).await else { return };
        let first = {
            let mut owed = self.owed();
            let first = owed.is_empty();
            owed.entry(tenant).or_default().merge(change);
            first
        };
        if !first {
            return;
        }
        warn!(error = causes(&error), "Could not tell Redis of a write; trying again until it works");
        let since = Instant::now();
        loop {
            tokio::time::sleep(RETRY).await;
            let next = self.owed().iter_mut().next().map(|(tenant, change)| {
                change.renew();
                (*tenant, change.clone())
            });
            let Some((tenant, change)) = next else { break };
            self.wrote(tenant, &change);
            if self.try_send(tenant, &change).await.is_ok() {
                let mut owed = self.owed();
                // Unless more was added meanwhile.
                if owed.get(&tenant) == Some(&change) {
                    owed.remove(&tenant);
                }
                if owed.is_empty() {
                    break;
                }
            }
        }
        info!("Told Redis of all writes again, after {:.1} s", since.elapsed().as_secs_f64());
    }

    async fn try_send(&self, tenant: TenantId, change: &Change) -> RedisResult<()> {
        let (start, epoch) = (Instant::now(), self.read().epoch(tenant));
        let sent = async { wire::publish(&mut self.commands.get()?, &self.prefix, tenant, change).await }.await;
        counter!(instruments::CACHE_BUMPS, "outcome" => if sent.is_ok() { "ok" } else { "failed" }).increment(1);
        if sent.is_ok() {
            histogram!(instruments::CACHE_BUMP_SECONDS).record(start.elapsed().as_secs_f64());
            self.write().landed(tenant, change, epoch);
        }
        sent
    }

    fn read(&self) -> RwLockReadGuard<'_, Local> {
        self.local.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Local> {
        self.local.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn owed(&self) -> MutexGuard<'_, HashMap<TenantId, Change>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
