//! Reads of the metrics table.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::dsl::count_star;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::{Stream, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::columns::Selected;
use super::definition::Details;
use super::filter::{Condition, Filter};
use super::search::{self, MAX_QUERY, rank};
use super::{Columns, Metric};
use crate::error::{Code, Error, Result};
use crate::ids::{DomainId, MetricId, TenantId};
use crate::page::{Page, PageArgs};
use crate::schema::metrics;

/// A metric and, where they were asked for, its details. Of a metric that came from a list, only the [`Columns`] that were asked for hold
/// what they should. Shared from the start: both are large, and pass through many hands.
pub type Row = (Arc<Metric>, Option<Arc<Details>>);

/// What a list of metrics is ordered by; the id decides between equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    Key,
    Name,
    CreatedAt,
    UpdatedAt,
    /// Best match first; only with a search.
    Relevance,
}

/// The ordering values of one metric in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Position {
    Key(String),
    Name(String, MetricId),
    CreatedAt(DateTime<Utc>, MetricId),
    UpdatedAt(DateTime<Utc>, MetricId),
    Relevance(f32, MetricId),
}

/// A list of metrics, before it is cut into pages.
#[derive(Debug, Clone)]
pub struct Listing {
    pub filter: Filter,
    /// Words to look for, in the syntax of web search: `"exact phrase" -without or`.
    pub search: Option<String>,
    pub order: Order,
    pub descending: bool,
    pub columns: Columns,
}

impl Default for Listing {
    fn default() -> Self {
        Self { filter: Filter::default(), search: None, order: Order::Key, descending: false, columns: Columns::ROW }
    }
}

pub async fn by_ids(mut conn: &AsyncPgConnection, tenant: TenantId, ids: &[MetricId], columns: Columns) -> Result<Vec<Row>> {
    let found = metrics::table.filter(metrics::tenant_id.eq(tenant)).filter(metrics::id.eq_any(ids));
    collect(found.select(columns).load_stream(&mut conn).await?).await
}

pub async fn by_keys(mut conn: &AsyncPgConnection, tenant: TenantId, keys: &[String], columns: Columns) -> Result<Vec<Row>> {
    let found = metrics::table.filter(metrics::tenant_id.eq(tenant)).filter(metrics::key.eq_any(keys));
    collect(found.select(columns).load_stream(&mut conn).await?).await
}

/// The metric and its details, locked until the transaction ends.
pub async fn lock(mut conn: &AsyncPgConnection, tenant: TenantId, id: MetricId) -> Result<Option<(Metric, Details)>> {
    Ok(metrics::table
        .filter(metrics::tenant_id.eq(tenant).and(metrics::id.eq(id)))
        .select((Metric::as_select(), metrics::details))
        .for_update()
        .first(&mut conn)
        .await
        .optional()?)
}

/// Whether the metric with this key is archived; `None` if there is none.
pub async fn is_archived(mut conn: &AsyncPgConnection, tenant: TenantId, key: &str) -> Result<Option<bool>> {
    Ok(metrics::table
        .filter(metrics::tenant_id.eq(tenant).and(metrics::key.eq(key)))
        .select(metrics::archived_at.is_not_null())
        .first(&mut conn)
        .await
        .optional()?)
}

pub async fn details_by_ids(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    ids: &[MetricId],
) -> Result<Vec<(MetricId, Details)>> {
    Ok(metrics::table
        .filter(metrics::tenant_id.eq(tenant).and(metrics::id.eq_any(ids)))
        .select((metrics::id, metrics::details))
        .load(&mut conn)
        .await?)
}

/// One page, each row with its position in the list.
pub async fn page(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    listing: &Listing,
    args: &PageArgs<Position>,
) -> Result<Page<(Row, Position)>> {
    listing.check()?;
    let forward = listing.descending == args.backward;
    let mut query = of(tenant);
    // What matches best, from the start: nothing beyond the page need be ranked twice.
    let best = listing.order == Order::Relevance && !forward && args.after.is_none() && args.before.is_none();
    if let Some(condition) = listing.condition(tenant, best.then(|| args.fetch())) {
        query = query.filter(condition);
    }
    for (position, after) in [(&args.after, true), (&args.before, false)] {
        if let Some(position) = position {
            // "After" means greater in an ascending list; in a descending one it means less.
            query = query.filter(listing.beyond(position, after != listing.descending)?);
        }
    }
    query = match (listing.order, forward) {
        (Order::Key, true) => query.order(metrics::key.asc()),
        (Order::Key, false) => query.order(metrics::key.desc()),
        (Order::Name, true) => query.order((metrics::name.asc(), metrics::id.asc())),
        (Order::Name, false) => query.order((metrics::name.desc(), metrics::id.desc())),
        (Order::CreatedAt, true) => query.order((metrics::created_at.asc(), metrics::id.asc())),
        (Order::CreatedAt, false) => query.order((metrics::created_at.desc(), metrics::id.desc())),
        (Order::UpdatedAt, true) => query.order((metrics::updated_at.asc(), metrics::id.asc())),
        (Order::UpdatedAt, false) => query.order((metrics::updated_at.desc(), metrics::id.desc())),
        (Order::Relevance, true) => query.order((rank(listing.words()).asc(), metrics::id.asc())),
        (Order::Relevance, false) => query.order((rank(listing.words()).desc(), metrics::id.desc())),
    };
    let query = query.limit(args.fetch());
    let mut items = Vec::with_capacity(args.limit + 1);
    if listing.order == Order::Relevance {
        // Only here does the position need a value that is in no column.
        let columns = (listing.columns, rank(listing.words()));
        let mut found = query.select(columns).load_stream::<(Selected, f32)>(&mut conn).await?;
        while let Some((selected, rank)) = found.try_next().await? {
            let position = listing.position(&selected.metric, Some(rank));
            items.push((selected.into(), position));
        }
    } else {
        for row in collect(query.select(listing.columns).load_stream(&mut conn).await?).await? {
            let position = listing.position(&row.0, None);
            items.push((row, position));
        }
    }
    Ok(Page::from_rows(items, args))
}

/// How many metrics the list has.
pub async fn count(mut conn: &AsyncPgConnection, tenant: TenantId, listing: &Listing) -> Result<i64> {
    listing.check()?;
    let query = metrics::table.filter(metrics::tenant_id.eq(tenant)).select(count_star()).into_boxed::<Pg>();
    let query = match listing.condition(tenant, None) {
        Some(condition) => query.filter(condition),
        None => query,
    };
    Ok(query.first(&mut conn).await?)
}

/// Counts of the tenant's metrics that are not archived, by one column.
pub async fn count_by_status(mut conn: &AsyncPgConnection, tenant: TenantId) -> Result<Vec<(super::definition::Status, i64)>> {
    Ok(current(tenant).group_by(metrics::status).select((metrics::status, count_star())).load(&mut conn).await?)
}

pub async fn count_by_tier(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
) -> Result<Vec<(Option<super::definition::Tier>, i64)>> {
    Ok(current(tenant).group_by(metrics::tier).select((metrics::tier, count_star())).load(&mut conn).await?)
}

pub async fn count_by_category(mut conn: &AsyncPgConnection, tenant: TenantId) -> Result<Vec<(Option<String>, i64)>> {
    Ok(current(tenant).group_by(metrics::category).select((metrics::category, count_star())).load(&mut conn).await?)
}

pub async fn count_by_domain(mut conn: &AsyncPgConnection, tenant: TenantId) -> Result<Vec<(Option<DomainId>, i64)>> {
    Ok(current(tenant).group_by(metrics::domain_id).select((metrics::domain_id, count_star())).load(&mut conn).await?)
}

#[diesel::dsl::auto_type(no_type_alias)]
fn current(tenant: TenantId) -> _ {
    metrics::table.filter(metrics::tenant_id.eq(tenant)).filter(metrics::archived_at.is_null())
}

fn of(tenant: TenantId) -> metrics::BoxedQuery<'static, Pg> {
    metrics::table.filter(metrics::tenant_id.eq(tenant)).into_boxed()
}

/// The rows that a query for metrics and their details gives.
async fn collect(found: impl Stream<Item = QueryResult<Selected>>) -> Result<Vec<Row>> {
    Ok(found.map_ok(Row::from).try_collect().await?)
}

impl Listing {
    fn check(&self) -> Result<()> {
        match &self.search {
            Some(search) if search.chars().count() > MAX_QUERY => {
                Err(Error::invalid("search", Code::TooLong, format!("At most {MAX_QUERY} characters are allowed")))
            }
            Some(search) if search.contains('\0') => {
                Err(Error::invalid("search", Code::Invalid, "Must not contain the NUL character"))
            }
            None if self.order == Order::Relevance => {
                Err(Error::invalid("order_by", Code::Invalid, "RELEVANCE orders the results of a search; give one"))
            }
            _ => Ok(()),
        }
    }

    fn words(&self) -> &str {
        self.search.as_deref().unwrap_or_default()
    }

    fn condition(&self, tenant: TenantId, best: Option<i64>) -> Option<Condition> {
        let mut filter = self.filter.clone();
        if !filter.mentions_archived() {
            filter.archived = Some(false);
        }
        let found = search::found(self.search.as_deref(), &mut filter, best);
        match (found, filter.condition(tenant)) {
            (Some(found), Some(rest)) => Some(Box::new(found.and(rest))),
            (found, rest) => found.or(rest),
        }
    }

    /// Rows greater (or less) than a position in this list's order.
    fn beyond(&self, position: &Position, greater: bool) -> Result<Condition> {
        /// Row comparison `(column, id) > (value, last)` written so that Diesel can: the first comparison bounds the index scan.
        macro_rules! beyond {
            ($column:expr, $value:expr, $id:expr) => {{
                let (value, id) = ($value, *$id);
                if greater {
                    Box::new($column.ge(value.clone()).and($column.gt(value).or(metrics::id.gt(id)))) as Condition
                } else {
                    Box::new($column.le(value.clone()).and($column.lt(value).or(metrics::id.lt(id)))) as Condition
                }
            }};
        }
        Ok(match (self.order, position) {
            (Order::Key, Position::Key(key)) if greater => Box::new(metrics::key.gt(key.clone())),
            (Order::Key, Position::Key(key)) => Box::new(metrics::key.lt(key.clone())),
            (Order::Name, Position::Name(name, id)) => beyond!(metrics::name, name.clone(), id),
            (Order::CreatedAt, Position::CreatedAt(at, id)) => beyond!(metrics::created_at, *at, id),
            (Order::UpdatedAt, Position::UpdatedAt(at, id)) => beyond!(metrics::updated_at, *at, id),
            (Order::Relevance, Position::Relevance(value, id)) => beyond!(rank(self.words()), *value, id),
            _ => return Err(Error::invalid("after", Code::Invalid, "Not a cursor of this list in this order")),
        })
    }

    fn position(&self, metric: &Metric, rank: Option<f32>) -> Position {
        match self.order {
            Order::Key => Position::Key(metric.key.clone()),
            Order::Name => Position::Name(metric.summary.name.clone(), metric.id),
            Order::CreatedAt => Position::CreatedAt(metric.created_at, metric.id),
            Order::UpdatedAt => Position::UpdatedAt(metric.updated_at, metric.id),
            Order::Relevance => Position::Relevance(rank.unwrap_or_default(), metric.id),
        }
    }
}
