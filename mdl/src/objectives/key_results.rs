//! Key results: rows, and the operations on them. The metrics that a key result is read from are linked by key.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::try_join;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::operations::{self, touched};
use super::{progress, store};
use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::db::{Prepare, Transaction};
use crate::error::{Code, Error, Problem, Result};
use crate::events::Kind;
use crate::events::kinds::{KEY_RESULT_ARCHIVED, KEY_RESULT_CREATED, KEY_RESULT_PROGRESS_CHANGED, KEY_RESULT_UPDATED};
use crate::events::payloads::{KeyResultPayload, ObjectivePayload, Reference};
use crate::extra::Extra;
use crate::ids::{KeyResultId, ObjectiveId, TenantId};
use crate::metrics::definition::check_key;
use crate::schema::{key_result_metrics, key_results};
use crate::text::{Problems, text_enum};
use crate::{audit, domains, events};

/// A measurable part of an objective.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable)]
#[diesel(table_name = key_results, primary_key(tenant_id, id), check_for_backend(diesel::pg::Pg))]
pub struct KeyResult {
    pub tenant_id: TenantId,
    pub id: KeyResultId,
    pub objective_id: ObjectiveId,
    /// Unique within its objective: `KR-001`.
    pub key: String,
    #[diesel(embed)]
    pub content: KeyResultContent,
    pub position: i32,
    pub revision: i32,
    pub created_at: DateTime<Utc>,
    pub created_by: Option<Uuid>,
    pub updated_at: DateTime<Utc>,
    pub updated_by: Option<Uuid>,
    pub archived_at: Option<DateTime<Utc>>,
}

/// What a person or a file says about a key result.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = key_results, check_for_backend(diesel::pg::Pg), treat_none_as_null = true, treat_none_as_default_value = false)]
#[serde(default)]
pub struct KeyResultContent {
    pub name: String,
    pub description: String,
    pub unit: Option<String>,
    pub direction: KeyResultDirection,
    pub baseline_value: Option<f64>,
    pub target_value: Option<f64>,
    pub current_value: Option<f64>,
    /// Imported fields that the model has no place for.
    pub extra: Extra,
}

/// Most bytes that the extra fields take as JSON. A hundred key results and their objective are one entry of a file.
const MAX_EXTRA: usize = 16 * 1024;

/// Which way the value has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyResultDirection {
    #[default]
    Increase,
    Decrease,
    Maintain,
}
text_enum!(KeyResultDirection { Increase = "increase", Decrease = "decrease", Maintain = "maintain" });

impl KeyResultContent {
    /// Everything that is wrong with this content.
    pub fn check(&self, problems: &mut Problems) {
        problems.line("name", &self.name, 1_000);
        problems.text("description", &self.description, 20_000);
        if let Some(unit) = &self.unit {
            problems.line("unit", unit, 300);
        }
        for (field, value) in
            [("baseline_value", self.baseline_value), ("target_value", self.target_value), ("current_value", self.current_value)]
        {
            if value.is_some_and(|value| !value.is_finite()) {
                problems.add(field, Code::OutOfRange, "Must be a finite number");
            }
        }
        self.extra.check(problems, MAX_EXTRA);
    }
}

#[derive(Insertable)]
#[diesel(table_name = key_results, treat_none_as_default_value = false)]
struct NewRow<'a> {
    tenant_id: TenantId,
    id: KeyResultId,
    objective_id: ObjectiveId,
    key: &'a str,
    position: i32,
    created_by: Option<Uuid>,
    updated_by: Option<Uuid>,
}

/// Adds a key result to an objective, after those it has.
pub async fn create(
    app: &App,
    actor: &Actor,
    objective: ObjectiveId,
    key: &str,
    content: &KeyResultContent,
    metric_keys: &[String],
) -> Result<KeyResult> {
    actor.require(Permission::CatalogWrite)?;
    let mut problems = Problems::default();
    check_key(&mut problems, "key", key);
    let is_key = problems.is_empty();
    content.check(&mut problems);
    check_metric_keys(&mut problems, metric_keys);

    let tx = app.db.begin(actor.tenant).await?;
    // Locking the objective makes key and position unique among its key results.
    if store::lock(&tx, actor.tenant, objective).await?.is_none() {
        problems.add("objective_id", Code::NotFound, "There is no such objective");
    } else if is_key && has_key(&tx, actor.tenant, objective, key).await? {
        problems.push(taken(key));
    }
    problems.check()?;
    let metric_keys = distinct(metric_keys.to_vec());
    let position = store::next_position(&tx, actor.tenant, objective).await?;
    let key_result = insert(&tx, actor, objective, key, content, position).await?;
    link(&tx, actor.tenant, key_result.id, &metric_keys).await?;
    record(&tx, actor, KEY_RESULT_CREATED, &key_result).await?;
    tx.commit().await?;
    Ok(key_result)
}

/// Changes a key result: `edit` is given its present content and metric keys. A change of nothing writes nothing.
pub async fn update(
    app: &App,
    actor: &Actor,
    id: KeyResultId,
    expected_revision: Option<i32>,
    edit: impl FnOnce(&mut KeyResultContent, &mut Vec<String>) + Send,
) -> Result<KeyResult> {
    actor.require(Permission::CatalogWrite)?;
    let tx = app.db.begin(actor.tenant).await?;
    let key_result = lock(&tx, actor.tenant, id, expected_revision).await?;
    let linked = store::metric_keys_of(&tx, actor.tenant, id).await?;
    let (mut content, mut metric_keys) = (key_result.content.clone(), linked.clone());
    edit(&mut content, &mut metric_keys);
    let mut problems = Problems::default();
    content.check(&mut problems);
    check_metric_keys(&mut problems, &metric_keys);
    problems.check()?;
    let metric_keys = distinct(metric_keys);
    if content == key_result.content && metric_keys == linked {
        return Ok(key_result);
    }
    let kind =
        if content.current_value == key_result.content.current_value { KEY_RESULT_UPDATED } else { KEY_RESULT_PROGRESS_CHANGED };
    let key_result = write(&tx, actor, KeyResult { content, ..key_result }).await?;
    if metric_keys != linked {
        link(&tx, actor.tenant, id, &metric_keys).await?;
    }
    record(&tx, actor, kind, &key_result).await?;
    tx.commit().await?;
    Ok(key_result)
}

/// Takes a key result out of its objective; it no longer counts for the progress.
pub async fn archive(app: &App, actor: &Actor, id: KeyResultId, expected_revision: Option<i32>) -> Result<KeyResult> {
    actor.require(Permission::CatalogWrite)?;
    let tx = app.db.begin(actor.tenant).await?;
    let key_result = lock(&tx, actor.tenant, id, expected_revision).await?;
    if key_result.archived_at.is_some() {
        return Ok(key_result);
    }
    let key_result = write(&tx, actor, KeyResult { archived_at: Some(Utc::now()), ..key_result }).await?;
    record(&tx, actor, KEY_RESULT_ARCHIVED, &key_result).await?;
    tx.commit().await?;
    Ok(key_result)
}

/// Inserts the row of a key result.
pub(super) async fn insert(
    mut conn: &AsyncPgConnection,
    actor: &Actor,
    objective_id: ObjectiveId,
    key: &str,
    content: &KeyResultContent,
    position: i32,
) -> Result<KeyResult> {
    let by = actor.user().map(|user| user.0);
    let row =
        NewRow { tenant_id: actor.tenant, id: KeyResultId::new(), objective_id, key, position, created_by: by, updated_by: by };
    diesel::insert_into(key_results::table)
        .values((row, content))
        .returning(KeyResult::as_returning())
        .get_result(&mut conn)
        .await
        .map_err(Error::from)
        .map_err(|error| error.on_constraint("key_results_key_key", || taken(key)))
}

async fn has_key(mut conn: &AsyncPgConnection, tenant: TenantId, objective: ObjectiveId, key: &str) -> Result<bool> {
    let same = key_results::table
        .filter(key_results::tenant_id.eq(tenant).and(key_results::objective_id.eq(objective)))
        .filter(key_results::key.eq(key));
    Ok(diesel::select(diesel::dsl::exists(same)).get_result(&mut conn).await?)
}

fn taken(key: &str) -> Problem {
    Problem::new("key", Code::Taken, format!("The objective has a key result {key:?} already"))
}

/// Makes these the metrics of a key result, in this order.
pub(super) async fn link(mut conn: &AsyncPgConnection, tenant: TenantId, id: KeyResultId, metric_keys: &[String]) -> Result<()> {
    let old =
        key_result_metrics::table.filter(key_result_metrics::tenant_id.eq(tenant).and(key_result_metrics::key_result_id.eq(id)));
    diesel::delete(old).execute(&mut conn).await?;
    let rows: Vec<_> = metric_keys
        .iter()
        .enumerate()
        .map(|(position, key)| {
            (
                key_result_metrics::tenant_id.eq(tenant),
                key_result_metrics::key_result_id.eq(id),
                key_result_metrics::metric_key.eq(key),
                key_result_metrics::position.eq(position as i32),
            )
        })
        .collect();
    if !rows.is_empty() {
        diesel::insert_into(key_result_metrics::table).values(rows).on_conflict_do_nothing().execute(&mut conn).await?;
    }
    Ok(())
}

async fn write(mut conn: &AsyncPgConnection, actor: &Actor, key_result: KeyResult) -> Result<KeyResult> {
    let row = key_results::table.filter(key_results::tenant_id.eq(key_result.tenant_id).and(key_results::id.eq(key_result.id)));
    Ok(diesel::update(row)
        .set((
            &key_result.content,
            key_results::revision.eq(key_result.revision + 1),
            key_results::updated_at.eq(Utc::now()),
            key_results::updated_by.eq(actor.user().map(|user| user.0)),
            key_results::archived_at.eq(key_result.archived_at),
        ))
        .returning(KeyResult::as_returning())
        .prepared()
        .get_result(&mut conn)
        .await?)
}

async fn lock(conn: &AsyncPgConnection, tenant: TenantId, id: KeyResultId, expected: Option<i32>) -> Result<KeyResult> {
    let found = store::lock_key_result(conn, tenant, id).await?.ok_or_else(|| Error::unknown_id("key result"))?;
    match expected {
        Some(expected) if expected != found.revision => {
            Err(Error::VersionConflict { kind: "key result", expected, actual: found.revision })
        }
        _ => Ok(found),
    }
}

fn check_metric_keys(problems: &mut Problems, keys: &[String]) {
    problems.count("metric_keys", keys.len(), 50);
    for (i, key) in keys.iter().enumerate() {
        check_key(problems, &format!("metric_keys.{i}"), key);
    }
}

/// Each key once, where it is named first: a metric is linked or it is not.
fn distinct(keys: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    keys.into_iter().filter(|key| seen.insert(key.clone())).collect()
}

async fn record(tx: &Transaction, actor: &Actor, kind: Kind<KeyResultPayload>, key_result: &KeyResult) -> Result<()> {
    let details = json!({ "key": key_result.key, "currentValue": key_result.content.current_value });
    let objective = store::by_ids(tx, actor.tenant, &[key_result.objective_id]).await?.pop();
    let objective = objective.ok_or_else(|| Error::internal("a key result has no objective"))?;
    let touched = touched(&objective);
    let told = async {
        let domain = domains::reference(tx, actor.tenant, objective.content.domain_id).await?;
        let objective = operations::payload(objective.id, &objective.key, &objective.content, domain);
        let payload = payload(key_result.id, &key_result.key, &key_result.content, &objective);
        events::push(tx, actor, kind, key_result.id.0, &payload).await
    };
    try_join!(audit::record_touching(tx, actor, kind.name, ("key_result", key_result.id.0), &details, touched), told)?;
    Ok(())
}

/// A key result as it is told of, with what is told of its objective.
pub(crate) fn payload(id: KeyResultId, key: &str, content: &KeyResultContent, objective: &ObjectivePayload) -> KeyResultPayload {
    KeyResultPayload {
        id: id.0,
        key: key.to_owned(),
        name: content.name.clone(),
        objective: Reference { id: objective.id, key: objective.key.clone(), name: objective.name.clone() },
        owner: objective.owner.clone(),
        domain: objective.domain.clone(),
        unit: content.unit.clone(),
        baseline_value: content.baseline_value,
        target_value: content.target_value,
        current_value: content.current_value,
        progress: progress::progress(content),
    }
}
