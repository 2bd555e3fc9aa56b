//! The protocol `graphql-transport-ws`, as npm's graphql-ws speaks it, over one websocket.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream::BoxStream;
use futures::{SinkExt, StreamExt};
use mdl::{Error, instruments};
use metrics::counter;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::StreamMap;
use tokio_tungstenite::tungstenite;

use super::{Frame, operate};
use crate::auth::Authenticated;
use crate::graphql::error::log;
use crate::http::Server;
use crate::http::caller::Caller;
use crate::http::negotiate::Media;
use crate::http::parse;
use crate::http::refusal::{Refusal, to_json};
use crate::live::LiveConnection;

const PROTOCOL: &str = "graphql-transport-ws";
const TRANSPORT: &str = "websocket";
/// The headers that a credential is in, which the first message may carry as fields.
const CREDENTIALS: [HeaderName; 2] = [header::AUTHORIZATION, HeaderName::from_static("x-api-key")];
/// Bytes that a connection keeps for what is being received; longer messages take more while they come.
const READ_BUFFER: usize = 1024;
/// How long the two sides may take to say goodbye.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// Signs of life that may be missing before a client counts as gone.
const PATIENCE: u32 = 3;

const PONG: &str = r#"{"type":"pong"}"#;

/// What runs on one connection, by the client's ids.
type Operations = StreamMap<String, BoxStream<'static, Frame>>;

/// How a connection ends.
enum End {
    /// With a close frame of ours: its code and its reason.
    Close(u16, String),
    /// With one of the client's. The library has an answer to it at hand, which is still to be sent.
    Closed,
    /// A message is longer than this, and was not read.
    TooLong(usize),
    /// The client went away.
    Gone,
}

impl End {
    fn close(code: u16, reason: impl Into<String>) -> Self {
        Self::Close(code, reason.into())
    }

    fn bad_message() -> Self {
        Self::close(4400, "Invalid message")
    }
}

/// What a client sends.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Told {
    ConnectionInit { payload: Option<Map<String, Value>> },
    Ping {},
    Pong {},
    Subscribe { id: String, payload: Map<String, Value> },
    Complete { id: String },
}

/// Whether a request wants to become a websocket.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Turns a request into a websocket.
pub async fn upgrade(server: Arc<Server>, mut parts: Parts) -> Response {
    let config = &server.app.config;
    if !is_our_page(&server, &parts.headers) {
        let message = "Pages of this origin may not connect; see MDL_CORS_ORIGINS";
        return Refusal::new(StatusCode::FORBIDDEN, "ORIGIN_REFUSED", message).respond(Media::Json);
    }
    let offered = parts.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    if !offered.flat_map(|value| value.split(',')).any(|offered| offered.trim() == PROTOCOL) {
        let message = format!("Speak the subprotocol {PROTOCOL}");
        return Refusal::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message).respond(Media::Json);
    }
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let longest = config.http.max_body_bytes;
    let live = server.live.clone();
    // The request itself does not stay: a single header of it would keep all that was received with it.
    let (caller, credentials) = (Caller::known(&server, &parts, None), credentials(&parts.headers));
    upgrade
        .protocols([PROTOCOL])
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(longest)
        .max_frame_size(longest)
        .on_upgrade(move |socket| live.track(Session { server, socket }.serve(caller, credentials)))
}

/// Copies of the headers that hold a credential.
fn credentials(headers: &HeaderMap) -> HeaderMap {
    let mut found = HeaderMap::new();
    for name in CREDENTIALS {
        for value in headers.get_all(&name) {
            found.append(&name, HeaderValue::from_bytes(value.as_bytes()).expect("it was a header's value"));
        }
    }
    found
}

/// Whether a browser may connect from its page. Programs send no origin.
fn is_our_page(server: &Server, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let http = &server.app.config.http;
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let own_host = host.is_some() && origin.split_once("://").map(|(_, authority)| authority) == host;
    own_host
        || http.cors_origins.iter().any(|known| known == origin)
        || http.public_url.as_ref().is_some_and(|url| url.origin().ascii_serialization() == origin)
}

struct Session {
    server: Arc<Server>,
    socket: WebSocket,
}

impl Session {
    async fn serve(mut self, caller: Caller, credentials: HeaderMap) {
        // In a box, which goes when it is done: what authenticates is larger than all that stays.
        let begun = Box::pin(self.begin(caller, credentials)).await;
        let end = match begun {
            Ok((caller, connection, expires)) => self.operate(caller, connection, expires).await,
            Err(end) => end,
        };
        // A client that is gone meanwhile does not hear it.
        let _in_time = timeout(CLOSE_TIME, self.end(end)).await;
    }

    async fn end(&mut self, end: End) {
        match end {
            End::Close(code, reason) => {
                if self.close(code, reason).await {
                    // Until the client has answered: what it has sent and nobody has read would reset the connection, and the frame
                    // could be lost with it.
                    while let Some(Ok(_)) = self.socket.recv().await {}
                }
            }
            // The rest of the message cannot be read, so the connection stays for as long as it may.
            End::TooLong(longest) => {
                if self.close(1009, format!("A message has at most {longest} bytes")).await {
                    std::future::pending::<()>().await;
                }
            }
            End::Closed => {
                let _sent = self.socket.flush().await;
            }
            End::Gone => {}
        }
    }

    /// Whether it was sent.
    async fn close(&mut self, code: u16, reason: String) -> bool {
        let frame = CloseFrame { code, reason: reason.into() };
        self.socket.send(Message::Close(Some(frame))).await.is_ok()
    }

    fn pause(&self) -> Duration {
        Duration::from_secs(self.server.app.config.live.ping_seconds)
    }

    /// Waits for the client to say who it is.
    async fn begin(
        &mut self,
        mut caller: Caller,
        credentials: HeaderMap,
    ) -> Result<(Arc<Caller>, LiveConnection, Option<Duration>), End> {
        let patience = Duration::from_secs(self.server.app.config.live.socket_init_seconds);
        let stop = self.server.live.stop().clone();
        let payload = tokio::select! {
            payload = timeout(patience, self.first_message()) => {
                payload.map_err(|_| End::close(4408, "Connection initialisation timeout"))??
            }
            () = stop.cancelled() => return Err(stopping()),
        };
        let authenticated = self.authenticate(payload, credentials).await?;
        let connection = self.server.live.open(&authenticated.actor, TRANSPORT);
        let connection = connection.map_err(|error| End::close(1013, error.to_string()))?;
        let expires = authenticated.time_left();
        caller.becomes(authenticated.actor);
        self.send(r#"{"type":"connection_ack"}"#.to_owned()).await?;
        Ok((Arc::new(caller), connection, expires))
    }

    async fn first_message(&mut self) -> Result<Map<String, Value>, End> {
        loop {
            match self.receive().await? {
                Told::ConnectionInit { payload } => return Ok(payload.unwrap_or_default()),
                Told::Ping {} => self.send(PONG.to_owned()).await?,
                Told::Pong {} => {}
                Told::Subscribe { .. } => return Err(End::close(4401, "Unauthorized")),
                Told::Complete { .. } => return Err(End::bad_message()),
            }
        }
    }

    /// By the credential of the first message or of the request.
    async fn authenticate(&mut self, payload: Map<String, Value>, mut headers: HeaderMap) -> Result<Authenticated, End> {
        for (name, value) in payload {
            let Some(known) = CREDENTIALS.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(&name)) else { continue };
            let value = value.as_str().and_then(|value| HeaderValue::from_str(value).ok());
            headers.append(known, value.ok_or_else(|| End::close(4403, format!("{name} must be text, as in the header")))?);
        }
        let found = timeout(self.server.executor.timeout(), self.server.auth.authenticate_live(&headers)).await;
        match found {
            Ok(Ok(Some(authenticated))) => Ok(authenticated),
            Ok(Ok(None)) => Err(End::close(4403, "Send a credential with connection_init")),
            Ok(Err(error @ (Error::Unauthenticated(_) | Error::Forbidden(_)))) => Err(End::close(4403, error.to_string())),
            Ok(Err(error)) => {
                log(&error);
                Err(End::close(1013, "Try again"))
            }
            Err(_) => Err(End::close(1013, "Try again")),
        }
    }

    /// Takes and runs operations until something ends the connection.
    async fn operate(&mut self, caller: Arc<Caller>, mut connection: LiveConnection, expires: Option<Duration>) -> End {
        let stop = self.server.live.stop().clone();
        let pause = self.pause();
        let mut operations = Operations::new();
        let mut pings = interval(pause);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        let mut heard = Instant::now();
        let expired = async {
            match expires {
                Some(left) => sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(expired);
        loop {
            let done = tokio::select! {
                told = self.receive() => {
                    heard = Instant::now();
                    match told {
                        Ok(told) => self.hear(told, &caller, &mut operations).await,
                        Err(end) => Err(end),
                    }
                }
                Some((id, frame)) = operations.next(), if !operations.is_empty() => {
                    if !matches!(frame, Frame::Next { .. }) {
                        // At once: the client may use the id again as soon as it hears of the end.
                        operations.remove(&id);
                    }
                    self.send_frame(&id, &frame).await
                }
                reason = connection.changed() => Err(End::close(4403, reason)),
                () = &mut expired => Err(End::close(4403, "The access token has expired")),
                () = stop.cancelled() => Err(stopping()),
                _ = pings.tick() => {
                    if heard.elapsed() > pause * PATIENCE { Err(End::Gone) } else { self.send(r#"{"type":"ping"}"#.to_owned()).await }
                }
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Does what the client asks for.
    async fn hear(&mut self, told: Told, caller: &Arc<Caller>, operations: &mut Operations) -> Result<(), End> {
        match told {
            Told::Subscribe { id, payload } if !id.is_empty() => {
                if operations.contains_key(&id) {
                    return Err(End::close(4409, format!("Subscriber for {} already exists", shortened(&id))));
                }
                let limit = self.server.app.config.live.socket_operations as usize;
                let asked = match parse::request(Value::Object(payload)) {
                    Ok(_) if operations.len() >= limit => {
                        Err(Refusal::from_error(Error::TooMany("operations on one connection")))
                    }
                    asked => asked,
                };
                match asked {
                    Ok(asked) => {
                        operations.insert(id, operate(self.server.clone(), caller.clone(), asked, true, None));
                        Ok(())
                    }
                    Err(refusal) => self.send_frame(&id, &Frame::Error(refusal.errors())).await,
                }
            }
            Told::Complete { id } => {
                operations.remove(&id);
                Ok(())
            }
            Told::Ping {} => self.send(PONG.to_owned()).await,
            Told::Pong {} => Ok(()),
            Told::ConnectionInit { .. } => Err(End::close(4429, "Too many initialisation requests")),
            Told::Subscribe { .. } => Err(End::bad_message()),
        }
    }

    async fn receive(&mut self) -> Result<Told, End> {
        loop {
            match self.socket.recv().await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).map_err(|_| End::bad_message()),
                Some(Ok(Message::Binary(_))) => return Err(End::bad_message()),
                // The library answers pings of the websocket itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) => return Err(End::Closed),
                Some(Err(error)) if is_too_long(&error) => {
                    return Err(End::TooLong(self.server.app.config.http.max_body_bytes));
                }
                Some(Err(_)) | None => return Err(End::Gone),
            }
        }
    }

    async fn send_frame(&mut self, id: &str, frame: &Frame) -> Result<(), End> {
        match frame {
            Frame::Next { body, .. } => {
                counter!(instruments::LIVE_EVENTS, "transport" => TRANSPORT).increment(1);
                // An answer is JSON already.
                self.send(format!(r#"{{"id":{},"type":"next","payload":{body}}}"#, to_json(&id))).await
            }
            Frame::Error(errors) => self.send(json!({ "id": id, "type": "error", "payload": errors }).to_string()).await,
            Frame::Complete => self.send(json!({ "id": id, "type": "complete" }).to_string()).await,
        }
    }

    /// Sends, unless the client does not take it in time: then the connection ends.
    async fn send(&mut self, text: String) -> Result<(), End> {
        match timeout(self.pause(), self.socket.send(Message::Text(text.into()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => {
                counter!(instruments::LIVE_SLOW).increment(1);
                Err(End::close(1013, Error::TooSlow.to_string()))
            }
        }
    }
}

/// Whether a message was refused for its length.
fn is_too_long(error: &axum::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<tungstenite::Error>());
    matches!(cause, Some(tungstenite::Error::Capacity(_)))
}

fn stopping() -> End {
    End::close(1001, "The server stops; connect again")
}

/// The reason of a close frame has 123 bytes at most.
fn shortened(id: &str) -> String {
    id.chars().take(20).collect()
}
