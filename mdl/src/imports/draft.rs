//! From the values of a file to drafts of catalog entries: the same for JSON, YAML, NDJSON and CSV.

mod domain;
mod fields;
mod metric;
mod objective;

pub use fields::{Fields, Report};

use super::Severity;
use super::entry::{Entry, Kind, Place, codes, raw};
use super::value::{Map, Value};
use crate::error::Code;

/// One entry of a known kind, or of one that its fields tell.
pub fn entry(kind: Option<Kind>, place: Place, value: Value) -> Entry {
    let map = match value {
        Value::Object(map) => map,
        other => return Entry::unreadable(place, "INVALID", "Must be an object with fields", Some(raw(&other))),
    };
    let (kind, map) = match kind {
        Some(kind) => (kind, map),
        None => match unwrap(map) {
            Ok(found) => found,
            Err(map) => {
                let message = "Nothing says what this is: a metric has a metric_id, an objective an objective_id, a domain an id and a name";
                return Entry::unreadable(place, codes::UNKNOWN_KIND, message, Some(raw(&Value::Object(map))));
            }
        },
    };
    from_fields(kind, place, map, |fields| {
        fields.extra();
        match kind {
            Kind::Metric => metric::read(fields),
            Kind::Domain => domain::read(fields),
            Kind::Objective => objective::read(fields),
        }
    })
}

/// Reads an entry with `read`, and collects what it and the checks find wrong.
pub fn from_fields(kind: Kind, place: Place, map: Map, read: impl FnOnce(&mut Fields<'_>) -> super::entry::Draft) -> Entry {
    use super::entry::Draft;

    let mut report = Report::default();
    let mut fields = Fields::new(map, &mut report);
    let mut draft = read(&mut fields);
    fields.finish();
    let Report { issues, extra, given, refused } = report;
    let extra = fields::together(extra, given);
    let (key, problems) = match &mut draft {
        Draft::Metric(metric) => {
            metric.definition.details.extra = extra;
            (metric.key.clone(), metric::check(metric))
        }
        Draft::Domain(domain) => {
            domain.content.extra = extra;
            (domain.key.clone(), domain::check(domain))
        }
        Draft::Objective(objective) => {
            objective.content.extra = extra;
            (objective.key.clone(), objective::check(objective))
        }
    };
    let mut entry =
        Entry { place, kind: Some(kind), key: Some(key).filter(|key| !key.is_empty()), draft: None, issues: Vec::new() };
    for issue in issues {
        let mut found = entry.issue(issue.severity, &issue.field, issue.code, issue.message);
        found.raw_value = issue.raw_value;
        entry.issues.push(found);
    }
    for problem in problems.into_vec() {
        let field = problem.field.join(".");
        let path = match kind {
            Kind::Metric => metric::file_path(&field),
            Kind::Domain => domain::file_path(&field),
            Kind::Objective => objective::file_path(&field),
        };
        // What is there but could not be taken is not missing as well.
        if problem.code != Code::Required || !refused.contains(&path) {
            entry.issues.push(entry.problem(&problem, &path));
        }
    }
    if entry.issues.iter().all(|issue| issue.severity == Severity::Warning) {
        entry.draft = Some(draft);
    }
    entry
}

/// What an entry is that stands by itself: `{"metric": {…}}`, or told by its key field.
fn unwrap(mut map: Map) -> Result<(Kind, Map), Map> {
    if map.len() == 1 {
        for (name, kind) in [
            ("metric", Kind::Metric),
            ("domain", Kind::Domain),
            ("business_domain", Kind::Domain),
            ("objective", Kind::Objective),
        ] {
            if let Some(Value::Object(_)) = map.get(name)
                && let Some(Value::Object(inner)) = map.remove(name)
            {
                return Ok((kind, inner));
            }
        }
    }
    match kind_of(&map) {
        Some(kind) => Ok((kind, map)),
        None => Err(map),
    }
}

/// What the fields of an object say that it is.
pub fn kind_of(map: &Map) -> Option<Kind> {
    let has = |name: &str| map.contains_key(name);
    if has("metric_id") {
        Some(Kind::Metric)
    } else if has("objective_id") || has("key_results") {
        Some(Kind::Objective)
    } else if has("domain_id") {
        Some(Kind::Domain)
    } else if has("definition") || has("metric_type") {
        Some(Kind::Metric)
    } else if has("id") && has("name") {
        Some(Kind::Domain)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::imports::entry::{DomainLabel, Draft, codes};
    use crate::imports::formats::tests::parse;

    #[test]
    fn a_wrong_value_is_one_error() {
        let text = r#"[{"metric_id": ["x"], "name": ["x"], "dimensions": [null, {"name": ["d"]}]}, {"objective_id": "O", "title": ["x"]}]"#;
        let entries = parse("x.json", text).unwrap();
        let issues: Vec<_> =
            entries.iter().flat_map(|entry| &entry.issues).map(|issue| (issue.field.as_deref(), issue.code)).collect();
        let wrong = |field| (Some(field), "INVALID");
        assert_eq!(issues, [wrong("metric_id"), wrong("name"), wrong("dimensions.1.name"), wrong("title")]);
        assert!(entries.iter().all(|entry| entry.draft.is_none()));
    }

    #[test]
    fn an_object_extra_has_names_of_its_own() {
        let text = r#"[{"metric_id": "A", "name": "a", "x": 1, "domain": "D", "extra": {"name": "b", "x": null, "domain": 2, "tags.0": {}}},
            {"metric_id": "B", "name": "b", "extra": "text"},
            {"objective_id": "O", "name": "o", "key_results": [{"kr_id": "K", "name": "k", "y": 3, "extra": {"kr_id": 4, "y": 5}}]}]"#;
        let drafts: Vec<_> = parse("x.json", text).unwrap().into_iter().filter_map(|entry| entry.draft).collect();
        let [Draft::Metric(first), Draft::Metric(second), Draft::Objective(objective)] = &drafts[..] else {
            panic!("{drafts:?}")
        };
        let of_first = serde_json::json!({"x": 1, "name": "b", "extra.x": null, "domain": 2, "tags.0": {}});
        assert_eq!(serde_json::to_value(&first.definition.details.extra).unwrap(), of_first);
        assert_eq!(first.domain, Some(DomainLabel::KeyOrName("D".to_owned())));
        assert_eq!(serde_json::to_value(&second.definition.details.extra).unwrap(), serde_json::json!({"extra": "text"}));
        let of_key_result = serde_json::json!({"y": 3, "kr_id": 4, "extra.y": 5});
        assert_eq!(serde_json::to_value(&objective.key_results[0].content.extra).unwrap(), of_key_result);
    }

    #[test]
    fn a_domain_is_text_or_an_object_with_its_name() {
        let text = r#"[{"metric_id": "A", "name": "a", "business_domain": {}, "domain": {"name": " SCOPE-3 ", "owner": "Ann"}},
            {"objective_id": "O", "name": "o", "business_domain": {"name": "AREA-51"}, "domain": "Growth"},
            {"metric_id": "B", "name": "b", "business_domain": {"key": "DOMAIN-1"}},
            {"metric_id": "C", "name": "c", "business_domain": {"name": ["x"]}},
            {"metric_id": "D", "name": "d", "business_domain": ["Growth"]}]"#;
        let entries = parse("x.json", text).unwrap();
        let named = |name: &str| Some(DomainLabel::Name(name.to_owned()));
        let Some(Draft::Metric(metric)) = &entries[0].draft else { panic!("{:?}", entries[0].issues) };
        assert_eq!((&metric.domain, &metric.definition.details.extra.0["domain.owner"]), (&named("SCOPE-3"), &"Ann".into()));
        let Some(Draft::Objective(objective)) = &entries[1].draft else { panic!("{:?}", entries[1].issues) };
        assert_eq!((&objective.domain, &objective.content.extra.0["domain"]), (&named("AREA-51"), &"Growth".into()));
        let issues: Vec<_> =
            entries[2..].iter().flat_map(|entry| &entry.issues).map(|issue| (issue.field.as_deref(), issue.code)).collect();
        let name = Some("business_domain.name");
        assert_eq!(issues, [(name, "REQUIRED"), (name, "INVALID"), (Some("business_domain"), "INVALID")]);
    }

    #[test]
    fn what_no_export_could_give_back_is_an_error_of_its_entry() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let long = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
        let filter = format!(r#"{{"filters": [{{"field": "f", "operator": "in", "value": {}}}]}}"#, deep(51));
        let key_result = |extra: &str| format!(r#"{{"kr_id": "K{}", "name": "k", "x": {extra}}}"#, extra.len());
        let text = [
            format!(r#"{{"metric_id": "A", "name": "a", "extra": {{"x": {}}}}}"#, deep(51)),
            format!(
                r#"{{"metric_id": "B", "name": "b", "definition": {{"numerator": {filter}, "example": {{"x": {}}}}}}}"#,
                deep(51)
            ),
            format!(r#"{{"metric_id": "C", "name": "c", "x": {}, "y": {}}}"#, long(200_000), long(100_000)),
            format!(r#"{{"id": "D", "name": "d", "x": {}}}"#, deep(60)),
            format!(r#"{{"id": "E", "name": "e", "x": {}}}"#, long(300_000)),
            format!(
                r#"{{"objective_id": "O", "name": "o", "x": {}, "key_results": [{}]}}"#,
                long(300_000),
                key_result(&deep(51))
            ),
            format!(r#"{{"objective_id": "P", "name": "p", "x": "\u0000", "key_results": [{}]}}"#, key_result(&long(16_384))),
            format!(r#"{{"metric_id": "F", "name": "f", "x": {}, "y": {}}}"#, long(200_000), deep(50)),
            format!(r#"{{"objective_id": "Q", "name": "q", "x": {}, "key_results": [{}]}}"#, deep(50), key_result(&long(16_000))),
        ];
        let entries = parse("x.ndjson", &text.join("\n")).unwrap();
        let issues: Vec<_> = entries.iter().flat_map(|entry| &entry.issues).collect();
        let found: Vec<_> = issues.iter().map(|issue| (issue.field.as_deref(), issue.code)).collect();
        let wanted = [
            (Some("extra"), "TOO_MANY"),
            (Some("definition.numerator.event_name"), "REQUIRED"),
            (Some("definition.numerator.filters.0.value"), "TOO_MANY"),
            (Some("definition.example_calculation"), "TOO_MANY"),
            (None, "TOO_LONG"),
            (Some("extra"), "TOO_MANY"),
            (Some("extra"), "TOO_LONG"),
            (Some("extra"), "TOO_LONG"),
            (Some("key_results.0.extra"), "TOO_MANY"),
            (Some("extra"), "INVALID"),
            (Some("key_results.0.extra"), "TOO_LONG"),
        ];
        assert_eq!(found, wanted);
        assert_eq!(issues[0].message, "The extra field \"x\" is nested 51 levels deep; at most 50 are allowed");
        assert_eq!(issues[6].message, "The extra fields take 300008 bytes as JSON; at most 262144 are allowed");
        assert!(entries[..7].iter().all(|entry| entry.draft.is_none()) && entries[7..].iter().all(|entry| entry.draft.is_some()));
    }

    #[test]
    fn numbers_of_json_that_may_be_changed_are_warned_of() {
        let text = r#"{"metric_id": "A", "name": "a", "category": 1.10, "tags": [7], "big": 123456789012345678901234567890}"#;
        let entries = parse("x.json", text).unwrap();
        let issues: Vec<_> = entries[0].issues.iter().map(|issue| (issue.field.as_deref(), issue.code)).collect();
        assert_eq!(issues, [(Some("category"), codes::CHANGED), (Some("big"), codes::CHANGED)]);
        let Some(Draft::Metric(metric)) = &entries[0].draft else { panic!("{:?}", entries[0].issues) };
        assert_eq!(
            (metric.definition.summary.category.as_deref(), &metric.definition.summary.tags[..]),
            (Some("1.1"), &["7".to_owned()][..])
        );
        assert!(metric.definition.details.extra.0["big"].is_f64());
    }
}
