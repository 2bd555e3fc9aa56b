//! Webhooks: queries. `mutations` has what changes them; `object` and `delivery` are the types.

mod delivery;
pub mod enums;
mod inputs;
pub mod mutations;
mod object;

use async_graphql::{Context, ID, InputObject, Object, Result};
use mdl::actor::Permission;
use mdl::ids::{WebhookDeliveryId, WebhookEndpointId};
use mdl::page::PageArgs;
use mdl::webhooks::store::{self, DeliveryFilter};

pub use self::delivery::WebhookDelivery;
use self::enums::WebhookDeliveryState;
pub use self::mutations::WebhookMutations;
pub use self::object::WebhookEndpoint;
use super::connection::{Connection, connection};
use super::context::ContextExt;
use super::error::top_level;
use super::filter::{OneOf, check_texts, converted};
use super::global_id::{Kind, expect};
use super::guard::Needs;
use super::limits::page_cost;

/// Conditions on deliveries that must all hold.
#[derive(Debug, Default, InputObject)]
pub struct WebhookDeliveryFilter {
    /// To this endpoint, by its id.
    endpoint: Option<ID>,
    /// Where it stands.
    state: Option<OneOf<WebhookDeliveryState>>,
    /// The event's kind.
    kind: Option<OneOf<String>>,
}

impl WebhookDeliveryFilter {
    fn parse(self) -> mdl::Result<DeliveryFilter> {
        check_texts("filter", &self)?;
        let endpoint = self.endpoint.map(|id| expect("filter.endpoint", Kind::WebhookEndpoint, &id)).transpose()?;
        Ok(DeliveryFilter {
            endpoint: endpoint.map(WebhookEndpointId),
            states: self.state.map(converted),
            kinds: self.kind.map(|kind| kind.r#in),
        })
    }
}

pub type WebhookEndpointConnection = Connection<WebhookEndpoint, EndpointTotals>;
pub type WebhookDeliveryConnection = Connection<WebhookDelivery, DeliveryTotals>;

/// How many endpoints there are, if somebody asks.
pub struct EndpointTotals;

#[Object]
impl EndpointTotals {
    /// How many endpoints the whole list has. Counted only when selected.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        view.snapshot.read(async |conn| store::count(conn, tenant).await).await.map_err(top_level)
    }
}

/// What a list of deliveries is counted by, if somebody asks.
pub struct DeliveryTotals(DeliveryFilter);

#[Object]
impl DeliveryTotals {
    /// How many deliveries the whole list has. Counted only when selected.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        view.snapshot.read(async |conn| store::count_deliveries(conn, tenant, &self.0).await).await.map_err(top_level)
    }
}

#[derive(Default)]
pub struct WebhookQueries;

#[Object]
impl WebhookQueries {
    /// One webhook endpoint, by its id.
    #[graphql(guard = "Needs(Permission::Webhooks)")]
    async fn webhook_endpoint(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id, as `createWebhookEndpoint` gave it.")] id: ID,
    ) -> Option<Result<WebhookEndpoint>> {
        endpoint(ctx, &id).await.transpose()
    }

    /// The webhook endpoints, newest first.
    #[graphql(guard = "Needs(Permission::Webhooks)", complexity = "page_cost(first, last, child_complexity)")]
    async fn webhook_endpoints(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "How many, from the start of the list or after `after`; at most 100, 20 if neither this nor `last` is given."
        )]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes after it.")] after: Option<String>,
        #[graphql(desc = "How many, from the end of the list or before `before`; at most 100.")] last: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes before it.")] before: Option<String>,
    ) -> Result<WebhookEndpointConnection> {
        let args = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let page = view.snapshot.read(async |conn| store::page(conn, tenant, &args).await).await.map_err(top_level)?;
        let page = page.map(|endpoint| {
            let position = endpoint.id;
            (endpoint, position)
        });
        Ok(connection(ctx, page, EndpointTotals, WebhookEndpoint::from))
    }

    /// One delivery of a webhook, by its id.
    #[graphql(guard = "Needs(Permission::Webhooks)")]
    async fn webhook_delivery(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id, as any field `id` of a delivery gave it.")] id: ID,
    ) -> Option<Result<WebhookDelivery>> {
        delivery(ctx, &id).await.transpose()
    }

    /// The deliveries of webhooks that match, newest first. Finished ones are kept for 30 days, or as long as the installation is
    /// set to.
    #[graphql(guard = "Needs(Permission::Webhooks)", complexity = "page_cost(first, last, child_complexity)")]
    async fn webhook_deliveries(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which deliveries; all if not given.")] filter: Option<WebhookDeliveryFilter>,
        #[graphql(
            desc = "How many, from the start of the list or after `after`; at most 100, 20 if neither this nor `last` is given."
        )]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes after it.")] after: Option<String>,
        #[graphql(desc = "How many, from the end of the list or before `before`; at most 100.")] last: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes before it.")] before: Option<String>,
    ) -> Result<WebhookDeliveryConnection> {
        let args = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        let filter = filter.unwrap_or_default().parse().map_err(top_level)?;
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let page = view.snapshot.read(async |conn| store::deliveries(conn, tenant, &filter, &args).await).await;
        let page = page.map_err(top_level)?.map(|delivery| {
            let position = delivery.id;
            (delivery, position)
        });
        Ok(connection(ctx, page, DeliveryTotals(filter), WebhookDelivery::from))
    }
}

async fn endpoint(ctx: &Context<'_>, id: &ID) -> Result<Option<WebhookEndpoint>> {
    let id = WebhookEndpointId(expect("id", Kind::WebhookEndpoint, id).map_err(top_level)?);
    Ok(ctx.reading()?.loaders.webhooks.endpoints.get(id).await?.map(WebhookEndpoint))
}

async fn delivery(ctx: &Context<'_>, id: &ID) -> Result<Option<WebhookDelivery>> {
    let id = WebhookDeliveryId(expect("id", Kind::WebhookDelivery, id).map_err(top_level)?);
    let view = ctx.reading()?;
    let tenant = view.snapshot.tenant();
    let found = view.snapshot.read(async |conn| store::deliveries_by_ids(conn, tenant, &[id]).await).await.map_err(top_level)?;
    Ok(found.into_iter().next().map(WebhookDelivery::from))
}
