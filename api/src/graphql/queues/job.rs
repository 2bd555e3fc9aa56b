//! A job, as GraphQL shows it.

use async_graphql::{Context, Enum, ID, Json, Object, Result, SimpleObject};
use chrono::{DateTime, Utc};
use mdl::api_keys;
use mdl::ids::ApiKeyId;
use mdl::jobs::{self, JobRow, store};
use serde_json::Value;

use crate::graphql::api_keys::ApiKey;
use crate::graphql::context::ContextExt;
use crate::graphql::eager::Plain;
use crate::graphql::error::top_level;
use crate::graphql::global_id::{Kind, encode};
use crate::graphql::users::{self, User};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::jobs::JobState")]
pub enum JobState {
    /// Waits for the jobs of a batch to end.
    Held,
    /// Waits for its time, or for room in its queue.
    Waiting,
    /// The next free worker takes it.
    Dispatched,
    /// A worker is at it.
    Running,
    /// Done.
    Succeeded,
    /// Out of attempts, or not worth repeating: waits for somebody to retry or discard it.
    Dead,
    /// Stopped by somebody.
    Cancelled,
    /// Was dead, and somebody decided to leave it at that.
    Discarded,
}

/// How an attempt ended that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::jobs::store::AttemptOutcome")]
pub enum JobAttemptOutcome {
    /// To be tried again.
    Failed,
    /// Not to be tried again.
    Dead,
    /// Somebody stopped it.
    Cancelled,
    /// Its worker stopped; the attempt did not count.
    Returned,
    /// Its worker gave no sign of life.
    Lost,
}

pub struct Job(Box<JobRow>);

impl From<JobRow> for Job {
    fn from(job: JobRow) -> Self {
        Self(Box::new(job))
    }
}

impl Plain for Job {}

/// A piece of work that a worker does, has done or will do.
#[Object]
impl Job {
    /// Opaque and unique over all types.
    pub async fn id(&self) -> ID {
        encode(Kind::Job, self.0.id.0)
    }

    /// The queue it is in.
    fn queue(&self) -> &str {
        &self.0.queue
    }

    /// What is done: `import_catalog`, …
    fn kind(&self) -> &str {
        &self.0.kind
    }

    /// Where it stands.
    fn state(&self) -> JobState {
        self.0.state.into()
    }

    /// What it is about, mostly ids. Values of fields whose names sound secret are left out.
    fn payload(&self) -> Json<Value> {
        Json(jobs::redacted(&self.0.payload))
    }

    /// Greater runs earlier.
    fn priority(&self) -> i32 {
        self.0.priority.into()
    }

    /// When it is due; after a failed attempt, when the next one is.
    fn run_at(&self) -> DateTime<Utc> {
        self.0.run_at
    }

    /// No two unfinished jobs of a kind have the same.
    fn unique_key(&self) -> Option<&str> {
        self.0.unique_key.as_deref()
    }

    /// Attempts begun so far; an operator's retry begins to count anew.
    fn attempt(&self) -> i32 {
        self.0.attempt
    }

    /// Attempts that it has before it is dead.
    fn max_attempts(&self) -> i32 {
        self.0.max_attempts
    }

    /// The name of the worker that has it, or had it last.
    fn worker(&self) -> Option<&str> {
        self.0.worker.as_deref()
    }

    /// Why the last attempt that failed did; nothing when a later one has succeeded.
    fn error(&self) -> Option<&str> {
        self.0.last_error.as_deref()
    }

    /// How far it says it is; null if it says nothing.
    fn progress(&self) -> Option<JobProgress> {
        let JobRow { progress_done, progress_total, progress_message, .. } = &*self.0;
        progress_done.map(|done| JobProgress { done, total: *progress_total, message: progress_message.clone() })
    }

    /// The trace of the request that enqueued it, which its attempts continue; null if that was not traced.
    fn trace_id(&self) -> Option<&str> {
        self.0.trace_id()
    }

    /// Who enqueued it; null if it was an API key (see `enqueuedByKey`) or the system.
    async fn enqueued_by(&self, ctx: &Context<'_>) -> Option<Result<User>> {
        users::by_id(ctx, self.0.enqueued_by).await
    }

    /// The API key that enqueued it; null if it was a person or the system.
    async fn enqueued_by_key(&self, ctx: &Context<'_>) -> Option<Result<ApiKey>> {
        let id = ApiKeyId(self.0.enqueued_by?);
        let found = async { ctx.reading()?.loaders.people.api_keys.get(id).await }.await;
        found.map(|key| key.map(|key| ApiKey(api_keys::ApiKey::clone(&key)))).transpose()
    }

    /// When it was enqueued.
    fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }

    /// When its last attempt began.
    fn started_at(&self) -> Option<DateTime<Utc>> {
        self.0.started_at
    }

    /// When it ended, however it ended.
    fn finished_at(&self) -> Option<DateTime<Utc>> {
        self.0.finished_at
    }

    /// When somebody asked for it to be stopped.
    fn cancel_requested_at(&self) -> Option<DateTime<Utc>> {
        self.0.cancel_requested_at
    }

    /// Its attempts that did not succeed, in the order they began. The one that runs or succeeded is the job itself.
    #[graphql(complexity = "20 * child_complexity + 1")]
    async fn attempts(&self, ctx: &Context<'_>) -> Result<Vec<JobAttempt>> {
        let (view, id) = (ctx.reading()?, self.0.id);
        let tenant = view.snapshot.tenant();
        let found = view.snapshot.read(async |conn| store::attempts(conn, tenant, id).await).await.map_err(top_level)?;
        Ok(found.into_iter().map(JobAttempt::from).collect())
    }
}

/// How far a job has come, in units of its own.
#[derive(SimpleObject)]
pub struct JobProgress {
    /// So much is done.
    done: i64,
    /// Of so much; null if that is not known.
    total: Option<i64>,
    /// What it is doing, in a few words.
    message: Option<String>,
}

/// An attempt that did not succeed.
#[derive(SimpleObject)]
pub struct JobAttempt {
    /// From 1. After a returned attempt, and after an operator's retry, numbers repeat.
    number: i32,
    /// The name of its worker.
    worker: Option<String>,
    /// When it began.
    started_at: Option<DateTime<Utc>>,
    /// When it ended, or was found to have.
    finished_at: DateTime<Utc>,
    /// How it ended.
    outcome: JobAttemptOutcome,
    /// Why.
    error: Option<String>,
}

impl From<store::Attempt> for JobAttempt {
    fn from(attempt: store::Attempt) -> Self {
        let store::Attempt { number, worker, started_at, finished_at, outcome, error, .. } = attempt;
        Self { number, worker, started_at, finished_at, outcome: outcome.into(), error }
    }
}
