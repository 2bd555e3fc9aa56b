//! One attempt from its claim to its end.
//!
//! [`EndLayer`] is around everything else that apalis runs for a job. Whatever happens inside (an answer, a panic, silence)
//! and outside (a lost lease, a cancellation, a shutdown), it makes one [`Outcome`] of it. [`record`] writes those to the
//! ledger, several at once, and tries until the ledger answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use apalis::prelude::{BoxDynError, Task};
use futures::FutureExt;
use futures::future::BoxFuture;
use mdl::db::Db;
use mdl::error::causes;
use mdl::ids::BatchId;
use mdl::instruments;
use mdl::jobs::ledger::{self, Claimed, End, Outcome, Settled};
use mdl::jobs::{JobState, batches};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tower::{Layer, Service};
use tracing::{debug, error, info, warn};

use crate::Shared;
use crate::leases::Held;
use crate::link::{Outage, RETRY};
use crate::queue::Running;

/// How long a handler may go on after its job was to be cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(10);

/// Most ends that one statement writes.
const BATCH: usize = 500;

/// A claimed job on its way through the apalis worker.
pub struct Attempt {
    pub job: Claimed,
    pub held: Arc<Held>,
    /// That it is one of the jobs that run at once; given up when its handler has really ended.
    pub running: Running,
}

/// An attempt that is over, and not yet written down.
pub struct Ended {
    held: Arc<Held>,
    outcome: Outcome,
}

#[derive(Clone)]
pub struct EndLayer {
    pub shared: Shared,
    pub ends: UnboundedSender<Ended>,
}

impl EndLayer {
    /// Passes an end on to be written.
    pub fn end(&self, held: Arc<Held>, outcome: Outcome) {
        held.ended();
        if let Err(unsent) = self.ends.send(Ended { held, outcome }) {
            // Only after a shutdown that took too long. The lease ends by itself, and the job is repeated.
            warn!(job.id = %unsent.0.held.id, "The end of a job could not be written down");
        }
    }

    /// Gives a job back that has not begun; not one that another worker has by now.
    pub fn hand_back(&self, held: Arc<Held>) {
        if held.is_lost() {
            self.shared.leases.let_go(&held);
        } else {
            self.end(held, Outcome::Unbegun);
        }
    }
}

impl<S> Layer<S> for EndLayer {
    type Service = EndService<S>;

    fn layer(&self, inner: S) -> EndService<S> {
        EndService { inner, layer: self.clone() }
    }
}

pub struct EndService<S> {
    inner: S,
    layer: EndLayer,
}

impl<S> Service<Task<Attempt>> for EndService<S>
where
    S: Service<Task<Attempt>, Response = Outcome>,
    S::Error: Into<BoxDynError> + Send,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = BoxFuture<'static, Result<(), BoxDynError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, task: Task<Attempt>) -> Self::Future {
        let layer = self.layer.clone();
        let held = task.args.held.clone();
        let (kind, attempt) = (task.args.job.kind.clone(), task.args.job.attempt);
        let running = self.inner.call(task);
        async move {
            let registry = &layer.shared.registry;
            let limit = registry.timeout(&kind);
            let start = Instant::now();
            let cancelled_in_vain = async {
                held.cancel.cancelled().await;
                tokio::time::sleep(CANCEL_GRACE).await;
            };
            // Leaving this drops `running`, and with it the handler.
            let outcome = tokio::select! {
                biased;
                () = held.end_now.cancelled() => if held.is_lost() { None } else { Some(Outcome::Returned) },
                () = cancelled_in_vain => Some(Outcome::Cancelled),
                ran = tokio::time::timeout(limit, running) => Some(match ran {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(error)) => registry.failed(&kind, attempt, error.into().to_string()),
                    Err(_) => registry.failed(&kind, attempt, format!("Did not end within {} s", limit.as_secs_f64())),
                }),
            };
            metrics::histogram!(instruments::JOB_RUN_SECONDS, "kind" => kind.clone()).record(start.elapsed().as_secs_f64());
            match outcome {
                Some(outcome) => layer.end(held, outcome),
                None => {
                    count(held.queue, &kind, "lost");
                    layer.shared.leases.let_go(&held);
                }
            }
            Ok(())
        }
        .boxed()
    }
}

/// Writes ends to the ledger until nobody can send any more.
pub async fn record(mut ends: UnboundedReceiver<Ended>, shared: Shared) {
    let Shared { db, leases, wake, news, .. } = shared;
    let mut outage = Outage::of("write down the ends of jobs");
    let mut batch = Vec::new();
    while ends.recv_many(&mut batch, BATCH).await > 0 {
        let settled = loop {
            match write(&db, &batch).await {
                Ok(settled) => break settled,
                Err(error) => {
                    outage.failed(&error);
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        outage.over();
        let outcomes: HashMap<_, _> =
            batch.iter().map(|ended| ((ended.held.id, ended.held.lease_token), &ended.outcome)).collect();
        let batches: Vec<_> = settled.iter().filter_map(|job| job.batch_id).collect();
        if !batches.is_empty()
            && let Err(error) = release(&db, &batches).await
        {
            // The reconciler looks after them in a few seconds.
            warn!(error = causes(&error), "Could not look whether batches of jobs have ended");
        }
        news.tell(settled.iter().map(|job| (job.tenant_id, job.id)));
        // A limit of concurrency may have kept others back.
        wake.room();
        for job in &settled {
            tell(job, outcomes.get(&(job.id, job.lease_token)).copied());
        }
        if settled.len() < batch.len() {
            warn!("{} ends of jobs were void: others have taken them over", batch.len() - settled.len());
        }
        for ended in batch.drain(..) {
            leases.let_go(&ended.held);
        }
    }
}

/// In a transaction of its own, after that of the ends: of two that end the last jobs of a batch, the later sees both.
async fn release(db: &Db, ended: &[BatchId]) -> mdl::Result<()> {
    let tx = db.dispatch_by_index().await?;
    batches::release(&tx, Some(ended)).await?;
    tx.commit().await
}

async fn write(db: &Db, batch: &[Ended]) -> mdl::Result<Vec<Settled>> {
    let ends: Vec<_> = batch
        .iter()
        .map(|Ended { held, outcome }| {
            let Held { tenant, id, lease_token, .. } = **held;
            End { tenant, id, lease_token, outcome: outcome.clone() }
        })
        .collect();
    let tx = db.dispatch_by_index().await?;
    let settled = ledger::finish(&tx, &ends).await?;
    tx.commit().await?;
    Ok(settled)
}

/// Counts an end, and logs it.
fn tell(job: &Settled, outcome: Option<&Outcome>) {
    let error = job.last_error.as_deref().unwrap_or_default();
    let outcome = match (job.state, outcome) {
        (JobState::Waiting, Some(Outcome::Returned)) => {
            info!(job.id = %job.id, job.kind, "Handed a job back unfinished");
            return;
        }
        (JobState::Waiting, Some(Outcome::Unbegun)) => {
            debug!(job.id = %job.id, job.kind, "Handed a job back that had not begun");
            return;
        }
        (JobState::Waiting, Some(Outcome::Snoozed { run_in })) => {
            info!(job.id = %job.id, job.kind, "A job cannot be done yet; again in {} s", run_in.as_secs_f64());
            return;
        }
        (JobState::Succeeded, _) => {
            info!(job.id = %job.id, job.kind, "Finished a job");
            "succeeded"
        }
        (JobState::Cancelled, _) => {
            info!(job.id = %job.id, job.kind, "Cancelled a job");
            "cancelled"
        }
        (JobState::Dead, _) => {
            error!(job.id = %job.id, job.kind, error, "A job is dead");
            "dead"
        }
        (JobState::Held | JobState::Waiting | JobState::Dispatched | JobState::Running | JobState::Discarded, _) => {
            warn!(job.id = %job.id, job.kind, error, "An attempt failed; the job will be tried again");
            "failed"
        }
    };
    count(&job.queue, &job.kind, outcome);
}

fn count(queue: &str, kind: &str, outcome: &'static str) {
    let (queue, kind) = (queue.to_owned(), kind.to_owned());
    metrics::counter!(instruments::JOBS_FINISHED, "queue" => queue, "kind" => kind, "outcome" => outcome).increment(1);
}
