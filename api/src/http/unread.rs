//! Bodies of requests that are answered before they were read, as those of strangers and those that are too long.
//!
//! A server that closes its connection while the client still writes makes the client's writing fail, and most clients then never look for
//! an answer. So the rest is read and dropped for a while, beside the answer.
//!
//! Nobody shall hold anything in this way: at most [`PLACES`] bodies are read on at once, each for [`MAX_TIME`] and [`MAX_BYTES`], and
//! nothing of them is kept. The bodies of others are dropped, and with them their connections.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Version, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// A client that takes longer is refused less politely: more would let strangers keep connections busy for longer.
const MAX_TIME: Duration = Duration::from_secs(5);
/// Of what follows the refusal.
const MAX_BYTES: u64 = 32 << 20;
/// Each takes a task, a connection, and the buffer that hyper reads into, which has 400 kB at most.
const PLACES: usize = 64;

/// The places of this process.
static FREE: Semaphore = Semaphore::const_new(PLACES);

/// The same request, of whose body the rest is read if nobody has when it is answered.
pub fn read_on(request: Request) -> Request {
    // HTTP/2 can refuse a body and keep the connection.
    if request.version() > Version::HTTP_11 {
        return request;
    }
    let waits = request.headers().contains_key(header::EXPECT);
    request.map(|body| if body.is_end_stream() { body } else { Body::new(Rest { body, waits, ended: false }) })
}

struct Rest {
    body: Body,
    /// The client sends it when it is told to, which it is not before it is wanted (RFC 9110, 10.1.1).
    waits: bool,
    /// Nothing more comes, of a body whose length is not known beforehand.
    ended: bool,
}

impl hyper::body::Body for Rest {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.waits = false;
        let frame = Pin::new(&mut self.body).poll_frame(task);
        self.ended |= matches!(frame, Poll::Ready(None | Some(Err(_))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if self.waits || self.is_end_stream() || self.body.size_hint().lower() > MAX_BYTES {
            return;
        }
        let (Ok(runtime), Ok(place)) = (Handle::try_current(), FREE.try_acquire()) else { return };
        let body = std::mem::take(&mut self.body);
        runtime.spawn(async move {
            let _place = place;
            let _in_time = tokio::time::timeout(MAX_TIME, read(body)).await;
        });
    }
}

/// Reads a body to its end, or until it is too long.
async fn read(mut body: Body) {
    let mut left = MAX_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        match left.checked_sub(bytes) {
            Some(still) => left = still,
            None => return,
        }
    }
}
