//! What people do to imports: start one, and stop it. The work itself is [`super::run`].

use bytes::Bytes;
use chrono::Utc;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::Stream;
use serde_json::json;
use uuid::Uuid;

use super::{Format, Import, ImportCatalog, ImportState, Mode, formats, store};
use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::error::{BoxError, Code, Error, Result};
use crate::events::kinds::IMPORT_CANCELLED;
use crate::ids::{ImportId, JobId, TenantId};
use crate::jobs::{self, Enqueue};
use crate::schema::{imports, jobs as ledger};
use crate::storage::Stored;
use crate::text::Problems;
use crate::{audit, events};

/// Longest text that is given inline, in bytes. Half of the default `MDL_MAX_BODY_BYTES`, which bounds the request around it: JSON writes
/// each quote and line end of the text with two bytes.
const MAX_INLINE: usize = 512 * 1024;

/// How a file is to be imported.
#[derive(Debug, Clone, PartialEq)]
pub struct Upload {
    pub file_name: Option<String>,
    /// Told from the name and the content when not given.
    pub format: Option<Format>,
    pub mode: Mode,
    /// Find out what would change, and change nothing.
    pub dry_run: bool,
    /// For metric-hub files; the file's name without its ending when not given.
    pub namespace: Option<String>,
    /// Why, for the history of the metrics.
    pub message: Option<String>,
}

impl Default for Upload {
    fn default() -> Self {
        Self { file_name: None, format: None, mode: Mode::AllOrNothing, dry_run: false, namespace: None, message: None }
    }
}

#[derive(Insertable)]
#[diesel(table_name = imports, treat_none_as_default_value = false)]
struct NewImport<'a> {
    tenant_id: TenantId,
    id: ImportId,
    job_id: JobId,
    format: Option<Format>,
    mode: Mode,
    dry_run: bool,
    file_name: Option<&'a str>,
    namespace: Option<&'a str>,
    message: Option<&'a str>,
    storage_key: &'a str,
    content_bytes: i64,
    content_sha256: &'a [u8],
    requested_by: Option<Uuid>,
}

/// Stores a file and enqueues its import. When the same content is being imported in the same way already, that import is the
/// answer, and nothing is added.
///
/// Fails with problems of the fields `file` (too long, or broken off), `file_name`, `namespace` and `message`.
pub async fn start<S, E>(app: &App, actor: &Actor, content: S, mut upload: Upload) -> Result<Import>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<BoxError>,
{
    actor.require(Permission::CatalogImport)?;
    check(&upload)?;
    let by_name = upload.file_name.as_deref().and_then(formats::by_name);
    if upload.namespace.is_none() && upload.format.or(by_name) == Some(Format::MetricHub) {
        upload.namespace = upload.file_name.as_deref().and_then(formats::file_stem);
    }

    let id = ImportId::new();
    let key = format!("{}/imports/{id}", actor.tenant);
    let stored = app.storage.put(&key, content, app.config.imports.max_bytes).await?;
    let result = match stored.bytes {
        0 => Err(Error::invalid("file", Code::Required, "Is empty")),
        _ => insert(app, actor, id, &key, &stored, &upload).await,
    };
    // Its row names the file. Without the row, nobody would ever find or remove it.
    if !matches!(&result, Ok(import) if import.id == id) {
        app.storage.delete(&key).await?;
    }
    result
}

/// As [`start`], with the content given as text: problems of the content are those of the field `text`.
pub async fn start_inline(app: &App, actor: &Actor, text: String, upload: Upload) -> Result<Import> {
    actor.require(Permission::CatalogImport)?;
    if text.len() > MAX_INLINE {
        let message = format!("Is {} bytes long; at most {MAX_INLINE} may be given inline. Upload a file instead", text.len());
        return Err(Error::invalid("text", Code::TooLong, message));
    }
    let content = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(text))]);
    start(app, actor, content, upload).await.map_err(|error| match error {
        Error::Invalid(mut problems) => {
            for name in problems.iter_mut().flat_map(|problem| &mut problem.field).filter(|name| *name == "file") {
                *name = "text".to_owned();
            }
            Error::Invalid(problems)
        }
        other => other,
    })
}

/// Stops an import. One that waits is cancelled at once; one that runs, within a second: entry by entry what was applied
/// stays, all-or-nothing nothing does. One that has ended is left as it is.
pub async fn cancel(app: &App, actor: &Actor, id: ImportId) -> Result<Import> {
    actor.require(Permission::CatalogImport)?;
    let tx = app.db.begin(actor.tenant).await?;
    let row = imports::table.filter(imports::tenant_id.eq(actor.tenant).and(imports::id.eq(id)));
    let state: Option<ImportState> = row.select(imports::state).for_update().first(&mut &*tx).await.optional()?;
    let Some(state) = state else { return Err(Error::unknown_id("import")) };
    let now = Utc::now();
    match state {
        ImportState::Queued => {
            let ended = (imports::state.eq(ImportState::Cancelled), imports::finished_at.eq(now));
            diesel::update(row)
                .set((ended, imports::cancel_requested_at.eq(now), imports::updated_at.eq(now)))
                .execute(&mut &*tx)
                .await?;
        }
        ImportState::Running => {
            diesel::update(row.filter(imports::cancel_requested_at.is_null()))
                .set(imports::cancel_requested_at.eq(now))
                .execute(&mut &*tx)
                .await?;
        }
        ImportState::Succeeded | ImportState::Failed | ImportState::Cancelled => {}
    }
    if matches!(state, ImportState::Queued | ImportState::Running) {
        audit::record(&tx, actor, "import.cancel_requested", ("import", id.0), &json!({})).await?;
    }
    let import = store::by_id(&tx, actor.tenant, id).await?.ok_or_else(|| Error::unknown_id("import"))?;
    if state == ImportState::Queued {
        events::push(&tx, actor, IMPORT_CANCELLED, id.0, &super::run::payload(&import)).await?;
    }
    tx.commit().await?;
    if state == ImportState::Queued {
        app.storage.delete(&import.storage_key).await?;
    }
    Ok(import)
}

/// Adds the row and the job, or finds the import that does the same work.
async fn insert(app: &App, actor: &Actor, id: ImportId, key: &str, stored: &Stored, upload: &Upload) -> Result<Import> {
    // The import that is in the way may end between the two statements: then there is none in the way any more.
    for _ in 0..3 {
        let tx = app.db.begin(actor.tenant).await?;
        let how = Enqueue { unique_key: Some(id.to_string()), ..Enqueue::default() };
        let job = jobs::enqueue(&tx, actor, &ImportCatalog { import: id }, &how).await?;
        let job_id = job.ok_or_else(|| Error::internal("a new import has a job already"))?;
        let row = NewImport {
            tenant_id: actor.tenant,
            id,
            job_id,
            format: upload.format,
            mode: upload.mode,
            dry_run: upload.dry_run,
            file_name: upload.file_name.as_deref(),
            namespace: upload.namespace.as_deref(),
            message: upload.message.as_deref(),
            storage_key: key,
            content_bytes: stored.bytes as i64,
            content_sha256: &stored.sha256,
            requested_by: actor.user().map(|user| user.0),
        };
        let inserted: Option<Import> = diesel::insert_into(imports::table)
            .values(&row)
            .on_conflict_do_nothing()
            .returning(Import::as_returning())
            .get_result(&mut &*tx)
            .await
            .optional()?;
        if let Some(import) = inserted {
            let details = json!({
                "fileName": import.file_name, "bytes": import.content_bytes, "mode": import.mode, "dryRun": import.dry_run,
            });
            audit::record(&tx, actor, "import.requested", ("import", id.0), &details).await?;
            tx.commit().await?;
            return Ok(import);
        }
        if let Some(running) = same_work(&tx, actor.tenant, &row).await? {
            return Ok(running);
        }
    }
    Err(Error::unavailable("the import queue", "the same file was imported and ended several times in between"))
}

async fn same_work(mut conn: &AsyncPgConnection, tenant: TenantId, row: &NewImport<'_>) -> Result<Option<Import>> {
    Ok(imports::table
        .filter(imports::tenant_id.eq(tenant))
        .filter(imports::content_sha256.eq(row.content_sha256))
        .filter(imports::mode.eq(row.mode).and(imports::dry_run.eq(row.dry_run)))
        .filter(imports::namespace.is_not_distinct_from(row.namespace))
        .filter(imports::format.is_not_distinct_from(row.format))
        .filter(imports::state.eq_any([ImportState::Queued, ImportState::Running]))
        .select(Import::as_select())
        .first(&mut conn)
        .await
        .optional()?)
}

fn check(upload: &Upload) -> Result<()> {
    let mut problems = Problems::default();
    if let Some(name) = &upload.file_name {
        problems.line("file_name", name, 300);
    }
    if let Some(namespace) = &upload.namespace {
        crate::metrics::definition::check_key(&mut problems, "namespace", namespace);
        problems.line("namespace", namespace, 100);
    }
    if let Some(message) = &upload.message {
        problems.text("message", message, 2_000);
    }
    problems.check()
}

/// What became of the job of an import, for the watch over a running one.
pub(super) async fn cancel_asked(mut conn: &AsyncPgConnection, tenant: TenantId, id: ImportId) -> Result<bool> {
    let asked: Option<(bool, Option<bool>)> = imports::table
        .left_join(ledger::table.on(ledger::tenant_id.eq(imports::tenant_id).and(ledger::id.nullable().eq(imports::job_id))))
        .filter(imports::tenant_id.eq(tenant).and(imports::id.eq(id)))
        .select((imports::cancel_requested_at.is_not_null(), ledger::cancel_requested_at.is_not_null().nullable()))
        .first(&mut conn)
        .await
        .optional()?;
    Ok(asked.is_none_or(|(import, job)| import || job == Some(true)))
}
