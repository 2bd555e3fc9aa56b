//! What becomes of jobs, live.

use std::sync::Arc;

use async_graphql::{Context, Enum, Object, Result, Subscription};
use futures::{Stream, stream};
use mdl::actor::Permission;
use mdl::jobs::live::Changed;

use super::{Job, JobFilter};
use crate::graphql::context::ContextExt;
use crate::graphql::error::top_level;
use crate::graphql::guard::Needs;

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::jobs::live::Change")]
pub enum JobChangeKind {
    /// It is new.
    Enqueued,
    /// It waits again, and not because it failed: its worker stopped, it cannot be done yet, its queue was paused, or an operator
    /// retried it or gave it another time.
    PutBack,
    /// The next free worker takes it.
    Dispatched,
    /// A worker is at it.
    Started,
    /// A worker is still at it: it said how far it is, or was asked to stop.
    Progressed,
    /// An attempt failed, and it waits for the next.
    Failed,
    /// It is done.
    Succeeded,
    /// It has failed for good.
    Dead,
    /// It was stopped.
    Cancelled,
    /// It was dead, and somebody decided to leave it at that.
    Discarded,
}

/// A job after a change.
pub struct JobChange(Arc<Changed>);

/// A job after a change.
#[Object]
impl JobChange {
    /// What became of it; null for a job that is told as it was when you began to listen.
    async fn change(&self) -> Option<JobChangeKind> {
        self.0.change.map(Into::into)
    }

    /// The job as it is now. A job that changes quickly is told of once for several changes.
    async fn job(&self) -> Job {
        Job::from(self.0.job.clone())
    }
}

#[derive(Default)]
pub struct JobSubscriptions;

#[Subscription]
impl JobSubscriptions {
    /// What becomes of the jobs of the tenant that match. First come, as they are, those that have not ended or that `ids` names:
    /// the newest hundred.
    #[graphql(guard = "Needs(Permission::Operate)")]
    async fn job_changed(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which jobs, as they are after the change; all if it is left out.")] filter: Option<JobFilter>,
    ) -> Result<impl Stream<Item = Result<JobChange>> + use<>> {
        let filter = filter.unwrap_or_default().parse().map_err(top_level)?;
        let operation = ctx.operation().clone();
        let tenant = operation.actor().map_err(top_level)?.tenant;
        let subscription = Box::pin(operation.app.live.subscribe_to_jobs(tenant, filter)).await.map_err(top_level)?;
        Ok(stream::unfold((subscription, operation), |(mut subscription, operation)| async {
            // What is selected beyond the job is read now, and held no longer than until the next.
            operation.renew_view();
            let changed = subscription.next().await?;
            Some((changed.map(JobChange).map_err(top_level), (subscription, operation)))
        }))
    }
}
