//! A metric as files write it.

use super::super::entry::{Draft, MetricDraft};
use super::super::value::Value;
use super::fields::Fields;
use crate::metrics::Semver;
use crate::metrics::definition::*;
use crate::text::Problems;

pub const TIERS: &[(&str, Tier)] = &[
    ("tier_1", Tier::Tier1),
    ("tier_2", Tier::Tier2),
    ("tier_3", Tier::Tier3),
    ("tier1", Tier::Tier1),
    ("tier2", Tier::Tier2),
    ("tier3", Tier::Tier3),
    ("t1", Tier::Tier1),
    ("t2", Tier::Tier2),
    ("t3", Tier::Tier3),
    ("1", Tier::Tier1),
    ("2", Tier::Tier2),
    ("3", Tier::Tier3),
];
const INDICATOR_KINDS: &[(&str, IndicatorKind)] =
    &[("leading", IndicatorKind::Leading), ("lagging", IndicatorKind::Lagging), ("operational", IndicatorKind::Operational)];
const STATUSES: &[(&str, Status)] = &[
    ("draft", Status::Draft),
    ("in_review", Status::InReview),
    ("active", Status::Active),
    ("deprecated", Status::Deprecated),
    ("removed", Status::Removed),
];
const DIRECTIONS: &[(&str, Direction)] = &[
    ("increase", Direction::Increase),
    ("decrease", Direction::Decrease),
    ("stable", Direction::Stable),
    ("maintain", Direction::Stable),
];

/// The field `metric_type` of the original model says either of two things.
#[derive(Clone, Copy)]
enum Type {
    Computed(MetricType),
    Indicates(IndicatorKind),
}
const TYPES: &[(&str, Type)] = &[
    ("simple", Type::Computed(MetricType::Simple)),
    ("ratio", Type::Computed(MetricType::Ratio)),
    ("derived", Type::Computed(MetricType::Derived)),
    ("cumulative", Type::Computed(MetricType::Cumulative)),
    ("conversion", Type::Computed(MetricType::Conversion)),
    ("leading", Type::Indicates(IndicatorKind::Leading)),
    ("lagging", Type::Indicates(IndicatorKind::Lagging)),
    ("operational", Type::Indicates(IndicatorKind::Operational)),
];

/// Reads a metric in any of its shapes.
pub fn read(fields: &mut Fields<'_>) -> Draft {
    let key = fields.line(&["metric_id", "key", "id"]).unwrap_or_default();
    let domain = fields.domain();
    let mut version = None;
    let mut definition = Definition::default();
    let Definition { summary, details } = &mut definition;
    summary.name = fields.line(&["name"]).unwrap_or_default();
    summary.short_name = fields.line(&["short_name"]);
    summary.description = fields.text(&["description"]).unwrap_or_default();
    summary.category = fields.line(&["category"]);
    summary.tier = fields.word(&["tier"], TIERS);
    summary.indicator_kind = fields.word(&["indicator_kind"], INDICATOR_KINDS);
    match fields.word(&["metric_type"], TYPES) {
        Some(Type::Computed(metric_type)) => summary.metric_type = metric_type,
        Some(Type::Indicates(kind)) => summary.indicator_kind = summary.indicator_kind.or(Some(kind)),
        None => {}
    }
    summary.tags = fields.lines(&["tags"]);
    summary.synonyms = fields.lines(&["synonyms"]);
    let mut status = fields.word(&["status"], STATUSES);
    details.alignment = fields.section(&["alignment"], alignment);
    fields.section(&["definition"], |fields| {
        summary.formula = fields.text(&["formula"]);
        summary.unit = fields.line(&["unit"]);
        summary.expected_direction = fields.word(&["expected_direction"], DIRECTIONS);
        details.calculation = Calculation {
            formula_detail: fields.text(&["formula_detail"]),
            numerator: fields.section(&["numerator"], event_count),
            denominator: fields.section(&["denominator"], event_count),
            example: fields.object(&["example_calculation", "example"]),
        };
    });
    details.data = fields.section(&["data"], |fields| DataSources {
        primary_sources: fields.items(&["primary_sources"], "system", source),
        secondary_sources: fields.items(&["secondary_sources"], "system", source),
        freshness: fields.line(&["data_freshness", "freshness"]),
        update_frequency: fields.line(&["update_frequency"]),
        time_grains: fields.lines(&["time_grain", "time_grains"]),
        retention: fields.line(&["data_retention", "retention"]),
    });
    fields.section(&["governance"], |fields| {
        summary.data_classification = fields.line(&["data_classification"]);
        summary.pii_involved = fields.flag(&["pii_involved"]).unwrap_or(false);
        details.regulatory_constraints = fields.lines(&["regulatory_constraints"]);
        summary.owner_team = fields.line(&["owner_team"]);
        summary.technical_owner = fields.line(&["technical_owner"]);
        summary.business_owner = fields.line(&["business_owner"]);
        status = fields.word(&["status"], STATUSES).or(status);
        version = first_version(fields).map(|version| ("governance.version", version));
    });
    summary.status = status.unwrap_or_default();
    details.dimensions = fields.items(&["dimensions"], "name", |fields| Dimension {
        name: fields.line(&["name"]).unwrap_or_default(),
        description: fields.text(&["description"]),
        allowed_values: fields.lines(&["allowed_values"]),
        required: fields.flag(&["required"]).unwrap_or(false),
    });
    details.targets = fields.section(&["targets_and_alerts", "targets"], targets);
    details.visualization = fields.section(&["visualization"], |fields| Visualization {
        default_chart_type: fields.line(&["default_chart_type"]),
        default_time_range: fields.line(&["default_time_range"]),
        dashboards: fields.items(&["dashboard_locations", "dashboards"], "tool", |fields| Dashboard {
            tool: fields.line(&["tool", "name"]).unwrap_or_default(),
            url: fields.line(&["url"]),
        }),
        drilldowns: fields.lines(&["drilldowns"]),
    });
    details.relationships = fields.section(&["relationships"], |fields| Relationships {
        upstream_keys: fields.lines(&["upstream_metric_ids", "upstream_keys"]),
        downstream_keys: fields.lines(&["downstream_metric_ids", "downstream_keys"]),
        tradeoffs: fields.lines(&["tradeoffs"]),
    });
    details.usage = fields.section(&["operational_usage", "usage"], |fields| Usage {
        decision_use_cases: fields.lines(&["decision_use_cases"]),
        review_cadence: fields.line(&["review_cadence"]),
        playbooks: fields.items(&["linked_playbooks", "playbooks"], "name", |fields| Playbook {
            name: fields.line(&["name"]).unwrap_or_default(),
            url: fields.line(&["url"]),
        }),
    });
    details.notes = fields.text(&["notes"]);
    details.example_queries = fields.items(&["example_queries"], "query", example_query);
    fields.section(&["metadata"], |fields| {
        if details.notes.is_none() {
            details.notes = fields.text(&["notes"]);
        }
        if details.example_queries.is_empty() {
            details.example_queries = fields.items(&["example_queries"], "query", example_query);
        }
        if version.is_none() {
            version = first_version(fields).map(|version| ("metadata.version", version));
        }
    });
    Draft::Metric(Box::new(MetricDraft { key, domain, definition, version }))
}

fn alignment(fields: &mut Fields<'_>) -> Alignment {
    Alignment {
        strategic_pillar: fields.line(&["strategic_pillar"]),
        objective_keys: fields.lines(&["primary_objective_ids", "objective_keys"]),
        key_result_refs: fields.lines(&["related_okr_ids", "key_result_refs"]),
        why_it_matters: fields.text(&["why_it_matters"]),
    }
}

fn event_count(fields: &mut Fields<'_>) -> Option<EventCount> {
    let count = EventCount {
        event_name: fields.line(&["event_name"]).unwrap_or_default(),
        filters: fields.items(&["filters"], "", |fields| EventFilter {
            field: fields.line(&["field"]).unwrap_or_default(),
            operator: fields.line(&["operator"]).unwrap_or_default(),
            value: fields.value(&["value"]).unwrap_or_default(),
        }),
    };
    (count != EventCount::default()).then_some(count)
}

fn source(fields: &mut Fields<'_>) -> Source {
    Source {
        system: fields.line(&["system"]).unwrap_or_default(),
        table_or_stream: fields.line(&["table_or_stream"]),
        connection_id: fields.line(&["connection_id"]),
    }
}

fn targets(fields: &mut Fields<'_>) -> Targets {
    Targets {
        target_value: fields.number(&["target_value"]),
        warning_threshold: fields.number(&["warning_threshold"]),
        critical_threshold: fields.number(&["critical_threshold"]),
        comparison_baseline: fields.line(&["comparison_baseline"]),
        alert_rules: fields.items(&["alert_rules"], "condition", |fields| AlertRule {
            rule_id: fields.line(&["rule_id"]),
            name: fields.line(&["name"]),
            condition: fields.text(&["condition"]).unwrap_or_default(),
            severity: fields.line(&["severity"]),
            notify_channels: fields.lines(&["notify_channels", "notification_channels"]),
            evaluation_window: fields.line(&["evaluation_window"]),
        }),
    }
}

fn example_query(fields: &mut Fields<'_>) -> ExampleQuery {
    ExampleQuery { language: fields.line(&["language"]), query: fields.text(&["query"]).unwrap_or_default() }
}

/// The version a definition has where it comes from. One that is no version is kept, and the metric starts at 1.0.0.
fn first_version(fields: &mut Fields<'_>) -> Option<Semver> {
    let text = fields.line(&["version"])?;
    let version = Semver::parse(&text);
    if version.is_none() {
        let value = Value::String(text);
        fields.warn("version", "INVALID", "Is no version like 1.4.0; kept as it is, a new metric starts at 1.0.0", &value);
        fields.keep("version", value);
    }
    version
}

/// Everything that is wrong with the content, by the checks that all metrics go through.
pub fn check(metric: &MetricDraft) -> Problems {
    let mut problems = Problems::default();
    check_key(&mut problems, "metric_id", &metric.key);
    if let Some(domain) = &metric.domain {
        problems.line(domain.field(), domain.text(), 200);
    }
    metric.definition.check(&mut problems);
    problems
}

/// The name in files of a field as the model names it.
pub fn file_path(field: &str) -> String {
    const RENAMED: &[(&str, &str)] = &[
        ("targets.", "targets_and_alerts."),
        ("usage.playbooks.", "operational_usage.linked_playbooks."),
        ("usage.", "operational_usage."),
        ("visualization.dashboards.", "visualization.dashboard_locations."),
        ("relationships.upstream_keys", "relationships.upstream_metric_ids"),
        ("relationships.downstream_keys", "relationships.downstream_metric_ids"),
    ];
    match RENAMED.iter().find_map(|(ours, theirs)| field.strip_prefix(ours).map(|rest| format!("{theirs}{rest}"))) {
        Some(path) => path,
        None => field.to_owned(),
    }
}
