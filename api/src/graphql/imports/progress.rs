//! How far an import is, for those who watch it.

use std::time::Duration;

use async_graphql::{ID, Result, SimpleObject};
use chrono::{DateTime, Utc};
use futures::{Stream, stream};
use mdl::error::Error;
use mdl::ids::{ImportId, TenantId};
use mdl::imports::{self, store};
use mdl::{App, Result as MdlResult};

use super::enums::ImportState;
use crate::graphql::error::top_level;
use crate::graphql::global_id::{Kind, encode};

/// How often an import that runs is looked at. It writes down how far it is four times a second.
const LOOK: Duration = Duration::from_millis(500);

/// How far an import is. Counts are of entries.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
pub struct ImportProgress {
    /// The id of the import.
    id: ID,
    /// Where it stands.
    state: ImportState,
    /// Bytes of the file that were read.
    bytes_read: i64,
    /// Bytes of the file as it was sent.
    content_bytes: i64,
    /// Entries of the file; null until they were counted.
    rows_total: Option<i64>,
    /// Entries that were worked on.
    rows_done: i64,
    created_count: i64,
    updated_count: i64,
    unchanged_count: i64,
    failed_count: i64,
    warning_count: i64,
    /// Why it failed.
    error: Option<String>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
}

impl From<imports::Import> for ImportProgress {
    fn from(import: imports::Import) -> Self {
        Self {
            id: encode(Kind::Import, import.id.0),
            state: import.state.into(),
            bytes_read: import.bytes_read,
            content_bytes: import.content_bytes,
            rows_total: import.rows_total,
            rows_done: import.rows_done,
            created_count: import.created_count,
            updated_count: import.updated_count,
            unchanged_count: import.unchanged_count,
            failed_count: import.failed_count,
            warning_count: import.warning_count,
            error: import.error,
            finished_at: import.finished_at,
        }
    }
}

impl ImportProgress {
    /// How far it is now, and again whenever that has changed, until it has ended. Each is the whole truth of its moment: who comes
    /// back after an interruption has missed nothing.
    pub async fn watch(app: App, tenant: TenantId, id: ImportId) -> MdlResult<impl Stream<Item = Result<Self>> + Send + use<>> {
        let first = read(&app, tenant, id).await?;
        Ok(stream::unfold(Some((app, first.clone(), Some(first))), move |watching| async move {
            let (app, last, due) = watching?;
            let now = match due {
                Some(first) => Ok(first),
                None => next(&app, tenant, id, &last).await,
            };
            match now {
                Ok(now) => {
                    let ended = now.finished_at.is_some();
                    Some((Ok(now.clone()), (!ended).then_some((app, now, None))))
                }
                Err(error) => Some((Err(top_level(error)), None)),
            }
        }))
    }
}

/// Waits until it has moved.
async fn next(app: &App, tenant: TenantId, id: ImportId, last: &ImportProgress) -> MdlResult<ImportProgress> {
    loop {
        tokio::time::sleep(LOOK).await;
        let now = read(app, tenant, id).await?;
        if now != *last {
            return Ok(now);
        }
    }
}

async fn read(app: &App, tenant: TenantId, id: ImportId) -> MdlResult<ImportProgress> {
    let snapshot = app.db.snapshot(tenant);
    let import = snapshot.read(async |conn| store::by_id(conn, tenant, id).await).await?;
    snapshot.finish().await;
    Ok(import.ok_or_else(|| Error::unknown_id("import"))?.into())
}
