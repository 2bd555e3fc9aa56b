//! What people do with endpoints. Every change is in the audit log.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};
use uuid::Uuid;

use super::headers::{HeaderDraft, Headers};
use super::secrets::{self, SigningSecret};
use super::{DisabledReason, Endpoint, Filter, Settings, WebhookUrl, health, store};
use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::db::Transaction;
use crate::error::{Code, Error, Result};
use crate::ids::{TenantId, WebhookEndpointId};
use crate::outbound::Guard;
use crate::schema::webhook_endpoints as endpoints;
use crate::text::Problems;
use crate::{audit, events};

/// An endpoint as somebody wants it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Draft {
    pub url: String,
    pub description: String,
    /// Empty for all.
    pub event_kinds: Vec<String>,
    pub filter: Filter,
    pub headers: Vec<HeaderDraft>,
    /// Attempts per second; as many as there are if not set.
    pub rate_limit: Option<i32>,
}

impl Draft {
    /// One that changes nothing.
    fn of(settings: &Settings) -> Self {
        Self {
            url: settings.url.as_str().to_owned(),
            description: settings.description.clone(),
            event_kinds: settings.event_kinds.clone(),
            filter: settings.filter.clone(),
            headers: settings.headers.to_drafts(),
            rate_limit: settings.rate_limit,
        }
    }

    /// What is to be stored in place of `before`, or everything that is wrong with it.
    fn parse(self, app: &App, id: WebhookEndpointId, before: Option<&Settings>) -> Result<Settings> {
        let mut problems = Problems::default();
        let url = WebhookUrl::parse(&self.url, &Guard::new(&app.config.webhooks.allow));
        if let Err(message) = &url {
            problems.add("url", Code::Invalid, message);
        }
        problems.text("description", &self.description, 2_000);
        problems.count("event_kinds", self.event_kinds.len(), 100);
        check_kinds(&mut problems, "event_kinds", &self.event_kinds);
        let filter = match before {
            // What was taken once must not be in the way of another change.
            Some(before) if before.filter == self.filter => self.filter,
            _ => self.filter.parse(&mut problems),
        };
        let none = Headers::default();
        let kept = before.map_or(&none, |before| &before.headers);
        // Whoever may change the address may not know these values, and would have them sent to wherever that leads.
        let elsewhere = matches!((&url, before), (Ok(url), Some(before)) if !url.is_at_origin_of(&before.url));
        if elsewhere && let Some(names) = kept.names_kept_by(&self.headers) {
            let message = format!("Give the values of secret headers again when the address changes: {names}");
            problems.add("headers", Code::Required, message);
        }
        let headers = Headers::from_drafts(&self.headers, kept, &app.sealer, id, &mut problems)?;
        if self.rate_limit.is_some_and(|limit| !(1..=10_000).contains(&limit)) {
            problems.add("rate_limit", Code::OutOfRange, "Must be between 1 and 10000");
        }
        problems.check()?;
        let url = url.map_err(|message| Error::invalid("url", Code::Invalid, message))?;
        let Draft { description, event_kinds, rate_limit, .. } = self;
        Ok(Settings { url, description, event_kinds, filter, headers, rate_limit })
    }
}

/// Adds a problem for each kind that no event is of.
pub(super) fn check_kinds(problems: &mut Problems, field: &str, kinds: &[String]) {
    for (i, kind) in kinds.iter().enumerate() {
        if events::kinds::by_name(kind).is_none() {
            problems.add(&format!("{field}.{i}"), Code::NotFound, format!("There are no events of the kind {kind:?}"));
        }
    }
}

#[derive(Insertable)]
#[diesel(table_name = endpoints, treat_none_as_default_value = false)]
struct NewRow {
    tenant_id: TenantId,
    id: WebhookEndpointId,
    created_by: Option<Uuid>,
    updated_by: Option<Uuid>,
}

/// Adds an endpoint. Its secret is returned here and never again.
///
/// Problems: `url`, `description`, `event_kinds`, `filter`, `headers`, `rate_limit`, and that there are too many already.
/// `Unavailable` without an encryption key.
pub async fn create(app: &App, actor: &Actor, draft: Draft) -> Result<(Endpoint, SigningSecret)> {
    actor.require(Permission::Webhooks)?;
    let id = WebhookEndpointId::new();
    let settings = draft.parse(app, id, None)?;
    let secret = SigningSecret::random();
    let by = actor.user().map(|user| user.0);
    let tx = app.db.begin(actor.tenant).await?;
    check_room(&tx, actor.tenant, app.config.webhooks.max_endpoints).await?;
    let endpoint: Endpoint = diesel::insert_into(endpoints::table)
        .values((NewRow { tenant_id: actor.tenant, id, created_by: by, updated_by: by }, settings))
        .returning(Endpoint::as_returning())
        .get_result(&mut &*tx)
        .await?;
    secrets::insert(&tx, &app.sealer, actor.tenant, id, &secret).await?;
    record(&tx, actor, "webhook.created", &endpoint).await?;
    tx.commit().await?;
    Ok((endpoint, secret))
}

/// Whether there may be one more. Whoever else adds one to this tenant counts when this is committed.
async fn check_room(tx: &Transaction, tenant: TenantId, most: u32) -> Result<()> {
    sql_query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind::<Text, _>(format!("webhook endpoints of {tenant}"))
        .execute(&mut &**tx)
        .await?;
    if store::count(tx, tenant).await? < i64::from(most) {
        return Ok(());
    }
    let message = format!("There are {most} webhook endpoints already, which is as many as MDL_WEBHOOK_MAX_ENDPOINTS allows");
    Err(Error::invalid("", Code::TooMany, message))
}

/// Changes an endpoint: `edit` is given its present draft. A change of nothing writes nothing.
pub async fn update(
    app: &App,
    actor: &Actor,
    id: WebhookEndpointId,
    expected_revision: Option<i32>,
    edit: impl FnOnce(&mut Draft) + Send,
) -> Result<Endpoint> {
    actor.require(Permission::Webhooks)?;
    let tx = app.db.begin(actor.tenant).await?;
    let endpoint = lock(&tx, actor.tenant, id, expected_revision).await?;
    let mut draft = Draft::of(&endpoint.settings);
    edit(&mut draft);
    let settings = draft.parse(app, id, Some(&endpoint.settings))?;
    if settings == endpoint.settings {
        return Ok(endpoint);
    }
    // Somewhere else it has not failed yet.
    let failing_since = endpoint.failing_since.filter(|_| settings.url == endpoint.settings.url);
    let endpoint = write(&tx, actor, Endpoint { settings, failing_since, ..endpoint }).await?;
    record(&tx, actor, "webhook.updated", &endpoint).await?;
    tx.commit().await?;
    Ok(endpoint)
}

/// Lets an endpoint be told of what happens from now on. What it missed meanwhile can be replayed.
pub async fn enable(app: &App, actor: &Actor, id: WebhookEndpointId, expected_revision: Option<i32>) -> Result<Endpoint> {
    actor.require(Permission::Webhooks)?;
    let tx = app.db.begin(actor.tenant).await?;
    let endpoint = lock(&tx, actor.tenant, id, expected_revision).await?;
    if endpoint.enabled {
        return Ok(endpoint);
    }
    let enabled = Endpoint { enabled: true, disabled_reason: None, failing_since: None, ..endpoint };
    let endpoint = write(&tx, actor, enabled).await?;
    record(&tx, actor, "webhook.enabled", &endpoint).await?;
    tx.commit().await?;
    Ok(endpoint)
}

/// Tells an endpoint nothing any more. What it has not got yet is discarded.
pub async fn disable(app: &App, actor: &Actor, id: WebhookEndpointId, expected_revision: Option<i32>) -> Result<Endpoint> {
    actor.require(Permission::Webhooks)?;
    let tx = app.db.begin(actor.tenant).await?;
    let endpoint = lock(&tx, actor.tenant, id, expected_revision).await?;
    if !endpoint.enabled {
        return Ok(endpoint);
    }
    let disabled = Endpoint { enabled: false, disabled_reason: Some(DisabledReason::ByHand), ..endpoint };
    let endpoint = write(&tx, actor, disabled).await?;
    let discarded = health::discard(&tx, actor.tenant, id).await?;
    audit::record(&tx, actor, "webhook.disabled", ("webhook", id.0), &json!({ "discarded": discarded })).await?;
    tx.commit().await?;
    Ok(endpoint)
}

/// Removes an endpoint, with its secrets and all that is known of its deliveries.
pub async fn delete(app: &App, actor: &Actor, id: WebhookEndpointId, expected_revision: Option<i32>) -> Result<Endpoint> {
    actor.require(Permission::Webhooks)?;
    let tx = app.db.begin(actor.tenant).await?;
    let endpoint = lock(&tx, actor.tenant, id, expected_revision).await?;
    diesel::delete(endpoints::table.find((actor.tenant, id))).execute(&mut &*tx).await?;
    record(&tx, actor, "webhook.deleted", &endpoint).await?;
    tx.commit().await?;
    Ok(endpoint)
}

async fn lock(tx: &Transaction, tenant: TenantId, id: WebhookEndpointId, expected: Option<i32>) -> Result<Endpoint> {
    let endpoint = store::lock(tx, tenant, id).await?.ok_or_else(|| Error::unknown_id("webhook endpoint"))?;
    match expected {
        Some(expected) if expected != endpoint.revision => {
            Err(Error::VersionConflict { kind: "webhook endpoint", expected, actual: endpoint.revision })
        }
        _ => Ok(endpoint),
    }
}

/// Writes the next revision of the row.
async fn write(tx: &Transaction, actor: &Actor, endpoint: Endpoint) -> Result<Endpoint> {
    let pause: Option<DateTime<Utc>> = None;
    Ok(diesel::update(endpoints::table.find((endpoint.tenant_id, endpoint.id)))
        .set((
            &endpoint.settings,
            endpoints::enabled.eq(endpoint.enabled),
            endpoints::disabled_reason.eq(endpoint.disabled_reason),
            endpoints::failing_since.eq(endpoint.failing_since),
            endpoints::not_before.eq(pause),
            endpoints::revision.eq(endpoint.revision + 1),
            endpoints::updated_at.eq(Utc::now()),
            endpoints::updated_by.eq(actor.user().map(|user| user.0)),
        ))
        .returning(Endpoint::as_returning())
        .get_result(&mut &**tx)
        .await?)
}

async fn record(tx: &Transaction, actor: &Actor, action: &str, endpoint: &Endpoint) -> Result<()> {
    audit::record(tx, actor, action, ("webhook", endpoint.id.0), &details(endpoint)).await
}

/// For the audit log. Paths and headers of receivers often hold a secret, so they are not in it.
fn details(endpoint: &Endpoint) -> Value {
    let Settings { url, description, event_kinds, filter, headers, rate_limit } = &endpoint.settings;
    let names: Vec<_> = headers.0.iter().map(|header| &header.name).collect();
    json!({
        "host": url.host(), "description": description, "eventKinds": event_kinds, "filter": filter, "headers": names,
        "rateLimit": rate_limit,
    })
}
