//! Removing what is old, and what backups left that died. In each place some verified backups stay however old they are, so that
//! there is always one to restore.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use tracing::{info, warn};

use super::make::lock;
use super::manifest::{self, Manifest};
use super::vault::{Vault, made_at};
use super::{files, leftovers, refused, store};
use crate::app::App;
use crate::config::postgres_address;
use crate::error::{Error, Result, causes};
use crate::ids::BackupId;
use crate::tenants::SYSTEM;

/// What was removed from a place, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    pub place: String,
    pub backups: Vec<BackupId>,
    /// Objects of uploaded files that no backup has any more.
    pub files: u64,
    /// Backups that died when their dump was whole, and never had a manifest.
    pub leftovers: Vec<BackupId>,
    /// Halves of files that died backups left.
    pub temporary_files: u64,
}

/// Removes the backups that are older than their place keeps them, but for the newest verified ones, what died ones left more
/// than a day ago, and the files that no backup has any more. With `dry_run` it only says what it would remove.
pub async fn prune(app: &App, dry_run: bool) -> Result<Vec<Pruned>> {
    let config = &app.config.backup;
    let url = config.database_url.as_deref();
    let url = url.ok_or_else(|| refused("Set MDL_BACKUP_DATABASE_URL: nobody may make a backup while others are removed"))?;
    let _alone = lock(&postgres_address("MDL_BACKUP_DATABASE_URL", url)?).await?;
    // Before anything is removed: what is removed is noted by looking into all of them.
    let vaults = Vault::found(config).into_iter().map(|(_, vault)| vault).collect::<Result<Vec<_>>>()?;
    if !dry_run {
        store::abandon(app, None).await?;
    }
    let mut pruned = Vec::new();
    for vault in &vaults {
        pruned.push(prune_place(app, vault, &vaults, dry_run).await?);
    }
    Ok(pruned)
}

async fn prune_place(app: &App, vault: &Vault, all: &[Vault], dry_run: bool) -> Result<Pruned> {
    let config = &app.config.backup;
    let days = if vault.is_directory() { config.local_days } else { config.remote_days };
    let mut manifests = manifest::all(vault).await?;
    let verified: HashSet<_> =
        vault.folders().await?.into_iter().filter(|folder| folder.verified).map(|folder| folder.id).collect();
    let made: Vec<_> = manifests
        .iter()
        .map(|(id, manifest)| Made {
            id: *id,
            // A damaged one is as old as its id.
            at: manifest.as_ref().map_or_else(|_| made_at(*id), |manifest| manifest.started_at),
            verified: manifest.is_ok() && verified.contains(id),
        })
        .collect();
    let before = Utc::now() - TimeDelta::days(i64::from(days));
    let old = old(&made, before, config.keep_verified as usize);
    let mut leftovers = leftovers::find(app, vault, all, before).await?;
    if !dry_run {
        // First: what is left of one if we die is known to be of no use.
        note(app, &old, vault, all).await?;
    }
    for id in &old {
        manifests.remove(id);
        if !dry_run {
            vault.remove(*id).await?;
            info!(backup.id = %id, place = vault.name(), "Removed an old backup");
        }
    }
    if !dry_run {
        leftovers = leftovers::remove(vault, leftovers).await?;
    }
    let temporary_files = leftovers.temporary.len() as u64;
    let leftovers: Vec<_> = leftovers.backups.into_iter().map(|folder| folder.id).collect();
    let gone: Vec<_> = old.iter().chain(&leftovers).copied().collect();
    let files = prune_files(vault, manifests, &gone, dry_run).await?;
    Ok(Pruned { place: vault.name().to_owned(), backups: old, files, leftovers, temporary_files })
}

#[derive(Debug, Clone, Copy)]
struct Made {
    id: BackupId,
    at: DateTime<Utc>,
    verified: bool,
}

/// Those that may go: made before then, and not among the newest `keep` verified ones. While none is verified, all stay.
fn old(made: &[Made], before: DateTime<Utc>, keep: usize) -> Vec<BackupId> {
    let mut verified: Vec<_> = made.iter().filter(|backup| backup.verified).collect();
    verified.sort_by_key(|backup| std::cmp::Reverse(backup.at));
    if verified.is_empty() {
        return Vec::new();
    }
    let kept: HashSet<_> = verified.iter().take(keep.max(1)).map(|backup| backup.id).collect();
    made.iter().filter(|backup| backup.at < before && !kept.contains(&backup.id)).map(|backup| backup.id).collect()
}

/// Removes the objects that neither these backups have nor any that is there by now, other than those that are `gone`.
async fn prune_files(
    vault: &Vault,
    mut manifests: BTreeMap<BackupId, Result<Manifest>>,
    gone: &[BackupId],
    dry_run: bool,
) -> Result<u64> {
    let mut folders = vault.folders().await?;
    folders.retain(|folder| !gone.contains(&folder.id));
    if let Some(folder) = folders.iter().find(|folder| !folder.published && folder.has_dump) {
        warn!(
            backup.id = %folder.id,
            place = vault.name(),
            "No files are removed: a dump without a manifest may need them. It is removed a day after its backup died; if its manifest was lost, \
             bring it back, or remove the folder"
        );
        return Ok(0);
    }
    // Somebody may have brought a manifest back since the others were read.
    for folder in folders.iter().filter(|folder| folder.published) {
        if let Entry::Vacant(unread) = manifests.entry(folder.id) {
            unread.insert(Manifest::read(vault, folder.id).await);
        }
    }
    let mut needed = HashSet::new();
    for (id, manifest) in &manifests {
        let entries = match manifest {
            Ok(manifest) => manifest.file_entries(vault).await,
            Err(_) => Err(refused(format!("The backup {id} is damaged"))),
        };
        match entries {
            Ok(entries) => needed.extend(entries.into_iter().map(|entry| entry.object.key)),
            Err(error @ Error::Unavailable { .. }) => return Err(error),
            Err(error) => {
                warn!(error = causes(&error), backup.id = %id, "No files are removed: it is not known which of them this backup has");
                return Ok(0);
            }
        }
    }
    match files::latest(vault).await {
        Ok(entries) => needed.extend(entries.into_iter().map(|entry| entry.object.key)),
        Err(error @ Error::Invalid(_)) => {
            warn!(
                error = causes(&error),
                "No files are removed: it is not known which of them were stored after the last backup"
            );
            return Ok(0);
        }
        Err(error) => return Err(error),
    }
    let mut removed = 0;
    for (key, _) in vault.list("files").await? {
        if !needed.contains(&key) {
            removed += 1;
            if !dry_run {
                vault.delete(&key).await?;
            }
        }
    }
    Ok(removed)
}

/// Tells the database where the backups that are removed from a place still are.
async fn note(app: &App, removed: &[BackupId], from: &Vault, all: &[Vault]) -> Result<()> {
    let mut places: BTreeMap<BackupId, Vec<String>> = removed.iter().map(|id| (*id, Vec::new())).collect();
    for vault in all.iter().filter(|vault| vault.name() != from.name()) {
        for folder in vault.folders().await?.into_iter().filter(|folder| folder.published) {
            if let Some(places) = places.get_mut(&folder.id) {
                places.push(vault.name().to_owned());
            }
        }
    }
    let tx = app.db.begin(SYSTEM).await?;
    for (id, places) in &places {
        store::pruned(&tx, *id, places).await?;
    }
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_verified_ones_stay() {
        let now = Utc::now();
        let made = |days: i64, verified| Made { id: BackupId::new(), at: now - TimeDelta::days(days), verified };
        let backups = [made(50, true), made(45, true), made(40, false), made(35, true), made(2, false)];
        let at = |places: &[usize]| places.iter().map(|place| backups[*place].id).collect::<Vec<_>>();
        let month = now - TimeDelta::days(30);
        assert_eq!(old(&backups, month, 1), at(&[0, 1, 2]));
        assert_eq!(old(&backups, month, 2), at(&[0, 2]));
        assert_eq!(old(&backups, now, 1), at(&[0, 1, 2, 4]), "the last verified one stays, however new the others");
        let unverified = [made(50, false), made(40, false)];
        assert_eq!(old(&unverified, month, 3), [], "while none is verified, all may be needed");
        assert_eq!((made_at(backups[0].id) - now).num_seconds().abs() / 60, 0);
    }
}
