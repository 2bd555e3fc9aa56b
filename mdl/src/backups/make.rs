//! Making a backup.

use std::collections::HashSet;
use std::time::Instant;

use chrono::Utc;
use futures::StreamExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::inventory::{self, Inventory};
use super::manifest::{self, FileEntry, Manifest};
use super::progress::{Phase, Progress};
use super::seal::{Sealed, Sealer, Tally};
use super::tools::Dump;
use super::vault::{self, Upload, Vault};
use super::{files, refused, store, watch};
use crate::app::App;
use crate::config::{BackupConfig, postgres_address};
use crate::db;
use crate::error::{Code, Error, Result, causes};
use crate::ids::BackupId;
use crate::instruments;

/// One backup or clean-up at a time: any number that nobody else locks in this database.
const LOCK: i64 = 0x6d64_6c62;

/// Bytes read from `pg_dump` at once.
const PIECE: usize = 256 * 1024;

/// Makes a backup of the database and of the uploaded files, and publishes it; copies it to the second place, if there is one. It
/// is not known to be good before it is [verified](super::verify()).
///
/// Nothing is published when it fails, and operators are told, however early it failed; but not that it [has to wait](is_busy)
/// for another. When this future is dropped, or the program dies, the next one removes what is left; a dump that was whole
/// already, [`super::prune`] a day later. What was sent of an unfinished upload to a bucket is for a rule of the bucket to
/// remove.
pub async fn back_up(app: &App, id: BackupId, requested_by: Option<Uuid>, progress: &Progress) -> Result<Manifest> {
    let made = alone(app, id, requested_by, progress).await;
    end(app, Some(id), &made, progress).await;
    made
}

/// Says that it is finished, or tells operators that it failed.
async fn end<T>(app: &App, id: Option<BackupId>, made: &Result<T>, progress: &Progress) {
    match made {
        Ok(_) => progress.begin(Phase::Finished, None),
        Err(error) if is_busy(error) => {}
        Err(error) => watch::backup_failed(app, id, error).await,
    }
}

/// Makes it while nobody else makes one.
async fn alone(app: &App, id: BackupId, requested_by: Option<Uuid>, progress: &Progress) -> Result<Manifest> {
    let config = &app.config.backup;
    let source = settings(config)?;
    let vaults = Vault::all(config)?;
    let client = lock(&source).await?;
    let expected = store::start(app, id, requested_by, !config.recipients.is_empty()).await?;
    let _telling = store::tell(app, store::Of::Backup(id), progress);
    make(app, id, &vaults, &source, &client, expected, progress).await
}

/// What the settings must say before there are backups.
fn settings(config: &BackupConfig) -> Result<Config> {
    let Some(url) = &config.database_url else {
        return Err(refused("Set MDL_BACKUP_DATABASE_URL: backups are made as the role mdl_backup"));
    };
    if config.recipients.is_empty() && !config.unencrypted {
        return Err(refused(
            "Set MDL_BACKUP_RECIPIENTS to whom backups are encrypted for (mdl-worker backup keygen makes a key), or \
             MDL_BACKUP_UNENCRYPTED=yes to leave them open",
        ));
    }
    postgres_address("MDL_BACKUP_DATABASE_URL", url)
}

/// A connection that keeps others from backing up, and from removing backups, until it is dropped. An error that [is one of being
/// busy](is_busy) while somebody else has the lock.
pub async fn lock(source: &Config) -> Result<Client> {
    let client = db::connect_as(source.clone()).await?;
    // The session of a process that has just ended may have it for a moment longer.
    client.batch_execute("SET lock_timeout = '2s'").await?;
    match client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await {
        Ok(_) => {
            client.batch_execute("RESET lock_timeout").await?;
            Ok(client)
        }
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Err(Error::invalid(
            "",
            Code::Taken,
            "Another backup is being made, or old ones are being removed; try again when that is done",
        )),
        Err(error) => Err(error.into()),
    }
}

/// Whether an error says that another backup is being made, or old ones are being removed: nothing is wrong, and it is to be
/// tried again when that is done.
pub fn is_busy(error: &Error) -> bool {
    matches!(error, Error::Invalid(problems) if problems.iter().any(|problem| problem.code == Code::Taken))
}

/// Stores the uploaded files that no backup has yet, in all places: the next backup lists them, and a restore brings them back
/// before that. Operators are told of failures as [`back_up`] tells of them.
pub async fn back_up_files(app: &App, progress: &Progress) -> Result<()> {
    let stored = store_files(app, progress).await;
    end(app, None, &stored, progress).await;
    stored
}

async fn store_files(app: &App, progress: &Progress) -> Result<()> {
    let config = &app.config.backup;
    let _alone = lock(&settings(config)?).await?;
    let vaults = Vault::all(config)?;
    let (vault, others) = vaults.split_first().ok_or_else(|| Error::internal("there is no place for backups"))?;
    let files = files::store(app, vault::LATEST.to_owned(), vault, &config.recipients, progress).await?;
    let entries = files::latest(vault).await?;
    for other in others {
        copy_objects(&entries, &[&files.list], vault, other, progress).await?;
    }
    info!("Stored the uploaded files: there are {}, with {} bytes", files.count, files.bytes);
    Ok(())
}

async fn make(
    app: &App,
    id: BackupId,
    vaults: &[Vault],
    source: &Config,
    client: &Client,
    expected: Option<u64>,
    progress: &Progress,
) -> Result<Manifest> {
    let config = &app.config.backup;
    let (vault, others) = vaults.split_first().ok_or_else(|| Error::internal("there is no place for backups"))?;
    tidy(vault).await?;
    store::abandon(app, Some(id)).await?;

    let (started_at, start) = (Utc::now(), Instant::now());
    progress.begin(Phase::Dumping, expected);
    let dumped = dump(config, id, vault, source, client, progress).await;
    // Not one of the files of a backup without its dump is of use.
    let (database, inventory, facts) = match dumped {
        Ok(dumped) => dumped,
        Err(error) => return Err(give_up(vault, id, error).await),
    };
    let dump_seconds = start.elapsed().as_secs_f64();
    metrics::histogram!(instruments::BACKUP_SECONDS, "part" => "dump").record(dump_seconds);

    let files = match files::store(app, vault::key(id, "files.json"), vault, &config.recipients, progress).await {
        Ok(files) => files,
        Err(error) => return Err(give_up(vault, id, error).await),
    };
    let manifest = Manifest {
        format: Manifest::format(),
        id,
        started_at,
        finished_at: Utc::now(),
        dump_seconds,
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        server_version: facts.server_version,
        server_version_number: facts.server_version_number,
        migrations: facts.migrations,
        recipients: config.recipients.clone(),
        database,
        inventory,
        files,
    };
    if let Err(error) = manifest.write(vault).await {
        return Err(give_up(vault, id, error).await);
    }
    metrics::counter!(instruments::BACKUPS, "outcome" => "published").increment(1);
    let mut places = vec![vault.name().to_owned()];
    for other in others {
        match copy(&manifest, vault, other, progress).await {
            Ok(()) => places.push(other.name().to_owned()),
            // The backup itself is good; that it has no copy is an alarm of its own.
            Err(error) => watch::copy_failed(app, id, other, &error).await?,
        }
    }
    watch::published(app, &manifest, &places).await?;
    Ok(manifest)
}

async fn tidy(vault: &Vault) -> Result<()> {
    for left in vault.tidy().await? {
        info!(backup.id = %left, place = vault.name(), "Removed what an unfinished backup had left");
    }
    Ok(())
}

async fn give_up(vault: &Vault, id: BackupId, error: Error) -> Error {
    if let Err(error) = vault.remove(id).await {
        warn!(
            error = causes(&error),
            backup.id = %id,
            place = vault.name(),
            "Could not remove what a failed backup left; the next one will or, if its dump was whole, prune_backups a day later"
        );
    }
    error
}

/// What is told of the database itself.
struct Facts {
    server_version: String,
    server_version_number: i32,
    migrations: Vec<String>,
}

/// Dumps and takes the inventory, both in one snapshot.
async fn dump(
    config: &BackupConfig,
    id: BackupId,
    vault: &Vault,
    source: &Config,
    client: &Client,
    progress: &Progress,
) -> Result<(Sealed, Inventory, Facts)> {
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let snapshot: String = client.query_one("SELECT pg_export_snapshot()", &[]).await?.get(0);
    let facts =
        client.query_one("SELECT current_setting('server_version'), current_setting('server_version_num')::integer", &[]).await?;
    let migrations = client.query("SELECT version::text FROM public.__diesel_schema_migrations ORDER BY 1", &[]).await?;
    let facts = Facts {
        server_version: facts.get(0),
        server_version_number: facts.get(1),
        migrations: migrations.iter().map(|row| row.get(0)).collect(),
    };

    // If either fails, the other need not go on: the dump gives up in its own way, the inventory ends with its connection.
    let stop = CancellationToken::new();
    let dumping = async {
        let dumped = store_dump(config, id, vault, source, &snapshot, progress, &stop).await;
        if dumped.is_err() {
            stop.cancel();
        }
        dumped
    };
    let looking = async {
        let inventory = stop.run_until_cancelled(inventory::take(client)).await;
        if !matches!(inventory, Some(Ok(_))) {
            stop.cancel();
        }
        inventory
    };
    let (dumped, inventory) = futures::join!(dumping, looking);
    // The dump's own reason, unless it was told to stop.
    match (dumped, inventory) {
        (Ok(database), Some(Ok(inventory))) => {
            client.batch_execute("COMMIT").await?;
            Ok((database, inventory, facts))
        }
        (_, Some(Err(error))) | (Err(error), _) => Err(error),
        (Ok(_), None) => Err(Error::internal("the inventory was stopped")),
    }
}

/// The dump, from `pg_dump` through the sealer into the vault.
async fn store_dump(
    config: &BackupConfig,
    id: BackupId,
    vault: &Vault,
    source: &Config,
    snapshot: &str,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Sealed> {
    let end = if config.recipients.is_empty() { "" } else { ".age" };
    let key = vault::key(id, &format!("{}{end}", vault::DUMP));
    let mut dump = Dump::start(config, source, snapshot).await?;
    let mut upload = vault.upload(&key).await?;
    let mut sealer = Sealer::new(&config.recipients)?;
    let mut plain = Tally::default();
    let passed = async {
        let mut pieces = ReaderStream::with_capacity(&mut dump.output, PIECE);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(Error::internal)?;
            plain.add(&piece);
            progress.advance(piece.len() as u64);
            push(&mut upload, sealer.push(piece)?).await?;
        }
        push(&mut upload, sealer.finish()?).await
    };
    let passed = match stop.run_until_cancelled(passed).await {
        Some(Ok(())) => dump.finish().await,
        Some(Err(error)) => Err(error),
        None => Err(Error::internal("the dump was stopped")),
    };
    match passed {
        Ok(()) => Ok(Sealed { key, plain: plain.digest(), stored: upload.finish().await? }),
        Err(error) => {
            upload.abort().await;
            Err(error)
        }
    }
}

async fn push(upload: &mut Upload, bytes: bytes::Bytes) -> Result<()> {
    if bytes.is_empty() { Ok(()) } else { upload.push(bytes).await }
}

/// Copies a published backup to another vault: its files, its dump, and its manifest last.
async fn copy(manifest: &Manifest, from: &Vault, to: &Vault, progress: &Progress) -> Result<()> {
    let start = Instant::now();
    let copied = async {
        tidy(to).await?;
        let entries = manifest.file_entries(from).await?;
        copy_objects(&entries, &[&manifest.files.list, &manifest.database], from, to, progress).await?;
        manifest.write(to).await
    };
    match copied.await {
        Ok(()) => {
            metrics::counter!(instruments::BACKUPS, "outcome" => "copied").increment(1);
            metrics::histogram!(instruments::BACKUP_SECONDS, "part" => "copy").record(start.elapsed().as_secs_f64());
            Ok(())
        }
        Err(error) => Err(give_up(to, manifest.id, error).await),
    }
}

/// Copies the contents of these files that the other vault has not, as they are sealed, and then these objects.
async fn copy_objects(files: &[FileEntry], last: &[&Sealed], from: &Vault, to: &Vault, progress: &Progress) -> Result<()> {
    let there: HashSet<String> = to.list("files").await?.into_iter().map(|(key, _)| key).collect();
    let mut objects: Vec<&Sealed> =
        files.iter().map(|entry| &entry.object).filter(|object| !there.contains(&object.key)).collect();
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    objects.dedup_by(|a, b| a.key == b.key);
    objects.extend(last);
    progress.begin(Phase::Copying, Some(objects.iter().map(|object| object.stored.bytes).sum()));
    for object in objects {
        copy_object(object, from, to, progress).await?;
    }
    Ok(())
}

async fn copy_object(object: &Sealed, from: &Vault, to: &Vault, progress: &Progress) -> Result<()> {
    let mut pieces = from.read(&object.key).await?;
    let mut upload = to.upload(&object.key).await?;
    let passed = async {
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| Error::unavailable("the place of the backups", error))?;
            progress.advance(piece.len() as u64);
            push(&mut upload, piece).await?;
        }
        Ok(())
    };
    if let Err(error) = passed.await {
        upload.abort().await;
        return Err(error);
    }
    // Before it is there: a copy of something damaged must not take the name of a good one.
    if upload.digest() != object.stored {
        upload.abort().await;
        return Err(refused(format!("The backup is damaged: {} in {} is not what was stored", object.key, from.name())));
    }
    upload.finish().await?;
    Ok(())
}

/// The newest backup of a vault that can be read, for what it has of the same files.
pub async fn newest(vault: &Vault) -> Result<Option<Manifest>> {
    Ok(manifest::all(vault).await?.into_values().rev().find_map(Result::ok))
}
