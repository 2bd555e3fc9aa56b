//! How much there is in the catalog.

use async_graphql::{Context, Object, Result, SimpleObject};
use mdl::actor::Permission;
use mdl::{domains, metrics, objectives};

use super::context::ContextExt;
use super::domains::BusinessDomain;
use super::error::top_level;
use super::guard::Needs;
use super::metrics::enums::{MetricStatus, Tier};

#[derive(Default)]
pub struct StatsQueries;

#[Object]
impl StatsQueries {
    /// How much there is in the catalog. Archived entries do not count.
    #[graphql(guard = "Needs(Permission::CatalogRead)")]
    fn catalog_stats(&self) -> CatalogStats {
        CatalogStats
    }
}

pub struct CatalogStats;

/// How much there is in the catalog. Each figure is counted only when selected; archived entries do not count.
#[Object]
impl CatalogStats {
    /// Metrics.
    async fn metric_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let view = ctx.reading()?;
        let (tenant, all) = (view.snapshot.tenant(), metrics::store::Listing::default());
        view.snapshot.read(async |conn| metrics::store::count(conn, tenant, &all).await).await.map_err(top_level)
    }

    /// Business domains.
    async fn business_domain_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let view = ctx.reading()?;
        let (tenant, all) = (view.snapshot.tenant(), domains::store::Filter::default());
        view.snapshot.read(async |conn| domains::store::count(conn, tenant, &all).await).await.map_err(top_level)
    }

    /// Objectives.
    async fn objective_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let view = ctx.reading()?;
        let (tenant, all) = (view.snapshot.tenant(), objectives::store::Filter::default());
        view.snapshot.read(async |conn| objectives::store::count(conn, tenant, &all).await).await.map_err(top_level)
    }

    /// Metrics by business domain, most first. The domain is null for metrics that belong to none.
    async fn by_domain(&self, ctx: &Context<'_>) -> Result<Vec<DomainCount>> {
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let counts = view.snapshot.read(async |conn| metrics::store::count_by_domain(conn, tenant).await).await;
        let counts = most_first(counts.map_err(top_level)?);
        let ids = counts.iter().filter_map(|(id, _)| *id).collect();
        // Archived domains are found as well, so that the counts add up.
        let mut domains = view.loaders.domains.by_id.get_many(ids).await?.into_iter();
        let counts = counts
            .into_iter()
            .map(|(id, count)| DomainCount { domain: id.and_then(|_| domains.next()).map(BusinessDomain), count });
        Ok(counts.collect())
    }

    /// Metrics by tier, most first. The tier is null for metrics without one.
    async fn by_tier(&self, ctx: &Context<'_>) -> Result<Vec<TierCount>> {
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let counts = view.snapshot.read(async |conn| metrics::store::count_by_tier(conn, tenant).await).await;
        let counts = most_first(counts.map_err(top_level)?).into_iter();
        Ok(counts.map(|(tier, count)| TierCount { tier: tier.map(Into::into), count }).collect())
    }

    /// Metrics by category, most first; at most 200 categories. The category is null for metrics without one.
    async fn by_category(&self, ctx: &Context<'_>) -> Result<Vec<CategoryCount>> {
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let counts = view.snapshot.read(async |conn| metrics::store::count_by_category(conn, tenant).await).await;
        let counts = most_first(counts.map_err(top_level)?).into_iter().take(200);
        Ok(counts.map(|(category, count)| CategoryCount { category, count }).collect())
    }

    /// Metrics by status, most first.
    async fn by_status(&self, ctx: &Context<'_>) -> Result<Vec<StatusCount>> {
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let counts = view.snapshot.read(async |conn| metrics::store::count_by_status(conn, tenant).await).await;
        let counts = most_first(counts.map_err(top_level)?).into_iter();
        Ok(counts.map(|(status, count)| StatusCount { status: status.into(), count }).collect())
    }
}

/// How many metrics a business domain has.
#[derive(SimpleObject)]
pub struct DomainCount {
    /// The domain; null for metrics that belong to none.
    domain: Option<BusinessDomain>,
    /// How many metrics.
    count: i64,
}

/// How many metrics a tier has.
#[derive(SimpleObject)]
pub struct TierCount {
    /// The tier; null for metrics without one.
    tier: Option<Tier>,
    /// How many metrics.
    count: i64,
}

/// How many metrics a category has.
#[derive(SimpleObject)]
pub struct CategoryCount {
    /// The category; null for metrics without one.
    category: Option<String>,
    /// How many metrics.
    count: i64,
}

/// How many metrics have a status.
#[derive(SimpleObject)]
pub struct StatusCount {
    /// The status.
    status: MetricStatus,
    /// How many metrics.
    count: i64,
}

fn most_first<T>(mut counts: Vec<(T, i64)>) -> Vec<(T, i64)> {
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}
