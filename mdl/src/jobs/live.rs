//! Who listens to what becomes of jobs, in this process.
//!
//! | who | does |
//! |---|---|
//! | [`wire`] | what those who change jobs tell Redis: which |
//! | [`look`] | reads what jobs have become |
//! | [`change`] | what that is called |
//! | [`subscription`] | one listener: first the jobs as they are, then what becomes of them |
//!
//! Jobs are no events. Nothing is written so that it can be told, and there is no sequence to go by: whoever changes jobs tells
//! Redis their ids, and where somebody listens to the jobs of that tenant, their rows are read and compared with what they were.
//! Every two seconds PostgreSQL is asked what Redis did not tell: for the jobs that are under way, and those that were enqueued or
//! ended lately. So a job that changes quickly may be told of once for several changes, and always as it is.
//!
//! A listener's queue is bounded, as those of events are. Since nothing is kept of a change, one that has no room for a while
//! cannot go on later: it is told so, and let go.

mod change;
mod look;
mod subscription;
mod wire;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::warn;

use super::JobRow;
use super::store::{self, Filter};
use crate::app::App;
use crate::db::Db;
use crate::error::{Result, causes};
use crate::events::live::{PORTION, Receiver, Sender, queue, wait_for_room};
use crate::ids::{JobId, TenantId};

pub use change::Change;
pub use subscription::Subscription;
pub(crate) use wire::{News, decode};
pub use wire::{channel, encode};

/// How often PostgreSQL is asked what has changed: how late a change is told that Redis did not tell of.
const LOOK: Duration = Duration::from_secs(2);
/// Jobs that are read at once.
const PAGE: usize = PORTION;
/// How long a listener may take to make room for so many changes. The others of its tenant wait with it.
const ROOM: Duration = Duration::from_secs(5);
/// Jobs that are looked after at once. Where more of a tenant's change within seconds, nobody could keep up with them.
const MOST: usize = 50_000;
/// How long an operator's change waits for Redis.
const PATIENCE: Duration = Duration::from_millis(500);

/// A job after a change.
#[derive(Debug)]
pub struct Changed {
    /// `None` for one that is told as it was when the listener came.
    pub change: Option<Change>,
    pub job: JobRow,
}

/// The jobs that somebody in this process listens to. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Streams(Arc<Inner>);

struct Inner {
    db: Db,
    /// Of the tenants whose jobs somebody listens to.
    streams: Mutex<HashMap<TenantId, Arc<Stream>>>,
    next_listener: AtomicU64,
    /// Somebody listens who was alone, or nobody does any more.
    turned: Notify,
}

/// The jobs of one tenant.
struct Stream {
    tenant: TenantId,
    listeners: Mutex<BTreeMap<u64, Listener>>,
    /// Jobs that are said to have changed.
    hints: Mutex<HashSet<JobId>>,
    hinted: Notify,
    /// Held by who reads, so that listeners are told in order.
    known: tokio::sync::Mutex<Known>,
}

/// What the listeners have been told, or need not be.
#[derive(Default)]
struct Known {
    marks: HashMap<JobId, look::Mark>,
    /// When PostgreSQL was asked last.
    looked: Option<Instant>,
}

struct Listener {
    filter: Filter,
    queue: Sender<Changed>,
}

impl Streams {
    pub(crate) fn new(db: Db) -> Self {
        let (streams, next_listener, turned) = (Mutex::default(), AtomicU64::new(0), Notify::new());
        Self(Arc::new(Inner { db, streams, next_listener, turned }))
    }

    /// Listens to the jobs of a tenant that a filter lets through.
    pub(crate) async fn subscribe(&self, tenant: TenantId, filter: Filter) -> Result<Subscription> {
        Subscription::begin(self.clone(), tenant, filter).await
    }

    /// Whether anybody listens.
    pub(crate) fn are_heard(&self) -> bool {
        !self.streams().is_empty()
    }

    /// Waits until the answer to that may have changed.
    pub(crate) async fn turned(&self) {
        self.0.turned.notified().await;
    }

    /// Notes that jobs are said to have changed.
    pub(crate) fn hint(&self, News { tenant, jobs }: News) {
        if let Some(stream) = self.streams().get(&tenant) {
            stream.hint(jobs);
        }
    }

    /// Adds a listener, which hears of everything from now on.
    async fn join(&self, tenant: TenantId, filter: Filter) -> Result<Joined> {
        let (sender, queue) = queue();
        let id = self.0.next_listener.fetch_add(1, Ordering::Relaxed);
        let listener = Listener { filter, queue: sender };
        let stream = {
            let mut streams = self.streams();
            let stream = streams.entry(tenant).or_insert_with(|| {
                let stream = Arc::new(Stream::of(tenant));
                tokio::spawn(stream.clone().follow(self.0.db.clone()));
                stream
            });
            // Before the map is given back: a stream without listeners is forgotten.
            stream.listeners().insert(id, listener);
            stream.clone()
        };
        self.0.turned.notify_one();
        // From here on its drop takes the listener away again.
        let joined = Joined { streams: self.clone(), tenant, id, queue };
        stream.begin(&self.0.db).await?;
        Ok(joined)
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Stream>>> {
        self.0.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    fn of(tenant: TenantId) -> Self {
        let (listeners, hints, hinted, known) = Default::default();
        Self { tenant, listeners, hints, hinted, known }
    }

    fn listeners(&self) -> MutexGuard<'_, BTreeMap<u64, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hints(&self) -> MutexGuard<'_, HashSet<JobId>> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hint(&self, jobs: Vec<JobId>) {
        let mut hints = self.hints();
        hints.extend(jobs);
        if hints.len() > MOST {
            // The next look finds what has become of them.
            hints.clear();
        }
        drop(hints);
        self.hinted.notify_one();
    }

    /// Tells the listeners of changes until there are none left.
    async fn follow(self: Arc<Self>, db: Db) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.reset();
        let mut blind = false;
        loop {
            let told = tokio::select! {
                _ = looks.tick() => {
                    // Forgotten: nobody can join it any more.
                    if Arc::strong_count(&self) == 1 {
                        return;
                    }
                    self.look(&db).await
                }
                () = self.hinted.notified() => self.take_hints(&db).await,
            };
            match told {
                Ok(()) => blind = false,
                Err(error) if !std::mem::replace(&mut blind, true) => {
                    warn!(tenant.id = %self.tenant, error = causes(&error), "Could not read what has become of jobs; trying again");
                }
                Err(_) => {}
            }
        }
    }

    /// Looks for the first time, unless that was done.
    async fn begin(&self, db: &Db) -> Result<()> {
        let mut known = self.known.lock().await;
        if known.looked.is_none() {
            let start = Instant::now();
            known.marks = look::marks(db, self.tenant, &[], Duration::ZERO).await?;
            known.looked = Some(start);
        }
        Ok(())
    }

    /// Asks PostgreSQL what has changed, and tells of it.
    async fn look(&self, db: &Db) -> Result<()> {
        let mut known = self.known.lock().await;
        let Some(last) = known.looked else { return Ok(()) };
        let start = Instant::now();
        let under_way: Vec<JobId> = known.marks.iter().filter(|(_, mark)| mark.is_under_way()).map(|(id, _)| *id).collect();
        let now = look::marks(db, self.tenant, &under_way, last.elapsed()).await?;
        if now.len() > MOST {
            // They are told that they do not keep up; nobody could.
            self.listeners().clear();
        }
        let changed = now.iter().filter(|(id, mark)| known.marks.get(id) != Some(mark)).map(|(id, _)| *id).collect();
        known.marks.retain(|id, _| now.contains_key(id));
        self.tell(db, &mut known, changed).await?;
        known.looked = Some(start);
        Ok(())
    }

    /// Tells of the jobs that are said to have changed, if they have.
    async fn take_hints(&self, db: &Db) -> Result<()> {
        let mut known = self.known.lock().await;
        if known.looked.is_none() {
            return Ok(());
        }
        let hints = std::mem::take(&mut *self.hints());
        self.tell(db, &mut known, hints.into_iter().collect()).await
    }

    /// Leaves no listener that has no room for the next changes: those who lack it for too long are let go.
    async fn make_room(&self) {
        let has_room = |listener: &Listener| listener.queue.has_room(PAGE);
        wait_for_room(ROOM, || self.listeners().values().all(has_room)).await;
        self.listeners().retain(|_, listener| has_room(listener));
    }

    /// Tells of those of these jobs that are not as they were, oldest first.
    async fn tell(&self, db: &Db, known: &mut Known, mut jobs: Vec<JobId>) -> Result<()> {
        jobs.sort_unstable();
        for page in jobs.chunks(PAGE) {
            self.make_room().await;
            if self.listeners().is_empty() {
                return Ok(());
            }
            let snapshot = db.snapshot(self.tenant);
            let mut rows = snapshot.read(async |conn| store::by_ids(conn, &[self.tenant], page).await).await?;
            snapshot.finish().await;
            rows.sort_unstable_by_key(|job| job.id);
            for job in rows {
                let mark = look::Mark::of(&job);
                let before = known.marks.insert(job.id, mark.clone());
                if before.as_ref() != Some(&mark) {
                    let change = Some(Change::between(before.as_ref(), &job));
                    let changed = Arc::new(Changed { change, job });
                    self.listeners().retain(|_, listener| listener.offer(&changed));
                }
            }
        }
        Ok(())
    }
}

impl Listener {
    /// Gives it a change that it wants. `false` when it is not to get any more.
    fn offer(&self, changed: &Arc<Changed>) -> bool {
        !self.filter.lets_through(&changed.job) || self.queue.offer(changed)
    }
}

/// A listener's end of its queue. Dropped, it listens no more.
struct Joined {
    streams: Streams,
    tenant: TenantId,
    id: u64,
    queue: Receiver<Changed>,
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut streams = self.streams.streams();
        let Some(stream) = streams.get(&self.tenant) else { return };
        let mut listeners = stream.listeners();
        listeners.remove(&self.id);
        let alone = listeners.is_empty();
        drop(listeners);
        if alone {
            streams.remove(&self.tenant);
            self.streams.0.turned.notify_one();
        }
    }
}

/// Tells of jobs that an operator has changed, in all processes. What Redis does not get in time, listeners see when they look.
pub(super) async fn tell(app: &App, tenant: TenantId, jobs: impl IntoIterator<Item = JobId>) {
    let changed: Vec<_> = jobs.into_iter().map(|job| (tenant, job)).collect();
    let channel = channel(&app.config.redis.prefix);
    let mut messages = redis::pipe();
    for message in encode(&changed) {
        messages.publish(&channel, message).ignore();
    }
    let publish = async {
        let mut conn = app.redis.get().await.map_err(|error| error.to_string())?;
        messages.query_async::<()>(&mut *conn).await.map_err(|error| error.to_string())
    };
    let told = tokio::time::timeout(PATIENCE, publish).await;
    if let Err(error) = told.unwrap_or_else(|_| Err("Redis did not answer in time".to_owned())) {
        warn!(error, "Could not tell Redis which jobs were changed");
    }
}
