//! What operators do to jobs and queues.

use async_graphql::{Context, InputObject, Object, Result};
use chrono::{DateTime, Utc};
use mdl::actor::Permission;
use mdl::jobs::queues::{self, Settings};
use mdl::jobs::steer::{Action, steer};

use super::{JobFilter, job_ids};
use crate::graphql::context::ContextExt;
use crate::graphql::error::top_level;
use crate::graphql::guard::Needs;
use crate::graphql::payload::payloads;
use async_graphql::ID;

/// Which jobs: by their ids, by a filter, or by both. Jobs in a state that the change is not for are left alone.
#[derive(InputObject)]
pub struct JobSelectionInput {
    /// These jobs.
    ids: Option<Vec<ID>>,
    /// The jobs that match; at most 100,000 of them are changed at once, the oldest first.
    filter: Option<JobFilter>,
    /// Find out how many it would be, and change nothing; `false` if not given.
    dry_run: Option<bool>,
}

/// Which jobs, and when they are to run.
#[derive(InputObject)]
pub struct RescheduleJobsInput {
    /// These jobs.
    ids: Option<Vec<ID>>,
    /// The jobs that match; at most 100,000 of them are changed at once, the oldest first.
    filter: Option<JobFilter>,
    /// When they are due instead; at once, if it has passed.
    run_at: DateTime<Utc>,
    /// Find out how many it would be, and change nothing; `false` if not given.
    dry_run: Option<bool>,
}

/// Which queue.
#[derive(InputObject)]
pub struct QueueInput {
    /// Its name.
    queue: String,
}

/// Which queue, and its limit.
#[derive(InputObject)]
pub struct SetQueueConcurrencyInput {
    /// Its name.
    queue: String,
    /// Jobs that may be under way at once, on all workers together: 1 to 10,000; null for as many as the workers take.
    concurrency: Option<i32>,
}

/// What is set for the caller's tenant's jobs in a queue; for a member of mdl-system, for the whole queue.
#[derive(async_graphql::SimpleObject)]
pub struct QueueSettings {
    /// The queue's name.
    queue: String,
    /// When it was paused; null if it is not.
    paused_at: Option<DateTime<Utc>>,
    /// Jobs that may be under way at once; null for as many as the workers take.
    concurrency: Option<i32>,
    /// Jobs of the tenant that go for one of a tenant of weight 1, while both have a backlog; operators of the deployment set it.
    weight: i32,
}

impl From<Settings> for QueueSettings {
    fn from(settings: Settings) -> Self {
        let Settings { queue, paused_at, concurrency, weight } = settings;
        Self { queue, paused_at, concurrency, weight }
    }
}

payloads! {
    /// How many jobs were changed.
    ChangedJobsPayload {
        /// How many; with `dryRun`, how many it would be.
        count: u64
    }
    /// The queue's settings as they are now.
    QueueSettingsPayload {
        /// As they are now.
        settings: QueueSettings
    }
}

#[derive(Default)]
pub struct QueueMutations;

#[Object]
impl QueueMutations {
    /// Runs dead, cancelled or discarded jobs again, and those that failed and wait for their next attempt: at once and with all their
    /// attempts; unless another job has their unique key by now.
    #[graphql(guard = "Needs(Permission::Operate)")]
    async fn retry_jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which jobs.")] input: JobSelectionInput,
    ) -> Result<ChangedJobsPayload> {
        change(ctx, Action::Retry, input).await
    }

    /// Stops jobs: those that have not begun at once; those that run are asked to, and dropped if they have not ended ten seconds
    /// later.
    #[graphql(guard = "Needs(Permission::Operate)")]
    async fn cancel_jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which jobs.")] input: JobSelectionInput,
    ) -> Result<ChangedJobsPayload> {
        change(ctx, Action::Cancel, input).await
    }

    /// Gives dead jobs up: they are no longer counted, and deleted in time.
    #[graphql(guard = "Needs(Permission::Operate)")]
    async fn discard_jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which jobs.")] input: JobSelectionInput,
    ) -> Result<ChangedJobsPayload> {
        change(ctx, Action::Discard, input).await
    }

    /// Gives waiting jobs another time.
    #[graphql(guard = "Needs(Permission::Operate)")]
    async fn reschedule_jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which jobs, and when.")] input: RescheduleJobsInput,
    ) -> Result<ChangedJobsPayload> {
        let RescheduleJobsInput { ids, filter, run_at, dry_run } = input;
        change(ctx, Action::Reschedule(run_at), JobSelectionInput { ids, filter, dry_run }).await
    }

    /// Lets no more of the tenant's jobs in a queue begin; those that run go on. For a member of mdl-system, all tenants'.
    #[graphql(guard = "Needs(Permission::Operate)")]
    async fn pause_queue(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which queue.")] input: QueueInput,
    ) -> Result<QueueSettingsPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        QueueSettingsPayload::answer(queues::pause(ctx.app(), actor, &input.queue).await, Into::into)
    }

    /// Lets the tenant's jobs in a queue begin again. For a member of mdl-system, all tenants' but those whose own operators paused
    /// them.
    #[graphql(guard = "Needs(Permission::Operate)")]
    async fn resume_queue(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which queue.")] input: QueueInput,
    ) -> Result<QueueSettingsPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        QueueSettingsPayload::answer(queues::resume(ctx.app(), actor, &input.queue).await, Into::into)
    }

    /// Sets how many of the tenant's jobs may be under way at once in a queue, on all workers together. For a member of mdl-system,
    /// of all tenants together.
    #[graphql(guard = "Needs(Permission::Operate)")]
    async fn set_queue_concurrency(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which queue, and its limit.")] input: SetQueueConcurrencyInput,
    ) -> Result<QueueSettingsPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let set = queues::set_concurrency(ctx.app(), actor, &input.queue, input.concurrency).await;
        QueueSettingsPayload::answer(set, Into::into)
    }
}

async fn change(ctx: &Context<'_>, action: Action, input: JobSelectionInput) -> Result<ChangedJobsPayload> {
    let actor = ctx.actor().map_err(top_level)?;
    let result = async {
        let mut filter = input.filter.unwrap_or_default().parse()?;
        if let Some(ids) = input.ids {
            let ids = job_ids("ids", &ids)?;
            // Given in both places, a job must be in both.
            filter.ids = Some(match filter.ids {
                Some(others) => ids.into_iter().filter(|id| others.contains(id)).collect(),
                None => ids,
            });
        }
        steer(ctx.app(), actor, action, &filter, input.dry_run.unwrap_or(false)).await
    };
    ChangedJobsPayload::answer(result.await, |count| count)
}
