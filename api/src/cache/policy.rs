//! Which operations are kept, and what their answers are made of: the one place that says so.
//!
//! [`TYPES`] says of each type what its fields are made of, [`FIELDS`] of single fields what else they are, and every field of
//! `Query` has a line there. Whatever has no line makes an operation one that is not kept, so forgetting a line costs time and
//! never truth; a test asks for the lines all the same.

mod rules;

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;
use std::time::Duration;

use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{
    BaseType, ExecutableDocument, OperationDefinition, OperationType, Selection, SelectionSet, Type, TypeKind,
    TypeSystemDefinition,
};
use mdl::versions::Entities;
use sha2::{Digest, Sha256};

pub use rules::{FIELDS, Rule, TYPES};

/// How the answer to an operation is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What it is made of.
    pub reads: Entities,
    /// How long it is kept at most.
    pub ttl: Duration,
    /// Whether it differs from person to person, beyond what they may.
    pub personal: bool,
    /// Whether it differs from day to day.
    pub daily: bool,
}

/// How answers to an operation of a document are kept; `None` when they are not. It need not fit the schema.
pub fn of(document: &ExecutableDocument, operation: &OperationDefinition) -> Option<Policy> {
    SCHEMA.policy(document, operation)
}

/// Stands for the schema and the version of this program: another one may answer the same otherwise.
pub fn schema_fingerprint() -> &'static [u8; 32] {
    &SCHEMA.fingerprint
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of_server);

/// What the schema says of its types: for each, the type of each field.
struct Schema {
    fields: HashMap<String, HashMap<String, String>>,
    fingerprint: [u8; 32],
}

impl Schema {
    fn of_server() -> Self {
        let sdl = crate::graphql::schema::sdl();
        let fingerprint = Sha256::new_with_prefix(env!("CARGO_PKG_VERSION")).chain_update(&sdl).finalize().into();
        let definitions = parse_schema(&sdl).expect("the schema's own text").definitions;
        let types = definitions.into_iter().filter_map(|definition| match definition {
            TypeSystemDefinition::Type(definition) => Some(definition.node),
            _ => None,
        });
        let fields = types.filter_map(|definition| {
            let fields = match definition.kind {
                TypeKind::Object(object) => object.fields,
                TypeKind::Interface(interface) => interface.fields,
                _ => return None,
            };
            let fields = fields.into_iter().map(|field| (field.node.name.node.to_string(), named(&field.node.ty.node)));
            Some((definition.name.node.to_string(), fields.collect()))
        });
        Self { fields: fields.collect(), fingerprint }
    }

    fn policy(&self, document: &ExecutableDocument, operation: &OperationDefinition) -> Option<Policy> {
        if operation.ty != OperationType::Query {
            return None;
        }
        let mut walk = Walk { schema: self, document, seen: HashSet::new(), sum: Rule::NOTHING };
        walk.set("Query", &operation.selection_set.node)?;
        let Rule { reads, seconds, personal, daily, .. } = walk.sum;
        // What is made of nothing costs nothing to make.
        let policy = Policy { reads, ttl: Duration::from_secs(seconds), personal, daily };
        (!reads.is_empty()).then_some(policy)
    }
}

/// One way through an operation. `None` anywhere: it is not kept.
struct Walk<'a> {
    schema: &'a Schema,
    document: &'a ExecutableDocument,
    /// Fragments need one look each: what they say does not depend on where they stand.
    seen: HashSet<&'a str>,
    sum: Rule,
}

impl<'a> Walk<'a> {
    fn set(&mut self, parent: &str, set: &'a SelectionSet) -> Option<()> {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => self.field(parent, &field.node.name.node, &field.node.selection_set.node)?,
                Selection::InlineFragment(inline) => {
                    let condition = inline.node.type_condition.as_ref();
                    let on = condition.map_or(parent, |condition| condition.node.on.node.as_str());
                    self.kind(on)?;
                    self.set(on, &inline.node.selection_set.node)?;
                }
                Selection::FragmentSpread(spread) => {
                    let name = spread.node.fragment_name.node.as_str();
                    let fragment = &self.document.fragments.get(name)?.node;
                    if self.seen.insert(name) {
                        let on = fragment.type_condition.node.on.node.as_str();
                        self.kind(on)?;
                        self.set(on, &fragment.selection_set.node)?;
                    }
                }
            }
        }
        Some(())
    }

    fn field(&mut self, parent: &str, name: &str, set: &'a SelectionSet) -> Option<()> {
        if name == "__typename" {
            return Some(());
        }
        let of = self.schema.fields.get(parent)?.get(name)?;
        let rule = FIELDS.iter().find(|(kind, field, _)| *kind == parent && *field == name).map(|(.., rule)| rule);
        match rule {
            Some(rule) => self.add(rule)?,
            None if parent == "Query" => return None,
            None => {}
        }
        if self.schema.fields.contains_key(of) {
            self.kind(of)?;
            self.set(of, set)?;
        }
        Some(())
    }

    fn kind(&mut self, name: &str) -> Option<()> {
        self.add(&TYPES.iter().find(|(kind, _)| *kind == name)?.1)
    }

    fn add(&mut self, rule: &Rule) -> Option<()> {
        self.sum = self.sum.and(rule);
        (!self.sum.never).then_some(())
    }
}

/// `Metric` of `[Metric!]!`.
fn named(of: &Type) -> String {
    match &of.base {
        BaseType::Named(name) => name.to_string(),
        BaseType::List(item) => named(item),
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use mdl::versions::Entity;

    use super::*;

    fn policy(document: &str) -> Option<Policy> {
        let parsed = parse_query(document).unwrap();
        let (_, operation) = parsed.operations.iter().next().unwrap();
        of(&parsed, &operation.node)
    }

    fn reads(document: &str) -> Vec<&'static str> {
        policy(document).unwrap().reads.iter().map(Entity::as_str).collect()
    }

    #[test]
    fn operations_are_made_of_what_their_fields_are_made_of() {
        assert_eq!(reads("{ metric(key: \"M\") { name } }"), ["metrics"]);
        assert_eq!(reads("{ metric(key: \"M\") { domain { name } keyResults { name } } }"), ["metrics", "domains", "objectives"]);
        assert_eq!(reads("{ businessDomain { metricCount } }"), ["metrics", "domains"]);
        assert_eq!(
            reads(
                "query Q($d: Boolean!) { objective { name ...F @include(if: $d) } } fragment F on Objective { createdBy { name } }"
            ),
            ["objectives", "people"]
        );
        assert_eq!(reads("{ catalogStats { objectiveCount } }"), ["objectives"]);
        assert!(policy("{ node(id: 1) { id } }").unwrap().personal);
        assert!(policy("{ objectives { nodes { keyResults { status } } } }").unwrap().daily);
        assert!(!policy("{ objectives { nodes { keyResults { progress } } } }").unwrap().daily);
        assert!(policy("{ users { nodes { name } } metric { name } }").unwrap().ttl < policy("{ metric { name } }").unwrap().ttl);
    }

    #[test]
    fn what_depends_on_the_caller_or_is_unknown_is_not_kept() {
        for document in [
            "{ me { role } }",
            "{ metric { name } apiKeys { nodes { name } } }",
            "{ users { nodes { lastSignedInAt } } }",
            "{ imports { nodes { id } } }",
            "{ node(id: 1) { ... on Import { rate } } }",
            "{ metric { name } ... on Query { me { role } } }",
            "{ metric { name ...F } } fragment F on Metric { createdBy { lastSignedInAt } }",
            "{ metric { ...Gone } }",
            "{ metric { nonsense } }",
            "{ nonsense }",
            "{ __schema { types { name } } metric { name } }",
            "{ __typename }",
            "mutation { archiveMetric { metric { name } } }",
            "subscription { metric { name } }",
            "query A { metric { ...F } } fragment F on Metric { ...G } fragment G on Metric { ...F nonsense }",
        ] {
            assert_eq!(policy(document), None, "{document}");
        }
    }

    /// A new type or root field fails this until somebody has thought about what it is made of.
    #[test]
    fn everything_that_can_be_read_has_a_line() {
        let schema = &*SCHEMA;
        for field in schema.fields["Query"].keys() {
            assert!(
                FIELDS.iter().any(|(kind, name, _)| *kind == "Query" && name == field),
                "Query.{field} has no line in FIELDS"
            );
        }
        let mut open = vec!["Query".to_owned(), "Node".to_owned()];
        // What an interface stands for.
        open.extend(["BusinessDomain", "Metric", "Objective", "KeyResult", "User", "Import"].map(str::to_owned));
        let mut reached = HashSet::new();
        while let Some(kind) = open.pop() {
            if reached.insert(kind.clone()) {
                assert!(TYPES.iter().any(|(name, _)| *name == kind), "{kind} has no line in TYPES");
                open.extend(schema.fields[&kind].values().filter(|of| schema.fields.contains_key(*of)).cloned());
            }
        }
        for (kind, _) in TYPES {
            assert!(reached.contains(*kind), "TYPES has a line for {kind}, which cannot be read");
        }
        for (kind, field, _) in FIELDS {
            let fields = schema.fields.get(*kind);
            assert!(fields.is_some_and(|fields| fields.contains_key(*field)), "there is no {kind}.{field}");
        }
    }
}
