//! Every state a metric has had. Versions are written with the change and never updated.

use std::fmt;

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Array, Bool, Integer, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Metric;
use super::changes::ChangeTier;
use super::definition::{Definition, Status};
use crate::error::{Code, Error, Problem, Result};
use crate::ids::{MetricId, TenantId};
use crate::page::{Page, PageArgs};
use crate::schema::{metric_versions, metrics};

/// A semantic version: major for what changes the number, minor for what changes its reading, patch for the rest.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    Queryable,
    Selectable,
    Insertable,
    AsChangeset,
)]
#[diesel(table_name = metrics, check_for_backend(diesel::pg::Pg), treat_none_as_default_value = false)]
pub struct Semver {
    #[diesel(column_name = version_major)]
    pub major: i32,
    #[diesel(column_name = version_minor)]
    pub minor: i32,
    #[diesel(column_name = version_patch)]
    pub patch: i32,
}

impl Semver {
    pub const FIRST: Semver = Semver { major: 1, minor: 0, patch: 0 };

    /// `"1.4.0"`; also `"1.4"` and `"1"`, as people write them.
    ///
    /// ```
    /// use mdl::metrics::Semver;
    /// assert_eq!(Semver::parse("2.10"), Some(Semver { major: 2, minor: 10, patch: 0 }));
    /// assert_eq!(Semver::parse("2.x"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse::<u16>().ok().map(i32::from));
        let version =
            Semver { major: parts.next()??, minor: parts.next().unwrap_or(Some(0))?, patch: parts.next().unwrap_or(Some(0))? };
        parts.next().is_none().then_some(version)
    }

    /// The version that an input gives in its field `version`.
    pub fn given(text: &str) -> Result<Self, Problem> {
        let problem = || Problem::new("version", Code::Invalid, format!("{text:?} is not a version such as 2.1.0"));
        Self::parse(text).ok_or_else(problem)
    }

    /// The version after a change of this tier.
    pub fn bump(self, tier: ChangeTier) -> Self {
        match tier {
            ChangeTier::Initial => self,
            ChangeTier::Major => Self { major: self.major + 1, minor: 0, patch: 0 },
            ChangeTier::Minor => Self { minor: self.minor + 1, patch: 0, ..self },
            ChangeTier::Patch => Self { patch: self.patch + 1, ..self },
        }
    }
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// One past or present state of a metric.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = metric_versions, check_for_backend(diesel::pg::Pg))]
pub struct MetricVersion {
    pub tenant_id: TenantId,
    pub metric_id: MetricId,
    pub revision: i32,
    pub version_major: i32,
    pub version_minor: i32,
    pub version_patch: i32,
    pub change_tier: ChangeTier,
    pub changed_fields: Vec<String>,
    pub message: Option<String>,
    pub created_at: DateTime<Utc>,
    pub created_by: Option<Uuid>,
}

impl MetricVersion {
    pub fn version(&self) -> Semver {
        Semver { major: self.version_major, minor: self.version_minor, patch: self.version_patch }
    }
}

#[derive(Insertable)]
#[diesel(table_name = metric_versions, treat_none_as_default_value = false)]
struct NewVersion<'a> {
    tenant_id: TenantId,
    metric_id: MetricId,
    revision: i32,
    version_major: i32,
    version_minor: i32,
    version_patch: i32,
    change_tier: ChangeTier,
    changed_fields: &'a [String],
    message: Option<&'a str>,
    document: serde_json::Value,
    created_by: Option<Uuid>,
}

/// Keeps the state that `metric` has just been given.
pub(super) async fn insert(
    mut conn: &AsyncPgConnection,
    metric: &Metric,
    definition: &Definition,
    tier: ChangeTier,
    changed_fields: &[String],
    message: Option<&str>,
) -> Result<()> {
    let row = NewVersion {
        tenant_id: metric.tenant_id,
        metric_id: metric.id,
        revision: metric.revision,
        version_major: metric.version.major,
        version_minor: metric.version.minor,
        version_patch: metric.version.patch,
        change_tier: tier,
        changed_fields,
        message,
        document: serde_json::to_value(definition)?,
        created_by: metric.updated_by,
    };
    diesel::insert_into(metric_versions::table).values(row).execute(&mut conn).await?;
    Ok(())
}

/// Versions of several metrics, newest first, one page of each, in one statement. The cursor is the revision.
///
/// Revisions count from 1 without a gap, so a page is a range of them.
pub async fn page_of_each(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    ids: &[MetricId],
    args: &PageArgs<i32>,
) -> Result<Vec<(MetricId, Page<MetricVersion>)>> {
    let fetch = args.limit as i32 + 1;
    let mut query = metric_versions::table
        .inner_join(
            metrics::table.on(metrics::tenant_id.eq(metric_versions::tenant_id).and(metrics::id.eq(metric_versions::metric_id))),
        )
        .filter(metric_versions::tenant_id.eq(tenant))
        .filter(metric_versions::metric_id.eq_any(ids))
        .select(MetricVersion::as_select())
        .into_boxed();
    if let Some(after) = args.after {
        query = query.filter(metric_versions::revision.lt(after));
    }
    if let Some(before) = args.before {
        query = query.filter(metric_versions::revision.gt(before));
    }
    query = match (args.backward, args.after, args.before) {
        (false, Some(after), _) => query.filter(metric_versions::revision.ge(after.saturating_sub(fetch))),
        (false, None, _) => query.filter(metric_versions::revision.gt(metrics::revision - fetch)),
        (true, _, before) => query.filter(metric_versions::revision.le(before.unwrap_or(0).saturating_add(fetch))),
    };
    query = if args.backward {
        query.order((metric_versions::metric_id, metric_versions::revision.asc()))
    } else {
        query.order((metric_versions::metric_id, metric_versions::revision.desc()))
    };
    let rows: Vec<MetricVersion> = query.load(&mut conn).await?;
    let pages = rows.chunk_by(|a, b| a.metric_id == b.metric_id);
    Ok(pages.map(|versions| (versions[0].metric_id, Page::from_rows(versions.to_vec(), args))).collect())
}

/// How many versions each metric has.
pub async fn count_of_each(mut conn: &AsyncPgConnection, tenant: TenantId, ids: &[MetricId]) -> Result<Vec<(MetricId, i64)>> {
    Ok(metric_versions::table
        .filter(metric_versions::tenant_id.eq(tenant))
        .filter(metric_versions::metric_id.eq_any(ids))
        .group_by(metric_versions::metric_id)
        .select((metric_versions::metric_id, diesel::dsl::count_star()))
        .load(&mut conn)
        .await?)
}

/// The whole definition of a metric as it was at a version.
pub async fn document(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    id: MetricId,
    version: Semver,
) -> Result<(MetricVersion, Definition)> {
    let found: Option<(MetricVersion, serde_json::Value)> = metric_versions::table
        .filter(metric_versions::tenant_id.eq(tenant))
        .filter(metric_versions::metric_id.eq(id))
        .filter(metric_versions::version_major.eq(version.major))
        .filter(metric_versions::version_minor.eq(version.minor))
        .filter(metric_versions::version_patch.eq(version.patch))
        .select((MetricVersion::as_select(), metric_versions::document))
        .first(&mut conn)
        .await
        .optional()?;
    match found {
        Some((row, document)) => Ok((row, serde_json::from_value(document)?)),
        None => Err(Error::invalid("version", Code::NotFound, format!("There is no version {version} of this metric"))),
    }
}

/// The last status of a metric that was not removed.
pub(super) async fn last_status(mut conn: &AsyncPgConnection, tenant: TenantId, id: MetricId) -> Result<Option<Status>> {
    let status: Option<String> = metric_versions::table
        .filter(metric_versions::tenant_id.eq(tenant))
        .filter(metric_versions::metric_id.eq(id))
        .filter(sql::<Bool>("metric_versions.document->>'status' <> 'removed'"))
        .order(metric_versions::revision.desc())
        .select(sql::<Text>("metric_versions.document->>'status'"))
        .first(&mut conn)
        .await
        .optional()?;
    Ok(status.as_deref().and_then(Status::parse))
}

/// Whole definitions as they were, for several revisions of several metrics.
pub async fn documents(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    wanted: &[(MetricId, i32)],
) -> Result<Vec<((MetricId, i32), Definition)>> {
    let ids: Vec<Uuid> = wanted.iter().map(|(id, _)| id.0).collect();
    let revisions: Vec<i32> = wanted.iter().map(|(_, revision)| *revision).collect();
    let pairs = sql::<Bool>("(metric_versions.metric_id, metric_versions.revision) IN (SELECT * FROM unnest(")
        .bind::<Array<SqlUuid>, _>(ids)
        .sql(", ")
        .bind::<Array<Integer>, _>(revisions)
        .sql("))");
    let found: Vec<(MetricId, i32, serde_json::Value)> = metric_versions::table
        .filter(metric_versions::tenant_id.eq(tenant))
        .filter(pairs)
        .select((metric_versions::metric_id, metric_versions::revision, metric_versions::document))
        .load(&mut conn)
        .await?;
    found.into_iter().map(|(id, revision, document)| Ok(((id, revision), serde_json::from_value(document)?))).collect()
}
