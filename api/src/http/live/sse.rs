//! Event streams: the distinct connections mode of the protocol of npm's graphql-sse. Each operation is one response, whose events
//! are `next` and `complete`. The id of an event is its cursor, so a client that comes back with `Last-Event-ID` goes on there.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{BoxStream, Stream, StreamExt};
use mdl::{Error, instruments};
use metrics::counter;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{Frame, operate};
use crate::http::Server;
use crate::http::caller::{Caller, in_time};
use crate::http::parse::Asked;
use crate::http::refusal::{Refusal, errors_json};
use crate::live::LiveConnection;

const TRANSPORT: &str = "sse";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Longest cursor that is looked at, in bytes.
const MAX_CURSOR: usize = 200;

/// Answers an operation as an event stream.
pub async fn respond(server: Arc<Server>, parts: Parts, asked: Asked, may_write: bool) -> Result<Response, Refusal> {
    let authenticated = in_time(&server, server.auth.authenticate_live(&parts.headers)).await?;
    let authenticated = authenticated.ok_or_else(|| {
        Refusal::from_error(Error::Unauthenticated("Sign in, or send an API key: an event stream needs a credential"))
    })?;
    let connection = server.live.open(&authenticated.actor, TRANSPORT).map_err(Refusal::from_error)?;
    let resume_after = match parts.headers.get(LAST_EVENT_ID).map(HeaderValue::to_str) {
        None => None,
        Some(Ok(cursor)) if cursor.len() <= MAX_CURSOR => Some(cursor.to_owned()).filter(|cursor| !cursor.is_empty()),
        Some(_) => return Err(Refusal::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", "Last-Event-ID is no cursor")),
    };
    let expires = authenticated.time_left().map(|left| Instant::now() + left);
    let caller = Arc::new(Caller::known(&server, &parts, Some(authenticated.actor)));
    let streaming = Streaming {
        frames: operate(server.clone(), caller, asked, may_write, resume_after),
        connection,
        expires,
        stop: server.live.stop().clone(),
    };
    let pause = Duration::from_secs(server.app.config.live.ping_seconds);
    let mut response = Sse::new(streaming.events(pause)).keep_alive(KeepAlive::new().interval(pause)).into_response();
    // For nginx, which would keep events until it has many.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Streaming {
    frames: BoxStream<'static, Frame>,
    connection: LiveConnection,
    expires: Option<Instant>,
    stop: CancellationToken,
}

impl Streaming {
    /// By a task of its own: a client that takes nothing any more would otherwise not even be let go when it may not listen.
    fn events(mut self, pause: Duration) -> impl Stream<Item = Result<Event, Infallible>> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut goes_on = true;
            while goes_on {
                let events;
                (events, goes_on) = tokio::select! {
                    step = self.step() => step,
                    () = sender.closed() => return,
                };
                for event in events {
                    match timeout(pause, sender.send(Ok(event))).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return,
                        Err(_) => {
                            counter!(instruments::LIVE_SLOW).increment(1);
                            // Its place is free for another. The client hears why when it reads on.
                            drop(self);
                            return tell(&sender, ended(Error::TooSlow)).await;
                        }
                    }
                }
            }
        });
        ReceiverStream::new(receiver)
    }

    /// The next events, and whether there may be more.
    async fn step(&mut self) -> (Vec<Event>, bool) {
        let expired = async {
            match self.expires {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            reason = self.connection.changed() => (ended(Error::Unauthenticated(reason)), false),
            () = expired => (ended(Error::Unauthenticated("The access token has expired")), false),
            // Without an end that a client would take for the operation's: it connects again, elsewhere.
            () = self.stop.cancelled() => (Vec::new(), false),
            frame = self.frames.next() => match frame {
                Some(Frame::Next { body, cursor }) => {
                    counter!(instruments::LIVE_EVENTS, "transport" => TRANSPORT).increment(1);
                    let event = Event::default().event("next").data(body);
                    (vec![match cursor {
                        Some(cursor) => event.id(cursor),
                        None => event,
                    }], true)
                }
                Some(Frame::Error(errors)) => (vec![next(&errors_json(&errors)), complete()], false),
                Some(Frame::Complete) | None => (vec![complete()], false),
            },
        }
    }
}

fn next(body: &str) -> Event {
    Event::default().event("next").data(body)
}

fn complete() -> Event {
    // Without data, browsers pass over an event.
    Event::default().event("complete").data("")
}

/// Why the stream ends before its operation does.
fn ended(reason: Error) -> Vec<Event> {
    vec![next(&Refusal::from_error(reason).to_json()), complete()]
}

/// However long the client takes for it: the server ends a connection on which nothing is taken.
async fn tell(sender: &mpsc::Sender<Result<Event, Infallible>>, events: Vec<Event>) {
    for event in events {
        if sender.send(Ok(event)).await.is_err() {
            return;
        }
    }
}
