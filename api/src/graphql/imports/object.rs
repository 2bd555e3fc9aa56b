//! An import, as GraphQL shows it.

use async_graphql::{Context, ID, Json, Object, Result, SimpleObject};
use chrono::{DateTime, Utc};
use mdl::ids::ImportId;
use mdl::imports::{self, Severity, store};
use mdl::page::PageArgs;
use serde_json::Value;

use super::enums::{ImportChangeAction, ImportFormat, ImportIssueSeverity, ImportMode, ImportState};
use crate::graphql::connection::{Connection, connection};
use crate::graphql::context::ContextExt;
use crate::graphql::eager::Plain;
use crate::graphql::error::top_level;
use crate::graphql::global_id::{Kind, encode};
use crate::graphql::limits::page_cost;
use crate::graphql::users::{self, User};

pub struct Import(Box<imports::Import>);

impl From<imports::Import> for Import {
    fn from(import: imports::Import) -> Self {
        Self(Box::new(import))
    }
}

pub type ImportIssueConnection = Connection<ImportIssue, IssueTotals>;
pub type ImportChangeConnection = Connection<ImportChange, ChangeTotals>;

impl Plain for Import {}

/// One file that was given to be imported, and what became of it.
#[Object]
impl Import {
    /// Opaque and unique over all types.
    pub async fn id(&self) -> ID {
        encode(Kind::Import, self.0.id.0)
    }

    /// Where it stands.
    fn state(&self) -> ImportState {
        self.0.state.into()
    }

    /// What the file is written in: as given or, once the import has ended, as recognised.
    fn format(&self) -> Option<ImportFormat> {
        self.0.format.map(Into::into)
    }

    /// What happens to the good entries of a file that has bad ones.
    fn mode(&self) -> ImportMode {
        self.0.mode.into()
    }

    /// Whether it only finds out what would change. See `changes`.
    fn dry_run(&self) -> bool {
        self.0.dry_run
    }

    /// Name of the file.
    fn file_name(&self) -> Option<&str> {
        self.0.file_name.as_deref()
    }

    /// What the keys of metric-hub metrics start with.
    fn namespace(&self) -> Option<&str> {
        self.0.namespace.as_deref()
    }

    /// Why, for the history of the metrics.
    fn message(&self) -> Option<&str> {
        self.0.message.as_deref()
    }

    /// Length of the file as it was sent, in bytes.
    fn bytes(&self) -> i64 {
        self.0.content_bytes
    }

    /// Entries in the file; null until it has been read through.
    fn rows_total(&self) -> Option<i64> {
        self.0.rows_total
    }

    /// Entries whose outcome is certain.
    fn rows_done(&self) -> i64 {
        self.0.rows_done
    }

    /// Entries that were new.
    fn created_count(&self) -> i64 {
        self.0.created_count
    }

    /// Entries that changed something.
    fn updated_count(&self) -> i64 {
        self.0.updated_count
    }

    /// Entries that said what the catalog says already: nothing was written for them.
    fn unchanged_count(&self) -> i64 {
        self.0.unchanged_count
    }

    /// Entries that could not be imported.
    fn failed_count(&self) -> i64 {
        self.0.failed_count
    }

    /// Problems that kept no entry out.
    fn warning_count(&self) -> i64 {
        self.0.warning_count
    }

    /// Entries per second since it started; null before there is something to go by.
    fn rate(&self) -> Option<f64> {
        self.0.rows_per_second()
    }

    /// Seconds that it will still take at the present rate; null when it does not run, or nobody can tell yet.
    fn eta(&self) -> Option<f64> {
        self.0.time_left().map(|left| left.as_secs_f64())
    }

    /// Why it failed, in a sentence.
    fn error(&self) -> Option<&str> {
        self.0.error.as_deref()
    }

    /// What was wrong in the file, in the order of finding. At most 10,000 problems are kept; the counts tell of the rest.
    #[graphql(complexity = "page_cost(first, last, child_complexity)")]
    async fn issues(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only errors, or only warnings; both if not given.")] severity: Option<ImportIssueSeverity>,
        #[graphql(
            desc = "How many, from the start of the list or after `after`; at most 100, 20 if neither this nor `last` is given."
        )]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes after it.")] after: Option<String>,
        #[graphql(desc = "How many, from the end of the list or before `before`; at most 100.")] last: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes before it.")] before: Option<String>,
    ) -> Result<ImportIssueConnection> {
        let args = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        let (view, id, severity) = (ctx.reading()?, self.0.id, severity.map(Into::into));
        let tenant = view.snapshot.tenant();
        let page = view.snapshot.read(async |conn| store::issues(conn, tenant, id, severity, &args).await).await;
        let page = page.map_err(top_level)?.map(|issue| {
            let position = issue.ordinal;
            (issue, position)
        });
        Ok(connection(ctx, page, IssueTotals(id, severity), ImportIssue::from))
    }

    /// What a dry run would change, entry by entry in the order of the file. At most 10,000 entries are kept; the counts
    /// tell of the rest.
    #[graphql(complexity = "page_cost(first, last, child_complexity)")]
    async fn changes(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "How many, from the start of the list or after `after`; at most 100, 20 if neither this nor `last` is given."
        )]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes after it.")] after: Option<String>,
        #[graphql(desc = "How many, from the end of the list or before `before`; at most 100.")] last: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes before it.")] before: Option<String>,
    ) -> Result<ImportChangeConnection> {
        let args = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        let (view, id) = (ctx.reading()?, self.0.id);
        let tenant = view.snapshot.tenant();
        let page = view.snapshot.read(async |conn| store::changes(conn, tenant, id, &args).await).await;
        let page = page.map_err(top_level)?.map(|change| {
            let position = change.ordinal;
            (change, position)
        });
        Ok(connection(ctx, page, ChangeTotals(id), ImportChange::from))
    }

    /// Who gave the file; null if it was no person.
    async fn requested_by(&self, ctx: &Context<'_>) -> Option<Result<User>> {
        users::by_id(ctx, self.0.requested_by).await
    }

    /// When the file was given.
    fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }

    /// When a worker began.
    fn started_at(&self) -> Option<DateTime<Utc>> {
        self.0.started_at
    }

    /// When it ended, however it ended.
    fn finished_at(&self) -> Option<DateTime<Utc>> {
        self.0.finished_at
    }

    /// When somebody asked for it to be stopped.
    fn cancel_requested_at(&self) -> Option<DateTime<Utc>> {
        self.0.cancel_requested_at
    }
}

/// One thing that was wrong in an imported file, and where.
#[derive(SimpleObject)]
pub struct ImportIssue {
    /// Whether it kept its entry out.
    severity: ImportIssueSeverity,
    /// Line of the file, from 1, where that can be told.
    line: Option<i64>,
    /// Place in the document: `metrics[3].definition.unit`.
    path: Option<String>,
    /// What the entry is: `metric`, `business_domain` or `objective`.
    entity_kind: Option<String>,
    /// The entry's key.
    entity_key: Option<String>,
    /// The field within the entry: `definition.unit`.
    field: Option<String>,
    /// What is wrong, as a stable name: `REQUIRED`, `DUPLICATE`, `TRUNCATED`, … The guide lists them.
    code: String,
    /// What is wrong, as a sentence.
    message: String,
    /// What the file says there, cut to 200 characters.
    raw_value: Option<String>,
}

impl From<imports::ImportIssue> for ImportIssue {
    fn from(issue: imports::ImportIssue) -> Self {
        Self {
            severity: issue.severity.into(),
            line: issue.line,
            path: issue.path,
            entity_kind: issue.entity_kind,
            entity_key: issue.entity_key,
            field: issue.field,
            code: issue.code,
            message: issue.message,
            raw_value: issue.raw_value,
        }
    }
}

/// What a dry run would do to one entry.
#[derive(SimpleObject)]
pub struct ImportChange {
    /// Whether it would be new.
    action: ImportChangeAction,
    /// What the entry is: `metric`, `business_domain` or `objective`.
    entity_kind: String,
    /// The entry's key.
    entity_key: String,
    /// Its fields that would change.
    fields: Vec<ImportFieldChange>,
}

/// One field that an import would change.
#[derive(SimpleObject)]
pub struct ImportFieldChange {
    /// As the model names it: `name`, `definition.formula`, `targets.target_value`.
    field: String,
    /// What it is; null for nothing.
    before: Option<Json<Value>>,
    /// What it would be; null for nothing.
    after: Option<Json<Value>>,
}

impl From<imports::ImportChange> for ImportChange {
    fn from(change: imports::ImportChange) -> Self {
        let value = |value: Value| Some(value).filter(|value| !value.is_null()).map(Json);
        let fields = change.fields.0.into_iter().map(|field| ImportFieldChange {
            field: field.field,
            before: value(field.before),
            after: value(field.after),
        });
        Self {
            action: change.action.into(),
            entity_kind: change.entity_kind,
            entity_key: change.entity_key,
            fields: fields.collect(),
        }
    }
}

/// What the issues of an import are counted by, if somebody asks.
pub struct IssueTotals(ImportId, Option<Severity>);

#[Object]
impl IssueTotals {
    /// How many issues are kept. Counted only when selected.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        view.snapshot.read(async |conn| store::count_issues(conn, tenant, self.0, self.1).await).await.map_err(top_level)
    }
}

/// What the changes of a dry run are counted by, if somebody asks.
pub struct ChangeTotals(ImportId);

#[Object]
impl ChangeTotals {
    /// How many changes are kept. Counted only when selected.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        view.snapshot.read(async |conn| store::count_changes(conn, tenant, self.0).await).await.map_err(top_level)
    }
}

impl Plain for ImportIssue {}

impl Plain for ImportChange {}
