//! `/graphql`: from an HTTP request to operations, and from their answers to an HTTP response. docs/api/http.md is its contract.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_graphql::ServerError;
use async_graphql::parser::types::OperationType;
use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mdl::idempotency::{self, Outcome};
use mdl::{Actor, App, instruments};
use metrics::counter;
use sha2::{Digest, Sha256};
use tracing::{Span, error};

use super::cached::{self, Sharing, Wishes};
use super::live::{socket, sse};
use super::negotiate::{self, BodyKind, Media};
use super::observe::RequestId;
use super::parse::{self, Asked, Requests, malformed};
use super::refusal::{Refusal, errors_json, to_json};
use super::{Server, upload};
use crate::cache::entry::Entry;
use crate::cache::question::Question;
use crate::cache::{ResponseCache, Source, Unkept};
use crate::documents::asks_for_text;
use crate::graphql::context::Operation;
use crate::graphql::executor::{Answer, Prepared};
use crate::performance::Ending;
use crate::rate_limit::client_address;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// GET: one query, in the address.
pub async fn get(State(server): State<Arc<Server>>, request: axum::extract::Request) -> Response {
    let (parts, _) = request.into_parts();
    if socket::is_wanted(&parts.headers) {
        return socket::upgrade(server, parts).await;
    }
    if sse::is_wanted(&parts.headers) {
        let answer = match parse::query_string(parts.uri.query().unwrap_or_default()) {
            Ok(asked) => sse::respond(server, parts, asked, false).await,
            Err(refusal) => Err(refusal),
        };
        return answer.unwrap_or_else(|refusal| refusal.respond(Media::Json));
    }
    let Some(media) = negotiate::accepted(&parts.headers) else { return not_acceptable() };
    let answer = async {
        let caller = Caller::identify(&server, &parts).await?;
        let asked = parse::query_string(parts.uri.query().unwrap_or_default())?;
        let incoming = Incoming { asked, file: None, idempotency_key: None, may_write: false };
        answer_one(&server, &caller, incoming, media, &Wishes::of(&parts.method, &parts.headers)).await
    };
    answer.await.unwrap_or_else(|refusal| refusal.respond(media))
}

/// POST: an operation, a batch of them, or one with a file.
pub async fn post(State(server): State<Arc<Server>>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    if sse::is_wanted(&parts.headers) {
        let answer = async {
            let asked = read_single(&server, &parts.headers, body).await?;
            sse::respond(server, parts, asked, true).await
        };
        return answer.await.unwrap_or_else(|refusal| refusal.respond(Media::Json));
    }
    let Some(media) = negotiate::accepted(&parts.headers) else { return not_acceptable() };
    let answer = async {
        let kind = negotiate::body_kind(&parts.headers).ok_or_else(unsupported)?;
        let caller = Caller::identify(&server, &parts).await?;
        let idempotency_key = idempotency_key(&parts.headers)?;
        let wishes = Wishes::of(&parts.method, &parts.headers);
        match kind {
            BodyKind::Json => {
                let bytes = read_body(&server.app, &parts.headers, body).await?;
                match parse::body(&bytes, server.app.config.graphql.max_batch)? {
                    Requests::Single(asked) => {
                        let incoming = Incoming { asked: *asked, file: None, idempotency_key, may_write: true };
                        answer_one(&server, &caller, incoming, media, &wishes).await
                    }
                    Requests::Batch(_) if idempotency_key.is_some() => {
                        Err(malformed("Idempotency-Key is for one request, not for a batch"))
                    }
                    Requests::Batch(requests) => answer_many(&server, &caller, requests, media).await,
                }
            }
            BodyKind::Multipart => {
                let (asked, file) = upload::read(&server.app, &caller, parts, body).await?;
                let incoming = Incoming { asked, file: Some(file), idempotency_key, may_write: true };
                answer_one(&server, &caller, incoming, media, &wishes).await
            }
        }
    };
    answer.await.unwrap_or_else(|refusal| refusal.respond(media))
}

/// Every other method.
pub async fn other_method(headers: HeaderMap) -> Response {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "Use POST, or GET for queries")
        .with_header(header::ALLOW, "GET, POST")
        .respond(negotiate::accepted(&headers).unwrap_or(Media::Json))
}

/// Who sends a request, and from where.
pub struct Caller {
    pub actor: Option<Actor>,
    address: std::net::IpAddr,
    user_agent: Option<String>,
}

impl Caller {
    /// Checks the credential, and charges the request to it, or without one to the address.
    async fn identify(server: &Server, parts: &Parts) -> Result<Self, Refusal> {
        let actor = in_time(server, server.auth.authenticate(&parts.headers)).await?;
        let caller = Self::known(server, parts, actor);
        caller.charge(server)?;
        Ok(caller)
    }

    /// Somebody whose credential was checked already. Nothing is charged yet.
    pub fn known(server: &Server, parts: &Parts, mut actor: Option<Actor>) -> Self {
        if let Some(actor) = &mut actor {
            actor.request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone());
            let span = Span::current();
            span.record("tenant.id", tracing::field::display(actor.tenant));
            span.record("actor.id", tracing::field::display(actor.id()));
        }
        let peer = super::peer(&parts.extensions);
        Self {
            actor,
            address: client_address(&parts.headers, peer, server.app.config.http.trust_forwarded_for),
            user_agent: parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).map(str::to_owned),
        }
    }

    /// Charges one operation.
    pub fn charge(&self, server: &Server) -> Result<(), Refusal> {
        let charged = server.limits.check_request(self.actor.as_ref(), self.address);
        charged.map_err(|limited| Refusal::rate_limited(limited, "requests"))
    }
}

/// One operation as it came.
struct Incoming {
    asked: Asked,
    /// SHA-256 of the file that came with it.
    file: Option<[u8; 32]>,
    idempotency_key: Option<String>,
    may_write: bool,
}

/// What goes out for one operation.
pub enum Outgoing {
    Executed(String),
    /// It has errors.
    Failed(String),
    /// The stored answer of an earlier request.
    Replayed(String),
    /// An answer that the cache keeps, perhaps since now.
    Kept(Arc<Entry>, Source, Sharing),
    Rejected(Vec<ServerError>),
}

impl Outgoing {
    /// How it counts in the statistics of its operation.
    fn ending(&self) -> Ending {
        match self {
            Outgoing::Executed(_) | Outgoing::Replayed(_) => Ending { failed: false, source: None },
            Outgoing::Failed(_) | Outgoing::Rejected(_) => Ending { failed: true, source: None },
            Outgoing::Kept(_, source, _) => Ending { failed: false, source: Some(*source) },
        }
    }

    pub fn body(self) -> String {
        match self {
            Outgoing::Executed(body) | Outgoing::Failed(body) | Outgoing::Replayed(body) => body,
            Outgoing::Kept(entry, ..) => String::from_utf8_lossy(&entry.body).into_owned(),
            Outgoing::Rejected(errors) => errors_json(&errors),
        }
    }
}

async fn answer_one(
    server: &Server,
    caller: &Caller,
    incoming: Incoming,
    media: Media,
    wishes: &Wishes,
) -> Result<Response, Refusal> {
    let outgoing = run(server, caller, incoming).await?;
    if let Outgoing::Kept(entry, source, sharing) = &outgoing {
        return Ok(cached::respond(entry, *source, *sharing, media, wishes).await);
    }
    let replayed = matches!(outgoing, Outgoing::Replayed(_));
    let status = match (&outgoing, media) {
        // A client that sent a hash expects to be asked for the text, and not to have erred.
        (Outgoing::Rejected(errors), Media::GraphqlResponse) if !asks_for_text(errors) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    };
    let mut response = (status, [(header::CONTENT_TYPE, media.content_type())], outgoing.body()).into_response();
    response.headers_mut().insert(cached::X_CACHE, cached::BYPASS);
    if replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// One after the other, so that a batch takes one connection of the pool, and its mutations keep their order.
async fn answer_many(server: &Server, caller: &Caller, requests: Vec<Asked>, media: Media) -> Result<Response, Refusal> {
    let mut answers = Vec::with_capacity(requests.len());
    for (position, asked) in requests.into_iter().enumerate() {
        if position > 0 {
            caller.charge(server)?;
        }
        let incoming = Incoming { asked, file: None, idempotency_key: None, may_write: true };
        answers.push(match run(server, caller, incoming).await {
            Ok(outgoing) => outgoing.body(),
            Err(refusal) => refusal.to_json(),
        });
    }
    let body = format!("[{}]", answers.join(","));
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, media.content_type())], body).into_response())
}

/// Runs one operation.
async fn run(server: &Server, caller: &Caller, incoming: Incoming) -> Result<Outgoing, Refusal> {
    let Incoming { asked, file, idempotency_key, may_write } = incoming;
    let prepared = match prepare(server, caller, asked, may_write).await? {
        Ok(prepared) => prepared,
        Err(errors) => return Ok(Outgoing::Rejected(errors)),
    };
    if prepared.operation().kind == OperationType::Subscription {
        let message = "A subscription is answered bit by bit: accept text/event-stream, or use a websocket";
        return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, "NOT_ACCEPTABLE", message));
    }
    run_prepared(server, caller, prepared, file.as_ref(), idempotency_key).await
}

/// Finds the document of an operation, and holds it against the caller. The inner error is for who reads GraphQL.
pub async fn prepare(
    server: &Server,
    caller: &Caller,
    asked: Asked,
    may_write: bool,
) -> Result<Result<Prepared, Vec<ServerError>>, Refusal> {
    let (document, caching) = match in_time(server, server.documents.find(caller.actor.as_ref(), asked.source)).await? {
        Ok(named) => named,
        Err(errors) => {
            server.executor.count_rejected();
            return Ok(Err(errors));
        }
    };
    let mut prepared = match server.executor.prepare(asked.request, document, caller.actor.is_some()) {
        Ok(prepared) => prepared,
        Err(errors) => return Ok(Err(errors)),
    };
    let wanted = prepared.operation();
    if let Some(name) = wanted.name.as_deref().filter(|name| name.len() <= 100) {
        Span::current().record("graphql.operation", name);
    }
    if wanted.kind == OperationType::Mutation && !may_write {
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "Send a mutation by POST");
        return Err(refusal.with_header(header::ALLOW, "POST"));
    }
    for _ in 0..wanted.password_checks {
        server.limits.check_sign_in(caller.address).map_err(|limited| Refusal::rate_limited(limited, "attempts to sign in"))?;
    }
    prepared.caching = caching;
    Ok(Ok(prepared))
}

/// Runs a query or a mutation. `file` is the SHA-256 of the file that came with it.
pub async fn run_prepared(
    server: &Server,
    caller: &Caller,
    prepared: Prepared,
    file: Option<&[u8; 32]>,
    idempotency_key: Option<String>,
) -> Result<Outgoing, Refusal> {
    let start = Instant::now();
    let measured = caller.actor.as_ref().map(|actor| server.performance.of(actor, &prepared));
    let mutates = prepared.operation().kind == OperationType::Mutation;
    let outgoing = match (idempotency_key, &caller.actor) {
        (Some(key), Some(actor)) if mutates => {
            let hash = request_hash(&prepared, file);
            run_once(server, caller, actor, prepared, &key, &hash).await
        }
        // A query can be repeated as it is, and the unknown have nothing that keys could belong to.
        _ => answer(server, caller, prepared).await,
    };
    if let Some(measured) = measured {
        let ending = outgoing.as_ref().map_or(Ending { failed: true, source: None }, Outgoing::ending);
        measured.record(start.elapsed(), ending);
    }
    outgoing
}

/// Answers from the cache, if that keeps answers like this.
async fn answer(server: &Server, caller: &Caller, prepared: Prepared) -> Result<Outgoing, Refusal> {
    let timed_out = || Err(Refusal::timed_out(server.executor.timeout().as_secs()));
    let Some((cache, question)) = question(server, caller, &prepared) else {
        return match execute(server, caller, prepared).await {
            Answer::Executed(executed) if executed.failed() => Ok(Outgoing::Failed(executed.to_json())),
            Answer::Executed(executed) => Ok(Outgoing::Executed(executed.to_json())),
            Answer::Rejected(errors) => Ok(Outgoing::Rejected(errors)),
            Answer::TimedOut => timed_out(),
        };
    };
    // What is kept for a time of its publisher's own is not warmed: it is asked for by its text there, which says nothing of that.
    if let (Some(used), Some(actor), None) = (&server.used, &caller.actor, prepared.caching.seconds) {
        used.count(actor, &prepared, &question);
    }
    let ttl = question.policy.ttl;
    let sharing = if prepared.caching.public { Sharing::Public(ttl) } else { Sharing::Private };
    let (found, source) = cache.answer(question, || execute(server, caller, prepared)).await;
    source.count();
    match found.map_err(|unkept| Unkept::clone(&unkept)) {
        Ok(entry) => Ok(Outgoing::Kept(entry, source, sharing)),
        Err(Unkept::TooLong(body)) => Ok(Outgoing::Executed(body)),
        Err(Unkept::Failed(body)) => Ok(Outgoing::Failed(body)),
        Err(Unkept::Rejected(errors)) => Ok(Outgoing::Rejected(errors)),
        Err(Unkept::TimedOut) => timed_out(),
    }
}

/// What to ask the cache, if the answer can be there. Those without a credential see nothing that is worth keeping.
fn question<'a>(server: &'a Server, caller: &Caller, prepared: &Prepared) -> Option<(&'a ResponseCache, Question)> {
    let cache = server.cache.as_ref()?;
    let question = caller.actor.as_ref().and_then(|actor| ResponseCache::question(actor, prepared)?.within(prepared.caching));
    if question.is_none() {
        counter!(instruments::CACHE_REQUESTS, "source" => "bypass").increment(1);
    }
    Some((cache, question?))
}

/// Runs a mutation unless it ran before under this key.
async fn run_once(
    server: &Server,
    caller: &Caller,
    actor: &Actor,
    prepared: Prepared,
    key: &str,
    hash: &[u8; 32],
) -> Result<Outgoing, Refusal> {
    if prepared.operation().secret {
        let message = "Idempotency-Key cannot be used here: the answer is a credential, which is not stored";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message));
    }
    let guard = match in_time(server, idempotency::begin(&server.app, actor, key, hash)).await? {
        // Stored as text: jsonb would put the fields into another order.
        Outcome::Stored(serde_json::Value::String(body)) => return Ok(Outgoing::Replayed(body)),
        Outcome::Stored(other) => return Ok(Outgoing::Replayed(other.to_string())),
        Outcome::Run(guard) => guard,
    };
    // With several fields, one may have written before another failed: that is not repeated.
    let several = prepared.operation().root_fields > 1;
    match execute(server, caller, prepared).await {
        Answer::Executed(executed) if !executed.failed() || several => {
            let body = executed.to_json();
            if let Err(error) = guard.finish(&serde_json::Value::String(body.clone())).await {
                error!(%error, "Could not store the answer of a mutation under its idempotency key");
            }
            Ok(Outgoing::Executed(body))
        }
        Answer::Executed(executed) => {
            release(guard).await;
            Ok(Outgoing::Failed(executed.to_json()))
        }
        Answer::Rejected(errors) => {
            release(guard).await;
            Ok(Outgoing::Rejected(errors))
        }
        // It may have committed at the last moment: the key stays taken until its lease ends.
        Answer::TimedOut => Err(Refusal::timed_out(server.executor.timeout().as_secs())),
    }
}

async fn release(guard: idempotency::Guard) {
    if let Err(error) = guard.release().await {
        error!(%error, "Could not give an idempotency key back");
    }
}

/// What is asked of the database before an operation has the time of a request, too.
pub async fn in_time<T>(server: &Server, work: impl Future<Output = mdl::Result<T>>) -> Result<T, Refusal> {
    match tokio::time::timeout(server.executor.timeout(), work).await {
        Ok(result) => result.map_err(Refusal::from_error),
        Err(_) => Err(Refusal::timed_out(server.executor.timeout().as_secs())),
    }
}

/// In a box: an execution is a large future, and not for the stacks of those that pass it on.
fn execute<'a>(server: &'a Server, caller: &Caller, prepared: Prepared) -> BoxFuture<'a, Answer> {
    let operation = Operation::of(&prepared, server.app.clone(), caller.actor.clone(), caller.user_agent.clone());
    Box::pin(server.executor.execute(prepared, operation))
}

/// Everything that makes a request what it is, however it named its document.
fn request_hash(prepared: &Prepared, file: Option<&[u8; 32]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(prepared.document_hash());
    for part in [prepared.operation_name().unwrap_or_default(), &to_json(prepared.variables())] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(file.unwrap_or(&[0; 32]));
    hash.finalize().into()
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(malformed("Idempotency-Key is given twice")),
        (Some(value), None) => match value.to_str() {
            Ok(key) => Ok(Some(key.to_owned())),
            Err(_) => Err(malformed("An idempotency key has 1 to 255 printable ASCII characters")),
        },
    }
}

/// Reads a JSON body, within the limits of size and time.
async fn read_body(app: &App, headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let limit = app.config.http.max_body_bytes;
    let too_long = || {
        let message = format!("The body is longer than {limit} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LONG", message)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_long());
    }
    let time = Duration::from_secs(app.config.http.request_timeout_seconds);
    match tokio::time::timeout(time, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(error)) => Err(malformed(format!("The body broke off: {error}"))),
        Err(_) => Err(slow_body()),
    }
}

/// The one operation of a JSON body.
async fn read_single(server: &Server, headers: &HeaderMap, body: Body) -> Result<Asked, Refusal> {
    if negotiate::body_kind(headers) != Some(BodyKind::Json) {
        return Err(unsupported());
    }
    let bytes = read_body(&server.app, headers, body).await?;
    match parse::body(&bytes, server.app.config.graphql.max_batch)? {
        Requests::Single(asked) => Ok(*asked),
        Requests::Batch(_) => Err(malformed("An event stream answers one request, not a batch")),
    }
}

fn unsupported() -> Refusal {
    let message = "Send application/json in UTF-8, or multipart/form-data to upload a file";
    Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", message)
}

/// The body did not come in time.
pub fn slow_body() -> Refusal {
    Refusal::new(StatusCode::REQUEST_TIMEOUT, "TIMEOUT", "The body did not arrive in time")
}

fn not_acceptable() -> Response {
    let message = "Accept application/graphql-response+json or application/json";
    Refusal::new(StatusCode::NOT_ACCEPTABLE, "NOT_ACCEPTABLE", message).respond(Media::Json)
}
