//! Which jobs this worker can do, and what a handler is given.
//!
//! A handler is `async fn run(job: ImportCatalog, ctx: JobContext) -> mdl::Result<Done>`. It reads the current state, may run
//! twice, and treats a missing row as done. What it answers decides what happens:
//!
//! | answer | the job |
//! |---|---|
//! | `Ok(Done::Finished)` | succeeded |
//! | `Ok(Done::Cancelled)` | cancelled |
//! | `Ok(Done::Snooze(duration))` | run again after that long; the attempt does not count |
//! | `Err` that repeating may mend ([`mdl::Error::Unavailable`], `Internal`, `VersionConflict`) | tried again after the kind's backoff, until its attempts are used up |
//! | any other `Err` | dead at once |
//! | a panic, or more time than the kind's timeout | as an `Err` that repeating may mend |
//!
//! A job of a kind that is not in the [`Registry`] is snoozed for a day: during an upgrade, newer workers know it.

mod announce_expiring_keys;
mod back_up;
mod back_up_files;
mod import_catalog;
mod prune_backups;
mod prune_credentials;
mod prune_jobs;
mod restore_drill;
mod tidy_imports;
mod warm_cache;
mod warm_caches;
mod watch_backups;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use mdl::db::Transaction;
use mdl::error::causes;
use mdl::ids::{JobId, TenantId};
use mdl::jobs::Job;
use mdl::jobs::ledger::{self, Claimed, Outcome, Progress};
use mdl::{App, Error, telemetry};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span, warn};

use crate::news::News;

/// Every kind of job that `mdl-worker` does: one line for each.
pub fn registry() -> Registry {
    Registry::default()
        .with(import_catalog::run)
        .with(tidy_imports::run)
        .with(announce_expiring_keys::run)
        .with(prune_jobs::run)
        .with(prune_credentials::run)
        .with(warm_cache::run)
        .with(back_up::run)
        .with(back_up_files::run)
        .with(restore_drill::run)
        .with(prune_backups::run)
        .with(watch_backups::run)
        .with(warm_caches::run)
}

/// What a handler came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    Finished,
    /// It stopped because [`JobContext::cancelled`] asked it to.
    Cancelled,
    /// It cannot be done yet: run it again after this long. Not an attempt.
    Snooze(Duration),
}

/// What a handler is given besides its payload. Cheap to clone.
#[derive(Clone)]
pub struct JobContext {
    pub app: App,
    pub tenant: TenantId,
    pub id: JobId,
    /// From 1.
    pub attempt: i32,
    pub max_attempts: i32,
    lease_token: i64,
    cancelled: CancellationToken,
    news: News,
}

impl JobContext {
    /// Fires when somebody asked for this job to be stopped. A handler that does not end within ten seconds is dropped.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Tells operators how far it has come: at most about once a second, since each call writes.
    pub async fn progress(&self, progress: &Progress) -> mdl::Result<()> {
        let tx = self.app.db.begin(self.tenant).await?;
        ledger::report_progress(&tx, self.tenant, (self.id, self.lease_token), progress).await?;
        tx.commit().await?;
        self.news.tell([(self.tenant, self.id)]);
        Ok(())
    }

    /// Commits what the handler did, unless another worker has taken the job over in the meantime: then nothing is written,
    /// and the handler should return the error.
    pub async fn commit(&self, tx: Transaction) -> mdl::Result<()> {
        if !ledger::hold(&tx, self.tenant, self.id, self.lease_token).await? {
            return Err(Error::internal(format!("job {} is no longer held by this worker", self.id)));
        }
        tx.commit().await
    }
}

/// The kinds of jobs a worker serves.
#[derive(Default)]
pub struct Registry {
    kinds: BTreeMap<&'static str, Kind>,
}

struct Kind {
    queue: &'static str,
    max_attempts: i32,
    timeout: Duration,
    backoff: fn(i32) -> Duration,
    run: Box<dyn Fn(Value, JobContext) -> Running + Send + Sync>,
}

impl Kind {
    /// How long its attempts wait for the next, as people say it. Those that begin with seconds are left to chance.
    fn waits(&self) -> String {
        let waits: Vec<u64> = (1..self.max_attempts).map(|attempt| (self.backoff)(attempt).as_secs() / 60).collect();
        match waits.first() {
            None => "never".to_owned(),
            Some(0) => "seconds".to_owned(),
            Some(_) => format!("{} minutes", waits.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// A handler at work, or a payload that it cannot read.
type Running = BoxFuture<'static, Result<mdl::Result<Done>, serde_json::Error>>;

/// How long a job of a kind that this worker does not know waits for a worker that does, as during an upgrade.
const UNKNOWN_KIND_RETRY: Duration = Duration::from_secs(30);
/// How old such a job may be: by then the upgrade has ended, and nobody knows its kind.
const UNKNOWN_KIND_PATIENCE: TimeDelta = TimeDelta::days(1);

impl Registry {
    /// Adds a kind of job and its handler.
    #[must_use]
    pub fn with<J, Run, Answer>(mut self, run: Run) -> Self
    where
        J: Job,
        Run: Fn(J, JobContext) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = mdl::Result<Done>> + Send + 'static,
    {
        let run = move |payload: Value, ctx: JobContext| match serde_json::from_value::<J>(payload) {
            Ok(job) => run(job, ctx).map(Ok).boxed(),
            Err(error) => std::future::ready(Err(error)).boxed(),
        };
        let kind =
            Kind { queue: J::QUEUE, max_attempts: J::MAX_ATTEMPTS, timeout: J::TIMEOUT, backoff: J::backoff, run: Box::new(run) };
        self.kinds.insert(J::KIND, kind);
        self
    }

    /// The kinds as rows of a table in Markdown, as docs/operations/jobs.md has them: queue, kind, attempts, how long after a failed
    /// one the next comes, time limit.
    pub fn reference(&self) -> String {
        let row = |(name, kind): (&&str, &Kind)| {
            let minutes = kind.timeout.as_secs() / 60;
            let unit = if minutes == 1 { "minute" } else { "minutes" };
            format!("| `{}` | `{name}` | {} | {} | {minutes} {unit} |\n", kind.queue, kind.max_attempts, kind.waits())
        };
        self.kinds.iter().map(row).collect()
    }

    /// The queues that these kinds come from.
    pub fn queues(&self) -> Vec<&'static str> {
        let mut queues: Vec<_> = self.kinds.values().map(|kind| kind.queue).collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }

    /// The names of the kinds of a queue.
    pub fn kinds_of(&self, queue: &str) -> Vec<&'static str> {
        self.kinds.iter().filter(|(_, kind)| kind.queue == queue).map(|(name, _)| *name).collect()
    }

    /// Whether all jobs of a queue may be attempted more than once.
    pub(crate) fn repeats_all(&self, queue: &str) -> bool {
        self.kinds.values().filter(|kind| kind.queue == queue).all(|kind| kind.max_attempts > 1)
    }

    /// How long one attempt of this kind may take.
    pub(crate) fn timeout(&self, kind: &str) -> Duration {
        self.kinds.get(kind).map_or(UNKNOWN_KIND_RETRY, |kind| kind.timeout)
    }

    /// An attempt that failed for a reason that may pass.
    pub(crate) fn failed(&self, kind: &str, attempt: i32, error: String) -> Outcome {
        let retry_in = self.kinds.get(kind).map_or(UNKNOWN_KIND_RETRY, |kind| (kind.backoff)(attempt));
        Outcome::Failed { error, retry_in }
    }

    /// Runs the handler of a claimed job, in a span that continues the trace it was enqueued in.
    pub(crate) async fn run(&self, app: App, news: News, job: Claimed, cancelled: CancellationToken) -> Outcome {
        let Some(kind) = self.kinds.get(job.kind.as_str()) else {
            return unknown(&app, &job).await;
        };
        let span = info_span!("job", otel.name = job.kind, job.kind, job.id = %job.id, tenant = %job.tenant_id, job.attempt);
        telemetry::continue_trace(&span, &job.trace_context);
        let Claimed { tenant_id: tenant, id, attempt, max_attempts, lease_token, .. } = job;
        let ctx = JobContext { app, tenant, id, attempt, max_attempts, lease_token, cancelled, news };
        match (kind.run)(job.payload, ctx).instrument(span).await {
            Ok(Ok(Done::Finished)) => Outcome::Succeeded,
            Ok(Ok(Done::Cancelled)) => Outcome::Cancelled,
            Ok(Ok(Done::Snooze(run_in))) => Outcome::Snoozed { run_in },
            Ok(Err(error)) if may_pass(&error) => self.failed(&job.kind, attempt, causes(&error)),
            Ok(Err(error)) => Outcome::Dead { error: causes(&error) },
            Err(error) => Outcome::Dead { error: format!("The payload cannot be read: {error}") },
        }
    }
}

/// A job of a kind that this worker does not know: another one may. Waiting for it is no attempt, as some kinds have only one.
async fn unknown(app: &App, job: &Claimed) -> Outcome {
    let again = Outcome::Snoozed { run_in: UNKNOWN_KIND_RETRY };
    match created_at(app, job).await {
        Ok(Some(created_at)) if Utc::now() - created_at > UNKNOWN_KIND_PATIENCE => Outcome::Dead {
            error: format!("This worker does not know jobs of kind {:?}, and the job is older than a day", job.kind),
        },
        Ok(_) => {
            warn!(job.id = %job.id, job.kind, "This worker does not know jobs of this kind; a newer one may");
            again
        }
        Err(error) => {
            warn!(job.id = %job.id, job.kind, error = causes(&error), "Could not look how old a job of an unknown kind is");
            again
        }
    }
}

async fn created_at(app: &App, job: &Claimed) -> mdl::Result<Option<DateTime<Utc>>> {
    let tx = app.db.begin(job.tenant_id).await?;
    let found = mdl::jobs::by_id(&tx, job.tenant_id, job.id).await?;
    tx.commit().await?;
    Ok(found.map(|job| job.created_at))
}

/// Whether the same attempt may succeed later.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Unavailable { .. } | Error::Internal(_) | Error::VersionConflict { .. } | Error::TooSlow | Error::TooMany(_) => {
            true
        }
        Error::Invalid(_)
        | Error::NotFound { .. }
        | Error::Unauthenticated(_)
        | Error::Forbidden(_)
        | Error::IdempotencyConflict(_)
        | Error::CursorTooOld => false,
    }
}

#[cfg(test)]
mod tests {
    use mdl::config::Config;
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use serde::{Deserialize, Serialize};
    use serde_json::json;
    use tracing::instrument::WithSubscriber;
    use tracing_subscriber::layer::SubscriberExt;
    use uuid::Uuid;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Trace;

    impl Job for Trace {
        const KIND: &'static str = "trace";
        const QUEUE: &'static str = "traces";
        const MAX_ATTEMPTS: i32 = 1;
        const TIMEOUT: Duration = Duration::from_secs(1);
    }

    #[test]
    fn operators_can_name_the_queues_of_all_kinds() {
        assert_eq!(registry().queues(), mdl::jobs::queues::QUEUES);
    }

    #[tokio::test]
    async fn a_handler_continues_the_trace_of_its_job() {
        let registry = Registry::default().with(async |_: Trace, _| Err(Error::internal(telemetry::trace_context().to_string())));
        let job = Claimed {
            tenant_id: TenantId(Uuid::nil()),
            id: JobId::new(),
            kind: "trace".to_owned(),
            payload: json!(null),
            attempt: 1,
            max_attempts: 1,
            lease_token: 1,
            trace_context: json!({ "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" }),
            waited_seconds: 0.0,
        };
        let app = App::new(Config::from_arguments(["test"]).unwrap()).unwrap();
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        let subscriber = tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(tracer));
        let outcome = registry.run(app, News::new().0, job, CancellationToken::new()).with_subscriber(subscriber).await;
        let Outcome::Failed { error, .. } = outcome else { panic!("{outcome:?}") };
        assert!(error.contains("00-0af7651916cd43dd8448eb211c80319c-"), "{error}");
    }
}
