//! Anything by its id.

use async_graphql::{Context, ID, Interface, Object, Result};
use mdl::actor::Permission;
use mdl::error::{Code, Error};
use mdl::ids::{DomainId, KeyResultId, MetricId, ObjectiveId, UserId};
use mdl::metrics::Columns;
use mdl::page::MAX_PAGE;

use super::context::ContextExt;
use super::domains::BusinessDomain;
use super::error::top_level;
use super::global_id::{Kind, decode};
use super::guard::Needs;
use super::imports::{self, Import};
use super::metrics::Metric;
use super::objectives::{KeyResult, Objective};
use super::queues::{self, Job};
use super::users::{self, User};

/// Anything that has an id of its own and can be asked for by it.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID", desc = "Opaque and unique over all types."))]
pub enum Node {
    BusinessDomain(BusinessDomain),
    Metric(Metric),
    Objective(Objective),
    KeyResult(KeyResult),
    User(User),
    Import(Import),
    Job(Job),
}

#[derive(Default)]
pub struct NodeQueries;

#[Object]
impl NodeQueries {
    /// Anything by its id; null if there is no such thing.
    #[graphql(guard = "Needs(Permission::CatalogRead)")]
    async fn node(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id, as any field `id` gave it.")] id: ID,
    ) -> Option<Result<Node>> {
        by_id(ctx, id).await.transpose()
    }

    /// Several things by their ids, in the order of the ids; null where there is no such thing.
    #[graphql(guard = "Needs(Permission::CatalogRead)", complexity = "ids.len() * child_complexity + 1")]
    async fn nodes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The ids, as any field `id` gave them; at most 100.")] ids: Vec<ID>,
    ) -> Result<Vec<Option<Result<Node>>>> {
        if ids.len() > MAX_PAGE {
            let message = format!("Has {} entries; at most {MAX_PAGE} are allowed", ids.len());
            return Err(top_level(Error::invalid("ids", Code::TooMany, message)));
        }
        // Together, so that the loaders see all of them.
        let found = futures::future::join_all(ids.into_iter().map(|id| by_id(ctx, id))).await;
        Ok(found.into_iter().map(Result::transpose).collect())
    }
}

/// What the caller may not see is not there, as with the things of another tenant.
async fn by_id(ctx: &Context<'_>, id: ID) -> Result<Option<Node>> {
    let Some((kind, uuid)) = decode(&id) else {
        return Err(top_level(Error::invalid("id", Code::Invalid, format!("{:?} is not an id of this catalog", id.as_str()))));
    };
    let view = ctx.reading()?;
    let loaders = &view.loaders;
    Ok(match kind {
        Kind::Domain => loaders.domains.by_id.get(DomainId(uuid)).await?.map(|domain| BusinessDomain(domain).into()),
        Kind::Metric => loaders.metrics.by_id.get((MetricId(uuid), Columns::ROW)).await?.map(Node::from),
        Kind::Objective => loaders.objectives.by_id.get(ObjectiveId(uuid)).await?.map(|objective| Objective(objective).into()),
        Kind::KeyResult => {
            loaders.objectives.key_result_by_id.get(KeyResultId(uuid)).await?.map(|row| KeyResult::from(row).into())
        }
        Kind::User if users::may_see(ctx, UserId(uuid)).map_err(top_level)? => {
            users::by_id(ctx, Some(uuid)).await.transpose()?.map(Node::from)
        }
        Kind::Import if ctx.actor().map_err(top_level)?.permissions.contains(Permission::CatalogImport) => {
            imports::find(ctx, &id).await?.map(Node::from)
        }
        Kind::Job if ctx.actor().map_err(top_level)?.permissions.contains(Permission::Operate) => {
            queues::find(ctx, &id).await?.map(Node::from)
        }
        // API keys are listed by `apiKeys`, published documents by `documents`, backups by `backups`; webhooks have fields of their own.
        Kind::User | Kind::ApiKey | Kind::Import | Kind::Document | Kind::Job | Kind::Backup | Kind::RestoreDrill => None,
        Kind::WebhookEndpoint | Kind::WebhookDelivery => None,
    })
}
