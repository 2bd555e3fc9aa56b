//! Requests to addresses that users chose: only to the public internet, unless a setting allows more.
//!
//! A name is checked where it is resolved, for the very addresses that are then connected to: what it resolved to a moment
//! before does not matter. An address in a URL is never resolved, so [`Guard::check`] looks at it; it has to be called before
//! each request. The client follows no redirect and asks no proxy, either of which would go to where nobody has looked.

mod addresses;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect;
use url::{Host, Url};

use crate::error::{Error, Result};
pub use addresses::not_public;

/// How long a receiver may take to accept a connection, and to agree on its encryption.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept for the next request.
const IDLE: Duration = Duration::from_secs(30);
/// Unused connections that are kept for each host.
const IDLE_PER_HOST: usize = 32;

/// Something beyond the public internet that a setting allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// This host and port, wherever the name leads to, and without encryption too.
    HostPort(String, u16),
    /// These addresses, by whatever name; without encryption only if the URL has the address itself.
    Network(IpNet),
}

/// Why a setting allows nothing.
#[derive(Debug, thiserror::Error)]
#[error("neither host:port nor a network such as 10.1.0.0/16")]
pub struct NotATarget;

impl FromStr for Allowed {
    type Err = NotATarget;

    fn from_str(text: &str) -> Result<Self, NotATarget> {
        let text = text.trim();
        if let Ok(network) = text.parse() {
            return Ok(Self::Network(network));
        }
        let (host, port) = text.rsplit_once(':').ok_or(NotATarget)?;
        let host = Host::parse(host).map_err(|_| NotATarget)?.to_string();
        Ok(Self::HostPort(host, port.parse().map_err(|_| NotATarget)?))
    }
}

/// Why a request was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("Only https is allowed")]
    Scheme,
    #[error("There must be no user name and password in the URL")]
    Credentials,
    #[error("There is no host in the URL")]
    NoHost,
    #[error("{0} is {1}, not of the public internet")]
    Address(IpAddr, &'static str),
    #[error("The port {0} of this host is not allowed")]
    Port(u16),
}

/// Finds the addresses of a name.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Decides where requests may go. Cheap to clone.
#[derive(Clone)]
pub struct Guard {
    allowed: Arc<[Allowed]>,
    lookup: Lookup,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

impl Guard {
    /// Asks the operating system for addresses.
    pub fn new(allowed: &[Allowed]) -> Self {
        let lookup: Lookup = Arc::new(|name| {
            async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect()) }.boxed()
        });
        Self { allowed: allowed.into(), lookup }
    }

    /// The same, asking somebody else for addresses.
    #[must_use]
    pub fn with_lookup(self, lookup: Lookup) -> Self {
        Self { lookup, ..self }
    }

    /// Whether a request to this URL may be tried. What its name leads to is seen when it is resolved.
    pub fn check(&self, url: &Url) -> Result<(), Refused> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Credentials);
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else { return Err(Refused::NoHost) };
        if self.allows_host(&host.to_string(), Some(port)) && matches!(url.scheme(), "http" | "https") {
            return Ok(());
        }
        let address = match host {
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
            // The resolver lets this name through, and does not know of ports.
            Host::Domain(name) if self.allows_host(name, None) => return Err(Refused::Port(port)),
            Host::Domain(_) => None,
        };
        let inside = address.is_some_and(|address| self.allows_address(address));
        match url.scheme() {
            "https" => {}
            "http" if inside => {}
            _ => return Err(Refused::Scheme),
        }
        address.map_or(Ok(()), |address| self.check_address(address))
    }

    /// A client that connects to nothing this guard refuses, if [`Guard::check`] has seen the URL.
    pub fn client(&self, timeout: Duration) -> Result<reqwest::Client> {
        reqwest::Client::builder()
            .dns_resolver(Arc::new(self.clone()))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .timeout(timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .user_agent(concat!("mdl/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(Error::internal)
    }

    fn check_address(&self, address: IpAddr) -> Result<(), Refused> {
        match not_public(address) {
            Some(what) if !self.allows_address(address) => Err(Refused::Address(address, what)),
            _ => Ok(()),
        }
    }

    fn allows_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allowed.iter().any(|allowed| matches!(allowed, Allowed::Network(network) if network.contains(&address)))
    }

    /// `port` is `None` for any.
    fn allows_host(&self, name: &str, port: Option<u16>) -> bool {
        self.allowed.iter().any(|allowed| match allowed {
            Allowed::HostPort(host, open) => host == name && port.is_none_or(|port| port == *open),
            Allowed::Network(_) => false,
        })
    }
}

impl Resolve for Guard {
    /// All addresses of a name have to be allowed: one that leads inside and outside is up to no good.
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        async move {
            let found = (guard.lookup)(name.as_str().to_owned()).await?;
            if !guard.allows_host(name.as_str(), None) {
                found.iter().try_for_each(|address| guard.check_address(*address))?;
            }
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        }
        .boxed()
    }
}

/// Why a guard refused a request that has failed, if that is why.
pub fn refused<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Refused> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &[&str], url: &str) -> Result<(), Refused> {
        let allowed: Vec<Allowed> = allowed.iter().map(|text| text.parse().unwrap()).collect();
        Guard::new(&allowed).check(&url.parse().unwrap())
    }

    #[test]
    fn urls_lead_outside_and_are_encrypted() {
        assert_eq!(check(&[], "https://example.com/hook?x=1"), Ok(()));
        assert_eq!(check(&[], "https://1.1.1.1:8443/"), Ok(()));
        assert_eq!(check(&[], "http://example.com/"), Err(Refused::Scheme));
        assert_eq!(check(&[], "ftp://example.com/"), Err(Refused::Scheme));
        assert_eq!(check(&[], "https://me:secret@example.com/"), Err(Refused::Credentials));
        assert_eq!(check(&[], "file:///etc/passwd"), Err(Refused::NoHost));
        assert!(matches!(check(&[], "https://[::ffff:10.0.0.1]/"), Err(Refused::Address(..))));
    }

    #[test]
    fn settings_allow_hosts_and_networks() {
        assert_eq!(check(&["localhost:3000"], "http://localhost:3000/"), Ok(()));
        assert_eq!(check(&["localhost:3000"], "https://localhost:3001/"), Err(Refused::Port(3001)));
        assert_eq!(check(&["10.1.0.0/16"], "http://10.1.2.3/"), Ok(()));
        assert_eq!(check(&["10.1.0.0/16"], "https://receiver.example/"), Ok(()));
        assert_eq!(check(&["10.1.0.0/16"], "http://receiver.example/"), Err(Refused::Scheme));
        assert!(matches!(check(&["10.1.0.0/16"], "https://10.2.0.1/"), Err(Refused::Address(..))));
        assert_eq!(check(&["[::1]:3000"], "http://[::1]:3000/"), Ok(()));
        assert!("nonsense".parse::<Allowed>().is_err());
    }
}
