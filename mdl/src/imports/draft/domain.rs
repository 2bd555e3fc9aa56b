//! A business domain as files write it.

use super::super::entry::{DomainDraft, Draft};
use super::fields::Fields;
use crate::domains::Content;
use crate::metrics::definition::check_key;
use crate::text::Problems;

/// Reads a domain.
pub fn read(fields: &mut Fields<'_>) -> Draft {
    let key = fields.line(&["id", "domain_id", "key"]).unwrap_or_default();
    let mut content = Content::named(fields.line(&["name"]).unwrap_or_default());
    content.description = fields.text(&["description"]).unwrap_or_default();
    content.owner_team = fields.line(&["owner", "owner_team"]);
    content.stakeholders = fields.lines(&["stakeholders"]);
    content.objective_keys = fields.lines(&["objectives", "objective_keys"]);
    content.key_metric_keys = fields.lines(&["key_metrics", "key_metric_keys"]);
    content.industry = fields.line(&["industry"]);
    content.priority = fields.line(&["priority"]);
    fields.section(&["metadata"], |fields| {
        if content.industry.is_none() {
            content.industry = fields.line(&["industry"]);
        }
        if content.priority.is_none() {
            content.priority = fields.line(&["priority"]);
        }
    });
    Draft::Domain(DomainDraft { key, content })
}

/// Everything that is wrong with the content, by the checks that all domains go through.
pub fn check(domain: &DomainDraft) -> Problems {
    let mut problems = Problems::default();
    check_key(&mut problems, "id", &domain.key);
    domain.content.check(&mut problems);
    problems
}

/// The name in files of a field as the model names it.
pub fn file_path(field: &str) -> String {
    match field {
        "owner_team" => "owner".to_owned(),
        "industry" | "priority" => format!("metadata.{field}"),
        _ => field.replace("objective_keys", "objectives").replace("key_metric_keys", "key_metrics"),
    }
}
