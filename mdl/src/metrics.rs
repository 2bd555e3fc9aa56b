//! Metrics: what a number means, every state that definition has had, and what it depends on.
//!
//! [`definition`] is the content a person or a file gives; [`changes`] compares two contents and ranks the difference;
//! `store` and [`lineage`] read rows; this file holds the row and the operations that write.

pub mod changes;
mod columns;
pub mod definition;
pub mod filter;
pub mod lineage;
pub(crate) mod news;
mod operations;
pub mod related;
pub mod search;
pub mod store;
pub mod versions;

pub use columns::Columns;
pub use definition::{Definition, Details, Summary};
pub use operations::{NewMetric, Update, archive, create, restore, update};
pub use versions::{MetricVersion, Semver};

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use uuid::Uuid;

use crate::ids::{MetricId, TenantId};
use crate::schema::metrics;

/// What a metric is known by where others mention it, and what it is counted by: fields as [`changes`] names them. Most changes
/// are of others, and leave everything as it was that shows no more than these.
pub const LABELS: &[&str] =
    &["name", "short_name", "category", "tier", "status", "metric_type", "indicator_kind", "tags", "domain"];

/// A metric as it is now.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable)]
#[diesel(table_name = metrics, primary_key(tenant_id, id), check_for_backend(diesel::pg::Pg))]
pub struct Metric {
    pub tenant_id: TenantId,
    pub id: MetricId,
    /// The stable human name: `METRIC-LOGIN-SUCCESS-RATE`.
    pub key: String,
    #[diesel(embed)]
    pub summary: Summary,
    #[diesel(embed)]
    pub version: Semver,
    /// Counts changes from 1.
    pub revision: i32,
    pub created_at: DateTime<Utc>,
    pub created_by: Option<Uuid>,
    pub updated_at: DateTime<Utc>,
    pub updated_by: Option<Uuid>,
    pub archived_at: Option<DateTime<Utc>>,
}
