//! A receiver of webhooks, as somebody else would run it.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use bytes::Bytes;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::eventually;

/// Answers until it is dropped, and remembers every request.
pub struct Receiver {
    /// `http://127.0.0.1:port/hook`
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
    stop: CancellationToken,
}

/// A request that came in.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
}

impl Received {
    /// A header that must be there.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers));
        value.to_str().expect("a header in ASCII")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

type Answer = Arc<dyn Fn(usize, &Received) -> Response + Send + Sync>;

#[derive(Clone)]
struct Shared {
    received: Arc<Mutex<Vec<Received>>>,
    answer: Answer,
}

impl Receiver {
    /// Answers 204 to everything.
    pub async fn start() -> Self {
        Self::answering(|_, _| Response::builder().status(204).body(Default::default()).expect("a response")).await
    }

    /// Answers as it is told: by the number of the request, from 0, and the request.
    pub async fn answering(answer: impl Fn(usize, &Received) -> Response + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("its address"));
        let shared = Shared { received: Arc::default(), answer: Arc::new(answer) };
        let (received, stop) = (shared.received.clone(), CancellationToken::new());
        let stopped = stop.clone().cancelled_owned();
        let router = Router::new().fallback(receive).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await.expect("it serves") });
        Self { url, received, stop }
    }

    /// Everything that came in so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic while it was held").clone()
    }

    /// Waits until so many requests have come in.
    pub async fn until(&self, count: usize) -> Vec<Received> {
        eventually(&format!("{count} webhooks arrive"), async || Some(self.received()).filter(|all| all.len() >= count)).await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn receive(State(shared): State<Shared>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let received = Received { path: uri.path().to_owned(), headers, body, at: Instant::now() };
    let mut all = shared.received.lock().expect("no panic while it was held");
    let answer = (shared.answer)(all.len(), &received);
    all.push(received);
    answer
}
