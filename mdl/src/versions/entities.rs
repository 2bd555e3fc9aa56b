//! What has a version.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::documents::DocumentHash;

/// What has a version in every tenant. Coarse: one write makes all answers old that are made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entity {
    /// Anything about any metric.
    Metrics,
    /// Which metrics there are.
    MetricSet,
    /// What a metric is known by where others mention it, and what it is counted by: [`LABELS`](crate::metrics::LABELS).
    MetricLabels,
    /// Which metrics declare which others their neighbours, and which of these there are.
    Lineage,
    Domains,
    /// With their key results.
    Objectives,
    Imports,
    /// Users and their memberships.
    People,
    /// Every [`Thing`]: for a change of which it is not known whom it touched.
    Things,
}

impl Entity {
    pub const ALL: [Entity; 9] = [
        Self::Metrics,
        Self::MetricSet,
        Self::MetricLabels,
        Self::Lineage,
        Self::Domains,
        Self::Objectives,
        Self::Imports,
        Self::People,
        Self::Things,
    ];

    /// The name in Redis and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::MetricSet => "metric_set",
            Self::MetricLabels => "metric_labels",
            Self::Lineage => "lineage",
            Self::Domains => "domains",
            Self::Objectives => "objectives",
            Self::Imports => "imports",
            Self::People => "people",
            Self::Things => "things",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|entity| entity.as_str() == name)
    }
}

/// A set of entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Entities(u16);

impl Entities {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self::of(&Entity::ALL);
    /// Whatever a change of metrics can touch.
    pub const METRICS: Self =
        Self::of(&[Entity::Metrics, Entity::MetricSet, Entity::MetricLabels, Entity::Lineage, Entity::Things]);
    /// Whatever a change of objectives or key results can touch.
    pub const OBJECTIVES: Self = Self::of(&[Entity::Objectives, Entity::Things]);

    pub const fn of(entities: &[Entity]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < entities.len() {
            bits |= 1 << entities[at] as u16;
            at += 1;
        }
        Self(bits)
    }

    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These, and the other if `really`.
    pub fn and_if(self, really: bool, other: Entity) -> Self {
        if really { self.and(Self::of(&[other])) } else { self }
    }

    pub fn contains(self, entity: Entity) -> bool {
        self.0 & (1 << entity as u16) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Entity> {
        Entity::ALL.into_iter().filter(move |entity| self.contains(*entity))
    }

    /// Whatever can change with a thing of this kind, as the audit log and events name it: `metric`, `user`, …. A kind that is
    /// not known here may be anything.
    pub fn of_kind(kind: &str) -> Self {
        match kind {
            "metric" => Self::METRICS,
            "business_domain" | "domain" => Self::of(&[Entity::Domains]),
            "objective" | "key_result" | "keyResult" => Self::OBJECTIVES,
            // An import that is stopped may have committed more than whoever stops it can know.
            "import" => Self::of(&[Entity::Imports, Entity::Domains]).and(Self::METRICS).and(Self::OBJECTIVES),
            "user" => Self::of(&[Entity::People]),
            // It was made, or restored.
            "tenant" => Self::ALL,
            // No answer that is kept holds any of these.
            "session" | "api_key" | "apiKey" | "cache" | "document" | "job" | "backup" | "queue" | "schedule" | "webhook" => {
                Self::NONE
            }
            _ => Self::ALL,
        }
    }
}

/// One thing with a version of its own, so that answers about another one outlive its changes: a metric, an objective with its
/// key results, or the metrics that have something in common. It has two where it is asked for by its key, which need not be
/// anybody's yet, or by its id. A hash, since keys are as long as callers like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thing([u8; 16]);

impl Thing {
    pub fn metric(key: &str) -> Self {
        Self::named("metric", key.as_bytes())
    }

    pub fn metric_by_id(id: Uuid) -> Self {
        Self::named("metric id", id.as_bytes())
    }

    pub fn objective(key: &str) -> Self {
        Self::named("objective", key.as_bytes())
    }

    pub fn objective_by_id(id: Uuid) -> Self {
        Self::named("objective id", id.as_bytes())
    }

    /// The metrics that have this tag, had it before a change, or have it after.
    pub fn metrics_tagged(tag: &str) -> Self {
        Self::named("metrics tagged", tag.as_bytes())
    }

    /// The metrics of a business domain, in the same sense.
    pub fn metrics_of_domain(key: &str) -> Self {
        Self::named("metrics of domain", key.as_bytes())
    }

    pub fn metrics_of_domain_by_id(id: Uuid) -> Self {
        Self::named("metrics of domain id", id.as_bytes())
    }

    fn named(kind: &str, name: &[u8]) -> Self {
        let hash = Sha256::new_with_prefix(kind).chain_update(b":").chain_update(name).finalize();
        Self(std::array::from_fn(|at| hash[at]))
    }
}

/// What has a version only once it was changed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    Thing(Thing),
    /// All answers to a document, whatever it reads.
    Document(DocumentHash),
}

impl Part {
    /// The name in Redis and in messages.
    pub(super) fn to_field(self) -> String {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        match self {
            Self::Thing(Thing(hash)) => format!("thing:{}", hex(&hash)),
            Self::Document(hash) => format!("document:{}", hex(&hash)),
        }
    }

    pub(super) fn parse(field: &str) -> Option<Self> {
        let (kind, hex) = field.split_once(':')?;
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?;
        match kind {
            "thing" => Some(Self::Thing(Thing(bytes.try_into().ok()?))),
            "document" => Some(Self::Document(bytes.try_into().ok()?)),
            _ => None,
        }
    }
}

/// What a write has changed, or an answer is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    pub entities: Entities,
    pub parts: Vec<Part>,
}

impl Touched {
    /// These things, and what else changes with them.
    pub fn things(entities: Entities, things: impl IntoIterator<Item = Thing>) -> Self {
        Self { entities, parts: things.into_iter().map(Part::Thing).collect() }
    }

    pub fn document(hash: DocumentHash) -> Self {
        Self { entities: Entities::NONE, parts: vec![Part::Document(hash)] }
    }

    pub fn merge(&mut self, other: Self) {
        self.entities = self.entities.and(other.entities);
        self.parts.extend(other.parts);
    }

    pub fn is_empty(&self) -> bool {
        self.entities.is_empty() && self.parts.is_empty()
    }
}

impl From<Entities> for Touched {
    fn from(entities: Entities) -> Self {
        Self { entities, parts: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for entity in Entity::ALL {
            assert_eq!(Entity::parse(entity.as_str()), Some(entity));
        }
        let parts = [
            Part::Thing(Thing::metric("M")),
            Part::Thing(Thing::objective("M")),
            Part::Thing(Thing::metric_by_id(Uuid::nil())),
            Part::Thing(Thing::objective_by_id(Uuid::nil())),
            Part::Thing(Thing::metrics_tagged("M")),
            Part::Thing(Thing::metrics_of_domain("M")),
            Part::Thing(Thing::metrics_of_domain_by_id(Uuid::nil())),
            Part::Document([7; 32]),
        ];
        for (at, part) in parts.into_iter().enumerate() {
            assert_eq!(Part::parse(&part.to_field()), Some(part));
            assert!(!parts[..at].contains(&part));
        }
        for nonsense in ["", "thing:", "thing:zz", "document:00", "other:00"] {
            assert_eq!(Part::parse(nonsense), None, "{nonsense}");
        }
    }
}
