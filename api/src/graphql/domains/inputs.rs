//! What people send to create or change a business domain.

use async_graphql::{ID, InputObject, Json, MaybeUndefined};
use mdl::domains::Content;
use serde_json::{Map, Value};

use crate::graphql::input::{put, put_some};

/// A business domain to be added.
#[derive(InputObject)]
pub struct CreateBusinessDomainInput {
    /// The stable human name: letters, digits and `- _ . : /`, at most 200. Unique in the catalog; it never changes.
    key: String,
    /// What people call it; unique in the catalog.
    name: String,
    /// Everything else.
    #[graphql(flatten)]
    content: DomainContent,
}

/// A change of a business domain. What is left out stays as it is; `null` clears; a list replaces the whole list.
#[derive(InputObject)]
pub struct UpdateBusinessDomainInput {
    /// Which domain.
    pub id: ID,
    /// The `revision` that the change was made on: if there has been another since, nothing is changed, and the user error
    /// is `VERSION_CONFLICT`. Without it the change is made in any case.
    pub expected_version: Option<i32>,
    /// What people call it; unique in the catalog.
    name: MaybeUndefined<String>,
    /// Everything else.
    #[graphql(flatten)]
    content: DomainContent,
}

/// A business domain to be taken out of the lists.
#[derive(InputObject)]
pub struct ArchiveBusinessDomainInput {
    /// Which domain.
    pub id: ID,
    /// The `revision` that was seen; see `UpdateBusinessDomainInput`.
    pub expected_version: Option<i32>,
}

/// The content of a business domain, apart from its name.
#[derive(InputObject)]
struct DomainContent {
    /// What belongs to it.
    description: MaybeUndefined<String>,
    /// The team that answers for it.
    owner_team: MaybeUndefined<String>,
    /// Who has a say.
    stakeholders: MaybeUndefined<Vec<String>>,
    /// The industry that it is peculiar to.
    industry: MaybeUndefined<String>,
    /// How important it is to the company, in the company's own words.
    priority: MaybeUndefined<String>,
    /// Keys of the objectives that it names as its own; these need not exist yet.
    objective_keys: MaybeUndefined<Vec<String>>,
    /// Keys of the metrics that it is steered by, in this order; these need not exist yet.
    key_metric_keys: MaybeUndefined<Vec<String>>,
    /// Fields that the model has no place for, under their own names; replaces all of them.
    extra: MaybeUndefined<Json<Map<String, Value>>>,
}

impl CreateBusinessDomainInput {
    pub fn into_content(self) -> (String, Content) {
        let mut content = Content::named(self.name);
        self.content.apply(&mut content);
        (self.key, content)
    }
}

impl UpdateBusinessDomainInput {
    pub fn apply(self, content: &mut Content) {
        put(&mut content.name, self.name);
        self.content.apply(content);
    }
}

impl DomainContent {
    fn apply(self, content: &mut Content) {
        put(&mut content.description, self.description);
        put_some(&mut content.owner_team, self.owner_team);
        put(&mut content.stakeholders, self.stakeholders);
        put_some(&mut content.industry, self.industry);
        put_some(&mut content.priority, self.priority);
        put(&mut content.objective_keys, self.objective_keys);
        put(&mut content.key_metric_keys, self.key_metric_keys);
        put(&mut content.extra.0, self.extra.map_value(|extra| extra.0));
    }
}
