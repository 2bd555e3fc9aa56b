//! The versions of a metric.

use std::sync::Arc;

use async_graphql::{Context, Object, Result};
use chrono::{DateTime, Utc};
use mdl::ids::MetricId;
use mdl::page::{Page, PageArgs};
use mdl::{Error, metrics};

use super::Metric;
use super::enums::ChangeTier;
use crate::graphql::connection::{Connection, connection};
use crate::graphql::context::ContextExt;
use crate::graphql::eager::plain_fields;
use crate::graphql::error::top_level;
use crate::graphql::users::{self, User};

pub type MetricVersionConnection = Connection<MetricVersion, VersionTotals>;

/// A version, and the metric as it is now.
pub struct MetricVersion {
    version: metrics::MetricVersion,
    now: Arc<metrics::Metric>,
}

/// One state that a metric has had. Versions are written with the change, and never altered.
#[Object]
impl MetricVersion {
    /// The semantic version: `2.1.0`.
    fn version(&self) -> String {
        self.version.version().to_string()
    }

    /// Which change it was, counted from 1.
    fn revision(&self) -> i32 {
        self.version.revision
    }

    /// How much the change mattered.
    fn change_tier(&self) -> ChangeTier {
        self.version.change_tier.into()
    }

    /// The fields that the change touched, as the model names them: `name`, `definition.formula`, `targets.target_value`.
    fn changed_fields(&self) -> &[String] {
        &self.version.changed_fields
    }

    /// Why, if whoever made the change said.
    fn message(&self) -> Option<&str> {
        self.version.message.as_deref()
    }

    /// When the change was made.
    fn created_at(&self) -> DateTime<Utc> {
        self.version.created_at
    }

    /// Who made the change; null if it was no person.
    async fn created_by(&self, ctx: &Context<'_>) -> Option<Result<User>> {
        users::by_id(ctx, self.version.created_by).await
    }

    /// The metric as it was. Its lineage and key results are those of today.
    async fn metric(&self, ctx: &Context<'_>) -> Result<Metric> {
        let (id, revision) = (self.version.metric_id, self.version.revision);
        match ctx.reading()?.loaders.metrics.documents.get((id, revision)).await? {
            Some(definition) => Ok(Metric::as_it_was(&self.now, &self.version, Arc::unwrap_or_clone(definition))),
            None => Err(top_level(Error::not_found("version", revision))),
        }
    }
}

plain_fields!(MetricVersion {
    "version" => version,
    "revision" => revision,
    "changedFields" => changed_fields,
    "message" => message,
    "createdAt" => created_at,
});

pub struct VersionTotals(MetricId);

#[Object]
impl VersionTotals {
    /// How many versions there are. Counted only when selected.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        Ok(ctx.reading()?.loaders.metrics.version_count.get(self.0).await?.unwrap_or(0))
    }
}

/// A page of a metric's versions, newest first.
pub async fn versions(ctx: &Context<'_>, now: &Arc<metrics::Metric>, args: PageArgs<i32>) -> Result<MetricVersionConnection> {
    let page = ctx.reading()?.loaders.metrics.versions.get((now.id, args)).await?.unwrap_or_else(Page::empty);
    let page = page.map(|version| {
        let position = version.revision;
        (version, position)
    });
    Ok(connection(ctx, page, VersionTotals(now.id), |version| MetricVersion { version, now: now.clone() }))
}
