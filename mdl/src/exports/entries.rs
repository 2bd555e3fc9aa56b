//! The catalog's rows as entries of a file: what `imports::draft` reads, said so that it reads the same content again.
//!
//! Contents are taken apart field by field, so that the compiler asks for each new one. The names of fields are those of the CSV
//! template and of the samples. Fields that the model has no place for are in an object `extra`, where they cannot be taken for
//! others.

use super::node::{Node, Object};
use crate::domains::{self, Domain};
use crate::extra::Extra;
use crate::metrics::Metric;
use crate::metrics::definition::{
    AlertRule, Alignment, Calculation, Dashboard, DataSources, Details, Dimension, Direction, EventCount, EventFilter,
    ExampleQuery, IndicatorKind, Playbook, Relationships, Source, Summary, Targets, Tier, Usage, Visualization,
};
use crate::objectives::{self, KeyResult, KeyResultContent, Objective};

/// What an entry says to be in this domain: its key or, of one that the file does not define, an object with its name. By that an
/// import finds the domain or makes it, also where the name looks like a key, or is that of another domain.
pub fn label(domain: &Domain) -> Node {
    if is_defined(domain) { Node::from(&domain.key) } else { Object::default().with("name", &domain.content.name).into() }
}

/// Whether the file has an entry for this domain. One that was only named is named again; an entry would define it.
pub fn is_defined(domain: &Domain) -> bool {
    !domain.implied && domain.archived_at.is_none()
}

pub fn domain(domain: &Domain) -> Object {
    let domains::Content {
        name,
        description,
        owner_team,
        stakeholders,
        industry,
        priority,
        objective_keys,
        key_metric_keys,
        extra: Extra(extra),
    } = &domain.content;
    Object::default()
        .with("id", &domain.key)
        .with("name", name)
        .with("description", description)
        .with("owner", owner_team.as_ref())
        .with("stakeholders", &stakeholders[..])
        .with("objectives", &objective_keys[..])
        .with("key_metrics", &key_metric_keys[..])
        .with("metadata", Object::default().with("industry", industry.as_ref()).with("priority", priority.as_ref()))
        .with("extra", extra)
}

pub fn metric(metric: &Metric, details: &Details, domain: Option<Node>) -> Object {
    let Summary {
        name,
        short_name,
        description,
        category,
        tier,
        domain_id: _,
        indicator_kind,
        metric_type,
        status,
        tags,
        synonyms,
        formula,
        unit,
        expected_direction,
        owner_team,
        technical_owner,
        business_owner,
        data_classification,
        pii_involved,
    } = &metric.summary;
    let Details {
        alignment,
        calculation,
        data,
        regulatory_constraints,
        dimensions,
        targets,
        visualization,
        relationships,
        usage,
        notes,
        example_queries,
        extra: Extra(extra),
    } = details;
    let Calculation { formula_detail, numerator, denominator, example } = calculation;
    let definition = Object::default()
        .with("formula", formula.as_ref())
        .with("formula_detail", formula_detail.as_ref())
        .with("numerator", numerator.as_ref().map(event_count))
        .with("denominator", denominator.as_ref().map(event_count))
        .with("unit", unit.as_ref())
        .with("expected_direction", expected_direction.map(Direction::as_str))
        .with("example_calculation", example);
    let governance = Object::default()
        .with("data_classification", data_classification.as_ref())
        .with("pii_involved", pii_involved.then_some(true))
        .with("regulatory_constraints", &regulatory_constraints[..])
        .with("owner_team", owner_team.as_ref())
        .with("technical_owner", technical_owner.as_ref())
        .with("business_owner", business_owner.as_ref())
        .with("version", metric.version.to_string())
        .with("status", status.as_str());
    Object::default()
        .with("metric_id", &metric.key)
        .with("name", name)
        .with("short_name", short_name.as_ref())
        .with("description", description)
        .with("category", category.as_ref())
        .with("tier", tier.map(Tier::as_str))
        .with("business_domain", domain)
        .with("indicator_kind", indicator_kind.map(IndicatorKind::as_str))
        .with("metric_type", metric_type.as_str())
        .with("tags", &tags[..])
        .with("synonyms", &synonyms[..])
        .with("alignment", self::alignment(alignment))
        .with("definition", definition)
        .with("data", self::data(data))
        .with("governance", governance)
        .with("dimensions", dimensions.iter().map(dimension).collect::<Vec<_>>())
        .with("targets_and_alerts", self::targets(targets))
        .with("visualization", self::visualization(visualization))
        .with("relationships", self::relationships(relationships))
        .with("operational_usage", self::usage(usage))
        .with("metadata", metadata(notes.as_ref(), example_queries))
        .with("extra", extra)
}

fn alignment(alignment: &Alignment) -> Object {
    let Alignment { strategic_pillar, objective_keys, key_result_refs, why_it_matters } = alignment;
    Object::default()
        .with("strategic_pillar", strategic_pillar.as_ref())
        .with("primary_objective_ids", &objective_keys[..])
        .with("related_okr_ids", &key_result_refs[..])
        .with("why_it_matters", why_it_matters.as_ref())
}

fn event_count(count: &EventCount) -> Object {
    let EventCount { event_name, filters } = count;
    let filters = filters.iter().map(|EventFilter { field, operator, value }| {
        Object::default().with("field", field).with("operator", operator).with("value", value)
    });
    Object::default().with("event_name", event_name).with("filters", filters.collect::<Vec<_>>())
}

fn data(data: &DataSources) -> Object {
    let DataSources { primary_sources, secondary_sources, freshness, update_frequency, time_grains, retention } = data;
    let sources = |sources: &[Source]| -> Vec<Object> {
        let sources = sources.iter().map(|Source { system, table_or_stream, connection_id }| {
            Object::default()
                .with("system", system)
                .with("table_or_stream", table_or_stream.as_ref())
                .with("connection_id", connection_id.as_ref())
        });
        sources.collect()
    };
    Object::default()
        .with("primary_sources", sources(primary_sources))
        .with("secondary_sources", sources(secondary_sources))
        .with("data_freshness", freshness.as_ref())
        .with("update_frequency", update_frequency.as_ref())
        .with("time_grain", &time_grains[..])
        .with("data_retention", retention.as_ref())
}

fn dimension(dimension: &Dimension) -> Object {
    let Dimension { name, description, allowed_values, required } = dimension;
    Object::default()
        .with("name", name)
        .with("description", description.as_ref())
        .with("allowed_values", &allowed_values[..])
        .with("required", required.then_some(true))
}

fn targets(targets: &Targets) -> Object {
    let Targets { target_value, warning_threshold, critical_threshold, comparison_baseline, alert_rules } = targets;
    Object::default()
        .with("target_value", *target_value)
        .with("warning_threshold", *warning_threshold)
        .with("critical_threshold", *critical_threshold)
        .with("comparison_baseline", comparison_baseline.as_ref())
        .with("alert_rules", alert_rules.iter().map(alert_rule).collect::<Vec<_>>())
}

fn alert_rule(rule: &AlertRule) -> Object {
    let AlertRule { rule_id, name, condition, severity, notify_channels, evaluation_window } = rule;
    Object::default()
        .with("rule_id", rule_id.as_ref())
        .with("name", name.as_ref())
        .with("condition", condition)
        .with("severity", severity.as_ref())
        .with("notify_channels", &notify_channels[..])
        .with("evaluation_window", evaluation_window.as_ref())
}

fn visualization(visualization: &Visualization) -> Object {
    let Visualization { default_chart_type, default_time_range, dashboards, drilldowns } = visualization;
    let dashboards =
        dashboards.iter().map(|Dashboard { tool, url }| Object::default().with("tool", tool).with("url", url.as_ref()));
    Object::default()
        .with("default_chart_type", default_chart_type.as_ref())
        .with("default_time_range", default_time_range.as_ref())
        .with("dashboard_locations", dashboards.collect::<Vec<_>>())
        .with("drilldowns", &drilldowns[..])
}

fn relationships(relationships: &Relationships) -> Object {
    let Relationships { upstream_keys, downstream_keys, tradeoffs } = relationships;
    Object::default()
        .with("upstream_metric_ids", &upstream_keys[..])
        .with("downstream_metric_ids", &downstream_keys[..])
        .with("tradeoffs", &tradeoffs[..])
}

fn usage(usage: &Usage) -> Object {
    let Usage { decision_use_cases, review_cadence, playbooks } = usage;
    let playbooks = playbooks.iter().map(|Playbook { name, url }| Object::default().with("name", name).with("url", url.as_ref()));
    Object::default()
        .with("decision_use_cases", &decision_use_cases[..])
        .with("review_cadence", review_cadence.as_ref())
        .with("linked_playbooks", playbooks.collect::<Vec<_>>())
}

fn metadata(notes: Option<&String>, example_queries: &[ExampleQuery]) -> Object {
    let queries = example_queries
        .iter()
        .map(|ExampleQuery { language, query }| Object::default().with("language", language.as_ref()).with("query", query));
    Object::default().with("notes", notes).with("example_queries", queries.collect::<Vec<_>>())
}

/// An objective with its key results, each with the keys of its metrics.
pub fn objective(objective: &Objective, domain: Option<Node>, key_results: &[(KeyResult, Vec<String>)]) -> Object {
    let objectives::Content {
        name,
        description,
        owner,
        status,
        priority,
        pillar,
        starts_on,
        ends_on,
        domain_id: _,
        metric_keys,
        extra: Extra(extra),
    } = &objective.content;
    let timeframe =
        Object::default().with("start", starts_on.map(|day| day.to_string())).with("end", ends_on.map(|day| day.to_string()));
    Object::default()
        .with("objective_id", &objective.key)
        .with("name", name)
        .with("description", description)
        .with("owner", owner.as_ref())
        .with("status", status.as_str())
        .with("business_priority", priority.as_ref())
        .with("strategic_theme", pillar.as_ref())
        .with("timeframe", timeframe)
        .with("business_domain", domain)
        .with("metric_ids", &metric_keys[..])
        .with("key_results", key_results.iter().map(|(row, metric_keys)| key_result(row, metric_keys)).collect::<Vec<_>>())
        .with("extra", extra)
}

fn key_result(key_result: &KeyResult, metric_keys: &[String]) -> Object {
    let KeyResultContent { name, description, unit, direction, baseline_value, target_value, current_value, extra: Extra(extra) } =
        &key_result.content;
    Object::default()
        .with("kr_id", &key_result.key)
        .with("name", name)
        .with("description", description)
        .with("unit", unit.as_ref())
        .with("direction", direction.as_str())
        .with("baseline_value", *baseline_value)
        .with("target_value", *target_value)
        .with("current_value", *current_value)
        .with("metric_ids", metric_keys)
        .with("extra", extra)
}
