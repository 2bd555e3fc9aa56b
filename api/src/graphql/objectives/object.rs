//! An objective, as GraphQL shows it.

use std::collections::HashSet;
use std::sync::Arc;

use async_graphql::{Context, ID, Json, Object, Result, SimpleObject};
use chrono::{DateTime, NaiveDate, Utc};
use futures::future::BoxFuture;
use mdl::metrics::Columns;
use mdl::objectives::{self, progress};
use serde_json::{Map, Value};

use super::enums::ObjectiveStatus;
use super::key_result::KeyResult;
use crate::graphql::context::ContextExt;
use crate::graphql::domains::{self, BusinessDomain};
use crate::graphql::eager::{Eager, EagerList, Inner, plain_fields};
use crate::graphql::global_id::{Kind, encode};
use crate::graphql::loaders;
use crate::graphql::metrics::{Metric, columns_of};
use crate::graphql::users::{self, User};

#[derive(Clone)]
pub struct Objective(pub Arc<objectives::Objective>);

impl From<objectives::Objective> for Objective {
    fn from(objective: objectives::Objective) -> Self {
        Self(Arc::new(objective))
    }
}

/// The days in which an objective is to be reached. Both belong to it.
#[derive(SimpleObject)]
pub struct Timeframe {
    /// First day.
    start: Option<NaiveDate>,
    /// Last day.
    end: Option<NaiveDate>,
}

/// What the company wants to reach in a timeframe.
#[Object]
impl Objective {
    /// Opaque and unique over all types.
    pub async fn id(&self, ctx: &Context<'_>) -> ID {
        self.global_id(ctx)
    }

    /// The stable human name, unique in the catalog: `OBJ-001`.
    fn key(&self) -> &str {
        &self.0.key
    }

    /// What is to be reached, in a line.
    fn name(&self) -> &str {
        &self.0.content.name
    }

    /// What is to be reached, and why.
    fn description(&self) -> &str {
        &self.0.content.description
    }

    /// Who answers for it.
    fn owner(&self) -> Option<&str> {
        self.0.content.owner.as_deref()
    }

    /// Where it stands, as its owner says.
    fn status(&self) -> ObjectiveStatus {
        self.0.content.status.into()
    }

    /// How important it is, as the company ranks: `P0`, `high`, …
    fn priority(&self) -> Option<&str> {
        self.0.content.priority.as_deref()
    }

    /// The part of the company's strategy that it serves.
    fn pillar(&self) -> Option<&str> {
        self.0.content.pillar.as_deref()
    }

    /// The days in which it is to be reached.
    fn timeframe(&self) -> Timeframe {
        Timeframe { start: self.0.content.starts_on, end: self.0.content.ends_on }
    }

    /// The area of the business that it belongs to.
    async fn domain(&self, ctx: &Context<'_>) -> Option<Result<Eager<BusinessDomain>>> {
        domains::by_id(ctx, self.0.content.domain_id?).await
    }

    /// The metrics that it is about, in its own order: those of `metricKeys` that exist.
    #[graphql(complexity = "1 + 5 * child_complexity")]
    async fn metrics(&self, ctx: &Context<'_>) -> Result<EagerList<Metric>> {
        self.metrics_found(ctx, columns_of(&ctx.look_ahead())).await.map(EagerList)
    }

    /// Keys of the metrics that it is about, whether these exist or not.
    fn metric_keys(&self) -> &[String] {
        &self.0.content.metric_keys
    }

    /// Those of `metricKeys` that no metric has (yet).
    async fn unresolved_metric_keys(&self, ctx: &Context<'_>) -> Result<Vec<&str>> {
        let found = self.metrics_found(ctx, Columns::NONE).await?;
        let found: HashSet<&str> = found.iter().map(|metric| metric.row.key.as_str()).collect();
        Ok(self.0.content.metric_keys.iter().map(String::as_str).filter(|key| !found.contains(key)).collect())
    }

    /// How it is measured, in its own order, without archived key results.
    #[graphql(complexity = "1 + 5 * child_complexity")]
    async fn key_results(&self, ctx: &Context<'_>) -> Result<EagerList<KeyResult>> {
        let found = self.key_results_found(ctx).await?;
        Ok(EagerList(found.into_iter().map(|key_result| KeyResult::of(key_result, self.0.clone())).collect()))
    }

    /// How far it has come, from 0 to 1: the mean progress of its key results. Null when there is none to compute it from.
    async fn progress(&self, ctx: &Context<'_>) -> Option<Result<f64>> {
        let found = self.key_results_found(ctx).await;
        found.map(|all| progress::mean(all.iter().map(|key_result| progress::progress(&key_result.content)))).transpose()
    }

    /// Imported fields that the model has no place for, under their own names. Free-form.
    fn extra(&self) -> Json<&Map<String, Value>> {
        Json(&self.0.content.extra.0)
    }

    /// Counts the changes from 1. This is what an update takes as `expectedVersion`.
    fn revision(&self) -> i32 {
        self.0.revision
    }

    /// When it was added to the catalog.
    fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }

    /// Who added it; null if it was no person.
    async fn created_by(&self, ctx: &Context<'_>) -> Option<Result<User>> {
        users::by_id(ctx, self.0.created_by).await
    }

    /// When it last changed.
    fn updated_at(&self) -> DateTime<Utc> {
        self.0.updated_at
    }

    /// Who changed it last; null if it was no person.
    async fn updated_by(&self, ctx: &Context<'_>) -> Option<Result<User>> {
        users::by_id(ctx, self.0.updated_by).await
    }

    /// When it was taken out of the lists.
    fn archived_at(&self) -> Option<DateTime<Utc>> {
        self.0.archived_at
    }
}

plain_fields!(Objective {
    "id" => global_id,
    "key" => key,
    "name" => name,
    "description" => description,
    "owner" => owner,
    "status" => status,
    "priority" => priority,
    "pillar" => pillar,
    "metricKeys" => metric_keys,
    "revision" => revision,
    "createdAt" => created_at,
    "updatedAt" => updated_at,
    "archivedAt" => archived_at,
}
    fn ahead(objectives: &[&Self], field: &str, ctx: &Context<'_>) -> Option<BoxFuture<'static, ()>> {
        match field {
            "domain" => domains::ahead(ctx, objectives.iter().filter_map(|objective| objective.0.content.domain_id)),
            "keyResults" => {
                let ids = objectives.iter().map(|objective| objective.0.id).collect();
                Some(loaders::ahead(ctx.reading().ok()?, |loaders| &loaders.objectives.key_results, ids))
            }
            _ => None,
        }
    }

    fn write_object(&self, field: &str, ctx: &Context<'_>, inner: &mut Inner<'_>, json: &mut Vec<u8>) -> bool {
        field == "domain" && domains::write_by_id(ctx, self.0.content.domain_id, inner, json)
    }
);

impl Objective {
    /// Its id, for who need not wait for it.
    fn global_id(&self, _: &Context<'_>) -> ID {
        encode(Kind::Objective, self.0.id.0)
    }

    async fn key_results_found(&self, ctx: &Context<'_>) -> Result<Vec<Arc<objectives::KeyResult>>> {
        Ok(ctx.reading()?.loaders.objectives.key_results.get(self.0.id).await?.unwrap_or_default())
    }

    async fn metrics_found(&self, ctx: &Context<'_>, columns: Columns) -> Result<Vec<Metric>> {
        let keys = self.0.content.metric_keys.iter().map(|key| (key.clone(), columns)).collect();
        ctx.reading()?.loaders.metrics.by_key.get_many(keys).await
    }
}
