//! How often one may ask: per credential, without one per address, and for sign-in per address.
//!
//! Counted in this process: behind several instances the limits are as many times higher. A limiter forgets keys that have
//! been quiet long enough to be as good as new.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use mdl::config::HttpConfig;
use mdl::ids::TenantId;
use mdl::{Actor, instruments};
use metrics::counter;
use uuid::Uuid;

/// Keys that were quiet are forgotten this often, and earlier when there are many.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const SWEEP_EARLY: Duration = Duration::from_secs(1);
const MANY_KEYS: usize = 100_000;

/// The limits of this process.
pub struct RateLimits {
    actors: Limiter<(TenantId, Uuid)>,
    strangers: Limiter<IpAddr>,
    sign_ins: Limiter<IpAddr>,
}

/// Too many requests; worth trying again after this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    pub retry_after: Duration,
}

impl Limited {
    /// The value of `Retry-After`: whole seconds, at least one.
    pub fn retry_after_seconds(&self) -> u64 {
        self.retry_after.as_millis().div_ceil(1000).max(1) as u64
    }
}

impl RateLimits {
    pub fn new(config: &HttpConfig) -> Self {
        let per_second = Quota::per_second(at_least_one(config.rate_limit_per_second));
        let requests = per_second.allow_burst(at_least_one(config.rate_limit_burst));
        Self {
            actors: Limiter::new("requests", requests),
            strangers: Limiter::new("anonymous_requests", requests),
            sign_ins: Limiter::new("sign_ins", Quota::per_minute(at_least_one(config.sign_in_limit_per_minute))),
        }
    }

    /// Charges a request to its user or API key, or without a credential to the client's address (see [`client_address`]).
    pub fn check_request(&self, actor: Option<&Actor>, address: IpAddr) -> Result<(), Limited> {
        match actor {
            Some(actor) => self.actors.check(&(actor.tenant, actor.id())),
            None => self.strangers.check(&network(address)),
        }
    }

    /// Charges a request to its user or API key, if that is within their limit. One that is not counts as refused only when it
    /// is checked once more.
    pub fn allow(&self, actor: &Actor) -> bool {
        self.actors.allow(&(actor.tenant, actor.id()))
    }

    /// Charges an attempt at a password to the client's address.
    pub fn check_sign_in(&self, address: IpAddr) -> Result<(), Limited> {
        self.sign_ins.check(&network(address))
    }
}

/// The address of the client: the peer's, or behind a proxy that is trusted to set it, the last entry of `X-Forwarded-For`
/// (earlier entries are what the client claims).
pub fn client_address(headers: &HeaderMap, peer: SocketAddr, trust_forwarded_for: bool) -> IpAddr {
    let forwarded = || {
        let last = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?.rsplit(',').next()?.trim();
        last.parse().ok().or_else(|| last.parse::<SocketAddr>().ok().map(|address| address.ip()))
    };
    let address: IpAddr = if trust_forwarded_for { forwarded().unwrap_or(peer.ip()) } else { peer.ip() };
    address.to_canonical()
}

/// One limit, with a count for each key.
struct Limiter<K: Clone + Hash + Eq> {
    name: &'static str,
    counts: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
    last_sweep: Mutex<Instant>,
}

impl<K: Clone + Hash + Eq> Limiter<K> {
    fn new(name: &'static str, quota: Quota) -> Self {
        Self { name, counts: RateLimiter::keyed(quota), clock: DefaultClock::default(), last_sweep: Mutex::new(Instant::now()) }
    }

    fn allow(&self, key: &K) -> bool {
        self.sweep();
        self.counts.check_key(key).is_ok()
    }

    fn check(&self, key: &K) -> Result<(), Limited> {
        self.sweep();
        self.counts.check_key(key).map_err(|until| {
            counter!(instruments::RATE_LIMITED, "limit" => self.name).increment(1);
            Limited { retry_after: until.wait_time_from(self.clock.now()) }
        })
    }

    /// Forgets quiet keys when it is time. Nobody waits for somebody else's sweep.
    fn sweep(&self) {
        let Ok(mut last) = self.last_sweep.try_lock() else { return };
        let elapsed = last.elapsed();
        if elapsed >= SWEEP_EVERY || (elapsed >= SWEEP_EARLY && self.counts.len() > MANY_KEYS) {
            self.counts.retain_recent();
            self.counts.shrink_to_fit();
            *last = Instant::now();
        }
    }
}

/// Of an IPv6 address only the network counts: its holder has all addresses in it.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

fn at_least_one(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const HERE: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    fn limits(arguments: &[&str]) -> RateLimits {
        let arguments = ["test"].iter().chain(arguments);
        RateLimits::new(&mdl::config::Config::from_arguments(arguments).unwrap().http)
    }

    #[test]
    fn counts_each_actor() {
        let limits = limits(&["--rate-limit-per-second", "1", "--rate-limit-burst", "3"]);
        let (one, other) = (Actor::system(TenantId::new()), Actor::system(TenantId::new()));
        let (start, mut allowed) = (Instant::now(), 0);
        let limited = loop {
            match limits.check_request(Some(&one), HERE) {
                Ok(()) => allowed += 1,
                Err(limited) => break limited,
            }
        };
        // One more for each second that this took.
        assert!((3..=3 + start.elapsed().as_secs()).contains(&allowed), "{allowed}");
        assert!(limited.retry_after > Duration::ZERO && limited.retry_after <= Duration::from_secs(1), "{limited:?}");
        assert_eq!(limited.retry_after_seconds(), 1);
        assert_eq!(limits.check_request(Some(&other), HERE), Ok(()));
    }

    #[test]
    fn counts_sign_ins_by_network() {
        let limits = limits(&["--sign-in-limit-per-minute", "2"]);
        let check = |address: &str| limits.check_sign_in(address.parse().unwrap());
        assert_eq!([check("192.0.2.1"), check("192.0.2.1")], [Ok(()), Ok(())]);
        assert!(check("192.0.2.1").unwrap_err().retry_after_seconds() <= 30);
        assert_eq!(check("192.0.2.2"), Ok(()));
        assert_eq!([check("2001:db8::1"), check("2001:db8::2")], [Ok(()), Ok(())]);
        assert!(check("2001:db8::3").is_err());
        assert_eq!(check("2001:db8:0:1::1"), Ok(()));
    }

    #[test]
    fn forgets_quiet_keys() {
        let limits = limits(&["--rate-limit-per-second", "1000", "--rate-limit-burst", "1"]);
        for _ in 0..1000 {
            assert_eq!(limits.check_request(Some(&Actor::system(TenantId::new())), HERE), Ok(()));
        }
        std::thread::sleep(Duration::from_millis(20));
        *limits.actors.last_sweep.lock().unwrap() = Instant::now() - SWEEP_EVERY;
        assert_eq!(limits.check_request(Some(&Actor::system(TenantId::new())), HERE), Ok(()));
        assert!(limits.actors.counts.len() <= 1);
    }

    #[test]
    fn believes_the_proxy_only_when_told_to() {
        let peer: SocketAddr = "10.0.0.1:1234".parse().unwrap();
        let from = |values: &[&'static str], trust: bool| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-forwarded-for", HeaderValue::from_static(value));
            }
            client_address(&headers, peer, trust).to_string()
        };
        assert_eq!(from(&["192.0.2.9"], false), "10.0.0.1");
        assert_eq!(from(&["203.0.113.5, 192.0.2.9"], true), "192.0.2.9");
        assert_eq!(from(&["203.0.113.5", "192.0.2.9:4711"], true), "192.0.2.9");
        assert_eq!(from(&["::ffff:192.0.2.9"], true), "192.0.2.9");
        assert_eq!(from(&["nonsense"], true), "10.0.0.1");
        assert_eq!(from(&[], true), "10.0.0.1");
    }
}
