//! The enums of metrics, as the schema spells them.

use async_graphql::Enum;

/// How much depends on a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::metrics::definition::Tier")]
pub enum Tier {
    /// The company is steered by it.
    #[graphql(name = "TIER_1")]
    Tier1,
    /// A department or product is steered by it.
    #[graphql(name = "TIER_2")]
    Tier2,
    /// A team looks at it, or others are computed from it.
    #[graphql(name = "TIER_3")]
    Tier3,
}

/// Whether a metric foretells, reports, or watches the running business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::metrics::definition::IndicatorKind")]
pub enum IndicatorKind {
    /// Moves before the result does.
    Leading,
    /// Reports the result.
    Lagging,
    /// Watches the running business.
    Operational,
}

/// How a metric is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::metrics::definition::MetricType")]
pub enum MetricType {
    /// One measure, aggregated.
    Simple,
    /// A numerator over a denominator.
    Ratio,
    /// An expression over other metrics.
    Derived,
    /// A measure that accumulates over a window, or to date.
    Cumulative,
    /// How many of those who did one thing went on to do another.
    Conversion,
}

/// Where a definition stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::metrics::definition::Status")]
pub enum MetricStatus {
    /// Being written; not agreed upon.
    Draft,
    /// Written, and waiting for agreement.
    InReview,
    /// Agreed upon; this is what the number means.
    Active,
    /// Still computed, but to be replaced.
    Deprecated,
    /// No longer computed. Archiving a metric sets this.
    Removed,
}

/// Which way a metric should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::metrics::definition::Direction")]
pub enum MetricDirection {
    /// More is better.
    Increase,
    /// Less is better.
    Decrease,
    /// It should stay where it is.
    Stable,
}

/// How much a change of a metric matters to somebody who uses the number. The version number follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::metrics::changes::ChangeTier")]
pub enum ChangeTier {
    /// The first version.
    Initial,
    /// Anything that is neither major nor minor: 1.4.2 becomes 1.4.3.
    Patch,
    /// It is read differently: name, description, tier or domain changed. 1.4.2 becomes 1.5.0.
    Minor,
    /// The number itself is another: formula, unit or category changed. 1.4.2 becomes 2.0.0.
    Major,
}

/// One of the two ends of a lineage edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::metrics::lineage::Side")]
pub enum LineageSide {
    /// What a metric is computed from, or follows.
    Upstream,
    /// What is computed from a metric, or follows it.
    Downstream,
}
