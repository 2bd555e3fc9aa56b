//! `mdl-worker backup now` and `verify`.

use std::process::ExitCode;

use clap::Args;
use mdl::backups::{self, Manifest, Progress, Vault, Verified};
use mdl::ids::BackupId;
use mdl::{App, output};
use serde_json::json;

use super::backup_id;
use crate::cli::explain;
use crate::cli::line::{follow, size};
use crate::cli::table::print_json;

#[derive(Debug, Args)]
pub struct Now {
    /// Do not restore it on trial: it does not count as good before that is done
    #[arg(long)]
    no_verify: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// As `backup list` or GraphQL names it
    #[arg(value_parser = backup_id)]
    id: BackupId,
    /// The place to read it from; the first that has it when not given
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Now {
    pub async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let id = BackupId::new();
        let progress = Progress::default();
        let line = follow(&progress);
        let manifest = backups::back_up(app, id, None, &progress).await.map_err(explain)?;
        drop(line);
        if !self.json {
            output::line(format_args!(
                "Made the backup {id}: {} of {} in {}, and {}, in {:.1} s",
                output::counted(manifest.rows(), "row"),
                output::counted(manifest.inventory.tables.len() as u64, "table"),
                size(manifest.database.stored.bytes),
                output::counted(manifest.files.count, "file"),
                manifest.dump_seconds,
            ));
        }
        let verified = if self.no_verify { None } else { Some(verify(app, id, None, false).await) };
        let (places, lacking) = places(app, id).await?;
        let good = verified.as_ref().and_then(|verified| verified.as_ref().ok());
        match (self.json, good) {
            // Also of one that did not pass its trial restore: it is there.
            (true, good) => print_json(&json!({
                "id": id,
                "startedAt": manifest.started_at,
                "rows": manifest.rows(),
                "tables": manifest.inventory.tables.len(),
                "storedBytes": manifest.database.stored.bytes,
                "files": manifest.files.count,
                "dumpSeconds": manifest.dump_seconds,
                "verifiedAt": good.map(|verified| verified.proof.verified_at),
                "restoreSeconds": good.map(|verified| verified.proof.restore_seconds),
                "places": places,
                "lacking": lacking,
            })),
            (false, Some(verified)) => tell(verified),
            (false, None) if self.no_verify => {
                output::line(format_args!("It was not restored on trial: mdl-worker backup verify {id}"))
            }
            (false, None) => {}
        }
        for place in &lacking {
            eprintln!("The backup {id} has no copy in {place}; the next backup tries again");
        }
        verified.transpose()?;
        Ok(if lacking.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The places from which a backup can be read, and those that are to have it as well.
async fn places(app: &App, id: BackupId) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let (mut having, mut lacking) = (Vec::new(), Vec::new());
    for vault in Vault::all(&app.config.backup).map_err(explain)? {
        // Why it is not there was said when it was to be copied.
        let places = if Manifest::read(&vault, id).await.is_ok() { &mut having } else { &mut lacking };
        places.push(vault.name().to_owned());
    }
    Ok((having, lacking))
}

impl Verify {
    pub async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let verified = verify(app, self.id, self.from.as_deref(), true).await?;
        if self.json {
            print_json(&json!({
                "id": self.id,
                "place": verified.place,
                "verifiedAt": verified.proof.verified_at,
                "restoreSeconds": verified.proof.restore_seconds,
            }));
        } else {
            tell(&verified);
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn verify(app: &App, id: BackupId, place: Option<&str>, thorough: bool) -> anyhow::Result<Verified> {
    let progress = Progress::default();
    // Shown until this ends.
    let _line = follow(&progress);
    backups::verify(app, id, place, thorough, None, &progress).await.map_err(explain)
}

fn tell(verified: &Verified) {
    output::line(format_args!(
        "Verified the backup {} from {}: it restores to the same rows, constraints, indexes and policies, in {:.1} s",
        verified.manifest.id, verified.place, verified.proof.restore_seconds
    ));
}
