//! Objectives and the key results that measure them.
//!
//! Progress and status of a key result are computed when they are read ([`progress`]); nobody types them in.

pub mod key_results;
mod operations;
pub mod progress;
pub mod store;

pub use key_results::{KeyResult, KeyResultContent, KeyResultDirection};
pub(crate) use operations::payload;
pub use operations::{NewObjective, archive, create, update};
pub use progress::KeyResultStatus;

use chrono::{DateTime, NaiveDate, Utc};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Code;
use crate::extra::Extra;
use crate::ids::{DomainId, ObjectiveId, TenantId};
use crate::schema::objectives;
use crate::text::{Problems, text_enum};

/// What the company wants to reach in a timeframe.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable)]
#[diesel(table_name = objectives, primary_key(tenant_id, id), check_for_backend(diesel::pg::Pg))]
pub struct Objective {
    pub tenant_id: TenantId,
    pub id: ObjectiveId,
    /// The stable human name: `OBJ-001`.
    pub key: String,
    #[diesel(embed)]
    pub content: Content,
    pub revision: i32,
    pub created_at: DateTime<Utc>,
    pub created_by: Option<Uuid>,
    pub updated_at: DateTime<Utc>,
    pub updated_by: Option<Uuid>,
    pub archived_at: Option<DateTime<Utc>>,
}

/// What a person or a file says about an objective.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = objectives, check_for_backend(diesel::pg::Pg), treat_none_as_null = true, treat_none_as_default_value = false)]
#[serde(default)]
pub struct Content {
    pub name: String,
    pub description: String,
    pub owner: Option<String>,
    pub status: ObjectiveStatus,
    /// `P0`, `P1`, … or `high`, as the company ranks.
    pub priority: Option<String>,
    /// The strategic pillar or theme it serves.
    pub pillar: Option<String>,
    /// First day of the timeframe.
    pub starts_on: Option<NaiveDate>,
    /// Last day of the timeframe.
    pub ends_on: Option<NaiveDate>,
    pub domain_id: Option<DomainId>,
    /// Metrics that the objective is about.
    pub metric_keys: Vec<String>,
    /// Imported fields that the model has no place for.
    pub extra: Extra,
}

/// Where an objective stands, as its owner says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveStatus {
    #[default]
    Draft,
    Active,
    Achieved,
    Missed,
    Cancelled,
}
text_enum!(ObjectiveStatus {
    Draft = "draft",
    Active = "active",
    Achieved = "achieved",
    Missed = "missed",
    Cancelled = "cancelled",
});

impl Content {
    /// Everything that is wrong with this content.
    pub fn check(&self, problems: &mut Problems) {
        problems.line("name", &self.name, 500);
        problems.text("description", &self.description, 20_000);
        for (field, text) in [("owner", &self.owner), ("priority", &self.priority), ("pillar", &self.pillar)] {
            if let Some(text) = text {
                problems.line(field, text, 300);
            }
        }
        if let (Some(start), Some(end)) = (self.starts_on, self.ends_on)
            && start > end
        {
            problems.add("ends_on", Code::OutOfRange, format!("The timeframe ends on {end}, before it starts on {start}"));
        }
        problems.count("metric_keys", self.metric_keys.len(), 200);
        for (i, key) in self.metric_keys.iter().enumerate() {
            crate::metrics::definition::check_key(problems, &format!("metric_keys.{i}"), key);
        }
        self.extra.check(problems, Extra::MAX);
    }
}
