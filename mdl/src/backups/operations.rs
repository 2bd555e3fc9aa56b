//! What people ask for.

use std::collections::BTreeMap;

use super::manifest::{self, Manifest, Proof};
use super::vault::Vault;
use crate::app::App;
use crate::error::Result;
use crate::ids::BackupId;

/// A backup as the vaults know it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Nothing if it is damaged in all places.
    pub manifest: Option<Manifest>,
    /// That it was restored on trial, the last time.
    pub proof: Option<Proof>,
    /// The places that have it.
    pub places: Vec<String>,
    /// What is wrong with it, if something is.
    pub damage: Option<String>,
}

/// The backups of all places, oldest first. Needs no database.
pub async fn list(app: &App) -> Result<BTreeMap<BackupId, Listed>> {
    let mut listed: BTreeMap<BackupId, Listed> = BTreeMap::new();
    for vault in Vault::all(&app.config.backup)? {
        for (id, found) in manifest::all(&vault).await? {
            let proof = Proof::read(&vault, id).await?;
            let backup = listed.entry(id).or_insert(Listed { manifest: None, proof: None, places: Vec::new(), damage: None });
            backup.places.push(vault.name().to_owned());
            match found {
                Ok(manifest) => {
                    backup.manifest.get_or_insert(manifest);
                    backup.proof = backup.proof.take().or(proof);
                }
                Err(error) => backup.damage = Some(error.to_string()),
            }
        }
    }
    Ok(listed)
}
