//! A place with backups: a directory, or a bucket of an S3-compatible store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutPayload, RetryConfig, WriteMultipart};
use url::Url;

use super::refused;
use super::seal::{Digest, Tally};
use crate::config::BackupConfig;
use crate::error::{Error, Result, causes};
use crate::ids::BackupId;

pub const MANIFEST: &str = "manifest.json";
pub const VERIFIED: &str = "verified.json";

/// Of one part of an upload. Stores take 10,000 of them, and a few are held in memory.
const PART_BYTES: usize = 16 * 1024 * 1024;
/// Parts that are sent while the next is filled.
const PARTS_AT_ONCE: usize = 2;

/// A request to a bucket is repeated this often, and not after this time: a backup that is not stored is to be told of.
const RETRIES: usize = 4;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    store: Arc<dyn ObjectStore>,
    root: Path,
    name: Arc<str>,
    /// If it is one.
    directory: Option<PathBuf>,
}

/// A folder of a vault that is named like a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Folder {
    pub id: BackupId,
    /// Whether it has a manifest: without one it is what a run left behind that died.
    pub published: bool,
    pub verified: bool,
}

impl Vault {
    /// All places, that of the backups first and that of their copies second.
    pub fn all(config: &BackupConfig) -> Result<Vec<Self>> {
        std::iter::once(&config.url).chain(&config.remote_url).map(|url| Self::open(url, config)).collect()
    }

    fn open(url: &Url, config: &BackupConfig) -> Result<Self> {
        let name: Arc<str> = url.as_str().trim_end_matches('/').into();
        if let Ok(directory) = url.to_file_path() {
            // It may be on a server that is away.
            let cannot = |error: &dyn std::fmt::Display| {
                Error::unavailable("the place of the backups", format!("Cannot keep backups in {}: {error}", directory.display()))
            };
            make_private(&directory).map_err(|error| cannot(&error))?;
            // Published means that a power failure does not take it back.
            let store = LocalFileSystem::new_with_prefix(&directory).map_err(|error| cannot(&error))?.with_fsync(true);
            return Ok(Self { store: Arc::new(store), root: Path::default(), name, directory: Some(directory) });
        }
        let cannot = |error: object_store::Error| refused(format!("Cannot keep backups in {name}: {error}"));
        let (scheme, root) = ObjectStoreScheme::parse(url).map_err(|error| cannot(error.into()))?;
        if scheme != ObjectStoreScheme::AmazonS3 {
            return Err(refused(format!("Cannot keep backups in {name}: give file:///directory or s3://bucket/prefix")));
        }
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new().with_url(url.as_str()).with_retry(retry);
        for (option, value) in config.options() {
            builder = builder.with_config(option.parse().map_err(cannot)?, value);
        }
        let store = builder.build().map_err(cannot)?;
        Ok(Self { store: Arc::new(store), root, name, directory: None })
    }

    /// Its address.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_directory(&self) -> bool {
        self.directory.is_some()
    }

    /// Begins to write an object, which is there once its upload is finished.
    pub async fn upload(&self, key: &str) -> Result<Upload> {
        let parts = self.store.put_multipart(&self.path(key)).await.map_err(|error| self.failed(error))?;
        let writer = WriteMultipart::new_with_chunk_size(parts, PART_BYTES);
        Ok(Upload { writer, tally: Tally::default(), vault: self.clone() })
    }

    /// Writes a small object.
    pub async fn put(&self, key: &str, content: Bytes) -> Result<()> {
        self.store.put(&self.path(key), PutPayload::from(content)).await.map_err(|error| self.failed(error))?;
        Ok(())
    }

    /// Reads an object in pieces.
    pub async fn read(&self, key: &str) -> Result<BoxStream<'static, object_store::Result<Bytes>>> {
        match self.store.get(&self.path(key)).await {
            Ok(found) => Ok(found.into_stream()),
            Err(object_store::Error::NotFound { .. }) => {
                Err(refused(format!("The backup is damaged: {key} is missing in {}", self.name)))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Reads a small object, if it is there.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        match self.store.get(&self.path(key)).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|error| self.failed(error)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// What is there under a prefix, with the keys that reach it.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, ObjectMeta)>> {
        let found: Vec<ObjectMeta> =
            self.store.list(Some(&self.path(prefix))).try_collect().await.map_err(|error| self.failed(error))?;
        let key = |meta: &ObjectMeta| {
            let parts: Vec<_> = meta.location.prefix_match(&self.root)?.map(|part| part.as_ref().to_owned()).collect();
            Some(parts.join("/"))
        };
        Ok(found.into_iter().filter_map(|meta| Some((key(&meta)?, meta))).collect())
    }

    pub async fn delete(&self, key: &str) -> Result<()> {
        match self.store.delete(&self.path(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The backups, oldest first, and what died ones left.
    pub async fn folders(&self) -> Result<Vec<Folder>> {
        let mut folders = std::collections::BTreeMap::new();
        let mut note = |id: BackupId, file: &str| {
            let folder = folders.entry(id).or_insert(Folder { id, published: false, verified: false });
            folder.published |= file == MANIFEST;
            folder.verified |= file == VERIFIED;
        };
        for (key, _) in self.list("backups").await? {
            if let Some((id, file)) = key.strip_prefix("backups/").and_then(|key| key.split_once('/'))
                && let Ok(id) = id.parse()
            {
                note(id, file);
            }
        }
        // The listing leaves out what is not complete.
        if let Some(directory) = &self.directory
            && let Ok(entries) = std::fs::read_dir(directory.join("backups"))
        {
            for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
                if let Ok(id) = name.parse() {
                    note(id, "");
                }
            }
        }
        Ok(folders.into_values().collect())
    }

    /// Removes a backup. From its first step on it does not count any more.
    pub async fn remove(&self, id: BackupId) -> Result<()> {
        self.delete(&key(id, VERIFIED)).await?;
        self.delete(&key(id, MANIFEST)).await?;
        if let Some(directory) = &self.directory {
            let folder = directory.join("backups").join(id.to_string());
            return match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.failed(error)),
                _ => Ok(()),
            };
        }
        for (key, _) in self.list(&format!("backups/{id}")).await? {
            self.delete(&key).await?;
        }
        Ok(())
    }

    /// Removes what runs left that died: backups without a manifest, and halves of files. Nothing else may write here meanwhile.
    pub async fn tidy(&self) -> Result<Vec<BackupId>> {
        let left: Vec<_> = self.folders().await?.into_iter().filter(|folder| !folder.published).map(|folder| folder.id).collect();
        for id in &left {
            self.remove(*id).await?;
        }
        if let Some(directory) = &self.directory
            && let Ok(entries) = std::fs::read_dir(directory.join("files"))
        {
            for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().contains('#')) {
                std::fs::remove_file(entry.path()).map_err(|error| self.failed(error))?;
            }
        }
        Ok(left)
    }

    fn path(&self, key: &str) -> Path {
        key.split('/').fold(self.root.clone(), |path, part| path.join(part))
    }

    fn failed(&self, error: impl Into<crate::error::BoxError>) -> Error {
        Error::unavailable("the place of the backups", error)
    }
}

/// An object on its way into a vault.
pub struct Upload {
    writer: WriteMultipart,
    tally: Tally,
    vault: Vault,
}

impl Upload {
    pub async fn push(&mut self, bytes: Bytes) -> Result<()> {
        self.tally.add(&bytes);
        self.writer.wait_for_capacity(PARTS_AT_ONCE).await.map_err(|error| self.vault.failed(error))?;
        self.writer.put(bytes);
        Ok(())
    }

    /// Of what has come so far.
    pub fn digest(&self) -> Digest {
        self.tally.digest()
    }

    /// Makes it be there.
    pub async fn finish(self) -> Result<Digest> {
        let digest = self.tally.digest();
        self.writer.finish().await.map_err(|error| self.vault.failed(error))?;
        Ok(digest)
    }

    /// Gives up; nothing is left of it.
    pub async fn abort(self) {
        if let Err(error) = self.writer.abort().await {
            tracing::warn!(
                error = causes(&error),
                place = self.vault.name(),
                "Could not remove the parts of a backup that was given up"
            );
        }
    }
}

/// The name in a vault of a file of a backup.
pub fn key(id: BackupId, file: &str) -> String {
    format!("backups/{id}/{file}")
}

/// Makes a folder that only its owner can look into.
fn make_private(directory: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}
