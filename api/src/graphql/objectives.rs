//! Objectives and their key results: queries. The mutations are in `mutations`.

pub mod enums;
mod inputs;
mod key_result;
pub mod mutations;
mod object;

use async_graphql::{Context, Enum, ID, InputObject, Object, Result};
use chrono::NaiveDate;
use mdl::actor::Permission;
use mdl::error::{Code, Error};
use mdl::ids::{DomainId, ObjectiveId};
use mdl::objectives::store;
use mdl::page::PageArgs;

use self::enums::ObjectiveStatus;
pub use self::key_result::KeyResult;
pub use self::mutations::ObjectiveMutations;
pub use self::object::Objective;
use super::connection::{Connection, connection};
use super::context::ContextExt;
use super::eager::Eager;
use super::error::top_level;
use super::filter::{OneOf, OrderDirection, check_texts, converted};
use super::global_id::{Kind, expect};
use super::guard::Needs;
use super::limits::page_cost;

/// Conditions that must all hold. An objective without a value fails every `in`.
#[derive(Debug, Default, InputObject)]
pub struct ObjectiveFilter {
    /// Its key.
    key: Option<OneOf<String>>,
    /// Where it stands, as its owner says.
    status: Option<OneOf<ObjectiveStatus>>,
    /// The key of the business domain that it belongs to.
    domain: Option<OneOf<String>>,
    /// Who answers for it.
    owner: Option<OneOf<String>>,
    /// The part of the company's strategy that it serves.
    pillar: Option<OneOf<String>>,
    /// Its timeframe includes this day; one that is open at an end goes on there. Without a timeframe it is left out.
    on: Option<NaiveDate>,
    /// `true` for archived objectives; if not given, and with `false`, the others.
    archived: Option<bool>,
}

/// What a list of objectives is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::objectives::store::Order")]
pub enum ObjectiveOrderField {
    /// The key.
    Key,
    /// The name, as people sort words.
    Name,
    /// When it last changed.
    UpdatedAt,
}

/// The order of a list of objectives.
#[derive(Debug, InputObject)]
pub struct ObjectiveOrder {
    /// What it is ordered by; between equals the id decides.
    field: ObjectiveOrderField,
    /// Which way; ascending if not given.
    direction: Option<OrderDirection>,
}

pub type ObjectiveConnection = Connection<Objective, ObjectiveTotals>;

/// What a list of objectives is counted by, if somebody asks.
pub enum ObjectiveTotals {
    Matching(Box<store::Filter>),
    In(DomainId),
}

#[Object]
impl ObjectiveTotals {
    /// How many objectives the whole list has. Counted only when selected.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let view = ctx.reading()?;
        match self {
            ObjectiveTotals::Matching(filter) => {
                let tenant = view.snapshot.tenant();
                view.snapshot.read(async |conn| store::count(conn, tenant, filter).await).await.map_err(top_level)
            }
            ObjectiveTotals::In(domain) => Ok(view.loaders.domains.objective_count.get(*domain).await?.unwrap_or(0)),
        }
    }
}

#[derive(Default)]
pub struct ObjectiveQueries;

#[Object]
#[expect(clippy::too_many_arguments, reason = "they are the arguments of the field")]
impl ObjectiveQueries {
    /// One objective, by its key or its id: give exactly one of the two. Archived objectives are found as well.
    #[graphql(guard = "Needs(Permission::CatalogRead)")]
    async fn objective(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The stable human name: `OBJ-001`.")] key: Option<String>,
        #[graphql(desc = "The id, as any field `id` gave it.")] id: Option<ID>,
    ) -> Option<Result<Eager<Objective>>> {
        find(ctx, key, id).await.map(|found| found.map(Eager)).transpose()
    }

    /// The objectives that match, one page at a time.
    #[graphql(guard = "Needs(Permission::CatalogRead)", complexity = "page_cost(first, last, child_complexity)")]
    async fn objectives(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which objectives. Without it all that are not archived.")] filter: Option<ObjectiveFilter>,
        #[graphql(desc = "In which order; by key if not given.")] order_by: Option<ObjectiveOrder>,
        #[graphql(
            desc = "How many, from the start of the list or after `after`; at most 100, 20 if neither this nor `last` is given."
        )]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list, in the same order: what comes after it.")] after: Option<String>,
        #[graphql(desc = "How many, from the end of the list or before `before`; at most 100.")] last: Option<i32>,
        #[graphql(desc = "A cursor of this list, in the same order: what comes before it.")] before: Option<String>,
    ) -> Result<ObjectiveConnection> {
        let args = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        check_texts("filter", &filter).map_err(top_level)?;
        let filter = store::Filter::from(filter.unwrap_or_default());
        let (order, descending) = order_by.map_or_else(Default::default, |order| {
            (store::Order::from(order.field), order.direction == Some(OrderDirection::Desc))
        });
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let page = view.snapshot.read(async |conn| store::page(conn, tenant, &filter, order, descending, &args).await).await;
        Ok(connection(ctx, page.map_err(top_level)?, ObjectiveTotals::Matching(Box::new(filter)), Objective::from))
    }
}

async fn find(ctx: &Context<'_>, key: Option<String>, id: Option<ID>) -> Result<Option<Objective>> {
    check_texts("key", &key).map_err(top_level)?;
    let loaders = &ctx.reading()?.loaders.objectives;
    let found = match (key, id) {
        (Some(key), None) => loaders.by_key.get(key).await?,
        (None, Some(id)) => loaders.by_id.get(ObjectiveId(expect("id", Kind::Objective, &id).map_err(top_level)?)).await?,
        _ => return Err(top_level(Error::invalid("key", Code::Invalid, "Give either the key or the id"))),
    };
    Ok(found.map(Objective))
}

impl From<ObjectiveFilter> for store::Filter {
    fn from(filter: ObjectiveFilter) -> Self {
        Self {
            keys: filter.key.map(|key| key.r#in),
            statuses: filter.status.map(converted),
            domains: None,
            domain_keys: filter.domain.map(|domain| domain.r#in),
            owners: filter.owner.map(|owner| owner.r#in),
            pillars: filter.pillar.map(|pillar| pillar.r#in),
            on: filter.on,
            archived: filter.archived,
        }
    }
}
