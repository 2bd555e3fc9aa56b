//! What people send to change webhook endpoints.

use std::time::Duration;

use async_graphql::{ID, InputObject, MaybeUndefined};
use mdl::webhooks::Filter;
use mdl::webhooks::deliveries::Replay;
use mdl::webhooks::endpoints::Draft;
use mdl::webhooks::headers::HeaderDraft;

use crate::graphql::input::{put, put_as, put_list, put_some};

/// An endpoint to be added.
#[derive(InputObject)]
pub struct CreateWebhookEndpointInput {
    /// Where to send to: https, at an address of the public internet.
    url: String,
    /// Everything else.
    #[graphql(flatten)]
    settings: WebhookSettings,
}

/// A change of an endpoint. What is left out stays as it is; `null` clears; a list replaces the whole list.
#[derive(InputObject)]
pub struct UpdateWebhookEndpointInput {
    /// Which endpoint.
    pub id: ID,
    /// The `revision` that the change was made on: if there has been another since, nothing is changed, and the user error
    /// is `VERSION_CONFLICT`. Without it the change is made in any case.
    pub expected_version: Option<i32>,
    /// Where to send to: https, at an address of the public internet.
    url: MaybeUndefined<String>,
    /// Everything else.
    #[graphql(flatten)]
    settings: WebhookSettings,
}

#[derive(InputObject)]
struct WebhookSettings {
    /// What it is for, at most 2,000 characters.
    description: MaybeUndefined<String>,
    /// Kinds of events that it is told of, as `eventTypes` lists them; all of them if there are none here.
    event_kinds: MaybeUndefined<Vec<String>>,
    /// Which events of these kinds.
    filter: MaybeUndefined<WebhookFilterInput>,
    /// Headers that it wants beside those of every message; at most 20.
    headers: MaybeUndefined<Vec<WebhookHeaderInput>>,
    /// Most requests per second; null for no limit.
    rate_limit: MaybeUndefined<i32>,
}

/// Conditions on events, which must all hold. A list that is empty or left out is no condition. An event that says nothing of
/// what a condition asks for is left out: with a tier, say, events of objectives.
#[derive(InputObject)]
pub struct WebhookFilterInput {
    /// Keys or names of business domains: the event's has one of them.
    domains: Option<Vec<String>>,
    /// Tags: the metric has one of them.
    tags: Option<Vec<String>>,
    /// Tiers, as `TIER_1` or `tier_1`: the metric's is one of them.
    tiers: Option<Vec<String>>,
    /// Fields of metrics as payloads spell them: `definition.formula`, or `definition` for all of them. One of them has changed.
    changed_fields: Option<Vec<String>>,
}

impl From<WebhookFilterInput> for Filter {
    fn from(input: WebhookFilterInput) -> Self {
        Self {
            domains: input.domains.unwrap_or_default(),
            tags: input.tags.unwrap_or_default(),
            tiers: input.tiers.unwrap_or_default(),
            changed_fields: input.changed_fields.unwrap_or_default(),
        }
    }
}

/// A header that an endpoint wants.
#[derive(InputObject)]
pub struct WebhookHeaderInput {
    /// Its name, in any case.
    name: String,
    /// Its value. A secret that had one before keeps it if this is left out, unless scheme, host or port of the URL change.
    value: Option<String>,
    /// Whether it is encrypted, and never shown again. If not given it is not, but where `value` is left out: only a secret can be kept.
    secret: Option<bool>,
}

impl From<WebhookHeaderInput> for HeaderDraft {
    fn from(input: WebhookHeaderInput) -> Self {
        let secret = input.secret.unwrap_or(input.value.is_none());
        Self { name: input.name, value: input.value, secret }
    }
}

impl CreateWebhookEndpointInput {
    pub fn into_draft(self) -> Draft {
        let mut draft = Draft { url: self.url, ..Draft::default() };
        self.settings.apply(&mut draft);
        draft
    }
}

impl UpdateWebhookEndpointInput {
    pub fn apply(self, draft: &mut Draft) {
        put(&mut draft.url, self.url);
        self.settings.apply(draft);
    }
}

impl WebhookSettings {
    fn apply(self, draft: &mut Draft) {
        put(&mut draft.description, self.description);
        put_list(&mut draft.event_kinds, self.event_kinds);
        put_as(&mut draft.filter, self.filter);
        put_list(&mut draft.headers, self.headers);
        put_some(&mut draft.rate_limit, self.rate_limit);
    }
}

/// Names an endpoint.
#[derive(InputObject)]
pub struct WebhookEndpointInput {
    /// Which endpoint.
    pub id: ID,
    /// The `revision` that was seen; see `UpdateWebhookEndpointInput`.
    pub expected_version: Option<i32>,
}

/// A secret to be replaced.
#[derive(InputObject)]
pub struct RotateWebhookSecretInput {
    /// Which endpoint.
    pub id: ID,
    /// Hours in which the secrets before it sign as well, at most 168; 24 if not given.
    overlap_hours: Option<u32>,
}

impl RotateWebhookSecretInput {
    pub fn overlap(&self) -> Duration {
        Duration::from_secs(3600) * self.overlap_hours.unwrap_or(24)
    }
}

/// An endpoint to be tried out.
#[derive(InputObject)]
pub struct TestWebhookInput {
    /// Which endpoint.
    pub id: ID,
    /// The kind of event that is made up.
    pub kind: String,
}

/// Events to be sent again.
#[derive(InputObject)]
pub struct ReplayEventsInput {
    /// To which endpoint.
    pub id: ID,
    /// The `sequence` of the first.
    from: i64,
    /// The `sequence` of the last; the newest if not given.
    to: Option<i64>,
    /// Only of these kinds, as far as the endpoint is told of them; all that it is told of if not given.
    kinds: Option<Vec<String>>,
}

impl ReplayEventsInput {
    pub fn into_replay(self) -> Replay {
        Replay { from: self.from, to: self.to, kinds: self.kinds }
    }
}

/// A delivery to be tried again.
#[derive(InputObject)]
pub struct RetryDeliveryInput {
    /// Which delivery.
    pub id: ID,
}
