//! Connections: accepted until the program is told to stop, then given some time to end.
//!
//! None stays open for nothing: each has to say within [`HEAD_TIMEOUT`] which version of HTTP it speaks, then with HTTP/1 to send a
//! request, and with HTTP/2 to answer pings; and to take what it is sent. How many there may be is in [`places`](super::places).

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use mdl::config::HttpConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::lines::{Lines, some};
use super::places::{Limits, Placed, Places};

/// How long a connection may take to send its first bytes, and the head of a request, or keep silent between two. As often, one of
/// HTTP/2 is sent a ping.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the answer to a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Lines in the log about connections that could not be accepted.
const FAILURES_PER_SECOND: NonZeroU32 = NonZeroU32::MIN;
/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Between two looks at a preface that is not whole yet. Clients send it as one.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// For how long connections may do nothing.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    head: Duration,
    ping: Duration,
    /// While something is sent and the other side takes none of it.
    write: Duration,
}

impl Patience {
    pub fn of(config: &HttpConfig) -> Self {
        Self { head: HEAD_TIMEOUT, ping: PING_TIMEOUT, write: Duration::from_secs(config.write_timeout_seconds) }
    }
}

/// Takes an address, or says in a sentence why not. `setting` is the name of the setting that holds it.
pub async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("Another program listens on {address} already; stop it, or set {setting} to another address")
        }
        _ => anyhow::anyhow!("Cannot listen on {address} ({setting}): {error}"),
    })
}

/// Serves until `stop` says so, then lets running requests end within `grace`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    patience: Patience,
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) -> anyhow::Result<()> {
    let Patience { head, ping, write } = patience;
    let local = listener.local_addr().context("The listener has no address")?;
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(head).keep_alive_timeout(ping);
    let builder = Arc::new(builder);
    let places = Places::new(limits);
    let failures = Lines::per_second(FAILURES_PER_SECOND);
    let connections = GracefulShutdown::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or a connection that ended meanwhile: the next may do.
                    if let Some(left_out) = failures.may_tell() {
                        warn!(%error, left_out = some(left_out), "Could not accept a connection");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        // Dropped, it is closed.
        let Some(place) = places.take(peer.ip()) else { continue };
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "Could not turn Nagle's algorithm off");
        }
        let service = router.clone().map_request(move |mut request: axum::http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.map(axum::body::Body::new)
        });
        // From now on, so that the end waits for a connection that has only begun.
        let (builder, watcher, mut stop) = (builder.clone(), connections.watcher(), stop.clone());
        tokio::spawn(async move {
            let begun = tokio::select! {
                begun = tokio::time::timeout(head, begin(&stream)) => begun,
                () = stopped(&mut stop) => return,
            };
            if !matches!(begun, Ok(Ok(()))) {
                debug!("A connection did not say what it is");
                return;
            }
            let io = TokioIo::new(Placed::new(stream, place, write));
            let connection = builder.serve_connection_with_upgrades(io, TowerToHyperService::new(service)).into_owned();
            if let Err(error) = watcher.watch(connection).await {
                debug!(error, "A connection broke off");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(grace, connections.shutdown()).await.is_err() {
        warn!("Requests on {local} still ran after {} s and are given up", grace.as_secs());
    }
    Ok(())
}

/// Waits until the program is to end.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ends = stop.wait_for(|stop| *stop).await;
}

/// Waits until a connection has sent enough to tell which version of HTTP it speaks: hyper would wait for that without end.
async fn begin(stream: &TcpStream) -> io::Result<()> {
    let mut first = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut first).await?;
        if length == 0 || length == PREFACE.len() || first[..length] != PREFACE[..length] {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SHORT: Duration = Duration::from_secs(3);
    const LONG: Duration = Duration::from_secs(60);
    const PATIENCE: Patience = Patience { head: SHORT, ping: SHORT, write: SHORT };
    const LIMITS: Limits = Limits { together: 4, of_address: 4 };
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    async fn started() -> (SocketAddr, watch::Sender<bool>) {
        started_with(SHORT).await
    }

    /// Serves until the sender is dropped.
    async fn started_with(head: Duration) -> (SocketAddr, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "here" }));
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(serve(listener, router, LIMITS, Patience { head, ..PATIENCE }, stopped, SHORT));
        (address, stop)
    }

    async fn sent(address: SocketAddr, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// All that comes until the connection is closed.
    async fn rest(mut stream: TcpStream) -> Vec<u8> {
        let mut rest = Vec::new();
        // What was sent and not read ends a connection with an error.
        let _end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.expect("an end");
        rest
    }

    #[tokio::test]
    async fn no_connection_stays_open_for_nothing() {
        let (address, _stop) = started().await;
        let silent: [&[u8]; 4] = [b"", b"P", b"GET / HTTP/1.1\r\n", PREFACE];
        let mut open = Vec::new();
        for bytes in silent {
            open.push(sent(address, bytes).await);
        }
        // All places are taken.
        assert_eq!(rest(sent(address, REQUEST).await).await, b"");
        for (stream, bytes) in open.into_iter().zip(silent) {
            let told = rest(stream).await;
            assert!(bytes == PREFACE || told.is_empty() || told.starts_with(b"HTTP/1.1 408"), "{bytes:?}: {told:?}");
        }
        let mut answer = Vec::new();
        for _ in 0..100 {
            answer = rest(sent(address, REQUEST).await).await;
            if !answer.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"here"), "{answer:?}");
    }

    #[tokio::test]
    async fn a_request_may_come_in_pieces() {
        let (address, _stop) = started_with(LONG).await;
        let mut stream = sent(address, b"P").await;
        tokio::time::sleep(LOOK_AGAIN * 2).await;
        stream.write_all(b"UT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(rest(stream).await.starts_with(b"HTTP/1.1 405"));
    }

    #[tokio::test]
    async fn the_end_does_not_wait_for_those_who_say_nothing() {
        let (address, stop) = started_with(LONG).await;
        let stream = sent(address, b"").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.send_replace(true);
        assert_eq!(rest(stream).await, b"");
    }
}
