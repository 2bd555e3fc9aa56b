//! From one operation to its answer: its document, the response cache, idempotency keys, and the executor behind them.

use std::sync::Arc;
use std::time::Instant;

use async_graphql::ServerError;
use async_graphql::parser::types::OperationType;
use axum::http::{StatusCode, header};
use futures::future::BoxFuture;
use mdl::error::causes;
use mdl::idempotency::{self, Outcome};
use mdl::{Actor, instruments};
use metrics::counter;
use sha2::{Digest, Sha256};
use tracing::{Span, error};

use super::cached::Sharing;
use super::caller::{Caller, in_time};
use super::parse::Asked;
use super::refusal::{Refusal, errors_json, to_json};
use super::{Server, express};
use crate::cache::entry::Entry;
use crate::cache::question::Question;
use crate::cache::{ResponseCache, Source, Unkept};
use crate::documents::Right;
use crate::graphql::context::Operation;
use crate::graphql::executor::{Answer, Prepared, Wanted};
use crate::performance::Ending;

/// One operation as it came.
pub struct Incoming {
    pub asked: Asked,
    /// SHA-256 of the file that came with it.
    pub file: Option<[u8; 32]>,
    pub idempotency_key: Option<String>,
    pub may_write: bool,
    /// Names the request, if it is one that may be remembered.
    pub known_as: Option<express::Key>,
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

/// Runs one operation.
pub async fn run(server: &Server, caller: &Caller, incoming: Incoming) -> Result<Outgoing, Refusal> {
    let Incoming { asked, file, idempotency_key, may_write, known_as } = incoming;
    let prepared = match prepare(server, caller, asked, may_write).await? {
        Ok(prepared) => prepared,
        Err(errors) => return Ok(Outgoing::Rejected(errors)),
    };
    if prepared.operation().kind == OperationType::Subscription {
        let message = "A subscription is answered bit by bit: accept text/event-stream, or use a websocket";
        return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, "NOT_ACCEPTABLE", message));
    }
    run_prepared(server, caller, prepared, file.as_ref(), idempotency_key, known_as).await
}

/// Finds the document of an operation, and holds it against the caller. The inner error is for who reads GraphQL.
pub async fn prepare(
    server: &Server,
    caller: &Caller,
    asked: Asked,
    may_write: bool,
) -> Result<Result<Prepared, Vec<ServerError>>, Refusal> {
    let (document, right) = match in_time(server, server.documents.find(caller.actor.as_ref(), asked.source)).await? {
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
    prepared.right = right;
    Ok(Ok(prepared))
}

/// Runs a query or a mutation. `file` is the SHA-256 of the file that came with it.
pub async fn run_prepared(
    server: &Server,
    caller: &Caller,
    prepared: Prepared,
    file: Option<&[u8; 32]>,
    idempotency_key: Option<String>,
    known_as: Option<express::Key>,
) -> Result<Outgoing, Refusal> {
    let start = Instant::now();
    let measured = caller.actor.as_ref().map(|actor| server.performance.of(actor, prepared.wanted()));
    let mutates = prepared.operation().kind == OperationType::Mutation;
    let outgoing = match (idempotency_key, &caller.actor) {
        (Some(key), Some(actor)) if mutates => {
            let hash = server.auth.keys().blind(&request_hash(&prepared, file));
            Box::pin(run_once(server, caller, actor, prepared, &key, &hash)).await
        }
        // A query can be repeated as it is, and the unknown have nothing that keys could belong to.
        _ => answer(server, caller, prepared, known_as).await,
    };
    if let Some(measured) = measured {
        let ending = outgoing.as_ref().map_or(Ending { failed: true, source: None }, Outgoing::ending);
        measured.record(start.elapsed(), ending);
    }
    outgoing
}

/// Answers from the cache, if that keeps answers like this.
async fn answer(
    server: &Server,
    caller: &Caller,
    prepared: Prepared,
    known_as: Option<express::Key>,
) -> Result<Outgoing, Refusal> {
    let timed_out = || Err(Refusal::timed_out(server.executor.timeout().as_secs()));
    let Some((cache, actor, question)) = question(server, caller, &prepared) else {
        return match execute(server, caller, prepared).await {
            Answer::Executed(executed) if executed.failed() => Ok(Outgoing::Failed(executed.to_json())),
            Answer::Executed(executed) => Ok(Outgoing::Executed(executed.to_json())),
            Answer::Rejected(errors) => Ok(Outgoing::Rejected(errors)),
            Answer::TimedOut => timed_out(),
        };
    };
    let sharing = Sharing::of(prepared.right.caching(), &question.policy);
    let missing = match cache.find(&question).await {
        Ok(entry) => {
            Source::Memory.counter().increment(1);
            count_use(server, actor, prepared.wanted(), &prepared.right, &question);
            if let Some(key) = known_as {
                server.repeats.remember(key, actor.permissions, prepared, question);
            }
            return Ok(Outgoing::Kept(entry, Source::Memory, sharing));
        }
        Err(missing) => missing,
    };
    // Executing takes the operation along, and only then it is known whether its answer can be kept. In a box: it is large.
    let asked = server.used.as_ref().map(|_| {
        let variables = prepared.wanted().variables.clone();
        Box::new((prepared.document.clone(), prepared.place(), variables, prepared.right.clone()))
    });
    // In a box, as what it executes is: most requests do without it.
    let (found, source) = Box::pin(cache.make(missing, || execute(server, caller, prepared))).await;
    source.counter().increment(1);
    match found.map_err(|unkept| Unkept::clone(&unkept)) {
        Ok(entry) => {
            if let Some((document, place, variables, right)) = asked.map(|asked| *asked) {
                count_use(server, actor, Wanted { document: &document, place, variables: &variables }, &right, &question);
            }
            Ok(Outgoing::Kept(entry, source, sharing))
        }
        Err(Unkept::TooLong(body)) => Ok(Outgoing::Executed(body)),
        Err(Unkept::Failed(body)) => Ok(Outgoing::Failed(body)),
        Err(Unkept::Rejected(errors)) => Ok(Outgoing::Rejected(errors)),
        Err(Unkept::TimedOut) => timed_out(),
    }
}

/// Counts a use of a kept answer for those who warm. What is kept for a time of its publisher's own is not warmed: it is asked for by its text
/// there, which says nothing of that.
pub fn count_use(server: &Server, actor: &Actor, wanted: Wanted<'_>, right: &Right, question: &Question) {
    if let (Some(used), None) = (&server.used, right.caching().seconds) {
        used.count(actor, wanted, question);
    }
}

/// What to ask the cache, if the answer can be there. Those without a credential see nothing that is worth keeping.
fn question<'a>(server: &'a Server, caller: &'a Caller, prepared: &Prepared) -> Option<(&'a ResponseCache, &'a Actor, Question)> {
    let cache = server.cache.as_ref()?;
    let ask = |actor| Some((cache, actor, cache.question(actor, prepared)?.within(prepared.right.caching())?));
    let asked = caller.actor.as_ref().and_then(ask);
    if asked.is_none() {
        counter!(instruments::CACHE_REQUESTS, "source" => "bypass").increment(1);
    }
    asked
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
    // Of several fields, one may have written before another failed: that is not repeated.
    let several = prepared.operation().root_fields > 1;
    let actor = Actor { once: Some(guard.held()), ..actor.clone() };
    match execute_as(server, caller, Some(actor), prepared).await {
        Answer::Executed(executed) => {
            let body = executed.to_json();
            let came_to_nothing = executed.failed() && executed.came_to_nothing() && !several;
            if let Err(error) = guard.end(&serde_json::Value::String(body.clone()), came_to_nothing).await {
                error!(error = causes(&error), "Could not store the answer of a mutation under its idempotency key");
            }
            Ok(if executed.failed() { Outgoing::Failed(body) } else { Outgoing::Executed(body) })
        }
        Answer::Rejected(errors) => {
            if let Err(error) = guard.release().await {
                error!(error = causes(&error), "Could not give an idempotency key back");
            }
            Ok(Outgoing::Rejected(errors))
        }
        // It may have committed at the last moment: the key stays taken until its lease ends.
        Answer::TimedOut => Err(Refusal::timed_out(server.executor.timeout().as_secs())),
    }
}

/// In a box: an execution is a large future, and not for the stacks of those that pass it on.
fn execute<'a>(server: &'a Server, caller: &Caller, prepared: Prepared) -> BoxFuture<'a, Answer> {
    execute_as(server, caller, caller.actor.clone(), prepared)
}

fn execute_as<'a>(server: &'a Server, caller: &Caller, actor: Option<Actor>, prepared: Prepared) -> BoxFuture<'a, Answer> {
    let operation = Operation::of(&prepared, server.app.clone(), actor, caller.user_agent.clone());
    Box::pin(server.executor.execute(prepared, operation))
}

/// Everything that makes a request what it is, however it named its document. Not to be stored as it is: the variables may hold a
/// password.
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
