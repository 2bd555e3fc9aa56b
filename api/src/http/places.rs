//! How many connections may be open: together, and of one address. Who finds no place is closed at once, so that others still get in.
//!
//! A reverse proxy has the connections of all its clients, so addresses are not told apart behind one that is trusted to name them
//! (`MDL_TRUST_FORWARDED_FOR`), nor on the machine itself.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use mdl::config::Config;
use mdl::instruments;
use metrics::counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutWriter;
use tracing::warn;

use super::lines::{Lines, some};
use crate::rate_limit::network;

/// Connections of operators.
const OPERATORS: usize = 64;
/// Files that the process has open besides connections and the pools of its servers.
const OTHER_FILES: usize = 100;
/// However few files the process may open.
const FEWEST: usize = 16;
/// Lines in the log about connections that find no place. Their number is in the instruments.
const REFUSALS_PER_SECOND: NonZeroU32 = NonZeroU32::MIN;

/// How many connections there may be at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub together: usize,
    pub of_address: usize,
}

impl Limits {
    /// As set, and no more than the process may open.
    pub fn of_public(config: &Config) -> Self {
        let set = config.http.max_connections as usize;
        // A replica has a pool of its own.
        let others = 2 * config.database.pool_size + config.redis.pool_size;
        let limits = Self::within(set, open_files(), OTHER_FILES + OPERATORS + others as usize);
        if limits.together < set {
            warn!(
                connections = limits.together,
                "The process may open too few files (ulimit -n) for MDL_MAX_CONNECTIONS: it has fewer connections"
            );
        }
        let of_address = if config.http.trust_forwarded_for {
            usize::MAX
        } else {
            // Nobody has more than half of what there is.
            (config.http.max_connections_per_address as usize).min(limits.together.div_ceil(2))
        };
        Self { of_address, ..limits }
    }

    pub fn of_operators() -> Self {
        Self { together: OPERATORS, of_address: OPERATORS }
    }

    fn within(set: usize, files: Option<usize>, others: usize) -> Self {
        let possible = files.map_or(usize::MAX, |files| files.saturating_sub(others).max(FEWEST));
        Self { together: set.min(possible), of_address: usize::MAX }
    }
}

/// How many files the process may have open; `None` where nothing bounds them, or not Linux says it.
fn open_files() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let soft_and_hard = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    soft_and_hard.split_whitespace().next()?.parse().ok()
}

/// The places of one port.
pub struct Places {
    limits: Limits,
    taken: Mutex<Taken>,
    refusals: Lines,
}

#[derive(Default)]
struct Taken {
    together: usize,
    of_addresses: HashMap<IpAddr, usize>,
}

/// The place of one connection. Dropped, it is free.
pub struct Place {
    places: Arc<Places>,
    /// `None` of those that are not told apart.
    address: Option<IpAddr>,
}

impl Places {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default(), refusals: Lines::per_second(REFUSALS_PER_SECOND) })
    }

    /// A place for a connection from this address, if there is one. Otherwise that is counted, and logged now and then.
    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let peer = peer.to_canonical();
        let address = (!peer.is_loopback()).then(|| network(peer));
        let mut taken = self.lock();
        let of_address = address.map_or(0, |address| taken.of_addresses.get(&address).copied().unwrap_or(0));
        let limit = if taken.together >= self.limits.together {
            "together"
        } else if of_address >= self.limits.of_address {
            "address"
        } else {
            taken.together += 1;
            if let Some(address) = address {
                taken.of_addresses.insert(address, of_address + 1);
            }
            return Some(Place { places: self.clone(), address });
        };
        counter!(instruments::CONNECTIONS_REFUSED, "limit" => limit).increment(1);
        if let Some(left_out) = self.refusals.may_tell() {
            warn!(%peer, limit, connections = taken.together, left_out = some(left_out), "Closed a connection: there are too many");
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.together -= 1;
        let Some(address) = self.address else { return };
        if let Some(count) = taken.of_addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                taken.of_addresses.remove(&address);
            }
        }
    }
}

/// A connection with its place, which it keeps when it becomes a websocket. What is written to it fails when the other side takes none of
/// it for too long; while nothing is written, it may take any time.
pub struct Placed {
    stream: Pin<Box<TimeoutWriter<TcpStream>>>,
    _place: Place,
}

impl Placed {
    pub fn new(stream: TcpStream, place: Place, write: Duration) -> Self {
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(write));
        Self { stream: Box::pin(stream), _place: place }
    }
}

impl AsyncRead for Placed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_process_may_open() {
        for (set, files, together) in
            [(20_000, None, 20_000), (20_000, Some(1024), 884), (500, Some(1024), 500), (500, Some(64), 16)]
        {
            assert_eq!(Limits::within(set, files, 140).together, together, "{set} {files:?}");
        }
    }

    #[test]
    fn nobody_takes_the_places_of_others() {
        let places = Places::new(Limits { together: 5, of_address: 2 });
        let take = |peer: &str| places.take(peer.parse().unwrap());
        let (first, second) = (take("192.0.2.1"), take("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some() && take("192.0.2.1").is_none());
        let (_third, _fourth) = (take("2001:db8::1"), take("2001:db8::2"));
        assert!(take("2001:db8::3").is_none(), "of one network");
        let fifth = take("127.0.0.1");
        assert!(fifth.is_some() && take("192.0.2.2").is_none(), "all are taken");
        drop(first);
        assert!(take("192.0.2.1").is_some());
        drop((second, fifth));
        let of_loopback: Vec<_> = (0..3).map(|_| take("127.0.0.1")).collect();
        assert!(of_loopback.iter().all(Option::is_some), "those of the machine itself are not told apart");
        assert_eq!(places.lock().of_addresses.len(), 1, "who has left is forgotten");
    }
}
