//! `mdl-api import`: files into the catalog. The worker does the work; with `--wait` this tells how it goes.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, ValueEnum};
use mdl::ids::{ImportId, TenantId};
use mdl::imports::{self, Format, Import, ImportState, Mode, Severity, Upload};
use mdl::page::PageArgs;
use mdl::{Actor, App, output};
use tokio_util::io::ReaderStream;

use super::accounts::tenant;
use super::explain;

/// Between two looks at a running import.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A file that waits longer than this may wait for a worker that nobody has started.
const PATIENCE: Duration = Duration::from_secs(5);
/// Problems that are printed of one import; all are in GraphQL.
const MAX_ISSUES: usize = 10;

#[derive(Debug, Args)]
pub struct ImportFiles {
    /// Slug of the tenant
    #[arg(long)]
    tenant: String,
    /// Wait for each file until its import has ended, before the next is started. Exits with 1 when an entry was not imported
    #[arg(long)]
    wait: bool,
    /// Find out what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// What happens to the good entries of a file that has bad ones
    #[arg(long, value_enum, default_value_t = ModeArg::AllOrNothing)]
    mode: ModeArg,
    /// What the files are written in; told from their names and content when not given
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// What keys of metric-hub definitions start with; the file's name when not given
    #[arg(long)]
    namespace: Option<String>,
    /// Why, for the history of the metrics
    #[arg(long)]
    message: Option<String>,
    /// Files, gzip or not
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModeArg {
    /// Nothing is imported unless everything can be
    AllOrNothing,
    /// Each entry by itself
    RowByRow,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatArg {
    Json,
    Yaml,
    Ndjson,
    Csv,
    MetricHub,
}

impl ImportFiles {
    pub async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let tenant = tenant(app, &self.tenant).await?.id;
        let mut complete = true;
        for file in &self.files {
            let import = self.start(app, tenant, file).await.with_context(|| file.display().to_string())?;
            if self.wait {
                complete &= wait(app, tenant, import.id, &name(file)).await?;
            } else {
                output::line(format_args!("Started the import {} of {}", import.id, file.display()));
            }
        }
        Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn start(&self, app: &App, tenant: TenantId, file: &Path) -> anyhow::Result<Import> {
        let content = tokio::fs::File::open(file).await.context("Could not open the file")?;
        let upload = Upload {
            file_name: Some(name(file)),
            format: self.format.map(|format| match format {
                FormatArg::Json => Format::Json,
                FormatArg::Yaml => Format::Yaml,
                FormatArg::Ndjson => Format::Ndjson,
                FormatArg::Csv => Format::Csv,
                FormatArg::MetricHub => Format::MetricHub,
            }),
            mode: match self.mode {
                ModeArg::AllOrNothing => Mode::AllOrNothing,
                ModeArg::RowByRow => Mode::RowByRow,
            },
            dry_run: self.dry_run,
            namespace: self.namespace.clone(),
            message: self.message.clone(),
        };
        imports::start(app, &Actor::system(tenant), ReaderStream::new(content), upload).await.map_err(explain)
    }
}

/// Watches an import until it ends. Whether every entry was imported.
async fn wait(app: &App, tenant: TenantId, id: ImportId, name: &str) -> anyhow::Result<bool> {
    let mut progress = Progress { on_terminal: std::io::stderr().is_terminal(), shown: false };
    let mut hint = Some(Instant::now() + PATIENCE);
    let import = loop {
        let import = read(app, tenant, id).await?;
        if import.state == ImportState::Queued && hint.is_some_and(|at| at <= Instant::now()) {
            hint = None;
            progress.clear();
            eprintln!("{name}: still waiting for a worker; is mdl-worker running?");
        }
        match import.state {
            ImportState::Queued => progress.show(&format!("{name}: waiting for a worker")),
            ImportState::Running => progress.show(&format!("{name}: {}", running(&import))),
            ImportState::Succeeded | ImportState::Failed | ImportState::Cancelled => break import,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    progress.clear();
    let counts = format!(
        "{} created, {} updated, {} unchanged, {} failed",
        import.created_count, import.updated_count, import.unchanged_count, import.failed_count
    );
    let ended = match import.state {
        ImportState::Cancelled => "cancelled",
        ImportState::Failed => "failed",
        _ if import.dry_run => "looked through (nothing was changed)",
        _ => "imported",
    };
    eprintln!("{name}: {ended}: {counts}");
    if let Some(error) = &import.error {
        eprintln!("  {error}");
    }
    print_issues(app, tenant, &import).await?;
    Ok(import.state == ImportState::Succeeded && import.failed_count == 0)
}

async fn read(app: &App, tenant: TenantId, id: ImportId) -> anyhow::Result<Import> {
    let tx = app.db.begin(tenant).await.map_err(explain)?;
    let import = imports::store::by_id(&tx, tenant, id).await.map_err(explain)?.context("The import was removed meanwhile")?;
    tx.commit().await.map_err(explain)?;
    Ok(import)
}

fn running(import: &Import) -> String {
    let mut text = match import.rows_total {
        Some(total) if total > 0 => format!("{}/{total} ({} %)", import.rows_done, import.rows_done * 100 / total),
        _ => "reading".to_owned(),
    };
    if let Some(rate) = import.rows_per_second() {
        text += &format!(", {rate:.0} a second");
    }
    if let Some(left) = import.time_left() {
        text += &format!(", {} s left", left.as_secs());
    }
    text
}

async fn print_issues(app: &App, tenant: TenantId, import: &Import) -> anyhow::Result<()> {
    if import.failed_count == 0 && import.state == ImportState::Succeeded {
        return Ok(());
    }
    let tx = app.db.begin(tenant).await.map_err(explain)?;
    let args = PageArgs::first(MAX_ISSUES);
    let page = imports::store::issues(&tx, tenant, import.id, Some(Severity::Error), &args).await.map_err(explain)?;
    tx.commit().await.map_err(explain)?;
    for issue in &page.items {
        let place = match (issue.line, &issue.path) {
            (Some(line), Some(path)) => format!("line {line}, {path}"),
            (Some(line), None) => format!("line {line}"),
            (None, path) => path.clone().unwrap_or_default(),
        };
        let entry = issue.entity_key.as_deref().map(|key| format!(" ({key})")).unwrap_or_default();
        eprintln!("  {place}{entry}: {} [{}]", issue.message, issue.code);
    }
    if page.has_next {
        eprintln!("  …");
    }
    Ok(())
}

/// One line on a terminal that is written over; elsewhere nothing, as a log of it helps nobody.
struct Progress {
    on_terminal: bool,
    shown: bool,
}

impl Progress {
    fn show(&mut self, line: &str) {
        if self.on_terminal {
            eprint!("\r\x1b[2K{line}");
            self.shown = true;
            // Only the progress is lost.
            let _flushed = std::io::stderr().flush();
        }
    }

    fn clear(&mut self) {
        if self.shown {
            eprint!("\r\x1b[2K");
            self.shown = false;
        }
    }
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned()
}
