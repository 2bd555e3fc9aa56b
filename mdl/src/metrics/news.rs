//! What is told of a metric.

use super::changes::ChangeTier;
use super::definition::{Status, Summary};
use super::versions::Semver;
use crate::events::Kind;
use crate::events::kinds::{METRIC_DEFINITION_CHANGED, METRIC_DEPRECATED, METRIC_UPDATED};
use crate::events::payloads::{MetricPayload, Reference};
use crate::ids::MetricId;

/// The kind of event that an update is. `fields` are those that changed.
pub fn kind_of_update(before: &Summary, after: &Summary, fields: &[String]) -> Kind<MetricPayload> {
    if after.status == Status::Deprecated && before.status != Status::Deprecated {
        METRIC_DEPRECATED
    } else if fields.iter().any(|field| field.starts_with("definition.") || field == "category") {
        METRIC_DEFINITION_CHANGED
    } else {
        METRIC_UPDATED
    }
}

/// A metric as a change left it. `domain` is the one that the summary names.
pub fn payload(
    (id, key): (MetricId, &str),
    summary: &Summary,
    version: Semver,
    domain: Option<Reference>,
    tier: ChangeTier,
    fields: &[String],
) -> MetricPayload {
    let mut owners: Vec<String> = Vec::new();
    for owner in [&summary.owner_team, &summary.technical_owner, &summary.business_owner].into_iter().flatten() {
        if !owners.contains(owner) {
            owners.push(owner.clone());
        }
    }
    MetricPayload {
        id: id.0,
        key: key.to_owned(),
        name: summary.name.clone(),
        version: version.to_string(),
        status: summary.status.as_str().to_owned(),
        tier: summary.tier.map(|tier| tier.as_str().to_owned()),
        domain,
        tags: summary.tags.clone(),
        owners,
        changed_fields: fields.to_vec(),
        change_tier: tier.as_str().to_owned(),
        breaking: tier == ChangeTier::Major,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_of_one_kind() {
        let active = Summary { status: Status::Active, ..Summary::default() };
        let deprecated = Summary { status: Status::Deprecated, ..Summary::default() };
        let name = |before: &Summary, after: &Summary, fields: &[&str]| {
            kind_of_update(before, after, &fields.iter().map(ToString::to_string).collect::<Vec<_>>()).name
        };
        assert_eq!(name(&active, &active, &["name", "definition.unit"]), "metric.definition.changed");
        assert_eq!(name(&active, &deprecated, &["status", "definition.unit"]), "metric.deprecated");
        assert_eq!(name(&deprecated, &deprecated, &["tags"]), "metric.updated");
        assert_eq!(name(&deprecated, &active, &["status"]), "metric.updated");
    }
}
