//! Operations whose answers come bit by bit: over a websocket ([`socket`]) or as an event stream ([`sse`]).
//!
//! Both take any operation, and run it as `/graphql` does.

pub mod socket;
pub mod sse;

use std::sync::Arc;

use async_graphql::parser::types::OperationType;
use async_graphql::{Response, ServerError, Value};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use mdl::instruments;
use metrics::gauge;

use super::Server;
use super::caller::Caller;
use super::parse::Asked;
use super::refusal::to_json;
use super::run::{Outgoing, prepare, run_prepared};
use crate::graphql::context::Operation;

/// What is sent of an operation.
pub enum Frame {
    /// An answer, and the cursor of the event that it tells of.
    Next { body: String, cursor: Option<String> },
    /// Nothing was executed. The last frame.
    Error(Vec<ServerError>),
    /// The last frame.
    Complete,
}

/// Runs an operation. It is charged to its caller; `resume_after` is the cursor of the last event that a subscription has told
/// the caller of. Dropped, the operation ends.
pub fn operate(
    server: Arc<Server>,
    caller: Arc<Caller>,
    asked: Asked,
    may_write: bool,
    resume_after: Option<String>,
) -> BoxStream<'static, Frame> {
    stream::once(begin(server, caller, asked, may_write, resume_after)).flatten().boxed()
}

/// In a box: an execution is a large future.
fn begin(
    server: Arc<Server>,
    caller: Arc<Caller>,
    asked: Asked,
    may_write: bool,
    resume_after: Option<String>,
) -> BoxFuture<'static, BoxStream<'static, Frame>> {
    Box::pin(async move {
        if let Err(refusal) = caller.charge(&server) {
            return only(Frame::Error(refusal.errors()));
        }
        let prepared = match prepare(&server, &caller, asked, may_write).await {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(errors)) => return only(Frame::Error(errors)),
            Err(refusal) => return only(Frame::Error(refusal.errors())),
        };
        if prepared.operation().kind != OperationType::Subscription {
            return match run_prepared(&server, &caller, prepared, None, None, None).await {
                Ok(Outgoing::Rejected(errors)) => only(Frame::Error(errors)),
                Ok(outgoing) => {
                    let next = Frame::Next { body: outgoing.body(), cursor: None };
                    stream::iter([next, Frame::Complete]).boxed()
                }
                Err(refusal) => only(Frame::Error(refusal.errors())),
            };
        }
        let operation = Operation::listening(server.app.clone(), caller.actor.clone(), resume_after);
        match server.executor.subscribe(prepared, operation.clone()).await {
            Ok(responses) => listen(responses, operation),
            Err(errors) => only(Frame::Error(errors)),
        }
    })
}

fn listen(responses: BoxStream<'static, Response>, operation: Arc<Operation>) -> BoxStream<'static, Frame> {
    let running = Running::begin();
    let frames = responses.enumerate().map(move |(place, response)| {
        // Lives as long as the stream.
        let _running = &running;
        if place == 0 && response.data == Value::Null && !response.errors.is_empty() {
            return Frame::Error(response.errors);
        }
        Frame::Next { body: to_json(&response), cursor: operation.take_cursor() }
    });
    frames.chain(stream::iter([Frame::Complete])).boxed()
}

fn only(frame: Frame) -> BoxStream<'static, Frame> {
    stream::iter([frame]).boxed()
}

/// A subscription that runs, as the instruments count it.
struct Running;

impl Running {
    fn begin() -> Self {
        gauge!(instruments::LIVE_SUBSCRIPTIONS).increment(1);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        gauge!(instruments::LIVE_SUBSCRIPTIONS).decrement(1);
    }
}
