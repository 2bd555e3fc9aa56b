//! Leaves hosts alone that do not answer, for each tenant by itself: what one of them sends to, or how it has that answered, holds
//! up nobody else's.
//!
//! An answer of any kind is one, an error too: a receiver that fails quickly holds nobody up. After [`TOLERATED`] requests in
//! a row without an answer, nothing is sent to the host for a while; then one request finds out whether it is back. Meanwhile
//! its deliveries wait, and no attempt of theirs is used up.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mdl::ids::TenantId;

/// Requests in a row without an answer.
const TOLERATED: u32 = 5;
/// How long a host is left alone first; twice as long after each attempt in vain, up to the longest.
const FIRST_REST: Duration = Duration::from_secs(10);
const LONGEST_REST: Duration = Duration::from_secs(300);

/// Host and port, as one tenant sends to them.
pub type Host = (TenantId, String);

/// All hosts whose last request was not answered.
#[derive(Debug, Default)]
pub struct Breakers(HashMap<Host, Breaker>);

#[derive(Debug, Default)]
struct Breaker {
    unanswered: u32,
    rest: Duration,
    until: Option<Instant>,
}

/// How many requests may be under way to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// As many as there are.
    Free,
    /// One, to see whether it answers.
    One,
    /// None.
    Rest,
}

impl Breakers {
    pub fn may_try(&self, host: &Host, now: Instant) -> Trial {
        match self.0.get(host) {
            None | Some(Breaker { until: None, .. }) => Trial::Free,
            Some(Breaker { until: Some(until), .. }) if *until > now => Trial::Rest,
            Some(_) => Trial::One,
        }
    }

    /// Learns whether a request was answered.
    pub fn tell(&mut self, host: &Host, answered: bool, now: Instant) {
        if answered {
            self.0.remove(host);
            return;
        }
        let breaker = self.0.entry(host.clone()).or_default();
        breaker.unanswered += 1;
        // Those that were under way already when it was opened say nothing new.
        let resting = breaker.until.is_some_and(|until| until > now);
        if breaker.unanswered >= TOLERATED && !resting {
            breaker.rest = (breaker.rest * 2).clamp(FIRST_REST, LONGEST_REST);
            breaker.until = Some(now + breaker.rest);
        }
    }

    /// How many hosts are left alone; one to which two tenants send is two.
    pub fn open(&self, now: Instant) -> usize {
        self.0.values().filter(|breaker| breaker.until.is_some_and(|until| until > now)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Host {
        (TenantId::new(), name.to_owned())
    }

    #[test]
    fn a_silent_host_rests_and_is_tried_again() {
        let mut breakers = Breakers::default();
        let start = Instant::now();
        let a = host("a");
        for _ in 0..TOLERATED {
            assert_eq!(breakers.may_try(&a, start), Trial::Free);
            breakers.tell(&a, false, start);
        }
        assert_eq!(breakers.may_try(&a, start), Trial::Rest);
        assert_eq!(breakers.may_try(&(a.0, "b".to_owned()), start), Trial::Free);
        assert_eq!(breakers.may_try(&host("a"), start), Trial::Free, "another tenant's");
        breakers.tell(&a, false, start);
        let later = start + FIRST_REST;
        assert_eq!((breakers.may_try(&a, later), breakers.open(later)), (Trial::One, 0), "late failures do not prolong it");

        breakers.tell(&a, false, later);
        assert_eq!(breakers.may_try(&a, later + FIRST_REST), Trial::Rest, "in vain: twice as long");
        assert_eq!(breakers.open(later), 1);
        let last = later + 2 * FIRST_REST;
        assert_eq!(breakers.may_try(&a, last), Trial::One);
        breakers.tell(&a, true, last);
        assert_eq!(breakers.may_try(&a, last), Trial::Free);
    }

    #[test]
    fn one_answer_in_between_is_enough() {
        let mut breakers = Breakers::default();
        let (a, now) = (host("a"), Instant::now());
        for _ in 0..20 {
            breakers.tell(&a, false, now);
            breakers.tell(&a, true, now);
        }
        assert_eq!(breakers.may_try(&a, now), Trial::Free);
    }
}
