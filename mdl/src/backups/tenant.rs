//! Bringing one tenant's rows back into the database in use, as they were in a backup.
//!
//! The backup is restored into a scratch database; from there the tenant's rows are copied into temporary tables of the database
//! in use, counted against what is there, and put in its place, all in one transaction of mdl_owner. That role is bound by
//! row-level security like any other, so the transaction cannot touch another tenant's rows, whatever the backup holds.

use futures::{SinkExt, StreamExt, pin_mut};
use serde_json::json;
use tokio_postgres::Client;
use tracing::info;
use uuid::Uuid;

use super::files::{self, Brought};
use super::progress::{Phase, Progress};
use super::refused;
use super::restore::check_schema;
use super::scratch::Scratch;
use super::seal::Identities;
use super::verify::find;
use crate::app::App;
use crate::config::postgres_address;
use crate::error::{Error, Result};
use crate::events::kinds::TENANT_RESTORED;
use crate::events::payloads::TenantPayload;
use crate::ids::{AuditId, BackupId, EventId, TenantId};
use crate::versions::{Change, Entities};
use crate::{db, migrations};

/// What becomes of a table's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Exactly those of the backup.
    Replace,
    /// Those of the backup, and newer ones that it does not have: rows of tables that stay refer to them.
    Merge,
    /// As they are: what has happened since is not undone by it.
    Stay,
}

/// Every table with a tenant, those that are referred to before those that refer to them.
const TABLES: &[(&str, Rule)] = &[
    ("tenants", Rule::Merge),
    ("users", Rule::Merge),
    ("memberships", Rule::Replace),
    ("business_domains", Rule::Replace),
    ("metrics", Rule::Replace),
    ("metric_versions", Rule::Replace),
    ("metric_edges", Rule::Replace),
    ("objectives", Rule::Replace),
    ("key_results", Rule::Replace),
    ("key_result_metrics", Rule::Replace),
    ("imports", Rule::Replace),
    ("import_issues", Rule::Replace),
    ("import_changes", Rule::Replace),
    ("documents", Rule::Replace),
    // A credential that was revoked since must not come to life again.
    ("sessions", Rule::Stay),
    ("refresh_tokens", Rule::Stay),
    ("api_keys", Rule::Stay),
    ("idempotency_keys", Rule::Stay),
    // History goes on. What was told was told, what was done was done.
    ("audit_log", Rule::Stay),
    ("outbox", Rule::Stay),
    ("outbox_commits", Rule::Stay),
    ("event_streams", Rule::Stay),
    ("jobs", Rule::Stay),
    ("job_attempts", Rule::Stay),
    // Who is told, and what they were told.
    ("webhook_endpoints", Rule::Stay),
    ("webhook_secrets", Rule::Stay),
    ("webhook_deliveries", Rule::Stay),
    ("webhook_attempts", Rule::Stay),
    // Operators' own.
    ("queue_settings", Rule::Stay),
    ("workers", Rule::Stay),
    ("schedules", Rule::Stay),
    ("schedule_slots", Rule::Stay),
    ("backups", Rule::Stay),
    ("restore_drills", Rule::Stay),
];

/// What happens to the rows of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantChange {
    pub table: String,
    /// Rows that are there now, and rows of the backup.
    pub now: i64,
    pub backed_up: i64,
    pub added: i64,
    pub changed: i64,
    pub removed: i64,
}

/// A tenant that is as it was, or would be.
#[derive(Debug, Clone)]
pub struct TenantRestored {
    pub changes: Vec<TenantChange>,
    /// Its uploaded files.
    pub files: Brought,
}

/// Puts the rows of the tenant with this slug back as they were in the backup, in one transaction, and then brings back its
/// uploaded files that are missing; with `dry_run` it only counts what that would change. People, catalog, imports and published
/// documents go back; sessions, API keys, the audit log, jobs and events stay.
pub async fn restore_tenant(
    app: &App,
    id: BackupId,
    place: Option<&str>,
    slug: &str,
    dry_run: bool,
    progress: &Progress,
) -> Result<TenantRestored> {
    let config = &app.config.backup;
    let owner = app.config.database.owner_url.as_deref();
    let owner = owner.ok_or_else(|| refused("Set DATABASE_OWNER_URL: a tenant's rows are put back as the role mdl_owner"))?;
    let owner = postgres_address("DATABASE_OWNER_URL", owner)?;
    let (vault, manifest) = find(app, id, place).await?;
    if check_schema(&manifest)? || migrations::pending(&app.db).await? {
        return Err(refused(format!(
            "The backup {id} has another schema than the database in use: restore all of it into a database of its own and migrate that"
        )));
    }
    let keys = Identities::load(config.identity_file.as_deref())?;
    let scratch = Scratch::create(config).await?;
    scratch.fill(config, &vault, &manifest, &keys, progress).await?;
    progress.begin(Phase::Comparing, None);
    let source = scratch.connect().await?;
    let found = source.query_opt("SELECT id FROM public.tenants WHERE slug = $1", &[&slug]).await?;
    let tenant: Uuid = found.ok_or_else(|| refused(format!("The backup {id} has no tenant {slug:?}")))?.get(0);

    let is_theirs = |key: &str| key.split('/').any(|part| part == tenant.to_string());
    let plan = files::plan(app, &vault, &manifest, is_theirs).await?;
    let target = db::connect_as(owner).await?;
    target.batch_execute(&format!("BEGIN; SET LOCAL app.tenant_id = '{tenant}'; SET LOCAL search_path = public")).await?;
    let tables = tables(&target).await?;
    let mut changes = Vec::new();
    for table in &tables {
        table.bring(&source, &target, tenant).await?;
        if table.name == "imports" {
            end_imports(&target).await?;
        }
        changes.push(table.compare(&target).await?);
    }
    drop(source);
    let files = if dry_run {
        target.batch_execute("ROLLBACK").await?;
        plan.outlook()
    } else {
        for table in tables.iter().rev() {
            table.clear(&target).await?;
        }
        for table in &tables {
            table.fill(&target).await?;
        }
        tell(&target, tenant, id, &changes).await?;
        target.batch_execute("COMMIT").await?;
        app.versions.bump(TenantId(tenant), Change::of(Entities::ALL)).await;
        let brought = files::restore(app, &vault, plan, &keys, progress).await;
        info!(backup.id = %id, tenant = slug, "Restored a tenant");
        brought
    };
    scratch.remove().await;
    progress.begin(Phase::Finished, None);
    Ok(TenantRestored { changes, files })
}

struct Table {
    name: &'static str,
    rule: Rule,
    /// Without the generated ones.
    columns: Vec<String>,
    key: Vec<String>,
}

/// The tables whose rows are brought back. It is an error if there is one that nobody has thought about.
async fn tables(client: &Client) -> Result<Vec<Table>> {
    let query = "
        SELECT c.relname::text,
               (SELECT array_agg(quote_ident(a.attname) ORDER BY a.attnum) FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
               (SELECT array_agg(quote_ident(a.attname) ORDER BY a.attnum) FROM pg_index i
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey) WHERE i.indrelid = c.oid AND i.indisprimary)
        FROM pg_class c
        WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND (c.relname = 'tenants' OR EXISTS
            (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped))";
    let mut tables = Vec::new();
    for row in client.query(query, &[]).await? {
        let name: String = row.get(0);
        let Some(order) = TABLES.iter().position(|(known, _)| *known == name) else {
            return Err(Error::internal(format!("nobody has said what becomes of the table {name} when a tenant is restored")));
        };
        let (name, rule) = TABLES[order];
        if rule != Rule::Stay {
            tables.push((order, Table { name, rule, columns: row.get(1), key: row.get(2) }));
        }
    }
    tables.sort_by_key(|(order, _)| *order);
    Ok(tables.into_iter().map(|(_, table)| table).collect())
}

impl Table {
    fn temporary(&self) -> String {
        format!("pg_temp.restored_{}", self.name)
    }

    /// Copies the tenant's rows of the backup into a temporary table.
    async fn bring(&self, source: &Client, target: &Client, tenant: Uuid) -> Result<()> {
        let (columns, temporary) = (self.columns.join(", "), self.temporary());
        let tenant_column = if self.name == "tenants" { "id" } else { "tenant_id" };
        target
            .batch_execute(&format!(
                "CREATE TEMPORARY TABLE restored_{} ON COMMIT DROP AS SELECT {columns} FROM {} WITH NO DATA",
                self.name, self.name
            ))
            .await?;
        let out = format!(
            "COPY (SELECT {columns} FROM public.{} WHERE {tenant_column} = '{tenant}') TO STDOUT (FORMAT binary)",
            self.name
        );
        let rows = source.copy_out(&out).await?;
        let sink = target.copy_in(&format!("COPY {temporary} ({columns}) FROM STDIN (FORMAT binary)")).await?;
        pin_mut!(rows, sink);
        while let Some(piece) = rows.next().await {
            sink.as_mut().send(piece?).await?;
        }
        sink.finish().await?;
        Ok(())
    }

    async fn compare(&self, target: &Client) -> Result<TenantChange> {
        let (columns, key) = (self.columns.join(", "), self.key.join(", "));
        let rows = |of: &str| format!("(SELECT {key}, ROW({columns})::text AS content FROM {of})");
        let query = format!(
            "SELECT count(now.content), count(backup.content),
                 count(*) FILTER (WHERE now.content IS NULL), count(*) FILTER (WHERE now.content <> backup.content),
                 count(*) FILTER (WHERE backup.content IS NULL)
             FROM {} AS now FULL JOIN {} AS backup USING ({key})",
            rows(self.name),
            rows(&self.temporary())
        );
        let counts = target.query_one(&query, &[]).await?;
        // Where newer rows stay, none is removed.
        let removed = if self.rule == Rule::Replace { counts.get(4) } else { 0 };
        Ok(TenantChange {
            table: self.name.to_owned(),
            now: counts.get(0),
            backed_up: counts.get(1),
            added: counts.get(2),
            changed: counts.get(3),
            removed,
        })
    }

    async fn clear(&self, target: &Client) -> Result<()> {
        if self.rule == Rule::Replace {
            target.execute(&format!("DELETE FROM {}", self.name), &[]).await?;
        }
        Ok(())
    }

    async fn fill(&self, target: &Client) -> Result<()> {
        let columns = self.columns.join(", ");
        let conflict = match self.rule {
            Rule::Replace | Rule::Stay => String::new(),
            Rule::Merge => {
                let set: Vec<_> = self.columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
                format!(" ON CONFLICT ({}) DO UPDATE SET {}", self.key.join(", "), set.join(", "))
            }
        };
        let statement = format!("INSERT INTO {} ({columns}) SELECT {columns} FROM {}{conflict}", self.name, self.temporary());
        target.execute(&statement, &[]).await?;
        Ok(())
    }
}

/// Ends the imports of the backup that nobody will go on with: their jobs stay away.
async fn end_imports(target: &Client) -> Result<()> {
    target
        .execute(
            "UPDATE pg_temp.restored_imports
             SET state = 'failed', error = 'It was under way when the backup was made', finished_at = now()
             WHERE state IN ('queued', 'running')",
            &[],
        )
        .await?;
    Ok(())
}

/// Says in the audit log and in an event that it was done.
async fn tell(target: &Client, tenant: Uuid, backup: BackupId, changes: &[TenantChange]) -> Result<()> {
    let rows: serde_json::Map<_, _> = changes.iter().map(|change| (change.table.clone(), json!(change.backed_up))).collect();
    let details = json!({ "backup": backup, "rows": rows });
    let told = TenantPayload { id: tenant, backup: backup.0 };
    target
        .execute(
            "INSERT INTO audit_log (tenant_id, id, actor_kind, action, entity_kind, entity_id, details)
             VALUES ($1, $2, 'system', 'tenant.restored', 'tenant', $1, $3)",
            &[&tenant, &AuditId::new().0, &details],
        )
        .await?;
    target
        .execute(
            "INSERT INTO outbox (tenant_id, id, kind, version, subject_id, payload) VALUES ($1, $2, $3, $4, $1, $5)",
            &[&tenant, &EventId::new().0, &TENANT_RESTORED.name, &TENANT_RESTORED.version, &json!(told)],
        )
        .await?;
    Ok(())
}
