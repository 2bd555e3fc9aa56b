//! Requests that ask again what was answered from the cache just now: they are known by their bytes, and not read once more.
//!
//! Remembered is only what cannot change: which operation those bytes ask for, with which variables. Whatever can is looked at
//! each time: the headers, whether the credential holds and what it allows, how often it may ask, whether the document is still
//! published, the versions of what the answer is made of. As soon as anything is not as it was, the request goes the long way,
//! which alone refuses and executes. So this way changes nothing but the time it takes.
//!
//! It opens no span. Nobody would see it, unless traces are exported or the log is at `debug`; then all go the long way.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_graphql::Variables;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures::future::{BoxFuture, ready};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame};
use mdl::actor::Permissions;
use mdl::instruments;
use metrics::{Counter, Histogram, counter, histogram};
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::cors::CorsLayer;
use tracing::level_filters::LevelFilter;

use super::cached::{self, Sharing, Wishes};
use super::graphql::IDEMPOTENCY_KEY;
use super::live::socket;
use super::negotiate::{self, BodyKind, Media};
use super::observe::{RequestId, finish};
use super::run::count_use;
use super::{GRAPHQL, Server, unread};
use crate::auth::{Authenticated, Fingerprint};
use crate::cache::Source;
use crate::cache::question::Question;
use crate::documents::{ParsedDocument, Right};
use crate::graphql::executor::{Prepared, Wanted};
use crate::performance::Ending;

/// Longer requests are rare, and not remembered.
const MAX_BYTES: u64 = 16 << 10;
/// Bytes of memory that the remembered requests take at most, roughly: each its place, and its variables.
const MAX_KEPT_BYTES: u64 = 32 << 20;
const BYTES_PER_REPEAT: usize = 1_000;
const BYTES_PER_BYTE: usize = 10;
/// How long one is remembered. Now and then each goes the long way, which renews the time of a registered text in Redis.
const FORGET_AFTER: Duration = Duration::from_secs(300);
/// A body comes with its head, or right after it; for others the long way waits.
const BODY_PATIENCE: Duration = Duration::from_millis(50);

/// Names a request by its credential and by what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Over both.
    sha256: [u8; 32],
    /// Length of what it says.
    bytes: usize,
}

impl Key {
    fn new(credential: &Fingerprint, method: &Method, asked: &[u8]) -> Self {
        let hash = Sha256::new_with_prefix(credential).chain_update(method.as_str()).chain_update(b" ").chain_update(asked);
        Self { sha256: hash.finalize().into(), bytes: asked.len() }
    }

    /// The one that a request got here on its way.
    pub fn of(parts: &Parts) -> Option<Self> {
        parts.extensions.get().copied()
    }
}

/// The requests that this process remembers.
pub struct Repeats(Cache<Key, Arc<Repeat>>);

/// What is known of a request from the last time that it was answered from the cache.
struct Repeat {
    /// What its caller was allowed: the question depends on that.
    permissions: Permissions,
    /// Gone when there was no more room for it among the parsed documents.
    document: Weak<ParsedDocument>,
    /// The operation's place in it.
    place: usize,
    variables: Variables,
    right: Right,
    question: Question,
}

impl Default for Repeats {
    fn default() -> Self {
        let weight =
            |key: &Key, _: &Arc<Repeat>| u32::try_from(BYTES_PER_REPEAT + key.bytes * BYTES_PER_BYTE).unwrap_or(u32::MAX);
        Self(Cache::builder().max_capacity(MAX_KEPT_BYTES).weigher(weight).time_to_live(FORGET_AFTER).build())
    }
}

impl Repeats {
    /// Remembers a request that is answered from the cache.
    pub fn remember(&self, key: Key, permissions: Permissions, prepared: Prepared, question: Question) {
        // On another day it is another question.
        if !question.policy.daily {
            let (document, place, right) = (Arc::downgrade(&prepared.document), prepared.place(), prepared.right.clone());
            let variables = prepared.into_variables();
            self.0.insert(key, Arc::new(Repeat { permissions, document, place, variables, right, question }));
        }
    }
}

/// What stands before all routes.
#[derive(Clone)]
pub struct Express(Arc<Inner>);

struct Inner {
    server: Arc<Server>,
    /// As the route has it.
    cors: Option<CorsLayer>,
    counts: Counts,
    /// The long way.
    router: Router,
}

impl Express {
    pub fn before(router: Router, server: Arc<Server>, cors: Option<CorsLayer>) -> Self {
        Self(Arc::new(Inner { server, cors, counts: Counts::new(), router }))
    }
}

impl Service<Request> for Express {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let inner = self.0.clone();
        if request.uri().path() != GRAPHQL {
            return Box::pin(inner.router.clone().call(request));
        }
        Box::pin(async move {
            let Some(asked) = inner.asked(&mut request).await else {
                return inner.router.clone().call(unread::read_on(request)).await;
            };
            if let Some(response) = inner.answer(request.method(), request.headers(), &asked).await {
                return Ok(inner.let_pages_read(request, response).await);
            }
            request.extensions_mut().insert(asked.key);
            inner.router.clone().call(request).await
        })
    }
}

/// What a request is known by, and who sends it.
struct Asked {
    start: Instant,
    key: Key,
    holder: Arc<Authenticated>,
    media: Media,
}

impl Inner {
    /// `None` for a request that goes the long way in any case. The request stays as it came.
    async fn asked(&self, request: &mut Request) -> Option<Asked> {
        let (start, server) = (Instant::now(), &*self.server);
        if self.is_watched() || server.cache.is_none() {
            return None;
        }
        let headers = request.headers();
        let media = negotiate::accepted(headers)?;
        if socket::is_wanted(headers) || negotiate::prefers_event_stream(headers) || headers.contains_key(IDEMPOTENCY_KEY) {
            return None;
        }
        let (credential, holder) = server.auth.at_hand(headers).await?;
        let key = match *request.method() {
            Method::POST => Key::new(&credential, &Method::POST, &short_json(request).await?),
            Method::GET => Key::new(&credential, &Method::GET, request.uri().query()?.as_bytes()),
            _ => return None,
        };
        Some(Asked { start, key, holder, media })
    }

    /// The answer to a request that is as one before. `None` when it has to go the long way after all.
    async fn answer(&self, method: &Method, headers: &HeaderMap, asked: &Asked) -> Option<Response> {
        let (server, Asked { start, key, holder, media }) = (&*self.server, asked);
        let repeat = server.repeats.0.get(key)?;
        let Repeat { permissions, place, variables, right, question, .. } = &*repeat;
        if *permissions != holder.actor.permissions || !server.documents.still_stands(right).await {
            return None;
        }
        let document = repeat.document.upgrade()?;
        let entry = server.cache.as_ref()?.find(question).await.ok()?;
        if !server.limits.allow(&holder.actor) {
            return None;
        }

        let sharing = Sharing::of(right.caching(), &question.policy);
        let wishes = Wishes::of(method, headers);
        let mut response = cached::respond(&entry, Source::Memory, sharing, *media, &wishes).await;
        finish(response.headers_mut(), &RequestId::of(headers), false, server.behind_tls);
        let wanted = Wanted { document: &document, place: *place, variables };
        server.documents.count_found(right);
        count_use(server, &holder.actor, wanted, right, question);
        let ending = Ending { failed: false, source: Some(Source::Memory) };
        server.performance.of(&holder.actor, wanted).record(start.elapsed(), ending);
        self.counts.count(method, response.status(), start.elapsed());
        Some(response)
    }

    /// Whether somebody wants to see the span of each request.
    fn is_watched(&self) -> bool {
        self.server.app.config.telemetry.otlp_endpoint.is_some() || LevelFilter::current() >= LevelFilter::DEBUG
    }

    /// As CORS has it.
    async fn let_pages_read(&self, request: Request, response: Response) -> Response {
        let Some(cors) = &self.cors else { return response };
        let mut response = Some(response);
        let answer = service_fn(move |_: Request| ready(Ok::<_, Infallible>(response.take().unwrap_or_default())));
        let Ok(response) = cors.layer(answer).oneshot(request).await;
        response
    }
}

/// The body of a request, if it is JSON, short, and there. The request keeps it.
async fn short_json(request: &mut Request) -> Option<Bytes> {
    let length: u64 = request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    if length > MAX_BYTES || negotiate::body_kind(request.headers()) != Some(BodyKind::Json) {
        return None;
    }
    let mut body = std::mem::take(request.body_mut());
    let Ok(frame) = tokio::time::timeout(BODY_PATIENCE, body.frame()).await else {
        *request.body_mut() = body;
        return None;
    };
    let whole = match &frame {
        Some(Ok(frame)) if body.is_end_stream() => frame.data_ref().cloned(),
        _ => None,
    };
    *request.body_mut() = match &whole {
        Some(bytes) => Body::from(bytes.clone()),
        None => Body::new(Begun { frame, rest: body }),
    };
    whole
}

/// A body of which a frame has been read already.
struct Begun {
    frame: Option<Result<Frame<Bytes>, axum::Error>>,
    rest: Body,
}

impl hyper::body::Body for Begun {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.frame.take() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(task),
        }
    }
}

/// Instruments of the requests that are answered here. They are found once, not each time.
struct Counts {
    seconds: Histogram,
    from_memory: Counter,
    posts: Counter,
    gets: Counter,
    unchanged: Counter,
}

impl Counts {
    fn new() -> Self {
        let requests = |method: &'static str, status: StatusCode| {
            let status = status.as_str().to_owned();
            counter!(instruments::HTTP_REQUESTS, "route" => GRAPHQL, "method" => method, "status" => status)
        };
        Self {
            seconds: histogram!(instruments::HTTP_REQUEST_SECONDS, "route" => GRAPHQL),
            from_memory: Source::Memory.counter(),
            posts: requests("POST", StatusCode::OK),
            gets: requests("GET", StatusCode::OK),
            unchanged: requests("GET", StatusCode::NOT_MODIFIED),
        }
    }

    fn count(&self, method: &Method, status: StatusCode, took: Duration) {
        self.seconds.record(took.as_secs_f64());
        self.from_memory.increment(1);
        let requests = match (method, status) {
            (&Method::POST, _) => &self.posts,
            (_, StatusCode::NOT_MODIFIED) => &self.unchanged,
            _ => &self.gets,
        };
        requests.increment(1);
    }
}
