//! What an import leaves behind about itself: counters, issues, changes, and the events and audit rows of what it did.

use serde_json::Value;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::super::entry::{Issue, Kind, codes};
use super::super::{ChangeAction, Format, Import, ImportState, MAX_KEPT, Mode};
use super::{Outcome, Session};
use crate::error::{Code, Error, Result};
use crate::events::kinds::{IMPORT_COMPLETED, IMPORT_FAILED};
use crate::events::payloads::ImportPayload;
use crate::events::{self, Payload};
use crate::ids::{AuditId, EventId};
use crate::instruments;
use crate::metrics::changes::FieldChange;

/// Counts of entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub done: i64,
    pub created: i64,
    pub updated: i64,
    pub unchanged: i64,
    pub failed: i64,
    pub warnings: i64,
}

impl Tally {
    pub(super) fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Created => self.created += 1,
            Outcome::Updated => self.updated += 1,
            Outcome::Unchanged => self.unchanged += 1,
        }
    }

    pub fn add(&mut self, other: &Tally) {
        self.done += other.done;
        self.created += other.created;
        self.updated += other.updated;
        self.unchanged += other.unchanged;
        self.failed += other.failed;
        self.warnings += other.warnings;
    }

    /// Tells the instruments, once these entries are committed.
    pub fn publish(&self) {
        for (outcome, count) in
            [("created", self.created), ("updated", self.updated), ("unchanged", self.unchanged), ("failed", self.failed)]
        {
            metrics::counter!(instruments::IMPORT_ROWS, "outcome" => outcome).increment(count.max(0) as u64);
        }
    }
}

/// What a dry run found that it would do.
#[derive(Debug)]
pub struct Change {
    pub action: ChangeAction,
    pub kind: Kind,
    pub key: String,
    pub fields: Vec<FieldChange>,
}

impl Change {
    /// What is empty is told as null: an empty text or list is nothing, and a new entry was nothing before.
    pub(super) fn new(is_new: bool, kind: Kind, key: &str, mut fields: Vec<FieldChange>) -> Self {
        for field in &mut fields {
            if is_new || is_nothing(&field.before) {
                field.before = Value::Null;
            }
            if is_nothing(&field.after) {
                field.after = Value::Null;
            }
        }
        let action = if is_new { ChangeAction::Create } else { ChangeAction::Update };
        Self { action, kind, key: key.to_owned(), fields }
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Issues and changes that are yet to be stored, no more of them than are kept.
#[derive(Debug, Default)]
pub struct Log {
    issues: Vec<Issue>,
    more_issues: i64,
    next_issue: i64,
    changes: Vec<Change>,
    next_change: i64,
}

impl Log {
    pub fn issues(&mut self, issues: impl IntoIterator<Item = Issue>) {
        for issue in issues {
            if self.next_issue + (self.issues.len() as i64) < MAX_KEPT {
                self.issues.push(issue);
            } else {
                self.more_issues += 1;
            }
        }
    }

    /// Whether no attempt has stored an issue yet.
    pub fn is_new(&self) -> bool {
        self.next_issue == 0
    }

    /// Issues that nobody has kept.
    pub fn more(&mut self, count: i64) {
        self.more_issues += count.max(0);
    }

    pub fn changes(&mut self, changes: impl IntoIterator<Item = Change>) {
        let room = MAX_KEPT - self.next_change - self.changes.len() as i64;
        self.changes.extend(changes.into_iter().take(room.max(0) as usize));
    }
}

impl Session {
    /// Marks the import as running and returns it with its log; `None` when there is nothing to do any more. One that was given
    /// up for now is opened again; [`Error::Invalid`] when another import does the same work by now.
    ///
    /// An import that applies entry by entry goes on after those that are committed. Any other begins anew, and so forgets what
    /// an attempt before this one has left.
    pub async fn start(&mut self) -> Result<Option<(i64, Log)>> {
        self.begin().await?;
        let started = self
            .client
            .query_opt(
                "UPDATE imports SET state = 'running', started_at = coalesce(started_at, now()), updated_at = now(), \
                 given_up = NULL, error = NULL, finished_at = NULL \
                 WHERE tenant_id = $1 AND id = $2 AND (state IN ('queued', 'running') OR given_up = 'for_now') \
                 RETURNING mode, dry_run, rows_done",
                &[&self.tenant.0, &self.import.0],
            )
            .await
            .map_err(same_work)?;
        let Some(row) = started else {
            self.roll_back().await?;
            // The attempt that ended it may have died before it could say so.
            self.announce().await;
            return Ok(None);
        };
        let goes_on = row.get::<_, &str>(0) == Mode::RowByRow.as_str() || row.get::<_, bool>(1);
        let (rows_done, mut log) = if goes_on { (row.get(2), Log::default()) } else { (0, Log::default()) };
        if goes_on {
            let counts = self
                .client
                .query_one(
                    "SELECT (SELECT count(*) FROM import_issues WHERE tenant_id = $1 AND import_id = $2 AND ordinal < $3), \
                            (SELECT count(*) FROM import_changes WHERE tenant_id = $1 AND import_id = $2)",
                    &[&self.tenant.0, &self.import.0, &MAX_KEPT],
                )
                .await?;
            (log.next_issue, log.next_change) = (counts.get(0), counts.get(1));
        } else {
            self.client
                .execute("UPDATE imports SET rows_done = 0 WHERE tenant_id = $1 AND id = $2", &[&self.tenant.0, &self.import.0])
                .await?;
        }
        self.commit().await?;
        Ok(Some((rows_done, log)))
    }

    pub async fn set_total(&mut self, total: i64) -> Result<()> {
        self.begin().await?;
        let set = "UPDATE imports SET rows_total = $3, updated_at = now() WHERE tenant_id = $1 AND id = $2";
        self.client.execute(set, &[&self.tenant.0, &self.import.0, &total]).await?;
        self.commit().await
    }

    /// Adds to the counters, which are the checkpoint, and stores what the log holds. Within the open transaction.
    pub async fn checkpoint(&mut self, tally: &Tally, log: &mut Log) -> Result<()> {
        self.store_log(log).await?;
        let changed = self
            .client
            .execute(
                "UPDATE imports SET rows_done = rows_done + $3, created_count = created_count + $4, updated_count = updated_count + $5, \
                 unchanged_count = unchanged_count + $6, failed_count = failed_count + $7, warning_count = warning_count + $8, \
                 updated_at = now() WHERE tenant_id = $1 AND id = $2 AND state = 'running'",
                &[
                    &self.tenant.0,
                    &self.import.0,
                    &tally.done,
                    &tally.created,
                    &tally.updated,
                    &tally.unchanged,
                    &tally.failed,
                    &tally.warnings,
                ],
            )
            .await?;
        self.still_running(changed)
    }

    /// Ends the import, within the open transaction.
    pub async fn finish(
        &mut self,
        import: &Import,
        state: ImportState,
        format: Option<Format>,
        error: Option<&str>,
    ) -> Result<()> {
        let row = self
            .client
            .query_opt(
                "UPDATE imports SET state = $3, error = $4, format = coalesce($5, format), finished_at = clock_timestamp(), updated_at = clock_timestamp(), \
                 rows_done = created_count + updated_count + unchanged_count + failed_count \
                 WHERE tenant_id = $1 AND id = $2 AND state = 'running' \
                 RETURNING created_count, updated_count, unchanged_count, failed_count, warning_count",
                &[&self.tenant.0, &self.import.0, &state.as_str(), &error, &format.map(Format::as_str)],
            )
            .await?;
        self.still_running(row.iter().len() as u64)?;
        let Some(row) = row else { return Ok(()) };
        let count = |i: usize| row.get::<_, i64>(i);
        let payload = ImportPayload {
            id: self.import.0,
            state: state.as_str().to_owned(),
            file_name: import.file_name.clone(),
            dry_run: import.dry_run,
            error: error.map(str::to_owned),
            created: count(0),
            updated: count(1),
            unchanged: count(2),
            failed: count(3),
            warnings: count(4),
        };
        let kind = if state == ImportState::Succeeded { IMPORT_COMPLETED } else { IMPORT_FAILED };
        self.event(kind, self.import.0, &payload).await?;
        self.audit(kind.name, "import", self.import.0, &serde_json::to_value(&payload)?).await
    }

    fn still_running(&self, rows: u64) -> Result<()> {
        if rows == 1 { Ok(()) } else { Err(Error::internal(format!("the import {} was ended by somebody else", self.import))) }
    }

    /// Owes an event to subscribers.
    pub(super) async fn event<P: Payload + Sync + std::fmt::Debug>(
        &self,
        kind: events::Kind<P>,
        subject: Uuid,
        payload: &P,
    ) -> Result<()> {
        self.client
            .execute(
                "INSERT INTO outbox (tenant_id, id, kind, version, subject_id, payload, actor_id, trace_context) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                &[&self.tenant.0, &EventId::new().0, &kind.name, &kind.version, &subject, &Json(payload), &self.by, &self.trace],
            )
            .await?;
        Ok(())
    }

    pub(super) async fn audit(&self, action: &str, kind: &str, subject: Uuid, details: &Value) -> Result<()> {
        let actor_kind = if self.by.is_some() { "user" } else { "system" };
        self.client
            .execute(
                "INSERT INTO audit_log (tenant_id, id, actor_kind, actor_id, action, entity_kind, entity_id, details) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                &[&self.tenant.0, &AuditId::new().0, &actor_kind, &self.by, &action, &kind, &subject, details],
            )
            .await?;
        Ok(())
    }

    /// Stores what the log holds, and empties it.
    async fn store_log(&self, log: &mut Log) -> Result<()> {
        let issues = std::mem::take(&mut log.issues);
        if !issues.is_empty() {
            self.insert_issues(log.next_issue, &issues).await?;
            log.next_issue += issues.len() as i64;
        }
        let more = std::mem::take(&mut log.more_issues);
        if more > 0 {
            self.client
                .execute(
                    "INSERT INTO import_issues AS kept (tenant_id, import_id, ordinal, severity, code, message, raw_value) \
                     VALUES ($1, $2, $3, 'warning', $4, $5::bigint || ' more problems are not listed', $5::bigint::text) \
                     ON CONFLICT (tenant_id, import_id, ordinal) DO UPDATE SET \
                     raw_value = (kept.raw_value::bigint + $5::bigint)::text, \
                     message = (kept.raw_value::bigint + $5::bigint) || ' more problems are not listed'",
                    &[&self.tenant.0, &self.import.0, &MAX_KEPT, &codes::MORE, &more],
                )
                .await?;
        }
        let changes = std::mem::take(&mut log.changes);
        if !changes.is_empty() {
            let actions: Vec<&str> = changes.iter().map(|change| change.action.as_str()).collect();
            let kinds: Vec<&str> = changes.iter().map(|change| change.kind.as_str()).collect();
            let keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
            let fields: Vec<Json<&Vec<FieldChange>>> = changes.iter().map(|change| Json(&change.fields)).collect();
            self.client
                .execute(
                    "INSERT INTO import_changes (tenant_id, import_id, ordinal, action, entity_kind, entity_key, fields) \
                     SELECT $1, $2, $3 + ordinality - 1, action, kind, key, fields \
                     FROM unnest($4::text[], $5::text[], $6::text[], $7::jsonb[]) WITH ORDINALITY AS t (action, kind, key, fields)",
                    &[&self.tenant.0, &self.import.0, &log.next_change, &actions, &kinds, &keys, &fields],
                )
                .await?;
            log.next_change += changes.len() as i64;
        }
        Ok(())
    }

    async fn insert_issues(&self, first: i64, issues: &[Issue]) -> Result<()> {
        // A file may have NUL anywhere, and PostgreSQL stores it nowhere.
        let clean = |text: &str| text.replace('\0', "␀");
        let text =
            |of: fn(&Issue) -> Option<&str>| -> Vec<Option<String>> { issues.iter().map(|issue| of(issue).map(clean)).collect() };
        let severities: Vec<&str> = issues.iter().map(|issue| issue.severity.as_str()).collect();
        let lines: Vec<Option<i64>> = issues.iter().map(|issue| issue.place.line.map(|line| line as i64)).collect();
        self.client
            .execute(
                "INSERT INTO import_issues (tenant_id, import_id, ordinal, severity, line, path, entity_kind, entity_key, field, code, message, raw_value) \
                 SELECT $1, $2, $3 + ordinality - 1, severity, line, path, kind, key, field, code, message, raw \
                 FROM unnest($4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[]) \
                 WITH ORDINALITY AS t (severity, line, path, kind, key, field, code, message, raw)",
                &[
                    &self.tenant.0,
                    &self.import.0,
                    &first,
                    &severities,
                    &lines,
                    &text(|issue| issue.place.path.as_deref()),
                    &text(|issue| issue.kind.map(Kind::as_str)),
                    &text(|issue| issue.key.as_deref()),
                    &text(|issue| issue.field.as_deref()),
                    &text(|issue| Some(issue.code)),
                    &text(|issue| Some(&issue.message)),
                    &text(|issue| issue.raw_value.as_deref()),
                ],
            )
            .await?;
        Ok(())
    }
}

/// Says so when another import is in the way of one that is to be opened again.
fn same_work(error: tokio_postgres::Error) -> Error {
    match error.as_db_error().and_then(|db| db.constraint()) {
        Some("imports_same_work_key") => {
            Error::invalid("", Code::Taken, "The same file is being imported anew: retry this when that has ended, if at all")
        }
        _ => error.into(),
    }
}
