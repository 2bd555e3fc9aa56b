//! A business domain, as GraphQL shows it.

use std::sync::Arc;

use async_graphql::{Context, ID, Json, Object, Result};
use chrono::{DateTime, Utc};
use mdl::domains::Domain;
use mdl::page::{Page, PageArgs};
use serde_json::{Map, Value};

use crate::graphql::connection::connection;
use crate::graphql::context::ContextExt;
use crate::graphql::eager::{EagerList, plain_fields};
use crate::graphql::error::top_level;
use crate::graphql::global_id::{Kind, encode};
use crate::graphql::limits::page_cost;
use crate::graphql::metrics::list::{MetricConnection, MetricTotals, metric_connection, page_columns};
use crate::graphql::metrics::{Metric, columns_of};
use crate::graphql::objectives::{Objective, ObjectiveConnection, ObjectiveTotals};
use crate::graphql::users::{self, User};

#[derive(Clone)]
pub struct BusinessDomain(pub Arc<Domain>);

impl From<Domain> for BusinessDomain {
    fn from(domain: Domain) -> Self {
        Self(Arc::new(domain))
    }
}

/// An area of the business that metrics and objectives belong to.
#[Object]
impl BusinessDomain {
    /// Opaque and unique over all types.
    pub async fn id(&self, ctx: &Context<'_>) -> ID {
        self.global_id(ctx)
    }

    /// The stable human name, unique in the catalog: `DOMAIN-REVENUE`.
    fn key(&self) -> &str {
        &self.0.key
    }

    /// What people call it; unique in the catalog.
    fn name(&self) -> &str {
        &self.0.content.name
    }

    /// What belongs to it.
    fn description(&self) -> &str {
        &self.0.content.description
    }

    /// The team that answers for it.
    fn owner_team(&self) -> Option<&str> {
        self.0.content.owner_team.as_deref()
    }

    /// Who has a say.
    fn stakeholders(&self) -> &[String] {
        &self.0.content.stakeholders
    }

    /// The industry that it is peculiar to.
    fn industry(&self) -> Option<&str> {
        self.0.content.industry.as_deref()
    }

    /// How important it is to the company, in the company's own words: `critical`, `high`, …
    fn priority(&self) -> Option<&str> {
        self.0.content.priority.as_deref()
    }

    /// Whether it exists only because a metric named it: nobody has defined it yet.
    fn implied(&self) -> bool {
        self.0.implied
    }

    /// Its metrics, ordered by key, without archived ones.
    #[graphql(complexity = "page_cost(first, last, child_complexity)")]
    async fn metrics(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "How many, from the start of the list or after `after`; at most 100, 20 if neither this nor `last` is given."
        )]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes after it.")] after: Option<String>,
        #[graphql(desc = "How many, from the end of the list or before `before`; at most 100.")] last: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes before it.")] before: Option<String>,
    ) -> Result<MetricConnection> {
        let args = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        let page = ctx.reading()?.loaders.domains.metrics.get((self.0.id, (args, page_columns(ctx)))).await?;
        Ok(metric_connection(ctx, page, MetricTotals::In(self.0.id)))
    }

    /// How many metrics it has, without archived ones.
    async fn metric_count(&self, ctx: &Context<'_>) -> Result<i64> {
        Ok(ctx.reading()?.loaders.domains.metric_count.get(self.0.id).await?.unwrap_or(0))
    }

    /// Its objectives, ordered by key, without archived ones.
    #[graphql(complexity = "page_cost(first, last, child_complexity)")]
    async fn objectives(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "How many, from the start of the list or after `after`; at most 100, 20 if neither this nor `last` is given."
        )]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes after it.")] after: Option<String>,
        #[graphql(desc = "How many, from the end of the list or before `before`; at most 100.")] last: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes before it.")] before: Option<String>,
    ) -> Result<ObjectiveConnection> {
        let args = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        let page = ctx.reading()?.loaders.domains.objectives.get((self.0.id, args)).await?.unwrap_or_else(Page::empty);
        Ok(connection(ctx, page, ObjectiveTotals::In(self.0.id), Objective))
    }

    /// Keys of the objectives that it names as its own, whether these exist or not.
    fn objective_keys(&self) -> &[String] {
        &self.0.content.objective_keys
    }

    /// The metrics that it is steered by, in its own order: those of `keyMetricKeys` that exist.
    #[graphql(complexity = "1 + 5 * child_complexity")]
    async fn key_metrics(&self, ctx: &Context<'_>) -> Result<EagerList<Metric>> {
        let columns = columns_of(&ctx.look_ahead());
        let keys = self.0.content.key_metric_keys.iter().map(|key| (key.clone(), columns)).collect();
        ctx.reading()?.loaders.metrics.by_key.get_many(keys).await.map(EagerList)
    }

    /// Keys of the metrics that it is steered by, whether these exist or not.
    fn key_metric_keys(&self) -> &[String] {
        &self.0.content.key_metric_keys
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

plain_fields!(BusinessDomain {
    "id" => global_id,
    "key" => key,
    "name" => name,
    "description" => description,
    "ownerTeam" => owner_team,
    "stakeholders" => stakeholders,
    "industry" => industry,
    "priority" => priority,
    "implied" => implied,
    "objectiveKeys" => objective_keys,
    "keyMetricKeys" => key_metric_keys,
    "revision" => revision,
    "createdAt" => created_at,
    "updatedAt" => updated_at,
    "archivedAt" => archived_at,
});

impl BusinessDomain {
    /// Its id, for who need not wait for it.
    fn global_id(&self, _: &Context<'_>) -> ID {
        encode(Kind::Domain, self.0.id.0)
    }
}
