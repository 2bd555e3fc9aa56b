//! Lists of metrics, wherever they appear.

use std::collections::HashSet;

use async_graphql::{Context, Object, Result};
use mdl::ids::DomainId;
use mdl::metrics::Columns;
use mdl::metrics::lineage::Side;
use mdl::metrics::related::MetricPage;
use mdl::metrics::store::{self, Listing};
use mdl::page::{ByText, Page};
use serde::Serialize;

use super::Metric;
use super::object::columns_of;
use crate::graphql::connection::{Connection, connection};
use crate::graphql::context::ContextExt;
use crate::graphql::error::top_level;

pub type MetricConnection = Connection<Metric, MetricTotals>;

/// What a list of metrics is counted by, if somebody asks.
pub enum MetricTotals {
    Matching(Box<Listing>),
    Neighbours(Side, String),
    In(DomainId),
}

#[Object]
impl MetricTotals {
    /// How many metrics the whole list has. Counted only when selected.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let view = ctx.reading()?;
        match self {
            MetricTotals::Matching(listing) => {
                let tenant = view.snapshot.tenant();
                view.snapshot.read(async |conn| store::count(conn, tenant, listing).await).await.map_err(top_level)
            }
            MetricTotals::Neighbours(side, key) => {
                Ok(view.loaders.metrics.neighbour_count.get((key.clone(), *side)).await?.unwrap_or(0))
            }
            MetricTotals::In(domain) => Ok(view.loaders.domains.metric_count.get(*domain).await?.unwrap_or(0)),
        }
    }
}

/// A connection from a page; from none, which is a page without entries.
pub fn metric_connection<P: Serialize>(
    ctx: &Context<'_>,
    page: Option<Page<(Metric, P)>>,
    totals: MetricTotals,
) -> MetricConnection {
    connection(ctx, page.unwrap_or_else(Page::empty), totals, |metric| metric)
}

/// Loads the domains of a page's metrics, if they are selected, so that no metric has to wait for its own. The loader keeps what
/// it found, and why it failed, for the fields that ask.
pub async fn load_domains<P>(ctx: &Context<'_>, page: &Page<(Metric, P)>) {
    let selection = ctx.look_ahead();
    let selected = [selection.field("nodes"), selection.field("edges").field("node")];
    if !selected.iter().any(|metric| metric.field("domain").exists()) {
        return;
    }
    let ids: HashSet<DomainId> = page.items.iter().filter_map(|(metric, _)| metric.row.summary.domain_id).collect();
    if let Ok(view) = ctx.reading() {
        let _told_by_the_fields = view.loaders.domains.by_id.get_each(ids.into_iter().collect()).await;
    }
}

/// The rows of a page as metrics.
pub fn with_wrapped(page: MetricPage) -> Page<(Metric, ByText)> {
    page.map(|(row, position)| (Metric::from(row), position))
}

/// The columns of metrics that the selection on this connection asks for.
pub fn page_columns(ctx: &Context<'_>) -> Columns {
    let page = ctx.look_ahead();
    columns_of(&page.field("nodes")).and(columns_of(&page.field("edges").field("node")))
}
