//! Which events of its kinds an endpoint wants, by what their payloads say.

use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Code;
use crate::metrics::changes;
use crate::metrics::definition::Tier;
use crate::text::{Problems, jsonb};

/// Most entries of one list.
const MAX_ENTRIES: usize = 200;

/// Conditions that must all hold; an empty list is none. An event that says nothing of what is asked for is not wanted: with a
/// tier, say, no event of an objective.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AsExpression, FromSqlRow)]
#[diesel(sql_type = diesel::sql_types::Jsonb)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// Keys or names of business domains, of which the event's is one.
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
        let domain = if kind.starts_with("domain.") { payload } else { &payload["domain"] };
        (is_one_of(&self.domains, &domain["key"]) || is_one_of(&self.domains, &domain["name"]))
            && is_one_of(&self.tiers, &payload["tier"])
            && has_one_of(&self.tags, &payload["tags"], |tag, wanted| tag == wanted)
            && has_one_of(&self.changed_fields, &payload["changedFields"], changes::is_within)
    }

    /// Adds what is wrong with it to the problems: among that, values that no event has. A tier may be spelled as the API's enum.
    pub fn parse(mut self, problems: &mut Problems) -> Self {
        self.check(problems);
        for (i, text) in self.tiers.iter_mut().enumerate() {
            match Tier::parse(&text.to_ascii_lowercase()) {
                Some(tier) => *text = tier.as_str().to_owned(),
                None => {
                    let known = Tier::ALL.iter().map(|tier| tier.as_str());
                    problems.add(&format!("filter.tiers.{i}"), Code::NotFound, unknown("tier", text, known));
                }
            }
        }
        let fields = changes::fields();
        for (i, text) in self.changed_fields.iter().enumerate() {
            // What was imported has its own names below `extra`.
            if !changes::is_within(text, "extra") && !fields.iter().any(|field| changes::is_within(field, text)) {
                let message = unknown("field of a metric", text, fields.iter().map(String::as_str));
                problems.add(&format!("filter.changed_fields.{i}"), Code::NotFound, message);
            }
        }
        self
    }

    fn check(&self, problems: &mut Problems) {
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

fn unknown<'a>(what: &str, text: &str, known: impl Iterator<Item = &'a str>) -> String {
    format!("There is no {what} {text:?}. There are: {}", known.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_condition_must_hold() {
        let payload = json!({
            "key": "M", "domain": { "key": "DOMAIN-GROWTH", "name": "Growth" }, "tags": ["a", "b"], "tier": "tier_1",
            "changedFields": ["definition.formula"],
        });
        let list = |text: &str| vec![text.to_owned()];
        let lets = |filter: Filter| filter.lets_through("metric.updated", &payload);
        assert!(lets(Filter::default()));
        assert!(lets(Filter { domains: list("DOMAIN-GROWTH"), tags: list("b"), tiers: list("tier_1"), ..Filter::default() }));
        assert!(lets(Filter { domains: list("Growth"), ..Filter::default() }));
        assert!(!lets(Filter { domains: list("Sales"), ..Filter::default() }));
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

    #[test]
    fn what_no_event_has_is_refused() {
        let parse = |tier: &str, field: &str| {
            let mut problems = Problems::default();
            let filter = Filter { tiers: vec![tier.to_owned()], changed_fields: vec![field.to_owned()], ..Filter::default() };
            let filter = filter.parse(&mut problems);
            problems.check().map(|()| filter.tiers).map_err(|error| error.to_string())
        };
        for field in ["definition", "definition.formula", "data.time_grains", "name", "extra", "extra.sla.hours"] {
            assert_eq!(parse("TIER_1", field).unwrap(), ["tier_1"], "{field}");
        }
        for field in ["nonsense.x", "def", "definition.", "extras", ""] {
            let said = parse("tier_1", field).unwrap_err();
            assert!(said.contains("There is no field") && said.contains("definition.formula, "), "{said}");
        }
        let said = parse("1", "name").unwrap_err();
        assert!(said.contains("There is no tier \"1\". There are: tier_1, tier_2, tier_3"), "{said}");
    }
}
