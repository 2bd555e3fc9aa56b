//! Single things that operations ask for by name: answers about them outlive changes of others of their kind.

use async_graphql::parser::types::Field;
use async_graphql::{Name, Value, Variables};
use async_graphql_value::Value as Written;
use mdl::global_id::{self, Kind};
use mdl::versions::{Entities, Thing};

/// A metric or an objective, by its key or its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct One {
    pub kind: OneKind,
    key: Option<Given>,
    id: Option<Given>,
    /// Whether it may be wanted as it was.
    versioned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OneKind {
    Metric,
    Objective,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Given {
    Text(String),
    Variable(Name),
}

impl One {
    /// What a field of `Query` asks for, if it is one of these.
    pub fn asked_by(field: &Field) -> Option<Self> {
        let kind = match field.name.node.as_str() {
            "metric" => OneKind::Metric,
            "objective" => OneKind::Objective,
            _ => return None,
        };
        let given = |name: &str| match &field.get_argument(name)?.node {
            Written::String(text) => Some(Given::Text(text.clone())),
            Written::Variable(variable) => Some(Given::Variable(variable.clone())),
            _ => None,
        };
        Some(Self { kind, key: given("key"), id: given("id"), versioned: field.get_argument("version").is_some() })
    }

    pub fn is_a_metric_now(&self) -> bool {
        self.kind == OneKind::Metric && !self.versioned
    }

    /// The names by which it is asked for: none if that cannot be told, so that it may be anything of its kind.
    pub fn things(&self, variables: &Variables) -> Vec<Thing> {
        let by_key = self.key.as_ref().and_then(|key| key.text(variables)).map(|key| match self.kind {
            OneKind::Metric => Thing::metric(key),
            OneKind::Objective => Thing::objective(key),
        });
        let by_id = self.id.as_ref().and_then(|id| id.text(variables)).and_then(|id| match self.kind {
            OneKind::Metric => global_id::expect(Kind::Metric, id).ok().map(Thing::metric_by_id),
            OneKind::Objective => global_id::expect(Kind::Objective, id).ok().map(Thing::objective_by_id),
        });
        by_key.into_iter().chain(by_id).collect()
    }
}

impl OneKind {
    /// Whatever changes with any of its kind.
    pub fn entities(self) -> Entities {
        match self {
            Self::Metric => Entities::METRICS,
            Self::Objective => Entities::OBJECTIVES,
        }
    }
}

impl Given {
    fn text<'a>(&'a self, variables: &'a Variables) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Variable(name) => match variables.get(name) {
                Some(Value::String(text)) => Some(text),
                _ => None,
            },
        }
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
        let parsed = parse_query(format!("query($it: String) {{ {field} {{ id }} }}")).unwrap();
        let (_, operation) = parsed.operations.iter().next().unwrap();
        let Selection::Field(field) = &operation.node.selection_set.node.items[0].node else { panic!("no field") };
        One::asked_by(&field.node).unwrap().things(&Variables::from_json(variables))
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
}
