//! What people send to create or change objectives and key results.

use async_graphql::{ID, InputObject, Json, MaybeUndefined};
use chrono::NaiveDate;
use mdl::objectives::{Content, KeyResultContent, NewObjective};
use serde_json::{Map, Value};

use super::enums::{KeyResultDirection, ObjectiveStatus};
use crate::graphql::input::{put, put_as, put_some};

/// An objective to be added.
#[derive(InputObject)]
pub struct CreateObjectiveInput {
    /// The stable human name: letters, digits and `- _ . : /`, at most 200. Unique in the catalog; it never changes.
    key: String,
    /// What is to be reached, in a line.
    name: String,
    /// Everything else.
    #[graphql(flatten)]
    content: ObjectiveContent,
}

/// A change of an objective. What is left out stays as it is; `null` clears; a list replaces the whole list.
#[derive(InputObject)]
pub struct UpdateObjectiveInput {
    /// Which objective.
    pub id: ID,
    /// The `revision` that the change was made on: if there has been another since, nothing is changed, and the user error
    /// is `VERSION_CONFLICT`. Without it the change is made in any case.
    pub expected_version: Option<i32>,
    /// What is to be reached, in a line.
    name: MaybeUndefined<String>,
    /// Everything else.
    #[graphql(flatten)]
    content: ObjectiveContent,
}

/// An objective to be taken out of the lists.
#[derive(InputObject)]
pub struct ArchiveObjectiveInput {
    /// Which objective.
    pub id: ID,
    /// The `revision` that was seen; see `UpdateObjectiveInput`.
    pub expected_version: Option<i32>,
}

/// The content of an objective, apart from its name.
#[derive(InputObject)]
struct ObjectiveContent {
    /// What is to be reached, and why.
    description: MaybeUndefined<String>,
    /// Who answers for it.
    owner: MaybeUndefined<String>,
    /// Where it stands; `DRAFT` if not given.
    status: MaybeUndefined<ObjectiveStatus>,
    /// How important it is, as the company ranks.
    priority: MaybeUndefined<String>,
    /// The part of the company's strategy that it serves.
    pillar: MaybeUndefined<String>,
    /// First day of its timeframe.
    starts_on: MaybeUndefined<NaiveDate>,
    /// Last day of its timeframe.
    ends_on: MaybeUndefined<NaiveDate>,
    /// Key or name of the business domain that it belongs to, which must exist.
    domain: MaybeUndefined<String>,
    /// Keys of the metrics that it is about, in this order; these need not exist yet.
    metric_keys: MaybeUndefined<Vec<String>>,
    /// Fields that the model has no place for, under their own names; replaces all of them.
    extra: MaybeUndefined<Json<Map<String, Value>>>,
}

impl CreateObjectiveInput {
    pub fn into_new(self) -> NewObjective {
        let domain = self.content.domain.clone().take();
        let mut content = Content { name: self.name, ..Content::default() };
        self.content.apply(&mut content);
        NewObjective { key: self.key, domain, content }
    }
}

impl UpdateObjectiveInput {
    /// Where it is to be moved, if anywhere.
    pub fn domain(&self) -> Option<Option<String>> {
        self.content.domain.as_opt_ref().map(|domain| domain.cloned())
    }

    pub fn apply(self, content: &mut Content) {
        put(&mut content.name, self.name);
        self.content.apply(content);
    }
}

impl ObjectiveContent {
    fn apply(self, content: &mut Content) {
        put(&mut content.description, self.description);
        put_some(&mut content.owner, self.owner);
        put_as(&mut content.status, self.status);
        put_some(&mut content.priority, self.priority);
        put_some(&mut content.pillar, self.pillar);
        put_some(&mut content.starts_on, self.starts_on);
        put_some(&mut content.ends_on, self.ends_on);
        put(&mut content.metric_keys, self.metric_keys);
        put(&mut content.extra.0, self.extra.map_value(|extra| extra.0));
    }
}

/// A key result to be added to an objective, after those it has.
#[derive(InputObject)]
pub struct CreateKeyResultInput {
    /// Id of the objective that it measures.
    pub objective_id: ID,
    /// The stable human name: letters, digits and `- _ . : /`, at most 200. Unique within the objective; it never changes.
    key: String,
    /// What is to be reached, in a line.
    name: String,
    /// Everything else.
    #[graphql(flatten)]
    content: KeyResultFields,
}

/// A change of a key result. What is left out stays as it is; `null` clears; a list replaces the whole list.
#[derive(InputObject)]
pub struct UpdateKeyResultInput {
    /// Which key result.
    pub id: ID,
    /// The `revision` that the change was made on: if there has been another since, nothing is changed, and the user error
    /// is `VERSION_CONFLICT`. Without it the change is made in any case.
    pub expected_version: Option<i32>,
    /// What is to be reached, in a line.
    name: MaybeUndefined<String>,
    /// Everything else.
    #[graphql(flatten)]
    content: KeyResultFields,
}

/// A key result to be taken out of its objective.
#[derive(InputObject)]
pub struct ArchiveKeyResultInput {
    /// Which key result.
    pub id: ID,
    /// The `revision` that was seen; see `UpdateKeyResultInput`.
    pub expected_version: Option<i32>,
}

/// The content of a key result, apart from its name.
#[derive(InputObject)]
struct KeyResultFields {
    /// How it is read.
    description: MaybeUndefined<String>,
    /// What its values count: `percentage`, `USD`, …
    unit: MaybeUndefined<String>,
    /// Which way its value has to go; `INCREASE` if not given.
    direction: MaybeUndefined<KeyResultDirection>,
    /// Where it started.
    baseline_value: MaybeUndefined<f64>,
    /// Where it should arrive.
    target_value: MaybeUndefined<f64>,
    /// Where it is. Progress and status follow from it.
    current_value: MaybeUndefined<f64>,
    /// Keys of the metrics that it is read from, in this order; at most 50; these need not exist yet.
    metric_keys: MaybeUndefined<Vec<String>>,
    /// Fields that the model has no place for, under their own names; replaces all of them.
    extra: MaybeUndefined<Json<Map<String, Value>>>,
}

impl CreateKeyResultInput {
    /// Key, content and metric keys.
    pub fn into_content(self) -> (String, KeyResultContent, Vec<String>) {
        let mut content = KeyResultContent { name: self.name, ..KeyResultContent::default() };
        let mut metric_keys = Vec::new();
        self.content.apply(&mut content, &mut metric_keys);
        (self.key, content, metric_keys)
    }
}

impl UpdateKeyResultInput {
    pub fn apply(self, content: &mut KeyResultContent, metric_keys: &mut Vec<String>) {
        put(&mut content.name, self.name);
        self.content.apply(content, metric_keys);
    }
}

impl KeyResultFields {
    fn apply(self, content: &mut KeyResultContent, metric_keys: &mut Vec<String>) {
        put(&mut content.description, self.description);
        put_some(&mut content.unit, self.unit);
        put_as(&mut content.direction, self.direction);
        put_some(&mut content.baseline_value, self.baseline_value);
        put_some(&mut content.target_value, self.target_value);
        put_some(&mut content.current_value, self.current_value);
        put(&mut content.extra.0, self.extra.map_value(|extra| extra.0));
        put(metric_keys, self.metric_keys);
    }
}
