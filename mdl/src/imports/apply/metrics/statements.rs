//! What an import sends to PostgreSQL for metrics: the staging table, and the statements that write from there.

use std::sync::LazyLock;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use crate::error::Result;

/// The columns that hold a metric's summary, in the order in which they are read and staged.
const SUMMARY: &str = "name, short_name, description, category, tier, domain_id, indicator_kind, metric_type, status, tags, synonyms, \
                       formula, unit, expected_direction, owner_team, technical_owner, business_owner, data_classification, pii_involved";

/// The temporary table: a new state of a metric on each row, with all that its version, edges and event need.
const CREATE_STAGING: &str = "
    CREATE TEMPORARY TABLE import_staging (
        is_new boolean NOT NULL, id uuid NOT NULL, event_id uuid NOT NULL, event_kind text NOT NULL, event_version smallint NOT NULL,
        event jsonb NOT NULL, key text NOT NULL,
        name text NOT NULL, short_name text, description text NOT NULL, category text, tier text, domain_id uuid, indicator_kind text,
        metric_type text NOT NULL, status text NOT NULL, tags text[] NOT NULL, synonyms text[] NOT NULL, formula text, unit text,
        expected_direction text, owner_team text, technical_owner text, business_owner text, data_classification text,
        pii_involved boolean NOT NULL,
        document jsonb NOT NULL, version_major integer NOT NULL, version_minor integer NOT NULL, version_patch integer NOT NULL,
        revision integer NOT NULL, change_tier text NOT NULL, changed_fields text[] NOT NULL,
        edges_changed boolean NOT NULL, edge_upstream text[] NOT NULL, edge_downstream text[] NOT NULL
    ) ON COMMIT DELETE ROWS";

pub static STAGED: LazyLock<Vec<Type>> = LazyLock::new(|| {
    let mut types = vec![Type::BOOL, Type::UUID, Type::UUID, Type::TEXT, Type::INT2, Type::JSONB, Type::TEXT];
    types.extend([Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::UUID, Type::TEXT]);
    types.extend([Type::TEXT, Type::TEXT, Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::TEXT, Type::TEXT]);
    types.extend([Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::BOOL]);
    types.extend([Type::JSONB, Type::INT4, Type::INT4, Type::INT4, Type::INT4, Type::TEXT, Type::TEXT_ARRAY]);
    types.extend([Type::BOOL, Type::TEXT_ARRAY, Type::TEXT_ARRAY]);
    types
});

/// The prepared statements of a session.
pub struct Statements {
    pub present: Statement,
    pub lock: Statement,
    pub stage: Statement,
    pub insert: Statement,
    pub lost: Statement,
    pub update: Statement,
    pub versions: Statement,
    pub forget_edges: Statement,
    pub edges: Statement,
    pub events: Statement,
}

impl Statements {
    pub async fn prepare(client: &Client) -> Result<Self> {
        client.batch_execute(CREATE_STAGING).await?;
        let present = format!(
            "SELECT id, key, {SUMMARY}, details, version_major, version_minor, version_patch, revision \
             FROM metrics WHERE tenant_id = $1 AND key = ANY ($2) ORDER BY key"
        );
        let set: Vec<String> = SUMMARY.split(", ").map(|column| format!("{column} = s.{column}")).collect();
        let update = format!(
            "UPDATE metrics m SET {}, details = s.document -> 'details', version_major = s.version_major, version_minor = s.version_minor, \
             version_patch = s.version_patch, revision = s.revision, updated_at = now(), updated_by = $2, \
             archived_at = CASE WHEN s.status = 'removed' THEN m.archived_at END \
             FROM import_staging s WHERE NOT s.is_new AND m.tenant_id = $1 AND m.id = s.id",
            set.join(", ")
        );
        let insert = format!(
            "INSERT INTO metrics (tenant_id, id, key, {SUMMARY}, details, version_major, version_minor, version_patch, revision, created_by, updated_by) \
             SELECT $1, id, key, {SUMMARY}, document -> 'details', version_major, version_minor, version_patch, revision, $2, $2 \
             FROM import_staging WHERE is_new ORDER BY key ON CONFLICT (tenant_id, key) DO NOTHING"
        );
        Ok(Self {
            lock: client.prepare(&format!("{present} FOR UPDATE")).await?,
            present: client.prepare(&present).await?,
            stage: client.prepare("COPY import_staging FROM STDIN (FORMAT binary)").await?,
            insert: client.prepare_typed(&insert, &[Type::UUID, Type::UUID]).await?,
            lost: client
                .prepare(
                    "DELETE FROM import_staging s WHERE is_new \
                     AND NOT EXISTS (SELECT FROM metrics m WHERE m.tenant_id = $1 AND m.id = s.id) RETURNING key",
                )
                .await?,
            update: client.prepare_typed(&update, &[Type::UUID, Type::UUID]).await?,
            versions: client
                .prepare_typed(
                    "INSERT INTO metric_versions (tenant_id, metric_id, revision, version_major, version_minor, version_patch, change_tier, \
                     changed_fields, message, document, created_by) \
                     SELECT $1, id, revision, version_major, version_minor, version_patch, change_tier, changed_fields, $2, document, $3 \
                     FROM import_staging",
                    &[Type::UUID, Type::TEXT, Type::UUID],
                )
                .await?,
            forget_edges: client
                .prepare(
                    "DELETE FROM metric_edges e USING import_staging s \
                     WHERE NOT s.is_new AND s.edges_changed AND e.tenant_id = $1 AND e.declared_by = s.id",
                )
                .await?,
            edges: client
                .prepare_typed(
                    "INSERT INTO metric_edges (tenant_id, declared_by, upstream_key, downstream_key) \
                     SELECT $1, id, upstream, downstream \
                     FROM import_staging, unnest(edge_upstream, edge_downstream) AS edge (upstream, downstream) WHERE edges_changed",
                    &[Type::UUID],
                )
                .await?,
            events: client
                .prepare_typed(
                    "INSERT INTO outbox (tenant_id, id, kind, version, subject_id, payload, actor_id, trace_context) \
                     SELECT $1, event_id, event_kind, event_version, id, event, $2, $3 FROM import_staging",
                    &[Type::UUID, Type::UUID, Type::JSONB],
                )
                .await?,
        })
    }
}
