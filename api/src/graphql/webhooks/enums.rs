//! The enums of webhooks, as the schema spells them.

use async_graphql::Enum;

/// Why an endpoint is not told anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::webhooks::DisabledReason")]
pub enum WebhookDisabledReason {
    /// Somebody wanted it so.
    ByHand,
    /// It answered 410 Gone.
    Gone,
    /// It failed for five days, or for as long as the installation is set to.
    Failing,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::webhooks::DeliveryState")]
pub enum WebhookDeliveryState {
    /// Waits for its next attempt, or is under way.
    Pending,
    /// The endpoint answered 2xx.
    Delivered,
    /// Out of attempts; `retryDelivery` makes another.
    Failed,
    /// Given up because its endpoint was disabled.
    Discarded,
}

/// How a delivery came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::webhooks::Origin")]
pub enum WebhookDeliveryOrigin {
    /// The event happened.
    Event,
    /// Somebody asked for it again with `replayEvents`.
    Replay,
    /// Somebody tries the endpoint out with `testWebhook`. There is one attempt.
    Test,
}

/// Why an attempt counts as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::webhooks::ErrorClass")]
pub enum WebhookErrorClass {
    /// Its address is not one that is sent to: not of the public internet, or not encrypted.
    Address,
    /// No connection: the name is unknown, nobody listens, or the encryption failed.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke, or the answer was not HTTP.
    Protocol,
    /// It answered 3xx. Redirects are not followed.
    Redirect,
    /// It answered 410: it wants no more, and was disabled.
    Gone,
    /// It answered anything else that is not 2xx.
    Status,
    /// Its secrets could not be decrypted: the installation has lost their key.
    Secret,
}
