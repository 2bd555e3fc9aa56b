//! Reads of the business_domains table.

use chrono::{DateTime, Utc};
use diesel::dsl::count_star;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::{Deserialize, Serialize};

use super::Domain;
use crate::error::{Code, Error, Result};
use crate::ids::{DomainId, TenantId};
use crate::page::{Page, PageArgs};
use crate::schema::business_domains as domains;

/// What a list of domains is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Order {
    #[default]
    Name,
    Key,
    UpdatedAt,
}

/// The ordering values of one domain in a list. Names and keys are unique by themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Position {
    Name(String),
    Key(String),
    UpdatedAt(DateTime<Utc>, DomainId),
}

/// Which domains are wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    pub keys: Option<Vec<String>>,
    pub owner_teams: Option<Vec<String>>,
    /// Lists leave out archived domains unless asked.
    pub archived: Option<bool>,
}

pub async fn by_ids(mut conn: &AsyncPgConnection, tenant: TenantId, ids: &[DomainId]) -> Result<Vec<Domain>> {
    Ok(all(tenant).filter(domains::id.eq_any(ids)).load(&mut conn).await?)
}

pub async fn by_keys(mut conn: &AsyncPgConnection, tenant: TenantId, keys: &[String]) -> Result<Vec<Domain>> {
    Ok(all(tenant).filter(domains::key.eq_any(keys)).load(&mut conn).await?)
}

/// The domain with this key or, failing that, with this name.
pub async fn by_key_or_name(mut conn: &AsyncPgConnection, tenant: TenantId, text: &str) -> Result<Option<Domain>> {
    let found: Vec<Domain> = all(tenant).filter(domains::key.eq(text).or(domains::name.eq(text))).load(&mut conn).await?;
    Ok(found.into_iter().max_by_key(|domain| domain.key == text))
}

/// The domains with this key or this name.
pub(super) async fn alike(mut conn: &AsyncPgConnection, tenant: TenantId, key: &str, name: &str) -> Result<Vec<Domain>> {
    Ok(all(tenant).filter(domains::key.eq(key).or(domains::name.eq(name))).order(domains::key).load(&mut conn).await?)
}

/// The domain, locked until the transaction ends.
pub async fn lock(mut conn: &AsyncPgConnection, tenant: TenantId, id: DomainId) -> Result<Option<Domain>> {
    Ok(domains::table
        .filter(domains::tenant_id.eq(tenant).and(domains::id.eq(id)))
        .select(Domain::as_select())
        .for_update()
        .first(&mut conn)
        .await
        .optional()?)
}

/// One page, each domain with its position in the list.
pub async fn page(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    filter: &Filter,
    order: Order,
    descending: bool,
    args: &PageArgs<Position>,
) -> Result<Page<(Domain, Position)>> {
    let mut query = all(tenant).filter(filter.condition());
    for (position, after) in [(&args.after, true), (&args.before, false)] {
        let Some(position) = position else { continue };
        let greater = after != descending;
        query = match (order, position) {
            (Order::Name, Position::Name(name)) if greater => query.filter(domains::name.gt(name.clone())),
            (Order::Name, Position::Name(name)) => query.filter(domains::name.lt(name.clone())),
            (Order::Key, Position::Key(key)) if greater => query.filter(domains::key.gt(key.clone())),
            (Order::Key, Position::Key(key)) => query.filter(domains::key.lt(key.clone())),
            (Order::UpdatedAt, Position::UpdatedAt(at, id)) if greater => {
                query.filter(domains::updated_at.ge(*at).and(domains::updated_at.gt(*at).or(domains::id.gt(*id))))
            }
            (Order::UpdatedAt, Position::UpdatedAt(at, id)) => {
                query.filter(domains::updated_at.le(*at).and(domains::updated_at.lt(*at).or(domains::id.lt(*id))))
            }
            _ => return Err(Error::invalid("after", Code::Invalid, "Not a cursor of this list in this order")),
        };
    }
    query = match (order, descending == args.backward) {
        (Order::Name, true) => query.order(domains::name.asc()),
        (Order::Name, false) => query.order(domains::name.desc()),
        (Order::Key, true) => query.order(domains::key.asc()),
        (Order::Key, false) => query.order(domains::key.desc()),
        (Order::UpdatedAt, true) => query.order((domains::updated_at.asc(), domains::id.asc())),
        (Order::UpdatedAt, false) => query.order((domains::updated_at.desc(), domains::id.desc())),
    };
    let rows: Vec<Domain> = query.limit(args.fetch()).load(&mut conn).await?;
    let rows = rows
        .into_iter()
        .map(|domain| {
            let position = position(order, &domain);
            (domain, position)
        })
        .collect();
    Ok(Page::from_rows(rows, args))
}

pub async fn count(mut conn: &AsyncPgConnection, tenant: TenantId, filter: &Filter) -> Result<i64> {
    let query = domains::table.filter(domains::tenant_id.eq(tenant)).select(count_star()).into_boxed::<Pg>();
    Ok(query.filter(filter.condition()).first(&mut conn).await?)
}

type Query = domains::BoxedQuery<'static, Pg, diesel::dsl::SqlTypeOf<diesel::dsl::AsSelect<Domain, Pg>>>;

fn all(tenant: TenantId) -> Query {
    domains::table.filter(domains::tenant_id.eq(tenant)).select(Domain::as_select()).into_boxed()
}

type Condition = Box<dyn BoxableExpression<domains::table, Pg, SqlType = Nullable<Bool>>>;

impl Filter {
    fn condition(&self) -> Condition {
        let mut condition: Condition = match self.archived {
            Some(true) => Box::new(domains::archived_at.is_not_null().nullable()),
            Some(false) | None => Box::new(domains::archived_at.is_null().nullable()),
        };
        if let Some(keys) = self.keys.clone() {
            condition = Box::new(condition.and(domains::key.eq_any(keys)));
        }
        if let Some(teams) = self.owner_teams.clone() {
            condition = Box::new(condition.and(domains::owner_team.eq_any(teams)));
        }
        condition
    }
}

fn position(order: Order, domain: &Domain) -> Position {
    match order {
        Order::Name => Position::Name(domain.content.name.clone()),
        Order::Key => Position::Key(domain.key.clone()),
        Order::UpdatedAt => Position::UpdatedAt(domain.updated_at, domain.id),
    }
}
