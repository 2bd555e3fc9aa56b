//! From the ledger to Redis. Every worker runs a relay and a reconciler; that there are several does no harm.
//!
//! The relay moves due jobs from `waiting` to `dispatched` and adds their ids to the sorted set of their queue. A
//! notification wakes it when a job is enqueued, a claim when there was no room before, and otherwise the clock.
//! The reconciler sets right what went wrong elsewhere: it takes back jobs whose worker is gone, and adds the ids again that
//! Redis should have. Adding an id that is there changes nothing, so it need not know what Redis forgot, or why.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mdl::instruments;
use mdl::jobs::JobState;
use mdl::jobs::dispatch::{self, Due};
use mdl::jobs::{batches, ledger};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::Shared;
use crate::link::{Link, Outage, RETRY};
use crate::queue::member;

/// How long a due job can go unnoticed when the notification was lost.
const POLL: Duration = Duration::from_secs(1);

/// The least time between two rounds, so that a thousand notifications are one round.
const PAUSE: Duration = Duration::from_millis(10);

/// How often the reconciler looks. With the lease, this is how long a killed worker's job lies still.
const RECONCILE: Duration = Duration::from_secs(3);

/// How long a dispatched job may be unclaimed before its id is added again.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// How long Redis may take to answer.
const REDIS_TIMEOUT: Duration = Duration::from_secs(2);

/// What wakes the relay.
#[derive(Default)]
pub struct Wake {
    notify: Notify,
    /// Due jobs wait for room in Redis.
    backlog: AtomicBool,
}

impl Wake {
    /// A job may be due.
    pub fn due(&self) {
        self.notify.notify_one();
    }

    /// Jobs were claimed, which made room.
    pub fn room(&self) {
        if self.backlog.load(Ordering::Relaxed) {
            self.notify.notify_one();
        }
    }
}

/// Relays until told to stop.
pub fn relay(shared: Shared) -> redis::RedisResult<impl Future<Output = ()> + Send> {
    let redis = Link::new(&shared.app.config.redis, REDIS_TIMEOUT)?;
    Ok(keep_relaying(shared, redis))
}

async fn keep_relaying(shared: Shared, mut redis: Link) {
    let mut outage = Outage::of("move due jobs to their queues");
    let mut redis_outage = Outage::of("put jobs into Redis");
    // Whether ids are missing in Redis because it did not answer.
    let mut owed = false;
    loop {
        let wait = match round(&shared).await {
            Ok(round) => {
                outage.over();
                let sent = round.due.iter().flat_map(|(_, due)| due);
                shared.news.tell(sent.map(|job| (job.tenant_id, job.id)));
                match push(&shared, &mut redis, &round.due).await {
                    Ok(_) => redis_outage.over(),
                    Err(error) => {
                        redis_outage.failed(&error);
                        owed = true;
                    }
                }
                round.wait
            }
            Err(error) => {
                outage.failed(&error);
                RETRY
            }
        };
        if owed && let Ok(_added) = add_again(&shared, &mut redis, Duration::ZERO).await {
            redis_outage.over();
            owed = false;
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.wake.notify.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

struct Round {
    due: Vec<(&'static str, Vec<Due>)>,
    /// Until the next round, if nothing happens before.
    wait: Duration,
}

async fn round(shared: &Shared) -> mdl::Result<Round> {
    let window = shared.app.config.worker.queue_window;
    let tx = shared.db.dispatch_by_index().await?;
    dispatch::settle_settings(&tx).await?;
    let mut due = Vec::new();
    for queue in shared.queues() {
        due.push((queue, dispatch::dispatch(&tx, queue, window).await?));
    }
    let next = dispatch::next_due(&tx, &shared.queues(), POLL).await?;
    tx.commit().await?;
    let backlog = next.is_some_and(|next| next.is_zero());
    shared.wake.backlog.store(backlog, Ordering::Relaxed);
    Ok(Round { due, wait: next.filter(|next| !next.is_zero()).unwrap_or(POLL) })
}

/// Rescues what others left behind, until told to stop.
pub fn reconcile(shared: Shared) -> redis::RedisResult<impl Future<Output = ()> + Send> {
    let redis = Link::new(&shared.app.config.redis, REDIS_TIMEOUT)?;
    Ok(keep_reconciling(shared, redis))
}

async fn keep_reconciling(shared: Shared, mut redis: Link) {
    let mut outage = Outage::of("look after the jobs of dead workers");
    let mut redis_outage = Outage::of("look after the jobs that Redis forgot");
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(RECONCILE) => {}
        }
        match rescue(&shared).await {
            Ok(()) => outage.over(),
            Err(error) => outage.failed(&error),
        }
        match add_again(&shared, &mut redis, FORGOTTEN).await {
            Ok(0) => redis_outage.over(),
            Ok(added) => {
                redis_outage.over();
                info!("Put {added} jobs back into Redis");
                metrics::counter!(instruments::JOBS_RESCUED, "from" => "redis").increment(added);
            }
            Err(error) => redis_outage.failed(&error),
        }
    }
}

async fn rescue(shared: &Shared) -> mdl::Result<()> {
    let tx = shared.db.dispatch_by_index().await?;
    let rescued = ledger::rescue(&tx).await?;
    batches::release(&tx, None).await?;
    tx.commit().await?;
    for job in &rescued {
        let reason = job.last_error.as_deref().unwrap_or_default();
        match job.state {
            JobState::Dead => error!(job.id = %job.id, job.kind, reason, "A job is dead: its last attempt lost its worker"),
            _ => warn!(job.id = %job.id, job.kind, reason, "Rescued a job that lost its worker"),
        }
    }
    if !rescued.is_empty() {
        metrics::counter!(instruments::JOBS_RESCUED, "from" => "worker").increment(rescued.len() as u64);
        shared.wake.due();
        shared.news.tell(rescued.iter().map(|job| (job.tenant_id, job.id)));
    }
    Ok(())
}

/// Adds the ids of all jobs to Redis that were dispatched longer than `age` ago. Answers how many were not there.
async fn add_again(shared: &Shared, redis: &mut Link, age: Duration) -> mdl::Result<u64> {
    let tx = shared.db.dispatch_by_index().await?;
    let mut jobs = Vec::new();
    for queue in shared.queues() {
        jobs.push((queue, dispatch::dispatched(&tx, queue, age, shared.app.config.worker.queue_window).await?));
    }
    tx.commit().await?;
    push(shared, redis, &jobs).await
}

/// Adds ids to Redis. Answers how many were not there.
async fn push(shared: &Shared, redis: &mut Link, jobs: &[(&'static str, Vec<Due>)]) -> mdl::Result<u64> {
    let mut added = 0;
    for (queue, jobs) in jobs.iter().filter(|(_, jobs)| !jobs.is_empty()) {
        let mut command = redis::cmd("ZADD");
        command.arg(shared.queue_key(queue)).arg("NX");
        for job in jobs {
            command.arg(score(job.priority, job.turn)).arg(member(job.tenant_id, job.id));
        }
        added += redis.query::<u64>(&command).await?;
    }
    Ok(added)
}

/// The order in which Redis gives ids out, least first: by priority, greatest first, then by turn. Ids of one turn are ordered by
/// themselves, and so by when they were made.
fn score(priority: i16, turn: i64) -> f64 {
    // A score holds whole numbers of 53 bits: 16 for the priority, 37 for the turn. Turns begin at 0 whenever a queue is empty.
    const TURNS: i64 = 1 << 37;
    f64::from(priority) * -(TURNS as f64) + turn.clamp(0, TURNS - 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greater_priority_goes_first_then_the_earlier_turn() {
        assert!(score(1, 9) < score(0, 1));
        assert!(score(0, 1) < score(0, 2));
        assert!(score(0, 2) < score(-1, 1));
        for priority in [i16::MIN, i16::MAX] {
            let last = (1 << 37) - 1;
            assert!(score(priority, last - 1) < score(priority, last), "no precision is lost at priority {priority}");
        }
    }
}
