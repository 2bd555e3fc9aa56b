//! Business domains: queries and mutations.

mod inputs;
mod object;

use std::collections::HashSet;

use async_graphql::{Context, Enum, ID, InputObject, Object, Result};
use futures::future::BoxFuture;
use mdl::actor::Permission;
use mdl::domains::{self, store};
use mdl::error::{Code, Error};
use mdl::ids::DomainId;
use mdl::page::PageArgs;

use self::inputs::{ArchiveBusinessDomainInput, CreateBusinessDomainInput, UpdateBusinessDomainInput};
pub use self::object::BusinessDomain;
use super::connection::{Connection, connection};
use super::context::ContextExt;
use super::eager::{Eager, Inner, WriteJson};
use super::error::top_level;
use super::filter::{OneOf, OrderDirection, check_texts};
use super::global_id::{Kind, expect};
use super::guard::Needs;
use super::limits::page_cost;
use super::loaders;
use super::payload::payloads;

/// Conditions that must all hold.
#[derive(Debug, Default, InputObject)]
pub struct BusinessDomainFilter {
    /// Its key.
    key: Option<OneOf<String>>,
    /// The team that answers for it.
    owner_team: Option<OneOf<String>>,
    /// `true` for archived domains; if not given, and with `false`, the others.
    archived: Option<bool>,
}

/// What a list of business domains is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::domains::store::Order")]
pub enum BusinessDomainOrderField {
    /// The name, as people sort words.
    Name,
    /// The key.
    Key,
    /// When it last changed.
    UpdatedAt,
}

/// The order of a list of business domains.
#[derive(Debug, InputObject)]
pub struct BusinessDomainOrder {
    /// What it is ordered by.
    field: BusinessDomainOrderField,
    /// Which way; ascending if not given.
    direction: Option<OrderDirection>,
}

pub type BusinessDomainConnection = Connection<BusinessDomain, DomainTotals>;

/// What a list of domains is counted by, if somebody asks.
pub struct DomainTotals(store::Filter);

#[Object]
impl DomainTotals {
    /// How many business domains the whole list has. Counted only when selected.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        view.snapshot.read(async |conn| store::count(conn, tenant, &self.0).await).await.map_err(top_level)
    }
}

#[derive(Default)]
pub struct DomainQueries;

#[Object]
#[expect(clippy::too_many_arguments, reason = "they are the arguments of the field")]
impl DomainQueries {
    /// One business domain, by its key or its id: give exactly one of the two. Archived domains are found as well.
    #[graphql(guard = "Needs(Permission::CatalogRead)")]
    async fn business_domain(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The stable human name: `DOMAIN-REVENUE`.")] key: Option<String>,
        #[graphql(desc = "The id, as any field `id` gave it.")] id: Option<ID>,
    ) -> Option<Result<Eager<BusinessDomain>>> {
        find(ctx, key, id).await.map(|found| found.map(Eager)).transpose()
    }

    /// The business domains that match, one page at a time.
    #[graphql(guard = "Needs(Permission::CatalogRead)", complexity = "page_cost(first, last, child_complexity)")]
    async fn business_domains(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which domains. Without it all that are not archived.")] filter: Option<BusinessDomainFilter>,
        #[graphql(desc = "In which order; by name if not given.")] order_by: Option<BusinessDomainOrder>,
        #[graphql(
            desc = "How many, from the start of the list or after `after`; at most 100, 20 if neither this nor `last` is given."
        )]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list, in the same order: what comes after it.")] after: Option<String>,
        #[graphql(desc = "How many, from the end of the list or before `before`; at most 100.")] last: Option<i32>,
        #[graphql(desc = "A cursor of this list, in the same order: what comes before it.")] before: Option<String>,
    ) -> Result<BusinessDomainConnection> {
        let args = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        check_texts("filter", &filter).map_err(top_level)?;
        let filter = store::Filter::from(filter.unwrap_or_default());
        let (order, descending) = order_by.map_or_else(Default::default, |order| {
            (store::Order::from(order.field), order.direction == Some(OrderDirection::Desc))
        });
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let page = view.snapshot.read(async |conn| store::page(conn, tenant, &filter, order, descending, &args).await).await;
        Ok(connection(ctx, page.map_err(top_level)?, DomainTotals(filter), BusinessDomain::from))
    }
}

#[derive(Default)]
pub struct DomainMutations;

#[Object]
impl DomainMutations {
    /// Adds a business domain.
    #[graphql(guard = "Needs(Permission::CatalogWrite)")]
    async fn create_business_domain(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The domain.")] input: CreateBusinessDomainInput,
    ) -> Result<CreateBusinessDomainPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let (key, content) = input.into_content();
        let result = domains::create(ctx.app(), actor, &key, &content).await;
        CreateBusinessDomainPayload::answer(result, BusinessDomain::from)
    }

    /// Changes a business domain. A change of nothing writes nothing.
    #[graphql(guard = "Needs(Permission::CatalogWrite)")]
    async fn update_business_domain(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The change.")] input: UpdateBusinessDomainInput,
    ) -> Result<UpdateBusinessDomainPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async {
            let id = DomainId(expect("id", Kind::Domain, &input.id)?);
            domains::update(ctx.app(), actor, id, input.expected_version, |content| input.apply(content)).await
        }
        .await;
        UpdateBusinessDomainPayload::answer(result, BusinessDomain::from)
    }

    /// Takes a business domain out of the lists. Its metrics stay in it. To do it twice is no error.
    #[graphql(guard = "Needs(Permission::CatalogWrite)")]
    async fn archive_business_domain(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which domain.")] input: ArchiveBusinessDomainInput,
    ) -> Result<ArchiveBusinessDomainPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async {
            let id = DomainId(expect("id", Kind::Domain, &input.id)?);
            domains::archive(ctx.app(), actor, id, input.expected_version).await
        }
        .await;
        ArchiveBusinessDomainPayload::answer(result, BusinessDomain::from)
    }
}

payloads! {
    /// The business domain that was added.
    CreateBusinessDomainPayload {
        /// The new domain.
        business_domain: BusinessDomain
    }
    /// The business domain that was changed.
    UpdateBusinessDomainPayload {
        /// The domain as it is now.
        business_domain: BusinessDomain
    }
    /// The business domain that was archived.
    ArchiveBusinessDomainPayload {
        /// The domain as it is now.
        business_domain: BusinessDomain
    }
}

/// The domain that something belongs to, for a field that may be null.
pub async fn by_id(ctx: &Context<'_>, id: DomainId) -> Option<Result<Eager<BusinessDomain>>> {
    let found = async { ctx.reading()?.loaders.domains.by_id.get(id).await }.await;
    found.map(|domain| domain.map(|domain| Eager(BusinessDomain(domain)))).transpose()
}

/// Loads the domains of many things, so that the field of each finds its own at hand.
pub fn ahead(ctx: &Context<'_>, ids: impl Iterator<Item = DomainId>) -> Option<BoxFuture<'static, ()>> {
    let ids: HashSet<_> = ids.collect();
    Some(loaders::ahead(ctx.reading().ok()?, |loaders| &loaders.domains.by_id, ids.into_iter().collect()))
}

/// Writes the domain that something belongs to, if it is at hand.
pub fn write_by_id(ctx: &Context<'_>, id: Option<DomainId>, inner: &mut Inner<'_>, json: &mut Vec<u8>) -> bool {
    let found = id.map(|id| ctx.reading().ok()?.loaders.domains.by_id.at_hand(&id)?.ok());
    match found {
        Some(Some(Some(domain))) => inner.write(&BusinessDomain(domain), ctx, json),
        Some(None) => false,
        None | Some(Some(None)) => {
            None::<&str>.write(json);
            true
        }
    }
}

async fn find(ctx: &Context<'_>, key: Option<String>, id: Option<ID>) -> Result<Option<BusinessDomain>> {
    check_texts("key", &key).map_err(top_level)?;
    let view = ctx.reading()?;
    match (key, id) {
        (Some(key), None) => {
            let keys = [key];
            let tenant = view.snapshot.tenant();
            let found = view.snapshot.read(async |conn| store::by_keys(conn, tenant, &keys).await).await.map_err(top_level)?;
            Ok(found.into_iter().next().map(BusinessDomain::from))
        }
        (None, Some(id)) => {
            let id = DomainId(expect("id", Kind::Domain, &id).map_err(top_level)?);
            Ok(view.loaders.domains.by_id.get(id).await?.map(BusinessDomain))
        }
        _ => Err(top_level(Error::invalid("key", Code::Invalid, "Give either the key or the id"))),
    }
}

impl From<BusinessDomainFilter> for store::Filter {
    fn from(filter: BusinessDomainFilter) -> Self {
        Self {
            keys: filter.key.map(|key| key.r#in),
            owner_teams: filter.owner_team.map(|team| team.r#in),
            archived: filter.archived,
        }
    }
}
