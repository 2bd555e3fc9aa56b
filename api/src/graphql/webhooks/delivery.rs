//! Deliveries and their attempts, as GraphQL shows them.

use async_graphql::{Context, ID, Json, Object, Result, SimpleObject};
use chrono::{DateTime, Utc};
use mdl::error::Error;
use mdl::webhooks;
use mdl::webhooks::message::message_id;
use serde_json::Value;

use super::WebhookEndpoint;
use super::enums::{WebhookDeliveryOrigin, WebhookDeliveryState, WebhookErrorClass};
use crate::graphql::context::ContextExt;
use crate::graphql::eager::Plain;
use crate::graphql::error::top_level;
use crate::graphql::global_id::{Kind, encode};

pub struct WebhookDelivery(Box<webhooks::Delivery>);

impl Plain for WebhookDelivery {}

impl From<webhooks::Delivery> for WebhookDelivery {
    fn from(delivery: webhooks::Delivery) -> Self {
        Self(Box::new(delivery))
    }
}

/// One event owed to one endpoint, and how far that has come.
#[Object]
impl WebhookDelivery {
    /// Opaque and unique over all types.
    async fn id(&self) -> ID {
        encode(Kind::WebhookDelivery, self.0.id.0)
    }

    /// What the receiver knows it by: the header `webhook-id`, the same on every attempt.
    fn message_id(&self) -> String {
        message_id(self.0.id)
    }

    /// Who is to get it.
    async fn endpoint(&self, ctx: &Context<'_>) -> Result<WebhookEndpoint> {
        let id = self.0.endpoint_id;
        let endpoint = ctx.reading()?.loaders.webhooks.endpoints.get(id).await?;
        endpoint.map(WebhookEndpoint).ok_or_else(|| top_level(Error::unknown_id("webhook endpoint")))
    }

    /// The event's kind.
    fn kind(&self) -> &str {
        &self.0.kind
    }

    /// The event's place among all of the company; null for a test, which is of no event.
    fn sequence(&self) -> Option<i64> {
        self.0.sequence
    }

    /// The event's payload: `data` in the message.
    fn payload(&self) -> Json<&Value> {
        Json(&self.0.payload)
    }

    /// When the event happened.
    fn occurred_at(&self) -> DateTime<Utc> {
        self.0.occurred_at
    }

    /// How it came to be.
    fn origin(&self) -> WebhookDeliveryOrigin {
        self.0.origin.into()
    }

    /// For a replay, the id of the first delivery of the same event to the same endpoint; null if there was none, or it is no
    /// longer kept.
    fn replay_of(&self) -> Option<ID> {
        self.0.replay_of.map(|id| encode(Kind::WebhookDelivery, id.0))
    }

    /// Where it stands.
    fn state(&self) -> WebhookDeliveryState {
        self.0.state.into()
    }

    /// When the next attempt is made, if there is to be one; null while an attempt is under way.
    async fn next_attempt_at(&self, ctx: &Context<'_>) -> Result<Option<DateTime<Utc>>> {
        let at = self.0.next_attempt_at;
        if self.0.state != webhooks::DeliveryState::Pending {
            return Ok(None);
        }
        if self.0.attempt == 0 || at <= Utc::now() {
            return Ok(Some(at));
        }
        // While its last attempt is not written down, that is when its claim ends.
        let attempts = ctx.reading()?.loaders.webhooks.attempts.get(self.0.id).await?;
        let ended = attempts.into_iter().flatten().any(|attempt| attempt.attempt == self.0.attempt);
        Ok(ended.then_some(at))
    }

    /// All attempts that have ended, in their order.
    async fn attempts(&self, ctx: &Context<'_>) -> Result<Vec<WebhookAttempt>> {
        let attempts = ctx.reading()?.loaders.webhooks.attempts.get(self.0.id).await?;
        Ok(attempts.into_iter().flatten().map(WebhookAttempt::from).collect())
    }

    /// When it came to be.
    fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }

    /// When it was delivered or given up; null while it is pending.
    fn finished_at(&self) -> Option<DateTime<Utc>> {
        self.0.finished_at
    }
}

/// One request to an endpoint and what came back.
#[derive(SimpleObject)]
pub struct WebhookAttempt {
    /// From 1.
    number: i32,
    /// When it was made.
    at: DateTime<Utc>,
    /// How long it took until the status of the answer was there, in milliseconds; without one, until the attempt was given up.
    milliseconds: i32,
    /// The answer's HTTP status; null when there was no answer.
    status: Option<i32>,
    /// Why it counts as failed; null when it was delivered.
    error_class: Option<WebhookErrorClass>,
    /// The same as a sentence.
    error: Option<String>,
    /// The first 4 kB of the answer's body.
    response: String,
}

impl From<webhooks::Attempt> for WebhookAttempt {
    fn from(attempt: webhooks::Attempt) -> Self {
        Self {
            number: attempt.attempt,
            at: attempt.at,
            milliseconds: attempt.duration_ms,
            status: attempt.status,
            error_class: attempt.error_class.map(Into::into),
            error: attempt.error,
            response: attempt.response,
        }
    }
}
