//! What people send to create or change a metric.

use async_graphql::{ID, InputObject, Json, MaybeUndefined};
use mdl::error::Error;
use mdl::metrics::{Definition, NewMetric, Semver, Update};
use serde_json::{Map, Value};

use super::enums::{IndicatorKind, MetricStatus, MetricType, Tier};
use super::input_parts::{
    AlignmentInput, DataInput, DefinitionInput, DimensionInput, ExampleQueryInput, GovernanceInput, RelationshipsInput,
    TargetsInput, UsageInput, VisualizationInput,
};
use crate::graphql::input::{put, put_as, put_group, put_list, put_some, put_some_as};

/// A metric to be added to the catalog.
#[derive(InputObject)]
pub struct CreateMetricInput {
    /// The stable human name: letters, digits and `- _ . : /`, at most 200. Unique in the catalog; it never changes.
    key: String,
    /// What people call it.
    name: String,
    /// Its first version; 1.0.0 if not given.
    version: Option<String>,
    /// Why, for the history.
    message: Option<String>,
    /// Everything else.
    #[graphql(flatten)]
    content: MetricContent,
}

/// A change of a metric. What is left out stays as it is; `null` clears; a list replaces the whole list. The groups
/// (`definition`, `governance`, …) are merged field by field.
#[derive(InputObject)]
pub struct UpdateMetricInput {
    /// Which metric.
    pub id: ID,
    /// The `revision` that the change was made on: if there has been another since, nothing is changed, and the user error
    /// is `VERSION_CONFLICT`. Without it the change is made in any case.
    expected_version: Option<i32>,
    /// Why, for the history.
    message: Option<String>,
    /// What people call it.
    name: MaybeUndefined<String>,
    /// Everything else.
    #[graphql(flatten)]
    content: MetricContent,
}

/// A metric to be taken out of the lists.
#[derive(InputObject)]
pub struct ArchiveMetricInput {
    /// Which metric.
    pub id: ID,
    /// The `revision` that was seen; see `UpdateMetricInput`.
    pub expected_version: Option<i32>,
}

/// An archived metric to be taken back into the lists.
#[derive(InputObject)]
pub struct RestoreMetricInput {
    /// Which metric.
    pub id: ID,
    /// The `revision` that was seen; see `UpdateMetricInput`.
    pub expected_version: Option<i32>,
}

/// The content of a metric, apart from its name.
#[derive(InputObject)]
struct MetricContent {
    /// Its name where room is short.
    short_name: MaybeUndefined<String>,
    /// What it measures, in a sentence or two.
    description: MaybeUndefined<String>,
    /// What kind of figure it is to the company: KPI, Finance, Retention, …
    category: MaybeUndefined<String>,
    /// How much depends on it.
    tier: MaybeUndefined<Tier>,
    /// Key or name of the business domain that it belongs to, which must exist.
    domain: MaybeUndefined<String>,
    /// Whether it foretells, reports, or watches the running business.
    indicator_kind: MaybeUndefined<IndicatorKind>,
    /// How it is computed; `SIMPLE` if not given.
    metric_type: MaybeUndefined<MetricType>,
    /// Where its definition stands; `DRAFT` if not given.
    status: MaybeUndefined<MetricStatus>,
    /// Words to find it by; at most 200.
    tags: MaybeUndefined<Vec<String>>,
    /// Other names that people use for it; at most 200.
    synonyms: MaybeUndefined<Vec<String>>,
    /// Why the company keeps it.
    alignment: MaybeUndefined<AlignmentInput>,
    /// How it is computed.
    definition: MaybeUndefined<DefinitionInput>,
    /// Where the numbers come from.
    data: MaybeUndefined<DataInput>,
    /// Who answers for it.
    governance: MaybeUndefined<GovernanceInput>,
    /// What it may be cut by; at most 200.
    dimensions: MaybeUndefined<Vec<DimensionInput>>,
    /// What the number should be.
    targets: MaybeUndefined<TargetsInput>,
    /// How and where it is shown.
    visualization: MaybeUndefined<VisualizationInput>,
    /// What it depends on, and what depends on it.
    relationships: MaybeUndefined<RelationshipsInput>,
    /// What people do with it.
    usage: MaybeUndefined<UsageInput>,
    /// Anything else that one should know.
    notes: MaybeUndefined<String>,
    /// Queries that compute it, or a cut of it.
    example_queries: MaybeUndefined<Vec<ExampleQueryInput>>,
    /// Fields that the model has no place for, under their own names; replaces all of them.
    extra: MaybeUndefined<Json<Map<String, Value>>>,
}

impl CreateMetricInput {
    pub fn into_new(self) -> NewMetric {
        let domain = self.content.domain.clone().take();
        let mut definition = Definition::default();
        definition.summary.name = self.name;
        self.content.apply(&mut definition);
        NewMetric { key: self.key, domain, definition, version: self.version, message: self.message }
    }
}

impl UpdateMetricInput {
    /// The update, and what edits the present definition.
    pub fn into_update(self) -> (Update, impl FnOnce(&mut Definition) + Send) {
        let domain = self.content.domain.as_opt_ref().map(|domain| domain.cloned());
        let update = Update { expected_revision: self.expected_version, domain, message: self.message };
        let edit = |definition: &mut Definition| {
            put(&mut definition.summary.name, self.name);
            self.content.apply(definition);
        };
        (update, edit)
    }
}

impl MetricContent {
    /// Changes what was given. The domain is looked up by whoever writes.
    fn apply(self, definition: &mut Definition) {
        let summary = &mut definition.summary;
        put_some(&mut summary.short_name, self.short_name);
        put(&mut summary.description, self.description);
        put_some(&mut summary.category, self.category);
        put_some_as(&mut summary.tier, self.tier);
        put_some_as(&mut summary.indicator_kind, self.indicator_kind);
        put_as(&mut summary.metric_type, self.metric_type);
        put_as(&mut summary.status, self.status);
        put(&mut summary.tags, self.tags);
        put(&mut summary.synonyms, self.synonyms);
        put_group(definition, self.definition, DefinitionInput::clear, DefinitionInput::apply);
        put_group(definition, self.governance, GovernanceInput::clear, GovernanceInput::apply);
        let details = &mut definition.details;
        put_group(&mut details.alignment, self.alignment, clear, AlignmentInput::apply);
        put_group(&mut details.data, self.data, clear, DataInput::apply);
        put_list(&mut details.dimensions, self.dimensions);
        put_group(&mut details.targets, self.targets, clear, TargetsInput::apply);
        put_group(&mut details.visualization, self.visualization, clear, VisualizationInput::apply);
        put_group(&mut details.relationships, self.relationships, clear, RelationshipsInput::apply);
        put_group(&mut details.usage, self.usage, clear, UsageInput::apply);
        put_some(&mut details.notes, self.notes);
        put_list(&mut details.example_queries, self.example_queries);
        put(&mut details.extra.0, self.extra.map_value(|extra| extra.0));
    }
}

fn clear<T: Default>(group: &mut T) {
    *group = T::default();
}

/// `"2.1.0"`, given as the argument `version`.
pub fn parse_version(text: &str) -> mdl::Result<Semver> {
    Semver::given(text).map_err(|problem| Error::Invalid(vec![problem]))
}
