//! `mdl-worker jobs`: find jobs by their state, their error or their time, and do something about them.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use mdl::global_id::{self, Kind};
use mdl::ids::JobId;
use mdl::jobs::steer::{Action, steer};
use mdl::jobs::store::{self, Attempt, Filter, Order, Position};
use mdl::jobs::{JobRow, JobState, redacted};
use mdl::page::{self, Page, PageArgs};
use mdl::{Actor, App, output};
use serde_json::{Value, json};

use super::table::{ago, fit, print_json, short, table};
use super::watch::watch;
use super::{Whom, explain};

#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// List the jobs that match, newest first
    List(List),
    /// Show one job with its attempts
    Show(Show),
    /// Run jobs again at once, with all their attempts: dead, cancelled, discarded, or failed and waiting for the next
    Retry(Steer),
    /// Stop jobs that have not ended
    Cancel(Steer),
    /// Give dead jobs up
    Discard(Steer),
    /// Give waiting jobs another time
    Reschedule {
        #[command(flatten)]
        steer: Steer,
        /// When they are due instead: 2026-12-24T18:00:00Z
        #[arg(long)]
        at: DateTime<Utc>,
    },
}

#[derive(Debug, Args)]
struct Matching {
    /// Slug of the tenant; all when left out
    #[arg(long)]
    tenant: Option<String>,
    /// Ids of jobs, as listed or as GraphQL has them
    #[arg(value_name = "ID", value_parser = job)]
    ids: Vec<JobId>,
    /// Queues; may be given several times
    #[arg(long)]
    queue: Vec<String>,
    /// Kinds of jobs; may be given several times
    #[arg(long)]
    kind: Vec<String>,
    /// held, waiting, dispatched, running, succeeded, dead, cancelled or discarded; may be given several times
    #[arg(long, value_parser = state)]
    state: Vec<JobState>,
    /// Words of the last error
    #[arg(long, value_parser = error_text)]
    error: Option<String>,
    /// Enqueued at this time or later: 2026-12-24T18:00:00Z
    #[arg(long)]
    from: Option<DateTime<Utc>>,
    /// Enqueued before this time
    #[arg(long)]
    before: Option<DateTime<Utc>>,
}

fn job(text: &str) -> Result<JobId, String> {
    global_id::expect(Kind::Job, text).map(JobId)
}

fn state(text: &str) -> Result<JobState, String> {
    let known = || JobState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(", ");
    JobState::parse(text).ok_or_else(|| format!("must be one of {}", known()))
}

fn error_text(text: &str) -> Result<String, String> {
    store::error_text(text).map_err(|error| error.to_string())
}

impl Matching {
    fn filter(&self) -> Filter {
        fn some<T: Clone>(values: &[T]) -> Option<Vec<T>> {
            (!values.is_empty()).then(|| values.to_vec())
        }
        Filter {
            ids: some(&self.ids),
            queues: some(&self.queue),
            kinds: some(&self.kind),
            states: some(&self.state),
            error: self.error.clone(),
            created_from: self.from,
            created_before: self.before,
            ..Filter::default()
        }
    }
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    matching: Matching,
    /// How many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    /// Oldest first
    #[arg(long)]
    oldest: bool,
    /// Go on after the page that said this of itself, in the same order
    #[arg(long, value_name = "CURSOR", value_parser = cursor)]
    after: Option<Position>,
    /// Draw it anew every second until Ctrl-C, also while the database does not answer
    #[arg(long, conflicts_with = "after")]
    watch: bool,
    /// As JSON: jobs, whether there are more, and the cursor to go on after
    #[arg(long, conflicts_with = "watch")]
    json: bool,
}

fn cursor(text: &str) -> Result<Position, String> {
    page::parse_cursor("after", text).map_err(|error| error.to_string())
}

#[derive(Debug, Args)]
pub struct Show {
    /// The job's id, as listed or as GraphQL has it
    #[arg(value_parser = job)]
    id: JobId,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct Steer {
    #[command(flatten)]
    matching: Matching,
    /// Say how many jobs it would be, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl JobsCommand {
    pub async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        match self {
            JobsCommand::List(list) => list.run(app).await.map(|()| ExitCode::SUCCESS),
            JobsCommand::Show(show) => show.run(app).await,
            JobsCommand::Retry(steer) => steer.run(app, Action::Retry, "Retried").await,
            JobsCommand::Cancel(steer) => steer.run(app, Action::Cancel, "Asked to stop").await,
            JobsCommand::Discard(steer) => steer.run(app, Action::Discard, "Discarded").await,
            JobsCommand::Reschedule { steer, at } => steer.run(app, Action::Reschedule(at), "Rescheduled").await,
        }
    }
}

impl List {
    async fn run(&self, app: &App) -> anyhow::Result<()> {
        if self.watch {
            return watch(async || {
                let (page, whom) = self.look(app).await?;
                let more = if page.has_next { "\n\nThere are more: say --limit, or what you look for" } else { "" };
                Ok(draw(&page, &whom) + more)
            })
            .await;
        }
        let (page, whom) = self.look(app).await?;
        let end = page.items.last().map(|job| page::cursor(&self.order().position(job)));
        if self.json {
            let jobs = Value::from_iter(page.items.iter().map(|job| as_json(job, &whom)));
            print_json(&json!({ "jobs": jobs, "hasMore": page.has_next, "endCursor": end }));
            return Ok(());
        }
        output::line(draw(&page, &whom));
        if let Some(end) = end.filter(|_| page.has_next) {
            output::line(format_args!("\nThere are more: say --after {end} to go on, or --limit, or what you look for"));
        }
        Ok(())
    }

    async fn look(&self, app: &App) -> anyhow::Result<(Page<JobRow>, Whom)> {
        let whom = Whom::named(app, self.matching.tenant.as_deref()).await?;
        let args = PageArgs { after: self.after, ..PageArgs::first(usize::from(self.limit)) };
        let tx = app.db.dispatch().await.map_err(explain)?;
        let page = store::page(&tx, &whom.ids(), &self.matching.filter(), self.order(), &args).await.map_err(explain)?;
        tx.commit().await.map_err(explain)?;
        Ok((page, whom))
    }

    fn order(&self) -> Order {
        if self.oldest { Order::Oldest } else { Order::Newest }
    }
}

fn draw(page: &Page<JobRow>, whom: &Whom) -> String {
    let mut table = table(&["id", "tenant", "kind", "state", "try", "age", "due", "error"]);
    for job in &page.items {
        let error = job.last_error.as_deref().unwrap_or_default();
        let is_later = job.state == JobState::Waiting && job.run_at > Utc::now();
        table.add_row([
            job.id.to_string(),
            whom.slug(job.tenant_id).to_owned(),
            job.kind.clone(),
            job.state.as_str().to_owned(),
            format!("{}/{}", job.attempt, job.max_attempts),
            ago(Some(job.created_at)),
            ago(is_later.then_some(job.run_at)),
            short(error, 200),
        ]);
    }
    fit(table)
}

impl Show {
    async fn run(&self, app: &App) -> anyhow::Result<ExitCode> {
        let whom = Whom::named(app, None).await?;
        let tx = app.db.dispatch().await.map_err(explain)?;
        let Some(job) = store::by_ids(&tx, &whom.ids(), &[self.id]).await.map_err(explain)?.pop() else {
            eprintln!("There is no job {}", self.id);
            return Ok(ExitCode::FAILURE);
        };
        let attempts = store::attempts(&tx, job.tenant_id, job.id).await.map_err(explain)?;
        tx.commit().await.map_err(explain)?;
        let mut shown = as_json(&job, &whom);
        if self.json {
            shown["attempts"] = Value::from_iter(attempts.iter().map(attempt_as_json));
            print_json(&shown);
            return Ok(ExitCode::SUCCESS);
        }
        if let Value::Object(fields) = shown {
            for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
                output::line(format_args!("{name:<18}{}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
            }
        }
        if !attempts.is_empty() {
            let mut table = table(&["try", "outcome", "ended", "worker", "error"]);
            for attempt in &attempts {
                table.add_row([
                    attempt.number.to_string(),
                    attempt.outcome.as_str().to_owned(),
                    ago(Some(attempt.finished_at)),
                    attempt.worker.clone().unwrap_or_default(),
                    attempt.error.clone().unwrap_or_default(),
                ]);
            }
            output::line(format_args!("\nAttempts that did not succeed\n{}", fit(table)));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Steer {
    async fn run(&self, app: &App, action: Action, done: &str) -> anyhow::Result<ExitCode> {
        let whom = Whom::named(app, self.matching.tenant.as_deref()).await?;
        let filter = self.matching.filter();
        anyhow::ensure!(!filter.is_empty(), "Give ids or at least one condition; --help lists them");
        let tx = app.db.dispatch().await.map_err(explain)?;
        let concerned = store::count_by_tenant(&tx, &whom.ids(), &filter).await.map_err(explain)?;
        tx.commit().await.map_err(explain)?;
        // A condition may find nothing; an id was meant.
        let is_missing = !self.matching.ids.is_empty() && concerned.is_empty();
        let mut count = 0;
        // A transaction, and an entry of the audit log, for each tenant.
        for (tenant, _) in concerned {
            count += steer(app, &Actor::system(tenant), action, &filter, self.dry_run).await.map_err(explain)?;
        }
        match (self.json, self.dry_run) {
            (true, dry_run) => print_json(&json!({ "count": count, "dryRun": dry_run })),
            (false, _) if is_missing => {}
            (false, true) => output::line(format_args!("It would be {}", output::counted(count, "job"))),
            (false, false) => output::line(format_args!("{done}: {}", output::counted(count, "job"))),
        }
        if is_missing {
            eprintln!("There is no such job");
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn as_json(job: &JobRow, whom: &Whom) -> Value {
    json!({
        "id": job.id, "tenant": whom.slug(job.tenant_id), "queue": job.queue, "kind": job.kind, "state": job.state.as_str(),
        "error": job.last_error, "payload": redacted(&job.payload), "attempt": job.attempt, "maxAttempts": job.max_attempts,
        "priority": job.priority, "runAt": job.run_at, "createdAt": job.created_at, "startedAt": job.started_at,
        "finishedAt": job.finished_at, "worker": job.worker, "uniqueKey": job.unique_key, "enqueuedBy": job.enqueued_by,
        "traceId": job.trace_id(), "cancelRequestedAt": job.cancel_requested_at, "progressDone": job.progress_done,
        "progressTotal": job.progress_total, "progressMessage": job.progress_message,
    })
}

fn attempt_as_json(attempt: &Attempt) -> Value {
    json!({
        "number": attempt.number, "outcome": attempt.outcome.as_str(), "worker": attempt.worker,
        "startedAt": attempt.started_at, "finishedAt": attempt.finished_at, "error": attempt.error,
    })
}
