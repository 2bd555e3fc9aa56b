//! Webhooks: events, told to receivers outside.
//!
//! The actors: an [`Endpoint`] says who is to be told what. When the relay stamps events it calls [`owe`], which writes a
//! [`Delivery`] for each endpoint that an event concerns. The workers' courier takes what is due from the [`ledger`], sends it
//! as a [`message`] that is signed as Standard Webhooks 1.0 says, and writes down what came of it. [`health`] gives up on
//! endpoints that have failed for too long. What people do is in [`endpoints`] and [`deliveries`].
//!
//! A delivery is sent at least once, with the same id each time: a worker that dies between an answer and its note of it
//! leaves the delivery to be sent again.

pub mod deliveries;
pub mod endpoints;
mod filter;
pub mod headers;
pub mod health;
pub mod ledger;
pub mod message;
mod owe;
pub mod retries;
pub mod secrets;
pub mod statistics;
pub mod store;
mod url;

pub use filter::Filter;
pub use owe::owe;
pub use url::WebhookUrl;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::ids::{EventId, TenantId, WebhookDeliveryId, WebhookEndpointId};
use crate::schema::{webhook_attempts, webhook_deliveries, webhook_endpoints};
use crate::text::text_enum;
use headers::Headers;

/// The PostgreSQL notification that wakes the couriers.
pub const CHANNEL: &str = "mdl_webhooks";

/// The version of the payload that endpoints get.
pub const PAYLOAD_VERSION: i32 = 1;

/// A receiver of events outside: where it is, and what it is told of.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable)]
#[diesel(table_name = webhook_endpoints, primary_key(tenant_id, id), check_for_backend(diesel::pg::Pg))]
pub struct Endpoint {
    pub tenant_id: TenantId,
    pub id: WebhookEndpointId,
    #[diesel(embed)]
    pub settings: Settings,
    pub payload_version: i32,
    pub enabled: bool,
    pub disabled_reason: Option<DisabledReason>,
    /// The first failed attempt since the last that succeeded, of those that count against it.
    pub failing_since: Option<DateTime<Utc>>,
    pub revision: i32,
    pub created_at: DateTime<Utc>,
    pub created_by: Option<Uuid>,
    pub updated_at: DateTime<Utc>,
    pub updated_by: Option<Uuid>,
}

/// What people decide of an endpoint.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = webhook_endpoints, check_for_backend(diesel::pg::Pg), treat_none_as_null = true, treat_none_as_default_value = false)]
pub struct Settings {
    pub url: WebhookUrl,
    pub description: String,
    /// Empty for all.
    pub event_kinds: Vec<String>,
    pub filter: Filter,
    pub headers: Headers,
    /// Attempts per second; as many as there are if not set.
    pub rate_limit: Option<i32>,
}

impl Settings {
    /// Whether the endpoint is to be told of an event of this kind.
    pub fn wants(&self, kind: &str, payload: &Value) -> bool {
        (self.event_kinds.is_empty() || self.event_kinds.iter().any(|wanted| wanted == kind))
            && self.filter.lets_through(kind, payload)
    }
}

/// Why an endpoint is not told anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisabledReason {
    /// Somebody wanted it so.
    ByHand,
    /// It answered 410 Gone.
    Gone,
    /// It failed for too long.
    Failing,
}
text_enum!(DisabledReason { ByHand = "by_hand", Gone = "gone", Failing = "failing" });

/// One event owed to one endpoint, and how far that has come.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable)]
#[diesel(table_name = webhook_deliveries, primary_key(tenant_id, id), check_for_backend(diesel::pg::Pg))]
pub struct Delivery {
    pub tenant_id: TenantId,
    pub id: WebhookDeliveryId,
    pub endpoint_id: WebhookEndpointId,
    pub event_id: EventId,
    /// The event's place among those of the tenant; `None` for a test, which is of no event.
    pub sequence: Option<i64>,
    pub kind: String,
    pub payload: Value,
    pub occurred_at: DateTime<Utc>,
    pub origin: Origin,
    /// The first delivery of the same event to the same endpoint, if there was one.
    pub replay_of: Option<WebhookDeliveryId>,
    pub state: DeliveryState,
    /// Attempts begun.
    pub attempt: i32,
    /// When it is due. While an attempt runs: when it is taken up again, should nobody write what came of it.
    pub next_attempt_at: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
}

/// How a delivery came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The event happened.
    Event,
    /// Somebody asked for it again.
    Replay,
    /// Somebody tries the endpoint out. There is one attempt.
    Test,
}
text_enum!(Origin { Event = "event", Replay = "replay", Test = "test" });

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Waits for its next attempt, or is under way.
    Pending,
    /// The endpoint answered 2xx.
    Delivered,
    /// Out of attempts.
    Failed,
    /// Given up because its endpoint was disabled.
    Discarded,
}
text_enum!(DeliveryState { Pending = "pending", Delivered = "delivered", Failed = "failed", Discarded = "discarded" });

/// One request to an endpoint and what came back.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = webhook_attempts, check_for_backend(diesel::pg::Pg))]
pub struct Attempt {
    pub delivery_id: WebhookDeliveryId,
    /// From 1.
    pub attempt: i32,
    pub at: DateTime<Utc>,
    pub duration_ms: i32,
    /// `None` when there was no answer.
    pub status: Option<i32>,
    /// `None` when it was delivered.
    pub error_class: Option<ErrorClass>,
    /// The same as a sentence.
    pub error: Option<String>,
    /// The first 4 kB of the answer's body.
    pub response: String,
}

/// Why an attempt counts as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Its address is not one that we send to.
    Address,
    /// No connection: the name is unknown, nobody listens, or the encryption failed.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke, or the answer was not HTTP.
    Protocol,
    /// It answered 3xx. Redirects are not followed.
    Redirect,
    /// It answered 410: it wants no more.
    Gone,
    /// It answered anything else that is not 2xx.
    Status,
    /// We could not decrypt its secrets.
    Secret,
}
text_enum!(ErrorClass {
    Address = "address",
    Connect = "connect",
    Timeout = "timeout",
    Protocol = "protocol",
    Redirect = "redirect",
    Gone = "gone",
    Status = "status",
    Secret = "secret",
});
