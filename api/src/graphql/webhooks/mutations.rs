//! What people do with webhooks.

use async_graphql::{Context, ID, Object, Result, SimpleObject};
use mdl::actor::Permission;
use mdl::ids::{WebhookDeliveryId, WebhookEndpointId};
use mdl::webhooks::{deliveries, endpoints, secrets};

use super::inputs::{
    CreateWebhookEndpointInput, ReplayEventsInput, RetryDeliveryInput, RotateWebhookSecretInput, TestWebhookInput,
    UpdateWebhookEndpointInput, WebhookEndpointInput,
};
use super::{WebhookDelivery, WebhookEndpoint};
use crate::graphql::context::ContextExt;
use crate::graphql::error::{UserError, split, top_level};
use crate::graphql::global_id::{Kind, encode, expect};
use crate::graphql::guard::Needs;
use crate::graphql::payload::payloads;

#[derive(Default)]
pub struct WebhookMutations;

#[Object]
impl WebhookMutations {
    /// Adds a webhook endpoint, which is told of what happens from now on. The secret that its messages are signed with is shown
    /// here and never again.
    #[graphql(guard = "Needs(Permission::Webhooks)")]
    async fn create_webhook_endpoint(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The endpoint.")] input: CreateWebhookEndpointInput,
    ) -> Result<CreateWebhookEndpointPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let (made, user_errors) = split(endpoints::create(ctx.app(), actor, input.into_draft()).await)?;
        let (endpoint, secret) = made.unzip();
        let endpoint = endpoint.map(WebhookEndpoint::from);
        Ok(CreateWebhookEndpointPayload { endpoint, secret: secret.map(|secret| secret.reveal()), user_errors })
    }

    /// Changes a webhook endpoint. A change of nothing writes nothing.
    #[graphql(guard = "Needs(Permission::Webhooks)")]
    async fn update_webhook_endpoint(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The change.")] input: UpdateWebhookEndpointInput,
    ) -> Result<UpdateWebhookEndpointPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async {
            let id = endpoint_id(&input.id)?;
            endpoints::update(ctx.app(), actor, id, input.expected_version, |draft| input.apply(draft)).await
        }
        .await;
        UpdateWebhookEndpointPayload::answer(result, WebhookEndpoint::from)
    }

    /// Tells a webhook endpoint of what happens from now on. What it missed meanwhile can be sent with `replayEvents`.
    #[graphql(guard = "Needs(Permission::Webhooks)")]
    async fn enable_webhook_endpoint(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which endpoint.")] input: WebhookEndpointInput,
    ) -> Result<EnableWebhookEndpointPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async { endpoints::enable(ctx.app(), actor, endpoint_id(&input.id)?, input.expected_version).await }.await;
        EnableWebhookEndpointPayload::answer(result, WebhookEndpoint::from)
    }

    /// Tells a webhook endpoint nothing any more. What it has not got yet is discarded.
    #[graphql(guard = "Needs(Permission::Webhooks)")]
    async fn disable_webhook_endpoint(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which endpoint.")] input: WebhookEndpointInput,
    ) -> Result<DisableWebhookEndpointPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async { endpoints::disable(ctx.app(), actor, endpoint_id(&input.id)?, input.expected_version).await }.await;
        DisableWebhookEndpointPayload::answer(result, WebhookEndpoint::from)
    }

    /// Removes a webhook endpoint, with its secrets and all that is known of its deliveries.
    #[graphql(guard = "Needs(Permission::Webhooks)")]
    async fn delete_webhook_endpoint(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which endpoint.")] input: WebhookEndpointInput,
    ) -> Result<DeleteWebhookEndpointPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async { endpoints::delete(ctx.app(), actor, endpoint_id(&input.id)?, input.expected_version).await }.await;
        DeleteWebhookEndpointPayload::answer(result, |endpoint| encode(Kind::WebhookEndpoint, endpoint.id.0))
    }

    /// Makes a new secret, which signs from now on; those before it sign as well for a while. It is shown here and never again.
    #[graphql(guard = "Needs(Permission::Webhooks)")]
    async fn rotate_webhook_secret(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Whose secret, and for how long the old one signs.")] input: RotateWebhookSecretInput,
    ) -> Result<RotateWebhookSecretPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async { secrets::rotate(ctx.app(), actor, endpoint_id(&input.id)?, input.overlap()).await }.await;
        let (made, user_errors) = split(result)?;
        let (endpoint, secret) = made.unzip();
        let endpoint = endpoint.map(WebhookEndpoint::from);
        Ok(RotateWebhookSecretPayload { endpoint, secret: secret.map(|secret| secret.reveal()), user_errors })
    }

    /// Sends a webhook endpoint a made-up event of a kind. There is one attempt; see what came of it at the delivery.
    #[graphql(guard = "Needs(Permission::Webhooks)")]
    async fn test_webhook(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which endpoint, and what kind of event.")] input: TestWebhookInput,
    ) -> Result<TestWebhookPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async { deliveries::test(ctx.app(), actor, endpoint_id(&input.id)?, &input.kind).await }.await;
        TestWebhookPayload::answer(result, WebhookDelivery::from)
    }

    /// Sends a webhook endpoint events again that it is told of, such as those it missed while it was disabled. Each gets a new
    /// `webhook-id`, so that the receiver takes it for new; `sequence` is the old one. At most 10,000 at once.
    #[graphql(guard = "Needs(Permission::Webhooks)")]
    async fn replay_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which endpoint, and which events.")] input: ReplayEventsInput,
    ) -> Result<ReplayEventsPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async {
            let id = endpoint_id(&input.id)?;
            deliveries::replay(ctx.app(), actor, id, &input.into_replay()).await
        }
        .await;
        ReplayEventsPayload::answer(result, |count| count)
    }

    /// Makes one more attempt at once, with the same `webhook-id` as those before: for a delivery that waits for its next
    /// attempt, has failed, or was discarded.
    #[graphql(guard = "Needs(Permission::Webhooks)")]
    async fn retry_delivery(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which delivery.")] input: RetryDeliveryInput,
    ) -> Result<RetryDeliveryPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async {
            let id = WebhookDeliveryId(expect("id", Kind::WebhookDelivery, &input.id)?);
            deliveries::retry(ctx.app(), actor, id).await
        }
        .await;
        RetryDeliveryPayload::answer(result, WebhookDelivery::from)
    }
}

fn endpoint_id(id: &ID) -> mdl::Result<WebhookEndpointId> {
    expect("id", Kind::WebhookEndpoint, id).map(WebhookEndpointId)
}

/// A new endpoint, or what was wrong with the input.
#[derive(SimpleObject)]
pub struct CreateWebhookEndpointPayload {
    /// The new endpoint.
    endpoint: Option<WebhookEndpoint>,
    /// What its messages are signed with, as the libraries of Standard Webhooks take it: `whsec_…`.
    secret: Option<String>,
    /// What was wrong with the input. Empty if it was done.
    user_errors: Vec<UserError>,
}

/// A new secret, or what was wrong with the input.
#[derive(SimpleObject)]
pub struct RotateWebhookSecretPayload {
    /// The endpoint.
    endpoint: Option<WebhookEndpoint>,
    /// What its messages are signed with from now on: `whsec_…`.
    secret: Option<String>,
    /// What was wrong with the input. Empty if it was done.
    user_errors: Vec<UserError>,
}

payloads! {
    /// The webhook endpoint that was changed.
    UpdateWebhookEndpointPayload {
        /// The endpoint as it is now.
        endpoint: WebhookEndpoint
    }
    /// The webhook endpoint that was enabled.
    EnableWebhookEndpointPayload {
        /// The endpoint as it is now.
        endpoint: WebhookEndpoint
    }
    /// The webhook endpoint that was disabled.
    DisableWebhookEndpointPayload {
        /// The endpoint as it is now.
        endpoint: WebhookEndpoint
    }
    /// The webhook endpoint that was removed.
    DeleteWebhookEndpointPayload {
        /// The id that it had.
        deleted_id: ID
    }
    /// The made-up event's delivery.
    TestWebhookPayload {
        /// The delivery, which waits for a worker.
        delivery: WebhookDelivery
    }
    /// What is sent again.
    ReplayEventsPayload {
        /// How many events that is.
        count: usize
    }
    /// The delivery that is tried again.
    RetryDeliveryPayload {
        /// The delivery, which waits for a worker.
        delivery: WebhookDelivery
    }
}
