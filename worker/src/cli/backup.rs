//! `mdl-worker backup`: making, proving, listing and bringing back backups.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use mdl::App;
use mdl::backups::{self, Progress, seal};
use mdl::ids::BackupId;
use serde_json::json;

use super::explain;
use super::line::{follow, size};

#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Make a backup, and restore it on trial
    Now(Now),
    /// List the backups that are there, oldest first
    List(List),
    /// Restore a backup on trial, with all its files, into a scratch database that is dropped again
    Verify(Verify),
    /// Print a new pair of keys: a file for MDL_BACKUP_IDENTITY_FILE, and in it what to set MDL_BACKUP_RECIPIENTS to
    Keygen,
}

#[derive(Debug, Args)]
pub struct Now {
    /// Do not restore it on trial: it does not count as good before that is done
    #[arg(long)]
    no_verify: bool,
}

#[derive(Debug, Args)]
pub struct List {
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// As `backup list` names it
    id: BackupId,
    /// The place to read it from; the first that has it when not given
    #[arg(long, value_name = "URL")]
    from: Option<String>,
}

impl BackupCommand {
    pub async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        match self {
            Self::Now(now) => now.run(app).await,
            Self::List(list) => list.run(app).await,
            Self::Verify(verify) => verify.run(app).await,
            Self::Keygen => {
                print!("{}", seal::generate_identity());
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl Now {
    async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let id = BackupId::new();
        let progress = Progress::default();
        let line = follow(&progress);
        let manifest = backups::back_up(app, id, None, &progress).await.map_err(explain)?;
        drop(line);
        println!(
            "Made the backup {id}: {} rows of {} tables in {}, and {} files, in {:.1} s",
            manifest.rows(),
            manifest.inventory.tables.len(),
            size(manifest.database.stored.bytes),
            manifest.files.count,
            manifest.dump_seconds,
        );
        if self.no_verify {
            println!("It was not restored on trial: mdl-worker backup verify {id}");
            return Ok(ExitCode::SUCCESS);
        }
        verify(app, id, None, false).await
    }
}

impl Verify {
    async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        verify(app, self.id, self.from.as_deref(), true).await
    }
}

async fn verify(app: &App, id: BackupId, place: Option<&str>, thorough: bool) -> anyhow::Result<ExitCode> {
    let progress = Progress::default();
    let line = follow(&progress);
    let verified = backups::verify(app, id, place, thorough, None, &progress).await.map_err(explain)?;
    drop(line);
    println!(
        "Verified the backup {id} from {}: it restores to the same rows, constraints, indexes and policies, in {:.1} s",
        verified.place, verified.proof.restore_seconds
    );
    Ok(ExitCode::SUCCESS)
}

impl List {
    async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let listed = backups::list(app).await.map_err(explain)?;
        if self.json {
            let list: Vec<_> = listed
                .iter()
                .map(|(id, backup)| {
                    let manifest = backup.manifest.as_ref();
                    json!({
                        "id": id,
                        "startedAt": manifest.map(|manifest| manifest.started_at),
                        "plainBytes": manifest.map(|manifest| manifest.database.plain.bytes),
                        "storedBytes": manifest.map(|manifest| manifest.database.stored.bytes),
                        "rows": manifest.map(|manifest| manifest.rows()),
                        "files": manifest.map(|manifest| manifest.files.count),
                        "schemaVersion": manifest.and_then(|manifest| manifest.schema_version()),
                        "recipients": manifest.map(|manifest| &manifest.recipients),
                        "verifiedAt": backup.proof.as_ref().map(|proof| proof.verified_at),
                        "places": backup.places,
                        "damage": backup.damage,
                    })
                })
                .collect();
            println!("{}", serde_json::to_string_pretty(&list)?);
            return Ok(ExitCode::SUCCESS);
        }
        if listed.is_empty() {
            println!("There are no backups");
        }
        for (id, backup) in &listed {
            let about = match &backup.manifest {
                Some(manifest) => format!(
                    "{}  {:>9}  {:>10} rows  {:>6} files",
                    manifest.started_at.format("%Y-%m-%d %H:%M:%S UTC"),
                    size(manifest.database.stored.bytes),
                    manifest.rows(),
                    manifest.files.count
                ),
                None => String::new(),
            };
            let verified = match &backup.proof {
                Some(proof) => format!("verified {}", proof.verified_at.format("%Y-%m-%d %H:%M:%S UTC")),
                None => "never verified".to_owned(),
            };
            let damage = backup.damage.as_ref().map(|damage| format!("  {damage}")).unwrap_or_default();
            println!("{id}  {about}  {verified}  {}{damage}", backup.places.join(" "));
        }
        Ok(ExitCode::SUCCESS)
    }
}
