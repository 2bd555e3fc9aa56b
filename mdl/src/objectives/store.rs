//! Reads of objectives and key results.

use chrono::{DateTime, NaiveDate, Utc};
use diesel::dsl::{count_star, max, sql};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Array, Bool, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::{Deserialize, Serialize};

use super::{KeyResult, Objective, ObjectiveStatus};
use crate::error::{Code, Error, Result};
use crate::ids::{DomainId, KeyResultId, ObjectiveId, TenantId};
use crate::page::{ByText, Page, PageArgs};
use crate::schema::{business_domains, key_result_metrics, key_results, objectives};

/// What a list of objectives is ordered by; the id decides between equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Order {
    #[default]
    Key,
    Name,
    UpdatedAt,
}

/// The ordering values of one objective in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Position {
    Key(String),
    Name(String, ObjectiveId),
    UpdatedAt(DateTime<Utc>, ObjectiveId),
}

/// Which objectives are wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    pub keys: Option<Vec<String>>,
    pub statuses: Option<Vec<ObjectiveStatus>>,
    pub domains: Option<Vec<DomainId>>,
    pub domain_keys: Option<Vec<String>>,
    pub owners: Option<Vec<String>>,
    pub pillars: Option<Vec<String>>,
    /// Those whose timeframe includes this day.
    pub on: Option<NaiveDate>,
    /// Lists leave out archived objectives unless asked.
    pub archived: Option<bool>,
}

pub async fn by_ids(mut conn: &AsyncPgConnection, tenant: TenantId, ids: &[ObjectiveId]) -> Result<Vec<Objective>> {
    Ok(all(tenant).filter(objectives::id.eq_any(ids)).load(&mut conn).await?)
}

pub async fn by_keys(mut conn: &AsyncPgConnection, tenant: TenantId, keys: &[String]) -> Result<Vec<Objective>> {
    Ok(all(tenant).filter(objectives::key.eq_any(keys)).load(&mut conn).await?)
}

/// The objective, locked until the transaction ends.
pub async fn lock(mut conn: &AsyncPgConnection, tenant: TenantId, id: ObjectiveId) -> Result<Option<Objective>> {
    Ok(objectives::table
        .filter(objectives::tenant_id.eq(tenant).and(objectives::id.eq(id)))
        .select(Objective::as_select())
        .for_update()
        .first(&mut conn)
        .await
        .optional()?)
}

/// One page, each objective with its position in the list.
pub async fn page(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    filter: &Filter,
    order: Order,
    descending: bool,
    args: &PageArgs<Position>,
) -> Result<Page<(Objective, Position)>> {
    let mut query = all(tenant);
    if let Some(condition) = filter.condition(tenant) {
        query = query.filter(condition);
    }
    for (position, after) in [(&args.after, true), (&args.before, false)] {
        let Some(position) = position else { continue };
        let greater = after != descending;
        query =
            match (order, position) {
                (Order::Key, Position::Key(key)) if greater => query.filter(objectives::key.gt(key.clone())),
                (Order::Key, Position::Key(key)) => query.filter(objectives::key.lt(key.clone())),
                (Order::Name, Position::Name(name, id)) if greater => query
                    .filter(objectives::name.ge(name.clone()).and(objectives::name.gt(name.clone()).or(objectives::id.gt(*id)))),
                (Order::Name, Position::Name(name, id)) => query
                    .filter(objectives::name.le(name.clone()).and(objectives::name.lt(name.clone()).or(objectives::id.lt(*id)))),
                (Order::UpdatedAt, Position::UpdatedAt(at, id)) if greater => {
                    query.filter(objectives::updated_at.ge(*at).and(objectives::updated_at.gt(*at).or(objectives::id.gt(*id))))
                }
                (Order::UpdatedAt, Position::UpdatedAt(at, id)) => {
                    query.filter(objectives::updated_at.le(*at).and(objectives::updated_at.lt(*at).or(objectives::id.lt(*id))))
                }
                _ => return Err(Error::invalid("after", Code::Invalid, "Not a cursor of this list in this order")),
            };
    }
    query = match (order, descending == args.backward) {
        (Order::Key, true) => query.order(objectives::key.asc()),
        (Order::Key, false) => query.order(objectives::key.desc()),
        (Order::Name, true) => query.order((objectives::name.asc(), objectives::id.asc())),
        (Order::Name, false) => query.order((objectives::name.desc(), objectives::id.desc())),
        (Order::UpdatedAt, true) => query.order((objectives::updated_at.asc(), objectives::id.asc())),
        (Order::UpdatedAt, false) => query.order((objectives::updated_at.desc(), objectives::id.desc())),
    };
    let rows: Vec<Objective> = query.limit(args.fetch()).load(&mut conn).await?;
    let rows = rows
        .into_iter()
        .map(|objective| {
            let position = match order {
                Order::Key => Position::Key(objective.key.clone()),
                Order::Name => Position::Name(objective.content.name.clone(), objective.id),
                Order::UpdatedAt => Position::UpdatedAt(objective.updated_at, objective.id),
            };
            (objective, position)
        })
        .collect();
    Ok(Page::from_rows(rows, args))
}

/// For each domain, a page of its current objectives, ordered by key. A domain without any is left out.
pub async fn page_of_each_domain(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    ids: &[DomainId],
    args: &PageArgs<ByText>,
) -> Result<Vec<(DomainId, Page<(Objective, ByText)>)>> {
    // Diesel has no LATERAL, which ends each domain's scan at its page.
    let order = if args.backward { "DESC" } else { "ASC" };
    let (after, before) = (args.after.as_ref().map(|key| key.0.clone()), args.before.as_ref().map(|key| key.0.clone()));
    let on_a_page = sql::<Bool>("objectives.id IN (SELECT o.id FROM unnest(")
        .bind::<Array<SqlUuid>, _>(ids.to_vec())
        .sql(") AS wanted (id), LATERAL (SELECT id FROM objectives WHERE tenant_id = ")
        .bind::<SqlUuid, _>(tenant)
        .sql(" AND domain_id = wanted.id AND archived_at IS NULL AND key > coalesce(")
        .bind::<Nullable<Text>, _>(after)
        .sql(", '') AND (key < ")
        .bind::<Nullable<Text>, _>(before)
        .sql(&format!(") IS NOT FALSE ORDER BY key {order} LIMIT {}) AS o)", args.fetch()));
    let query = objectives::table.filter(objectives::tenant_id.eq(tenant)).filter(on_a_page).select(Objective::as_select());
    let rows: Vec<Objective> = if args.backward {
        query.order((objectives::domain_id, objectives::key.desc())).load(&mut conn).await?
    } else {
        query.order((objectives::domain_id, objectives::key.asc())).load(&mut conn).await?
    };
    let pages = rows.chunk_by(|a, b| a.content.domain_id == b.content.domain_id).filter_map(|rows| {
        let items = rows.iter().map(|row| (row.clone(), ByText(row.key.clone()))).collect();
        Some((rows[0].content.domain_id?, Page::from_rows(items, args)))
    });
    Ok(pages.collect())
}

/// How many current objectives each domain has.
pub async fn count_of_each_domain(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    ids: &[DomainId],
) -> Result<Vec<(DomainId, i64)>> {
    Ok(objectives::table
        .filter(objectives::tenant_id.eq(tenant).and(objectives::archived_at.is_null()))
        .filter(objectives::domain_id.eq_any(ids))
        .group_by(objectives::domain_id)
        .select((objectives::domain_id.assume_not_null(), count_star()))
        .load(&mut conn)
        .await?)
}

pub async fn count(mut conn: &AsyncPgConnection, tenant: TenantId, filter: &Filter) -> Result<i64> {
    let query = objectives::table.filter(objectives::tenant_id.eq(tenant)).select(count_star()).into_boxed::<Pg>();
    let query = match filter.condition(tenant) {
        Some(condition) => query.filter(condition),
        None => query,
    };
    Ok(query.first(&mut conn).await?)
}

/// The current key results of several objectives, in their order.
pub async fn key_results_of(mut conn: &AsyncPgConnection, tenant: TenantId, ids: &[ObjectiveId]) -> Result<Vec<KeyResult>> {
    Ok(key_results::table
        .filter(key_results::tenant_id.eq(tenant).and(key_results::objective_id.eq_any(ids)))
        .filter(key_results::archived_at.is_null())
        .order((key_results::objective_id, key_results::position, key_results::id))
        .select(KeyResult::as_select())
        .load(&mut conn)
        .await?)
}

pub async fn key_results_by_ids(mut conn: &AsyncPgConnection, tenant: TenantId, ids: &[KeyResultId]) -> Result<Vec<KeyResult>> {
    Ok(key_results::table
        .filter(key_results::tenant_id.eq(tenant).and(key_results::id.eq_any(ids)))
        .select(KeyResult::as_select())
        .load(&mut conn)
        .await?)
}

/// The current key results that are read from these metrics, by metric key.
pub async fn key_results_of_metrics(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    metric_keys: &[String],
) -> Result<Vec<(String, KeyResult)>> {
    let link = key_result_metrics::table
        .on(key_result_metrics::tenant_id.eq(key_results::tenant_id).and(key_result_metrics::key_result_id.eq(key_results::id)));
    Ok(key_results::table
        .inner_join(link)
        .filter(key_result_metrics::tenant_id.eq(tenant).and(key_result_metrics::metric_key.eq_any(metric_keys)))
        .filter(key_results::archived_at.is_null())
        .order((key_results::objective_id, key_results::position, key_results::id))
        .select((key_result_metrics::metric_key, KeyResult::as_select()))
        .load(&mut conn)
        .await?)
}

/// The metric keys of several key results, in their order.
pub async fn metric_keys_of_each(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    ids: &[KeyResultId],
) -> Result<Vec<(KeyResultId, String)>> {
    Ok(key_result_metrics::table
        .filter(key_result_metrics::tenant_id.eq(tenant).and(key_result_metrics::key_result_id.eq_any(ids)))
        .order((key_result_metrics::key_result_id, key_result_metrics::position))
        .select((key_result_metrics::key_result_id, key_result_metrics::metric_key))
        .load(&mut conn)
        .await?)
}

pub async fn metric_keys_of(conn: &AsyncPgConnection, tenant: TenantId, id: KeyResultId) -> Result<Vec<String>> {
    Ok(metric_keys_of_each(conn, tenant, &[id]).await?.into_iter().map(|(_, key)| key).collect())
}

/// The key result, locked until the transaction ends.
pub(super) async fn lock_key_result(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    id: KeyResultId,
) -> Result<Option<KeyResult>> {
    Ok(key_results::table
        .filter(key_results::tenant_id.eq(tenant).and(key_results::id.eq(id)))
        .select(KeyResult::as_select())
        .for_update()
        .first(&mut conn)
        .await
        .optional()?)
}

/// The position after the last key result of an objective.
pub(super) async fn next_position(mut conn: &AsyncPgConnection, tenant: TenantId, id: ObjectiveId) -> Result<i32> {
    let last: Option<i32> = key_results::table
        .filter(key_results::tenant_id.eq(tenant).and(key_results::objective_id.eq(id)))
        .select(max(key_results::position))
        .first(&mut conn)
        .await?;
    Ok(last.map_or(0, |last| last + 1))
}

type Query = objectives::BoxedQuery<'static, Pg, diesel::dsl::SqlTypeOf<diesel::dsl::AsSelect<Objective, Pg>>>;
type Condition = Box<dyn BoxableExpression<objectives::table, Pg, SqlType = Nullable<Bool>>>;

fn all(tenant: TenantId) -> Query {
    objectives::table.filter(objectives::tenant_id.eq(tenant)).select(Objective::as_select()).into_boxed()
}

impl Filter {
    fn condition(&self, tenant: TenantId) -> Option<Condition> {
        let mut all: Vec<Condition> = Vec::new();
        if let Some(keys) = self.keys.clone() {
            all.push(Box::new(objectives::key.eq_any(keys).nullable()));
        }
        if let Some(statuses) = &self.statuses {
            let names: Vec<&'static str> = statuses.iter().map(|status| status.as_str()).collect();
            all.push(Box::new(objectives::status.eq_any(names).nullable()));
        }
        if let Some(domains) = self.domains.clone() {
            all.push(Box::new(objectives::domain_id.eq_any(domains)));
        }
        if let Some(keys) = self.domain_keys.clone() {
            let wanted = business_domains::table
                .filter(business_domains::tenant_id.eq(tenant).and(business_domains::key.eq_any(keys)))
                .select(business_domains::id.nullable());
            all.push(Box::new(objectives::domain_id.eq_any(wanted)));
        }
        if let Some(owners) = self.owners.clone() {
            all.push(Box::new(objectives::owner.eq_any(owners)));
        }
        if let Some(pillars) = self.pillars.clone() {
            all.push(Box::new(objectives::pillar.eq_any(pillars)));
        }
        if let Some(day) = self.on {
            let begun = objectives::starts_on.is_null().or(objectives::starts_on.le(day));
            let going_on = objectives::ends_on.is_null().or(objectives::ends_on.ge(day));
            let timed = objectives::starts_on.is_not_null().or(objectives::ends_on.is_not_null());
            all.push(Box::new(timed.and(begun).and(going_on)));
        }
        match self.archived {
            Some(true) => all.push(Box::new(objectives::archived_at.is_not_null().nullable())),
            Some(false) | None => all.push(Box::new(objectives::archived_at.is_null().nullable())),
        }
        all.into_iter().reduce(|a, b| Box::new(a.and(b)))
    }
}
