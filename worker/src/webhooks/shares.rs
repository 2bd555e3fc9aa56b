//! Who gets the free places: tenants in turn, and of each tenant its endpoints in turn.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mdl::ids::{TenantId, WebhookEndpointId};
use mdl::webhooks::ledger::{Share, Waiting};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::breaker::{Host, Trial};
use crate::ahead::soon;

/// How many are claimed ahead for an endpoint, at most, for each that may be under way.
const MOST_AHEAD: usize = 3;

/// How many requests may be under way at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// With those that are claimed ahead.
    pub places: usize,
    /// Of one endpoint.
    pub each: usize,
}

/// Requests under way, and those that are about to be.
#[derive(Debug, Default)]
pub struct Places {
    endpoints: HashMap<WebhookEndpointId, Taken>,
    hosts: HashMap<Host, usize>,
    /// Requests that succeeded since the last round.
    done: HashMap<WebhookEndpointId, usize>,
    /// How many more are claimed for an endpoint in this round: as many as will be done soon, by the last. One that answers quickly
    /// would otherwise wait for the ledger most of the time.
    ahead: HashMap<WebhookEndpointId, usize>,
    taken: usize,
    /// All places were taken in the last round, and somebody would have liked one.
    short: bool,
    /// Endpoints for which more was due in the last round than they may have under way.
    full: HashSet<WebhookEndpointId>,
    /// Where the next round begins, so that nobody is always last.
    turn: usize,
}

/// Places of one endpoint.
#[derive(Debug)]
struct Taken {
    count: usize,
    turn: Turn,
}

/// What lets requests to an endpoint begin.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Those that may be under way.
    pub permits: Arc<Semaphore>,
    /// One has failed: those that have not begun go back.
    pub go_back: CancellationToken,
}

impl Places {
    /// Takes a place. Its request begins in its turn.
    pub fn take(&mut self, endpoint: WebhookEndpointId, host: &Host, each: usize) -> Turn {
        let first = || Turn { permits: Arc::new(Semaphore::new(each)), go_back: CancellationToken::new() };
        let taken = self.endpoints.entry(endpoint).or_insert_with(|| Taken { count: 0, turn: first() });
        taken.count += 1;
        *self.hosts.entry(host.clone()).or_default() += 1;
        self.taken += 1;
        taken.turn.clone()
    }

    /// Notes how a request ended.
    pub fn ended(&mut self, endpoint: WebhookEndpointId, well: bool) {
        if well {
            *self.done.entry(endpoint).or_default() += 1;
            return;
        }
        self.done.remove(&endpoint);
        if let Some(taken) = self.endpoints.get_mut(&endpoint) {
            std::mem::take(&mut taken.turn.go_back).cancel();
        }
    }

    /// Begins a round, so long after the last. Answers how many deliveries an endpoint gets in it, at most.
    pub fn begin_round(&mut self, since: Duration, each: usize) -> usize {
        self.ahead = self.done.drain().map(|(endpoint, done)| (endpoint, soon(done, since, MOST_AHEAD * each))).collect();
        each + self.ahead.values().copied().max().unwrap_or(0)
    }

    /// Whether somebody waits for this place.
    ///
    /// What is due for endpoints that fail, or whose host does not answer, waits for its time: looking each time that a request to
    /// somebody else ends would cost all others, and find the same again.
    pub fn free(&mut self, endpoint: WebhookEndpointId, host: &Host) -> bool {
        self.taken -= 1;
        if let Some(taken) = self.endpoints.get_mut(&endpoint) {
            taken.count -= 1;
            if taken.count == 0 {
                self.endpoints.remove(&endpoint);
            }
        }
        if let Some(count) = self.hosts.get_mut(host) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(host);
            }
        }
        self.short || self.full.contains(&endpoint)
    }

    /// Shares the free places out. An endpoint gets no more than is due for it; one that fails, one at a time, and all that
    /// fail together no more than half of the places; a host that does not answer gets as much as `trial` says.
    pub fn shares(&mut self, waiting: &[Waiting], limits: Limits, trial: impl Fn(&Host) -> Trial) -> Vec<Share> {
        let mut free = limits.places.saturating_sub(self.taken);
        let mut free_for_failing = free.saturating_sub(limits.places / 2);
        let mut tried: HashMap<Host, usize> = HashMap::new();
        let mut tenants: BTreeMap<TenantId, VecDeque<Candidate>> = BTreeMap::new();
        self.full.clear();
        for endpoint in waiting {
            let ahead = self.ahead.get(&endpoint.endpoint_id).copied().unwrap_or(0);
            let most = match endpoint {
                Waiting { failing: true, .. } => 1,
                // What goes back has used up a part of the limit.
                Waiting { rate_limited: true, .. } => limits.each,
                _ => limits.each + ahead,
            };
            let under_way = self.endpoints.get(&endpoint.endpoint_id).map_or(0, |taken| taken.count);
            let due = usize::try_from(endpoint.due).unwrap_or(0);
            let mut room = most.saturating_sub(under_way).min(due);
            let host = (endpoint.tenant_id, endpoint.url.host());
            match trial(&host) {
                Trial::Free if due > room && !endpoint.failing => {
                    self.full.insert(endpoint.endpoint_id);
                }
                Trial::Free => {}
                Trial::Rest => room = 0,
                Trial::One => {
                    let of_host = tried.entry(host.clone()).or_insert_with(|| self.hosts.get(&host).copied().unwrap_or(0));
                    room = room.min(1usize.saturating_sub(*of_host));
                    *of_host += room;
                }
            }
            if room > 0 {
                let candidate = Candidate { endpoint: endpoint.endpoint_id, failing: endpoint.failing, room };
                tenants.entry(endpoint.tenant_id).or_default().push_back(candidate);
            }
        }
        self.turn = self.turn.wrapping_add(1);
        let mut turns: VecDeque<VecDeque<Candidate>> = tenants.into_values().collect();
        for endpoints in &mut turns {
            endpoints.rotate_left(self.turn % endpoints.len().max(1));
        }
        turns.rotate_left(self.turn % turns.len().max(1));

        let mut counts: BTreeMap<WebhookEndpointId, i64> = BTreeMap::new();
        while free > 0
            && let Some(mut endpoints) = turns.pop_front()
        {
            let Some(mut next) = endpoints.pop_front() else { continue };
            if !next.failing || free_for_failing > 0 {
                free -= 1;
                free_for_failing -= usize::from(next.failing);
                *counts.entry(next.endpoint).or_default() += 1;
                next.room -= 1;
                if next.room > 0 {
                    endpoints.push_back(next);
                }
            }
            turns.push_back(endpoints);
        }
        self.short = turns.iter().any(|endpoints| !endpoints.is_empty());
        counts.into_iter().map(|(endpoint_id, count)| Share { endpoint_id, count }).collect()
    }
}

/// An endpoint that may get more.
struct Candidate {
    endpoint: WebhookEndpointId,
    failing: bool,
    room: usize,
}

#[cfg(test)]
mod tests {
    use mdl::outbound::Guard;
    use mdl::webhooks::WebhookUrl;

    use super::*;
    use crate::ahead::MOMENT;

    const LIMITS: Limits = Limits { places: 10, each: 4 };

    fn waiting(tenant: TenantId, due: i64) -> Waiting {
        let endpoint_id = WebhookEndpointId::new();
        let url = WebhookUrl::parse(&format!("https://{}.example/", endpoint_id.0.simple()), &Guard::new(&[])).unwrap();
        Waiting { tenant_id: tenant, endpoint_id, url, failing: false, rate_limited: false, due }
    }

    fn host() -> Host {
        (TenantId::new(), "host".to_owned())
    }

    fn counts(waiting: &[Waiting], shares: &[Share]) -> Vec<i64> {
        let of = |one: &Waiting| shares.iter().find(|share| share.endpoint_id == one.endpoint_id).map_or(0, |share| share.count);
        waiting.iter().map(of).collect()
    }

    #[test]
    fn tenants_take_turns_however_many_endpoints_they_have() {
        let (large, small) = (TenantId::new(), TenantId::new());
        let mut all: Vec<_> = (0..20).map(|_| waiting(large, 100)).collect();
        all.extend([waiting(small, 100), waiting(small, 100)]);
        let shares = Places::default().shares(&all, LIMITS, |_| Trial::Free);
        let counts = counts(&all, &shares);
        assert_eq!(counts[..20].iter().sum::<i64>(), 5);
        assert_eq!(counts[20..].iter().sum::<i64>(), 5);
    }

    #[test]
    fn an_endpoint_gets_what_is_due_within_its_limit() {
        let tenant = TenantId::new();
        let (all, host) = ([waiting(tenant, 1), waiting(tenant, 100)], host());
        let mut places = Places::default();
        let shares = places.shares(&all, LIMITS, |_| Trial::Free);
        assert_eq!(counts(&all, &shares), [1, 4]);
        for _ in 0..3 {
            let _turns = places.take(all[1].endpoint_id, &host, LIMITS.each);
        }
        let shares = places.shares(&all, LIMITS, |_| Trial::Free);
        assert_eq!(counts(&all, &shares), [1, 1]);
        places.free(all[1].endpoint_id, &host);
        let shares = places.shares(&all, LIMITS, |_| Trial::Free);
        assert_eq!(counts(&all, &shares), [1, 2]);
    }

    #[test]
    fn an_endpoint_gets_as_many_more_as_it_will_soon_have_taken_well() {
        let mut all = [waiting(TenantId::new(), 100)];
        let endpoint = all[0].endpoint_id;
        let mut places = Places::default();
        let round = |places: &mut Places, done: usize, since: Duration, all: &[Waiting]| {
            (0..done).for_each(|_| places.ended(endpoint, true));
            let most = places.begin_round(since, 4);
            (most, counts(all, &places.shares(all, LIMITS, |_| Trial::Free))[0])
        };
        assert_eq!(round(&mut places, 3, MOMENT, &all), (7, 7));
        assert_eq!(round(&mut places, 0, MOMENT, &all), (4, 4), "by the last round only");
        assert_eq!(round(&mut places, 3, 10 * MOMENT, &all), (4, 4), "three in a long time are none in a short one");
        assert_eq!(round(&mut places, 100, MOMENT, &all), (16, 10), "no more than there are places");
        all[0].rate_limited = true;
        assert_eq!(round(&mut places, 3, MOMENT, &all), (7, 4));
    }

    #[test]
    fn those_that_have_not_begun_go_back_when_one_fails() {
        let (endpoint, host) = (WebhookEndpointId::new(), host());
        let mut places = Places::default();
        let before = places.take(endpoint, &host, 4);
        let _under_way = before.permits.try_acquire().unwrap();
        places.ended(endpoint, false);
        assert!(before.go_back.is_cancelled());
        let after = places.take(endpoint, &host, 4);
        assert!(!after.go_back.is_cancelled());
        assert_eq!(after.permits.available_permits(), 3, "and no more are under way at once than before");
    }

    #[test]
    fn a_place_is_wanted_by_those_who_can_use_it() {
        let tenant = TenantId::new();
        let (busy, idle) = (waiting(tenant, 9), waiting(tenant, 1));
        let failing = Waiting { failing: true, ..waiting(tenant, 9) };
        let (mut places, host) = (Places::default(), host());
        let mut round = |waiting: &[Waiting], limits: Limits, trial: Trial| {
            places.shares(waiting, limits, |_| trial);
            [&busy, &idle, &failing].map(|one| {
                let _turns = places.take(one.endpoint_id, &host, LIMITS.each);
                places.free(one.endpoint_id, &host)
            })
        };
        let all = [busy.clone(), idle.clone(), failing.clone()];
        assert_eq!(round(&all, LIMITS, Trial::Free), [true, false, false], "more is due for one than it may have under way");
        assert_eq!(round(&all, LIMITS, Trial::Rest), [false; 3], "its host does not answer");
        assert_eq!(round(&all, Limits { places: 1, each: 4 }, Trial::Free), [true; 3], "all places are taken");
        assert_eq!(round(&[], LIMITS, Trial::Free), [false; 3]);
    }

    #[test]
    fn those_that_fail_get_one_each_and_half_of_all_together() {
        let tenant = TenantId::new();
        let mut all: Vec<_> = (0..20).map(|_| Waiting { failing: true, ..waiting(tenant, 100) }).collect();
        let shares = Places::default().shares(&all, LIMITS, |_| Trial::Free);
        let failing = counts(&all, &shares);
        assert_eq!((failing.iter().sum::<i64>(), failing.iter().max()), (5, Some(&1)));
        all.push(waiting(tenant, 100));
        let shares = Places::default().shares(&all, LIMITS, |_| Trial::Free);
        assert_eq!(counts(&all, &shares)[20], 4);
    }

    #[test]
    fn hosts_that_do_not_answer_rest_or_get_one() {
        let tenant = TenantId::new();
        let mut all = [waiting(tenant, 9), waiting(tenant, 9), waiting(tenant, 9)];
        all[2].url = all[1].url.clone();
        let shares = Places::default().shares(&all, LIMITS, |_| Trial::Rest);
        assert_eq!(counts(&all, &shares), [0, 0, 0]);
        let mut places = Places::default();
        let shares = places.shares(&all, LIMITS, |_| Trial::One);
        assert_eq!(counts(&all, &shares), [1, 1, 0], "two endpoints of one host are one");
        let _turns = places.take(all[0].endpoint_id, &(tenant, all[0].url.host()), LIMITS.each);
        let shares = places.shares(&all, LIMITS, |_| Trial::One);
        assert_eq!(counts(&all, &shares), [0, 1, 0]);
        all[2].tenant_id = TenantId::new();
        let shares = places.shares(&all, LIMITS, |_| Trial::One);
        assert_eq!(counts(&all, &shares), [0, 1, 1], "and two tenants at one host are two");
    }
}
