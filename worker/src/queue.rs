//! Our apalis backend: ids from Redis, jobs from the ledger.
//!
//! A fetcher per queue takes as many ids as there is room for, claims their rows in one statement, and passes the jobs to a
//! starter, which gives each to the apalis worker as soon as it may run. When Redis does not answer the fetcher claims straight
//! from the ledger, more slowly. It never fails: what it cannot do now, it tries again.
//!
//! There is room for the jobs that may run at once and, where they are short, for those that will begin in the next moment
//! (see [`Room`]): otherwise the worker would wait for the ledger most of the time. One that does not begin so soon after all
//! goes back, for others to take.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use apalis::prelude::{Backend, Task, WorkerContext};
use apalis_core::backend::BackendConfig;
use apalis_core::backend::finalize::Ephemeral;
use mdl::ids::{JobId, TenantId};
use mdl::instruments;
use mdl::jobs::ledger::{self, Claimed};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tracing::warn;
use uuid::Uuid;

use crate::Shared;
use crate::ahead::{MOMENT, soon};
use crate::attempt::{Attempt, EndLayer, Ended};
use crate::leases::Held;
use crate::link::{Link, Outage, RETRY};

/// How long Redis holds an answer back until there is an id. Short, so that a connection that died silently is noticed.
const BLOCK_SECONDS: f64 = 2.0;

/// How long the fetcher waits for that answer.
const REDIS_TIMEOUT: Duration = Duration::from_secs(4);

/// Most jobs that are claimed ahead.
const MOST_AHEAD: usize = 500;

/// How long a job that was claimed ahead waits for its beginning.
const PATIENCE: Duration = Duration::from_millis(500);

/// A job as the sorted set of its queue names it. The id comes first: those of one score are in the order of their making.
pub fn member(tenant: TenantId, id: JobId) -> String {
    format!("{id}/{tenant}")
}

fn read_member(member: &str) -> Option<(TenantId, JobId)> {
    let (id, tenant) = member.split_once('/')?;
    Some((tenant.parse().ok()?, id.parse().ok()?))
}

/// One queue, as the source of an apalis worker.
pub struct Queue {
    tasks: Option<(Fetcher, Starter)>,
    jobs: UnboundedReceiver<Attempt>,
    layer: EndLayer,
}

impl Queue {
    pub fn new(shared: Shared, queue: &'static str, redis: Link, ends: UnboundedSender<Ended>) -> Self {
        let layer = EndLayer { shared: shared.clone(), ends };
        let (to_starter, claims) = unbounded_channel();
        let (to_apalis, jobs) = unbounded_channel();
        let concurrency = shared.app.config.worker.concurrency as usize;
        let permits = Arc::new(Semaphore::new(concurrency));
        // A worker that dies has used up an attempt of what it had claimed.
        let most_ahead = if shared.registry.repeats_all(queue) { MOST_AHEAD } else { 0 };
        let room = Room::new(concurrency, most_ahead);
        let starter = Starter { queue, claims, permits, places: room.places.clone(), jobs: to_apalis, layer: layer.clone() };
        let fetcher = Fetcher { shared, queue, room, redis, jobs: to_starter };
        Self { tasks: Some((fetcher, starter)), jobs, layer }
    }

    /// A connection as the fetcher of a queue needs it.
    pub fn link(shared: &Shared) -> redis::RedisResult<Link> {
        Link::new(&shared.app.config.redis, REDIS_TIMEOUT)
    }
}

impl Backend for Queue {
    type Task = Task<Attempt>;
    type Error = std::io::Error;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Self::Error>> {
        if let Some((fetcher, starter)) = self.tasks.take() {
            tokio::spawn(fetcher.run());
            tokio::spawn(starter.run());
        }
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Self::Task, Self::Error>>> {
        match self.jobs.poll_recv(cx) {
            Poll::Ready(Some(attempt)) => Poll::Ready(Some(Ok(Task::new(attempt)))),
            // It ends when the worker stops, and then the worker no longer asks.
            Poll::Ready(None) if self.layer.shared.stop.is_cancelled() => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Some(Err(std::io::Error::other("the tasks that fetch jobs have ended")))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Waits for fetcher and starter to end, and hands back what has not begun.
    fn poll_close(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Self::Error>> {
        self.tasks = None;
        while let Some(attempt) = std::task::ready!(self.jobs.poll_recv(cx)) {
            self.layer.hand_back(attempt.held);
        }
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for Queue {
    type Args = Attempt;
    type Id = Uuid;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = EndLayer;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> EndLayer {
        self.layer.clone()
    }
}

/// For how many jobs a worker has room: those that may run at once, and as many more as were done in the last moment. A job has
/// its place until its end is written.
struct Room {
    concurrency: usize,
    most_ahead: usize,
    /// Jobs done since then.
    since: Instant,
    /// For jobs that are claimed ahead.
    ahead: usize,
    places: Arc<Places>,
}

#[derive(Default)]
struct Places {
    taken: AtomicUsize,
    done: AtomicUsize,
    freed: Notify,
}

/// One of them.
pub struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

/// Of a job that runs; given up when its handler has really ended.
pub struct Running {
    places: Arc<Places>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.places.done.fetch_add(1, Ordering::Relaxed);
    }
}

impl Room {
    fn new(concurrency: usize, most_ahead: usize) -> Self {
        Self { concurrency, most_ahead, since: Instant::now(), ahead: 0, places: Arc::default() }
    }

    /// How many places are free: at least one and, where jobs are claimed ahead, more than half of theirs, so that many are
    /// claimed at once.
    async fn free(&mut self) -> usize {
        loop {
            self.follow();
            let free = (self.concurrency + self.ahead).saturating_sub(self.places.taken.load(Ordering::Acquire));
            if free > self.ahead / 2 {
                return free;
            }
            self.places.freed.notified().await;
        }
    }

    /// Goes by the pace of the jobs.
    fn follow(&mut self) {
        let elapsed = self.since.elapsed();
        // Less time would say nothing: ten that end together are not ten in a microsecond.
        if elapsed >= MOMENT {
            self.ahead = soon(self.places.done.swap(0, Ordering::Relaxed), elapsed, self.most_ahead);
            self.since = Instant::now();
        }
    }

    fn take(&self) -> Place {
        self.places.taken.fetch_add(1, Ordering::AcqRel);
        Place(self.places.clone())
    }
}

/// A claimed job that is to begin.
struct Claim {
    job: Claimed,
    held: Arc<Held>,
    since: Instant,
}

struct Fetcher {
    shared: Shared,
    queue: &'static str,
    room: Room,
    redis: Link,
    jobs: UnboundedSender<Claim>,
}

impl Fetcher {
    async fn run(mut self) {
        let stop = self.shared.stop.clone();
        let mut redis_outage = Outage::of("take jobs from Redis");
        loop {
            let Some(count) = stop.run_until_cancelled(self.room.free()).await else { return };
            // What is popped when we stop here stays dispatched, and the reconciler of another worker finds it.
            let popped = stop.run_until_cancelled(self.pop(count)).await;
            let claimed = match popped {
                None => return,
                Some(Ok(jobs)) => {
                    redis_outage.over();
                    self.claim(Wanted::These(jobs)).await
                }
                Some(Err(error)) => {
                    redis_outage.failed(&error);
                    self.claim(Wanted::Any(count)).await
                }
            };
            if claimed.is_empty() && redis_outage.is_on() {
                let _stopped = stop.run_until_cancelled(tokio::time::sleep(RETRY)).await;
            }
            if !claimed.is_empty() {
                self.shared.wake.room();
                self.shared.news.tell(claimed.iter().map(|job| (job.tenant_id, job.id)));
            }
            let since = Instant::now();
            for job in claimed {
                let held = self.shared.leases.hold(self.queue, &job, self.room.take());
                if let Err(unsent) = self.jobs.send(Claim { job, held, since }) {
                    // The worker is gone; the lease ends by itself.
                    self.shared.leases.let_go(&unsent.0.held);
                    return;
                }
            }
        }
    }

    /// Up to `count` ids, as soon as there is one; none after a while.
    async fn pop(&mut self, count: usize) -> redis::RedisResult<Vec<(TenantId, JobId)>> {
        let key = self.shared.queue_key(self.queue);
        let mut some = redis::cmd("ZPOPMIN");
        some.arg(&key).arg(count);
        let mut members: Vec<(String, f64)> = self.redis.query(&some).await?;
        if members.is_empty() {
            let mut first = redis::cmd("BZPOPMIN");
            first.arg(&key).arg(BLOCK_SECONDS);
            let first: Option<(String, String, f64)> = self.redis.query(&first).await?;
            members.extend(first.map(|(_, member, score)| (member, score)));
        }
        let jobs = members.iter().filter_map(|(member, _)| {
            let job = read_member(member);
            if job.is_none() {
                warn!(key, member, "Ignoring what does not name a job in Redis");
            }
            job
        });
        Ok(jobs.collect())
    }

    /// Claims the jobs, and repeats until the ledger answers or the worker stops.
    async fn claim(&self, wanted: Wanted) -> Vec<Claimed> {
        if matches!(&wanted, Wanted::These(jobs) if jobs.is_empty()) {
            return Vec::new();
        }
        let mut outage = Outage::of("claim jobs");
        loop {
            match self.try_claim(&wanted).await {
                Ok(mut claimed) => {
                    outage.over();
                    if let Wanted::These(jobs) = &wanted {
                        // They begin as Redis gave them out.
                        let places: HashMap<_, _> = jobs.iter().enumerate().map(|(place, (_, id))| (*id, place)).collect();
                        claimed.sort_by_key(|job| places.get(&job.id).copied());
                    }
                    return claimed;
                }
                Err(error) => outage.failed(&error),
            }
            if self.shared.stop.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                return Vec::new();
            }
        }
    }

    async fn try_claim(&self, wanted: &Wanted) -> mdl::Result<Vec<Claimed>> {
        let lease = self.shared.lease();
        let tx = self.shared.db.dispatch_by_index().await?;
        let claimed = match wanted {
            Wanted::These(jobs) => ledger::claim(&tx, self.queue, jobs, &self.shared.name, lease).await?,
            Wanted::Any(count) => ledger::claim_next(&tx, self.queue, *count, &self.shared.name, lease).await?,
        };
        tx.commit().await?;
        Ok(claimed)
    }
}

enum Wanted {
    These(Vec<(TenantId, JobId)>),
    Any(usize),
}

/// Gives the claimed jobs to apalis, one for each permit.
struct Starter {
    queue: &'static str,
    claims: UnboundedReceiver<Claim>,
    permits: Arc<Semaphore>,
    places: Arc<Places>,
    jobs: UnboundedSender<Attempt>,
    layer: EndLayer,
}

impl Starter {
    async fn run(mut self) {
        let waited = metrics::histogram!(instruments::JOB_WAIT_SECONDS, "queue" => self.queue);
        while let Some(Claim { job, held, since }) = self.claims.recv().await {
            let permit = tokio::select! {
                biased;
                () = self.layer.shared.stop.cancelled() => None,
                () = held.end_now.cancelled() => None,
                () = held.cancel.cancelled() => None,
                permit = self.permits.clone().acquire_owned() => permit.ok(),
                () = sleep_until(since + PATIENCE) => None,
            };
            let Some(permit) = permit else {
                self.layer.hand_back(held);
                continue;
            };
            waited.record(job.waited_seconds + since.elapsed().as_secs_f64());
            let running = Running { places: self.places.clone(), _permit: permit };
            if let Err(unsent) = self.jobs.send(Attempt { job, held, running }) {
                // The worker is gone. What is claimed already goes back too, and then the fetcher ends.
                self.layer.hand_back(unsent.0.held);
                self.claims.close();
            }
        }
    }
}
