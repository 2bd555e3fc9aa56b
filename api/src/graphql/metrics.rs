//! Metrics: queries and mutations. `object` is the type, `details` its parts, `inputs` what people send.

pub mod details;
pub mod enums;
pub mod filter;
pub mod history;
mod input_parts;
mod inputs;
pub mod list;
mod object;

use async_graphql::{Context, ID, Object, Result};
use mdl::actor::Permission;
use mdl::error::{Code, Error};
use mdl::ids::MetricId;
use mdl::metrics::{self, Columns, store, versions};
use mdl::page::PageArgs;

use self::filter::{MetricFilter, MetricOrder, listing};
use self::inputs::{ArchiveMetricInput, CreateMetricInput, RestoreMetricInput, UpdateMetricInput, parse_version};
use self::list::{MetricConnection, MetricTotals, load_domains, metric_connection, page_columns};
pub use self::object::{Metric, columns_of};
use super::context::ContextExt;
use super::eager::Eager;
use super::error::top_level;
use super::filter::check_texts;
use super::global_id::{Kind, expect};
use super::guard::Needs;
use super::limits::page_cost;
use super::loaders::SingleMetrics;
use super::payload::payloads;

#[derive(Default)]
pub struct MetricQueries;

#[Object]
#[expect(clippy::too_many_arguments, reason = "they are the arguments of the field")]
impl MetricQueries {
    /// One metric, by its key or its id: give exactly one of the two. Archived metrics are found as well.
    #[graphql(guard = "Needs(Permission::CatalogRead)")]
    async fn metric(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The stable human name: `METRIC-LOGIN-SUCCESS-RATE`.")] key: Option<String>,
        #[graphql(desc = "The id, as any field `id` gave it.")] id: Option<ID>,
        #[graphql(desc = "The metric as it was at this version (`1.4.0`); as it is now if not given.")] version: Option<String>,
    ) -> Option<Result<Eager<Metric>>> {
        find(ctx, key, id, version).await.map(|found| found.map(Eager)).transpose()
    }

    /// The metrics that match, one page at a time.
    #[graphql(guard = "Needs(Permission::CatalogRead)", complexity = "page_cost(first, last, child_complexity)")]
    async fn metrics(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which metrics. Without it all that are not archived.")] filter: Option<MetricFilter>,
        #[graphql(
            desc = "Words to look for in names, synonyms, keys, tags, descriptions and formulas, in the syntax of web search: \
                    `login rate`, `\"exact phrase\"`, `revenue or income`, `-test`. Names that merely resemble the text are found \
                    as well. At most 200 characters."
        )]
        search: Option<String>,
        #[graphql(desc = "In which order. By key if not given, and by relevance if something is searched for.")] order_by: Option<
            MetricOrder,
        >,
        #[graphql(
            desc = "How many, from the start of the list or after `after`; at most 100, 20 if neither this nor `last` is given."
        )]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list, in the same order: what comes after it.")] after: Option<String>,
        #[graphql(desc = "How many, from the end of the list or before `before`; at most 100.")] last: Option<i32>,
        #[graphql(desc = "A cursor of this list, in the same order: what comes before it.")] before: Option<String>,
    ) -> Result<MetricConnection> {
        let args = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        let listing = listing(filter, search, order_by, page_columns(ctx)).map_err(top_level)?;
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let page = view.snapshot.read(async |conn| store::page(conn, tenant, &listing, &args).await).await.map_err(top_level)?;
        let page = page.map(|(row, position)| (Metric::from(row), position));
        load_domains(ctx, &page).await;
        Ok(metric_connection(ctx, Some(page), MetricTotals::Matching(Box::new(listing))))
    }
}

#[derive(Default)]
pub struct MetricMutations;

#[Object]
impl MetricMutations {
    /// Adds a metric to the catalog.
    #[graphql(guard = "Needs(Permission::CatalogWrite)")]
    async fn create_metric(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The metric.")] input: CreateMetricInput,
    ) -> Result<CreateMetricPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = metrics::create(ctx.app(), actor, input.into_new()).await;
        CreateMetricPayload::answer(result, |(metric, details)| Metric::new(metric, details))
    }

    /// Changes a metric, and writes a version. A change of nothing writes nothing.
    #[graphql(guard = "Needs(Permission::CatalogWrite)")]
    async fn update_metric(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The change.")] input: UpdateMetricInput,
    ) -> Result<UpdateMetricPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async {
            let id = MetricId(expect("id", Kind::Metric, &input.id)?);
            let (update, edit) = input.into_update();
            metrics::update(ctx.app(), actor, id, update, edit).await
        }
        .await;
        UpdateMetricPayload::answer(result, |(metric, details)| Metric::new(metric, details))
    }

    /// Takes a metric out of the lists, until it is restored. Its key stays taken, its history stays, and its status becomes
    /// `REMOVED`. To do it twice is no error.
    #[graphql(guard = "Needs(Permission::CatalogWrite)")]
    async fn archive_metric(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which metric.")] input: ArchiveMetricInput,
    ) -> Result<ArchiveMetricPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async {
            let id = MetricId(expect("id", Kind::Metric, &input.id)?);
            metrics::archive(ctx.app(), actor, id, input.expected_version).await
        }
        .await;
        ArchiveMetricPayload::answer(result, |(metric, details)| Metric::new(metric, details))
    }

    /// Takes an archived metric back into the lists. Its status is again the last one that was not `REMOVED`; `DRAFT` if it
    /// had none. To do it twice is no error.
    #[graphql(guard = "Needs(Permission::CatalogWrite)")]
    async fn restore_metric(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which metric.")] input: RestoreMetricInput,
    ) -> Result<RestoreMetricPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async {
            let id = MetricId(expect("id", Kind::Metric, &input.id)?);
            metrics::restore(ctx.app(), actor, id, input.expected_version).await
        }
        .await;
        RestoreMetricPayload::answer(result, |(metric, details)| Metric::new(metric, details))
    }
}

payloads! {
    /// The metric that was added.
    CreateMetricPayload {
        /// The new metric.
        metric: Metric
    }
    /// The metric that was changed.
    UpdateMetricPayload {
        /// The metric as it is now.
        metric: Metric
    }
    /// The metric that was archived.
    ArchiveMetricPayload {
        /// The metric as it is now.
        metric: Metric
    }
    /// The metric that was restored.
    RestoreMetricPayload {
        /// The metric as it is now.
        metric: Metric
    }
}

async fn find(ctx: &Context<'_>, key: Option<String>, id: Option<ID>, version: Option<String>) -> Result<Option<Metric>> {
    check_texts("key", &key).map_err(top_level)?;
    let version = version.as_deref().map(parse_version).transpose().map_err(top_level)?;
    // A version has details of its own. The rest of the row is read whole, so that all may share a read.
    let with_details = version.is_none() && columns_of(&ctx.look_ahead()).has(Columns::DETAILS);
    let columns = Columns::ROW.and_if(with_details, Columns::DETAILS);
    let (operation, single) = (ctx.operation(), ctx.data_unchecked::<SingleMetrics>());
    let found = match (key, id) {
        (Some(key), None) => operation.one(&single.by_key, |loaders| &loaders.metrics.by_key, (key, columns)).await?,
        (None, Some(id)) => {
            let id = MetricId(expect("id", Kind::Metric, &id).map_err(top_level)?);
            operation.one(&single.by_id, |loaders| &loaders.metrics.by_id, (id, columns)).await?
        }
        _ => return Err(top_level(Error::invalid("key", Code::Invalid, "Give either the key or the id"))),
    };
    let (Some(now), Some(version)) = (&found, version) else { return Ok(found) };
    let view = ctx.reading()?;
    let tenant = view.snapshot.tenant();
    let was = view.snapshot.read(async |conn| versions::document(conn, tenant, now.row.id, version).await).await;
    let (version, definition) = was.map_err(top_level)?;
    Ok(Some(Metric::as_it_was(&now.row, &version, definition)))
}
