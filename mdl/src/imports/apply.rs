//! Writes entries to the catalog, batch by batch, over a connection of the import's own.
//!
//! The connection holds an advisory lock on the import: two workers that both believe to have the job cannot both write, and
//! a dead worker's lock goes with its connection. Metrics go by `COPY` into a temporary table and from there into the catalog
//! in one statement per table ([`metrics`]); domains and objectives are few and go one by one.
//!
//! What the database refuses must not take its neighbours with it: writes happen under savepoints, and a batch that fails is
//! halved until the row is found.

mod domains;
mod metrics;
mod objectives;
mod record;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use tokio_postgres::Client;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

pub use record::{Change, Log, Tally};

use super::entry::{DomainDraft, Draft, Entry, Issue, MetricDraft, ObjectiveDraft, codes};
use super::{Import, Severity};
use crate::app::App;
use crate::error::{Error, Result};
use crate::ids::{ImportId, TenantId};
use crate::metrics::changes::FieldChange;
use crate::versions::{Change as VersionChange, Entities, Versions};

/// The import's own connection.
pub struct Session {
    client: Client,
    _driver: AbortOnDropHandle<()>,
    tenant: TenantId,
    import: ImportId,
    /// Who asked for the import.
    by: Option<Uuid>,
    message: Option<String>,
    dry_run: bool,
    trace: Value,
    domains: domains::Domains,
    metrics: metrics::Statements,
    versions: Versions,
}

/// An entry whose draft has been taken out, to be written.
struct Item<T> {
    entry: Entry,
    draft: T,
}

/// What writing an entry came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Created,
    Updated,
    Unchanged,
}

/// What a batch came to, before it is recorded.
#[derive(Default)]
pub struct Applied {
    pub tally: Tally,
    pub issues: Vec<Issue>,
    pub changes: Vec<Change>,
}

impl Session {
    /// Connects, and makes sure that no other worker is at the same import; `None` when one is.
    pub async fn open(app: &App, tenant: TenantId, import: ImportId) -> Result<Option<Self>> {
        let connection = app.db.dedicated().await?;
        let (client, driver) = (connection.client, connection.connection);
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = driver.await {
                // Whoever uses the client is told as well.
                tracing::debug!(%error, "The connection of an import ended");
            }
        }));
        // A batch is small beside the tables it is joined with: one index lookup for each of its rows is always the best plan,
        // and the planner knows nothing of a temporary table that has just been filled. Compiling its statements would take
        // longer than running them. A program that stands still in the middle of an import loses it after a while, to another worker.
        client
            .batch_execute(
                "SET statement_timeout = '10min'; SET idle_in_transaction_session_timeout = '5min'; SET idle_session_timeout = '15min'; \
                 SET jit = off; SET enable_hashjoin = off; SET enable_mergejoin = off",
            )
            .await?;
        let row =
            client.query_one("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", &[&format!("import:{import}")]).await?;
        if !row.get::<_, bool>(0) {
            return Ok(None);
        }
        let metrics = metrics::Statements::prepare(&client).await?;
        Ok(Some(Self {
            client,
            _driver: driver,
            tenant,
            import,
            by: None,
            message: None,
            dry_run: false,
            trace: crate::telemetry::trace_context(),
            domains: domains::Domains::default(),
            metrics,
            versions: app.versions.clone(),
        }))
    }

    /// From now on works on behalf of this import.
    pub fn serve(&mut self, import: &Import) {
        self.by = import.requested_by;
        self.message = import.message.clone();
        self.dry_run = import.dry_run;
    }

    pub async fn begin(&mut self) -> Result<()> {
        let begin = format!("BEGIN; SET LOCAL app.tenant_id = '{}'", self.tenant);
        Ok(self.client.batch_execute(&begin).await?)
    }

    /// Commits, and makes known that the catalog has changed.
    pub async fn commit(&mut self) -> Result<()> {
        let committed = self.client.batch_execute("COMMIT").await;
        // After a failure, too: the connection may have broken just after PostgreSQL had committed.
        self.announce().await;
        Ok(committed?)
    }

    /// Makes known that the catalog may have changed.
    pub async fn announce(&self) {
        self.versions.bump(self.tenant, VersionChange::of(Entities::of_kind("import"))).await;
    }

    pub async fn roll_back(&mut self) -> Result<()> {
        // Domains made in this transaction are gone.
        self.domains = domains::Domains::default();
        Ok(self.client.batch_execute("ROLLBACK").await?)
    }

    /// Applies entries within the open transaction.
    pub async fn apply(&mut self, entries: Vec<Entry>) -> Result<Applied> {
        let mut applied = Applied::default();
        let (mut domains, mut metrics, mut objectives) = (Vec::new(), Vec::new(), Vec::new());
        for mut entry in entries {
            applied.tally.done += 1;
            applied.issues.append(&mut entry.issues);
            match entry.draft.take() {
                Some(Draft::Domain(draft)) => domains.push(Item::<DomainDraft> { entry, draft }),
                Some(Draft::Metric(draft)) => metrics.push(Item::<MetricDraft> { entry, draft: *draft }),
                Some(Draft::Objective(draft)) => objectives.push(Item::<ObjectiveDraft> { entry, draft }),
                None => applied.tally.failed += 1,
            }
        }
        for item in &domains {
            self.savepoint().await?;
            let written = self.define_domain(item, &mut applied).await;
            self.settle(&item.entry, written, &mut applied).await?;
        }
        self.resolve_metrics(&mut metrics, &mut applied).await?;
        self.write_metrics(&metrics, &mut applied).await?;
        self.resolve_objectives(&mut objectives, &mut applied).await?;
        for item in &objectives {
            self.savepoint().await?;
            let written = self.write_objective(item, &mut applied).await;
            self.settle(&item.entry, written, &mut applied).await?;
        }
        applied.tally.warnings = applied.issues.iter().filter(|issue| issue.severity == Severity::Warning).count() as i64;
        Ok(applied)
    }

    async fn savepoint(&self) -> Result<()> {
        Ok(self.client.batch_execute("SAVEPOINT entry").await?)
    }

    /// Ends the savepoint of one entry: what the database refused becomes an issue of it.
    async fn settle(&self, entry: &Entry, written: Result<Outcome>, applied: &mut Applied) -> Result<()> {
        match written {
            Ok(outcome) => {
                applied.tally.count(outcome);
                Ok(self.client.batch_execute("RELEASE entry").await?)
            }
            Err(error) => {
                let issue = refused(entry, error)?;
                self.client.batch_execute("ROLLBACK TO entry; RELEASE entry").await?;
                applied.tally.failed += 1;
                applied.issues.push(issue);
                Ok(())
            }
        }
    }
}

/// The issue of an entry that an error is about; the error itself when it is about something else.
fn refused(entry: &Entry, error: Error) -> Result<Issue> {
    let message = match &error {
        Error::Invalid(problems) => match problems.first() {
            Some(problem) => return Ok(entry.problem(problem, &problem.field.join("."))),
            None => return Err(error),
        },
        Error::Internal(source) => match source.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.as_db_error()) {
            // Data exceptions, broken constraints, and values beyond PostgreSQL's limits are the row's own fault.
            Some(db) if ["22", "23", "54"].iter().any(|class| db.code().code().starts_with(class)) => match db.constraint() {
                Some(constraint) => format!("The database refused it: {} ({constraint})", db.message()),
                None => format!("The database refused it: {}", db.message()),
            },
            _ => return Err(error),
        },
        _ => return Err(error),
    };
    Ok(entry.issue(Severity::Error, "", codes::REFUSED, message))
}

/// The fields in which two contents differ, by their names as stored.
fn differences(before: &impl Serialize, after: &impl Serialize) -> Result<Vec<FieldChange>> {
    let fields = |value: Value| match value {
        Value::Object(fields) => fields.into_iter().collect(),
        _ => BTreeMap::new(),
    };
    let mut before: BTreeMap<String, Value> = fields(serde_json::to_value(before)?);
    let after = fields(serde_json::to_value(after)?);
    Ok(after
        .into_iter()
        .filter_map(|(field, after)| {
            let before = before.remove(&field).unwrap_or(Value::Null);
            (before != after).then_some(FieldChange { field, before, after })
        })
        .collect())
}
