//! An objective and its key results as files write them.

use std::collections::HashSet;

use super::super::entry::{Draft, KeyResultDraft, ObjectiveDraft};
use super::fields::Fields;
use crate::error::Code;
use crate::extra::Extra;
use crate::metrics::definition::check_key;
use crate::objectives::{Content, KeyResultContent, KeyResultDirection, ObjectiveStatus};
use crate::text::Problems;

const STATUSES: &[(&str, ObjectiveStatus)] = &[
    ("draft", ObjectiveStatus::Draft),
    ("active", ObjectiveStatus::Active),
    ("achieved", ObjectiveStatus::Achieved),
    ("missed", ObjectiveStatus::Missed),
    ("cancelled", ObjectiveStatus::Cancelled),
    ("completed", ObjectiveStatus::Achieved),
    ("canceled", ObjectiveStatus::Cancelled),
];
const DIRECTIONS: &[(&str, KeyResultDirection)] = &[
    ("increase", KeyResultDirection::Increase),
    ("decrease", KeyResultDirection::Decrease),
    ("maintain", KeyResultDirection::Maintain),
    ("stable", KeyResultDirection::Maintain),
];

/// Reads an objective in either shape: with `name` and `timeframe`, or with `title`, `start_date` and `end_date`.
pub fn read(fields: &mut Fields<'_>) -> Draft {
    let key = fields.line(&["objective_id", "key", "id"]).unwrap_or_default();
    let domain = fields.domain();
    let mut content = Content {
        name: fields.line(&["name", "title"]).unwrap_or_default(),
        description: fields.text(&["description"]).unwrap_or_default(),
        owner: fields.line(&["owner", "owner_team"]),
        status: fields.word(&["status"], STATUSES).unwrap_or_default(),
        priority: fields.line(&["business_priority", "priority"]),
        pillar: fields.line(&["strategic_theme", "strategic_pillar", "pillar"]),
        starts_on: fields.day(&["start_date", "starts_on"]),
        ends_on: fields.day(&["end_date", "ends_on"]),
        metric_keys: fields.lines(&["metric_ids", "metric_keys"]),
        ..Content::default()
    };
    fields.section(&["timeframe"], |fields| {
        if content.starts_on.is_none() {
            content.starts_on = fields.day(&["start", "start_date"]);
        }
        if content.ends_on.is_none() {
            content.ends_on = fields.day(&["end", "end_date"]);
        }
    });
    let key_results = fields.items(&["key_results"], "", key_result);
    Draft::Objective(ObjectiveDraft { key, domain, content, key_results })
}

fn key_result(fields: &mut Fields<'_>) -> KeyResultDraft {
    let key = fields.line(&["kr_id", "key_result_id", "key", "id"]).unwrap_or_default();
    let name = fields.line(&["name", "title"]);
    let description = fields.text(&["description"]);
    // The one shape names its key results, the other only describes them.
    let (name, description) = match (name, description) {
        (Some(name), description) => (name, description.unwrap_or_default()),
        (None, Some(description)) => (description.trim().to_owned(), String::new()),
        (None, None) => (String::new(), String::new()),
    };
    let metric_keys = fields.lines(&["metric_ids", "metric_keys"]);
    let mut content = KeyResultContent {
        name,
        description,
        unit: fields.line(&["unit"]),
        direction: fields.word(&["direction"], DIRECTIONS).unwrap_or_default(),
        baseline_value: fields.number(&["baseline_value"]),
        target_value: fields.number(&["target_value"]),
        current_value: fields.number(&["current_value"]),
        extra: Extra::default(),
    };
    let metric_keys = if metric_keys.is_empty() { fields.lines(&["metric_id"]) } else { metric_keys };
    content.extra = fields.rest();
    KeyResultDraft { key, content, metric_keys }
}

/// Everything that is wrong with the content, by the checks that all objectives go through.
pub fn check(objective: &ObjectiveDraft) -> Problems {
    let mut problems = Problems::default();
    check_key(&mut problems, "objective_id", &objective.key);
    if let Some(domain) = &objective.domain {
        problems.line(domain.field(), domain.text(), 200);
    }
    objective.content.check(&mut problems);
    problems.count("key_results", objective.key_results.len(), 100);
    let mut seen = HashSet::new();
    for (i, key_result) in objective.key_results.iter().enumerate() {
        let at = format!("key_results.{i}");
        let mut inner = Problems::default();
        check_key(&mut inner, "kr_id", &key_result.key);
        key_result.content.check(&mut inner);
        inner.count("metric_ids", key_result.metric_keys.len(), 50);
        for (j, key) in key_result.metric_keys.iter().enumerate() {
            check_key(&mut inner, &format!("metric_ids.{j}"), key);
        }
        if !seen.insert(key_result.key.as_str()) {
            inner.add("kr_id", Code::Taken, format!("The objective has two key results {:?}", key_result.key));
        }
        for problem in inner.into_vec() {
            problems.add(&format!("{at}.{}", problem.field.join(".")), problem.code, problem.message);
        }
    }
    problems
}

/// The name in files of a field as the model names it.
pub fn file_path(field: &str) -> String {
    match field {
        "ends_on" => "timeframe.end".to_owned(),
        "starts_on" => "timeframe.start".to_owned(),
        _ => field.replace("metric_keys", "metric_ids"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imports::entry::{Entry, codes};
    use crate::imports::formats::tests::parse;

    fn objective(fields: &str) -> Entry {
        parse("x.json", &format!("{{\"objective_id\": \"O\", \"name\": \"o\", {fields}}}")).unwrap().remove(0)
    }

    #[test]
    fn dates_are_of_years_that_everybody_can_write() {
        for day in ["-9999-01-01", "0000-12-31", "+10000-01-01"] {
            for (fields, name) in [
                (format!("\"starts_on\": \"{day}\""), "starts_on"),
                (format!("\"timeframe\": {{\"end\": \"{day}\"}}"), "timeframe.end"),
            ] {
                let entry = objective(&fields);
                let issues: Vec<_> = entry.issues.iter().map(|issue| (issue.field.as_deref(), issue.code)).collect();
                assert_eq!((issues, entry.draft.is_none()), (vec![(Some(name), "OUT_OF_RANGE")], true), "{day}");
            }
        }
        let entry = objective("\"start_date\": \"0001-01-01\", \"end_date\": \"9999-12-31\"");
        assert_eq!((entry.draft.is_some(), entry.issues.len()), (true, 0));
    }

    #[test]
    fn the_time_of_a_day_is_kept_with_a_warning() {
        let entry = objective("\"start_date\": \"2025-01-01T00:00:00Z\", \"end_date\": \"2025-12-31T23:59:59Z\"");
        let issues: Vec<_> = entry.issues.iter().map(|issue| (issue.field.as_deref(), issue.code)).collect();
        assert_eq!(issues, [(Some("end_date"), codes::CHANGED)]);
        let Some(Draft::Objective(objective)) = entry.draft else { panic!("{:?}", entry.issues) };
        assert_eq!(objective.content.ends_on.map(|day| day.to_string()).as_deref(), Some("2025-12-31"));
        assert_eq!(objective.content.extra.0["end_date"], "2025-12-31T23:59:59Z");
        assert_eq!(objective.content.extra.0.len(), 1);
    }
}
