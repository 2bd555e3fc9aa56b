//! The uploaded files: each content is sealed and stored once, under the SHA-256 of what it is, and listed by each backup that
//! has it. Between backups they are stored by themselves. Whoever stores them lists all in [`LATEST`], too, so that of two lists
//! that say different things of an object, which was sealed anew in between, that one is right.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use futures::StreamExt;
use tracing::{info, warn};

use super::make::{lock, newest};
use super::manifest::{FileEntry, Files, Manifest};
use super::progress::{Phase, Progress};
use super::refused;
use super::seal::{Digest, Identities, Opened, Sealed, Sealer, Tally, is_damage};
use super::vault::{LATEST, Vault};
use crate::app::App;
use crate::config::postgres_address;
use crate::error::{Error, Result, causes};
use crate::instruments;
use crate::storage::StoredFile;

/// Stores what the vault does not have yet, and the list of all under this name.
///
/// For a backup it is called after the snapshot of the database is taken: a file is stored before the row that names it is
/// committed, so none is missed.
pub async fn store(app: &App, list: String, vault: &Vault, recipients: &[String], progress: &Progress) -> Result<Files> {
    let start = Instant::now();
    let found = app.storage.list().await?;
    progress.begin(Phase::StoringFiles, Some(found.iter().map(|file| file.bytes).sum()));
    let mut known = Known::load(vault, recipients).await?;
    let mut entries = Vec::with_capacity(found.len());
    for file in found {
        let entry = match known.unchanged(&file) {
            Some(entry) => Some(entry),
            None => known.store(app, vault, &file, recipients).await?,
        };
        progress.advance(file.bytes);
        entries.extend(entry);
    }
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    let content = bytes::Bytes::from(serde_json::to_vec(&entries)?);
    let mut tally = Tally::default();
    tally.add(&content);
    let list = Sealed { key: list, plain: tally.digest(), stored: tally.digest() };
    vault.put(&list.key, content.clone()).await?;
    if list.key != LATEST {
        vault.put(LATEST, content).await?;
    }
    metrics::histogram!(instruments::BACKUP_SECONDS, "part" => "files").record(start.elapsed().as_secs_f64());
    Ok(Files { count: entries.len() as u64, bytes: entries.iter().map(|entry| entry.object.plain.bytes).sum(), list })
}

/// The files of [`LATEST`]; none where it was never written.
pub async fn latest(vault: &Vault) -> Result<Vec<FileEntry>> {
    let Some(content) = vault.get(LATEST).await? else { return Ok(Vec::new()) };
    serde_json::from_slice(&content).map_err(|error| refused(format!("{LATEST} in {} is damaged: {error}", vault.name())))
}

/// The same where those of a backup are of use without it.
async fn latest_if_readable(vault: &Vault) -> Result<Vec<FileEntry>> {
    match latest(vault).await {
        Err(error @ Error::Invalid(_)) => {
            warn!(error = causes(&error), "The files that were stored after the last backup are not known");
            Ok(Vec::new())
        }
        latest => latest,
    }
}

/// What the vault has already.
struct Known {
    /// The files of the newest backup and those stored after it, by their names in the file storage.
    entries: HashMap<String, FileEntry>,
    /// The objects that some backup lists or that were stored by this one, by their names in the vault.
    objects: HashMap<String, Sealed>,
}

impl Known {
    async fn load(vault: &Vault, recipients: &[String]) -> Result<Self> {
        let there: HashSet<String> = vault.list("files").await?.into_iter().map(|(key, _)| key).collect();
        let newest = match newest(vault).await? {
            Some(manifest) => manifest.file_entries(vault).await,
            None => Ok(Vec::new()),
        };
        let mut before = match newest {
            Err(error) if is_damage(&error) => {
                warn!(
                    error = causes(&error),
                    "The files of the last backup are not known, and are stored anew unless they are listed elsewhere"
                );
                Vec::new()
            }
            newest => newest?,
        };
        before.extend(latest_if_readable(vault).await?);
        // Sealed for others, or gone from the vault: to be stored again. Of what both list, the later has the last word.
        let before: Vec<_> =
            before.into_iter().filter(|entry| entry.recipients == recipients && there.contains(&entry.object.key)).collect();
        let objects = before.iter().map(|entry| (entry.object.key.clone(), entry.object.clone())).collect();
        Ok(Self { entries: before.into_iter().map(|entry| (entry.key.clone(), entry)).collect(), objects })
    }

    fn unchanged(&self, file: &StoredFile) -> Option<FileEntry> {
        let entry = self.entries.get(&file.key)?;
        (entry.object.plain.bytes == file.bytes && entry.modified_at == file.modified_at).then(|| entry.clone())
    }

    /// Stores the content of a file unless it is there; nothing if the file has gone meanwhile.
    async fn store(&mut self, app: &App, vault: &Vault, file: &StoredFile, recipients: &[String]) -> Result<Option<FileEntry>> {
        let Some(plain) = hash(app, &file.key).await? else { return Ok(None) };
        let key = object_key(&plain, recipients);
        let object = match self.objects.get(&key) {
            Some(object) => object.clone(),
            // Also where there is one of this name that no list knows: nobody has said that it is whole.
            None => match upload(app, vault, &file.key, &key, recipients, &plain).await? {
                Some(stored) => Sealed { key: key.clone(), plain, stored },
                None => return Ok(None),
            },
        };
        self.objects.insert(key, object.clone());
        Ok(Some(FileEntry { key: file.key.clone(), modified_at: file.modified_at, object, recipients: recipients.to_vec() }))
    }
}

/// By content, and by who can read it: sealed for others it is another object.
fn object_key(plain: &Digest, recipients: &[String]) -> String {
    if recipients.is_empty() {
        return format!("files/{}", plain.sha256);
    }
    let mut readers = Tally::default();
    readers.add(recipients.join(",").as_bytes());
    format!("files/{}-{}.age", plain.sha256, &readers.digest().sha256[..8])
}

async fn hash(app: &App, key: &str) -> Result<Option<Digest>> {
    let mut content = match app.storage.get(key).await {
        Ok(content) => content,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut tally = Tally::default();
    while let Some(piece) = content.next().await {
        tally.add(&piece.map_err(|error| Error::unavailable("the file storage", error))?);
    }
    Ok(Some(tally.digest()))
}

/// Nothing if the file is gone, or is no longer what was hashed.
async fn upload(app: &App, vault: &Vault, from: &str, to: &str, recipients: &[String], plain: &Digest) -> Result<Option<Digest>> {
    let mut content = match app.storage.get(from).await {
        Ok(content) => content,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut upload = vault.upload(to).await?;
    let mut tally = Tally::default();
    let passed = async {
        let mut sealer = Sealer::new(recipients)?;
        while let Some(piece) = content.next().await {
            let piece = piece.map_err(|error| Error::unavailable("the file storage", error))?;
            tally.add(&piece);
            let sealed = sealer.push(piece)?;
            if !sealed.is_empty() {
                upload.push(sealed).await?;
            }
        }
        let rest = sealer.finish()?;
        if rest.is_empty() { Ok(()) } else { upload.push(rest).await }
    };
    match passed.await {
        Ok(()) if tally.digest() == *plain => upload.finish().await.map(Some),
        passed => {
            upload.abort().await;
            passed.map(|()| None)
        }
    }
}

/// Reads these files of a backup to their ends: whether all are there, and what they were. Those that are not make room for the
/// next backup to store them anew.
pub async fn check(app: &App, vault: &Vault, entries: &[FileEntry], keys: &Identities, progress: &Progress) -> Result<()> {
    progress.begin(Phase::Checking, Some(entries.iter().map(|entry| entry.object.plain.bytes).sum()));
    let (mut seen, mut damaged, mut first) = (HashSet::new(), HashSet::new(), None);
    for entry in entries.iter().filter(|entry| seen.insert(&entry.object.key)) {
        match read(vault, entry, keys, progress).await {
            Ok(()) => {}
            Err(error) if is_damage(&error) => {
                damaged.insert(&entry.object.key);
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    let Some(first) = first else { return Ok(()) };
    let damaged_entries = entries.iter().filter(|entry| damaged.contains(&entry.object.key));
    if let Err(error) = make_room(app, vault, damaged_entries).await {
        warn!(
            error = causes(&error),
            place = vault.name(),
            "Damaged files of backups stay where they are, until they are looked at again"
        );
    }
    Err(match damaged.len() - 1 {
        0 => first,
        1 => refused(format!("{first}; and so is 1 more file")),
        more => refused(format!("{first}; and so are {more} more files")),
    })
}

async fn read(vault: &Vault, entry: &FileEntry, keys: &Identities, progress: &Progress) -> Result<()> {
    let opened = Opened::new(vault, &entry.object, &entry.recipients, keys).await?;
    opened.check(|bytes| progress.advance(bytes as u64)).await
}

/// Removes damaged objects whose contents the file storage still has: the next backup finds them missing, and stores them anew.
/// The others stay, since some of what is in them may be read by hand.
async fn make_room(app: &App, vault: &Vault, damaged: impl Iterator<Item = &FileEntry>) -> Result<()> {
    // Backups are made elsewhere.
    let Some(url) = &app.config.backup.database_url else { return Ok(()) };
    // One that is being made may count on them.
    let _alone = lock(&postgres_address("MDL_BACKUP_DATABASE_URL", url)?).await?;
    for entry in damaged {
        if hash(app, &entry.key).await?.is_some_and(|plain| plain == entry.object.plain) {
            vault.delete(&entry.object.key).await?;
            warn!(file = entry.key, place = vault.name(), "Removed what was damaged of a file: the next backup stores it anew");
        }
    }
    Ok(())
}

/// The files that a restore is to bring back.
pub struct Plan {
    missing: Vec<FileEntry>,
    /// Those that are known to be gone.
    lost: Vec<String>,
}

impl Plan {
    /// What becomes of them if those that are there are whole.
    pub fn outlook(self) -> Brought {
        Brought { count: self.missing.len() as u64, lost: self.lost, failed: Vec::new() }
    }
}

/// What became of uploaded files that the file storage did not have any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brought {
    /// Those that it has again.
    pub count: u64,
    /// Those that are gone: damaged or missing in the backup.
    pub lost: Vec<String>,
    /// Those that may come another time: the backup's place or the file storage did not serve.
    pub failed: Vec<String>,
}

/// The files of a backup, and of those stored after it, that are wanted and that the file storage has not. That some of them, or
/// the list of them, are damaged or missing in the vault is told in a warning, and keeps nobody from the rest.
pub async fn plan(app: &App, vault: &Vault, manifest: &Manifest, wanted: impl Fn(&str) -> bool) -> Result<Plan> {
    let there: HashMap<String, u64> = app.storage.list().await?.into_iter().map(|file| (file.key, file.bytes)).collect();
    let mut missing = match manifest.file_entries(vault).await {
        Ok(entries) => entries,
        Err(error @ Error::Unavailable { .. }) => return Err(error),
        Err(error) => {
            warn!(
                error = causes(&error),
                "The list of the uploaded files of this backup cannot be read: only those are brought back that the place's {LATEST} lists"
            );
            Vec::new()
        }
    };
    let listed: HashSet<String> = missing.iter().map(|entry| entry.key.clone()).collect();
    missing.extend(latest_if_readable(vault).await?.into_iter().filter(|entry| !listed.contains(&entry.key)));
    missing.retain(|entry| wanted(&entry.key) && there.get(&entry.key) != Some(&entry.object.plain.bytes));
    let mut lost = Vec::new();
    if !missing.is_empty() {
        let stored: HashSet<String> = vault.list("files").await?.into_iter().map(|(key, _)| key).collect();
        missing.retain(|entry| {
            let is_stored = stored.contains(&entry.object.key);
            if !is_stored {
                warn!(file = entry.key, place = vault.name(), "A file is missing in the backup, and is not brought back");
                lost.push(entry.key.clone());
            }
            is_stored
        });
    }
    Ok(Plan { missing, lost })
}

/// Brings them back, but for those that are damaged or cannot be read, each of which is told of in a warning.
pub async fn restore(app: &App, vault: &Vault, plan: Plan, keys: &Identities, progress: &Progress) -> Brought {
    let Plan { missing, lost } = plan;
    progress.begin(Phase::RestoringFiles, Some(missing.iter().map(|entry| entry.object.plain.bytes).sum()));
    let mut brought = Brought { count: 0, lost, failed: Vec::new() };
    for entry in missing {
        match bring(app, vault, &entry, keys).await {
            Ok(()) => {
                info!(file = entry.key, "Brought a file back");
                brought.count += 1;
            }
            Err(error) => {
                warn!(error = causes(&error), file = entry.key, place = vault.name(), "A file could not be brought back");
                let may_come = matches!(error, Error::Unavailable { .. });
                if may_come { &mut brought.failed } else { &mut brought.lost }.push(entry.key.clone());
            }
        }
        progress.advance(entry.object.plain.bytes);
    }
    brought
}

async fn bring(app: &App, vault: &Vault, entry: &FileEntry, keys: &Identities) -> Result<()> {
    let opened = Opened::new(vault, &entry.object, &entry.recipients, keys).await?;
    // The storage would say of the vault's error only that the upload broke off.
    let mut broken = None;
    let content = futures::stream::try_unfold((opened, &mut broken), async |(mut opened, broken)| match opened.next().await {
        Ok(piece) => Ok(piece.map(|piece| (piece, (opened, broken)))),
        Err(error) => Err(refused(broken.insert(error).to_string())),
    });
    let put = app.storage.put(&entry.key, std::pin::pin!(content), entry.object.plain.bytes).await;
    match (put, broken) {
        (Err(_), Some(error)) => Err(error),
        (put, _) => put.map(drop),
    }
}
