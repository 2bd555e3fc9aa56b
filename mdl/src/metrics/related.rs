//! Metrics that stand in a relation to several things at once: for each thing one page, in one statement.

use diesel::dsl::SqlTypeOf;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Array, BigInt, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::Columns;
use super::columns::Selected;
use super::store::Row;
use crate::error::Result;
use crate::ids::{DomainId, KeyResultId, TenantId};
use crate::page::{ByText, Page, PageArgs};
use crate::schema::{key_result_metrics, metrics};

/// A page of metrics ordered by key; the key is also the cursor.
pub type MetricPage = Page<(Row, ByText)>;

/// What the metrics are related to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Relation<'a> {
    /// What these metrics (by key) depend on.
    UpstreamOf(&'a [String]),
    /// What depends on these metrics (by key).
    DownstreamOf(&'a [String]),
    /// The current metrics of these domains.
    In(&'a [DomainId]),
}

/// For each domain, a page of its current metrics. A domain without any is left out.
pub async fn page_of_each_domain(
    conn: &AsyncPgConnection,
    tenant: TenantId,
    ids: &[DomainId],
    args: &PageArgs<ByText>,
    columns: Columns,
) -> Result<Vec<(DomainId, MetricPage)>> {
    let pages = pages(conn, tenant, Relation::In(ids), args, columns).await?;
    Ok(pages.into_iter().map(|(index, page)| (ids[index], page)).collect())
}

/// How many current metrics each domain has.
pub async fn count_of_each_domain(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    ids: &[DomainId],
) -> Result<Vec<(DomainId, i64)>> {
    Ok(metrics::table
        .filter(metrics::tenant_id.eq(tenant).and(metrics::archived_at.is_null()))
        .filter(metrics::domain_id.eq_any(ids))
        .group_by(metrics::domain_id)
        .select((metrics::domain_id.assume_not_null(), diesel::dsl::count_star()))
        .load(&mut conn)
        .await?)
}

/// The existing metrics that key results are read from, in the order of each key result.
pub async fn of_key_results(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    ids: &[KeyResultId],
    columns: Columns,
) -> Result<Vec<(KeyResultId, Row)>> {
    let link = key_result_metrics::table
        .on(key_result_metrics::tenant_id.eq(metrics::tenant_id).and(key_result_metrics::metric_key.eq(metrics::key)));
    let query = metrics::table
        .inner_join(link)
        .filter(metrics::tenant_id.eq(tenant))
        .filter(key_result_metrics::tenant_id.eq(tenant).and(key_result_metrics::key_result_id.eq_any(ids)))
        .order((key_result_metrics::key_result_id, key_result_metrics::position));
    let rows: Vec<(KeyResultId, Selected)> = query.select((key_result_metrics::key_result_id, columns)).load(&mut conn).await?;
    Ok(rows.into_iter().map(|(id, selected)| (id, selected.into())).collect())
}

/// The pages, each with the index of what it is the page of.
pub(super) async fn pages(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    relation: Relation<'_>,
    args: &PageArgs<ByText>,
    columns: Columns,
) -> Result<Vec<(usize, MetricPage)>> {
    let query = Pages { tenant, relation, args, limit: args.fetch(), columns };
    let rows: Vec<(i64, Selected)> = query.load(&mut conn).await?;
    let mut rows = rows.into_iter().peekable();
    let mut pages = Vec::new();
    while let Some(&(ordinal, ..)) = rows.peek() {
        let mut page = Vec::new();
        while let Some((_, selected)) = rows.next_if(|row| row.0 == ordinal) {
            let position = ByText(selected.metric.key.clone());
            page.push((selected.into(), position));
        }
        // PostgreSQL counts from 1.
        pages.push((ordinal as usize - 1, Page::from_rows(page, args)));
    }
    Ok(pages)
}

/// Diesel has no LATERAL; this node writes it. What each wanted thing is related to is a subquery that ends at the page.
struct Pages<'a> {
    tenant: TenantId,
    relation: Relation<'a>,
    args: &'a PageArgs<ByText>,
    limit: i64,
    columns: Columns,
}

impl QueryId for Pages<'_> {
    type QueryId = ();
    // Prepared by its text, of which there are a few: by relation, direction, which cursors are given, and what is wanted.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Pages<'_> {
    type SqlType = (BigInt, SqlTypeOf<Columns>);
}

impl QueryFragment<Pg> for Pages<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("SELECT wanted.ordinal, ");
        self.columns.walk_ast(out.reborrow())?;
        out.push_sql(" FROM unnest(");
        match self.relation {
            Relation::UpstreamOf(keys) => {
                out.push_bind_param::<Array<Text>, _>(keys)?;
                self.neighbours(out.reborrow(), "upstream_key", "downstream_key")?;
            }
            Relation::DownstreamOf(keys) => {
                out.push_bind_param::<Array<Text>, _>(keys)?;
                self.neighbours(out.reborrow(), "downstream_key", "upstream_key")?;
            }
            Relation::In(ids) => {
                out.push_bind_param::<Array<SqlUuid>, _>(ids)?;
                self.members(out.reborrow())?;
            }
        }
        out.push_sql(" ORDER BY wanted.ordinal, metrics.key ");
        out.push_sql(self.order());
        Ok(())
    }
}

impl Pages<'_> {
    /// Edges may be declared from both ends, hence DISTINCT; the rows are only fetched for what is on the page.
    fn neighbours<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>, far: &str, near: &str) -> QueryResult<()> {
        out.push_sql(") WITH ORDINALITY AS wanted (key, ordinal), LATERAL (SELECT DISTINCT m.key, m.id FROM metric_edges e ");
        out.push_sql(&format!("JOIN metrics m ON m.tenant_id = e.tenant_id AND m.key = e.{far} WHERE e.tenant_id = "));
        out.push_bind_param::<SqlUuid, _>(&self.tenant)?;
        out.push_sql(&format!(" AND e.{near} = wanted.key"));
        self.cut(out.reborrow(), "m")?;
        out.push_sql(") AS neighbour JOIN metrics ON metrics.id = neighbour.id AND metrics.tenant_id = ");
        out.push_bind_param::<SqlUuid, _>(&self.tenant)
    }

    fn members<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(") WITH ORDINALITY AS wanted (id, ordinal), LATERAL (SELECT * FROM metrics m WHERE m.tenant_id = ");
        out.push_bind_param::<SqlUuid, _>(&self.tenant)?;
        out.push_sql(" AND m.domain_id = wanted.id AND m.archived_at IS NULL");
        self.cut(out.reborrow(), "m")?;
        out.push_sql(") AS metrics");
        Ok(())
    }

    /// Ends the subquery at the page.
    fn cut<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>, table: &str) -> QueryResult<()> {
        for (edge, comparison) in [(&self.args.after, ">"), (&self.args.before, "<")] {
            if let Some(ByText(key)) = edge {
                out.push_sql(&format!(" AND {table}.key {comparison} "));
                out.push_bind_param::<Text, _>(key)?;
            }
        }
        out.push_sql(&format!(" ORDER BY {table}.key {} LIMIT ", self.order()));
        out.push_bind_param::<BigInt, _>(&self.limit)
    }

    fn order(&self) -> &'static str {
        if self.args.backward { "DESC" } else { "ASC" }
    }
}
