//! The groups and list entries of a metric's content, as people send them.

use async_graphql::{InputObject, Json, MaybeUndefined};
use mdl::metrics::Definition;
use mdl::metrics::definition as model;
use serde_json::{Map, Value};

use super::enums::MetricDirection;
use crate::graphql::input::{put, put_list, put_some, put_some_as};

/// Why the company keeps a metric.
#[derive(InputObject)]
#[graphql(name = "MetricAlignmentInput")]
pub struct AlignmentInput {
    /// The part of the company's strategy that it serves.
    strategic_pillar: MaybeUndefined<String>,
    /// Keys of the objectives that it serves; these need not exist yet.
    objective_keys: MaybeUndefined<Vec<String>>,
    /// Key results that it serves, as `OBJECTIVE-KEY:KEY-RESULT-KEY`; these need not exist yet.
    key_result_refs: MaybeUndefined<Vec<String>>,
    /// What the company knows by it, or would miss without it.
    why_it_matters: MaybeUndefined<String>,
}

impl AlignmentInput {
    pub fn apply(self, alignment: &mut model::Alignment) {
        put_some(&mut alignment.strategic_pillar, self.strategic_pillar);
        put(&mut alignment.objective_keys, self.objective_keys);
        put(&mut alignment.key_result_refs, self.key_result_refs);
        put_some(&mut alignment.why_it_matters, self.why_it_matters);
    }
}

/// How a metric is computed. A change of `formula` or `unit` makes a new major version.
#[derive(InputObject)]
#[graphql(name = "MetricDefinitionInput")]
pub struct DefinitionInput {
    /// The formula, in the language the team writes.
    formula: MaybeUndefined<String>,
    /// What the formula does not say: exclusions, time zones, late data.
    formula_detail: MaybeUndefined<String>,
    /// The events that are counted above the line; replaces them as a whole.
    numerator: MaybeUndefined<EventCountInput>,
    /// The events that are counted below the line; replaces them as a whole.
    denominator: MaybeUndefined<EventCountInput>,
    /// What the number counts: `percentage`, `USD`, `seconds`, …
    unit: MaybeUndefined<String>,
    /// Which way the number should go.
    expected_direction: MaybeUndefined<MetricDirection>,
    /// Named inputs and the `result` they give; replaces the whole example.
    example_calculation: MaybeUndefined<Json<Map<String, Value>>>,
}

impl DefinitionInput {
    pub fn apply(self, definition: &mut Definition) {
        put_some(&mut definition.summary.formula, self.formula);
        put_some(&mut definition.summary.unit, self.unit);
        put_some_as(&mut definition.summary.expected_direction, self.expected_direction);
        let calculation = &mut definition.details.calculation;
        put_some(&mut calculation.formula_detail, self.formula_detail);
        put_some_as(&mut calculation.numerator, self.numerator);
        put_some_as(&mut calculation.denominator, self.denominator);
        put(&mut calculation.example, self.example_calculation.map_value(|example| example.0));
    }

    pub fn clear(definition: &mut Definition) {
        definition.summary.formula = None;
        definition.summary.unit = None;
        definition.summary.expected_direction = None;
        definition.details.calculation = model::Calculation::default();
    }
}

/// Events that are counted.
#[derive(InputObject)]
pub struct EventCountInput {
    /// The event, as the tracking plan names it.
    event_name: String,
    /// Conditions that must all hold for an event to count.
    filters: Option<Vec<EventFilterInput>>,
}

impl From<EventCountInput> for model::EventCount {
    fn from(input: EventCountInput) -> Self {
        let filters = input.filters.into_iter().flatten().map(Into::into).collect();
        Self { event_name: input.event_name, filters }
    }
}

/// One condition on counted events.
#[derive(InputObject)]
pub struct EventFilterInput {
    /// The property of the event that is looked at.
    field: String,
    /// `eq`, `neq`, `in`, `gt`, …, as the source writes it.
    operator: String,
    /// What the property is compared with: text, number, boolean, or a list of these.
    value: Option<Json<Value>>,
}

impl From<EventFilterInput> for model::EventFilter {
    fn from(input: EventFilterInput) -> Self {
        Self { field: input.field, operator: input.operator, value: input.value.map_or(Value::Null, |value| value.0) }
    }
}

/// Where the numbers come from, and how fresh they are.
#[derive(InputObject)]
#[graphql(name = "MetricDataInput")]
pub struct DataInput {
    /// The tables or streams that the metric is computed from.
    primary_sources: MaybeUndefined<Vec<DataSourceInput>>,
    /// Sources that enrich or check it.
    secondary_sources: MaybeUndefined<Vec<DataSourceInput>>,
    /// How old the newest data may be: `24_hours`.
    freshness: MaybeUndefined<String>,
    /// How often it is computed: `daily`.
    update_frequency: MaybeUndefined<String>,
    /// The periods it is offered for: `hour`, `day`, `week`, …
    time_grains: MaybeUndefined<Vec<String>>,
    /// How long its values are kept: `84_months`.
    retention: MaybeUndefined<String>,
}

impl DataInput {
    pub fn apply(self, data: &mut model::DataSources) {
        put_list(&mut data.primary_sources, self.primary_sources);
        put_list(&mut data.secondary_sources, self.secondary_sources);
        put_some(&mut data.freshness, self.freshness);
        put_some(&mut data.update_frequency, self.update_frequency);
        put(&mut data.time_grains, self.time_grains);
        put_some(&mut data.retention, self.retention);
    }
}

/// A table or stream in a system.
#[derive(InputObject)]
pub struct DataSourceInput {
    /// The system that holds it: `warehouse`, `billing`, …
    system: String,
    /// Its name in that system.
    table_or_stream: Option<String>,
    /// The connection by which tools reach the system.
    connection_id: Option<String>,
}

impl From<DataSourceInput> for model::Source {
    fn from(input: DataSourceInput) -> Self {
        Self { system: input.system, table_or_stream: input.table_or_stream, connection_id: input.connection_id }
    }
}

/// Who answers for a metric, and what must be observed with it.
#[derive(InputObject)]
#[graphql(name = "MetricGovernanceInput")]
pub struct GovernanceInput {
    /// How confidential the numbers are, in the company's own classes.
    data_classification: MaybeUndefined<String>,
    /// Whether it is computed from data about persons.
    pii_involved: MaybeUndefined<bool>,
    /// Rules that apply to it: `GDPR`, `ASC 606`, …
    regulatory_constraints: MaybeUndefined<Vec<String>>,
    /// The team that answers for the definition.
    owner_team: MaybeUndefined<String>,
    /// Who answers for the computation.
    technical_owner: MaybeUndefined<String>,
    /// Who answers for the number.
    business_owner: MaybeUndefined<String>,
}

impl GovernanceInput {
    pub fn apply(self, definition: &mut Definition) {
        let summary = &mut definition.summary;
        put_some(&mut summary.data_classification, self.data_classification);
        put(&mut summary.pii_involved, self.pii_involved);
        put_some(&mut summary.owner_team, self.owner_team);
        put_some(&mut summary.technical_owner, self.technical_owner);
        put_some(&mut summary.business_owner, self.business_owner);
        put(&mut definition.details.regulatory_constraints, self.regulatory_constraints);
    }

    pub fn clear(definition: &mut Definition) {
        let summary = &mut definition.summary;
        summary.data_classification = None;
        summary.pii_involved = false;
        summary.owner_team = None;
        summary.technical_owner = None;
        summary.business_owner = None;
        definition.details.regulatory_constraints.clear();
    }
}

/// What a metric may be cut by.
#[derive(InputObject)]
#[graphql(name = "MetricDimensionInput")]
pub struct DimensionInput {
    /// Name of the dimension: `region`.
    name: String,
    /// What it distinguishes.
    description: Option<String>,
    /// The values it may take; empty: any.
    allowed_values: Option<Vec<String>>,
    /// Whether the metric means nothing without it; `false` if not given.
    required: Option<bool>,
}

impl From<DimensionInput> for model::Dimension {
    fn from(input: DimensionInput) -> Self {
        Self {
            name: input.name,
            description: input.description,
            allowed_values: input.allowed_values.unwrap_or_default(),
            required: input.required.unwrap_or_default(),
        }
    }
}

/// What the number should be, and who hears of it when it is not.
#[derive(InputObject)]
#[graphql(name = "MetricTargetsInput")]
pub struct TargetsInput {
    /// The value to reach.
    target_value: MaybeUndefined<f64>,
    /// The value at which somebody should look.
    warning_threshold: MaybeUndefined<f64>,
    /// The value at which somebody must act.
    critical_threshold: MaybeUndefined<f64>,
    /// What it is compared with: `previous_month`.
    comparison_baseline: MaybeUndefined<String>,
    /// Who is told when.
    alert_rules: MaybeUndefined<Vec<AlertRuleInput>>,
}

impl TargetsInput {
    pub fn apply(self, targets: &mut model::Targets) {
        put_some(&mut targets.target_value, self.target_value);
        put_some(&mut targets.warning_threshold, self.warning_threshold);
        put_some(&mut targets.critical_threshold, self.critical_threshold);
        put_some(&mut targets.comparison_baseline, self.comparison_baseline);
        put_list(&mut targets.alert_rules, self.alert_rules);
    }
}

/// When somebody is told.
#[derive(InputObject)]
pub struct AlertRuleInput {
    /// The rule's own id in the alerting system.
    rule_id: Option<String>,
    /// What people call the rule.
    name: Option<String>,
    /// The condition, as the alerting system reads it: `value < critical_threshold`.
    condition: String,
    /// How bad it is: `warning`, `critical`, …
    severity: Option<String>,
    /// Where it is told: `slack:#channel`, `email:address`, …
    notify_channels: Option<Vec<String>>,
    /// How long the condition is looked at: `1_hour`.
    evaluation_window: Option<String>,
}

impl From<AlertRuleInput> for model::AlertRule {
    fn from(input: AlertRuleInput) -> Self {
        Self {
            rule_id: input.rule_id,
            name: input.name,
            condition: input.condition,
            severity: input.severity,
            notify_channels: input.notify_channels.unwrap_or_default(),
            evaluation_window: input.evaluation_window,
        }
    }
}

/// How and where a metric is shown.
#[derive(InputObject)]
#[graphql(name = "MetricVisualizationInput")]
pub struct VisualizationInput {
    /// The chart that suits it: `line`, `bar`, …
    default_chart_type: MaybeUndefined<String>,
    /// The period that is shown first: `last_12_months`.
    default_time_range: MaybeUndefined<String>,
    /// Where it can be seen.
    dashboards: MaybeUndefined<Vec<DashboardInput>>,
    /// Dimensions that the charts break down by.
    drilldowns: MaybeUndefined<Vec<String>>,
}

impl VisualizationInput {
    pub fn apply(self, visualization: &mut model::Visualization) {
        put_some(&mut visualization.default_chart_type, self.default_chart_type);
        put_some(&mut visualization.default_time_range, self.default_time_range);
        put_list(&mut visualization.dashboards, self.dashboards);
        put(&mut visualization.drilldowns, self.drilldowns);
    }
}

/// A place where a metric is shown.
#[derive(InputObject)]
pub struct DashboardInput {
    /// The tool: `Looker`, `Grafana`, …
    tool: String,
    /// An http or https address.
    url: Option<String>,
}

impl From<DashboardInput> for model::Dashboard {
    fn from(input: DashboardInput) -> Self {
        Self { tool: input.tool, url: input.url }
    }
}

/// Lineage as the metric declares it, by key. The other metrics need not exist yet.
#[derive(InputObject)]
#[graphql(name = "MetricRelationshipsInput")]
pub struct RelationshipsInput {
    /// Keys of the metrics that this one depends on.
    upstream_keys: MaybeUndefined<Vec<String>>,
    /// Keys of the metrics that depend on this one.
    downstream_keys: MaybeUndefined<Vec<String>>,
    /// What tends to get worse when this gets better.
    tradeoffs: MaybeUndefined<Vec<String>>,
}

impl RelationshipsInput {
    pub fn apply(self, relationships: &mut model::Relationships) {
        put(&mut relationships.upstream_keys, self.upstream_keys);
        put(&mut relationships.downstream_keys, self.downstream_keys);
        put(&mut relationships.tradeoffs, self.tradeoffs);
    }
}

/// What people do with a metric.
#[derive(InputObject)]
#[graphql(name = "MetricUsageInput")]
pub struct UsageInput {
    /// Decisions that it informs.
    decision_use_cases: MaybeUndefined<Vec<String>>,
    /// How often it is looked at together: `weekly`.
    review_cadence: MaybeUndefined<String>,
    /// What to do when it moves.
    playbooks: MaybeUndefined<Vec<PlaybookInput>>,
}

impl UsageInput {
    pub fn apply(self, usage: &mut model::Usage) {
        put(&mut usage.decision_use_cases, self.decision_use_cases);
        put_some(&mut usage.review_cadence, self.review_cadence);
        put_list(&mut usage.playbooks, self.playbooks);
    }
}

/// Instructions for when a metric moves.
#[derive(InputObject)]
pub struct PlaybookInput {
    /// What people call it.
    name: String,
    /// An http or https address.
    url: Option<String>,
}

impl From<PlaybookInput> for model::Playbook {
    fn from(input: PlaybookInput) -> Self {
        Self { name: input.name, url: input.url }
    }
}

/// A query that computes a metric, or a cut of it.
#[derive(InputObject)]
pub struct ExampleQueryInput {
    /// `sql`, `promql`, …
    language: Option<String>,
    /// The query.
    query: String,
}

impl From<ExampleQueryInput> for model::ExampleQuery {
    fn from(input: ExampleQueryInput) -> Self {
        Self { language: input.language, query: input.query }
    }
}
