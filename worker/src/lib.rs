//! The worker: takes jobs from the ledger and does them.
//!
//! | who | does |
//! |---|---|
//! | [`relay`] | moves due jobs from the ledger to Redis; rescues what was lost on the way |
//! | [`queue`] | an apalis backend: takes ids from Redis, claims their rows with a lease |
//! | [`publish`] | numbers the events that changes owe, and tells of them |
//! | [`repair`] | tells caches of changes whose writer died before it could |
//! | [`leases`] | keeps the leases, hears of cancellations and losses |
//! | [`jobs`] | which handlers there are, and what they are given |
//! | [`attempt`] | makes one outcome of whatever happens to a job, and writes it to the ledger |
//! | [`news`] | tells those who listen live which jobs have changed |
//! | [`schedule`] | what runs by the clock |
//! | [`heartbeat`] | this worker's row, for operators |
//! | [`listen`] | PostgreSQL's notifications, which wake the relay and the leases |
//! | [`webhooks`] | the courier: sends what is owed to webhook endpoints |
//! | [`ops`] | health and instruments |
//!
//! PostgreSQL is the truth throughout. Every write to a running job names the lease's token, so that a worker that was
//! thought dead cannot overwrite what its successor does.

mod ahead;
pub mod attempt;
pub mod cli;
pub mod gauges;
mod heartbeat;
pub mod jobs;
pub mod leases;
pub mod link;
pub mod listen;
pub mod news;
pub mod ops;
pub mod publish;
pub mod queue;
pub mod relay;
pub mod repair;
pub mod schedule;
pub mod start;
pub mod webhooks;

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use apalis::layers::catch_panic::CatchPanicLayer;
use apalis::prelude::{Monitor, ParallelizeExt, WorkerBuilder};
use mdl::config::DatabaseConfig;
use mdl::db::Db;
use mdl::error::causes;
use mdl::jobs::Job;
use mdl::warming::WarmCaches;
use mdl::{App, telemetry};
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use attempt::Attempt;
use jobs::Registry;
use leases::Leases;
use news::News;
use queue::Queue;
use relay::Wake;

/// How long a worker that stops waits for handlers that do not let themselves be dropped, and for the last ends to be
/// written. After that their leases end by themselves.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// How to stop a worker.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Take no more jobs; end when those that run are done, or when the grace is over.
    pub gently: CancellationToken,
    /// The grace is over.
    pub now: CancellationToken,
}

/// What the parts of a worker share. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    pub app: App,
    /// Connections of the machinery's own: handlers that use up the app's must not cost them their leases.
    pub db: Db,
    pub registry: Arc<Registry>,
    pub leases: Arc<Leases>,
    pub wake: Arc<Wake>,
    pub news: News,
    /// Webhooks may be due.
    pub webhooks: Arc<Notify>,
    /// Fires when no more jobs are to be taken.
    pub stop: CancellationToken,
    /// What the ledger calls this worker.
    pub name: Arc<str>,
}

impl Shared {
    fn new(app: App, registry: Registry, news: News, stop: CancellationToken) -> Self {
        let settings = &app.config.database;
        let lease = app.config.worker.lease_seconds;
        let db = Db::new(
            &DatabaseConfig {
                // Relay, reconciler, repair, schedules, heartbeat, leases, ends, the courier's four, and one for each queue.
                pool_size: 11 + registry.queues().len() as u32,
                // A statement that takes as long as a lease has come too late.
                statement_timeout_seconds: settings.statement_timeout_seconds.min((lease / 3).max(1)),
                ..settings.clone()
            },
            app.versions.clone(),
        );
        Self {
            app,
            db,
            registry: Arc::new(registry),
            leases: Arc::default(),
            wake: Arc::default(),
            news,
            webhooks: Arc::default(),
            stop,
            name: name().into(),
        }
    }

    pub fn queues(&self) -> Vec<&'static str> {
        self.registry.queues()
    }

    /// The sorted set that holds the ids of a queue.
    pub fn queue_key(&self, queue: &str) -> String {
        self.app.redis_key(&format!("queue:{queue}"))
    }

    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.app.config.worker.lease_seconds)
    }
}

/// Works until stopped. An error means that a part of the worker failed that never should; jobs do not fail a worker.
pub async fn run(app: App, registry: Registry, stop: Stop) -> anyhow::Result<()> {
    let grace = Duration::from_secs(app.config.worker.grace_seconds);
    let (news, told) = News::new();
    let shared = Shared::new(app, registry, news, stop.gently.clone());
    let all_done = CancellationToken::new();
    let (ends, ended) = unbounded_channel();
    let mut recorder = tokio::spawn(attempt::record(ended, shared.clone()));
    let mut parts = start_parts(&shared, told, &all_done)?;

    let failed = CancellationToken::new();
    let failure = failed.clone();
    let mut monitor = Monitor::new().should_restart(move |worker, error| {
        error!(worker = worker.name(), error = causes(error), "A queue has stopped working");
        failure.cancel();
        false
    });
    for queue in shared.queues() {
        // Made here, so that a bad address is an error and not a queue without a worker.
        Queue::link(&shared)?;
        let (shared, ends) = (shared.clone(), ends.clone());
        monitor = monitor.register(move |_| {
            let redis = Queue::link(&shared).expect("the same address was accepted before");
            let backend = Queue::new(shared.clone(), queue, redis, ends.clone());
            let shared = shared.clone();
            WorkerBuilder::new(format!("{}/{queue}", shared.name))
                .backend(backend)
                .parallelize(spawn)
                .layer(CatchPanicLayer::with_panic_handler(panicked))
                .build(move |attempt: Attempt| {
                    let Shared { app, news, registry, .. } = shared.clone();
                    async move {
                        let Attempt { job, held, running } = attempt;
                        let outcome = registry.run(app, news, job, held.cancel.clone()).await;
                        drop(running);
                        Ok::<_, Infallible>(outcome)
                    }
                })
        });
    }
    drop(ends);
    let stopping = stop.gently.clone();
    let mut working = Box::pin(monitor.run_with_signal(async move {
        stopping.cancelled().await;
        Ok(())
    }));

    let mut broken = false;
    let mut handed_back = false;
    loop {
        let grace_over = async {
            stop.gently.cancelled().await;
            if !handed_back {
                let _at_once = stop.now.run_until_cancelled(tokio::time::sleep(grace)).await;
            } else {
                tokio::time::sleep(LAST_WAIT).await;
            }
        };
        tokio::select! {
            result = &mut working => {
                if let Err(error) = result {
                    error!(error = causes(&error), "The worker has failed");
                    broken = true;
                }
                break;
            }
            Some(part) = parts.join_next(), if !parts.is_empty() => {
                if part.is_err() || !stop.gently.is_cancelled() {
                    let part = part.map_or_else(|error| causes(&error), str::to_owned);
                    error!(part, "A part of the worker has ended that should not; stopping");
                    broken = true;
                    stop.gently.cancel();
                }
            }
            () = failed.cancelled(), if !broken => {
                broken = true;
                stop.gently.cancel();
            }
            () = grace_over => {
                if handed_back {
                    warn!("Some jobs do not let themselves be stopped; leaving them to be rescued");
                    break;
                }
                handed_back = true;
                let count = shared.leases.hand_back();
                info!("Handing {count} running jobs back");
            }
        }
    }
    // With it go all senders, so that the recorder ends when it has written everything.
    drop(working);
    match tokio::time::timeout(LAST_WAIT, &mut recorder).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            error!(error = causes(&error), "The recorder of ends has failed");
            broken = true;
        }
        Err(_) => warn!("Could not write down the last ends of jobs; these jobs will be repeated"),
    }
    all_done.cancel();
    // All of them end by themselves: the last sign of life is to be written, and the courier has requests under way, as the queues had jobs.
    let ended = async { while parts.join_next().await.is_some() {} };
    let at_once = async {
        stop.now.cancelled().await;
        tokio::time::sleep(LAST_WAIT).await;
    };
    tokio::select! {
        () = ended => {}
        () = at_once => {}
        () = tokio::time::sleep(grace + LAST_WAIT) => {}
    }
    anyhow::ensure!(!broken, "A part of the worker failed; see the log above");
    Ok(())
}

/// Starts what runs beside the queues. None of it ends before the worker stops.
fn start_parts(
    shared: &Shared,
    told: Receiver<news::Batch>,
    all_done: &CancellationToken,
) -> anyhow::Result<JoinSet<&'static str>> {
    let mut parts = JoinSet::new();
    let (relay, reconcile) = (relay::relay(shared.clone())?, relay::reconcile(shared.clone())?);
    parts.spawn(async move {
        relay.await;
        "relay"
    });
    parts.spawn(async move {
        reconcile.await;
        "reconciler"
    });
    let publish = publish::publish(shared.clone())?;
    parts.spawn(async move {
        publish.await;
        "publisher"
    });
    let tell = news::publish(shared, told, all_done.clone())?;
    parts.spawn(async move {
        tell.await;
        "news"
    });
    let mut table = schedule::definitions(schedule::TABLE, &shared.app.config.schedules)?;
    let warms = shared.app.config.warming.is_on();
    table.iter_mut().filter(|line| line.job.kind == WarmCaches::KIND).for_each(|line| line.enabled &= warms);
    let schedule = schedule::keep(shared.clone(), table);
    parts.spawn(async move {
        schedule.await;
        "schedule"
    });
    let repair = repair::repair(shared.clone());
    parts.spawn(async move {
        repair.await;
        "repair"
    });
    let heartbeat = heartbeat::keep(shared.clone(), all_done.clone());
    parts.spawn(async move {
        heartbeat.await;
        "heartbeat"
    });
    let gauges = gauges::keep(shared.clone());
    parts.spawn(async move {
        gauges.await;
        "gauges"
    });
    let courier = webhooks::courier(shared.clone())?;
    parts.spawn(async move {
        courier.await;
        "courier"
    });
    let listen = listen::listen(shared.clone(), all_done.clone());
    parts.spawn(async move {
        listen.await;
        "listener"
    });
    let (shared, all_done) = (shared.clone(), all_done.clone());
    parts.spawn(async move {
        // Until the last end is written: jobs that wind down are still held.
        shared.leases.keep(shared.db.clone(), shared.lease(), all_done).await;
        "leases"
    });
    Ok(parts)
}

/// Runs each handler as a task of its own, which ends when nobody waits for it any more.
fn spawn<F>(handler: F) -> AbortOnDropHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    AbortOnDropHandle::new(tokio::spawn(handler))
}

/// A handler's panic, as the error of its attempt.
#[derive(Debug)]
struct Panicked(String);

impl std::fmt::Display for Panicked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "The handler panicked: {}", self.0)
    }
}

impl std::error::Error for Panicked {}

fn panicked(payload: &Box<dyn Any + Send>) -> Panicked {
    let message = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    Panicked(message.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned()))
}

/// A name that no other worker has, and that tells an operator where to look.
fn name() -> String {
    let unique = uuid::Uuid::new_v4().simple().to_string();
    format!("{}-{}", telemetry::process_name(), &unique[..6])
}
