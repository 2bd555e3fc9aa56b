//! Tells Redis which jobs have changed, for those who listen live.
//!
//! Nobody waits for it and nothing relies on it: what comes faster than Redis takes it is left out, and where nobody listens,
//! next to nothing is sent. Listeners ask PostgreSQL every two seconds themselves.

use std::time::{Duration, Instant};

use mdl::ids::{JobId, TenantId};
use mdl::jobs::live;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;

use crate::Shared;
use crate::link::{Link, Outage};

/// Batches of changes that wait to be told.
const QUEUE: usize = 256;
/// How long Redis may take.
const REDIS_PATIENCE: Duration = Duration::from_millis(500);
/// For how long nothing is told after nobody heard it. Shorter than listeners wait until they ask themselves.
const QUIET: Duration = Duration::from_secs(1);

/// Jobs that have changed, and whose they are.
pub type Batch = Vec<(TenantId, JobId)>;

/// Takes news of jobs. Cheap to clone.
#[derive(Clone)]
pub struct News(Sender<Batch>);

impl News {
    /// And what [`publish`] needs of it.
    pub fn new() -> (Self, Receiver<Batch>) {
        let (sender, told) = channel(QUEUE);
        (Self(sender), told)
    }

    /// These jobs have changed, and that is committed.
    pub fn tell(&self, changed: impl IntoIterator<Item = (TenantId, JobId)>) {
        let Ok(place) = self.0.try_reserve() else { return };
        let batch: Batch = changed.into_iter().collect();
        if !batch.is_empty() {
            place.send(batch);
        }
    }
}

/// Publishes what is told until told to stop.
pub fn publish(
    shared: &Shared,
    mut told: Receiver<Batch>,
    stop: CancellationToken,
) -> redis::RedisResult<impl Future<Output = ()> + Send + use<>> {
    let settings = &shared.app.config.redis;
    let (channel, mut redis) = (live::channel(&settings.prefix), Link::new(settings, REDIS_PATIENCE)?);
    Ok(async move {
        let mut outage = Outage::of("tell Redis of changed jobs");
        let mut unheard: Option<Instant> = None;
        let mut batches = Vec::new();
        while let Some(1..) = stop.run_until_cancelled(told.recv_many(&mut batches, QUEUE)).await {
            let changed = batches.drain(..).flatten();
            if unheard.is_some_and(|since| since.elapsed() < QUIET) {
                continue;
            }
            let changed: Batch = changed.collect();
            let mut heard = 0;
            for message in live::encode(&changed) {
                match redis.query::<u64>(redis::cmd("PUBLISH").arg(&channel).arg(message)).await {
                    Ok(listeners) => {
                        outage.over();
                        heard += listeners;
                    }
                    Err(error) => {
                        outage.failed(&error);
                        break;
                    }
                }
            }
            unheard = (heard == 0).then(Instant::now);
        }
    })
}
