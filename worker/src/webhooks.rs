//! The courier: sends what is owed to webhook endpoints.
//!
//! It goes round: looks which endpoints something is due for, gives each its share of the free places ([`shares`]), claims so
//! many deliveries, sends each as a task of its own ([`send`]), and has what came of them written down, several at once
//! ([`record`]). For endpoints that answer quickly it claims ahead; what does not begin soon after all goes back. A notification
//! wakes it when something is owed, a place that becomes free for which somebody waits, and otherwise the clock. Hosts that do not
//! answer are left alone for a while ([`breaker`]).
//!
//! Several workers share the work through the rows they lock. One that dies leaves claims that end by themselves, after which
//! the deliveries are sent again, by whomever.

mod breaker;
mod record;
mod send;
mod shares;
mod upkeep;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mdl::ids::WebhookEndpointId;
use mdl::instruments;
use mdl::outbound::Guard;
use mdl::webhooks::ledger::{self, Claimed, Share};
use mdl::webhooks::secrets;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::Shared;
use crate::link::{Outage, RETRY};
use breaker::{Breakers, Host};
use record::Sent;
use send::{Receiver, Sender};
use shares::{Places, Turn};

/// How long something can be due unnoticed: when the notification was lost, or when a retry's time comes.
const POLL: Duration = Duration::from_secs(1);
/// The least time between two rounds, so that many notifications, and many places that become free, are one round.
const PAUSE: Duration = Duration::from_millis(10);
/// After a look that took long, how many times as long it rests, so that many waiting endpoints do not keep PostgreSQL busy.
const REST: u32 = 2;
/// How long a delivery that was claimed ahead waits for its beginning.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sends until told to stop, and then ends what is under way.
pub fn courier(shared: Shared) -> mdl::Result<impl Future<Output = ()> + Send> {
    let guard = Guard::new(&shared.app.config.webhooks.allow);
    let sender = Sender::new(&shared.app, guard)?;
    Ok(run(shared, sender))
}

/// Who shares what while requests are under way.
#[derive(Clone)]
struct Courier {
    shared: Shared,
    sender: Sender,
    state: Arc<Mutex<State>>,
    sent: UnboundedSender<Sent>,
    unbegun: UnboundedSender<Claimed>,
    tasks: TaskTracker,
}

#[derive(Default)]
struct State {
    places: Places,
    breakers: Breakers,
}

async fn run(shared: Shared, sender: Sender) {
    let (sent, to_record) = unbounded_channel();
    let (unbegun, to_hand_back) = unbounded_channel();
    let recorder = tokio::spawn(record::record(to_record, shared.clone()));
    let returner = tokio::spawn(record::hand_back(to_hand_back, shared.clone()));
    let upkeep = tokio::spawn(upkeep::upkeep(shared.clone()));
    let courier = Courier { shared: shared.clone(), sender, state: Arc::default(), sent, unbegun, tasks: TaskTracker::new() };
    courier.go_round().await;
    courier.tasks.close();
    let grace = Duration::from_secs(shared.app.config.worker.grace_seconds);
    // What does not end in time is sent again when its claim has ended.
    let _in_time = tokio::time::timeout(grace, courier.tasks.wait()).await;
    drop(courier);
    let _ended = tokio::join!(recorder, returner, upkeep);
}

impl Courier {
    async fn go_round(&self) {
        let stop = &self.shared.stop;
        let mut outage = Outage::of("take webhooks that are due");
        let mut last = Instant::now();
        while !stop.is_cancelled() {
            let start = Instant::now();
            let since = start - std::mem::replace(&mut last, start);
            let (looked, wait) = match self.round(since).await {
                Ok(looked) => {
                    outage.over();
                    (looked, POLL)
                }
                Err(error) => {
                    outage.failed(&error);
                    (start.elapsed(), RETRY)
                }
            };
            let rest = PAUSE.max(looked * REST);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.shared.webhooks.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Claims what there are places for, and begins to send it. The last round was so long ago. Answers how long it took to look.
    async fn round(&self, since: Duration) -> mdl::Result<Duration> {
        let settings = &self.shared.app.config.webhooks;
        let tx = ledger::begin(&self.shared.db).await?;
        let each = settings.endpoint_concurrency as usize;
        // One more than an endpoint can get, to know whether some are left.
        let most = self.state().places.begin_round(since, each);
        let start = Instant::now();
        let waiting = ledger::waiting(&tx, most + 1).await?;
        let looked = start.elapsed();
        let mut shares = {
            let mut state = self.state();
            let now = Instant::now();
            let State { places, breakers } = &mut *state;
            metrics::gauge!(instruments::WEBHOOK_BREAKERS_OPEN).set(breakers.open(now) as f64);
            let limits = shares::Limits { places: settings.concurrency as usize, each };
            places.shares(&waiting, limits, |host| breakers.may_try(host, now))
        };
        let limited = |share: &Share| waiting.iter().any(|one| one.endpoint_id == share.endpoint_id && one.rate_limited);
        let (with_limit, mut granted): (Vec<Share>, Vec<Share>) = shares.drain(..).partition(limited);
        if !with_limit.is_empty() {
            granted.extend(ledger::within_rate_limits(&tx, &with_limit).await?);
        }
        if granted.is_empty() {
            tx.commit().await?;
            return Ok(looked);
        }
        let claimed = ledger::claim(&tx, &granted, settings.lease()).await?;
        let mut ids: Vec<WebhookEndpointId> = claimed.iter().map(|delivery| delivery.endpoint_id).collect();
        ids.sort_unstable();
        ids.dedup();
        let endpoints = ledger::endpoints(&tx, &ids).await?;
        let secrets = secrets::valid(&tx, &ids).await?;
        tx.commit().await?;

        let receivers: HashMap<_, _> = endpoints
            .into_iter()
            .map(|endpoint| {
                let id = endpoint.id;
                let secrets = secrets.iter().filter(|secret| secret.endpoint_id == id);
                (id, Arc::new(Receiver::open(&self.shared.app, endpoint, secrets)))
            })
            .collect();
        for delivery in claimed {
            // An endpoint that is gone by now took its deliveries with it.
            let Some(receiver) = receivers.get(&delivery.endpoint_id) else { continue };
            metrics::histogram!(instruments::WEBHOOK_WAIT_SECONDS).record(delivery.waited_seconds);
            let (place, turn) = Place::take(self.clone(), &delivery, receiver.host());
            self.begin(delivery, receiver.clone(), place, turn);
        }
        Ok(looked)
    }

    fn begin(&self, delivery: Claimed, receiver: Arc<Receiver>, place: Place, turn: Turn) {
        let courier = self.clone();
        let span = send::span(&delivery);
        let work = async move {
            let permit = tokio::select! {
                biased;
                () = turn.go_back.cancelled() => None,
                permit = turn.permits.acquire() => permit.ok(),
                () = courier.shared.stop.cancelled() => None,
                () = tokio::time::sleep(PATIENCE) => None,
            };
            let Some(_permit) = permit else {
                drop(place);
                let _handed_back = courier.unbegun.send(delivery);
                return;
            };
            let sent = courier.sender.send(delivery, &receiver).await;
            {
                let mut state = courier.state();
                state.breakers.tell(&receiver.host(), sent.answered(), Instant::now());
                state.places.ended(sent.ended.endpoint_id, sent.ended.failure.is_none());
            }
            drop(place);
            // The recorder outlives all of these.
            let _recorded = courier.sent.send(sent);
        };
        self.tasks.spawn(work.instrument(span));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every statement, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the requests that may be under way or about to be, until it is dropped.
struct Place {
    courier: Courier,
    endpoint: WebhookEndpointId,
    host: Host,
}

impl Place {
    /// With what lets the request begin.
    fn take(courier: Courier, delivery: &Claimed, host: Host) -> (Self, Turn) {
        let endpoint = delivery.endpoint_id;
        let each = courier.shared.app.config.webhooks.endpoint_concurrency as usize;
        let turn = courier.state().places.take(endpoint, &host, each);
        (Self { courier, endpoint, host }, turn)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.courier.state().places.free(self.endpoint, &self.host) {
            self.courier.shared.webhooks.notify_one();
        }
    }
}
