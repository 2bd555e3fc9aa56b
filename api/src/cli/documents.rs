//! `mdl-api documents`: publish what clients may run by id, and hold what is published against this build's schema.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use mdl::documents::{ALL_TENANTS, Caching, Document, store};
use mdl::ids::{DocumentId, TenantId};
use mdl::{Actor, App, Error, output, tenants};

use super::{accounts, explain};
use crate::documents::{Validator, publish};

#[derive(Debug, Subcommand)]
pub enum DocumentsCommand {
    /// Publish the documents of manifests and .graphql files: of each file all, or none when the schema refuses one
    Publish(Publish),
    /// Hold every published document of every tenant against this build's schema. Exits with 1 when one does not fit
    Check,
    /// List the documents that a tenant, or every tenant, may run
    List(Audience),
    /// Withdraw a document; publishing it again takes it back into use
    Withdraw(Withdraw),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Audience {
    /// Slug of the tenant that the documents are for
    #[arg(long)]
    tenant: Option<String>,
    /// For all tenants, and for callers without a credential
    #[arg(long)]
    all_tenants: bool,
}

#[derive(Debug, Args)]
pub struct Publish {
    #[command(flatten)]
    audience: Audience,
    /// graphql-codegen's persisted-documents.json, Apollo's or Relay's manifest, or a .graphql file with one document
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Seconds that answers are kept at most, 0 for never. With neither this nor --public, caching stays as it was
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..=Caching::MAX_SECONDS as i64))]
    cache_seconds: Option<i32>,
    /// Whether caches between the api and its callers may keep answers to GET requests
    #[arg(long)]
    public: bool,
}

#[derive(Debug, Args)]
pub struct Withdraw {
    #[command(flatten)]
    audience: Audience,
    /// What clients send as documentId
    #[arg(required = true, value_name = "DOCUMENT_ID")]
    document_ids: Vec<String>,
}

impl DocumentsCommand {
    pub async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        match self {
            DocumentsCommand::Publish(args) => publish(app, args).await,
            DocumentsCommand::Check => check(app).await,
            DocumentsCommand::List(audience) => list(app, &audience).await,
            DocumentsCommand::Withdraw(args) => withdraw(app, args).await,
        }
    }
}

impl Audience {
    async fn actor(&self, app: &App) -> anyhow::Result<Actor> {
        let tenant = match &self.tenant {
            Some(slug) => accounts::tenant(app, slug).await?.id,
            None => ALL_TENANTS,
        };
        Ok(Actor::system(tenant))
    }
}

async fn publish(app: &App, args: Publish) -> anyhow::Result<ExitCode> {
    let actor = args.audience.actor(app).await?;
    let validator = Validator::new(&app.config.graphql);
    let said = args.cache_seconds.is_some() || args.public;
    let caching = said.then_some(Caching { seconds: args.cache_seconds, public: args.public });
    let mut complete = true;
    for file in &args.files {
        let text = std::fs::read_to_string(file).with_context(|| format!("Could not read {}", file.display()))?;
        match publish::publish(app, &actor, &validator, &text, caching).await {
            Ok(documents) => {
                output::line(format_args!(
                    "{}: published {}",
                    file.display(),
                    output::counted(documents.len() as u64, "document")
                ));
                documents.iter().for_each(|document| output::line(format_args!("  {}", line(document))));
            }
            Err(Error::Invalid(problems)) => {
                complete = false;
                eprintln!("{}: published nothing", file.display());
                problems.iter().for_each(|problem| eprintln!("  {}", problem.message));
            }
            Err(error) => return Err(explain(error).context(file.display().to_string())),
        }
    }
    // Those of earlier publications may have been for another schema.
    let outdated = publish::outdated_of(app, &actor, &validator).await.map_err(explain)?;
    report(&outdated, &HashMap::from_iter(args.audience.tenant.map(|slug| (actor.tenant, slug))));
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn check(app: &App) -> anyhow::Result<ExitCode> {
    let tx = app.db.dispatch().await.map_err(explain)?;
    let documents = store::all_runnable(&tx).await.map_err(explain)?;
    let slugs = tenants::all(&tx).await.map_err(explain)?.into_iter().map(|tenant| (tenant.id, tenant.slug)).collect();
    tx.commit().await.map_err(explain)?;
    let count = documents.len();
    let outdated = publish::outdated(&Validator::new(&app.config.graphql), documents).await;
    report(&outdated, &slugs);
    output::line(format_args!("{} of {count} published documents fit the schema", count - outdated.len()));
    Ok(if outdated.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn list(app: &App, audience: &Audience) -> anyhow::Result<ExitCode> {
    for document in runnable(app, audience.actor(app).await?.tenant).await? {
        let used = match document.last_used_at {
            Some(at) => format!(
                "used {}, last {}",
                output::counted(document.use_count.unsigned_abs(), "time"),
                at.format("%Y-%m-%d %H:%M UTC")
            ),
            None => "never used".to_owned(),
        };
        output::line(format_args!(
            "{}, published {}, {used}",
            line(&document),
            document.published_at.format("%Y-%m-%d %H:%M UTC")
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn withdraw(app: &App, args: Withdraw) -> anyhow::Result<ExitCode> {
    let actor = args.audience.actor(app).await?;
    let runnable = runnable(app, actor.tenant).await?;
    let id = |wanted: &String| -> anyhow::Result<DocumentId> {
        let mut own = runnable.iter().filter(|document| document.tenant_id == actor.tenant);
        own.find(|document| document.document_id == *wanted)
            .map(|document| document.id)
            .with_context(|| format!("There is no document {wanted:?} of this audience"))
    };
    let ids = args.document_ids.iter().map(id).collect::<anyhow::Result<Vec<_>>>()?;
    for id in ids {
        let withdrawn = mdl::documents::withdraw(app, &actor, id).await.map_err(explain)?;
        output::line(format_args!("Withdrew {}", line(&withdrawn)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn runnable(app: &App, tenant: TenantId) -> anyhow::Result<Vec<Document>> {
    let tx = app.db.begin(tenant).await.map_err(explain)?;
    let documents = store::all_runnable(&tx).await.map_err(explain)?;
    tx.commit().await.map_err(explain)?;
    Ok(documents)
}

/// `slugs` are those of the tenants that may have such documents.
fn report(outdated: &[publish::Outdated], slugs: &HashMap<TenantId, String>) {
    for publish::Outdated { document, errors } in outdated {
        let owner = match slugs.get(&document.tenant_id) {
            _ if document.is_for_all_tenants() => "all tenants".to_owned(),
            Some(slug) => format!("tenant {slug}"),
            None => format!("tenant {}", document.tenant_id),
        };
        eprintln!("Does not fit the schema: {} ({owner})", line(document));
        errors.iter().for_each(|error| eprintln!("  {}{}", document.name, publish::sentence(error)));
    }
}

fn line(document: &Document) -> String {
    format!("{} version {}: {}", document.name, document.version, document.document_id)
}
