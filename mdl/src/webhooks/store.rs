//! Reads of endpoints, deliveries and attempts.

use diesel::dsl::count_star;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{Attempt, Delivery, DeliveryState, Endpoint};
use crate::error::Result;
use crate::ids::{TenantId, WebhookDeliveryId, WebhookEndpointId};
use crate::page::{Page, PageArgs};
use crate::schema::{webhook_attempts as attempts, webhook_deliveries as deliveries, webhook_endpoints as endpoints};

/// Those of these endpoints that exist, in no particular order.
pub async fn by_ids(mut conn: &AsyncPgConnection, tenant: TenantId, ids: &[WebhookEndpointId]) -> Result<Vec<Endpoint>> {
    let query = endpoints::table.filter(endpoints::tenant_id.eq(tenant).and(endpoints::id.eq_any(ids)));
    Ok(query.select(Endpoint::as_select()).load(&mut conn).await?)
}

/// The endpoint, locked until the transaction ends.
pub async fn lock(mut conn: &AsyncPgConnection, tenant: TenantId, id: WebhookEndpointId) -> Result<Option<Endpoint>> {
    let query = endpoints::table.find((tenant, id)).select(Endpoint::as_select()).for_update();
    Ok(query.first(&mut conn).await.optional()?)
}

/// One page of endpoints, newest first. Ids grow with time, so the cursor is the id.
pub async fn page(mut conn: &AsyncPgConnection, tenant: TenantId, args: &PageArgs<WebhookEndpointId>) -> Result<Page<Endpoint>> {
    let mut query = endpoints::table.filter(endpoints::tenant_id.eq(tenant)).select(Endpoint::as_select()).into_boxed();
    if let Some(after) = args.after {
        query = query.filter(endpoints::id.lt(after));
    }
    if let Some(before) = args.before {
        query = query.filter(endpoints::id.gt(before));
    }
    query = if args.backward { query.order(endpoints::id.asc()) } else { query.order(endpoints::id.desc()) };
    Ok(Page::from_rows(query.limit(args.fetch()).load(&mut conn).await?, args))
}

/// How many endpoints there are.
pub async fn count(mut conn: &AsyncPgConnection, tenant: TenantId) -> Result<i64> {
    Ok(endpoints::table.filter(endpoints::tenant_id.eq(tenant)).select(count_star()).first(&mut conn).await?)
}

/// Which deliveries are wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeliveryFilter {
    pub endpoint: Option<WebhookEndpointId>,
    pub states: Option<Vec<DeliveryState>>,
    pub kinds: Option<Vec<String>>,
}

type Condition = Box<dyn BoxableExpression<deliveries::table, Pg, SqlType = Bool>>;

impl DeliveryFilter {
    fn condition(&self, tenant: TenantId) -> Condition {
        let mut condition: Condition = Box::new(deliveries::tenant_id.eq(tenant));
        if let Some(endpoint) = self.endpoint {
            condition = Box::new(condition.and(deliveries::endpoint_id.eq(endpoint)));
        }
        if let Some(states) = self.states.clone() {
            condition = Box::new(condition.and(deliveries::state.eq_any(states)));
        }
        if let Some(kinds) = self.kinds.clone() {
            condition = Box::new(condition.and(deliveries::kind.eq_any(kinds)));
        }
        condition
    }
}

/// Those of these deliveries that exist, in no particular order.
pub async fn deliveries_by_ids(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    ids: &[WebhookDeliveryId],
) -> Result<Vec<Delivery>> {
    let query = deliveries::table.filter(deliveries::tenant_id.eq(tenant).and(deliveries::id.eq_any(ids)));
    Ok(query.select(Delivery::as_select()).load(&mut conn).await?)
}

/// One page of deliveries, newest first. The cursor is the id.
pub async fn deliveries(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    filter: &DeliveryFilter,
    args: &PageArgs<WebhookDeliveryId>,
) -> Result<Page<Delivery>> {
    let mut query = deliveries::table.filter(filter.condition(tenant)).select(Delivery::as_select()).into_boxed();
    if let Some(after) = args.after {
        query = query.filter(deliveries::id.lt(after));
    }
    if let Some(before) = args.before {
        query = query.filter(deliveries::id.gt(before));
    }
    query = if args.backward { query.order(deliveries::id.asc()) } else { query.order(deliveries::id.desc()) };
    Ok(Page::from_rows(query.limit(args.fetch()).load(&mut conn).await?, args))
}

/// How many deliveries [`deliveries()`] lists.
pub async fn count_deliveries(mut conn: &AsyncPgConnection, tenant: TenantId, filter: &DeliveryFilter) -> Result<i64> {
    Ok(deliveries::table.filter(filter.condition(tenant)).select(count_star()).first(&mut conn).await?)
}

/// All attempts of these deliveries, those of each in their order.
pub async fn attempts(mut conn: &AsyncPgConnection, tenant: TenantId, of: &[WebhookDeliveryId]) -> Result<Vec<Attempt>> {
    let query = attempts::table.filter(attempts::tenant_id.eq(tenant).and(attempts::delivery_id.eq_any(of)));
    Ok(query.order((attempts::delivery_id, attempts::attempt)).select(Attempt::as_select()).load(&mut conn).await?)
}
