//! The job: from a stored file to what it changes, however often a worker dies on the way.

use std::sync::atomic::Ordering;

use chrono::Utc;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::apply::{Applied, Log, Session, Tally};
use super::entry::{Entry, Kind};
use super::operations::cancel_asked;
use super::reader::{Next, Reading};
use super::survey::{Refusal, Survey, survey};
use super::watch::{Progress, Watch};
use super::{Format, GivenUp, Import, ImportState, Mode, store};
use crate::actor::Actor;
use crate::app::App;
use crate::audit;
use crate::error::{Code, Error, Result, causes};
use crate::events;
use crate::events::kinds::{IMPORT_CANCELLED, IMPORT_FAILED};
use crate::events::payloads::ImportPayload;
use crate::ids::{ImportId, TenantId};
use crate::schema::imports;

/// How a run of the job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The import has succeeded or failed, now or before; there is nothing left to do.
    Finished,
    /// Somebody cancelled the import.
    Cancelled,
    /// Another worker has it still: a slow one, or one that stands still.
    Elsewhere,
}

/// Runs an import to its end, or goes on with it. May run any number of times, and in two places at once.
///
/// `worker` fires when the job is cancelled or the worker stops; which of the two it was, the database knows. An error means
/// that another attempt may succeed, unless it is [`Error::Invalid`]: then, and on the `last_attempt`, the import is given up. One
/// that was given up before is opened again, as the job is only run anew if somebody retries it.
pub async fn run(app: &App, tenant: TenantId, id: ImportId, worker: CancellationToken, last_attempt: bool) -> Result<End> {
    let result = attempt(app, tenant, id, &worker).await;
    if let Err(error) = &result
        && (last_attempt || matches!(error, Error::Invalid(_)))
        && !worker.is_cancelled()
    {
        give_up(app, tenant, id, &format!("It could not be finished: {error}")).await?;
    }
    result
}

/// Ends an import that nothing will run any more unless somebody retries its job. What it has committed stays, and so does its file.
pub async fn give_up(app: &App, tenant: TenantId, id: ImportId, why: &str) -> Result<()> {
    if end(app, tenant, id, ImportState::Failed, Some(why)).await? {
        warn!(import = %id, why, "Gave up on an import");
    }
    Ok(())
}

async fn attempt(app: &App, tenant: TenantId, id: ImportId, worker: &CancellationToken) -> Result<End> {
    let Some(mut session) = Session::open(app, tenant, id).await? else { return Ok(End::Elsewhere) };
    let started = session.start().await?;
    let snapshot = app.db.snapshot(tenant);
    let import = snapshot.read(async |conn| store::by_id(conn, tenant, id).await).await?;
    snapshot.finish().await;
    let Some(import) = import else { return Ok(End::Finished) };
    let Some((rows_done, log)) = started else {
        return match (import.state, import.given_up) {
            (_, Some(GivenUp::ForGood)) => Err(file_is_gone()),
            (ImportState::Cancelled, _) => Ok(End::Cancelled),
            _ => Ok(End::Finished),
        };
    };
    session.serve(&import);

    let watch = Watch::start(app, &import, worker);
    let mut work = Work { app, import: &import, session, log, rows_done, progress: &watch.progress };
    let worked = tokio::select! {
        biased;
        () = watch.stopped() => None,
        result = work.run() => Some(result),
    };
    if let Some(result) = worked {
        drop(watch);
        result?;
        remove_file(app, &import).await;
        return Ok(End::Finished);
    }
    // A transaction that is still open may have the import's row, which `end` writes to.
    drop(work);
    drop(watch);
    let snapshot = app.db.snapshot(tenant);
    let asked = snapshot.read(async |conn| cancel_asked(conn, tenant, id).await).await?;
    snapshot.finish().await;
    if !asked {
        return Err(Error::unavailable("the worker", "it is stopping; another one goes on with the import"));
    }
    end(app, tenant, id, ImportState::Cancelled, None).await?;
    remove_file(app, &import).await;
    Ok(End::Cancelled)
}

/// One attempt at an import.
struct Work<'a> {
    app: &'a App,
    import: &'a Import,
    session: Session,
    log: Log,
    /// Entries that earlier attempts have committed.
    rows_done: i64,
    progress: &'a Progress,
}

impl Work<'_> {
    async fn run(&mut self) -> Result<()> {
        let survey = match survey(self.app, self.import, self.progress.bytes_read.clone()).await? {
            Ok(survey) => survey,
            Err(refusal) => return self.refuse(refusal).await,
        };
        self.session.set_total(survey.total).await?;
        let whole = self.import.mode == Mode::AllOrNothing && !self.import.dry_run;
        let failed = if whole { self.run_whole(survey).await? } else { self.run_in_batches(survey).await? };
        info!(import = %self.import.id, failed, "Ended an import");
        Ok(())
    }

    /// The file cannot be read: nothing of it is imported.
    async fn refuse(&mut self, Refusal { issue, format }: Refusal) -> Result<()> {
        let error = format!("Nothing was imported: {} ({})", issue.message, issue.place);
        self.log.issues([*issue]);
        self.end_with(ImportState::Failed, format, &Tally::default(), Some(&error)).await
    }

    /// Each batch is a transaction. Entries that earlier attempts have committed are passed over.
    async fn run_in_batches(&mut self, survey: Survey) -> Result<i64> {
        if self.log.is_new() && !survey.warnings.is_empty() {
            self.session.begin().await?;
            let tally = Tally { warnings: survey.warnings.len() as i64, ..Tally::default() };
            self.log.issues(survey.warnings);
            self.session.checkpoint(&tally, &mut self.log).await?;
            self.session.commit().await?;
        }
        let mut entries = Entries::new(self.app, self.import, self.progress, survey.domains, self.rows_done).await?;
        while let Some(batch) = entries.batch().await? {
            self.session.begin().await?;
            let Applied { tally, issues, changes } = self.session.apply(batch).await?;
            self.log.issues(issues);
            self.log.changes(changes);
            self.session.checkpoint(&tally, &mut self.log).await?;
            self.session.commit().await?;
            tally.publish();
        }
        let refused = self.import.mode == Mode::AllOrNothing && survey.failed > 0;
        let error = refused.then(|| nothing_imported(survey.failed));
        let state = if refused { ImportState::Failed } else { ImportState::Succeeded };
        self.end_with(state, survey.format, &Tally::default(), error.as_deref()).await?;
        Ok(survey.failed)
    }

    /// All batches and the import's end are one transaction.
    async fn run_whole(&mut self, survey: Survey) -> Result<i64> {
        if survey.failed > 0 {
            let tally = Tally { failed: survey.failed, warnings: survey.warnings.len() as i64, ..Tally::default() };
            self.log.more(survey.issue_count - survey.issues.len() as i64);
            self.log.issues(survey.warnings.into_iter().chain(survey.issues));
            let error = nothing_imported(survey.failed);
            self.end_with(ImportState::Failed, survey.format, &tally, Some(&error)).await?;
            return Ok(survey.failed);
        }
        let mut tally = Tally { warnings: survey.warnings.len() as i64, ..Tally::default() };
        self.log.issues(survey.warnings);
        let mut entries = Entries::new(self.app, self.import, self.progress, survey.domains, 0).await?;
        self.session.begin().await?;
        while let Some(batch) = entries.batch().await? {
            let applied = self.session.apply(batch).await?;
            tally.add(&applied.tally);
            self.log.issues(applied.issues);
            self.progress.rows_pending.store(tally.done, Ordering::Relaxed);
            if tally.failed > 0 {
                self.session.roll_back().await?;
                let error = nothing_imported(tally.failed);
                let tally = Tally { failed: tally.failed, warnings: tally.warnings, ..Tally::default() };
                self.end_with(ImportState::Failed, survey.format, &tally, Some(&error)).await?;
                return Ok(tally.failed);
            }
        }
        self.session.checkpoint(&tally, &mut self.log).await?;
        self.session.finish(self.import, ImportState::Succeeded, survey.format, None).await?;
        self.session.commit().await?;
        tally.publish();
        Ok(0)
    }

    /// Ends the import in a transaction of its own, with what is still to be counted and logged.
    async fn end_with(&mut self, state: ImportState, format: Option<Format>, tally: &Tally, error: Option<&str>) -> Result<()> {
        self.session.begin().await?;
        self.session.checkpoint(tally, &mut self.log).await?;
        self.session.finish(self.import, state, format, error).await?;
        self.session.commit().await?;
        tally.publish();
        Ok(())
    }
}

fn nothing_imported(failed: i64) -> String {
    let entries = if failed == 1 { "one entry has".to_owned() } else { format!("{failed} entries have") };
    format!("Nothing was imported: {entries} errors")
}

/// The entries of a file in the order of applying: its domains, which other entries name, then the rest as it comes.
struct Entries {
    domains: std::vec::IntoIter<Entry>,
    reading: Reading,
    ended: bool,
    /// Entries that are already committed.
    skip: i64,
    batch_rows: usize,
    waiting: Vec<Entry>,
}

impl Entries {
    async fn new(app: &App, import: &Import, progress: &Progress, domains: Vec<Entry>, skip: i64) -> Result<Self> {
        let reading = Reading::start(app, import, progress.bytes_read.clone()).await?;
        let batch_rows = app.config.imports.batch_rows as usize;
        Ok(Self { domains: domains.into_iter(), reading, ended: false, skip, batch_rows, waiting: Vec::new() })
    }

    /// The next entries to apply together; `None` at the end.
    async fn batch(&mut self) -> Result<Option<Vec<Entry>>> {
        while self.waiting.len() < self.batch_rows && !self.ended {
            if let Some(domain) = self.domains.next() {
                self.push(domain);
                continue;
            }
            match self.reading.next().await? {
                Next::Chunk(chunk) => {
                    for entry in chunk.entries {
                        if entry.kind != Some(Kind::Domain) {
                            self.push(entry);
                        }
                    }
                }
                Next::End => self.ended = true,
                Next::Refused(issue) => {
                    return Err(Error::internal(format!("the stored file has changed since it was checked: {}", issue.message)));
                }
            }
        }
        let count = self.waiting.len().min(self.batch_rows);
        let rest = self.waiting.split_off(count);
        let batch = std::mem::replace(&mut self.waiting, rest);
        Ok((!batch.is_empty()).then_some(batch))
    }

    fn push(&mut self, entry: Entry) {
        if self.skip > 0 {
            self.skip -= 1;
        } else {
            self.waiting.push(entry);
        }
    }
}

/// Ends an import from outside of its own connection. `false` when it has ended already.
async fn end(app: &App, tenant: TenantId, id: ImportId, state: ImportState, error: Option<&str>) -> Result<bool> {
    let tx = app.db.begin(tenant).await?;
    let running = imports::table
        .filter(imports::tenant_id.eq(tenant).and(imports::id.eq(id)))
        .filter(imports::state.eq_any([ImportState::Queued, ImportState::Running]));
    let now = Utc::now();
    let done = imports::created_count + imports::updated_count + imports::unchanged_count + imports::failed_count;
    let ended: Option<Import> = diesel::update(running)
        .set((
            (imports::state.eq(state), imports::error.eq(error), imports::rows_done.eq(done)),
            imports::given_up.eq((state == ImportState::Failed).then_some(GivenUp::ForNow)),
            (imports::finished_at.eq(now), imports::updated_at.eq(now)),
        ))
        .returning(Import::as_returning())
        .get_result(&mut &*tx)
        .await
        .optional()?;
    let Some(import) = ended else { return Ok(false) };
    let kind = if state == ImportState::Cancelled { IMPORT_CANCELLED } else { IMPORT_FAILED };
    let payload = payload(&import);
    let actor = Actor::system(tenant);
    audit::record(&tx, &actor, kind.name, ("import", id.0), &serde_json::to_value(&payload)?).await?;
    events::push(&tx, &actor, kind, id.0, &payload).await?;
    tx.commit().await?;
    Ok(true)
}

/// An import that has ended, as it is told of.
pub(super) fn payload(import: &Import) -> ImportPayload {
    ImportPayload {
        id: import.id.0,
        state: import.state.as_str().to_owned(),
        file_name: import.file_name.clone(),
        dry_run: import.dry_run,
        error: import.error.clone(),
        created: import.created_count,
        updated: import.updated_count,
        unchanged: import.unchanged_count,
        failed: import.failed_count,
        warnings: import.warning_count,
    }
}

/// What a job is told that was retried too late.
pub(super) fn file_is_gone() -> Error {
    Error::invalid("", Code::NotFound, "The file of this import is not kept any more: import the file again")
}

/// The file of an import that has ended is of no more use. One that cannot be removed now does no harm.
pub(super) async fn remove_file(app: &App, import: &Import) {
    if let Err(error) = app.storage.delete(&import.storage_key).await {
        warn!(import = %import.id, error = causes(&error), "Could not remove the file of an import that has ended");
    }
}
