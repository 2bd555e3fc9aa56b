//! `mdl-api export`: a tenant's catalog as a file, or to standard output.

use std::fs::{Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use futures::StreamExt;
use mdl::exports::{self, Export, Format};
use mdl::{Actor, App, output};
use tempfile::NamedTempFile;
use tokio::signal::unix::{SignalKind, signal};

use super::accounts::tenant;
use super::explain;

#[derive(Debug, Args)]
pub struct ExportCatalog {
    /// Slug of the tenant
    #[arg(long)]
    tenant: String,
    /// What to write; told from the ending of FILE when not given, and ndjson without an ending
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// Where to write, which then has the whole catalog or is as it was; standard output when not given
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatArg {
    Json,
    Ndjson,
    Yaml,
}

impl ExportCatalog {
    pub async fn run(self, app: &App) -> anyhow::Result<()> {
        let format = self.format()?;
        let tenant = tenant(app, &self.tenant).await?.id;
        let export = exports::start(app, &Actor::system(tenant), format, None).await.map_err(explain)?;
        match &self.output {
            Some(file) => to_file(export, file).await.with_context(|| format!("Could not write {}", file.display())),
            None => print(export).await,
        }
    }

    fn format(&self) -> anyhow::Result<Format> {
        let file = self.output.as_deref().filter(|file| file.extension().is_some());
        match (self.format, file) {
            (Some(FormatArg::Json), _) => Ok(Format::Json),
            (Some(FormatArg::Yaml), _) => Ok(Format::Yaml),
            (Some(FormatArg::Ndjson), _) | (None, None) => Ok(Format::Ndjson),
            (None, Some(file)) => Format::of_file(file).with_context(|| {
                format!("The ending of {} tells no format: name one with --format, json, ndjson or yaml", file.display())
            }),
        }
    }
}

/// To standard output, for as long as somebody reads.
async fn print(mut export: Export) -> anyhow::Result<()> {
    while let Some(piece) = export.next().await {
        if !output::part(&piece.map_err(explain)?) {
            break;
        }
    }
    Ok(())
}

/// To a file of another name beside this one, which takes its place when it is whole, and goes when it does not become so.
async fn to_file(mut export: Export, file: &Path) -> anyhow::Result<()> {
    // What is at the end of a link, and not the link, is replaced.
    let (file, before) = match file.canonicalize() {
        Ok(file) => (file.clone(), Some(file.metadata()?)),
        Err(error) if error.kind() == ErrorKind::NotFound && !file.is_symlink() => (file.to_owned(), None),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("It is a link to nothing"),
        Err(error) => return Err(error.into()),
    };
    if before.as_ref().is_some_and(|before| !before.is_file()) {
        bail!("It is no file");
    }
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut written = beside(&file, before.as_ref())?;
    loop {
        let piece = tokio::select! {
            piece = export.next() => piece,
            _ = interrupt.recv() => bail!("Interrupted"),
            _ = terminate.recv() => bail!("Terminated"),
        };
        let Some(piece) = piece else { break };
        written.write_all(&piece.map_err(explain)?)?;
    }
    written.as_file().sync_all()?;
    written.persist(&file)?;
    Ok(())
}

/// A new file in the folder of this one. It may be read by whom the file that was there before may be.
fn beside(file: &Path, before: Option<&Metadata>) -> io::Result<NamedTempFile> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".catalog-");
    let Some(before) = before else {
        // As other programs make files; a temporary file is usually for its owner alone.
        return builder.permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
    };
    let written = builder.tempfile_in(folder)?;
    // Only root gives files away: the file of others becomes one's own.
    let _given = fchown(written.as_file(), Some(before.uid()), None);
    // What its group might do is not for another group.
    let has_group = fchown(written.as_file(), None, Some(before.gid())).is_ok();
    let mode = before.mode() & if has_group { 0o777 } else { 0o707 };
    written.as_file().set_permissions(Permissions::from_mode(mode))?;
    Ok(written)
}
