//! `/graphql`: from an HTTP request to operations, and from their answers to an HTTP response. docs/api/http.md is its contract.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mdl::App;

use super::cached::{self, Wishes};
use super::caller::Caller;
use super::live::{socket, sse};
use super::negotiate::{self, BodyKind, Media};
use super::parse::{self, Asked, Requests, malformed};
use super::refusal::Refusal;
use super::run::{Incoming, Outgoing, run};
use super::{Server, express, upload};
use crate::documents::asks_for_text;

pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// GET: one query, in the address.
pub async fn get(State(server): State<Arc<Server>>, request: axum::extract::Request) -> Response {
    let (parts, _) = request.into_parts();
    if socket::is_wanted(&parts.headers) {
        return Box::pin(socket::upgrade(server, parts)).await;
    }
    if negotiate::prefers_event_stream(&parts.headers) {
        let asked = parse::query_string(parts.uri.query().unwrap_or_default());
        return Box::pin(stream(server, parts, asked, false)).await;
    }
    let Some(media) = negotiate::accepted(&parts.headers) else { return not_acceptable() };
    let answer = async {
        let caller = Caller::identify(&server, &parts).await?;
        let asked = parse::query_string(parts.uri.query().unwrap_or_default())?;
        let incoming =
            Incoming { asked, file: None, idempotency_key: None, may_write: false, known_as: express::Key::of(&parts) };
        answer_one(&server, &caller, incoming, media, &Wishes::of(&parts.method, &parts.headers)).await
    };
    answer.await.unwrap_or_else(|refusal| refusal.respond(media))
}

/// POST: an operation, a batch of them, or one with a file.
///
/// The layers around it move its future about, so what is rare or large in it is in boxes of its own.
pub async fn post(State(server): State<Arc<Server>>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    if negotiate::prefers_event_stream(&parts.headers) {
        return Box::pin(async move {
            let asked = match parts.headers.contains_key(IDEMPOTENCY_KEY) {
                true => Err(malformed("Idempotency-Key is for an answer in JSON, not for an event stream")),
                false => read_single(&server, &parts.headers, body).await,
            };
            stream(server, parts, asked, true).await
        })
        .await;
    }
    let Some(media) = negotiate::accepted(&parts.headers) else { return not_acceptable() };
    let answer = async {
        let kind = negotiate::body_kind(&parts.headers).ok_or_else(unsupported)?;
        let caller = Caller::identify(&server, &parts).await?;
        let idempotency_key = idempotency_key(&parts.headers)?;
        match kind {
            BodyKind::Json => {
                let bytes = read_body(&server.app, &parts.headers, body).await?;
                let asked = match parse::body(&bytes, server.app.config.graphql.max_batch)? {
                    Requests::Single(asked) => asked,
                    Requests::Batch(_) if idempotency_key.is_some() => {
                        return Err(malformed("Idempotency-Key is for one request, not for a batch"));
                    }
                    Requests::Batch(requests) => return Box::pin(answer_many(&server, &caller, requests, media)).await,
                };
                let incoming =
                    Incoming { asked, file: None, idempotency_key, may_write: true, known_as: express::Key::of(&parts) };
                answer_one(&server, &caller, incoming, media, &Wishes::of(&parts.method, &parts.headers)).await
            }
            BodyKind::Multipart => Box::pin(answer_upload(&server, &caller, parts, body, idempotency_key, media)).await,
        }
    };
    answer.await.unwrap_or_else(|refusal| refusal.respond(media))
}

async fn stream(server: Arc<Server>, parts: Parts, asked: Result<Asked, Refusal>, may_write: bool) -> Response {
    let answer = match asked {
        Ok(asked) => sse::respond(server, parts, asked, may_write).await,
        Err(refusal) => Err(refusal),
    };
    answer.unwrap_or_else(|refusal| refusal.respond(Media::Json))
}

async fn answer_upload(
    server: &Server,
    caller: &Caller,
    parts: Parts,
    body: Body,
    idempotency_key: Option<String>,
    media: Media,
) -> Result<Response, Refusal> {
    let wishes = Wishes::of(&Method::POST, &parts.headers);
    let (asked, file) = upload::read(&server.app, caller, parts, body).await?;
    let incoming = Incoming { asked, file: Some(file), idempotency_key, may_write: true, known_as: None };
    answer_one(server, caller, incoming, media, &wishes).await
}

/// Every other method.
pub async fn other_method(headers: HeaderMap) -> Response {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "Use POST, or GET for queries")
        .with_header(header::ALLOW, "GET, POST")
        .respond(negotiate::accepted(&headers).unwrap_or(Media::Json))
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
        let incoming = Incoming { asked, file: None, idempotency_key: None, may_write: true, known_as: None };
        answers.push(match run(server, caller, incoming).await {
            Ok(outgoing) => outgoing.body(),
            Err(refusal) => refusal.to_json(),
        });
    }
    let body = format!("[{}]", answers.join(","));
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, media.content_type())], body).into_response())
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
        Requests::Single(asked) => Ok(asked),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a dozen layers copy it, at each request.
    #[test]
    fn the_future_of_a_request_is_small() {
        fn size<F: Future>(_: impl FnOnce(State<Arc<Server>>, axum::extract::Request) -> F) -> usize {
            size_of::<F>()
        }
        let (get, post) = (size(get), size(post));
        assert!(get <= 4_000 && post <= 4_000, "{get} and {post} bytes");
    }
}
