//! What backups left that died: told from what somebody may need, and removed once nobody has written to it for a day.
//!
//! The parts of an upload to a bucket that was not finished are not among it: object_store cannot list them. A rule of the bucket
//! ends them.

use std::collections::HashSet;
use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use tracing::info;

use super::vault::{Folder, Vault};
use super::{Backup, store};
use crate::app::App;
use crate::error::Result;
use crate::ids::BackupId;
use crate::instruments;
use crate::tenants::SYSTEM;

/// How long nobody has written to what is left over. Backups of the worker end sooner, those of the command line keep us from the
/// lock.
const SAFE: TimeDelta = TimeDelta::days(1);

/// What died runs left in a place.
pub struct Leftovers {
    /// Those that have a dump and will never have a manifest.
    pub backups: Vec<Folder>,
    /// Halves of files, under the names that they have until they are whole. In directories only.
    pub temporary: Vec<PathBuf>,
}

/// What decides about a dump beside the ledger.
struct Place<'a> {
    name: &'a str,
    /// What was written before is left over.
    written_before: DateTime<Utc>,
    /// What was made before is older than backups are kept here.
    made_before: DateTime<Utc>,
    /// Verified in another place, which still has the dump.
    good_elsewhere: HashSet<BackupId>,
}

/// What there is of it in a place that keeps backups since `made_before`, for the one who holds the lock. `all` are the places
/// that may have the manifest that is missing here.
pub async fn find(app: &App, vault: &Vault, all: &[Vault], made_before: DateTime<Utc>) -> Result<Leftovers> {
    let written_before = Utc::now() - SAFE;
    let unpublished: Vec<_> = vault.folders().await?.into_iter().filter(|folder| !folder.published && folder.has_dump).collect();
    let mut backups = Vec::new();
    if !unpublished.is_empty() {
        let mut good_elsewhere = HashSet::new();
        for other in all.iter().filter(|other| other.name() != vault.name()) {
            let good = other.folders().await?.into_iter().filter(|folder| folder.published && folder.verified && folder.has_dump);
            good_elsewhere.extend(good.map(|folder| folder.id));
        }
        let ids: Vec<_> = unpublished.iter().map(|folder| folder.id).collect();
        let tx = app.db.begin(SYSTEM).await?;
        let known = store::by_ids(&tx, &ids).await?;
        tx.commit().await?;
        let place = Place { name: vault.name(), written_before, made_before, good_elsewhere };
        for folder in unpublished {
            let known = known.iter().find(|backup| backup.id == folder.id);
            if known.is_some_and(|known| is_abandoned(&folder, known, &place)) {
                backups.push(folder);
            }
        }
    }
    Ok(Leftovers { backups, temporary: vault.temporary(written_before)? })
}

/// Whether a dump without a manifest can go: it never had one in this place, as far as the ledger knows, and the backup was never
/// published, is good in another place, or was removed from the last place that had it and is too old for this one. Of any other
/// the manifest was lost, and people may bring it back.
fn is_abandoned(folder: &Folder, known: &Backup, place: &Place<'_>) -> bool {
    let had_manifest = folder.verified || known.places.iter().any(|known| known == place.name);
    let was_published = known.stored_bytes.is_some() || known.verified_at.is_some();
    // The ledger does not say from where, and other places may keep backups for a shorter time.
    let was_removed = known.pruned_at.is_some() && known.started_at < place.made_before;
    let is_elsewhere = place.good_elsewhere.contains(&folder.id);
    folder.written_at < place.written_before && !had_manifest && (!was_published || is_elsewhere || was_removed)
}

/// Removes them, and returns those that it has removed: a dump stays whose folder has changed since it was looked at, because
/// somebody may have brought the manifest back.
pub async fn remove(vault: &Vault, leftovers: Leftovers) -> Result<Leftovers> {
    let mut backups = Vec::new();
    for folder in leftovers.backups {
        let id = folder.id;
        if vault.folder(id).await? != Some(folder) {
            info!(backup.id = %id, place = vault.name(), "A dump without a manifest stays: its folder has just changed");
            continue;
        }
        vault.remove(id).await?;
        metrics::counter!(instruments::BACKUPS, "outcome" => "abandoned").increment(1);
        info!(backup.id = %id, place = vault.name(), "Removed a dump that never got its manifest: its backup died");
        backups.push(folder);
    }
    for file in &leftovers.temporary {
        vault.remove_temporary(file)?;
        info!(file = %file.display(), place = vault.name(), "Removed half a file that a backup had left which died");
    }
    Ok(Leftovers { backups, ..leftovers })
}
