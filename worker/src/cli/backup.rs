//! `mdl-worker backup`: making, proving, listing and bringing back backups.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use mdl::backups::{self, Brought, Manifest, Progress, Switched, Vault, Verified, seal, shell_word};
use mdl::ids::BackupId;
use mdl::{App, output};
use serde_json::{Value, json};

use super::explain;
use super::line::{follow, size};
use super::table::print_json;

#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Make a backup, and restore it on trial
    Now(Now),
    /// List the backups that are there, oldest first
    List(List),
    /// Restore a backup on trial, with all its files, into a scratch database that is dropped again
    Verify(Verify),
    /// Bring a backup back: into a new database, in place of the one in use, or one tenant's rows of it
    Restore(Restore),
    /// Put a restored database in the place of the one in use, which is kept under another name
    Switch(Switch),
    /// Remove backups that are older than their place keeps them, and what died ones left; the newest verified ones stay
    Prune(Prune),
    /// Print a new pair of keys: a file for MDL_BACKUP_IDENTITY_FILE, and in it what to set MDL_BACKUP_RECIPIENTS to
    Keygen,
}

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
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// As `backup list` names it
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

#[derive(Debug, Args)]
pub struct Switch {
    /// The restored database
    database: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct Prune {
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl BackupCommand {
    pub async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        match self {
            Self::Now(now) => now.run(app).await,
            Self::List(list) => list.run(app).await,
            Self::Verify(verify) => verify.run(app).await,
            Self::Restore(restore) => restore.run(app).await,
            Self::Switch(switch) => switch.run(app).await,
            Self::Prune(prune) => prune.run(app).await,
            Self::Keygen => keygen(),
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
        if !self.json {
            output::line(format_args!(
                "Made the backup {id}: {} rows of {} tables in {}, and {} files, in {:.1} s",
                manifest.rows(),
                manifest.inventory.tables.len(),
                size(manifest.database.stored.bytes),
                manifest.files.count,
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
    async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
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

impl List {
    async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let (listed, silent) = backups::list(app).await.map_err(explain)?;
        for place in silent {
            eprintln!("Not listed: {place}");
        }
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
            output::line(serde_json::to_string_pretty(&list)?);
            return Ok(ExitCode::SUCCESS);
        }
        if listed.is_empty() {
            output::line("There are no backups");
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
            output::line(format_args!("{id}  {about}  {verified}  {}{damage}", backup.places.join(" ")));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Needs no settings: it makes what one of them is to be set to.
pub fn keygen() -> anyhow::Result<ExitCode> {
    output::text(seal::generate_identity());
    Ok(ExitCode::SUCCESS)
}

impl Restore {
    async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
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
                "Restored the backup {} of {} into the database {}: {} rows of {} tables, as they were",
                self.id,
                restored.manifest.started_at.format("%Y-%m-%d %H:%M:%S UTC"),
                restored.database,
                restored.manifest.rows(),
                restored.manifest.inventory.tables.len()
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
    let (bring, not) = if dry_run { ("Would bring", "would not be") } else { ("Brought", "were not") };
    if files.count > 0 {
        output::line(format_args!("{bring} back {} files that were missing", files.count));
    }
    if !files.lost.is_empty() {
        output::line(format_args!("{} files {not} brought back: the backup has no whole copy of them", files.lost.len()));
    }
}

/// A restore has failed while there are files that may come another time.
fn all_came(files: &Brought) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        files.failed.is_empty(),
        "{} files could not be brought back, since the backup or the file storage did not serve: the warnings name them",
        files.failed.len()
    );
    Ok(ExitCode::SUCCESS)
}

impl Switch {
    async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        if !self.yes {
            confirm(app, &format!("The database in use will be replaced by {}, and kept under another name.", self.database))?;
        }
        let switched = switch(app, &self.database).await?;
        if self.json {
            print_json(&json!({ "database": self.database, "inUse": true, "kept": kept(&switched) }));
        } else {
            tell_switched(app, &self.database, &switched)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn switch(app: &App, database: &str) -> anyhow::Result<Switched> {
    backups::switch(app, database).await.map_err(explain)
}

/// The name of what was in use before.
fn kept(switched: &Switched) -> Option<&str> {
    match switched {
        Switched::Now { kept } => kept.as_deref(),
        Switched::Before => None,
    }
}

fn tell_switched(app: &App, database: &str, switched: &Switched) -> anyhow::Result<()> {
    match switched {
        Switched::Now { kept } => {
            let aside = kept
                .as_ref()
                .map(|kept| format!(" What was in use before is kept as {kept}: drop it when it is not needed any more"));
            let (name, aside) = (name_in_use(app)?, aside.unwrap_or_default());
            output::line(format_args!("The database {database} is in use now, under the name {name}.{aside}"));
        }
        // That they could not be told is said where they are waited for.
        Switched::Before => output::line(format_args!("{database} is in use already; caches are told to forget what they keep")),
    }
    Ok(())
}

/// The name of the database in use.
fn name_in_use(app: &App) -> anyhow::Result<String> {
    Ok(app.config.database.url.parse::<tokio_postgres::Config>()?.get_dbname().unwrap_or_default().to_owned())
}

impl Prune {
    async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
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
                "{verb} {} backups and {} files from {}",
                pruned.backups.len(),
                pruned.files,
                pruned.place
            ));
            for id in pruned.backups {
                output::line(format_args!("  {id}"));
            }
            let (died, halves) = (pruned.leftovers.len(), pruned.temporary_files);
            if died > 0 || halves > 0 {
                output::line(format_args!("{verb} {died} dumps and {halves} halves of files that died backups had left there"));
            }
            for id in pruned.leftovers {
                output::line(format_args!("  {id}"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Goes on only if somebody types the name of the database in use.
fn confirm(app: &App, consequence: &str) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("{consequence} Say --yes to do that without a terminal");
    }
    let in_use = name_in_use(app)?;
    eprint!("{consequence}\nType the name of the database in use ({in_use}) to go on: ");
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed)?;
    anyhow::ensure!(typed.trim() == in_use, "Nothing was done");
    Ok(())
}
