//! What people do to metrics. Each operation is one transaction: the change, its version, audit and event.

use std::collections::BTreeSet;

use chrono::Utc;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::{FutureExt, try_join};
use serde_json::json;
use uuid::Uuid;

use super::changes::{self, ChangeTier, FieldChange};
use super::definition::{Definition, Details, Status, Summary, check_key};
use super::versions::{self, Semver};
use super::{LABELS, Metric, lineage, news, store};
use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::db::{Prepare, Transaction};
use crate::error::{Code, Error, Problem, Result};
use crate::events::Kind;
use crate::events::kinds::{METRIC_ARCHIVED, METRIC_CREATED};
use crate::events::payloads::{MetricPayload, Reference};
use crate::ids::{MetricId, TenantId};
use crate::schema::metrics;
use crate::text::Problems;
use crate::versions::{Entities, Entity, Thing, Touched};
use crate::{audit, domains, events};

const LINEAGE: Entities = Entities::of(&[Entity::Lineage]);

/// A metric to be.
#[derive(Debug, Clone, PartialEq)]
pub struct NewMetric {
    pub key: String,
    /// Key or name of its business domain.
    pub domain: Option<String>,
    /// Its `domain_id` is set from `domain`.
    pub definition: Definition,
    /// The first version as people write it; 1.0.0 unless the definition has a history elsewhere.
    pub version: Option<String>,
    /// Why, for the history.
    pub message: Option<String>,
}

/// How a metric is to change, beside its content.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    /// The revision that the caller has seen; the update fails if there has been another since.
    pub expected_revision: Option<i32>,
    /// `Some(None)` takes the metric out of its domain; `Some(Some(key or name))` moves it.
    pub domain: Option<Option<String>>,
    pub message: Option<String>,
}

#[derive(Insertable)]
#[diesel(table_name = metrics, treat_none_as_default_value = false)]
struct NewRow<'a> {
    tenant_id: TenantId,
    id: MetricId,
    key: &'a str,
    details: &'a Details,
    created_by: Option<Uuid>,
    updated_by: Option<Uuid>,
}

/// Adds a metric to the catalog.
pub async fn create(app: &App, actor: &Actor, mut new: NewMetric) -> Result<(Metric, Details)> {
    actor.require(Permission::CatalogWrite)?;
    let mut problems = Problems::default();
    check_key(&mut problems, "key", &new.key);
    let is_key = problems.is_empty();
    new.definition.check(&mut problems);
    check_message(&mut problems, new.message.as_deref());
    let version = new.version.as_deref().map_or(Ok(Semver::FIRST), Semver::given).unwrap_or_else(|problem| {
        problems.push(problem);
        Semver::FIRST
    });

    let tx = app.db.begin(actor.tenant).await?;
    let named = async {
        match &new.domain {
            Some(domain) => domains::named(&tx, actor.tenant, domain, &mut problems).await,
            None => Ok(None),
        }
    };
    let archived = async { if is_key { store::is_archived(&tx, actor.tenant, &new.key).await } else { Ok(None) } };
    let (domain_id, archived) = try_join!(named, archived)?;
    new.definition.summary.domain_id = domain_id;
    if let Some(is_archived) = archived {
        problems.push(taken(&new.key, is_archived));
    }
    problems.check()?;
    let metric = insert(&tx, actor, &new, version).await?;
    let fields: Vec<String> =
        changes::between(&Definition::default(), &new.definition).into_iter().map(|change| change.field).collect();
    let (tenant, edges) = (actor.tenant, lineage::edges(&metric.key, &new.definition.details.relationships));
    if edges.is_empty() {
        // Others may name it already, or commit meanwhile that they do.
        let key = metric.key.clone();
        tx.touch_if(LINEAGE, move |conn| async move { lineage::is_declared(conn, tenant, &key).await }.boxed());
    }
    let touched = Entities::of(&[Entity::Metrics, Entity::MetricSet]).and_if(!edges.is_empty(), Entity::Lineage);
    let tier = ChangeTier::Initial;
    let created = Change { action: "metric.created", event: METRIC_CREATED, tier, fields: &fields, touched, before: None };
    try_join!(
        versions::insert(&tx, &metric, &new.definition, tier, &fields, new.message.as_deref()),
        lineage::declare(&tx, tenant, metric.id, &edges),
        record(&tx, actor, &metric, created),
    )?;
    tx.commit().await?;
    Ok((metric, new.definition.details))
}

/// Changes a metric: `edit` is given its present content. A change of nothing writes nothing.
pub async fn update(
    app: &App,
    actor: &Actor,
    id: MetricId,
    update: Update,
    edit: impl FnOnce(&mut Definition) + Send,
) -> Result<(Metric, Details)> {
    actor.require(Permission::CatalogWrite)?;
    let mut problems = Problems::default();
    check_message(&mut problems, update.message.as_deref());

    let tx = app.db.begin(actor.tenant).await?;
    let (metric, details) = lock(&tx, actor.tenant, id, update.expected_revision).await?;
    let before = Definition { summary: metric.summary.clone(), details };
    let mut after = before.clone();
    edit(&mut after);
    after.summary.domain_id = match &update.domain {
        None => before.summary.domain_id,
        Some(None) => None,
        Some(Some(domain)) => domains::named(&tx, actor.tenant, domain, &mut problems).await?,
    };
    after.check(&mut problems);
    let status = after.summary.status;
    if metric.archived_at.is_some() && status != before.summary.status && status != Status::Removed {
        problems.add("status", Code::Invalid, "The metric is archived: restore it first");
    }
    problems.check()?;
    let changed = changes::between(&before, &after);
    if changed.is_empty() {
        return Ok((metric, before.details));
    }
    let metric = write(&tx, actor, Written::Updated, metric, &after, &changed, update.message.as_deref()).await?;
    tx.commit().await?;
    Ok((metric, after.details))
}

/// Takes a metric out of the lists. It keeps its history, and its status becomes removed.
pub async fn archive(app: &App, actor: &Actor, id: MetricId, expected_revision: Option<i32>) -> Result<(Metric, Details)> {
    set_archived(app, actor, id, expected_revision, true).await
}

/// Takes an archived metric back into the lists. Its status is again the last one that was not removed: draft if it had none.
pub async fn restore(app: &App, actor: &Actor, id: MetricId, expected_revision: Option<i32>) -> Result<(Metric, Details)> {
    set_archived(app, actor, id, expected_revision, false).await
}

async fn set_archived(
    app: &App,
    actor: &Actor,
    id: MetricId,
    expected_revision: Option<i32>,
    archived: bool,
) -> Result<(Metric, Details)> {
    actor.require(Permission::CatalogWrite)?;
    let tx = app.db.begin(actor.tenant).await?;
    let (mut metric, details) = lock(&tx, actor.tenant, id, expected_revision).await?;
    if metric.archived_at.is_some() == archived {
        return Ok((metric, details));
    }
    let before = Definition { summary: metric.summary.clone(), details };
    let mut after = before.clone();
    let (status, written, message) = if archived {
        (Status::Removed, Written::Archived, "Archived")
    } else {
        (versions::last_status(&tx, actor.tenant, id).await?.unwrap_or_default(), Written::Restored, "Restored")
    };
    after.summary.status = status;
    metric.archived_at = archived.then(Utc::now);
    let changed = changes::between(&before, &after);
    let metric = write(&tx, actor, written, metric, &after, &changed, Some(message)).await?;
    tx.commit().await?;
    Ok((metric, after.details))
}

async fn insert(mut conn: &AsyncPgConnection, actor: &Actor, new: &NewMetric, version: Semver) -> Result<Metric> {
    let by = actor.user().map(|user| user.0);
    let row = NewRow {
        tenant_id: actor.tenant,
        id: MetricId::new(),
        key: &new.key,
        details: &new.definition.details,
        created_by: by,
        updated_by: by,
    };
    diesel::insert_into(metrics::table)
        .values((row, &new.definition.summary, version))
        .returning(Metric::as_returning())
        .get_result(&mut conn)
        .await
        .map_err(Error::from)
        // Somebody else has just added it.
        .map_err(|error| error.on_constraint("metrics_key_key", || taken(&new.key, false)))
}

fn taken(key: &str, is_archived: bool) -> Problem {
    let and = if is_archived { ": it is archived, and can be restored" } else { "" };
    Problem::new("key", Code::Taken, format!("There is a metric {key:?} already{and}"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Updated,
    Archived,
    Restored,
}

/// Writes the next revision: row, version, edges, audit entry and event.
async fn write(
    tx: &Transaction,
    actor: &Actor,
    written: Written,
    metric: Metric,
    after: &Definition,
    changed: &[FieldChange],
    message: Option<&str>,
) -> Result<Metric> {
    let tier = ChangeTier::of(changed.iter().map(|change| change.field.as_str()));
    let fields: Vec<String> = changed.iter().map(|change| change.field.clone()).collect();
    let before = metric.summary;
    let update = || news::kind_of_update(&before, &after.summary, &fields);
    let (action, kind) = match written {
        Written::Updated => ("metric.updated", update()),
        Written::Archived => ("metric.archived", METRIC_ARCHIVED),
        // As when an import brings it back.
        Written::Restored => ("metric.restored", update()),
    };
    let row = metrics::table.filter(metrics::tenant_id.eq(metric.tenant_id).and(metrics::id.eq(metric.id)));
    let metric: Metric = diesel::update(row)
        .set((
            &after.summary,
            metrics::details.eq(&after.details),
            metric.version.bump(tier),
            metrics::revision.eq(metric.revision + 1),
            metrics::updated_at.eq(Utc::now()),
            metrics::updated_by.eq(actor.user().map(|user| user.0)),
            metrics::archived_at.eq(metric.archived_at),
        ))
        .returning(Metric::as_returning())
        .prepared()
        .get_result(&mut &**tx)
        .await?;
    let is_listed_otherwise = written != Written::Updated;
    let relates_otherwise = fields.iter().any(|field| changes::is_within(field, "relationships"));
    let touched = Entities::of(&[Entity::Metrics])
        .and_if(is_listed_otherwise, Entity::MetricSet)
        .and_if(is_listed_otherwise || fields.iter().any(|field| LABELS.contains(&field.as_str())), Entity::MetricLabels)
        .and_if(relates_otherwise, Entity::Lineage);
    let change = Change { action, event: kind, tier, fields: &fields, touched, before: Some(&before) };
    try_join!(versions::insert(tx, &metric, after, tier, &fields, message), record(tx, actor, &metric, change))?;
    if relates_otherwise {
        lineage::forget(tx, metric.tenant_id, metric.id).await?;
        let edges = lineage::edges(&metric.key, &after.details.relationships);
        lineage::declare(tx, metric.tenant_id, metric.id, &edges).await?;
    }
    Ok(metric)
}

async fn lock(conn: &AsyncPgConnection, tenant: TenantId, id: MetricId, expected: Option<i32>) -> Result<(Metric, Details)> {
    let (metric, details) = store::lock(conn, tenant, id).await?.ok_or_else(|| Error::unknown_id("metric"))?;
    match expected {
        Some(expected) if expected != metric.revision => {
            Err(Error::VersionConflict { kind: "metric", expected, actual: metric.revision })
        }
        _ => Ok((metric, details)),
    }
}

fn check_message(problems: &mut Problems, message: Option<&str>) {
    if let Some(message) = message {
        problems.text("message", message, 2_000);
    }
}

/// What is recorded of a change.
struct Change<'a> {
    action: &'a str,
    event: Kind<MetricPayload>,
    tier: ChangeTier,
    fields: &'a [String],
    touched: Entities,
    /// What the metric was; `None` if there was none.
    before: Option<&'a Summary>,
}

async fn record(tx: &Transaction, actor: &Actor, metric: &Metric, change: Change<'_>) -> Result<()> {
    let Change { action, event, tier, fields, touched, before } = change;
    let details = json!({ "key": metric.key, "version": metric.version.to_string(), "changedFields": fields });
    let tags: BTreeSet<_> = before.iter().flat_map(|before| &before.tags).chain(&metric.summary.tags).collect();
    let itself = [Thing::metric(&metric.key), Thing::metric_by_id(metric.id.0)];
    let touched = Touched::things(touched, itself.into_iter().chain(tags.into_iter().map(|tag| Thing::metrics_tagged(tag))));
    let told = async {
        let domain = domains::reference(tx, actor.tenant, metric.summary.domain_id).await?;
        touch_domain(tx, domain.as_ref());
        let left = before.and_then(|before| before.domain_id).filter(|left| metric.summary.domain_id != Some(*left));
        touch_domain(tx, domains::reference(tx, actor.tenant, left).await?.as_ref());
        let payload = news::payload((metric.id, &metric.key), &metric.summary, metric.version, domain, tier, fields);
        events::push(tx, actor, event, metric.id.0, &payload).await
    };
    try_join!(audit::record_touching(tx, actor, action, ("metric", metric.id.0), &details, touched), told)?;
    Ok(())
}

/// Notes that the metrics of a domain have changed.
fn touch_domain(tx: &Transaction, domain: Option<&Reference>) {
    if let Some(domain) = domain {
        let things = [Thing::metrics_of_domain(&domain.key), Thing::metrics_of_domain_by_id(domain.id)];
        tx.touch(Touched::things(Entities::NONE, things));
    }
}
