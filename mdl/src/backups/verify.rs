//! Restoring a backup on trial: it is believed because it was restored, and for no other reason.

use std::collections::HashSet;
use std::time::Instant;

use chrono::Utc;
use tracing::{info, warn};
use uuid::Uuid;

use super::manifest::{Manifest, Proof};
use super::progress::{Phase, Progress};
use super::scratch::Scratch;
use super::seal::Identities;
use super::vault::{self, Vault};
use super::{files, inventory, refused, store, watch};
use crate::app::App;
use crate::error::{Error, Result};
use crate::ids::{BackupId, DrillId};
use crate::instruments;

/// A backup that was restored on trial, and was the same as what was backed up.
#[derive(Debug, Clone)]
pub struct Verified {
    pub manifest: Manifest,
    /// The vault that it was read from.
    pub place: String,
    pub proof: Proof,
}

/// What a trial restore found.
#[derive(Debug, thiserror::Error)]
#[error("The backup {id} does not restore to what was backed up: {}", differences.join("; "))]
struct Different {
    id: BackupId,
    differences: Vec<String>,
}

/// Restores a backup into a scratch database as the role mdl_scratch, compares what is there with the manifest, and drops it. Reads the
/// uploaded files that no verified backup has had before; all of them if it is `thorough`.
///
/// It reads the backup from the vault of this name, or from the first that has it. The result is recorded in the vault, and, if the
/// database in use answers, there as well.
pub async fn verify(
    app: &App,
    id: BackupId,
    place: Option<&str>,
    thorough: bool,
    requested_by: Option<Uuid>,
    progress: &Progress,
) -> Result<Verified> {
    let (vault, manifest) = match find(app, id, place).await {
        Ok(found) => found,
        // Whoever names what is not there hears of it.
        Err(error @ Error::NotFound { .. }) => return Err(error),
        Err(error) => {
            watch::not_verified(app, Some(id), place, &error).await;
            return Err(error);
        }
    };
    let drill = DrillId::new();
    let recorded = store::start_drill(app, drill, &manifest, &vault, requested_by).await;
    if let Err(error) = &recorded {
        warn!(error = %error, "The database does not answer: the result is recorded with the backup alone");
    }
    let telling = recorded.is_ok().then(|| store::tell(app, store::Of::Drill(drill), progress));
    let start = Instant::now();
    let result = restore_and_compare(app, &vault, &manifest, thorough, progress).await;
    drop(telling);
    let restore_seconds = start.elapsed().as_secs_f64();
    match result {
        Ok(server_version) => {
            let proof = Proof { verified_at: Utc::now(), server_version, restore_seconds };
            for vault in with_the_same(app, &manifest).await? {
                proof.write(&vault, id).await?;
            }
            metrics::counter!(instruments::BACKUPS, "outcome" => "verified").increment(1);
            metrics::histogram!(instruments::BACKUP_SECONDS, "part" => "verify").record(restore_seconds);
            if recorded.is_ok() {
                watch::verified(app, drill, &manifest, &proof).await?;
            }
            info!(backup.id = %id, place = vault.name(), "A backup restores, after {restore_seconds:.1} s");
            progress.begin(Phase::Finished, None);
            Ok(Verified { manifest, place: vault.name().to_owned(), proof })
        }
        Err(error) => {
            metrics::counter!(instruments::BACKUPS, "outcome" => "verify_failed").increment(1);
            let differences = differences(&error);
            // Damaged or different: whatever was said before, it is not good.
            if matches!(error, Error::Invalid(_)) || !differences.is_empty() {
                vault.delete(&vault::key(id, vault::VERIFIED)).await?;
            }
            if recorded.is_ok()
                && let Err(unrecorded) = watch::verify_failed(app, drill, id, &error, differences).await
            {
                warn!(error = %unrecorded, "Could not record that a trial restore failed");
            }
            Err(error)
        }
    }
}

/// The backup in the vault of this name, or in the first vault that has it.
pub async fn find(app: &App, id: BackupId, place: Option<&str>) -> Result<(Vault, Manifest)> {
    let config = &app.config.backup;
    let vaults = Vault::all(config)?;
    if let Some(place) = place
        && !vaults.iter().any(|vault| vault.name() == place)
    {
        let names: Vec<_> = vaults.iter().map(Vault::name).collect();
        return Err(refused(format!("There is no place {place} for backups; there is {}", names.join(", "))));
    }
    let mut missing = Error::not_found("backup", id);
    for vault in vaults.into_iter().filter(|vault| place.is_none_or(|place| vault.name() == place)) {
        match Manifest::read(&vault, id).await {
            Ok(manifest) => return Ok((vault, manifest)),
            Err(Error::NotFound { .. }) => {}
            // Another place may have it whole.
            Err(error) => missing = error,
        }
    }
    Err(missing)
}

/// The server's version, if the backup restores to what it says.
async fn restore_and_compare(
    app: &App,
    vault: &Vault,
    manifest: &Manifest,
    thorough: bool,
    progress: &Progress,
) -> Result<String> {
    let config = &app.config.backup;
    let keys = Identities::load(config.identity_file.as_deref())?;
    let scratch = Scratch::create(config).await?;
    scratch.fill(config, vault, manifest, &keys, progress).await?;

    progress.begin(Phase::Comparing, None);
    let client = scratch.connect().await?;
    let found = inventory::take(&client).await?;
    let version: String = client.query_one("SELECT current_setting('server_version')", &[]).await?.get(0);
    drop(client);
    scratch.remove().await?;
    let differences = manifest.inventory.differences(&found);
    if !differences.is_empty() {
        return Err(Error::internal(Different { id: manifest.id, differences }));
    }

    let mut entries = manifest.file_entries(vault).await?;
    if !thorough {
        let proven = proven_files(vault, manifest.id).await?;
        entries.retain(|entry| !proven.contains(&entry.object.key));
    }
    files::check(vault, &entries, &keys, progress).await?;
    Ok(version)
}

/// The objects that the newest other verified backup has.
async fn proven_files(vault: &Vault, but: BackupId) -> Result<HashSet<String>> {
    let newest = vault.folders().await?.into_iter().rev().find(|folder| folder.verified && folder.published && folder.id != but);
    let Some(folder) = newest else { return Ok(HashSet::new()) };
    match Manifest::read(vault, folder.id).await {
        Ok(manifest) => Ok(manifest.file_entries(vault).await?.into_iter().map(|entry| entry.object.key).collect()),
        // It proves nothing any more.
        Err(Error::Invalid(_)) => Ok(HashSet::new()),
        Err(error) => Err(error),
    }
}

/// The vaults that have the same bytes. One that does not answer learns of it by the next trial restore.
async fn with_the_same(app: &App, manifest: &Manifest) -> Result<Vec<Vault>> {
    let mut same = Vec::new();
    for vault in Vault::all(&app.config.backup)? {
        match Manifest::read(&vault, manifest.id).await {
            Ok(there) if there.database == manifest.database => same.push(vault),
            Ok(_) | Err(Error::NotFound { .. }) => {}
            Err(error) => warn!(%error, place = vault.name(), "Could not note in another place that a backup is good"),
        }
    }
    Ok(same)
}

fn differences(error: &Error) -> Vec<String> {
    let Error::Internal(source) = error else { return Vec::new() };
    source.downcast_ref::<Different>().map(|different| different.differences.clone()).unwrap_or_default()
}
