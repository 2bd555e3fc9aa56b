//! What operations ask for by name: answers about it outlive changes of others of its kind.

use async_graphql::parser::types::Field;
use async_graphql::{Value, Variables};
use async_graphql_value::Value as Written;
use mdl::global_id::{self, Kind};
use mdl::versions::{Entities, Thing};
use uuid::Uuid;

/// A metric, an objective, or the metrics that have something in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum One {
    Metric {
        by: Named,
        /// Whether it may be wanted as it was.
        versioned: bool,
    },
    Objective(Named),
    /// Metrics of the domain.
    OfDomain(Named),
    /// Metrics that this filter lets through.
    Filtered(Written),
}

/// By a key or an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    key: Option<Written>,
    id: Option<Written>,
}

impl One {
    /// What a field of `Query` asks for, if it is one of these.
    pub fn asked_by(field: &Field) -> Option<Self> {
        let given = |name: &str| field.get_argument(name).map(|value| value.node.clone());
        let by = || Named { key: given("key"), id: given("id") };
        match field.name.node.as_str() {
            "metric" => Some(Self::Metric { by: by(), versioned: given("version").is_some() }),
            "objective" => Some(Self::Objective(by())),
            "businessDomain" => Some(Self::OfDomain(by())),
            "metrics" => given("filter").filter(may_be_told_apart).map(Self::Filtered),
            _ => None,
        }
    }

    pub fn is_a_metric_now(&self) -> bool {
        matches!(self, Self::Metric { versioned: false, .. })
    }

    /// The names by which it is asked for: none if that cannot be told, so that it may be anything of its kind.
    pub fn things(&self, variables: &Variables) -> Vec<Thing> {
        match self {
            Self::Metric { by, .. } => by.things(variables, Kind::Metric, Thing::metric, Thing::metric_by_id),
            Self::Objective(by) => by.things(variables, Kind::Objective, Thing::objective, Thing::objective_by_id),
            Self::OfDomain(by) => by.things(variables, Kind::Domain, Thing::metrics_of_domain, Thing::metrics_of_domain_by_id),
            Self::Filtered(filter) => filtered(Given::of(filter, variables)).unwrap_or_default(),
        }
    }

    /// Whatever changes with any of its kind.
    pub fn entities(&self) -> Entities {
        match self {
            Self::Metric { .. } | Self::OfDomain(_) | Self::Filtered(_) => Entities::METRICS,
            Self::Objective(_) => Entities::OBJECTIVES,
        }
    }
}

impl Named {
    fn things<'a>(
        &'a self,
        variables: &'a Variables,
        kind: Kind,
        by_key: impl FnOnce(&str) -> Thing,
        by_id: impl FnOnce(Uuid) -> Thing,
    ) -> Vec<Thing> {
        let text = |given: Option<&'a Written>| Given::of(given?, variables)?.text();
        let by_key = text(self.key.as_ref()).map(by_key);
        let by_id = text(self.id.as_ref()).and_then(|id| global_id::expect(kind, id).ok()).map(by_id);
        by_key.into_iter().chain(by_id).collect()
    }
}

/// Whether a filter as it is written may say what its metrics have in common.
fn may_be_told_apart(filter: &Written) -> bool {
    match filter {
        Written::Variable(_) => true,
        Written::Object(fields) => fields.contains_key("tags") || fields.contains_key("domain"),
        _ => false,
    }
}

/// What the metrics that a filter lets through have in common. All of its conditions hold, so that one is enough: a metric that
/// comes into the list or leaves it has met it before or after.
fn filtered(filter: Option<Given<'_>>) -> Option<Vec<Thing>> {
    let filter = filter?;
    let in_tags = |name| filter.field("tags")?.field(name)?.texts();
    let every_tag = in_tags("containsAll").map(|mut tags| {
        tags.truncate(1);
        tags
    });
    if let Some(tags) = every_tag.or_else(|| in_tags("containsAny")) {
        return Some(tags.into_iter().map(Thing::metrics_tagged).collect());
    }
    let domains = filter.field("domain")?.field("in")?.texts()?;
    Some(domains.into_iter().map(Thing::metrics_of_domain).collect())
}

/// A value, written in the document or given as a variable.
#[derive(Clone, Copy)]
enum Given<'a> {
    Written(&'a Written, &'a Variables),
    Value(&'a Value),
}

impl<'a> Given<'a> {
    fn of(written: &'a Written, variables: &'a Variables) -> Option<Self> {
        match written {
            Written::Variable(name) => variables.get(name).map(Self::Value),
            _ => Some(Self::Written(written, variables)),
        }
    }

    fn text(self) -> Option<&'a str> {
        match self {
            Self::Written(Written::String(text), _) | Self::Value(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn field(self, name: &str) -> Option<Self> {
        match self {
            Self::Written(Written::Object(fields), variables) => Self::of(fields.get(name)?, variables),
            Self::Value(Value::Object(fields)) => fields.get(name).map(Self::Value),
            _ => None,
        }
    }

    /// A list of texts with something in it, or a single one, which stands for a list of one.
    fn texts(self) -> Option<Vec<&'a str>> {
        let texts: Option<Vec<_>> = match self {
            Self::Written(Written::List(items), variables) => {
                items.iter().map(|item| Self::of(item, variables)?.text()).collect()
            }
            Self::Value(Value::List(items)) => items.iter().map(|item| Self::Value(item).text()).collect(),
            _ => self.text().map(|text| vec![text]),
        };
        texts.filter(|texts| !texts.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use async_graphql::parser::types::Selection;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn things(field: &str, variables: serde_json::Value) -> Vec<Thing> {
        let parsed = parse_query(format!("query($it: String) {{ {field} {{ __typename }} }}")).unwrap();
        let (_, operation) = parsed.operations.iter().next().unwrap();
        let Selection::Field(field) = &operation.node.selection_set.node.items[0].node else { panic!("no field") };
        One::asked_by(&field.node).map_or(Vec::new(), |one| one.things(&Variables::from_json(variables)))
    }

    #[test]
    fn one_is_known_by_what_it_is_asked_by() {
        assert_eq!(things("metric(key: \"M\")", json!({})), [Thing::metric("M")]);
        assert_eq!(things("metric(key: $it)", json!({ "it": "M" })), [Thing::metric("M")]);
        assert_eq!(things("objective(key: $it)", json!({ "it": "M" })), [Thing::objective("M")]);
        let id = Uuid::now_v7();
        let (metric, objective) = (global_id::encode(Kind::Metric, id), global_id::encode(Kind::Objective, id));
        assert_eq!(things("metric(id: $it, key: null)", json!({ "it": metric.as_str() })), [Thing::metric_by_id(id)]);
        assert_eq!(things("objective(id: $it)", json!({ "it": objective.as_str() })), [Thing::objective_by_id(id)]);
        assert_eq!(things("metric(id: $it)", json!({ "it": id.to_string() })), [Thing::metric_by_id(id)]);
        for (field, it) in [
            ("metric", json!("M")),
            ("metric(key: $it)", json!(null)),
            ("metric(key: $other)", json!("M")),
            ("metric(id: $it)", json!(objective.as_str())),
            ("metric(id: $it)", json!("M")),
        ] {
            assert_eq!(things(field, json!({ "it": it })), [], "{field}");
        }
    }

    #[test]
    fn lists_are_known_by_what_their_metrics_have_in_common() {
        let tagged = |tags: &[&str]| -> Vec<Thing> { tags.iter().map(|tag| Thing::metrics_tagged(tag)).collect() };
        let it = json!({ "it": "t" });
        for (filter, expected) in [
            ("tags: { containsAny: [\"a\", $it] }", tagged(&["a", "t"])),
            ("tags: { containsAny: $it }, archived: true", tagged(&["t"])),
            ("tags: { containsAll: [$it, \"b\"] }", tagged(&["t"])),
            ("tags: { containsAll: [\"a\"], containsAny: [\"b\", \"c\"] }, domain: { in: [\"D\"] }", tagged(&["a"])),
            ("tags: { containsAll: [], containsAny: [\"b\"] }", tagged(&["b"])),
            ("tags: { containsAll: null }, domain: { in: [\"D\"] }", vec![Thing::metrics_of_domain("D")]),
            ("domain: { in: [\"D\", $it] }", vec![Thing::metrics_of_domain("D"), Thing::metrics_of_domain("t")]),
            // Any metric may come into these.
            ("domain: { isNull: true }", vec![]),
            ("tags: { containsAny: [] }", vec![]),
            ("tags: { containsAny: [\"a\", $other] }", vec![]),
            ("tags: $it", vec![]),
            ("not: { tags: { containsAny: [\"a\"] } }", vec![]),
            ("or: [{ tags: { containsAny: [\"a\"] } }, { archived: true }]", vec![]),
        ] {
            assert_eq!(things(&format!("metrics(filter: {{ {filter} }})"), it.clone()), expected, "{filter}");
        }
        let filter = json!({ "it": { "tags": { "containsAny": ["a"] } } });
        assert_eq!(things("metrics(filter: $it)", filter), tagged(&["a"]));
        assert_eq!(things("metrics(search: \"a\")", json!({})), []);
        assert_eq!(things("businessDomain(key: \"D\")", json!({})), [Thing::metrics_of_domain("D")]);
        let (id, global) = (Uuid::nil(), global_id::encode(Kind::Domain, Uuid::nil()));
        assert_eq!(things("businessDomain(id: $it)", json!({ "it": global.as_str() })), [Thing::metrics_of_domain_by_id(id)]);
    }
}
