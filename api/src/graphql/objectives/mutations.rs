//! What people do to objectives and key results.

use async_graphql::{Context, Object, Result};
use mdl::actor::Permission;
use mdl::ids::{KeyResultId, ObjectiveId};
use mdl::objectives::{self, key_results};

use super::inputs::{
    ArchiveKeyResultInput, ArchiveObjectiveInput, CreateKeyResultInput, CreateObjectiveInput, UpdateKeyResultInput,
    UpdateObjectiveInput,
};
use super::{KeyResult, Objective};
use crate::graphql::context::ContextExt;
use crate::graphql::error::top_level;
use crate::graphql::global_id::{Kind, expect};
use crate::graphql::guard::Needs;
use crate::graphql::payload::payloads;

#[derive(Default)]
pub struct ObjectiveMutations;

#[Object]
impl ObjectiveMutations {
    /// Adds an objective. Its key results are added one by one.
    #[graphql(guard = "Needs(Permission::CatalogWrite)")]
    async fn create_objective(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The objective.")] input: CreateObjectiveInput,
    ) -> Result<CreateObjectivePayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = objectives::create(ctx.app(), actor, input.into_new()).await;
        CreateObjectivePayload::answer(result, Objective::from)
    }

    /// Changes an objective. A change of nothing writes nothing.
    #[graphql(guard = "Needs(Permission::CatalogWrite)")]
    async fn update_objective(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The change.")] input: UpdateObjectiveInput,
    ) -> Result<UpdateObjectivePayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async {
            let id = ObjectiveId(expect("id", Kind::Objective, &input.id)?);
            let (expected, domain) = (input.expected_version, input.domain());
            objectives::update(ctx.app(), actor, id, expected, domain, |content| input.apply(content)).await
        }
        .await;
        UpdateObjectivePayload::answer(result, Objective::from)
    }

    /// Takes an objective out of the lists. To do it twice is no error.
    #[graphql(guard = "Needs(Permission::CatalogWrite)")]
    async fn archive_objective(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which objective.")] input: ArchiveObjectiveInput,
    ) -> Result<ArchiveObjectivePayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async {
            let id = ObjectiveId(expect("id", Kind::Objective, &input.id)?);
            objectives::archive(ctx.app(), actor, id, input.expected_version).await
        }
        .await;
        ArchiveObjectivePayload::answer(result, Objective::from)
    }

    /// Adds a key result to an objective.
    #[graphql(guard = "Needs(Permission::CatalogWrite)")]
    async fn create_key_result(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The key result.")] input: CreateKeyResultInput,
    ) -> Result<CreateKeyResultPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async {
            let objective = ObjectiveId(expect("objective_id", Kind::Objective, &input.objective_id)?);
            let (key, content, metric_keys) = input.into_content();
            key_results::create(ctx.app(), actor, objective, &key, &content, &metric_keys).await
        }
        .await;
        CreateKeyResultPayload::answer(result, KeyResult::from)
    }

    /// Changes a key result: its current value above all. A change of nothing writes nothing.
    #[graphql(guard = "Needs(Permission::CatalogWrite)")]
    async fn update_key_result(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The change.")] input: UpdateKeyResultInput,
    ) -> Result<UpdateKeyResultPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async {
            let id = KeyResultId(expect("id", Kind::KeyResult, &input.id)?);
            let expected = input.expected_version;
            key_results::update(ctx.app(), actor, id, expected, |content, metric_keys| input.apply(content, metric_keys)).await
        }
        .await;
        UpdateKeyResultPayload::answer(result, KeyResult::from)
    }

    /// Takes a key result out of its objective; it no longer counts for the progress. To do it twice is no error.
    #[graphql(guard = "Needs(Permission::CatalogWrite)")]
    async fn archive_key_result(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which key result.")] input: ArchiveKeyResultInput,
    ) -> Result<ArchiveKeyResultPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async {
            let id = KeyResultId(expect("id", Kind::KeyResult, &input.id)?);
            key_results::archive(ctx.app(), actor, id, input.expected_version).await
        }
        .await;
        ArchiveKeyResultPayload::answer(result, KeyResult::from)
    }
}

payloads! {
    /// The objective that was added.
    CreateObjectivePayload {
        /// The new objective.
        objective: Objective
    }
    /// The objective that was changed.
    UpdateObjectivePayload {
        /// The objective as it is now.
        objective: Objective
    }
    /// The objective that was archived.
    ArchiveObjectivePayload {
        /// The objective as it is now.
        objective: Objective
    }
    /// The key result that was added.
    CreateKeyResultPayload {
        /// The new key result.
        key_result: KeyResult
    }
    /// The key result that was changed.
    UpdateKeyResultPayload {
        /// The key result as it is now.
        key_result: KeyResult
    }
    /// The key result that was archived.
    ArchiveKeyResultPayload {
        /// The key result as it is now.
        key_result: KeyResult
    }
}
