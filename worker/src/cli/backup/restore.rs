//! `mdl-worker backup restore`.

use std::process::ExitCode;

use clap::Args;
use mdl::backups::{self, Brought, Progress, shell_word};
use mdl::ids::BackupId;
use mdl::{App, output};
use serde_json::{Value, json};

use super::backup_id;
use super::switch::{confirm, kept, switch, tell_switched};
use crate::cli::explain;
use crate::cli::line::follow;
use crate::cli::table::print_json;

#[derive(Debug, Args)]
pub struct Restore {
    /// As `backup list` or GraphQL names it
    #[arg(value_parser = backup_id)]
    id: BackupId,
    /// The place to read it from; the first that has it when not given
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Name of the new database; without it the name tells when the backup was made
    #[arg(long, value_name = "DATABASE", conflicts_with = "tenant")]
    into: Option<String>,
    /// Put it in the place of the database in use, when it is restored and compared. Asks first
    #[arg(long, conflicts_with = "tenant")]
    in_place: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Only the rows of the tenant with this slug, in the database in use
    #[arg(long, value_name = "SLUG")]
    tenant: Option<String>,
    /// Count what would change, and change nothing
    #[arg(long, requires = "tenant")]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Restore {
    pub async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        if let Some(slug) = &self.tenant {
            return self.tenant(app, slug).await;
        }
        if self.in_place && !self.yes {
            confirm(
                app,
                &format!("The database in use will be replaced by the backup {}, and kept under another name.", self.id),
            )?;
        }
        let progress = Progress::default();
        let line = follow(&progress);
        let restored = backups::restore(app, self.id, self.from.as_deref(), self.into.as_deref(), &progress).await;
        drop(line);
        let restored = restored.map_err(explain)?;
        if !self.json {
            output::line(format_args!(
                "Restored the backup {} of {} into the database {}: {} of {}, as they were",
                self.id,
                restored.manifest.started_at.format("%Y-%m-%d %H:%M:%S UTC"),
                restored.database,
                output::counted(restored.manifest.rows(), "row"),
                output::counted(restored.manifest.inventory.tables.len() as u64, "table")
            ));
            tell_files(&restored.files, false);
        }
        let complete = restored.files.failed.is_empty();
        let switched = if self.in_place && complete { Some(switch(app, &restored.database).await) } else { None };
        let in_use = switched.as_ref().and_then(|switched| switched.as_ref().ok());
        if self.json {
            print_json(&json!({
                "id": self.id,
                "startedAt": restored.manifest.started_at,
                "database": restored.database,
                "rows": restored.manifest.rows(),
                "tables": restored.manifest.inventory.tables.len(),
                "files": restored.files.count,
                "lostFiles": restored.files.lost,
                "failedFiles": restored.files.failed,
                "lacksMigrations": restored.lacks_migrations,
                "inUse": in_use.is_some(),
                "kept": in_use.and_then(kept),
            }));
        } else if let Some(switched) = in_use {
            tell_switched(app, &restored.database, switched)?;
        } else {
            output::line(format_args!("To use it: mdl-worker backup switch {}", shell_word(&restored.database)));
        }
        switched.transpose()?;
        if restored.lacks_migrations && !self.json {
            output::line("It is of an older version: run mdl-api migrate when it is in use");
        }
        all_came(&restored.files)
    }

    async fn tenant(&self, app: &App, slug: &str) -> anyhow::Result<ExitCode> {
        if !self.dry_run && !self.yes {
            confirm(app, &format!("The catalog, people and imports of the tenant {slug} will be as in the backup {}.", self.id))?;
        }
        let progress = Progress::default();
        let line = follow(&progress);
        let restored = backups::restore_tenant(app, self.id, self.from.as_deref(), slug, self.dry_run, &progress).await;
        drop(line);
        let restored = restored.map_err(explain)?;
        if self.json {
            let tables = restored.changes.iter().map(|change| {
                json!({
                    "table": change.table, "now": change.now, "backup": change.backed_up, "added": change.added,
                    "changed": change.changed, "removed": change.removed,
                })
            });
            print_json(&json!({
                "id": self.id,
                "tenant": slug,
                "dryRun": self.dry_run,
                "tables": Value::from_iter(tables),
                "files": restored.files.count,
                "lostFiles": restored.files.lost,
                "failedFiles": restored.files.failed,
            }));
            return all_came(&restored.files);
        }
        output::line(format_args!(
            "{:<22}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}",
            "table", "now", "backup", "added", "changed", "removed"
        ));
        for change in &restored.changes {
            output::line(format_args!(
                "{:<22}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}",
                change.table, change.now, change.backed_up, change.added, change.changed, change.removed
            ));
        }
        tell_files(&restored.files, self.dry_run);
        output::line(if self.dry_run { "Nothing was changed" } else { "Restored" });
        all_came(&restored.files)
    }
}

/// What became of the uploaded files, but for those that may come another time.
fn tell_files(files: &Brought, dry_run: bool) {
    let lost = files.lost.len() as u64;
    let (bring, not) = match (dry_run, lost) {
        (true, _) => ("Would bring", "would not be"),
        (false, 1) => ("Brought", "was not"),
        (false, _) => ("Brought", "were not"),
    };
    if files.count > 0 {
        output::line(format_args!("{bring} back {} that had been missing", output::counted(files.count, "file")));
    }
    if !files.lost.is_empty() {
        output::line(format_args!("{} {not} brought back: the backup has no whole copy", output::counted(lost, "file")));
    }
}

/// A restore has failed while there are files that may come another time.
fn all_came(files: &Brought) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        files.failed.is_empty(),
        "{} could not be brought back, since the backup or the file storage did not serve: the warnings say more",
        output::counted(files.failed.len() as u64, "file")
    );
    Ok(ExitCode::SUCCESS)
}
