//! Which events of its kinds an endpoint wants, by what their payloads say.

use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::text::{Problems, jsonb};

/// Most entries of one list.
const MAX_ENTRIES: usize = 200;

/// Conditions that must all hold; an empty list is none. An event that says nothing of what is asked for is not wanted: with a
/// tier, say, no event of an objective.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AsExpression, FromSqlRow)]
#[diesel(sql_type = diesel::sql_types::Jsonb)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// Keys of business domains, of which the event's is one.
    pub domains: Vec<String>,
    /// Tags, of which the metric has one.
    pub tags: Vec<String>,
    /// Tiers, of which the metric's is one.
    pub tiers: Vec<String>,
    /// Fields, of which one was changed: `definition.formula`, or with all below it `definition`.
    pub changed_fields: Vec<String>,
}
jsonb!(Filter);

impl Filter {
    pub fn lets_through(&self, kind: &str, payload: &Value) -> bool {
        // Of a domain itself, its own key.
        let domain = if kind.starts_with("domain.") { &payload["key"] } else { &payload["domain"]["key"] };
        is_one_of(&self.domains, domain)
            && is_one_of(&self.tiers, &payload["tier"])
            && has_one_of(&self.tags, &payload["tags"], |tag, wanted| tag == wanted)
            && has_one_of(&self.changed_fields, &payload["changedFields"], is_within)
    }

    pub fn check(&self, problems: &mut Problems) {
        for (field, list) in [
            ("filter.domains", &self.domains),
            ("filter.tags", &self.tags),
            ("filter.tiers", &self.tiers),
            ("filter.changed_fields", &self.changed_fields),
        ] {
            problems.count(field, list.len(), MAX_ENTRIES);
            for (i, text) in list.iter().enumerate() {
                problems.line(&format!("{field}.{i}"), text, 200);
            }
        }
    }
}

fn is_one_of(wanted: &[String], value: &Value) -> bool {
    wanted.is_empty() || value.as_str().is_some_and(|value| wanted.iter().any(|wanted| wanted == value))
}

fn has_one_of(wanted: &[String], values: &Value, is: impl Fn(&str, &str) -> bool) -> bool {
    let mut values = values.as_array().into_iter().flatten().filter_map(Value::as_str);
    wanted.is_empty() || values.any(|value| wanted.iter().any(|wanted| is(value, wanted)))
}

fn is_within(field: &str, group: &str) -> bool {
    field.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_condition_must_hold() {
        let payload = json!({
            "key": "M", "domain": { "key": "DOMAIN-GROWTH" }, "tags": ["a", "b"], "tier": "tier_1", "changedFields": ["definition.formula"],
        });
        let list = |text: &str| vec![text.to_owned()];
        let lets = |filter: Filter| filter.lets_through("metric.updated", &payload);
        assert!(lets(Filter::default()));
        assert!(lets(Filter { domains: list("DOMAIN-GROWTH"), tags: list("b"), tiers: list("tier_1"), ..Filter::default() }));
        assert!(!lets(Filter { domains: list("DOMAIN-GROWTH"), tags: list("c"), ..Filter::default() }));
        assert!(lets(Filter { changed_fields: list("definition"), ..Filter::default() }));
        assert!(!lets(Filter { changed_fields: list("def"), ..Filter::default() }));
        assert!(
            !Filter { tiers: list("tier_1"), ..Filter::default() }.lets_through("objective.updated", &json!({ "key": "OBJ" }))
        );
        let of_domain = Filter { domains: list("DOMAIN-GROWTH"), ..Filter::default() };
        assert!(of_domain.lets_through("domain.updated", &json!({ "key": "DOMAIN-GROWTH" })));
        assert!(!of_domain.lets_through("objective.updated", &json!({ "key": "DOMAIN-GROWTH", "domain": null })));
    }
}
