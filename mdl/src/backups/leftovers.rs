//! What backups left that died: told from what somebody may need, and removed once nobody has written to it for a day.
//!
//! The parts of an upload to a bucket that was not finished are not among it: object_store cannot list them. A rule of the bucket ends them.

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

/// How long nobody has written to what is left over. Backups of the worker end sooner, those of the command line keep us from the lock.
const SAFE: TimeDelta = TimeDelta::days(1);

/// What died runs left in a place.
pub struct Leftovers {
    /// Those that have a dump and will never have a manifest.
    pub backups: Vec<BackupId>,
    /// Halves of files, under the names that they have until they are whole. In directories only.
    pub temporary: Vec<PathBuf>,
}

/// What there is of it in a place, for the one who holds the lock. `all` are the places that may have the manifest that is missing here.
pub async fn find(app: &App, vault: &Vault, all: &[Vault]) -> Result<Leftovers> {
    let before = Utc::now() - SAFE;
    let unpublished: Vec<_> = vault.folders().await?.into_iter().filter(|folder| !folder.published && folder.has_dump).collect();
    let mut backups = Vec::new();
    if !unpublished.is_empty() {
        let mut elsewhere = HashSet::new();
        for other in all.iter().filter(|other| other.name() != vault.name()) {
            elsewhere.extend(other.folders().await?.into_iter().filter(|folder| folder.published).map(|folder| folder.id));
        }
        let ids: Vec<_> = unpublished.iter().map(|folder| folder.id).collect();
        let tx = app.db.begin(SYSTEM).await?;
        let known = store::by_ids(&tx, &ids).await?;
        tx.commit().await?;
        for folder in &unpublished {
            let known = known.iter().find(|backup| backup.id == folder.id);
            if known.is_some_and(|known| is_abandoned(folder, known, vault.name(), elsewhere.contains(&folder.id), before)) {
                backups.push(folder.id);
            }
        }
    }
    Ok(Leftovers { backups, temporary: vault.temporary(before)? })
}

/// Whether a dump without a manifest can go: it never had one in this place, as far as the ledger knows, and the backup was never published, is
/// whole in another place, or was removed because it was old. Of any other the manifest was lost, and people may bring it back.
fn is_abandoned(folder: &Folder, known: &Backup, place: &str, is_elsewhere: bool, before: DateTime<Utc>) -> bool {
    let had_manifest = folder.verified || known.places.iter().any(|known| known == place);
    let was_published = known.stored_bytes.is_some() || known.verified_at.is_some();
    folder.written_at < before && !had_manifest && (!was_published || is_elsewhere || known.pruned_at.is_some())
}

/// Removes them.
pub async fn remove(vault: &Vault, leftovers: &Leftovers) -> Result<()> {
    for id in &leftovers.backups {
        vault.remove(*id).await?;
        metrics::counter!(instruments::BACKUPS, "outcome" => "abandoned").increment(1);
        info!(backup.id = %id, place = vault.name(), "Removed a dump that never got its manifest: its backup died");
    }
    for file in &leftovers.temporary {
        vault.remove_temporary(file)?;
        info!(file = %file.display(), place = vault.name(), "Removed half a file that a backup had left which died");
    }
    Ok(())
}
