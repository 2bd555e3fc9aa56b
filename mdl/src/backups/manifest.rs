//! What a backup says of itself: `manifest.json`, which is written last and makes it count.
//!
//! It is not secret: it has names of tables, numbers of rows, hashes. It carries a hash of its own text, so that a damaged one is
//! known as such. That tells damage from truth, not a forgery: whoever may write to the vault can make a backup.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::inventory::Inventory;
use super::seal::Sealed;
use super::vault::{MANIFEST, VERIFIED, Vault, key};
use super::{refused, unequipped};
use crate::error::{Error, Result};
use crate::ids::BackupId;

/// Of the manifest's form. A program refuses a greater one than it knows.
const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub id: BackupId,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    /// Of dumping, sealing and storing the database.
    pub dump_seconds: f64,
    pub program_version: String,
    /// Of PostgreSQL: `15.8`, and the same as a number.
    pub server_version: String,
    pub server_version_number: i32,
    /// The migrations that the database had, oldest first.
    pub migrations: Vec<String>,
    /// The public keys it is encrypted for; none when it is not encrypted.
    pub recipients: Vec<String>,
    /// What `pg_dump` wrote, in its custom format.
    pub database: Sealed,
    /// What was in the database, in the snapshot of the dump.
    pub inventory: Inventory,
    /// The uploaded files.
    pub files: Files,
}

/// The files that a backup has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Files {
    pub count: u64,
    pub bytes: u64,
    /// A list of [`FileEntry`] as JSON, which is not sealed.
    pub list: Sealed,
}

/// A file of the file storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name in the file storage.
    pub key: String,
    pub modified_at: DateTime<Utc>,
    /// In the vault, by the hash of its content.
    pub object: Sealed,
    /// The public keys it is encrypted for: a file is stored once, and stays as it was then.
    pub recipients: Vec<String>,
}

/// The manifest with its hash.
#[derive(Serialize, Deserialize)]
struct Envelope {
    sha256: String,
    manifest: Box<RawValue>,
}

/// That a backup was restored on trial and found to be the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    pub verified_at: DateTime<Utc>,
    pub server_version: String,
    pub restore_seconds: f64,
}

impl Manifest {
    pub fn format() -> u32 {
        FORMAT
    }

    /// The newest migration of the database.
    pub fn schema_version(&self) -> Option<&str> {
        self.migrations.last().map(String::as_str)
    }

    pub fn rows(&self) -> u64 {
        self.inventory.tables.values().map(|contents| contents.rows).sum()
    }

    /// Publishes the backup.
    pub async fn write(&self, vault: &Vault) -> Result<()> {
        let manifest = RawValue::from_string(serde_json::to_string_pretty(self)?)?;
        let envelope = Envelope { sha256: hash(&manifest), manifest };
        vault.put(&key(self.id, MANIFEST), serde_json::to_vec(&envelope)?.into()).await
    }

    /// Of a published backup; an error if it is not what was written.
    pub async fn read(vault: &Vault, id: BackupId) -> Result<Self> {
        let content = vault.get(&key(id, MANIFEST)).await?.ok_or_else(|| Error::not_found("backup", id))?;
        Self::parse(&content, id)
    }

    fn parse(content: &Bytes, id: BackupId) -> Result<Self> {
        let damaged = |why: &dyn std::fmt::Display| refused(format!("The backup {id} is damaged: its manifest {why}"));
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let envelope: Envelope = serde_json::from_slice(content).map_err(|error| damaged(&format!("cannot be read: {error}")))?;
        if hash(&envelope.manifest) != envelope.sha256 {
            return Err(damaged(&"does not have the hash that it says"));
        }
        let Format { format } = serde_json::from_str(envelope.manifest.get()).map_err(|error| damaged(&error))?;
        if format > FORMAT {
            return Err(unequipped(format!("The backup {id} was made by a newer version of MDL, which can read it")));
        }
        let manifest: Self = serde_json::from_str(envelope.manifest.get()).map_err(|error| damaged(&error))?;
        if manifest.id != id {
            return Err(damaged(&format!("is that of {}", manifest.id)));
        }
        Ok(manifest)
    }

    /// The files of this backup.
    pub async fn file_entries(&self, vault: &Vault) -> Result<Vec<FileEntry>> {
        let mut list = super::seal::Opened::new(vault, &self.files.list, &[], &super::seal::Identities::default()).await?;
        let mut content = Vec::new();
        while let Some(piece) = list.next().await? {
            content.extend_from_slice(&piece);
        }
        Ok(serde_json::from_slice(&content)?)
    }
}

impl Proof {
    pub async fn write(&self, vault: &Vault, id: BackupId) -> Result<()> {
        vault.put(&key(id, VERIFIED), serde_json::to_vec_pretty(self)?.into()).await
    }

    /// If there is one that can be read: whoever doubts it verifies the backup again.
    pub async fn read(vault: &Vault, id: BackupId) -> Result<Option<Self>> {
        Ok(vault.get(&key(id, VERIFIED)).await?.and_then(|content| serde_json::from_slice(&content).ok()))
    }
}

fn hash(manifest: &RawValue) -> String {
    HEXLOWER.encode(&Sha256::digest(manifest.get()))
}

/// The manifests of the published backups of a vault, oldest first; of a damaged one the error.
pub async fn all(vault: &Vault) -> Result<BTreeMap<BackupId, Result<Manifest>>> {
    let mut manifests = BTreeMap::new();
    for folder in vault.folders().await?.into_iter().filter(|folder| folder.published) {
        match Manifest::read(vault, folder.id).await {
            Err(error @ Error::Unavailable { .. }) => return Err(error),
            manifest => manifests.insert(folder.id, manifest),
        };
    }
    Ok(manifests)
}
