//! What every request goes through, whatever it asks for: its id, its span and line in the log, its instruments, and the
//! headers that browsers are to keep to.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use mdl::{instruments, telemetry};
use metrics::{counter, histogram};
use serde_json::{Map, Value};
use tracing::{Instrument, Span, debug, field, info, info_span};
use uuid::Uuid;

use super::lines::some;
use super::negotiate::Media;
use super::refusal::Refusal;
use super::{Server, web};

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID: usize = 128;
/// Requests that take longer stand in the log.
const SLOW: Duration = Duration::from_secs(1);
/// Lines in the log about quick requests that fail by their callers' fault, or whose callers go away: enough to see what they are. Their
/// number is in the instruments.
pub const FAULTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).expect("it is not zero");

/// The id of a request: in its answer, in every line of the log about it, and in the audit log.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

impl RequestId {
    /// The caller's, when it is one that can stand in a log; otherwise a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
        let sane = sent.filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()));
        Self(sane.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned))
    }
}

/// The outermost layer.
pub async fn observe(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = known(request.method());
    let span = info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.method = method,
        http.route = route,
        http.status = field::Empty,
        request.id = id.0,
        tenant.id = field::Empty,
        actor.id = field::Empty,
        graphql.operation = field::Empty,
    );
    continue_trace(&span, request.headers());
    request.extensions_mut().insert(id.clone());
    let is_page = web::is_page(request.uri().path());

    let unfinished =
        Unfinished { server: server.clone(), span: span.clone(), method, route, start: Instant::now(), status: None };
    let mut response = next.run(request).instrument(span).await;
    unfinished.end(response.status());
    finish(response.headers_mut(), &id, is_page, server.behind_tls);
    response
}

/// The headers that every answer has.
pub fn finish(headers: &mut HeaderMap, id: &RequestId, is_page: bool, behind_tls: bool) {
    if let Ok(id) = HeaderValue::from_str(&id.0) {
        headers.insert(X_REQUEST_ID, id);
    }
    protect(headers, is_page, behind_tls);
}

/// A request whose caller goes away is dropped wherever it was: this notices.
struct Unfinished {
    server: Arc<Server>,
    span: Span,
    method: &'static str,
    route: String,
    start: Instant,
    status: Option<StatusCode>,
}

impl Unfinished {
    fn end(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let elapsed = self.start.elapsed();
        let duration_ms = elapsed.as_secs_f64() * 1000.0;
        let is_slow = elapsed > SLOW;
        let faults = &self.server.faults;
        let _entered = self.span.enter();
        let status = match self.status {
            Some(status) => {
                self.span.record("http.status", status.as_u16());
                if status.is_server_error() {
                    self.span.record("otel.status_code", "ERROR");
                }
                // A line costs as much as a small answer: those that nobody looks for are written only when asked for.
                let told = if is_slow || status.is_server_error() {
                    Some(0)
                } else if status.is_client_error() {
                    faults.may_tell()
                } else {
                    None
                };
                match told {
                    Some(left_out) => {
                        let left_out = some(left_out);
                        info!(status = status.as_u16(), duration_ms, left_out, "Answered {} {}", self.method, self.route);
                    }
                    None => debug!(status = status.as_u16(), duration_ms, "Answered {} {}", self.method, self.route),
                }
                status.as_str().to_owned()
            }
            None => {
                let told = if is_slow { Some(0) } else { faults.may_tell() };
                match told {
                    Some(left_out) => {
                        let left_out = some(left_out);
                        info!(duration_ms, left_out, "The caller of {} {} went away", self.method, self.route);
                    }
                    None => debug!(duration_ms, "The caller of {} {} went away", self.method, self.route),
                }
                "gone".to_owned()
            }
        };
        let route = std::mem::take(&mut self.route);
        histogram!(instruments::HTTP_REQUEST_SECONDS, "route" => route.clone()).record(elapsed.as_secs_f64());
        counter!(instruments::HTTP_REQUESTS, "route" => route, "method" => self.method, "status" => status).increment(1);
    }
}

/// What is answered when a resolver panics. The hook that `serve` installs has logged it.
pub fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "Internal error").respond(Media::Json)
}

/// The peer's address; tests that call the router without a connection have none.
pub fn peer(extensions: &Extensions) -> SocketAddr {
    let connected = extensions.get::<axum::extract::ConnectInfo<SocketAddr>>();
    connected.map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |info| info.0)
}

fn protect(headers: &mut HeaderMap, is_page: bool, behind_tls: bool) {
    let policy = if is_page { web::CONTENT_SECURITY_POLICY } else { "default-src 'none'; frame-ancestors 'none'" };
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    if behind_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=63072000; includeSubDomains"));
    }
    // Answers are somebody's own. Pages and assets say for themselves how long they keep.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// Methods that instruments tell apart: a caller can make others up.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn continue_trace(span: &Span, headers: &HeaderMap) {
    let field = |name: &str| Some((name.to_owned(), Value::from(headers.get(name)?.to_str().ok()?)));
    if headers.contains_key("traceparent") {
        let context: Map<String, Value> = ["traceparent", "tracestate"].into_iter().filter_map(field).collect();
        telemetry::continue_trace(span, &Value::Object(context));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_sane_request_ids() {
        let of = |id: &'static str| RequestId::of(&HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_static(id))])).0;
        assert_eq!(of("abc-123/x"), "abc-123/x");
        let long: &'static str = Box::leak("x".repeat(129).into_boxed_str());
        for bad in ["", "a b", "a\tb", long] {
            assert!(Uuid::parse_str(&of(bad)).is_ok(), "{bad}");
        }
        assert!(Uuid::parse_str(&RequestId::of(&HeaderMap::new()).0).is_ok());
    }
}
