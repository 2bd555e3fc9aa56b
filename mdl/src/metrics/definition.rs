//! The content of a metric's definition. [`Summary`] is in columns, for what is filtered, joined or listed; [`Details`] is
//! one JSON document. Together they are what a version keeps.

mod details;

use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::ids::DomainId;
use crate::schema::metrics;
use crate::text::{Problems, text_enum};

pub use details::{
    AlertRule, Alignment, Calculation, Dashboard, DataSources, Details, Dimension, EventCount, EventFilter, ExampleQuery,
    Playbook, Relationships, Source, Targets, Usage, Visualization,
};

/// Longest description, formula, note: what a person would still write by hand.
const LONG: usize = 20_000;
const LINE: usize = 300;
/// Most entries of a list inside a definition.
const LIST: usize = 200;

/// Everything a person or a file says about a metric. Its key is apart: it never changes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Definition {
    #[serde(flatten)]
    pub summary: Summary,
    #[serde(default)]
    pub details: Details,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = metrics, check_for_backend(diesel::pg::Pg), treat_none_as_null = true, treat_none_as_default_value = false)]
#[serde(default)]
pub struct Summary {
    pub name: String,
    pub short_name: Option<String>,
    pub description: String,
    /// What kind of figure it is to the company: KPI, Finance, Retention, …
    pub category: Option<String>,
    pub tier: Option<Tier>,
    pub domain_id: Option<DomainId>,
    pub indicator_kind: Option<IndicatorKind>,
    pub metric_type: MetricType,
    pub status: Status,
    pub tags: Vec<String>,
    pub synonyms: Vec<String>,
    pub formula: Option<String>,
    pub unit: Option<String>,
    pub expected_direction: Option<Direction>,
    pub owner_team: Option<String>,
    pub technical_owner: Option<String>,
    pub business_owner: Option<String>,
    pub data_classification: Option<String>,
    pub pii_involved: bool,
}

/// How much depends on a metric: tier 1 is what the company is steered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    #[serde(rename = "tier_1")]
    Tier1,
    #[serde(rename = "tier_2")]
    Tier2,
    #[serde(rename = "tier_3")]
    Tier3,
}
text_enum!(Tier { Tier1 = "tier_1", Tier2 = "tier_2", Tier3 = "tier_3" });

/// Whether a metric foretells, reports, or watches the running business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndicatorKind {
    Leading,
    Lagging,
    Operational,
}
text_enum!(IndicatorKind { Leading = "leading", Lagging = "lagging", Operational = "operational" });

/// How a metric is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricType {
    /// One measure, aggregated.
    #[default]
    Simple,
    /// A numerator over a denominator.
    Ratio,
    /// An expression over other metrics.
    Derived,
    /// A measure that accumulates over a window, or to date.
    Cumulative,
    /// How many of those who did one thing went on to do another.
    Conversion,
}
text_enum!(MetricType {
    Simple = "simple",
    Ratio = "ratio",
    Derived = "derived",
    Cumulative = "cumulative",
    Conversion = "conversion",
});

/// Where a definition stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Draft,
    InReview,
    Active,
    Deprecated,
    Removed,
}
text_enum!(Status {
    Draft = "draft",
    InReview = "in_review",
    Active = "active",
    Deprecated = "deprecated",
    Removed = "removed",
});

/// Which way the number should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Increase,
    Decrease,
    Stable,
}
text_enum!(Direction { Increase = "increase", Decrease = "decrease", Stable = "stable" });

/// A key that people can type and that survives a URL: letters, digits, `-`, `_`, `.`, `:`, `/`; at most 200 characters.
pub fn check_key(problems: &mut Problems, field: &str, key: &str) {
    problems.line(field, key, 200);
    if let Some(bad) = key.chars().find(|c| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/')))
        && !bad.is_control()
        && !key.trim().is_empty()
    {
        problems.add(field, Code::Invalid, format!("A key has letters, digits and - _ . : / only, not {bad:?}"));
    }
}

impl Definition {
    /// Everything that is wrong with this content, with snake_case paths as [`crate::metrics::changes`] names fields.
    pub fn check(&self, problems: &mut Problems) {
        self.summary.check(problems);
        self.details.check(problems);
    }
}

impl Summary {
    fn check(&self, problems: &mut Problems) {
        problems.line("name", &self.name, LINE);
        problems.text("description", &self.description, LONG);
        if let Some(formula) = &self.formula {
            problems.text("definition.formula", formula, LONG);
        }
        let lines = [
            ("short_name", &self.short_name),
            ("category", &self.category),
            ("definition.unit", &self.unit),
            ("governance.owner_team", &self.owner_team),
            ("governance.technical_owner", &self.technical_owner),
            ("governance.business_owner", &self.business_owner),
            ("governance.data_classification", &self.data_classification),
        ];
        for (field, text) in lines {
            if let Some(text) = text {
                problems.line(field, text, LINE);
            }
        }
        check_lines(problems, "tags", &self.tags);
        check_lines(problems, "synonyms", &self.synonyms);
    }
}

fn check_lines(problems: &mut Problems, field: &str, lines: &[String]) {
    problems.count(field, lines.len(), LIST);
    for (i, line) in lines.iter().enumerate() {
        problems.line(&format!("{field}.{i}"), line, LINE);
    }
}
