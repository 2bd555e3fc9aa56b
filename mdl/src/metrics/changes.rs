//! What differs between two definitions, and how much that matters.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::definition::Definition;
use crate::text::text_enum;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// As the model names it: `name`, `definition.formula`, `targets.target_value`.
    pub field: String,
    pub before: Value,
    pub after: Value,
}

/// How much a change matters to somebody who uses the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeTier {
    /// The first version.
    Initial,
    /// Anything else.
    Patch,
    /// It is read differently: name, description, tier, domain.
    Minor,
    /// The number itself is another: formula, unit, category.
    Major,
}
text_enum!(ChangeTier { Initial = "initial", Patch = "patch", Minor = "minor", Major = "major" });

impl ChangeTier {
    /// The tier of a change of these fields: that of the one which matters most.
    pub fn of<'a>(fields: impl IntoIterator<Item = &'a str>) -> Self {
        fields.into_iter().map(Self::of_field).max().unwrap_or(ChangeTier::Patch)
    }

    fn of_field(field: &str) -> Self {
        match field {
            "definition.formula" | "definition.unit" | "category" => ChangeTier::Major,
            "name" | "description" | "tier" | "domain" => ChangeTier::Minor,
            _ => ChangeTier::Patch,
        }
    }
}

/// The fields in which two definitions differ, in a fixed order. Empty when they say the same.
pub fn between(before: &Definition, after: &Definition) -> Vec<FieldChange> {
    if before == after {
        return Vec::new();
    }
    let (before, after) = (leaves(before), leaves(after));
    let mut changes = Vec::new();
    for (field, value) in &after {
        let old = before.iter().find(|(name, _)| name == field).map_or(&Value::Null, |(_, value)| value);
        if old != value {
            changes.push(FieldChange { field: field.clone(), before: old.clone(), after: value.clone() });
        }
    }
    for (field, value) in before {
        if !after.iter().any(|(name, _)| *name == field) && !value.is_null() {
            changes.push(FieldChange { field, before: value, after: Value::Null });
        }
    }
    changes
}

/// The fields of the details, as changes name them. Those of `extra` are whatever was imported.
const DETAILS: &[&str] = &[
    "alignment.strategic_pillar",
    "alignment.objective_keys",
    "alignment.key_result_refs",
    "alignment.why_it_matters",
    "definition.formula_detail",
    "definition.numerator",
    "definition.denominator",
    "definition.example",
    "data.primary_sources",
    "data.secondary_sources",
    "data.freshness",
    "data.update_frequency",
    "data.time_grains",
    "data.retention",
    "governance.regulatory_constraints",
    "dimensions",
    "targets.target_value",
    "targets.warning_threshold",
    "targets.critical_threshold",
    "targets.comparison_baseline",
    "targets.alert_rules",
    "visualization.default_chart_type",
    "visualization.default_time_range",
    "visualization.dashboards",
    "visualization.drilldowns",
    "relationships.upstream_keys",
    "relationships.downstream_keys",
    "relationships.tradeoffs",
    "usage.decision_use_cases",
    "usage.review_cadence",
    "usage.playbooks",
    "notes",
    "example_queries",
    "extra",
];

/// Every field that a change can be of: columns, which are all there in an empty definition, and those of the details.
pub fn fields() -> Vec<String> {
    let columns = leaves(&Definition::default()).into_iter().map(|(name, _)| name);
    columns.chain(DETAILS.iter().map(|name| (*name).to_owned())).collect()
}

/// Whether a field is this one, or below it: `definition.formula` is within `definition`.
pub fn is_within(field: &str, group: &str) -> bool {
    field.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Every field that is set, as (name, value): columns, and the fields one level down in the details.
pub fn leaves(definition: &Definition) -> Vec<(String, Value)> {
    let Ok(Value::Object(mut columns)) = serde_json::to_value(definition) else { return Vec::new() };
    let details = columns.remove("details");
    let mut fields: Vec<_> = columns.into_iter().map(|(column, value)| (column_name(&column), value)).collect();
    if let Some(Value::Object(details)) = details {
        for (section, value) in details {
            match (section.as_str(), value) {
                ("regulatory_constraints", value) => fields.push(("governance.regulatory_constraints".to_owned(), value)),
                ("dimensions" | "notes" | "example_queries", value) => fields.push((section, value)),
                ("calculation", Value::Object(inner)) => {
                    fields.extend(inner.into_iter().map(|(name, value)| (format!("definition.{name}"), value)));
                }
                (_, Value::Object(inner)) => {
                    fields.extend(inner.into_iter().map(|(name, value)| (format!("{section}.{name}"), value)))
                }
                (_, value) => fields.push((section, value)),
            }
        }
    }
    fields
}

/// The model groups some columns: `formula` is `definition.formula`.
fn column_name(column: &str) -> String {
    match column {
        "formula" | "unit" | "expected_direction" => format!("definition.{column}"),
        "owner_team" | "technical_owner" | "business_owner" | "data_classification" | "pii_involved" => {
            format!("governance.{column}")
        }
        "domain_id" => "domain".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Map;

    use super::*;
    use crate::extra::Extra;
    use crate::metrics::definition::{
        AlertRule, Alignment, Calculation, Dashboard, DataSources, Details, Dimension, EventCount, ExampleQuery, Playbook,
        Relationships, Source, Targets, Usage, Visualization,
    };

    /// With something in each field. No struct has defaults here, so that a new field is not forgotten.
    fn full_details() -> Details {
        let (text, list) = (Some("a".to_owned()), vec!["a".to_owned()]);
        let values: Map<_, _> = [("a".to_owned(), Value::from(1))].into_iter().collect();
        Details {
            alignment: Alignment {
                strategic_pillar: text.clone(),
                objective_keys: list.clone(),
                key_result_refs: list.clone(),
                why_it_matters: text.clone(),
            },
            calculation: Calculation {
                formula_detail: text.clone(),
                numerator: Some(EventCount::default()),
                denominator: Some(EventCount::default()),
                example: values.clone(),
            },
            data: DataSources {
                primary_sources: vec![Source::default()],
                secondary_sources: vec![Source::default()],
                freshness: text.clone(),
                update_frequency: text.clone(),
                time_grains: list.clone(),
                retention: text.clone(),
            },
            regulatory_constraints: list.clone(),
            dimensions: vec![Dimension::default()],
            targets: Targets {
                target_value: Some(1.0),
                warning_threshold: Some(1.0),
                critical_threshold: Some(1.0),
                comparison_baseline: text.clone(),
                alert_rules: vec![AlertRule::default()],
            },
            visualization: Visualization {
                default_chart_type: text.clone(),
                default_time_range: text.clone(),
                dashboards: vec![Dashboard::default()],
                drilldowns: list.clone(),
            },
            relationships: Relationships { upstream_keys: list.clone(), downstream_keys: list.clone(), tradeoffs: list.clone() },
            usage: Usage { decision_use_cases: list, review_cadence: text.clone(), playbooks: vec![Playbook::default()] },
            notes: text,
            example_queries: vec![ExampleQuery::default()],
            extra: Extra(values),
        }
    }

    #[test]
    fn every_field_that_can_change_is_listed() {
        let changed = leaves(&Definition { details: full_details(), ..Definition::default() });
        let changed: BTreeSet<String> = changed.into_iter().map(|(name, _)| name.replace("extra.a", "extra")).collect();
        assert_eq!(changed, fields().into_iter().collect());
    }

    fn definition() -> Definition {
        let mut definition = Definition::default();
        definition.summary.name = "Churn".to_owned();
        definition.summary.formula = Some("lost / total".to_owned());
        definition
    }

    #[test]
    fn a_change_is_named_as_the_model_groups_it() {
        let before = definition();
        let mut after = before.clone();
        after.summary.formula = Some("lost / all".to_owned());
        after.details.targets.target_value = Some(0.02);
        let changes = between(&before, &after);
        let fields: Vec<_> = changes.iter().map(|change| change.field.as_str()).collect();
        assert_eq!(fields, ["definition.formula", "targets.target_value"]);
        assert_eq!(ChangeTier::of(fields), ChangeTier::Major);
        assert_eq!(changes[1].before, Value::Null);
    }

    #[test]
    fn a_removed_field_is_a_change() {
        let mut before = definition();
        before.details.notes = Some("why".to_owned());
        let changes = between(&before, &definition());
        assert_eq!(changes, [FieldChange { field: "notes".to_owned(), before: "why".into(), after: Value::Null }]);
        assert_eq!(ChangeTier::of(["notes"]), ChangeTier::Patch);
    }

    #[test]
    fn the_same_definition_has_no_changes() {
        assert_eq!(between(&definition(), &definition()), []);
    }
}
