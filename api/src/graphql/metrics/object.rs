//! A metric, as GraphQL shows it.

use std::sync::{Arc, OnceLock};

use async_graphql::{Context, ID, Json, Lookahead, Object, Result};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use mdl::metrics::lineage::Side;
use mdl::metrics::{Columns, Details, MetricVersion as VersionRow, store};
use mdl::page::PageArgs;
use mdl::{Error, metrics};
use serde_json::{Map, Value};

use super::details::{
    ExampleQuery, MetricAlignment, MetricData, MetricDefinition, MetricDimension, MetricGovernance, MetricRelationships,
    MetricTargets, MetricUsage, MetricVisualization, UnresolvedReference,
};
use super::enums::{IndicatorKind, MetricStatus, MetricType, Tier};
use super::history::{self, MetricVersionConnection};
use super::list::{MetricConnection, MetricTotals, metric_connection, page_columns};
use crate::graphql::context::ContextExt;
use crate::graphql::domains::{self, BusinessDomain};
use crate::graphql::eager::{Eager, EagerList, Inner, plain_fields};
use crate::graphql::error::top_level;
use crate::graphql::global_id::{Kind, encode};
use crate::graphql::limits::page_cost;
use crate::graphql::objectives::KeyResult;
use crate::graphql::users::{self, User};

/// A metric: its row, and its details once somebody has asked for them.
#[derive(Clone)]
pub struct Metric {
    pub row: Arc<metrics::Metric>,
    details: OnceLock<Arc<Details>>,
}

impl From<store::Row> for Metric {
    fn from((row, details): store::Row) -> Self {
        Self { row, details: details.map_or_else(OnceLock::new, OnceLock::from) }
    }
}

/// What a number means: how it is computed, who answers for it, and what depends on it.
#[Object]
impl Metric {
    /// Opaque and unique over all types.
    pub async fn id(&self, ctx: &Context<'_>) -> ID {
        self.global_id(ctx)
    }

    /// The stable human name, unique in the catalog: `METRIC-LOGIN-SUCCESS-RATE`. It never changes.
    fn key(&self) -> &str {
        &self.row.key
    }

    /// What people call it.
    fn name(&self) -> &str {
        &self.row.summary.name
    }

    /// Its name where room is short, as in column headings: `login_success_rate`.
    fn short_name(&self) -> Option<&str> {
        self.row.summary.short_name.as_deref()
    }

    /// What it measures, in a sentence or two.
    fn description(&self) -> &str {
        &self.row.summary.description
    }

    /// What kind of figure it is to the company: KPI, Finance, Retention, …
    fn category(&self) -> Option<&str> {
        self.row.summary.category.as_deref()
    }

    /// How much depends on it.
    fn tier(&self) -> Option<Tier> {
        self.row.summary.tier.map(Into::into)
    }

    /// The area of the business that it belongs to.
    async fn domain(&self, ctx: &Context<'_>) -> Option<Result<Eager<BusinessDomain>>> {
        domains::by_id(ctx, self.row.summary.domain_id?).await
    }

    /// Whether it foretells, reports, or watches the running business.
    fn indicator_kind(&self) -> Option<IndicatorKind> {
        self.row.summary.indicator_kind.map(Into::into)
    }

    /// How it is computed.
    fn metric_type(&self) -> MetricType {
        self.row.summary.metric_type.into()
    }

    /// Where its definition stands.
    fn status(&self) -> MetricStatus {
        self.row.summary.status.into()
    }

    /// Words to find it by.
    fn tags(&self) -> &[String] {
        &self.row.summary.tags
    }

    /// Other names that people use for it.
    fn synonyms(&self) -> &[String] {
        &self.row.summary.synonyms
    }

    /// Why the company keeps it.
    async fn alignment(&self, ctx: &Context<'_>) -> Result<MetricAlignment<'_>> {
        Ok(MetricAlignment(&self.details(ctx).await?.alignment))
    }

    /// How it is computed.
    fn definition(&self) -> MetricDefinition<'_> {
        MetricDefinition(self)
    }

    /// Where the numbers come from, and how fresh they are.
    async fn data(&self, ctx: &Context<'_>) -> Result<MetricData<'_>> {
        Ok((&self.details(ctx).await?.data).into())
    }

    /// Who answers for it, and what must be observed with it.
    fn governance(&self) -> MetricGovernance<'_> {
        MetricGovernance(self)
    }

    /// What it may be cut by.
    async fn dimensions(&self, ctx: &Context<'_>) -> Result<Vec<MetricDimension<'_>>> {
        Ok(self.details(ctx).await?.dimensions.iter().map(Into::into).collect())
    }

    /// What the number should be, and who hears of it when it is not.
    async fn targets(&self, ctx: &Context<'_>) -> Result<MetricTargets<'_>> {
        Ok((&self.details(ctx).await?.targets).into())
    }

    /// How and where it is shown.
    async fn visualization(&self, ctx: &Context<'_>) -> Result<MetricVisualization<'_>> {
        Ok((&self.details(ctx).await?.visualization).into())
    }

    /// Lineage as it declares it itself, and its trade-offs.
    async fn relationships(&self, ctx: &Context<'_>) -> Result<MetricRelationships<'_>> {
        Ok((&self.details(ctx).await?.relationships).into())
    }

    /// What people do with it.
    async fn usage(&self, ctx: &Context<'_>) -> Result<MetricUsage<'_>> {
        Ok((&self.details(ctx).await?.usage).into())
    }

    /// Anything else that one should know.
    async fn notes(&self, ctx: &Context<'_>) -> Option<Result<&str>> {
        self.details(ctx).await.map(|details| details.notes.as_deref()).transpose()
    }

    /// Queries that compute it, or a cut of it.
    async fn example_queries(&self, ctx: &Context<'_>) -> Result<Vec<ExampleQuery<'_>>> {
        Ok(self.details(ctx).await?.example_queries.iter().map(Into::into).collect())
    }

    /// Imported fields that the model has no place for, under their own names. Free-form.
    async fn extra(&self, ctx: &Context<'_>) -> Result<Json<&Map<String, Value>>> {
        Ok(Json(&self.details(ctx).await?.extra.0))
    }

    /// The metrics that this one is computed from, or follows; ordered by key. Either end may have declared it. Archived
    /// metrics are among them.
    #[graphql(complexity = "page_cost(first, last, child_complexity)")]
    async fn upstream(
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
        Box::pin(self.neighbours(ctx, Side::Upstream, (first, after, last, before))).await
    }

    /// The metrics that are computed from this one, or follow it; ordered by key. Either end may have declared it. Archived
    /// metrics are among them.
    #[graphql(complexity = "page_cost(first, last, child_complexity)")]
    async fn downstream(
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
        Box::pin(self.neighbours(ctx, Side::Downstream, (first, after, last, before))).await
    }

    /// Keys that its lineage names and that no metric has (yet).
    async fn unresolved_references(&self, ctx: &Context<'_>) -> Result<Vec<UnresolvedReference>> {
        let found = ctx.reading()?.loaders.metrics.unresolved.get(self.row.key.clone()).await?.unwrap_or_default();
        Ok(found.into_iter().map(|(key, side)| UnresolvedReference { key, side: side.into() }).collect())
    }

    /// The key results that are read from it, without archived ones.
    #[graphql(complexity = "1 + 5 * child_complexity")]
    async fn key_results(&self, ctx: &Context<'_>) -> Result<EagerList<KeyResult>> {
        let key_results = &ctx.reading()?.loaders.objectives.key_results_of_metric;
        let found = key_results.get(self.row.key.clone()).await?.unwrap_or_default();
        Ok(EagerList(found.into_iter().map(KeyResult::from).collect()))
    }

    /// The semantic version of its definition: `2.1.0`. See `ChangeTier` for when which part grows.
    fn version(&self) -> String {
        self.row.version.to_string()
    }

    /// Counts the changes from 1. This is what an update takes as `expectedVersion`.
    fn revision(&self) -> i32 {
        self.row.revision
    }

    /// Every state that it has had, newest first.
    #[graphql(complexity = "page_cost(first, last, child_complexity)")]
    async fn versions(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "How many, from the start of the list or after `after`; at most 100, 20 if neither this nor `last` is given."
        )]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes after it.")] after: Option<String>,
        #[graphql(desc = "How many, from the end of the list or before `before`; at most 100.")] last: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes before it.")] before: Option<String>,
    ) -> Result<MetricVersionConnection> {
        let args = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        Box::pin(history::versions(ctx, &self.row, args)).await
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

    /// When it was taken out of the lists.
    fn archived_at(&self) -> Option<DateTime<Utc>> {
        self.row.archived_at
    }
}

plain_fields!(Metric {
    "id" => global_id,
    "key" => key,
    "name" => name,
    "shortName" => short_name,
    "description" => description,
    "category" => category,
    "tier" => tier,
    "indicatorKind" => indicator_kind,
    "metricType" => metric_type,
    "status" => status,
    "tags" => tags,
    "synonyms" => synonyms,
    "version" => version,
    "revision" => revision,
    "createdAt" => created_at,
    "updatedAt" => updated_at,
    "archivedAt" => archived_at,
}
    fn ahead(metrics: &[&Self], field: &str, ctx: &Context<'_>) -> Option<BoxFuture<'static, ()>> {
        match field {
            "domain" => domains::ahead(ctx, metrics.iter().filter_map(|metric| metric.row.summary.domain_id)),
            _ => None,
        }
    }

    fn write_object(&self, field: &str, ctx: &Context<'_>, inner: &mut Inner<'_>, json: &mut Vec<u8>) -> bool {
        field == "domain" && domains::write_by_id(ctx, self.row.summary.domain_id, inner, json)
    }
);

type Paging = (Option<i32>, Option<String>, Option<i32>, Option<String>);

impl Metric {
    /// Its id, for who needs not wait for it.
    fn global_id(&self, _: &Context<'_>) -> ID {
        encode(Kind::Metric, self.row.id.0)
    }

    pub fn new(row: metrics::Metric, details: Details) -> Self {
        Self::from((Arc::new(row), Some(Arc::new(details))))
    }

    /// The metric as it was at a version; what is not part of a definition (lineage, key results) is as it is now.
    pub fn as_it_was(now: &metrics::Metric, version: &VersionRow, definition: metrics::Definition) -> Self {
        let row = metrics::Metric {
            tenant_id: now.tenant_id,
            id: now.id,
            key: now.key.clone(),
            summary: definition.summary,
            version: version.version(),
            revision: version.revision,
            created_at: now.created_at,
            created_by: now.created_by,
            updated_at: version.created_at,
            updated_by: version.created_by,
            archived_at: now.archived_at.filter(|at| *at <= version.created_at),
        };
        Self::new(row, definition.details)
    }

    /// The details: as they came with the row, or through the loader.
    pub async fn details(&self, ctx: &Context<'_>) -> Result<&Details> {
        if let Some(details) = self.details.get() {
            return Ok(details);
        }
        match ctx.reading()?.loaders.metrics.details.get(self.row.id).await? {
            Some(details) => Ok(self.details.get_or_init(|| details)),
            None => Err(top_level(Error::unknown_id("metric"))),
        }
    }

    async fn neighbours(&self, ctx: &Context<'_>, side: Side, (first, after, last, before): Paging) -> Result<MetricConnection> {
        let args = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        let key = (self.row.key.clone(), (side, args, page_columns(ctx)));
        let page = ctx.reading()?.loaders.metrics.neighbours.get(key).await?;
        Ok(metric_connection(ctx, page, MetricTotals::Neighbours(side, self.row.key.clone())))
    }
}

/// The columns that a selection on a metric asks for.
pub fn columns_of(metric: &Lookahead<'_>) -> Columns {
    const LABELS: [&str; 4] = ["shortName", "category", "indicatorKind", "tags"];
    const SECTIONS: [&str; 10] = [
        "alignment",
        "data",
        "dimensions",
        "targets",
        "visualization",
        "relationships",
        "usage",
        "notes",
        "exampleQueries",
        "extra",
    ];
    const OF_DEFINITION: [&str; 4] = ["formulaDetail", "numerator", "denominator", "exampleCalculation"];
    let has = |name: &str| metric.field(name).exists();
    let (definition, governance) = (metric.field("definition"), metric.field("governance"));
    let details = SECTIONS.into_iter().any(has)
        || OF_DEFINITION.iter().any(|name| definition.field(name).exists())
        || governance.field("regulatoryConstraints").exists();
    Columns::NONE
        .and_if(LABELS.into_iter().any(has), Columns::LABELS)
        .and_if(has("description"), Columns::DESCRIPTION)
        .and_if(definition.exists() || has("synonyms"), Columns::DEFINITION)
        .and_if(governance.exists(), Columns::GOVERNANCE)
        .and_if(details, Columns::DETAILS)
}
