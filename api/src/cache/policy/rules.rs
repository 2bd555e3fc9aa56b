//! The table: type by type and field by field, what answers are made of.
//!
//! A line of a type holds for all its fields. The type that a field gives has a line of its own, so `Metric.domain` needs none:
//! `BusinessDomain` says the rest. A field has a line when it looks at something that neither its type nor what it gives says.

use mdl::metrics::LABELS;
use mdl::versions::{Entities, Entity};

/// How long answers about the catalog are kept, in seconds: versions make them old before. It bounds what is left of a writer
/// that dies between its commit and the news of it, and nobody relays its events.
const CATALOG_SECONDS: u64 = 3_600;
/// The same of people: they have no events that a relay could tell of.
const PEOPLE_SECONDS: u64 = 30;

const METRICS: Entities = Entities::of(&[Entity::Metrics]);
const DOMAINS: Entities = Entities::of(&[Entity::Domains]);
const OBJECTIVES: Entities = Entities::of(&[Entity::Objectives]);
const PEOPLE: Entities = Entities::of(&[Entity::People]);

/// What a type or a field says of answers that it is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub reads: Entities,
    /// For how long at most.
    pub seconds: u64,
    /// It differs from person to person, beyond what they may.
    pub personal: bool,
    /// It differs from day to day.
    pub daily: bool,
    /// It differs with other permissions than that to read the catalog.
    pub guarded: bool,
    /// It is read by itself, and not with the thing that it belongs to.
    pub apart: bool,
    /// It is not kept.
    pub never: bool,
}

impl Rule {
    pub const NOTHING: Self = Self {
        reads: Entities::NONE,
        seconds: CATALOG_SECONDS,
        personal: false,
        daily: false,
        guarded: false,
        apart: false,
        never: false,
    };

    /// What both say.
    pub fn and(&self, other: &Self) -> Self {
        Self {
            reads: self.reads.and(other.reads),
            seconds: self.seconds.min(other.seconds),
            personal: self.personal || other.personal,
            daily: self.daily || other.daily,
            guarded: self.guarded || other.guarded,
            apart: self.apart || other.apart,
            never: self.never || other.never,
        }
    }
}

const fn reads(reads: Entities) -> Rule {
    Rule { reads, ..Rule::NOTHING }
}

/// Anything about metrics.
pub const METRIC: Rule = reads(METRICS);
/// What they are known by.
pub const LABEL: Rule = reads(Entities::of(&[Entity::MetricLabels]));
/// Which there are: also for those who name them by their keys, whether these exist or not.
const THERE: Rule = reads(Entities::of(&[Entity::MetricSet]));
/// Which there are of what kind.
const LISTED: Rule = reads(Entities::of(&[Entity::MetricSet, Entity::MetricLabels]));
const NEIGHBOURS: Rule = reads(Entities::of(&[Entity::Lineage]));
const DOMAIN: Rule = reads(DOMAINS);
pub const OBJECTIVE: Rule = reads(OBJECTIVES);
/// One metric or one objective, with all that belongs to it.
pub const THING: Rule = reads(Entities::of(&[Entity::Things]));
/// Metrics that have something in common, among them a domain that was named.
pub const SOME: Rule = reads(Entities::of(&[Entity::Things, Entity::Domains]));
const PERSON: Rule = Rule { reads: PEOPLE, seconds: PEOPLE_SECONDS, ..Rule::NOTHING };
const NEVER: Rule = Rule { never: true, ..Rule::NOTHING };
/// Of oneself, or of everybody for those who manage people; null for others.
const PRIVATE: Rule = Rule { personal: true, guarded: true, ..Rule::NOTHING };
/// Any thing, and oneself: everybody finds their own user, and not all find others.
const NODE: Rule = Rule { reads: Entities::ALL, seconds: PEOPLE_SECONDS, personal: true, ..Rule::NOTHING };

pub const TYPES: &[(&str, Rule)] = &[
    ("Query", Rule::NOTHING),
    ("Node", Rule::NOTHING),
    ("PageInfo", Rule::NOTHING),
    ("Metric", METRIC),
    // The fields that give them know which they are.
    ("MetricConnection", Rule::NOTHING),
    ("MetricEdge", Rule::NOTHING),
    ("MetricDefinition", METRIC),
    ("EventCount", METRIC),
    ("EventFilter", METRIC),
    ("MetricDimension", METRIC),
    ("MetricData", METRIC),
    ("DataSource", METRIC),
    ("MetricGovernance", METRIC),
    ("MetricTargets", METRIC),
    ("AlertRule", METRIC),
    ("MetricVisualization", METRIC),
    ("Dashboard", METRIC),
    ("MetricUsage", METRIC),
    ("Playbook", METRIC),
    ("MetricAlignment", METRIC),
    ("MetricRelationships", METRIC),
    ("UnresolvedReference", METRIC),
    ("ExampleQuery", METRIC),
    ("MetricVersion", METRIC),
    ("MetricVersionConnection", METRIC),
    ("MetricVersionEdge", METRIC),
    ("BusinessDomain", DOMAIN),
    ("BusinessDomainConnection", DOMAIN),
    ("BusinessDomainEdge", DOMAIN),
    ("Objective", OBJECTIVE),
    ("ObjectiveConnection", OBJECTIVE),
    ("ObjectiveEdge", OBJECTIVE),
    ("Timeframe", OBJECTIVE),
    ("KeyResult", OBJECTIVE),
    ("CatalogStats", Rule::NOTHING),
    ("DomainCount", LISTED),
    ("TierCount", LISTED),
    ("CategoryCount", LISTED),
    ("StatusCount", LISTED),
    ("User", PERSON),
    ("UserConnection", PERSON),
    ("UserEdge", PERSON),
    // Whoever looks at an import wants to see it move.
    ("Import", NEVER),
    ("ImportConnection", NEVER),
    ("ImportEdge", NEVER),
    ("ImportIssue", NEVER),
    ("ImportIssueConnection", NEVER),
    ("ImportIssueEdge", NEVER),
    ("ImportChange", NEVER),
    ("ImportChangeConnection", NEVER),
    ("ImportChangeEdge", NEVER),
    ("ImportFieldChange", NEVER),
    // Neither do queues stand still.
    ("Queue", NEVER),
    ("Job", NEVER),
    ("JobConnection", NEVER),
    ("JobEdge", NEVER),
    ("JobProgress", NEVER),
    ("JobAttempt", NEVER),
    ("Worker", NEVER),
    ("Schedule", NEVER),
    ("ScheduleRun", NEVER),
    // Made without a read.
    ("EventType", NEVER),
    ("EventTypeField", NEVER),
    // They count their uses.
    ("PublishedDocument", NEVER),
    ("PublishedDocumentConnection", NEVER),
    ("PublishedDocumentEdge", NEVER),
    // Whoever looks at a backup wants to see it move.
    ("Backup", NEVER),
    ("BackupConnection", NEVER),
    ("BackupEdge", NEVER),
    ("RestoreDrill", NEVER),
    ("RestoreDrillConnection", NEVER),
    ("RestoreDrillEdge", NEVER),
    // What moves by itself.
    ("PerformanceStats", NEVER),
    ("OperationPerformance", NEVER),
    ("SlowRead", NEVER),
    ("PoolUse", NEVER),
    // They move while one looks.
    ("WebhookEndpoint", NEVER),
    ("WebhookEndpointConnection", NEVER),
    ("WebhookEndpointEdge", NEVER),
    ("WebhookFilter", NEVER),
    ("WebhookHeader", NEVER),
    ("WebhookSecret", NEVER),
    ("WebhookStatistics", NEVER),
    ("WebhookDelivery", NEVER),
    ("WebhookDeliveryConnection", NEVER),
    ("WebhookDeliveryEdge", NEVER),
    ("WebhookAttempt", NEVER),
    // The caller's own.
    ("Me", NEVER),
    ("Tenant", NEVER),
    ("ApiKey", NEVER),
    ("ApiKeyConnection", NEVER),
    ("ApiKeyEdge", NEVER),
];

pub const FIELDS: &[(&str, &str, Rule)] = &[
    ("Query", "metric", THING),
    ("Query", "metrics", LISTED),
    ("Query", "businessDomain", DOMAIN),
    ("Query", "businessDomains", DOMAIN),
    ("Query", "objective", THING),
    ("Query", "objectives", reads(OBJECTIVES.and(DOMAINS))),
    ("Query", "catalogStats", Rule::NOTHING),
    ("Query", "users", PERSON),
    ("Query", "node", NODE),
    ("Query", "nodes", NODE),
    ("Query", "me", NEVER),
    ("Query", "apiKeys", NEVER),
    ("Query", "documents", NEVER),
    ("Query", "backups", NEVER),
    ("Query", "restoreDrills", NEVER),
    ("Query", "performanceStats", NEVER),
    ("Query", "import", NEVER),
    ("Query", "imports", NEVER),
    ("Query", "queues", NEVER),
    ("Query", "jobs", NEVER),
    ("Query", "job", NEVER),
    ("Query", "workers", NEVER),
    ("Query", "schedules", NEVER),
    ("Query", "eventTypes", NEVER),
    // Moves with every event.
    ("Query", "eventCursor", NEVER),
    ("Query", "webhookEndpoint", NEVER),
    ("Query", "webhookEndpoints", NEVER),
    ("Query", "webhookDelivery", NEVER),
    ("Query", "webhookDeliveries", NEVER),
    ("Metric", "upstream", NEIGHBOURS),
    ("Metric", "downstream", NEIGHBOURS),
    ("Metric", "unresolvedReferences", NEIGHBOURS),
    ("Metric", "versions", Rule { apart: true, ..Rule::NOTHING }),
    ("BusinessDomain", "metrics", LISTED),
    ("BusinessDomain", "keyMetrics", THERE),
    ("BusinessDomain", "metricCount", LISTED),
    ("Objective", "metrics", THERE),
    ("Objective", "unresolvedMetricKeys", THERE),
    ("KeyResult", "metrics", THERE),
    // Against the share of the timeframe that has passed today.
    ("KeyResult", "status", Rule { daily: true, ..Rule::NOTHING }),
    ("CatalogStats", "metricCount", THERE),
    ("CatalogStats", "businessDomainCount", DOMAIN),
    ("CatalogStats", "objectiveCount", OBJECTIVE),
    ("User", "email", PRIVATE),
    ("User", "role", PRIVATE),
    ("User", "suspendedAt", PRIVATE),
    // Changes with each sign-in.
    ("User", "lastSignedInAt", NEVER),
];

/// What a list looks at besides when it is told which of its things to give, or in which order.
pub const CHOOSING: &[(&str, &str, Rule)] = &[
    // Its filters name domains.
    ("Query", "metrics", reads(METRICS.and(DOMAINS))),
];

/// Arguments that choose no more than a page.
pub const PAGING: &[&str] = &["first", "after", "last", "before"];

/// Fields of `Query` that answer alike to all who may read the catalog. What others answer may follow from any permission.
pub const CATALOG: &[&str] =
    &["metric", "metrics", "businessDomain", "businessDomains", "objective", "objectives", "catalogStats"];

/// Fields of `Metric` that never change. They and the [`LABELS`] of the model are what others show of a metric.
const UNCHANGING: &[&str] = &["id", "key", "createdAt", "createdBy"];

/// Whether a field of `Metric` is one by which others mention it.
pub fn is_label(field: &str) -> bool {
    // `shortName` is `short_name` in the model.
    let named = |label: &&str| label.replace('_', "").eq_ignore_ascii_case(field);
    // Archiving is told with the labels.
    field == "archivedAt" || UNCHANGING.contains(&field) || LABELS.iter().any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_what_is_never_kept() {
        let page = include_str!("../../../../docs/api/caching.md");
        let list = page.split("Not kept is an operation with any of").nth(1).unwrap().split('.').next().unwrap();
        for (_, field, _) in FIELDS.iter().filter(|(on, _, rule)| *on == "Query" && rule.never) {
            assert!(list.contains(&format!("`{field}`")), "{field}: {list}");
        }
    }
}
