//! A place with backups: a directory, or a bucket of an S3-compatible store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutPayload, RetryConfig, WriteMultipart};
use url::Url;

use super::seal::{Digest, Tally};
use super::{refused, unequipped};
use crate::config::BackupConfig;
use crate::error::{BoxError, Error, Result, causes};
use crate::ids::BackupId;

pub const MANIFEST: &str = "manifest.json";
pub const VERIFIED: &str = "verified.json";
/// What the names of dumps begin with.
pub const DUMP: &str = "database.dump";
/// The list of the uploaded files as the last backup, or the last run of [`super::back_up_files`], found them.
pub const LATEST: &str = "files.json";

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
    /// Whether it has a manifest: without one it is being made, or is what a run left behind that died, or somebody lost the
    /// manifest.
    pub published: bool,
    pub verified: bool,
    /// Whether it has a dump, which was written to its end.
    pub has_dump: bool,
    /// Whether it has anything that was written to its end. What was not is not listed: in a directory its name has a `#`.
    pub has_files: bool,
    /// When the newest of what was written to its end was written; when its id was made if there is nothing.
    pub written_at: DateTime<Utc>,
}

impl Folder {
    fn empty(id: BackupId, written_at: DateTime<Utc>) -> Self {
        Self { id, published: false, verified: false, has_dump: false, has_files: false, written_at }
    }

    /// When it was made: its id begins with the milliseconds since 1970.
    pub fn made_at(&self) -> DateTime<Utc> {
        made_at(self.id)
    }

    /// Whether it can go: it has neither a manifest nor a dump, and nothing else that was written to its end within the last day.
    fn is_left_over(&self) -> bool {
        !self.published && !self.has_dump && (!self.has_files || self.made_at() < Utc::now() - TimeDelta::days(1))
    }
}

/// When an id was made.
pub fn made_at(id: BackupId) -> DateTime<Utc> {
    let milliseconds = i64::try_from(id.0.as_u128() >> 80).unwrap_or(0);
    DateTime::from_timestamp_millis(milliseconds).unwrap_or_default()
}

impl Vault {
    /// All places, that of the backups first and that of their copies second, for whoever writes there: directories are made.
    pub fn all(config: &BackupConfig) -> Result<Vec<Self>> {
        let open = |(url, _): (&Url, &'static str)| {
            if let Ok(directory) = url.to_file_path() {
                make_private(&directory).map_err(|error| cannot_keep(&directory, &error))?;
            }
            Self::open(url, config)
        };
        places(config).map(open).collect()
    }

    /// All places by their addresses, for whoever looks what is there. One whose directory is missing is an error that says so:
    /// perhaps its disk is not mounted.
    pub fn found(config: &BackupConfig) -> Vec<(String, Result<Self>)> {
        places(config).map(|(url, setting)| (name_of(url).to_owned(), Self::find(url, setting, config))).collect()
    }

    /// The place at an address that an operator gave, which need not be in the settings.
    pub fn at(address: &str, config: &BackupConfig) -> Result<Self> {
        let wanted = address.trim_end_matches('/');
        if let Some((url, setting)) = places(config).find(|(url, _)| name_of(url) == wanted) {
            return Self::find(url, setting, config);
        }
        match address.parse::<Url>() {
            Ok(url) => Self::find(&url, "--from", config),
            Err(error) => Err(unequipped(format!("{address} is not the address of a place with backups: {error}"))),
        }
    }

    fn find(url: &Url, setting: &str, config: &BackupConfig) -> Result<Self> {
        match url.to_file_path() {
            Ok(directory) if !directory.is_dir() => Err(Error::unavailable(
                "the place of the backups",
                format!("There is no folder {} ({setting})", directory.display()),
            )),
            _ => Self::open(url, config),
        }
    }

    fn open(url: &Url, config: &BackupConfig) -> Result<Self> {
        let name: Arc<str> = name_of(url).into();
        if let Ok(directory) = url.to_file_path() {
            // Published means that a power failure does not take it back.
            let store =
                LocalFileSystem::new_with_prefix(&directory).map_err(|error| cannot_keep(&directory, &error))?.with_fsync(true);
            return Ok(Self { store: Arc::new(store), root: Path::default(), name, directory: Some(directory) });
        }
        let cannot = |error: object_store::Error| unequipped(format!("Cannot keep backups in {name}: {error}"));
        let (scheme, root) = ObjectStoreScheme::parse(url).map_err(|error| cannot(error.into()))?;
        if scheme != ObjectStoreScheme::AmazonS3 {
            return Err(unequipped(format!("Cannot keep backups in {name}: give file:///directory or s3://bucket/prefix")));
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
        let mut folders = self.complete("backups").await?;
        // The listing leaves out what is not complete.
        for id in self.named_like_backups() {
            folders.entry(id).or_insert_with(|| Folder::empty(id, made_at(id)));
        }
        Ok(folders.into_values().collect())
    }

    /// One of them, if anything in it is complete.
    pub async fn folder(&self, id: BackupId) -> Result<Option<Folder>> {
        Ok(self.complete(&format!("backups/{id}")).await?.remove(&id))
    }

    /// The folders under a prefix, with what is complete in them.
    async fn complete(&self, prefix: &str) -> Result<BTreeMap<BackupId, Folder>> {
        let mut folders = BTreeMap::new();
        let mut note = |id: BackupId, file: &str, written_at: DateTime<Utc>| {
            let folder = folders.entry(id).or_insert_with(|| Folder::empty(id, written_at));
            folder.written_at = folder.written_at.max(written_at);
            folder.published |= file == MANIFEST;
            folder.verified |= file == VERIFIED;
            folder.has_dump |= file.starts_with(DUMP);
            folder.has_files = true;
        };
        for (key, meta) in self.list(prefix).await? {
            if let Some((id, file)) = key.strip_prefix("backups/").and_then(|key| key.split_once('/'))
                && let Ok(id) = id.parse()
            {
                note(id, file, meta.last_modified);
            }
        }
        Ok(folders)
    }

    /// The folders of a directory that are named like a backup, also those with nothing that is complete.
    fn named_like_backups(&self) -> Vec<BackupId> {
        let Some(directory) = &self.directory else { return Vec::new() };
        let entries = std::fs::read_dir(directory.join("backups")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()?.parse().ok()).collect()
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

    /// Removes what runs left that died: backups without a manifest and without a dump, and halves of files. Nothing else may
    /// write here meanwhile. A dump without a manifest stays: [`super::prune`] knows which of them nobody needs.
    pub async fn tidy(&self) -> Result<Vec<BackupId>> {
        let left: Vec<_> = self.folders().await?.into_iter().filter(Folder::is_left_over).map(|folder| folder.id).collect();
        for id in &left {
            self.remove(*id).await?;
        }
        if let Some(directory) = &self.directory {
            for file in temporary_in(&directory.join("files")) {
                self.remove_temporary(&file)?;
            }
        }
        Ok(left)
    }

    /// Files that nobody has written to since then, and that have still the name that a file of a directory has until it is
    /// whole.
    pub fn temporary(&self, before: DateTime<Utc>) -> Result<Vec<PathBuf>> {
        let Some(directory) = &self.directory else { return Ok(Vec::new()) };
        let mut found = temporary_in(directory);
        // Whatever else may be in that folder is not ours.
        found.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LATEST)));
        found.extend(temporary_in(&directory.join("files")));
        for id in self.named_like_backups() {
            found.extend(temporary_in(&directory.join("backups").join(id.to_string())));
        }
        let written_at = |file: &PathBuf| match std::fs::metadata(file).and_then(|metadata| metadata.modified()) {
            Ok(time) => Ok(Some(DateTime::<Utc>::from(time))),
            // It is whole now.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
        };
        let mut old = Vec::new();
        for file in found {
            if written_at(&file)?.is_some_and(|time| time < before) {
                old.push(file);
            }
        }
        Ok(old)
    }

    /// Removes one of them, unless it is gone.
    pub fn remove_temporary(&self, file: &std::path::Path) -> Result<()> {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.failed(error)),
            _ => Ok(()),
        }
    }

    fn path(&self, key: &str) -> Path {
        key.split('/').fold(self.root.clone(), |path, part| path.join(part))
    }

    fn failed(&self, error: impl Into<BoxError>) -> Error {
        let error = error.into();
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
        while let Some(found) = cause {
            if let Some(full) = found.downcast_ref::<std::io::Error>().filter(|error| is_full(error)) {
                return Error::unavailable("the place of the backups", format!("There is no room in {}: {full}", self.name));
            }
            cause = found.source();
        }
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

/// The addresses of the places, and the settings that they come from.
fn places(config: &BackupConfig) -> impl Iterator<Item = (&Url, &'static str)> {
    let remote = config.remote_url.iter().map(|url| (url, "MDL_BACKUP_REMOTE_URL"));
    std::iter::once((&config.url, "MDL_BACKUP_URL")).chain(remote)
}

/// The files of a folder that are not whole: object_store adds `#` and a number to their names until they are.
fn temporary_in(folder: &std::path::Path) -> Vec<PathBuf> {
    let is_temporary = |name: &str| {
        name.rsplit_once('#').is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    files.filter(|entry| is_temporary(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

fn name_of(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), FileTooLarge | QuotaExceeded | StorageFull)
}

/// It may be on a server that is away.
fn cannot_keep(directory: &std::path::Path, error: &dyn std::fmt::Display) -> Error {
    Error::unavailable("the place of the backups", format!("Cannot keep backups in {}: {error}", directory.display()))
}

/// Makes a folder that only its owner can look into.
fn make_private(directory: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}
