//! Files that people upload: a directory by default, an S3-compatible store by URL. `api` and `worker` must see the same one.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use sha2::{Digest, Sha256};

use crate::config::StorageConfig;
use crate::error::{Code, Error, Result, causes};

#[derive(Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    root: Path,
}

/// What was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub bytes: u64,
    pub sha256: [u8; 32],
}

/// A file that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    pub key: String,
    pub bytes: u64,
    pub modified_at: DateTime<Utc>,
}

impl Storage {
    pub fn new(config: &StorageConfig) -> Result<Self> {
        if let Ok(directory) = config.url.to_file_path() {
            std::fs::create_dir_all(&directory).map_err(|error| refused(format!("{}: {error}", directory.display())))?;
        }
        let (store, root) =
            object_store::parse_url_opts(&config.url, config.options()).map_err(|error| refused(causes(&error)))?;
        Ok(Self { store: Arc::from(store), root })
    }

    /// Writes a stream under `key`, holding a few megabytes of it at most. Nothing is left when it fails, or when it is
    /// longer than `limit` bytes.
    pub async fn put<S, E>(&self, key: &str, mut content: S, limit: u64) -> Result<Stored>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: Into<crate::error::BoxError>,
    {
        let upload = self.store.put_multipart(&self.path(key)).await.map_err(unavailable)?;
        let mut writer = WriteMultipart::new(upload);
        let (mut bytes, mut hash) = (0u64, Sha256::new());
        let failure = loop {
            match content.next().await {
                None => break None,
                Some(Err(error)) => {
                    break Some(Error::Invalid(vec![crate::error::Problem::new(
                        "file",
                        Code::Invalid,
                        format!("The upload broke off: {}", error.into()),
                    )]));
                }
                Some(Ok(chunk)) => {
                    bytes += chunk.len() as u64;
                    if bytes > limit {
                        break Some(Error::invalid("file", Code::TooLong, format!("Is longer than {limit} bytes")));
                    }
                    hash.update(&chunk);
                    writer.wait_for_capacity(4).await.map_err(unavailable)?;
                    writer.put(chunk);
                }
            }
        };
        if let Some(error) = failure {
            if let Err(error) = writer.abort().await {
                tracing::warn!(error = causes(&error), key, "Could not remove the parts of a failed upload");
            }
            return Err(error);
        }
        writer.finish().await.map_err(unavailable)?;
        Ok(Stored { bytes, sha256: hash.finalize().into() })
    }

    /// Reads what was stored under `key`, in chunks.
    pub async fn get(&self, key: &str) -> Result<BoxStream<'static, std::io::Result<Bytes>>> {
        match self.store.get(&self.path(key)).await {
            Ok(found) => Ok(found.into_stream().map_err(std::io::Error::other).boxed()),
            Err(object_store::Error::NotFound { .. }) => Err(Error::not_found("stored file", key)),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Everything that is stored.
    pub async fn list(&self) -> Result<Vec<StoredFile>> {
        let found: Vec<_> = self.store.list(Some(&self.root)).try_collect().await.map_err(unavailable)?;
        let file = |meta: object_store::ObjectMeta| {
            let parts: Vec<_> = meta.location.prefix_match(&self.root)?.map(|part| part.as_ref().to_owned()).collect();
            Some(StoredFile { key: parts.join("/"), bytes: meta.size, modified_at: meta.last_modified })
        };
        Ok(found.into_iter().filter_map(file).collect())
    }

    /// Removes what was stored under `key`; that there is nothing is fine.
    pub async fn delete(&self, key: &str) -> Result<()> {
        match self.store.delete(&self.path(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(unavailable(error)),
        }
    }

    fn path(&self, key: &str) -> Path {
        key.split('/').fold(self.root.clone(), |path, part| path.join(part))
    }
}

fn refused(why: String) -> Error {
    Error::invalid("MDL_STORAGE_URL", Code::Invalid, why)
}

fn unavailable(error: object_store::Error) -> Error {
    Error::unavailable("the file storage", error)
}
