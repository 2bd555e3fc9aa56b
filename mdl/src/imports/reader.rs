//! Runs a parser on a stored file, beside the asynchronous work: entries come out in chunks through a bounded channel, so that
//! a fast parser waits for a slow database and memory stays flat.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::entry::{Draft, Entry, Issue, Place, codes};
use super::input::{Halt, Text};
use super::run::file_is_gone;
use super::{Format, Import, Severity, formats};
use crate::app::App;
use crate::error::{Error, Result};

/// Entries in one message of the channel, and messages that may wait in it.
const CHUNK: usize = 250;
const WAITING: usize = 4;

/// Some entries of a file, in its order.
#[derive(Debug, Default)]
pub struct Chunk {
    pub entries: Vec<Entry>,
    /// About places that belong to no entry.
    pub warnings: Vec<Issue>,
}

/// A file being read.
pub struct Reading {
    chunks: mpsc::Receiver<Chunk>,
    parser: JoinHandle<Result<(), Halt>>,
    /// Set before anything is read as this format.
    format: Arc<OnceLock<Format>>,
}

impl Reading {
    /// Starts reading the import's file from its beginning.
    pub async fn start(app: &App, import: &Import, bytes_read: Arc<AtomicU64>) -> Result<Self> {
        let stored = match app.storage.get(&import.storage_key).await {
            Err(Error::NotFound { .. }) => return Err(file_is_gone()),
            found => SyncIoBridge::new(StreamReader::new(found?)),
        };
        let (sender, chunks) = mpsc::channel(WAITING);
        let limits = app.config.imports.clone();
        let hints = formats::Hints {
            format: import.format,
            file_name: import.file_name.clone(),
            namespace: import.namespace.clone(),
            max_document_bytes: limits.max_document_bytes,
        };
        let format = Arc::new(OnceLock::new());
        let told = format.clone();
        let parser = tokio::task::spawn_blocking(move || {
            let mut sink = Sink::new(sender, limits.max_rows);
            let mut text = Text::open(stored, bytes_read, &limits).map_err(Halt::Storage)?;
            let format = formats::tell(&mut text, &hints)?;
            told.get_or_init(|| format);
            formats::read(text, format, &hints, &mut sink)?;
            sink.flush()
        });
        Ok(Self { chunks, parser, format })
    }

    /// What the file is written in, as far as that has been told.
    pub fn format(&self) -> Option<Format> {
        self.format.get().copied()
    }

    /// The next entries, or how the reading ended.
    pub async fn next(&mut self) -> Result<Next> {
        if let Some(chunk) = self.chunks.recv().await {
            return Ok(Next::Chunk(chunk));
        }
        match (&mut self.parser).await.map_err(Error::internal)? {
            Ok(()) => Ok(Next::End),
            Err(Halt::Refused(issue)) => Ok(Next::Refused(issue)),
            Err(Halt::Storage(error)) => Err(Error::unavailable("the file storage", error)),
            // Only dropping this reading stops the parser.
            Err(Halt::Stopped) => Err(Error::internal("the parser stopped without being asked")),
        }
    }
}

/// What comes next out of a file.
pub enum Next {
    Chunk(Chunk),
    /// The file has been read to its end.
    End,
    /// The file cannot be read further, and is no good.
    Refused(Box<Issue>),
}

/// Where parsers put the entries.
pub struct Sink {
    sender: mpsc::Sender<Chunk>,
    chunk: Chunk,
    seen: Seen,
    count: u64,
    max_rows: u64,
}

impl Sink {
    pub fn new(sender: mpsc::Sender<Chunk>, max_rows: u64) -> Self {
        Self { sender, chunk: Chunk::default(), seen: Seen::default(), count: 0, max_rows }
    }

    /// Hands over an entry. The second of two with the same key becomes an error.
    pub fn entry(&mut self, mut entry: Entry) -> Result<(), Halt> {
        self.count += 1;
        if self.count > self.max_rows {
            let message = format!("Has more than {} entries, the most that one file may have", self.max_rows);
            return Err(Issue::refusal(entry.place, codes::TOO_MANY, message).into());
        }
        if let Some(draft) = &entry.draft
            && let Some(first) = self.seen.insert(draft, &entry.place, self.count)
        {
            let issue = entry.issue(Severity::Error, "", codes::DUPLICATE, format!("The file has this key before, at {first}"));
            entry.issues.push(issue);
            entry.draft = None;
        }
        self.chunk.entries.push(entry);
        if self.chunk.entries.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Reports something odd that belongs to no entry.
    pub fn warn(&mut self, place: Place, code: &'static str, message: impl Into<String>, raw: Option<String>) {
        self.chunk.warnings.push(Issue { raw_value: raw, ..Issue::file(Severity::Warning, place, code, message) });
    }

    pub fn flush(&mut self) -> Result<(), Halt> {
        if self.chunk.entries.is_empty() && self.chunk.warnings.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(std::mem::take(&mut self.chunk)).map_err(|_| Halt::Stopped)
    }
}

/// The keys that a file has had so far, as 64-bit hashes: a million take thirty megabytes, and the chance that any two of
/// them meet by accident is one in forty million. The hash is keyed at random, so nobody can make them meet on purpose.
#[derive(Default)]
struct Seen {
    hasher: RandomState,
    /// Line, or 0, and ordinal of the first entry with the key.
    first: HashMap<u64, (u32, u32)>,
}

impl Seen {
    /// The place of the first entry with this key, when this is not it.
    fn insert(&mut self, draft: &Draft, place: &Place, ordinal: u64) -> Option<String> {
        let hash = match draft {
            Draft::Metric(metric) => self.hasher.hash_one((0, &metric.key)),
            Draft::Domain(domain) => self.hasher.hash_one((1, &domain.key)),
            Draft::Objective(objective) => self.hasher.hash_one((2, &objective.key)),
        };
        let line = place.line.and_then(|line| u32::try_from(line).ok()).unwrap_or(0);
        let ordinal = u32::try_from(ordinal).unwrap_or(u32::MAX);
        match self.first.entry(hash) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert((line, ordinal));
                None
            }
            std::collections::hash_map::Entry::Occupied(first) => Some(match *first.get() {
                (0, ordinal) => format!("entry {ordinal}"),
                (line, _) => format!("line {line}"),
            }),
        }
    }
}
