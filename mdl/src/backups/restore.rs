//! Bringing a backup back: into a database of its own first, whole and compared, and then, if that is wanted, in the place of the
//! one in use. Until the last step nothing that is in use is touched; and that step is one transaction which renames two
//! databases.

mod database;
mod switch;

use diesel::migration::{Migration, MigrationSource};
use tokio_postgres::{Client, Config};
use tracing::{info, warn};

use super::files::{self, Brought};
use super::inventory;
use super::manifest::Manifest;
use super::progress::{Phase, Progress};
use super::refused;
use super::scratch::{drop_database, pour};
use super::seal::{Identities, Opened};
use super::tools::Ownership;
use super::verify::find;
use crate::app::App;
use crate::config::{BackupConfig, postgres_address};
use crate::db;
use crate::error::{BoxError, Error, Result, causes};
use crate::ids::BackupId;
use crate::migrations::MIGRATIONS;
use database::{create, hand_over, hand_over_contents, prepare};

pub use switch::{Switched, switch};

/// A backup that is a database again.
#[derive(Debug, Clone)]
pub struct Restored {
    pub manifest: Manifest,
    /// The name of the database.
    pub database: String,
    /// Migrations of this program that it lacks: `mdl-api migrate` adds them once it is in use.
    pub lacks_migrations: bool,
    /// The uploaded files.
    pub files: Brought,
}

/// Places in a stream of events that stay empty after a restore: more than a tenant can have used since the backup.
const STREAM_GAP: u64 = 1_000_000_000;

/// The advisory lock of a restore, in the database that MDL_RESTORE_DATABASE_URL names.
const LOCK: i64 = 0x6d64_6c5f_7265_7374;

/// Restores a backup into a new database, as mdl_restore, with the owners and privileges that it had; compares it with the
/// manifest, and makes its jobs and sessions fit for use again. Brings back the uploaded files that are missing, as far as the
/// backup has them whole. What is in use is not touched.
///
/// `database` is the name of the new one; without it the name tells of the backup. Nothing is left when it fails. What is left
/// when it is interrupted is marked as unfinished: it cannot be switched to, and the next restore of that name drops it. One that
/// is killed as it begins may leave an empty database `mdl_restoring_…`.
pub async fn restore(
    app: &App,
    id: BackupId,
    place: Option<&str>,
    database: Option<&str>,
    progress: &Progress,
) -> Result<Restored> {
    let config = &app.config.backup;
    let mut target = restore_url(config)?;
    let (vault, manifest) = find(app, id, place).await?;
    let lacks_migrations = check_schema(&manifest)?;
    let keys = Identities::load(config.identity_file.as_deref())?;
    // Read once for nothing, so that a damaged backup or a missing key is known before anything is made.
    progress.begin(Phase::Checking, Some(manifest.database.plain.bytes));
    let opened = Opened::new(&vault, &manifest.database, &manifest.recipients, &keys).await?;
    opened.check(|bytes| progress.advance(bytes as u64)).await?;
    let plan = files::plan(app, &vault, &manifest, |_| true).await?;

    let database = match database {
        Some(name) => name.to_owned(),
        None => format!("mdl_restored_{}_{:06x}", manifest.started_at.format("%Y%m%d_%H%M%S"), id.0.as_u128() & 0xff_ffff),
    };
    let admin = db::connect_as(target.clone()).await?;
    // One after the other, until this connection ends: handing a database over gives away what mdl_restore owns in others, too.
    admin.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    create(&admin, &database, &in_use(app)?).await?;
    target.dbname(&database);
    let filled = async {
        prepare(&target).await?;
        pour(config, &vault, &manifest, &keys, (&target, Ownership::AsDumped), progress).await?;
        progress.begin(Phase::Comparing, None);
        let client = db::connect_as(target.clone()).await?;
        hand_over_contents(&client).await?;
        let differences = manifest.inventory.differences(&inventory::take(&client).await?);
        if !differences.is_empty() {
            return Err(refused(format!("The backup {id} does not restore to what was backed up: {}", differences.join("; "))));
        }
        settle(&client).await?;
        hand_over(&admin, &database).await
    };
    if let Err(error) = filled.await {
        if let Err(error) = drop_database(&admin, &database).await {
            warn!(error = causes(&error), database, "Could not drop the database of a restore that failed");
        }
        return Err(error);
    }
    drop(admin);
    // From now on the programs may be in it.
    let files = files::restore(app, &vault, plan, &keys, progress).await;
    info!(backup.id = %id, database, "Restored a backup");
    progress.begin(Phase::Finished, None);
    Ok(Restored { manifest, database, lacks_migrations, files })
}

/// The name of the database that the programs use.
fn in_use(app: &App) -> Result<String> {
    let url = postgres_address("DATABASE_URL", &app.config.database.url)?;
    Ok(url.get_dbname().ok_or_else(|| refused("DATABASE_URL names no database"))?.to_owned())
}

fn restore_url(config: &BackupConfig) -> Result<Config> {
    let url = config.restore_url.as_deref();
    let url = url.ok_or_else(|| refused("Set MDL_RESTORE_DATABASE_URL: backups are brought back as the role mdl_restore"))?;
    postgres_address("MDL_RESTORE_DATABASE_URL", url)
}

/// Whether the backup lacks migrations that this program has. An error if it has some that this program does not know.
pub fn check_schema(manifest: &Manifest) -> Result<bool> {
    let known: Vec<Box<dyn Migration<diesel::pg::Pg>>> =
        MIGRATIONS.migrations().map_err(|error: BoxError| Error::internal(error))?;
    let known: Vec<String> = known.iter().map(|migration| migration.name().version().to_string()).collect();
    if let Some(newer) = manifest.migrations.iter().find(|version| !known.contains(version)) {
        return Err(refused(format!(
            "The backup {} has a newer schema than this program (migration {newer}, of MDL {}): restore it with that version",
            manifest.id, manifest.program_version
        )));
    }
    Ok(known.iter().any(|version| !manifest.migrations.contains(version)))
}

/// What was under way when the backup was made is under way no more.
///
/// - Nobody holds a lease, and Redis knows no id: jobs wait for their turn again, with their attempts as they were.
/// - Events are forgotten: those that had no place in their stream yet got one a moment after the backup, and were told. Each
///   stream goes on far beyond what it can have come to since, and whoever followed it is told that its cursor is too old.
/// - Deliveries of webhooks that were due are not sent, since they were sent after the backup; they can be sent again by hand.
/// - Backups that could still be published when this one was made, itself among them, are forgotten, and their jobs make new
///   ones: of what became of them this database knows nothing, and [`super::prune`] may not take them for backups that died.
async fn settle(client: &Client) -> Result<()> {
    client
        .batch_execute(&format!(
            "BEGIN;
             UPDATE public.jobs SET state = 'waiting', lease_until = NULL, worker = NULL, dispatched_at = NULL, lease_token = lease_token + 1
                 WHERE state IN ('dispatched', 'running');
             DELETE FROM public.outbox;
             DELETE FROM public.outbox_commits;
             UPDATE public.event_streams SET last_sequence = last_sequence + {STREAM_GAP}, kept_from = last_sequence + {STREAM_GAP} + 1;
             DO $$ BEGIN
                 IF to_regclass('public.webhook_deliveries') IS NOT NULL THEN
                     UPDATE public.webhook_deliveries SET state = 'discarded', finished_at = now() WHERE state = 'pending';
                 END IF;
             END $$;
             DELETE FROM public.backups WHERE stored_bytes IS NULL AND (state IN ('queued', 'running') OR EXISTS
                 (SELECT FROM public.jobs WHERE jobs.kind = 'back_up' AND jobs.payload ->> 'id' = backups.id::text));
             UPDATE public.jobs SET payload = payload - 'id' WHERE kind = 'back_up';
             UPDATE public.restore_drills SET state = 'failed', finished_at = now(), error = 'The database was restored meanwhile'
                 WHERE state = 'running';
             COMMIT"
        ))
        .await?;
    Ok(())
}
