//! A key result, as GraphQL shows it.

use std::sync::Arc;

use async_graphql::{Context, ID, Json, Object, Result};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use mdl::Error;
use mdl::objectives::{self, progress};
use serde_json::{Map, Value};

use super::Objective;
use super::enums::{KeyResultDirection, KeyResultStatus};
use crate::graphql::context::ContextExt;
use crate::graphql::eager::{EagerList, plain_fields};
use crate::graphql::error::top_level;
use crate::graphql::global_id::{Kind, encode};
use crate::graphql::loaders;
use crate::graphql::metrics::{Metric, columns_of};
use crate::graphql::users::{self, User};

/// A key result, and its objective where that is at hand.
#[derive(Clone)]
pub struct KeyResult {
    row: Arc<objectives::KeyResult>,
    objective: Option<Arc<objectives::Objective>>,
}

impl From<Arc<objectives::KeyResult>> for KeyResult {
    fn from(row: Arc<objectives::KeyResult>) -> Self {
        Self { row, objective: None }
    }
}

impl From<objectives::KeyResult> for KeyResult {
    fn from(row: objectives::KeyResult) -> Self {
        Arc::new(row).into()
    }
}

/// A measurable part of an objective.
#[Object]
impl KeyResult {
    /// Opaque and unique over all types.
    pub async fn id(&self, ctx: &Context<'_>) -> ID {
        self.global_id(ctx)
    }

    /// The stable human name, unique within its objective: `KR-001`.
    fn key(&self) -> &str {
        &self.row.key
    }

    /// What is to be reached, in a line.
    fn name(&self) -> &str {
        &self.row.content.name
    }

    /// How it is read.
    fn description(&self) -> &str {
        &self.row.content.description
    }

    /// What its values count: `percentage`, `USD`, …
    fn unit(&self) -> Option<&str> {
        self.row.content.unit.as_deref()
    }

    /// Which way its value has to go.
    fn direction(&self) -> KeyResultDirection {
        self.row.content.direction.into()
    }

    /// Where it started.
    fn baseline_value(&self) -> Option<f64> {
        self.row.content.baseline_value
    }

    /// Where it should arrive.
    fn target_value(&self) -> Option<f64> {
        self.row.content.target_value
    }

    /// Where it is.
    fn current_value(&self) -> Option<f64> {
        self.row.content.current_value
    }

    /// How far it has come, from 0 to 1. Computed: `(current - baseline) / (target - baseline)`, kept within 0 and 1; without a
    /// baseline, or with one beyond the target, `current / target` where more is better and `target / current` where less
    /// is; 1 at the target and beyond; for a value to be maintained one minus its relative distance from the target. Null
    /// without a current value or a target.
    fn progress(&self) -> Option<f64> {
        progress::progress(&self.row.content)
    }

    /// Where it stands today. Computed from `progress` and the share of its objective's timeframe that has passed: at least
    /// 70 % of that is on track, at least 40 % at risk, less is behind.
    async fn status(&self, ctx: &Context<'_>) -> Result<KeyResultStatus> {
        let objective = self.objective_found(ctx).await?;
        let (start, end) = (objective.content.starts_on, objective.content.ends_on);
        Ok(progress::status(&self.row.content, start, end, Utc::now().date_naive()).into())
    }

    /// The metrics that it is read from, in its own order: those of `metricKeys` that exist.
    #[graphql(complexity = "1 + 5 * child_complexity")]
    async fn metrics(&self, ctx: &Context<'_>) -> Result<EagerList<Metric>> {
        let key = (self.row.id, columns_of(&ctx.look_ahead()));
        Ok(EagerList(ctx.reading()?.loaders.objectives.key_result_metrics.get(key).await?.unwrap_or_default()))
    }

    /// Keys of the metrics that it is read from, whether these exist or not.
    async fn metric_keys(&self, ctx: &Context<'_>) -> Result<Vec<String>> {
        Ok(ctx.reading()?.loaders.objectives.key_result_metric_keys.get(self.row.id).await?.unwrap_or_default())
    }

    /// The objective that it measures.
    async fn objective(&self, ctx: &Context<'_>) -> Result<Objective> {
        Ok(Objective(self.objective_found(ctx).await?))
    }

    /// Imported fields that the model has no place for, under their own names. Free-form.
    fn extra(&self) -> Json<&Map<String, Value>> {
        Json(&self.row.content.extra.0)
    }

    /// Counts the changes from 1. This is what an update takes as `expectedVersion`.
    fn revision(&self) -> i32 {
        self.row.revision
    }

    /// When it was added to the catalog.
    fn created_at(&self) -> DateTime<Utc> {
        self.row.created_at
    }

    /// Who added it; null if it was no person.
    async fn created_by(&self, ctx: &Context<'_>) -> Option<Result<User>> {
        users::by_id(ctx, self.row.created_by).await
    }

    /// When it last changed.
    fn updated_at(&self) -> DateTime<Utc> {
        self.row.updated_at
    }

    /// Who changed it last; null if it was no person.
    async fn updated_by(&self, ctx: &Context<'_>) -> Option<Result<User>> {
        users::by_id(ctx, self.row.updated_by).await
    }

    /// When it was taken out of its objective.
    fn archived_at(&self) -> Option<DateTime<Utc>> {
        self.row.archived_at
    }
}

plain_fields!(KeyResult {
    "id" => global_id,
    "key" => key,
    "name" => name,
    "description" => description,
    "unit" => unit,
    "direction" => direction,
    "baselineValue" => baseline_value,
    "targetValue" => target_value,
    "currentValue" => current_value,
    "progress" => progress,
    "revision" => revision,
    "createdAt" => created_at,
    "updatedAt" => updated_at,
    "archivedAt" => archived_at,
}
    fn ahead(key_results: &[&Self], field: &str, ctx: &Context<'_>) -> Option<BoxFuture<'static, ()>> {
        if field != "metrics" {
            return None;
        }
        let columns = columns_of(&ctx.look_ahead());
        let keys = key_results.iter().map(|key_result| (key_result.row.id, columns)).collect();
        Some(loaders::ahead(ctx.reading().ok()?, |loaders| &loaders.objectives.key_result_metrics, keys))
    }
);

impl KeyResult {
    /// Its id, for who need not wait for it.
    fn global_id(&self, _: &Context<'_>) -> ID {
        encode(Kind::KeyResult, self.row.id.0)
    }

    pub fn of(row: Arc<objectives::KeyResult>, objective: Arc<objectives::Objective>) -> Self {
        Self { row, objective: Some(objective) }
    }

    async fn objective_found(&self, ctx: &Context<'_>) -> Result<Arc<objectives::Objective>> {
        if let Some(objective) = &self.objective {
            return Ok(objective.clone());
        }
        let id = self.row.objective_id;
        let found = ctx.reading()?.loaders.objectives.by_id.get(id).await?;
        found.ok_or_else(|| top_level(Error::unknown_id("objective")))
    }
}
