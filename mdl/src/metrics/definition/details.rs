//! What is shown of one metric at a time: one JSON document beside its columns.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{LINE, LIST, check_key};
use crate::error::Code;
use crate::extra::Extra;
use crate::text::Problems;

/// What is shown of one metric at a time. Empty parts are left out of the stored JSON.
#[derive(
    Debug, Clone, PartialEq, Default, Serialize, Deserialize, diesel::expression::AsExpression, diesel::deserialize::FromSqlRow,
)]
#[diesel(sql_type = diesel::sql_types::Jsonb)]
#[serde(default)]
pub struct Details {
    #[serde(skip_serializing_if = "is_default")]
    pub alignment: Alignment,
    #[serde(skip_serializing_if = "is_default")]
    pub calculation: Calculation,
    #[serde(skip_serializing_if = "is_default")]
    pub data: DataSources,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regulatory_constraints: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dimensions: Vec<Dimension>,
    #[serde(skip_serializing_if = "is_default")]
    pub targets: Targets,
    #[serde(skip_serializing_if = "is_default")]
    pub visualization: Visualization,
    #[serde(skip_serializing_if = "is_default")]
    pub relationships: Relationships,
    #[serde(skip_serializing_if = "is_default")]
    pub usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub example_queries: Vec<ExampleQuery>,
    /// Imported fields that the model has no place for, under their own names.
    #[serde(skip_serializing_if = "is_default")]
    pub extra: Extra,
}

/// Why the company keeps this metric.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Alignment {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategic_pillar: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objective_keys: Vec<String>,
    /// Key results as `OBJECTIVE-KEY:KEY-RESULT-KEY`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub key_result_refs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_it_matters: Option<String>,
}

/// The computation beyond its formula.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Calculation {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub formula_detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numerator: Option<EventCount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denominator: Option<EventCount>,
    /// Named inputs and the `result` they give.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub example: Map<String, Value>,
}

/// Events that are counted: the measure behind a numerator or denominator.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventCount {
    pub event_name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<EventFilter>,
}

/// One condition on counted events.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventFilter {
    pub field: String,
    /// `eq`, `neq`, `in`, `gt`, …, as the source writes it.
    pub operator: String,
    pub value: Value,
}

/// Where the numbers come from, and how fresh they are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DataSources {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub primary_sources: Vec<Source>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secondary_sources: Vec<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freshness: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_frequency: Option<String>,
    /// `hour`, `day`, `week`, …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub time_grains: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<String>,
}

/// A table or stream in a system.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    pub system: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_or_stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<String>,
}

/// What the metric may be cut by.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Dimension {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Empty: any value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_values: Vec<String>,
    pub required: bool,
}

/// What the number should be, and who hears of it when it is not.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Targets {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning_threshold: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critical_threshold: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison_baseline: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alert_rules: Vec<AlertRule>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertRule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub condition: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// `slack:#channel`, `email:address`, …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notify_channels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation_window: Option<String>,
}

/// How and where it is shown.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Visualization {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_chart_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_time_range: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dashboards: Vec<Dashboard>,
    /// Dimensions that the charts break down by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drilldowns: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Dashboard {
    pub tool: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// Lineage as this metric declares it, by key, and what improves or suffers with it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Relationships {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstream_keys: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub downstream_keys: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tradeoffs: Vec<String>,
}

/// What people do with it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decision_use_cases: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub review_cadence: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub playbooks: Vec<Playbook>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Playbook {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExampleQuery {
    /// `sql`, `promql`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    pub query: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

crate::text::jsonb!(Details);

impl Details {
    pub(super) fn check(&self, problems: &mut Problems) {
        check_keys(problems, "relationships.upstream_keys", &self.relationships.upstream_keys);
        check_keys(problems, "relationships.downstream_keys", &self.relationships.downstream_keys);
        problems.count("dimensions", self.dimensions.len(), LIST);
        for (i, dimension) in self.dimensions.iter().enumerate() {
            problems.line(&format!("dimensions.{i}.name"), &dimension.name, LINE);
            problems.count(&format!("dimensions.{i}.allowed_values"), dimension.allowed_values.len(), 1_000);
        }
        self.calculation.check(problems);
        let data = &self.data;
        check_filled(problems, "data.primary_sources.*.system", data.primary_sources.iter().map(|source| &source.system));
        check_filled(problems, "data.secondary_sources.*.system", data.secondary_sources.iter().map(|source| &source.system));
        check_filled(problems, "data.time_grains.*", &data.time_grains);
        check_filled(problems, "governance.regulatory_constraints.*", &self.regulatory_constraints);
        check_filled(problems, "example_queries.*.query", self.example_queries.iter().map(|example| &example.query));
        problems.count("targets.alert_rules", self.targets.alert_rules.len(), LIST);
        for (i, rule) in self.targets.alert_rules.iter().enumerate() {
            problems.required(&format!("targets.alert_rules.{i}.condition"), &rule.condition);
            if let Some(severity) = &rule.severity {
                problems.required(&format!("targets.alert_rules.{i}.severity"), severity);
            }
        }
        for (field, value) in [
            ("targets.target_value", self.targets.target_value),
            ("targets.warning_threshold", self.targets.warning_threshold),
            ("targets.critical_threshold", self.targets.critical_threshold),
        ] {
            if value.is_some_and(|value| !value.is_finite()) {
                problems.add(field, Code::OutOfRange, "Must be a finite number");
            }
        }
        check_filled(problems, "visualization.dashboards.*.tool", self.visualization.dashboards.iter().map(|d| &d.tool));
        check_filled(problems, "usage.playbooks.*.name", self.usage.playbooks.iter().map(|p| &p.name));
        check_links(problems, "visualization.dashboards", self.visualization.dashboards.iter().map(|d| d.url.as_deref()));
        check_links(problems, "usage.playbooks", self.usage.playbooks.iter().map(|p| p.url.as_deref()));
        self.extra.check_levels(problems);
        // The rest is free text, bounded as a whole: nobody filters by it.
        problems.json("", "The definition takes", self, Extra::MAX);
    }
}

impl Calculation {
    fn check(&self, problems: &mut Problems) {
        for (side, count) in [("numerator", &self.numerator), ("denominator", &self.denominator)] {
            let Some(count) = count else { continue };
            problems.required(&format!("definition.{side}.event_name"), &count.event_name);
            for (i, filter) in count.filters.iter().enumerate() {
                problems.required(&format!("definition.{side}.filters.{i}.field"), &filter.field);
                problems.required(&format!("definition.{side}.filters.{i}.operator"), &filter.operator);
                problems.levels(&format!("definition.{side}.filters.{i}.value"), "Is", &filter.value);
            }
        }
        for (name, value) in &self.example {
            problems.levels("definition.example_calculation", format_args!("The field {name:?} is"), value);
        }
    }
}

/// None of the texts is blank. `*` in the path stands for the place of a text.
fn check_filled<'a>(problems: &mut Problems, path: &str, texts: impl IntoIterator<Item = &'a String>) {
    for (i, text) in texts.into_iter().enumerate() {
        problems.required(&path.replace('*', &i.to_string()), text);
    }
}

fn check_keys(problems: &mut Problems, field: &str, keys: &[String]) {
    problems.count(field, keys.len(), LIST);
    for (i, key) in keys.iter().enumerate() {
        check_key(problems, &format!("{field}.{i}"), key);
    }
}

/// Links are shown to people, who click them: `javascript:` must not get in.
fn check_links<'a>(problems: &mut Problems, list: &str, links: impl Iterator<Item = Option<&'a str>>) {
    for (i, link) in links.enumerate() {
        let Some(link) = link.filter(|link| !link.is_empty()) else { continue };
        let web = url::Url::parse(link).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if !web {
            problems.add(&format!("{list}.{i}.url"), Code::Invalid, "Must be an http or https address");
        }
    }
}
