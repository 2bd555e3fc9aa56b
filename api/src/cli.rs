//! The command line: the server, and what an operator does beside it.

mod accounts;
mod documents;
mod export;
mod import;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use mdl::config::{Config, DatabaseConfig};
use mdl::{App, Error, migrations, output, tokens};

/// The GraphQL server of MDL, the metrics definition library.
///
/// Without a command it serves. Every setting is an environment variable or a flag; `mdl-api serve --help` lists them all.
#[derive(Debug, Parser)]
#[command(name = "mdl-api", version, args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve GraphQL, GraphiQL and the health checks until told to stop
    Serve(Box<Serve>),
    /// Bring the database to this version's schema (needs DATABASE_OWNER_URL)
    Migrate(Migrate),
    /// Print a new private key for MDL_SIGNING_KEY_FILE
    Keygen,
    /// Print the GraphQL schema; needs no servers
    Schema,
    /// Print every setting with its default as Markdown; needs no servers
    Settings,
    /// Print every kind of event with an example as Markdown; needs no servers
    EventTypes,
    /// Manage tenants. Settings come from the environment (DATABASE_URL)
    #[command(subcommand)]
    Tenant(accounts::TenantCommand),
    /// Manage users. Settings come from the environment (DATABASE_URL)
    #[command(subcommand)]
    User(accounts::UserCommand),
    /// Import files into a tenant's catalog, by a job of the worker. Settings come from the environment (DATABASE_URL,
    /// MDL_STORAGE_URL)
    Import(import::ImportFiles),
    /// Write a tenant's catalog as a file that an import takes back. Settings come from the environment (DATABASE_URL)
    Export(export::ExportCatalog),
    /// Encrypt the secrets of webhooks with the first key of MDL_WEBHOOK_KEYS, so that the other keys can go
    ResealWebhooks,
    /// Publish documents that clients may run by id. Settings come from the environment (DATABASE_URL)
    #[command(subcommand)]
    Documents(documents::DocumentsCommand),
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    config: Config,
}

#[derive(Debug, Args)]
struct Migrate {
    #[command(flatten)]
    database: DatabaseConfig,
}

impl Cli {
    /// Does what was asked. An error is one sentence with its causes.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        // For clients that leave the choice to the program. Only a second call could fail.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        match self.command {
            None => crate::http::serve(self.serve.config).await?,
            Some(Command::Serve(serve)) => crate::http::serve(serve.config).await?,
            Some(Command::Migrate(migrate)) => run_migrations(migrate.database).await?,
            Some(Command::Keygen) => output::text(tokens::generate_key_pem()),
            Some(Command::Schema) => output::text(crate::graphql::schema::sdl()),
            Some(Command::Settings) => output::text(mdl::config::reference()),
            Some(Command::EventTypes) => output::text(mdl::events::kinds::reference()),
            Some(Command::Tenant(command)) => told(async |app| command.run(app).await).await?,
            Some(Command::User(command)) => told(async |app| command.run(app).await).await?,
            Some(Command::Import(import)) => return told(async |app| import.run(app).await).await,
            Some(Command::Export(export)) => told(async |app| export.run(app).await).await?,
            Some(Command::ResealWebhooks) => told(reseal_webhooks).await?,
            Some(Command::Documents(command)) => return told(async |app| command.run(app).await).await,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn run_migrations(config: DatabaseConfig) -> anyhow::Result<()> {
    let config = config.without_blanks();
    config.check().map_err(explain)?;
    let owner_url = config.owner_url.as_deref().context("Set DATABASE_OWNER_URL: the migrations run as the owner mdl_owner")?;
    let applied = migrations::run(owner_url).await.map_err(explain)?;
    for name in &applied {
        output::line(format_args!("Applied {name}"));
    }
    output::line("The database is up to date");
    Ok(())
}

async fn reseal_webhooks(app: &App) -> anyhow::Result<()> {
    let count = mdl::webhooks::secrets::reseal(app).await.map_err(explain)?;
    output::line(format_args!("Encrypted {count} rows with the first key; the others are not needed any more"));
    Ok(())
}

/// The servers, as the environment says. Commands for people are short, so they take no settings as flags.
fn app() -> anyhow::Result<App> {
    let config = Config::from_arguments(["mdl-api"]).unwrap_or_else(|error| error.exit());
    App::new(config).map_err(explain)
}

/// Runs a command that may write, and waits until other processes know of it.
async fn told<T>(command: impl AsyncFnOnce(&App) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let app = app()?;
    let mut result = command(&app).await;
    if let Err(error) = &result
        && let Some(lacking) = migrations::lacking_after(&app.db, &format!("{error:#}")).await
    {
        result = Err(anyhow::Error::msg(lacking));
    }
    app.versions.settle(Duration::from_secs(2)).await;
    result
}

/// An error with what it keeps from callers: at the command line stands the operator.
pub fn explain(error: Error) -> anyhow::Error {
    let message = error.to_string();
    match error {
        Error::Internal(source) | Error::Unavailable { source, .. } => anyhow::Error::from_boxed(source).context(message),
        _ => anyhow::Error::msg(message),
    }
}
