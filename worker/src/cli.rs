//! The command line: the worker itself, and what an operator does beside it.

mod backup;
mod jobs;
mod line;
mod operator;
mod queues;
mod schedules;
mod table;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mdl::config::Config;
use mdl::ids::TenantId;
use mdl::{App, Error, audit, backups, migrations, tenants};

/// How long a command waits until Redis has been told of what it wrote.
const PATIENCE: Duration = Duration::from_secs(2);

/// Does MDL's background work: takes jobs from the ledger in PostgreSQL and does them.
///
/// Without a command it works. Every setting is an environment variable or a flag; `mdl-worker run --help` lists them all.
#[derive(Debug, Parser)]
#[command(name = "mdl-worker", version, args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: Run,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Work until told to stop
    Run(Box<Run>),
    /// Make backups, prove them, and bring them back. Settings come from the environment
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// See how the queues stand, pause and limit them. Settings come from the environment
    Queues(queues::QueuesCommand),
    /// See the workers of the last day. Settings come from the environment
    Workers(queues::Workers),
    /// Find jobs, retry, cancel, discard and reschedule them. Settings come from the environment
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// See what runs by the clock, run it now, pause it. Settings come from the environment
    Schedules(schedules::SchedulesCommand),
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub config: Config,
}

impl Command {
    /// Does what an operator asked for. `Run` is not for here: it has its own way of ending.
    pub async fn ask(self) -> anyhow::Result<ExitCode> {
        match self {
            Command::Run(_) => anyhow::bail!("`run` is not a command beside the worker"),
            Command::Backup(backup::BackupCommand::Keygen) => backup::keygen(),
            Command::Backup(command) => told(async |app| command.run(app).await).await,
            Command::Queues(command) => told(async |app| command.run(app).await).await,
            Command::Workers(command) => told(async |app| command.run(app).await).await,
            Command::Jobs(command) => told(async |app| command.run(app).await).await,
            Command::Schedules(command) => told(async |app| command.run(app).await).await,
        }
    }
}

/// Runs a command that may write, and waits until other processes know of it. It has failed when they do not.
async fn told(command: impl AsyncFnOnce(&App) -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    // Commands for people are short, so they take no settings as flags.
    let config = Config::from_arguments(["mdl-worker"]).unwrap_or_else(|error| error.exit());
    let app = App::new(config).map_err(explain)?;
    audit::name_operator(operator::operator());
    let mut result = command(&app).await;
    if let Err(error) = &result
        && let Some(lacking) = migrations::lacking_after(&app.db, &format!("{error:#}")).await
    {
        result = Err(anyhow::Error::msg(lacking));
    }
    // Waited for no longer than this here, where it can be said what to do about it.
    if tokio::time::timeout(PATIENCE, app.versions.settle(PATIENCE * 2)).await.is_ok() {
        return result;
    }
    eprintln!(
        "Redis does not answer, so caches could not be told: they may answer with what was before, for {} s at most. When it is back, \
         `mdl-worker backup switch` with the name of the database in use makes them forget",
        app.config.cache.ttl_seconds
    );
    result.and(Ok(ExitCode::FAILURE))
}

/// An error with what it keeps from callers: at the command line stands the operator. In the words of the log, so that what was logged
/// is not said again.
fn explain(error: Error) -> anyhow::Error {
    anyhow::Error::msg(backups::watch::sentence(&error))
}

/// Whom a command is about.
struct Whom {
    /// With their slugs.
    tenants: Vec<(TenantId, String)>,
}

impl Whom {
    /// The tenant with this slug; all, and the deployment's own, without one.
    async fn named(app: &App, slug: Option<&str>) -> anyhow::Result<Self> {
        let tx = app.db.dispatch().await.map_err(explain)?;
        let all = tenants::all(&tx).await.map_err(explain)?;
        tx.commit().await.map_err(explain)?;
        let mut tenants: Vec<_> = all.into_iter().map(|tenant| (tenant.id, tenant.slug)).collect();
        tenants.push((tenants::SYSTEM, "mdl-system".to_owned()));
        if let Some(wanted) = slug {
            tenants.retain(|(_, slug)| slug == wanted);
            anyhow::ensure!(!tenants.is_empty(), "There is no tenant {wanted:?}");
        }
        Ok(Self { tenants })
    }

    fn ids(&self) -> Vec<TenantId> {
        self.tenants.iter().map(|(id, _)| *id).collect()
    }

    fn slug(&self, tenant: TenantId) -> &str {
        self.tenants.iter().find(|(id, _)| *id == tenant).map_or("", |(_, slug)| slug)
    }
}
