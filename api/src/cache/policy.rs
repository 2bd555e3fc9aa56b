//! Which operations are kept, and what their answers are made of: the one place that says so.
//!
//! [`TYPES`] says of each type what its fields are made of, [`FIELDS`] of single fields what else they are, and every field of
//! `Query` has a line there. Whatever has no line makes an operation one that is not kept, so forgetting a line costs time and
//! never truth; a test asks for the lines all the same.
//!
//! Two things are finer than their kind. What is asked of [`One`] metric or objective, of a domain's metrics, or of those with a
//! tag, is made of just these. And where metrics are no more than mentioned, changes of anything else about them leave the answer
//! as it was.

mod one;
mod rules;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{
    BaseType, ExecutableDocument, Field, OperationDefinition, OperationType, Selection, SelectionSet, Type, TypeKind,
    TypeSystemDefinition,
};
use mdl::actor::{Permission, Permissions};
use mdl::versions::Entities;
use sha2::{Digest, Sha256};

pub use one::One;
use rules::{CATALOG, CHOOSING, FIELDS, LABEL, METRIC, OBJECTIVE, PAGING, Rule, SOME, THING, TYPES, is_label};

/// How the answer to an operation is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What it is made of.
    pub reads: Entities,
    /// Single things that it is made of, and metrics that have something in common.
    pub ones: Arc<[One]>,
    /// How long it is kept at most.
    pub ttl: Duration,
    /// Whether it differs from person to person, beyond what they may.
    pub personal: bool,
    /// Whether it differs from day to day.
    pub daily: bool,
    /// Whether it differs with other permissions than that to read the catalog.
    pub guarded: bool,
    /// Whether it is made of the row of one metric, and so of a single read.
    pub one_row: bool,
}

impl Policy {
    /// Those of the permissions on which the answer depends. It is made with no others, so that it is everybody's who has these.
    pub fn permissions(&self, held: Permissions) -> Permissions {
        if self.guarded { held } else { held.iter().filter(|permission| *permission == Permission::CatalogRead).collect() }
    }
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
        let mut walk = Walk {
            schema: self,
            document,
            seen: HashSet::new(),
            ones: Vec::new(),
            domains: Vec::new(),
            of_domains: false,
            sum: Rule::NOTHING,
        };
        walk.set("Query", None, &operation.selection_set.node)?;
        let Rule { reads, seconds, personal, daily, guarded, apart, .. } = walk.sum;
        let one_row = reads == THING.reads && !apart && matches!(walk.ones.as_slice(), [one] if one.is_a_metric_now());
        let domains = if walk.of_domains { walk.domains } else { Vec::new() };
        let ones = walk.ones.into_iter().chain(domains).collect();
        let ttl = Duration::from_secs(seconds);
        let policy = Policy { reads, ones, ttl, personal, daily, guarded, one_row };
        // What is made of nothing costs nothing to make.
        (!reads.is_empty()).then_some(policy)
    }
}

/// What a selection belongs to, if that is one thing, or metrics that have something in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Within {
    Metrics,
    Objective,
    Domain,
}

/// One way through an operation. `None` anywhere: it is not kept.
struct Walk<'a> {
    schema: &'a Schema,
    document: &'a ExecutableDocument,
    /// Fragments need one look each, and another where they belong to one thing: what they say does not depend on more.
    seen: HashSet<(&'a str, Option<Within>)>,
    ones: Vec<One>,
    /// Domains that were asked for, and whether that was for their metrics: a fragment is looked at once for all of them.
    domains: Vec<One>,
    of_domains: bool,
    sum: Rule,
}

impl<'a> Walk<'a> {
    fn set(&mut self, parent: &str, within: Option<Within>, set: &'a SelectionSet) -> Option<()> {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => self.field(parent, within, &field.node)?,
                Selection::InlineFragment(inline) => {
                    let condition = inline.node.type_condition.as_ref();
                    let on = condition.map_or(parent, |condition| condition.node.on.node.as_str());
                    self.kind(on, within)?;
                    self.set(on, within, &inline.node.selection_set.node)?;
                }
                Selection::FragmentSpread(spread) => {
                    let name = spread.node.fragment_name.node.as_str();
                    let fragment = &self.document.fragments.get(name)?.node;
                    if self.seen.insert((name, within)) {
                        let on = fragment.type_condition.node.on.node.as_str();
                        self.kind(on, within)?;
                        self.set(on, within, &fragment.selection_set.node)?;
                    }
                }
            }
        }
        Some(())
    }

    fn field(&mut self, parent: &str, within: Option<Within>, field: &'a Field) -> Option<()> {
        let name = field.name.node.as_str();
        if name == "__typename" {
            return Some(());
        }
        let of = self.schema.fields.get(parent)?.get(name)?;
        if parent == "Query" && !CATALOG.contains(&name) {
            self.add(&Rule { guarded: true, ..Rule::NOTHING })?;
        }
        let one = (parent == "Query").then(|| One::asked_by(field)).flatten();
        let of_domain = within == Some(Within::Domain) && METRICS_OF_DOMAIN.contains(&name);
        let some = of_domain || matches!(one, Some(One::Filtered(_)));
        match line(FIELDS, parent, name) {
            Some(_) if some => self.add(&SOME)?,
            Some(rule) => self.add(rule)?,
            None if parent == "Query" => return None,
            None => {}
        }
        if parent == "Metric" && within.is_none() {
            self.add(if is_label(name) { &LABEL } else { &METRIC })?;
        }
        let chooses = || field.arguments.iter().any(|(name, _)| !PAGING.contains(&name.node.as_str()));
        if let Some(rule) = line(CHOOSING, parent, name).filter(|_| !some && chooses()) {
            self.add(rule)?;
        }
        let within = match (&one, within) {
            (Some(One::Metric { .. } | One::Filtered(_)), _) => Some(Within::Metrics),
            (Some(One::Objective(_)), _) => Some(Within::Objective),
            (Some(One::OfDomain(_)), _) => Some(Within::Domain),
            (None, _) if of_domain => Some(Within::Metrics),
            (None, Some(Within::Metrics)) if LISTS_OF_METRICS.contains(&parent) => Some(Within::Metrics),
            (None, within) => within.filter(|within| belonging_to(of) == Some(*within)),
        };
        match one {
            Some(domain @ One::OfDomain(_)) => self.domains.push(domain),
            one => self.ones.extend(one),
        }
        self.of_domains |= of_domain;
        if self.schema.fields.contains_key(of) {
            self.kind(of, within)?;
            self.set(of, within, &field.selection_set.node)?;
        }
        Some(())
    }

    fn kind(&mut self, name: &str, within: Option<Within>) -> Option<()> {
        let rule = rule_of(name)?;
        match within {
            Some(within) if belonging_to(name) == Some(within) => self.add(&THING),
            // Its fields say it one by one.
            None if name == "Metric" => Some(()),
            _ => self.add(rule),
        }
    }

    fn add(&mut self, rule: &Rule) -> Option<()> {
        self.sum = self.sum.and(rule);
        (!self.sum.never).then_some(())
    }
}

fn rule_of(kind: &str) -> Option<&'static Rule> {
    TYPES.iter().find(|(name, _)| *name == kind).map(|(_, rule)| rule)
}

fn line(table: &'static [(&str, &str, Rule)], kind: &str, field: &str) -> Option<&'static Rule> {
    table.iter().find(|(of, name, _)| *of == kind && *name == field).map(|(.., rule)| rule)
}

/// Fields of a domain that are about its metrics.
const METRICS_OF_DOMAIN: &[&str] = &["metrics", "metricCount"];
/// Types that give the metrics of the list which they are part of.
const LISTS_OF_METRICS: &[&str] = &["MetricConnection", "MetricEdge"];

/// What a type is part of, itself included, if nothing that is part of another one can have it.
fn belonging_to(kind: &str) -> Option<Within> {
    match *rule_of(kind)? {
        METRIC => Some(Within::Metrics),
        OBJECTIVE => Some(Within::Objective),
        _ => None,
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
        assert_eq!(reads("{ metrics { nodes { description } } }"), ["metrics", "metric_set", "metric_labels"]);
        assert_eq!(reads("{ businessDomains { nodes { metricCount } } }"), ["metric_set", "metric_labels", "domains"]);
        assert_eq!(
            reads(
                "query Q($d: Boolean!) { objective { name ...F @include(if: $d) } } fragment F on Objective { createdBy { name } }"
            ),
            ["people", "things"]
        );
        assert_eq!(reads("{ catalogStats { objectiveCount } }"), ["objectives"]);
        assert!(policy("{ node(id: 1) { id } }").unwrap().personal);
        assert!(policy("{ metric { name } users { nodes { name } } }").unwrap().guarded);
        for (document, of_the_caller) in [
            ("{ metric { createdBy { id name createdAt updatedAt } } }", false),
            ("{ metric { createdBy { email } } }", true),
            ("{ metrics { nodes { ...F } } } fragment F on Metric { updatedBy { role } }", true),
            ("{ businessDomain { createdBy { suspendedAt } } }", true),
        ] {
            let policy = policy(document).unwrap();
            assert_eq!((policy.guarded, policy.personal), (of_the_caller, of_the_caller), "{document}");
        }
        assert!(policy("{ objectives { nodes { keyResults { status } } } }").unwrap().daily);
        assert!(!policy("{ objectives { nodes { keyResults { progress } } } }").unwrap().daily);
        assert!(policy("{ users { nodes { name } } metric { name } }").unwrap().ttl < policy("{ metric { name } }").unwrap().ttl);
    }

    #[test]
    fn one_thing_is_made_of_itself() {
        let whole = "query($key: String) { metric(key: $key) { name domain { name } definition { formula }
            versions { nodes { version metric { description } } } keyResults { name } } }";
        assert_eq!(reads(whole), ["domains", "objectives", "things"]);
        assert_eq!(policy(whole).unwrap().ones.len(), 1);
        let lineage = "{ metric(key: \"M\") { description upstream { nodes { key name } } } }";
        assert_eq!(reads(lineage), ["metric_labels", "lineage", "things"]);
        let more = "{ metric(key: \"M\") { upstream { nodes { ...F } } ...F } } fragment F on Metric { description }";
        assert_eq!(reads(more), ["metrics", "lineage", "things"]);
        let objective = "{ objective(key: \"O\") { progress keyResults { objective { name } metrics { name } } } }";
        assert_eq!(reads(objective), ["metric_set", "metric_labels", "things"]);
        assert!(reads("{ metric(key: \"M\") { alignment { objectives { name } } } }").contains(&"objectives"));
        assert_eq!(policy("{ a: metric(key: \"A\") { name } b: metric(id: \"B\") { name } }").unwrap().ones.len(), 2);
    }

    #[test]
    fn the_row_of_one_metric_is_a_single_read() {
        let one_row = |selected: &str| policy(&format!("query($key: String) {{ {selected} }}")).unwrap().one_row;
        for selected in [
            "metric(key: $key) { name tags version updatedAt }",
            "a: metric(id: \"M\") { ...on Metric { __typename definition { formula numerator { eventName } } targets { targetValue } } }",
        ] {
            assert!(one_row(selected), "{selected}");
        }
        for selected in [
            "metric(key: $key, version: \"1.0.0\") { name }",
            "metric(key: $key) { domain { name } }",
            "metric(key: $key) { versions { nodes { version } } }",
            "metric(key: $key) { upstream { nodes { key } } }",
            "metric(key: $key) { unresolvedReferences { key } }",
            "metric(key: $key) { keyResults { name } }",
            "metric(key: $key) { createdBy { name } }",
            "a: metric(key: $key) { name } b: metric(key: $key) { name }",
            "metric(key: $key) { name } catalogStats { metricCount }",
            "objective(key: $key) { name }",
            "metrics { nodes { name } }",
        ] {
            assert!(!one_row(selected), "{selected}");
        }
    }

    #[test]
    fn where_metrics_are_mentioned_their_labels_count() {
        assert_eq!(
            reads("{ metrics(first: 5) { nodes { key shortName domain { name } } } }"),
            ["metric_set", "metric_labels", "domains"]
        );
        for chosen in ["search: \"a\"", "filter: { archived: true }", "orderBy: { field: NAME }"] {
            assert!(reads(&format!("{{ metrics({chosen}) {{ nodes {{ key }} }} }}")).contains(&"metrics"), "{chosen}");
        }
        assert_eq!(
            reads("{ objectives { nodes { metrics { name } } } }"),
            ["metric_set", "metric_labels", "domains", "objectives"]
        );
        assert_eq!(reads("{ catalogStats { metricCount } }"), ["metric_set"]);
        assert_eq!(reads("{ catalogStats { byTier { count } } }"), ["metric_set", "metric_labels"]);
        for field in ["name", "shortName", "metricType", "indicatorKind", "domain", "archivedAt", "id"] {
            assert!(is_label(field), "{field}");
        }
        for field in ["description", "version", "updatedAt", "revision", "targets", "synonyms"] {
            assert!(!is_label(field), "{field}");
        }
        let fields = &SCHEMA.fields["Metric"];
        assert_eq!(fields.keys().filter(|field| is_label(field)).count(), 5 + mdl::metrics::LABELS.len());
    }

    #[test]
    fn metrics_that_have_something_in_common_are_made_of_no_others() {
        let parts = |document: &str| {
            let policy = policy(document).unwrap();
            let reads: Vec<_> = policy.reads.iter().map(Entity::as_str).collect();
            (reads, policy.ones.len(), policy.one_row)
        };
        for chosen in
            ["filter: $filter", "search: \"a\", filter: { tags: { containsAny: [\"t\"] } }", "filter: { domain: { in: \"D\" } }"]
        {
            let list =
                format!("{{ metrics({chosen}) {{ totalCount edges {{ cursor }} nodes {{ description domain {{ name }} }} }} }}");
            assert_eq!(parts(&list), (vec!["domains", "things"], 1, false), "{chosen}");
            let named =
                format!("{{ metrics({chosen}) {{ ...F }} }} fragment F on MetricConnection {{ edges {{ node {{ notes }} }} }}");
            assert_eq!(parts(&named), (vec!["domains", "things"], 1, false), "{chosen}");
        }
        let neighbours = "{ metrics(filter: $f) { nodes { upstream { nodes { name } } } } }";
        assert_eq!(parts(neighbours).0, ["metric_labels", "lineage", "domains", "things"]);
        let one = "{ businessDomain(key: \"D\") { name metricCount metrics { nodes { description } } } }";
        assert_eq!(parts(one), (vec!["domains", "things"], 1, false));
        assert_eq!(parts("{ businessDomain(key: \"D\") { name } }"), (vec!["domains"], 0, false));
        let key_metrics = "{ businessDomain(key: \"D\") { keyMetrics { description } objectives { nodes { name } } } }";
        assert_eq!(parts(key_metrics), (vec!["metrics", "metric_set", "domains", "objectives"], 0, false));
        let two = "{ a: businessDomain(key: \"D\") { ...F } b: businessDomain(key: \"E\") { ...F } }
            fragment F on BusinessDomain { metricCount }";
        assert_eq!(parts(two).1, 2, "a fragment is of both");
        let inner = "{ metric(key: \"M\") { domain { metrics { nodes { name } } } } }";
        assert_eq!(parts(inner).0, ["metric_set", "metric_labels", "domains", "things"]);
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
        for kind in &reached {
            for (field, of) in &schema.fields[kind] {
                let knows_which = ["MetricConnection", "MetricEdge", "MetricVersion"].contains(&kind.as_str());
                if matches!(of.as_str(), "Metric" | "MetricConnection") && !knows_which {
                    assert!(line(FIELDS, kind, field).is_some(), "{kind}.{field} has no line in FIELDS");
                }
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
