//! The jobs that this worker holds, and the task that keeps holding them.
//!
//! Renewal does not depend on polling, on handlers or on Redis: one statement prolongs all leases, and answers which of them
//! are lost (the job is dropped, its result discarded) and which are to be cancelled.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mdl::db::Db;
use mdl::ids::{JobId, TenantId};
use mdl::instruments;
use mdl::jobs::ledger::{self, Claimed, Renewed};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::link::{Outage, RETRY};
use crate::queue::Place;

/// One job that this worker holds.
pub struct Held {
    pub tenant: TenantId,
    pub id: JobId,
    pub lease_token: i64,
    pub queue: &'static str,
    /// Somebody asked for it to be stopped; the handler is told.
    pub cancel: CancellationToken,
    /// It must end now, without the handler's consent: lost, or handed back.
    pub end_now: CancellationToken,
    lost: AtomicBool,
    ended: AtomicBool,
    /// Free again when the end is written.
    _place: Place,
}

impl Held {
    /// Whether it ended because another worker has it.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// From now on its lease may vanish without meaning anything: its end is being written.
    pub fn ended(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// All jobs that this worker holds.
#[derive(Default)]
pub struct Leases {
    held: Mutex<HashMap<(JobId, i64), Arc<Held>>>,
    look: Notify,
    /// What is claimed from now on goes back unstarted.
    handed_back: AtomicBool,
}

impl Leases {
    pub fn hold(&self, queue: &'static str, job: &Claimed, place: Place) -> Arc<Held> {
        let Claimed { tenant_id: tenant, id, lease_token, .. } = *job;
        let held = Arc::new(Held {
            tenant,
            id,
            lease_token,
            queue,
            cancel: CancellationToken::new(),
            end_now: CancellationToken::new(),
            lost: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            _place: place,
        });
        let mut all = self.lock();
        if self.handed_back.load(Ordering::Acquire) {
            held.end_now.cancel();
        }
        all.insert((id, lease_token), held.clone());
        drop(all);
        metrics::gauge!(instruments::JOBS_RUNNING, "queue" => queue).increment(1.0);
        held
    }

    /// Forgets a job whose end is written, or void.
    pub fn let_go(&self, held: &Held) {
        if self.lock().remove(&(held.id, held.lease_token)).is_some() {
            metrics::gauge!(instruments::JOBS_RUNNING, "queue" => held.queue).decrement(1.0);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Ends all running handlers, so that their jobs can be handed back. Returns how many there were.
    pub fn hand_back(&self) -> usize {
        let held = self.lock();
        self.handed_back.store(true, Ordering::Release);
        let running = held.values().filter(|held| !held.ended.load(Ordering::Acquire));
        running.map(|held| held.end_now.cancel()).count()
    }

    /// Makes the renewal look at once whether a job is to be cancelled.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// Renews the leases until told to stop: three times in the time of one lease.
    pub async fn keep(&self, db: Db, lease: Duration, stop: CancellationToken) {
        let mut outage = Outage::of("renew the leases of running jobs");
        let mut wait = lease / 3;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.look.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            let held: Vec<_> = self.lock().values().map(|held| (held.tenant, held.id, held.lease_token)).collect();
            wait = lease / 3;
            if held.is_empty() {
                continue;
            }
            match renew(&db, &held, lease).await {
                Ok(renewed) => {
                    outage.over();
                    self.renewed(&held, &renewed);
                }
                Err(error) => {
                    outage.failed(&error);
                    wait = RETRY;
                }
            }
        }
    }

    fn renewed(&self, asked: &[(TenantId, JobId, i64)], renewed: &[Renewed]) {
        let held = self.lock();
        for job in renewed.iter().filter(|job| job.cancel_requested) {
            if let Some(held) = held.get(&(job.id, job.lease_token))
                && !held.cancel.is_cancelled()
            {
                info!(job.id = %job.id, "Cancelling a job, as was asked for");
                held.cancel.cancel();
            }
        }
        let kept: HashSet<_> = renewed.iter().map(|job| (job.id, job.lease_token)).collect();
        let asked = asked.iter().map(|(_, id, lease_token)| (*id, *lease_token));
        for held in asked.filter(|job| !kept.contains(job)).filter_map(|job| held.get(&job)) {
            if !held.ended.load(Ordering::Acquire) {
                warn!(job.id = %held.id, "Lost the lease of a job; dropping it, since another worker may have it");
                held.lost.store(true, Ordering::Release);
                held.end_now.cancel();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(JobId, i64), Arc<Held>>> {
        // The map is whole after every statement, so a panic elsewhere does not spoil it.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn renew(db: &Db, held: &[(TenantId, JobId, i64)], lease: Duration) -> mdl::Result<Vec<Renewed>> {
    let tx = db.dispatch_by_index().await?;
    let renewed = ledger::renew(&tx, held, lease).await?;
    tx.commit().await?;
    Ok(renewed)
}
