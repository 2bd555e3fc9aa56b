//! Exports: the whole catalog of a tenant as a text, which an import makes the same catalog of.
//!
//! The actors: [`start`] begins a read snapshot and a task that goes through it page by page (`pages`); `entries` says of each row
//! what `imports::draft` would read of it; `text` writes that. The text goes through a channel with few places, so a
//! slow reader slows the task down, and no more than a page of the catalog is in memory. Dropping the stream ends the task and its
//! transaction. A stream whose last item is an error is not the whole catalog.

mod entries;
mod node;
mod pages;
mod text;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, warn};

use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::db::Snapshot;
use crate::error::{Code, Error, Result, causes};
use pages::{Cursor, Page};
use text::Text;

/// Bytes of text in one piece, or the size of an entry, if that is more.
const PIECE: usize = 64 * 1024;
/// Pieces that may wait for the reader.
const WAITING: usize = 4;

/// What an export is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Ndjson,
    Yaml,
}

impl Format {
    pub const ALL: [Format; 3] = [Self::Json, Self::Ndjson, Self::Yaml];

    /// Its name, and the ending of its files.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Ndjson => "ndjson",
            Format::Yaml => "yaml",
        }
    }

    /// The format of this name.
    ///
    /// ```
    /// use mdl::exports::Format;
    /// assert_eq!(Format::parse("yaml").unwrap(), Format::Yaml);
    /// let error = Format::parse("csv").unwrap_err().to_string();
    /// assert_eq!(error, "format: There is no format \"csv\" of exports: the formats are json, ndjson, yaml");
    /// ```
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            let message = format!("There is no format {name:?} of exports: the formats are {known}");
            Error::invalid("format", Code::Invalid, message)
        })
    }

    /// The format that a file's ending tells.
    ///
    /// ```
    /// use mdl::exports::Format;
    /// assert_eq!(Format::of_file("there/catalog.YML".as_ref()), Some(Format::Yaml));
    /// assert_eq!(Format::of_file("catalog.csv".as_ref()), None);
    /// ```
    pub fn of_file(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_lowercase().as_str() {
            "json" => Some(Format::Json),
            "ndjson" | "jsonl" => Some(Format::Ndjson),
            "yaml" | "yml" => Some(Format::Yaml),
            _ => None,
        }
    }
}

/// How long an export may take, which holds a transaction and a connection all the while.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the reader to take a piece.
    pub piece: Duration,
    /// Altogether.
    pub whole: Duration,
}

/// A catalog on its way: pieces of its text in order.
pub type Export = BoxStream<'static, Result<Bytes>>;

/// Begins to write the catalog of the actor's tenant. All of it is of one moment, which is before this returns. Without `patience`
/// it takes as long as its reader.
pub async fn start(app: &App, actor: &Actor, format: Format, patience: Option<Patience>) -> Result<Export> {
    actor.require(Permission::CatalogRead)?;
    let snapshot = app.db.snapshot(actor.tenant);
    // Here, so that somebody is told when PostgreSQL is away.
    let first = Cursor::BEGINNING.page(&snapshot).await?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let out = Out { sender, patience: patience.map(|patience| patience.piece) };
    let whole = patience.map(|patience| patience.whole);
    let task = tokio::spawn(run(snapshot, first, format, out, whole).in_current_span());
    let reading = (receiver, AbortOnDropHandle::new(task));
    Ok(stream::try_unfold(reading, async |(mut receiver, task)| match receiver.recv().await {
        Some(Ok(Piece::Text(text))) => Ok(Some((Bytes::from(text), (receiver, task)))),
        Some(Ok(Piece::End)) => Ok(None),
        Some(Err(error)) => Err(error),
        // The task went away, or found no place for its error.
        None => Err(Error::internal("the export broke off")),
    })
    .boxed())
}

enum Piece {
    Text(String),
    /// The catalog is whole.
    End,
}

/// Where the pieces go.
struct Out {
    sender: mpsc::Sender<Result<Piece>>,
    /// How long the reader may leave a piece.
    patience: Option<Duration>,
}

impl Out {
    async fn send(&self, piece: Piece) -> Result<()> {
        let sending = self.sender.send(Ok(piece));
        let sent = match self.patience {
            Some(patience) => timeout(patience, sending).await.map_err(|_| {
                let why = format!("it took nothing of an export for {} s", patience.as_secs());
                Error::unavailable("the reader", why)
            })?,
            None => sending.await,
        };
        sent.map_err(|_| Error::unavailable("the reader", "it went away"))
    }
}

/// Writes the catalog, and tells the reader if that fails.
async fn run(snapshot: Snapshot, first: Page, format: Format, out: Out, whole: Option<Duration>) {
    let writing = write(snapshot, first, format, &out);
    let written = match whole {
        Some(whole) => timeout(whole, writing).await.unwrap_or_else(|_| {
            let why = format!("it was not read within {} s", whole.as_secs());
            Err(Error::unavailable("the rest of an export", why))
        }),
        None => writing.await,
    };
    if let Err(error) = written {
        warn!(error = causes(&error), "An export broke off");
        // A reader that is too slow for this finds that there is no end.
        let _told = out.sender.try_send(Err(error));
    }
}

async fn write(snapshot: Snapshot, first: Page, format: Format, out: &Out) -> Result<()> {
    let mut text = Text::new(format);
    let mut page = first;
    loop {
        text.list(page.list);
        for entry in page.entries {
            text.entry(&entry?)?;
            if text.waiting() >= PIECE {
                out.send(Piece::Text(text.take())).await?;
            }
        }
        match page.next {
            Some(next) => page = next.page(&snapshot).await?,
            None => break,
        }
    }
    snapshot.finish().await;
    text.end();
    if text.waiting() > 0 {
        out.send(Piece::Text(text.take())).await?;
    }
    out.send(Piece::End).await
}
