//! `/internal/warm`: makes one answer and keeps it, for a worker that has the secret of `MDL_WARM_SECRET`. The answer itself is
//! not sent: one word says what became of it. Without a secret the address does not exist.

use std::sync::Arc;

use async_graphql::{Request, Variables};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use mdl::Actor;
use mdl::actor::Subject;
use mdl::warming::{self, Warm, WarmOutcome, Warmed, used};
use serde_json::json;

use super::{Server, peer};
use crate::cache::{Source, Unkept};
use crate::documents;
use crate::graphql::context::Operation;
use crate::rate_limit::client_address;

/// The JSON of an operation, and of whose it is.
const MAX_BODY: usize = used::MAX_BYTES + 1_024;

/// The route, where there is a secret.
pub fn route() -> MethodRouter<Arc<Server>> {
    post(warm).layer(DefaultBodyLimit::max(MAX_BODY))
}

async fn warm(State(server): State<Arc<Server>>, parts: Parts, body: Bytes) -> Response {
    match run(&server, &parts, &body).await {
        Ok(outcome) => Json(Warmed { outcome }).into_response(),
        Err((status, why)) => (status, Json(json!({ "error": why }))).into_response(),
    }
}

/// Why nothing was warmed: 4xx when that will not change, 503 when there is no time for it now.
type Refused = (StatusCode, &'static str);

async fn run(server: &Server, parts: &Parts, body: &[u8]) -> Result<WarmOutcome, Refused> {
    check_secret(server, parts)?;
    let busy = (StatusCode::SERVICE_UNAVAILABLE, "This api has other things to do");
    if server.app.db.is_busy() {
        return Err(busy);
    }
    let Warm { tenant, asked } =
        serde_json::from_slice(body).map_err(|_| (StatusCode::BAD_REQUEST, "This is no operation to be warmed"))?;
    let unfit = (StatusCode::UNPROCESSABLE_ENTITY, "Answers to this operation are not kept, or not for all who may ask it");
    let cache = server.cache.as_ref().ok_or(unfit)?;
    let actor = Actor { tenant, subject: Subject::System, permissions: asked.permissions, request_id: None, once: None };

    let found = server.documents.find(Some(&actor), documents::Source::Text(asked.query)).await;
    let (document, right) =
        found.map_err(|_| busy)?.map_err(|_| (StatusCode::UNPROCESSABLE_ENTITY, "This document cannot be run"))?;
    let mut request = Box::new(Request::new("").variables(Variables::from_json(asked.variables)));
    request.operation_name = asked.operation_name;
    let prepared = server.executor.prepare(request, document, true).map_err(|_| unfit)?;
    // Before anything is executed: this is where mutations, and whatever is somebody's own, end.
    let question = cache.question(&actor, &prepared).filter(|question| !question.policy.personal);
    let question = question.and_then(|question| question.within(right.caching())).ok_or(unfit)?;

    let operation = Operation::of(&prepared, server.app.clone(), Some(actor), None);
    let Err(missing) = cache.find(&question).await else { return Ok(WarmOutcome::Kept) };
    let (kept, source) = cache.make(missing, || Box::pin(server.executor.execute(prepared, operation))).await;
    match kept.as_deref().map_err(|unkept| &**unkept) {
        Ok(_) if source == Source::Made => Ok(WarmOutcome::Made),
        Ok(_) => Ok(WarmOutcome::Kept),
        Err(Unkept::TimedOut) => Err(busy),
        Err(Unkept::Failed(_) | Unkept::TooLong(_) | Unkept::Rejected(_)) => {
            Err((StatusCode::UNPROCESSABLE_ENTITY, "The answer has errors, or is too long"))
        }
    }
}

/// Attempts at the secret are charged to whoever makes them, as all requests without a credential.
fn check_secret(server: &Server, parts: &Parts) -> Result<(), Refused> {
    let sent = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if sent.is_some_and(|sent| warming::is_secret(&server.app.config.warming, sent)) {
        return Ok(());
    }
    let address = client_address(&parts.headers, peer(&parts.extensions), server.app.config.http.trust_forwarded_for);
    match server.limits.check_request(None, address) {
        Ok(()) => Err((StatusCode::UNAUTHORIZED, "This is not the secret")),
        Err(_) => Err((StatusCode::TOO_MANY_REQUESTS, "Too many attempts")),
    }
}
