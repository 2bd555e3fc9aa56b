//! Who sends a request.

use axum::http::header;
use axum::http::request::Parts;
use mdl::Actor;
use tracing::Span;

use super::Server;
use super::observe::{RequestId, peer};
use super::refusal::Refusal;
use crate::rate_limit::client_address;

/// Who sends a request, and from where.
pub struct Caller {
    pub actor: Option<Actor>,
    pub address: std::net::IpAddr,
    pub user_agent: Option<String>,
    request_id: Option<String>,
}

impl Caller {
    /// Checks the credential, and charges the request to it, or without one to the address.
    pub async fn identify(server: &Server, parts: &Parts) -> Result<Self, Refusal> {
        let actor = in_time(server, server.auth.authenticate(&parts.headers)).await?;
        let caller = Self::known(server, parts, actor);
        caller.charge(server)?;
        Ok(caller)
    }

    /// Somebody whose credential was checked already. Nothing is charged yet.
    pub fn known(server: &Server, parts: &Parts, actor: Option<Actor>) -> Self {
        let peer = peer(&parts.extensions);
        let mut caller = Self {
            actor: None,
            address: client_address(&parts.headers, peer, server.app.config.http.trust_forwarded_for),
            user_agent: parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).map(str::to_owned),
            request_id: parts.extensions.get::<RequestId>().map(|id| id.0.clone()),
        };
        if let Some(actor) = actor {
            caller.becomes(actor);
        }
        caller
    }

    /// It has turned out who they are.
    pub fn becomes(&mut self, mut actor: Actor) {
        let span = Span::current();
        span.record("tenant.id", tracing::field::display(actor.tenant));
        span.record("actor.id", tracing::field::display(actor.id()));
        actor.request_id = self.request_id.take();
        self.actor = Some(actor);
    }

    /// Charges one operation.
    pub fn charge(&self, server: &Server) -> Result<(), Refusal> {
        let charged = server.limits.check_request(self.actor.as_ref(), self.address);
        charged.map_err(|limited| Refusal::rate_limited(limited, "requests"))
    }
}

/// What is asked of the database before an operation has the time of a request, too.
pub async fn in_time<T>(server: &Server, work: impl Future<Output = mdl::Result<T>>) -> Result<T, Refusal> {
    match tokio::time::timeout(server.executor.timeout(), work).await {
        Ok(result) => result.map_err(Refusal::from_error),
        Err(_) => Err(Refusal::timed_out(server.executor.timeout().as_secs())),
    }
}
