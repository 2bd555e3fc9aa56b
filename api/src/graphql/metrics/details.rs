//! The parts of a metric's definition. They borrow from the metric that is being answered: nothing is copied.

use async_graphql::{Context, Json, Object, Result, SimpleObject};
use mdl::metrics::definition;
use mdl::metrics::definition::{Alignment, DataSources};
use serde_json::{Map, Value};

use super::Metric;
use super::enums::MetricDirection;
use crate::graphql::context::ContextExt;
use crate::graphql::objectives::Objective;

/// Why the company keeps a metric.
pub struct MetricAlignment<'a>(pub &'a Alignment);

#[Object]
impl MetricAlignment<'_> {
    /// The part of the company's strategy that it serves.
    fn strategic_pillar(&self) -> Option<&str> {
        self.0.strategic_pillar.as_deref()
    }

    /// Keys of the objectives that it serves, as declared, whether these exist or not.
    fn objective_keys(&self) -> &[String] {
        &self.0.objective_keys
    }

    /// Key results that it serves, as `OBJECTIVE-KEY:KEY-RESULT-KEY`, whether these exist or not.
    fn key_result_refs(&self) -> &[String] {
        &self.0.key_result_refs
    }

    /// Those of the declared objectives that exist.
    #[graphql(complexity = "1 + 5 * child_complexity")]
    async fn objectives(&self, ctx: &Context<'_>) -> Result<Vec<Objective>> {
        let found = ctx.reading()?.loaders.objectives.by_key.get_many(self.0.objective_keys.clone()).await?;
        Ok(found.into_iter().map(Objective).collect())
    }

    /// What the company knows by it, or would miss without it.
    fn why_it_matters(&self) -> Option<&str> {
        self.0.why_it_matters.as_deref()
    }
}

/// How a metric is computed.
pub struct MetricDefinition<'a>(pub &'a Metric);

#[Object]
impl MetricDefinition<'_> {
    /// The formula, in the language the team writes: SQL, an expression over other metrics, or words.
    fn formula(&self) -> Option<&str> {
        self.0.row.summary.formula.as_deref()
    }

    /// What the formula does not say: exclusions, time zones, late data.
    async fn formula_detail(&self, ctx: &Context<'_>) -> Option<Result<&str>> {
        self.0.details(ctx).await.map(|details| details.calculation.formula_detail.as_deref()).transpose()
    }

    /// The events that are counted above the line.
    async fn numerator(&self, ctx: &Context<'_>) -> Option<Result<EventCount<'_>>> {
        let details = self.0.details(ctx).await;
        details.map(|details| details.calculation.numerator.as_ref().map(EventCount::from)).transpose()
    }

    /// The events that are counted below the line.
    async fn denominator(&self, ctx: &Context<'_>) -> Option<Result<EventCount<'_>>> {
        let details = self.0.details(ctx).await;
        details.map(|details| details.calculation.denominator.as_ref().map(EventCount::from)).transpose()
    }

    /// What the number counts: `percentage`, `USD`, `seconds`, …
    fn unit(&self) -> Option<&str> {
        self.0.row.summary.unit.as_deref()
    }

    /// Which way the number should go.
    fn expected_direction(&self) -> Option<MetricDirection> {
        self.0.row.summary.expected_direction.map(Into::into)
    }

    /// Named inputs and the `result` they give, to check one's own computation against. Free-form.
    async fn example_calculation(&self, ctx: &Context<'_>) -> Option<Result<Json<&Map<String, Value>>>> {
        let details = self.0.details(ctx).await;
        details.map(|details| Some(&details.calculation.example).filter(|example| !example.is_empty()).map(Json)).transpose()
    }
}

/// Events that are counted: the measure behind a numerator or denominator.
#[derive(SimpleObject)]
pub struct EventCount<'a> {
    /// The event, as the tracking plan names it.
    event_name: &'a str,
    /// Conditions that must all hold for an event to count.
    filters: Vec<EventFilter<'a>>,
}

impl<'a> From<&'a definition::EventCount> for EventCount<'a> {
    fn from(count: &'a definition::EventCount) -> Self {
        Self { event_name: &count.event_name, filters: count.filters.iter().map(EventFilter::from).collect() }
    }
}

/// One condition on counted events.
#[derive(SimpleObject)]
pub struct EventFilter<'a> {
    /// The property of the event that is looked at.
    field: &'a str,
    /// `eq`, `neq`, `in`, `gt`, …, as the source writes it.
    operator: &'a str,
    /// What the property is compared with: text, number, boolean, or a list of these.
    value: Option<Json<&'a Value>>,
}

impl<'a> From<&'a definition::EventFilter> for EventFilter<'a> {
    fn from(filter: &'a definition::EventFilter) -> Self {
        let value = Some(&filter.value).filter(|value| !value.is_null()).map(Json);
        Self { field: &filter.field, operator: &filter.operator, value }
    }
}

/// Where the numbers come from, and how fresh they are.
#[derive(SimpleObject)]
pub struct MetricData<'a> {
    /// The tables or streams that the metric is computed from.
    primary_sources: Vec<DataSource<'a>>,
    /// Sources that enrich or check it.
    secondary_sources: Vec<DataSource<'a>>,
    /// How old the newest data may be: `24_hours`.
    freshness: Option<&'a str>,
    /// How often it is computed: `daily`.
    update_frequency: Option<&'a str>,
    /// The periods it is offered for: `hour`, `day`, `week`, …
    time_grains: &'a [String],
    /// How long its values are kept: `84_months`.
    retention: Option<&'a str>,
}

impl<'a> From<&'a DataSources> for MetricData<'a> {
    fn from(data: &'a DataSources) -> Self {
        Self {
            primary_sources: data.primary_sources.iter().map(DataSource::from).collect(),
            secondary_sources: data.secondary_sources.iter().map(DataSource::from).collect(),
            freshness: data.freshness.as_deref(),
            update_frequency: data.update_frequency.as_deref(),
            time_grains: &data.time_grains,
            retention: data.retention.as_deref(),
        }
    }
}

/// A table or stream in a system.
#[derive(SimpleObject)]
pub struct DataSource<'a> {
    /// The system that holds it: `warehouse`, `billing`, …
    system: &'a str,
    /// Its name in that system.
    table_or_stream: Option<&'a str>,
    /// The connection by which tools reach the system.
    connection_id: Option<&'a str>,
}

impl<'a> From<&'a definition::Source> for DataSource<'a> {
    fn from(source: &'a definition::Source) -> Self {
        Self {
            system: &source.system,
            table_or_stream: source.table_or_stream.as_deref(),
            connection_id: source.connection_id.as_deref(),
        }
    }
}

/// Who answers for a metric, and what must be observed with it.
pub struct MetricGovernance<'a>(pub &'a Metric);

#[Object]
impl MetricGovernance<'_> {
    /// How confidential the numbers are, in the company's own classes: `internal`, `confidential`, …
    fn data_classification(&self) -> Option<&str> {
        self.0.row.summary.data_classification.as_deref()
    }

    /// Whether it is computed from data about persons.
    fn pii_involved(&self) -> bool {
        self.0.row.summary.pii_involved
    }

    /// Rules that apply to it: `GDPR`, `ASC 606`, …
    async fn regulatory_constraints(&self, ctx: &Context<'_>) -> Result<&[String]> {
        Ok(&self.0.details(ctx).await?.regulatory_constraints)
    }

    /// The team that answers for the definition.
    fn owner_team(&self) -> Option<&str> {
        self.0.row.summary.owner_team.as_deref()
    }

    /// Who answers for the computation.
    fn technical_owner(&self) -> Option<&str> {
        self.0.row.summary.technical_owner.as_deref()
    }

    /// Who answers for the number.
    fn business_owner(&self) -> Option<&str> {
        self.0.row.summary.business_owner.as_deref()
    }
}

/// What a metric may be cut by.
#[derive(SimpleObject)]
pub struct MetricDimension<'a> {
    /// Name of the dimension: `region`.
    name: &'a str,
    /// What it distinguishes.
    description: Option<&'a str>,
    /// The values it may take; empty: any.
    allowed_values: &'a [String],
    /// Whether the metric means nothing without it.
    required: bool,
}

impl<'a> From<&'a definition::Dimension> for MetricDimension<'a> {
    fn from(dimension: &'a definition::Dimension) -> Self {
        Self {
            name: &dimension.name,
            description: dimension.description.as_deref(),
            allowed_values: &dimension.allowed_values,
            required: dimension.required,
        }
    }
}

/// What the number should be, and who hears of it when it is not.
#[derive(SimpleObject)]
pub struct MetricTargets<'a> {
    /// The value to reach.
    target_value: Option<f64>,
    /// The value at which somebody should look.
    warning_threshold: Option<f64>,
    /// The value at which somebody must act.
    critical_threshold: Option<f64>,
    /// What it is compared with: `previous_month`.
    comparison_baseline: Option<&'a str>,
    /// Who is told when.
    alert_rules: Vec<AlertRule<'a>>,
}

impl<'a> From<&'a definition::Targets> for MetricTargets<'a> {
    fn from(targets: &'a definition::Targets) -> Self {
        Self {
            target_value: targets.target_value,
            warning_threshold: targets.warning_threshold,
            critical_threshold: targets.critical_threshold,
            comparison_baseline: targets.comparison_baseline.as_deref(),
            alert_rules: targets.alert_rules.iter().map(AlertRule::from).collect(),
        }
    }
}

/// When somebody is told.
#[derive(SimpleObject)]
pub struct AlertRule<'a> {
    /// The rule's own id in the alerting system.
    rule_id: Option<&'a str>,
    /// What people call the rule.
    name: Option<&'a str>,
    /// The condition, as the alerting system reads it: `value < critical_threshold`.
    condition: &'a str,
    /// How bad it is: `warning`, `critical`, …
    severity: Option<&'a str>,
    /// Where it is told: `slack:#channel`, `email:address`, …
    notify_channels: &'a [String],
    /// How long the condition is looked at: `1_hour`.
    evaluation_window: Option<&'a str>,
}

impl<'a> From<&'a definition::AlertRule> for AlertRule<'a> {
    fn from(rule: &'a definition::AlertRule) -> Self {
        Self {
            rule_id: rule.rule_id.as_deref(),
            name: rule.name.as_deref(),
            condition: &rule.condition,
            severity: rule.severity.as_deref(),
            notify_channels: &rule.notify_channels,
            evaluation_window: rule.evaluation_window.as_deref(),
        }
    }
}

/// How and where a metric is shown.
#[derive(SimpleObject)]
pub struct MetricVisualization<'a> {
    /// The chart that suits it: `line`, `bar`, …
    default_chart_type: Option<&'a str>,
    /// The period that is shown first: `last_12_months`.
    default_time_range: Option<&'a str>,
    /// Where it can be seen.
    dashboards: Vec<Dashboard<'a>>,
    /// Dimensions that the charts break down by.
    drilldowns: &'a [String],
}

impl<'a> From<&'a definition::Visualization> for MetricVisualization<'a> {
    fn from(visualization: &'a definition::Visualization) -> Self {
        let dashboards = visualization.dashboards.iter();
        Self {
            default_chart_type: visualization.default_chart_type.as_deref(),
            default_time_range: visualization.default_time_range.as_deref(),
            dashboards: dashboards.map(|dashboard| Dashboard { tool: &dashboard.tool, url: dashboard.url.as_deref() }).collect(),
            drilldowns: &visualization.drilldowns,
        }
    }
}

/// A place where a metric is shown.
#[derive(SimpleObject)]
pub struct Dashboard<'a> {
    /// The tool: `Looker`, `Grafana`, …
    tool: &'a str,
    /// An http or https address.
    url: Option<&'a str>,
}

/// Lineage as the metric itself declares it, and what improves or suffers with it. See `upstream` and `downstream` for
/// the metrics themselves, by whichever end the edge was declared.
#[derive(SimpleObject)]
pub struct MetricRelationships<'a> {
    /// Keys of the metrics that this one says it depends on.
    upstream_keys: &'a [String],
    /// Keys of the metrics that this one says depend on it.
    downstream_keys: &'a [String],
    /// What tends to get worse when this gets better.
    tradeoffs: &'a [String],
}

impl<'a> From<&'a definition::Relationships> for MetricRelationships<'a> {
    fn from(relationships: &'a definition::Relationships) -> Self {
        Self {
            upstream_keys: &relationships.upstream_keys,
            downstream_keys: &relationships.downstream_keys,
            tradeoffs: &relationships.tradeoffs,
        }
    }
}

/// What people do with a metric.
#[derive(SimpleObject)]
pub struct MetricUsage<'a> {
    /// Decisions that it informs.
    decision_use_cases: &'a [String],
    /// How often it is looked at together: `weekly`.
    review_cadence: Option<&'a str>,
    /// What to do when it moves.
    playbooks: Vec<Playbook<'a>>,
}

impl<'a> From<&'a definition::Usage> for MetricUsage<'a> {
    fn from(usage: &'a definition::Usage) -> Self {
        let playbooks = usage.playbooks.iter();
        Self {
            decision_use_cases: &usage.decision_use_cases,
            review_cadence: usage.review_cadence.as_deref(),
            playbooks: playbooks.map(|playbook| Playbook { name: &playbook.name, url: playbook.url.as_deref() }).collect(),
        }
    }
}

/// Instructions for when a metric moves.
#[derive(SimpleObject)]
pub struct Playbook<'a> {
    /// What people call it.
    name: &'a str,
    /// An http or https address.
    url: Option<&'a str>,
}

/// A query that computes a metric, or a cut of it.
#[derive(SimpleObject)]
pub struct ExampleQuery<'a> {
    /// `sql`, `promql`, …
    language: Option<&'a str>,
    /// The query.
    query: &'a str,
}

impl<'a> From<&'a definition::ExampleQuery> for ExampleQuery<'a> {
    fn from(example: &'a definition::ExampleQuery) -> Self {
        Self { language: example.language.as_deref(), query: &example.query }
    }
}

/// A key that an edge of a metric names and that no metric has.
#[derive(SimpleObject)]
pub struct UnresolvedReference {
    /// The missing key. The reference resolves by itself once a metric has it.
    pub key: String,
    /// On which side of the metric it is.
    pub side: super::enums::LineageSide,
}
