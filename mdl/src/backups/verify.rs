//! Restoring a backup on trial: it is believed because it was restored, or is byte for byte what was, and for no other reason.

use std::collections::HashSet;
use std::time::Instant;

use chrono::Utc;
use tracing::{info, warn};
use uuid::Uuid;

use super::manifest::{Manifest, Proof};
use super::progress::{Phase, Progress};
use super::scratch::Scratch;
use super::seal::{Identities, check_stored, is_damage, is_hindrance};
use super::vault::{self, Vault};
use super::{files, inventory, store, unequipped, watch};
use crate::app::App;
use crate::config::BackupConfig;
use crate::error::{Code, Error, Result, causes};
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

/// Nights in which each uploaded file is read again, if there is a backup each night.
const ROUND: u64 = 7;

/// Restores a backup into a scratch database as the role mdl_scratch, compares what is there with the manifest, and drops it.
/// Reads the uploaded files that no verified backup has had before, and a part of the others, another each night; all of them if
/// it is `thorough`.
///
/// It reads the backup from the vault of this name. Without a name it is restored from the first vault that has it, and what the
/// others have of it is read and held against the hashes of the manifest. The result is recorded in each of these vaults, and, if
/// the database in use answers, there as well. It is an error if one of them is damaged; those that are good are known to be.
///
/// An error that [says nothing about the backup](is_hindrance) leaves what is known of it as it was, and is told to nobody but the
/// caller.
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
        Err(error) => {
            // Whoever names what is not there is the one to hear of it.
            if is_damage(&error) {
                watch::not_verified(app, Some(id), place, &error).await;
            }
            return Err(error);
        }
    };
    let equipment = equip(&app.config.backup).await?;
    let drill = DrillId::new();
    let recorded = store::start_drill(app, drill, &manifest, &vault, requested_by).await;
    if let Err(error) = &recorded {
        warn!(error = causes(error), "The database does not answer: the result is recorded with the backup alone");
    }
    let telling = recorded.is_ok().then(|| store::tell(app, store::Of::Drill(drill), progress));
    let start = Instant::now();
    let result = prove(app, &vault, &manifest, equipment, thorough, progress, start).await;
    let copies = match &result {
        Ok(proof) if place.is_none() => prove_copies(app, &vault, &manifest, proof, thorough, progress).await,
        _ => Ok(()),
    };
    drop(telling);
    match result {
        Ok(proof) => {
            let restore_seconds = proof.restore_seconds;
            metrics::counter!(instruments::BACKUPS, "outcome" => "verified").increment(1);
            metrics::histogram!(instruments::BACKUP_SECONDS, "part" => "verify").record(restore_seconds);
            if recorded.is_ok() {
                watch::verified(app, drill, &manifest, &proof).await?;
            }
            info!(backup.id = %id, place = vault.name(), "A backup restores, after {restore_seconds:.1} s");
            progress.begin(Phase::Finished, None);
            copies.map(|()| Verified { manifest, place: vault.name().to_owned(), proof })
        }
        Err(error) => {
            if let Err(unrecorded) = failed(app, &vault, id, recorded.is_ok().then_some(drill), &error).await {
                warn!(error = causes(&unrecorded), "Could not record that a trial restore failed");
            }
            Err(error)
        }
    }
}

/// Records that a trial restore failed: with the backup, and in its row if it has one.
async fn failed(app: &App, vault: &Vault, id: BackupId, drill: Option<DrillId>, error: &Error) -> Result<()> {
    if is_hindrance(error) {
        let Some(drill) = drill else { return Ok(()) };
        return store::give_up(app, store::Of::Drill(drill), &watch::sentence(error)).await;
    }
    metrics::counter!(instruments::BACKUPS, "outcome" => "verify_failed").increment(1);
    let differences = differences(error);
    // Damaged or different: whatever was said before, it is not good.
    let is_bad = is_damage(error) || !differences.is_empty();
    if is_bad {
        doubt(vault, id).await;
    }
    match drill {
        Some(drill) => watch::verify_failed(app, drill, id, error, &differences, is_bad).await,
        None => Ok(()),
    }
}

/// What a trial restore takes besides the backup.
struct Equipment {
    keys: Identities,
    scratch: Scratch,
}

/// Gets it. Whatever is wrong with it says nothing about the backup.
async fn equip(config: &BackupConfig) -> Result<Equipment> {
    let got = async {
        let keys = Identities::load(config.identity_file.as_deref())?;
        Ok(Equipment { keys, scratch: Scratch::create(config).await? })
    };
    got.await.map_err(|error| match error {
        Error::Invalid(_) => unequipped(error.to_string()),
        Error::Internal(source) => Error::unavailable("the server for trial restores", source),
        error => error,
    })
}

/// The backup in the vault at this address, or in the first vault of the settings that has it.
pub async fn find(app: &App, id: BackupId, place: Option<&str>) -> Result<(Vault, Manifest)> {
    let config = &app.config.backup;
    if let Some(place) = place {
        let vault = Vault::at(place, config)?;
        let manifest = read(&vault, id).await?;
        return Ok((vault, manifest));
    }
    let mut missing = Error::not_found("backup", id);
    for (_, vault) in Vault::found(config) {
        let found = match vault {
            Ok(vault) => read(&vault, id).await.map(|manifest| (vault, manifest)),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => return Ok(found),
            Err(Error::NotFound { .. }) => {}
            // Another place may have it whole.
            Err(error) => missing = error,
        }
    }
    Err(missing)
}

/// Of a backup in a vault; an error that says so if the backup is there without it.
async fn read(vault: &Vault, id: BackupId) -> Result<Manifest> {
    match Manifest::read(vault, id).await {
        Err(Error::NotFound { .. }) if vault.folder(id).await?.is_some() => Err(Error::invalid(
            "",
            Code::NotFound,
            format!(
                "The backup {id} has no {} in {}: it was not finished, or the manifest was removed. Bring the manifest back from \
                 another place, or take another backup",
                vault::MANIFEST,
                vault.name()
            ),
        )),
        manifest => manifest,
    }
}

/// Restores it and writes the proof.
async fn prove(
    app: &App,
    vault: &Vault,
    manifest: &Manifest,
    equipment: Equipment,
    thorough: bool,
    progress: &Progress,
    start: Instant,
) -> Result<Proof> {
    let server_version = restore_and_compare(app, vault, manifest, equipment, thorough, progress).await?;
    let proof = Proof { verified_at: Utc::now(), server_version, restore_seconds: start.elapsed().as_secs_f64() };
    proof.write(vault, manifest.id).await?;
    Ok(proof)
}

/// Reads what the other vaults have of a backup that restores, and writes the proof where it is the same. An error if it is not
/// somewhere. A vault that does not answer is for the next trial restore.
async fn prove_copies(
    app: &App,
    restored: &Vault,
    manifest: &Manifest,
    proof: &Proof,
    thorough: bool,
    progress: &Progress,
) -> Result<()> {
    let mut damage = None;
    for (place, vault) in Vault::found(&app.config.backup).into_iter().filter(|(place, _)| place != restored.name()) {
        let away = |error: &Error| {
            warn!(error = causes(error), place, "Could not look at the copy of a backup in another place");
        };
        let vault = match vault {
            Ok(vault) => vault,
            Err(error) => {
                away(&error);
                continue;
            }
        };
        match prove_copy(app, &vault, manifest, proof, thorough, progress).await {
            Ok(()) => {}
            Err(error) if is_hindrance(&error) => away(&error),
            Err(error) => {
                watch::not_verified(app, Some(manifest.id), Some(&place), &error).await;
                doubt(&vault, manifest.id).await;
                damage.get_or_insert(error);
            }
        }
    }
    damage.map_or(Ok(()), Err)
}

async fn prove_copy(
    app: &App,
    vault: &Vault,
    manifest: &Manifest,
    proof: &Proof,
    thorough: bool,
    progress: &Progress,
) -> Result<()> {
    match Manifest::read(vault, manifest.id).await {
        Ok(there) if there == *manifest => {}
        // Another backup than this, or none: its copy failed, or it was removed.
        Ok(_) | Err(Error::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(error),
    }
    progress.begin(Phase::Checking, Some(manifest.database.stored.bytes));
    check_stored(vault, &manifest.database, |bytes| progress.advance(bytes as u64)).await?;
    let keys = Identities::load(app.config.backup.identity_file.as_deref())?;
    check_files(app, vault, manifest, thorough, &keys, progress).await?;
    proof.write(vault, manifest.id).await
}

/// Takes back that a backup is good.
async fn doubt(vault: &Vault, id: BackupId) {
    if let Err(error) = vault.delete(&vault::key(id, vault::VERIFIED)).await {
        warn!(error = causes(&error), backup.id = %id, place = vault.name(), "Could not take back that a backup is good");
    }
}

/// The server's version, if the backup restores to what it says.
async fn restore_and_compare(
    app: &App,
    vault: &Vault,
    manifest: &Manifest,
    Equipment { keys, scratch }: Equipment,
    thorough: bool,
    progress: &Progress,
) -> Result<String> {
    scratch.fill(&app.config.backup, vault, manifest, &keys, progress).await?;

    progress.begin(Phase::Comparing, None);
    let client = scratch.connect().await?;
    let found = inventory::take(&client).await?;
    let version: String = client.query_one("SELECT current_setting('server_version')", &[]).await?.get(0);
    drop(client);
    scratch.remove().await;
    let differences = manifest.inventory.differences(&found);
    if !differences.is_empty() {
        return Err(Error::internal(Different { id: manifest.id, differences }));
    }

    check_files(app, vault, manifest, thorough, &keys, progress).await?;
    Ok(version)
}

/// Reads the uploaded files that are new since the newest other backup that is known to be good in this vault, and those of the
/// others whose night it is: the last proof was of what was there then.
async fn check_files(
    app: &App,
    vault: &Vault,
    manifest: &Manifest,
    thorough: bool,
    keys: &Identities,
    progress: &Progress,
) -> Result<()> {
    let mut entries = manifest.file_entries(vault).await?;
    if !thorough {
        let proven = proven_files(vault, manifest.id).await?;
        let night = u64::try_from(Utc::now().timestamp() / 86_400).unwrap_or(0);
        entries.retain(|entry| !proven.contains(&entry.object.key) || is_its_night(&entry.object.key, night));
    }
    files::check(app, vault, &entries, keys, progress).await
}

/// Whether an object is read again in this night, counted from 1970: in one of each [`ROUND`].
fn is_its_night(key: &str, night: u64) -> bool {
    let number = key.bytes().fold(0u64, |number, byte| number.wrapping_mul(31).wrapping_add(byte.into()));
    number % ROUND == night % ROUND
}

/// The objects that the newest other verified backup has.
async fn proven_files(vault: &Vault, but: BackupId) -> Result<HashSet<String>> {
    let newest = vault.folders().await?.into_iter().rev().find(|folder| folder.verified && folder.published && folder.id != but);
    let Some(folder) = newest else { return Ok(HashSet::new()) };
    let entries = async { Manifest::read(vault, folder.id).await?.file_entries(vault).await };
    match entries.await {
        Ok(entries) => Ok(entries.into_iter().map(|entry| entry.object.key).collect()),
        // It proves nothing any more.
        Err(Error::Invalid(_)) => Ok(HashSet::new()),
        Err(error) => Err(error),
    }
}

fn differences(error: &Error) -> Vec<String> {
    let Error::Internal(source) = error else { return Vec::new() };
    source.downcast_ref::<Different>().map(|different| different.differences.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_has_its_night() {
        for key in ["files/01ba4719c80b6fe9", "files/e3b0c44298fc1c14-9f86d081.age"] {
            let nights: Vec<_> = (20_000..20_014).filter(|night| is_its_night(key, *night)).collect();
            assert_eq!(nights.len(), 2, "{key}");
            assert_eq!(nights[1] - nights[0], ROUND);
        }
    }
}
