//! A webhook endpoint, as GraphQL shows it.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, Result, SimpleObject};
use chrono::{DateTime, Utc};
use mdl::error::{Code, Error};
use mdl::webhooks::headers::{Header, Stored};
use mdl::webhooks::secrets::StoredSecret;
use mdl::webhooks::statistics::Statistics;
use mdl::webhooks::{self, Filter};

use super::enums::WebhookDisabledReason;
use crate::graphql::context::ContextExt;
use crate::graphql::eager::Plain;
use crate::graphql::error::top_level;
use crate::graphql::global_id::{Kind, encode};
use crate::graphql::users::{self, User};

/// Longest time that statistics look back, in hours.
const LONGEST: i32 = 168;

pub struct WebhookEndpoint(pub Arc<webhooks::Endpoint>);

impl Plain for WebhookEndpoint {}

impl From<webhooks::Endpoint> for WebhookEndpoint {
    fn from(endpoint: webhooks::Endpoint) -> Self {
        Self(Arc::new(endpoint))
    }
}

/// A receiver of events outside: where it is, and what it is told of.
#[Object]
impl WebhookEndpoint {
    /// Opaque and unique over all types.
    async fn id(&self) -> ID {
        encode(Kind::WebhookEndpoint, self.0.id.0)
    }

    /// Where messages are sent to.
    fn url(&self) -> &str {
        self.0.settings.url.as_str()
    }

    /// What it is for.
    fn description(&self) -> &str {
        &self.0.settings.description
    }

    /// Kinds of events that it is told of; all of them if there are none here.
    fn event_kinds(&self) -> &[String] {
        &self.0.settings.event_kinds
    }

    /// Which events of these kinds.
    fn filter(&self) -> WebhookFilter {
        self.0.settings.filter.clone().into()
    }

    /// Headers that it wants beside those of every message.
    fn headers(&self) -> Vec<WebhookHeader> {
        self.0.settings.headers.0.iter().cloned().map(WebhookHeader::from).collect()
    }

    /// Most requests per second; null for no limit.
    fn rate_limit(&self) -> Option<i32> {
        self.0.settings.rate_limit
    }

    /// The version of the messages' payload.
    fn payload_version(&self) -> i32 {
        self.0.payload_version
    }

    /// Whether it is told anything.
    fn enabled(&self) -> bool {
        self.0.enabled
    }

    /// Why it is not told anything; null if it is.
    fn disabled_reason(&self) -> Option<WebhookDisabledReason> {
        self.0.disabled_reason.map(Into::into)
    }

    /// The first failed attempt since the last that succeeded or since a long silence, tests aside; null if the last one succeeded.
    fn failing_since(&self) -> Option<DateTime<Utc>> {
        self.0.failing_since
    }

    /// The secrets that sign its messages, the newest first; not the secrets themselves, which are shown once.
    async fn secrets(&self, ctx: &Context<'_>) -> Result<Vec<WebhookSecret>> {
        let secrets = ctx.reading()?.loaders.webhooks.secrets.get(self.0.id).await?;
        Ok(secrets.into_iter().flatten().map(WebhookSecret::from).collect())
    }

    /// How it is doing.
    async fn statistics(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "By the attempts of so many hours, up to 168.", default = 24)] hours: i32,
    ) -> Result<WebhookStatistics> {
        if !(1..=LONGEST).contains(&hours) {
            let message = format!("Must be between 1 and {LONGEST}, not {hours}");
            return Err(top_level(Error::invalid("hours", Code::OutOfRange, message)));
        }
        let statistics = ctx.reading()?.loaders.webhooks.statistics.get((self.0.id, hours)).await?;
        statistics.map(WebhookStatistics).ok_or_else(|| top_level(Error::unknown_id("webhook endpoint")))
    }

    /// Counts up with every change.
    fn revision(&self) -> i32 {
        self.0.revision
    }

    /// When it was added.
    fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }

    /// Who added it; null if it was no person.
    async fn created_by(&self, ctx: &Context<'_>) -> Option<Result<User>> {
        users::by_id(ctx, self.0.created_by).await
    }

    /// When it was last changed.
    fn updated_at(&self) -> DateTime<Utc> {
        self.0.updated_at
    }

    /// Who changed it last; null if it was no person.
    async fn updated_by(&self, ctx: &Context<'_>) -> Option<Result<User>> {
        users::by_id(ctx, self.0.updated_by).await
    }
}

/// Conditions on events, which must all hold. An empty list is no condition.
#[derive(SimpleObject)]
pub struct WebhookFilter {
    /// Keys or names of business domains: the event's has one of them.
    domains: Vec<String>,
    /// Tags: the metric has one of them.
    tags: Vec<String>,
    /// Tiers as payloads spell them, such as `tier_1`: the metric's is one of them.
    tiers: Vec<String>,
    /// Fields, or groups of them: one of them has changed.
    changed_fields: Vec<String>,
}

impl From<Filter> for WebhookFilter {
    fn from(Filter { domains, tags, tiers, changed_fields }: Filter) -> Self {
        Self { domains, tags, tiers, changed_fields }
    }
}

/// A header that an endpoint wants.
#[derive(SimpleObject)]
pub struct WebhookHeader {
    /// Its name, in lower case.
    name: String,
    /// Its value; null for a secret.
    value: Option<String>,
    /// Whether it is encrypted, and never shown.
    secret: bool,
}

impl From<Header> for WebhookHeader {
    fn from(Header { name, value }: Header) -> Self {
        match value {
            Stored::Plain(value) => Self { name, value: Some(value), secret: false },
            Stored::Sealed(_) => Self { name, value: None, secret: true },
        }
    }
}

/// That there is a secret; the secret itself was shown when it was made.
#[derive(SimpleObject)]
pub struct WebhookSecret {
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it stops signing; null for the newest.
    expires_at: Option<DateTime<Utc>>,
}

impl From<StoredSecret> for WebhookSecret {
    fn from(secret: StoredSecret) -> Self {
        Self { created_at: secret.created_at, expires_at: secret.expires_at }
    }
}

pub struct WebhookStatistics(Arc<Statistics>);

/// How an endpoint is doing.
#[Object]
impl WebhookStatistics {
    /// Attempts in the time that was asked for.
    fn attempts(&self) -> i64 {
        self.0.attempts
    }

    /// The share of them that succeeded, from 0 to 1; null if there was none.
    fn success_rate(&self) -> Option<f64> {
        self.0.success_rate()
    }

    /// 95 of 100 of them took no longer, in milliseconds; null if there was none.
    fn p95_milliseconds(&self) -> Option<f64> {
        self.0.p95_milliseconds
    }

    /// Deliveries that it has not got yet.
    fn pending(&self) -> i64 {
        self.0.pending
    }

    /// When the oldest of them came to be; null if it has got all.
    fn oldest_pending_at(&self) -> Option<DateTime<Utc>> {
        self.0.oldest_pending_at
    }
}
