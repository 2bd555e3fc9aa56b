//! Bulk imports: a file is stored before it is acknowledged, and a worker's job applies it.
//!
//! The actors: [`start`] stores the upload and enqueues [`ImportCatalog`]; [`run`] is that job. It reads the file twice. The
//! first pass (`survey`) only looks: it counts the entries and finds everything that is wrong with them, so that a file that
//! cannot be read to its end is refused before anything is written. The second pass applies the entries in batches
//! (`apply`), each in a transaction that also moves the counters of the `imports` row: they are the checkpoint from which a
//! restarted import goes on.
//!
//! An import that its job cannot finish is given up: it has failed, and keeps its file. A retry of the job opens it again, until
//! [`tidy`] removes the file an hour later.
//!
//! `input` makes text of the stored bytes (gzip, encodings, limits), one parser per format in `formats` makes values of the
//! text (`value`), and `draft` makes catalog content of the values, the same for all formats.

mod apply;
mod draft;
mod entry;
mod formats;
mod input;
mod operations;
mod reader;
mod run;
pub mod store;
mod survey;
mod tidy;
mod value;
mod watch;

pub use formats::csv::csv_template;
pub use operations::{Upload, cancel, start, start_inline};
pub use run::{End, give_up, run};
pub use tidy::tidy;

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{ImportId, JobId, TenantId};
use crate::jobs::Job;
use crate::metrics::changes::FieldChange;
use crate::schema::{import_changes, import_issues, imports};
use crate::text::text_enum;

/// The job that applies a stored file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportCatalog {
    pub import: ImportId,
}

impl Job for ImportCatalog {
    const KIND: &'static str = "import_catalog";
    const QUEUE: &'static str = "imports";
    /// Generous: every crash of a worker takes one, and an import goes on where it was.
    const MAX_ATTEMPTS: i32 = 20;
    const TIMEOUT: Duration = Duration::from_secs(2 * 3600);
}

/// One uploaded file and what became of it.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable)]
#[diesel(table_name = imports, primary_key(tenant_id, id), check_for_backend(diesel::pg::Pg))]
pub struct Import {
    pub tenant_id: TenantId,
    pub id: ImportId,
    pub job_id: Option<JobId>,
    pub state: ImportState,
    /// As the uploader named it or, once the import has ended, as it was recognised.
    pub format: Option<Format>,
    pub mode: Mode,
    /// Nothing is written to the catalog; what would change is in the import's changes.
    pub dry_run: bool,
    pub file_name: Option<String>,
    /// What the keys of metric-hub definitions start with.
    pub namespace: Option<String>,
    /// Why, for the history of the metrics.
    pub message: Option<String>,
    pub storage_key: String,
    pub content_bytes: i64,
    pub content_sha256: Vec<u8>,
    /// How much of the stored file has been read, in bytes as stored. Starts again with the second pass.
    pub bytes_read: i64,
    /// Known once the file has been read through.
    pub rows_total: Option<i64>,
    pub rows_done: i64,
    pub created_count: i64,
    pub updated_count: i64,
    pub unchanged_count: i64,
    pub failed_count: i64,
    pub warning_count: i64,
    /// Why it failed, in a sentence.
    pub error: Option<String>,
    pub requested_by: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub updated_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// Set when it failed because its job could not finish it, and not because of what is in the file.
    pub given_up: Option<GivenUp>,
}

impl Import {
    /// Entries per second since the start; `None` before there is something to go by.
    pub fn rows_per_second(&self) -> Option<f64> {
        let until = self.finished_at.unwrap_or(self.updated_at);
        let seconds = (until - self.started_at?).as_seconds_f64();
        (seconds > 0.0 && self.rows_done > 0).then(|| self.rows_done as f64 / seconds)
    }

    /// How much longer it will take at the present rate; `None` when it does not run, or nobody can tell yet.
    pub fn time_left(&self) -> Option<Duration> {
        if self.state != ImportState::Running {
            return None;
        }
        let left = (self.rows_total? - self.rows_done).max(0);
        Duration::try_from_secs_f64(left as f64 / self.rows_per_second()?).ok()
    }
}

/// Where an import stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportState {
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}
text_enum!(ImportState {
    Queued = "queued",
    Running = "running",
    Succeeded = "succeeded",
    Failed = "failed",
    Cancelled = "cancelled",
});

/// Whether an import that was given up may be taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// A retry of its job opens it again.
    ForNow,
    /// Nobody retried the job in time, and the file has been removed.
    ForGood,
}
text_enum!(GivenUp { ForNow = "for_now", ForGood = "for_good" });

/// What happens to the good entries of a file that has bad ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing is imported unless everything can be.
    AllOrNothing,
    /// Each entry by itself.
    RowByRow,
}
text_enum!(Mode { AllOrNothing = "all_or_nothing", RowByRow = "row_by_row" });

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Json,
    Yaml,
    Ndjson,
    Csv,
    /// Mozilla's metric-hub definitions, in TOML.
    MetricHub,
}
text_enum!(Format { Json = "json", Yaml = "yaml", Ndjson = "ndjson", Csv = "csv", MetricHub = "metric_hub" });

/// Whether a problem kept its entry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
}
text_enum!(Severity { Error = "error", Warning = "warning" });

/// One thing that was wrong in an imported file, and where.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = import_issues, check_for_backend(diesel::pg::Pg))]
pub struct ImportIssue {
    pub tenant_id: TenantId,
    pub import_id: ImportId,
    /// Counts from 0 in the order of finding.
    pub ordinal: i64,
    pub severity: Severity,
    /// From 1.
    pub line: Option<i64>,
    /// As in `metrics[3].definition.unit`.
    pub path: Option<String>,
    /// `metric`, `business_domain` or `objective`.
    pub entity_kind: Option<String>,
    pub entity_key: Option<String>,
    /// Within the entry: `definition.unit`.
    pub field: Option<String>,
    /// Stable: `REQUIRED`, `DUPLICATE`, `TRUNCATED`, … (docs/guide/imports.md lists them).
    pub code: String,
    pub message: String,
    /// What the file says there, cut to 200 characters.
    pub raw_value: Option<String>,
}

/// What a dry run would do to one entry.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = import_changes, check_for_backend(diesel::pg::Pg))]
pub struct ImportChange {
    pub tenant_id: TenantId,
    pub import_id: ImportId,
    pub ordinal: i64,
    pub action: ChangeAction,
    /// `metric`, `business_domain` or `objective`.
    pub entity_kind: String,
    pub entity_key: String,
    pub fields: FieldChanges,
}

/// Whether an entry would be new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeAction {
    Create,
    Update,
}
text_enum!(ChangeAction { Create = "create", Update = "update" });

/// The fields of one entry that would change, stored as JSON.
#[derive(
    Debug, Clone, PartialEq, Default, Serialize, Deserialize, diesel::expression::AsExpression, diesel::deserialize::FromSqlRow,
)]
#[diesel(sql_type = diesel::sql_types::Jsonb)]
#[serde(transparent)]
pub struct FieldChanges(pub Vec<FieldChange>);
crate::text::jsonb!(FieldChanges);

/// Problems and changes of one import that are kept; the counts tell of the rest.
pub const MAX_KEPT: i64 = 10_000;

#[cfg(test)]
pub(crate) mod tests {
    use super::entry::Draft;
    use super::formats::tests::parse;

    /// The extra fields of the only metric of this YAML.
    pub fn extra_of_yaml(text: &str) -> serde_json::Value {
        let entries = parse("x.yaml", text).unwrap_or_else(|issue| panic!("{issue:?}\n{text}"));
        match &entries[..] {
            [entry] => match &entry.draft {
                Some(Draft::Metric(metric)) => metric.definition.details.extra.0.clone().into(),
                _ => panic!("{:?}\n{text}", entry.issues),
            },
            _ => panic!("{} entries\n{text}", entries.len()),
        }
    }
}
