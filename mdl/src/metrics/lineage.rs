//! Lineage: which metrics a metric is computed from or follows (upstream), and which follow it (downstream).
//!
//! Edges are declared by either end, by key, before or after the other end exists. They are read by joining on the key.

use std::collections::BTreeSet;

use diesel::dsl::exists;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::Columns;
use super::definition::Relationships;
use super::related::{self, MetricPage, Relation};
use crate::error::Result;
use crate::ids::{MetricId, TenantId};
use crate::page::{ByText, PageArgs};
use crate::schema::metric_edges;

/// Which way to follow the edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// To what a metric depends on.
    Upstream,
    /// To what depends on a metric.
    Downstream,
}

#[derive(Insertable)]
#[diesel(table_name = metric_edges)]
struct Edge<'a> {
    tenant_id: TenantId,
    declared_by: MetricId,
    upstream_key: &'a str,
    downstream_key: &'a str,
}

/// The edges that a metric's relationships declare, each once, as (upstream, downstream). A metric is never its own neighbour.
pub fn edges<'a>(key: &'a str, relationships: &'a Relationships) -> BTreeSet<(&'a str, &'a str)> {
    let upstream = relationships.upstream_keys.iter().map(|other| (other.as_str(), key));
    let downstream = relationships.downstream_keys.iter().map(|other| (key, other.as_str()));
    upstream.chain(downstream).filter(|(from, to)| from != to).collect()
}

/// Notes that a metric declares these edges.
pub(super) async fn declare(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    id: MetricId,
    edges: &BTreeSet<(&str, &str)>,
) -> Result<()> {
    let rows: Vec<_> = edges
        .iter()
        .map(|(upstream_key, downstream_key)| Edge { tenant_id: tenant, declared_by: id, upstream_key, downstream_key })
        .collect();
    if !rows.is_empty() {
        diesel::insert_into(metric_edges::table).values(rows).execute(&mut conn).await?;
    }
    Ok(())
}

/// Forgets all that a metric has declared.
pub(super) async fn forget(mut conn: &AsyncPgConnection, tenant: TenantId, id: MetricId) -> Result<()> {
    let declared = metric_edges::table.filter(metric_edges::tenant_id.eq(tenant).and(metric_edges::declared_by.eq(id)));
    diesel::delete(declared).execute(&mut conn).await?;
    Ok(())
}

/// Whether any metric declares this key its neighbour.
pub(super) async fn is_declared(mut conn: &AsyncPgConnection, tenant: TenantId, key: &str) -> Result<bool> {
    let names_it = metric_edges::upstream_key.eq(key).or(metric_edges::downstream_key.eq(key));
    let edges = metric_edges::table.filter(metric_edges::tenant_id.eq(tenant).and(names_it));
    Ok(diesel::select(exists(edges)).get_result(&mut conn).await?)
}

/// For each metric (by key), a page of its existing neighbours, archived ones too. A metric without any is left out.
pub async fn neighbours_of_each(
    conn: &AsyncPgConnection,
    tenant: TenantId,
    side: Side,
    keys: &[String],
    args: &PageArgs<ByText>,
    columns: Columns,
) -> Result<Vec<(String, MetricPage)>> {
    let relation = match side {
        Side::Upstream => Relation::UpstreamOf(keys),
        Side::Downstream => Relation::DownstreamOf(keys),
    };
    let pages = related::pages(conn, tenant, relation, args, columns).await?;
    Ok(pages.into_iter().map(|(index, page)| (keys[index].clone(), page)).collect())
}

/// How many existing neighbours each metric has.
pub async fn count_of_each(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    side: Side,
    keys: &[String],
) -> Result<Vec<(String, i64)>> {
    use crate::schema::metrics;
    Ok(match side {
        Side::Upstream => {
            metric_edges::table
                .inner_join(
                    metrics::table
                        .on(metrics::tenant_id.eq(metric_edges::tenant_id).and(metrics::key.eq(metric_edges::upstream_key))),
                )
                .filter(metric_edges::tenant_id.eq(tenant).and(metric_edges::downstream_key.eq_any(keys)))
                .group_by(metric_edges::downstream_key)
                .select((metric_edges::downstream_key, diesel::dsl::count(metrics::id).aggregate_distinct()))
                .load(&mut conn)
                .await?
        }
        Side::Downstream => {
            metric_edges::table
                .inner_join(
                    metrics::table
                        .on(metrics::tenant_id.eq(metric_edges::tenant_id).and(metrics::key.eq(metric_edges::downstream_key))),
                )
                .filter(metric_edges::tenant_id.eq(tenant).and(metric_edges::upstream_key.eq_any(keys)))
                .group_by(metric_edges::upstream_key)
                .select((metric_edges::upstream_key, diesel::dsl::count(metrics::id).aggregate_distinct()))
                .load(&mut conn)
                .await?
        }
    })
}

/// Keys that these metrics' edges name and that no metric has: (key asked for, missing key, its side).
pub async fn unresolved(mut conn: &AsyncPgConnection, tenant: TenantId, keys: &[String]) -> Result<Vec<(String, String, Side)>> {
    use crate::schema::metrics;
    let upstream_metric =
        metrics::table.on(metrics::tenant_id.eq(metric_edges::tenant_id).and(metrics::key.eq(metric_edges::upstream_key)));
    let upstream = metric_edges::table
        .left_join(upstream_metric)
        .filter(metric_edges::tenant_id.eq(tenant).and(metric_edges::downstream_key.eq_any(keys)))
        .filter(metrics::id.nullable().is_null())
        .select((metric_edges::downstream_key, metric_edges::upstream_key, true.into_sql::<Bool>()));
    let downstream_metric =
        metrics::table.on(metrics::tenant_id.eq(metric_edges::tenant_id).and(metrics::key.eq(metric_edges::downstream_key)));
    let downstream = metric_edges::table
        .left_join(downstream_metric)
        .filter(metric_edges::tenant_id.eq(tenant).and(metric_edges::upstream_key.eq_any(keys)))
        .filter(metrics::id.nullable().is_null())
        .select((metric_edges::upstream_key, metric_edges::downstream_key, false.into_sql::<Bool>()));
    let found: Vec<(String, String, bool)> = upstream.union(downstream).load(&mut conn).await?;
    let side = |is_upstream| if is_upstream { Side::Upstream } else { Side::Downstream };
    let mut missing: Vec<_> = found.into_iter().map(|(key, missing, is_upstream)| (key, missing, side(is_upstream))).collect();
    missing.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    Ok(missing)
}
