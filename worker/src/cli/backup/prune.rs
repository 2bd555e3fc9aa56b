//! `mdl-worker backup prune`.

use std::process::ExitCode;

use clap::Args;
use mdl::backups;
use mdl::{App, output};
use serde_json::{Value, json};

use crate::cli::explain;
use crate::cli::table::print_json;

#[derive(Debug, Args)]
pub struct Prune {
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Prune {
    pub async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let pruned = backups::prune(app, self.dry_run).await.map_err(explain)?;
        if self.json {
            let places = pruned.iter().map(|pruned| {
                json!({
                    "place": pruned.place, "backups": pruned.backups, "files": pruned.files, "leftovers": pruned.leftovers,
                    "temporaryFiles": pruned.temporary_files,
                })
            });
            print_json(&json!({ "dryRun": self.dry_run, "places": Value::from_iter(places) }));
            return Ok(ExitCode::SUCCESS);
        }
        let verb = if self.dry_run { "Would remove" } else { "Removed" };
        for pruned in pruned {
            output::line(format_args!(
                "{verb} {} and {} from {}",
                output::counted(pruned.backups.len() as u64, "backup"),
                output::counted(pruned.files, "file"),
                pruned.place
            ));
            for id in pruned.backups {
                output::line(format_args!("  {id}"));
            }
            let (died, halves) = (pruned.leftovers.len() as u64, pruned.temporary_files);
            if died > 0 || halves > 0 {
                let (dumps, files) = (output::counted(died, "dump"), output::counted(halves, "unfinished file"));
                output::line(format_args!("{verb} {dumps} and {files} that died backups had left there"));
            }
            for id in pruned.leftovers {
                output::line(format_args!("  {id}"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
