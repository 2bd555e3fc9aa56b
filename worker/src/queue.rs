//! Our apalis backend: ids from Redis, jobs from the ledger.
//!
//! A fetcher per queue takes no more ids than there are free permits, claims their rows in one statement, and passes the jobs
//! to the apalis worker. When Redis does not answer it claims straight from the ledger, more slowly. It never fails: what it
//! cannot do now, it tries again.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use apalis::prelude::{Backend, Task, WorkerContext};
use apalis_core::backend::BackendConfig;
use apalis_core::backend::finalize::Ephemeral;
use mdl::ids::JobId;
use mdl::instruments;
use mdl::jobs::ledger::{self, Claimed, Outcome};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;
use uuid::Uuid;

use crate::Shared;
use crate::attempt::{Attempt, EndLayer, Ended};
use crate::link::{Link, Outage, RETRY};

/// How long Redis holds an answer back until there is an id. Short, so that a connection that died silently is noticed.
const BLOCK_SECONDS: f64 = 2.0;

/// How long the fetcher waits for that answer.
const REDIS_TIMEOUT: Duration = Duration::from_secs(4);

/// One queue, as the source of an apalis worker.
pub struct Queue {
    fetcher: Option<Fetcher>,
    jobs: UnboundedReceiver<Attempt>,
    layer: EndLayer,
}

impl Queue {
    pub fn new(shared: Shared, queue: &'static str, redis: Link, ends: UnboundedSender<Ended>) -> Self {
        let (sender, jobs) = unbounded_channel();
        let layer = EndLayer { shared: shared.clone(), ends };
        let permits = Arc::new(Semaphore::new(shared.app.config.worker.concurrency as usize));
        Self { fetcher: Some(Fetcher { shared, queue, permits, redis, jobs: sender }), jobs, layer }
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
        if let Some(fetcher) = self.fetcher.take() {
            tokio::spawn(fetcher.run());
        }
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Self::Task, Self::Error>>> {
        match self.jobs.poll_recv(cx) {
            Poll::Ready(Some(attempt)) => Poll::Ready(Some(Ok(Task::new(attempt)))),
            // It ends when the worker stops, and then the worker no longer asks.
            Poll::Ready(None) if self.layer.shared.stop.is_cancelled() => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Some(Err(std::io::Error::other("the task that fetches jobs has ended")))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Waits for the fetcher to end, and hands back what was claimed and not started.
    fn poll_close(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Self::Error>> {
        self.fetcher = None;
        while let Some(attempt) = std::task::ready!(self.jobs.poll_recv(cx)) {
            self.layer.end(attempt.held, Outcome::Returned);
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

struct Fetcher {
    shared: Shared,
    queue: &'static str,
    permits: Arc<Semaphore>,
    redis: Link,
    jobs: UnboundedSender<Attempt>,
}

impl Fetcher {
    async fn run(mut self) {
        let stop = self.shared.stop.clone();
        let mut redis_outage = Outage::of("take jobs from Redis");
        loop {
            let Some(permits) = stop.run_until_cancelled(self.free_permits()).await else { return };
            // What is popped when we stop here stays dispatched, and the reconciler of another worker finds it.
            let popped = stop.run_until_cancelled(self.pop(permits.len())).await;
            let claimed = match popped {
                None => return,
                Some(Ok(ids)) => {
                    redis_outage.over();
                    self.claim(Wanted::These(ids)).await
                }
                Some(Err(error)) => {
                    redis_outage.failed(&error);
                    self.claim(Wanted::Any(permits.len())).await
                }
            };
            if claimed.is_empty() && redis_outage.is_on() {
                let _stopped = stop.run_until_cancelled(tokio::time::sleep(RETRY)).await;
            }
            if !claimed.is_empty() {
                self.shared.wake.room();
                self.shared.news.tell(claimed.iter().map(|job| (job.tenant_id, job.id)));
            }
            for (job, permit) in claimed.into_iter().zip(permits) {
                metrics::histogram!(instruments::JOB_WAIT_SECONDS, "queue" => self.queue).record(job.waited_seconds);
                let held = self.shared.leases.hold(self.queue, job.id, job.lease_token);
                if let Err(unsent) = self.jobs.send(Attempt { job, held, permit }) {
                    // The worker is gone; the lease ends by itself.
                    self.shared.leases.let_go(&unsent.0.held);
                    return;
                }
            }
        }
    }

    /// At least one permit to run a job, and all that are free.
    async fn free_permits(&self) -> Vec<OwnedSemaphorePermit> {
        let mut permits = Vec::new();
        permits.extend(self.permits.clone().acquire_owned().await);
        while let Ok(permit) = self.permits.clone().try_acquire_owned() {
            permits.push(permit);
        }
        permits
    }

    /// Up to `count` ids, as soon as there is one; none after a while.
    async fn pop(&mut self, count: usize) -> redis::RedisResult<Vec<JobId>> {
        let key = self.shared.queue_key(self.queue);
        let first: Option<(String, String, f64)> = self.redis.query(redis::cmd("BZPOPMIN").arg(&key).arg(BLOCK_SECONDS)).await?;
        let Some((_, first, _)) = first else { return Ok(Vec::new()) };
        let mut members = vec![first];
        if count > 1 {
            // Should this fail, then the first is still worth claiming, and the next pop says what is wrong.
            let more: redis::RedisResult<Vec<(String, f64)>> =
                self.redis.query(redis::cmd("ZPOPMIN").arg(&key).arg(count - 1)).await;
            members.extend(more.unwrap_or_default().into_iter().map(|(member, _)| member));
        }
        let ids = members.iter().filter_map(|member| match member.parse() {
            Ok(id) => Some(id),
            Err(_) => {
                warn!(key, member, "Ignoring what is not the id of a job in Redis");
                None
            }
        });
        Ok(ids.collect())
    }

    /// Claims the jobs, and repeats until the ledger answers or the worker stops.
    async fn claim(&self, wanted: Wanted) -> Vec<Claimed> {
        if matches!(&wanted, Wanted::These(ids) if ids.is_empty()) {
            return Vec::new();
        }
        let mut outage = Outage::of("claim jobs");
        loop {
            match self.try_claim(&wanted).await {
                Ok(claimed) => {
                    outage.over();
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
        let tx = self.shared.db.dispatch().await?;
        let claimed = match wanted {
            Wanted::These(ids) => ledger::claim(&tx, self.queue, ids, &self.shared.name, lease).await?,
            Wanted::Any(count) => ledger::claim_next(&tx, self.queue, *count, &self.shared.name, lease).await?,
        };
        tx.commit().await?;
        Ok(claimed)
    }
}

enum Wanted {
    These(Vec<JobId>),
    Any(usize),
}
