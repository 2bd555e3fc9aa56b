//! Encryption to public keys of age, piece by piece: what is stored can be read with a private key only, which the machine that
//! makes backups need not have. What is read back is held against the sizes and hashes that the manifest gives.

use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use age::secrecy::ExposeSecret;
use age::stream::StreamWriter;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::io::{AsyncRead, AsyncReadExt};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio_util::compat::TokioAsyncReadCompatExt;
use tokio_util::io::StreamReader;

use super::vault::Vault;
use super::{refused, unequipped};
use crate::error::{Code, Error, Result};

/// Bytes read at once.
const PIECE: usize = 64 * 1024;

/// Size and SHA-256 (in hexadecimal) of some bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    pub bytes: u64,
    pub sha256: String,
}

/// Counts and hashes what passes.
#[derive(Default)]
pub struct Tally {
    bytes: u64,
    hash: Sha256,
}

impl Tally {
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    pub fn digest(&self) -> Digest {
        Digest { bytes: self.bytes, sha256: HEXLOWER.encode(&self.hash.clone().finalize()) }
    }
}

/// One object of a vault: what it is before and after it was sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Its name in the vault.
    pub key: String,
    pub plain: Digest,
    pub stored: Digest,
}

impl Sealed {
    /// Whether it is named by what it is before it is sealed. Then it may have been sealed anew since, because it was damaged,
    /// and what is stored has other bytes than older backups say.
    fn is_by_content(&self) -> bool {
        self.key.starts_with("files/")
    }
}

/// Seals bytes for these recipients as they come; lets them through if there are none.
pub struct Sealer {
    writer: Option<StreamWriter<Spill>>,
    spill: Spill,
}

/// Where age writes to: emptied after each write.
#[derive(Clone, Default)]
struct Spill(Arc<Mutex<Vec<u8>>>);

impl Spill {
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl Write for Spill {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sealer {
    pub fn new(recipients: &[String]) -> Result<Self> {
        let spill = Spill::default();
        if recipients.is_empty() {
            return Ok(Self { writer: None, spill });
        }
        let parsed: Result<Vec<age::x25519::Recipient>> =
            recipients.iter().map(|key| key.parse().map_err(|error: &str| refused(format!("{key}: {error}")))).collect();
        let parsed = parsed?;
        let encryptor = age::Encryptor::with_recipients(parsed.iter().map(|recipient| recipient as &dyn age::Recipient))
            .map_err(Error::internal)?;
        let writer = encryptor.wrap_output(spill.clone()).map_err(Error::internal)?;
        Ok(Self { writer: Some(writer), spill })
    }

    /// What is to be stored next, now that these bytes have come.
    pub fn push(&mut self, bytes: Bytes) -> Result<Bytes> {
        let Some(writer) = &mut self.writer else { return Ok(bytes) };
        writer.write_all(&bytes).map_err(Error::internal)?;
        Ok(self.spill.take())
    }

    /// What is to be stored last.
    pub fn finish(self) -> Result<Bytes> {
        if let Some(writer) = self.writer {
            writer.finish().map_err(Error::internal)?;
        }
        Ok(self.spill.take())
    }
}

/// Private keys.
#[derive(Default)]
pub struct Identities(Vec<Box<dyn age::Identity + Send + Sync>>);

impl Identities {
    /// Those of a file as `age-keygen` and `mdl-worker backup keygen` make it; none without a file.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let Some(file) = file else { return Ok(Self::default()) };
        let cannot =
            |why: &dyn std::fmt::Display| unequipped(format!("Cannot read the private keys in {}: {why}", file.display()));
        let content = std::fs::read(file).map_err(|error| cannot(&error))?;
        let parsed = age::IdentityFile::from_buffer(content.as_slice()).map_err(|error| cannot(&error))?;
        parsed.into_identities().map(Self).map_err(|error| cannot(&error))
    }
}

/// A new pair of keys, as the text of an identity file: the private key, and the public one in a comment.
pub fn generate_identity() -> String {
    let identity = age::x25519::Identity::generate();
    format!("# public key: {}\n{}\n", identity.to_public(), identity.to_string().expose_secret())
}

/// Reads an object of a vault: gives what was sealed, and an error at its end at the latest if it is not what the manifest says.
pub struct Opened {
    name: String,
    expected: Sealed,
    reader: Pin<Box<dyn AsyncRead + Send>>,
    plain: Tally,
    source: Source,
}

/// What came from the vault so far.
#[derive(Clone, Default)]
struct Source(Arc<Mutex<(Tally, Option<object_store::Error>)>>);

impl Source {
    fn stored(&self) -> Digest {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.digest()
    }

    /// Why it stopped giving, if it did.
    fn failure(&self) -> Option<object_store::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.take()
    }
}

impl Opened {
    pub async fn new(vault: &Vault, object: &Sealed, recipients: &[String], keys: &Identities) -> Result<Self> {
        let name = format!("{} in {}", object.key, vault.name());
        let source = Source::default();
        let noted = source.clone();
        let stream = vault.read(&object.key).await?.map(move |piece| {
            let mut noted = noted.0.lock().unwrap_or_else(PoisonError::into_inner);
            match piece {
                Ok(bytes) => {
                    noted.0.add(&bytes);
                    Ok(bytes)
                }
                Err(error) => {
                    let told = io::Error::other(error.to_string());
                    noted.1 = Some(error);
                    Err(told)
                }
            }
        });
        let stored = StreamReader::new(stream.into_stream()).compat();
        let reader: Pin<Box<dyn AsyncRead + Send>> = if recipients.is_empty() {
            Box::pin(stored)
        } else {
            let decryptor = match age::Decryptor::new_async_buffered(futures::io::BufReader::with_capacity(PIECE, stored)).await {
                Ok(decryptor) => decryptor,
                Err(error) => return Err(failed(&name, &source, &error)),
            };
            match decryptor.decrypt_async(keys.0.iter().map(|key| key.as_ref() as &dyn age::Identity)) {
                Ok(reader) => Box::pin(reader),
                Err(age::DecryptError::NoMatchingKeys) => {
                    // Or the part that says for whom it is encrypted is damaged.
                    check_stored(vault, object, |_| ()).await?;
                    return Err(Error::invalid(
                        "",
                        Code::WrongCredentials,
                        format!(
                            "The backup is encrypted for {}, and MDL_BACKUP_IDENTITY_FILE has no key for it",
                            recipients.join(", ")
                        ),
                    ));
                }
                Err(error) => return Err(failed(&name, &source, &error)),
            }
        };
        Ok(Self { name, expected: object.clone(), reader, plain: Tally::default(), source })
    }

    /// The next bytes; none when that was all, and all was as it should be.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut piece = vec![0; PIECE];
        match self.reader.read(&mut piece).await {
            Ok(0) => {
                let (plain, stored) = (self.plain.digest(), self.source.stored());
                if plain != self.expected.plain || (stored != self.expected.stored && !self.expected.is_by_content()) {
                    return Err(other(&self.name, &self.expected, &stored));
                }
                Ok(None)
            }
            Ok(read) => {
                piece.truncate(read);
                self.plain.add(&piece);
                Ok(Some(piece.into()))
            }
            Err(error) => Err(failed(&self.name, &self.source, &error)),
        }
    }

    /// Reads to the end and keeps nothing: whether it is all there.
    pub async fn check(mut self, mut passed: impl FnMut(usize)) -> Result<()> {
        while let Some(piece) = self.next().await? {
            passed(piece.len());
        }
        Ok(())
    }
}

/// Whether an object of a vault has the bytes that were stored.
pub async fn check_stored(vault: &Vault, object: &Sealed, mut passed: impl FnMut(usize)) -> Result<()> {
    let mut pieces = vault.read(&object.key).await?;
    let mut tally = Tally::default();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Error::unavailable("the place of the backups", error))?;
        tally.add(&piece);
        passed(piece.len());
    }
    let stored = tally.digest();
    if stored == object.stored { Ok(()) } else { Err(other(&format!("{} in {}", object.key, vault.name()), object, &stored)) }
}

/// Whether an error says that something is missing in a vault or is not what was stored, and not only that it could not be read.
pub fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Invalid(problems) if problems.iter().all(|problem| problem.code == Code::Invalid))
}

/// Whether an error says nothing about a backup: a setting, a key or a program is missing that reading it takes, or a server does
/// not answer.
pub fn is_hindrance(error: &Error) -> bool {
    matches!(error, Error::Unavailable { .. }) || matches!(error, Error::Invalid(_) if !is_damage(error))
}

fn other(name: &str, expected: &Sealed, stored: &Digest) -> Error {
    refused(format!(
        "The backup is damaged: {name} has {} bytes with the SHA-256 {}, and its manifest says {} with {}",
        stored.bytes, stored.sha256, expected.stored.bytes, expected.stored.sha256
    ))
}

/// The vault stopped giving, or what it gave cannot be decrypted.
fn failed(name: &str, source: &Source, error: &dyn std::fmt::Display) -> Error {
    match source.failure() {
        Some(error) => Error::unavailable("the place of the backups", error),
        None => {
            // Some of its errors are several lines.
            let reason = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            refused(format!("The backup is damaged: {name} cannot be decrypted: {reason}"))
        }
    }
}
