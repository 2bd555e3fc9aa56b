//! The enums of objectives, as the schema spells them.

use async_graphql::Enum;

/// Where an objective stands, as its owner says. See `progress` for what its key results say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::objectives::ObjectiveStatus")]
pub enum ObjectiveStatus {
    /// Being written; not agreed upon.
    Draft,
    /// Being worked on.
    Active,
    /// Reached.
    Achieved,
    /// Its time is over, and it was not reached.
    Missed,
    /// Given up.
    Cancelled,
}

/// Which way the value of a key result has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::objectives::KeyResultDirection")]
pub enum KeyResultDirection {
    /// Up, to the target.
    Increase,
    /// Down, to the target.
    Decrease,
    /// It should stay at the target.
    Maintain,
}

/// Where a key result stands. Computed when it is read: progress against the share of the objective's timeframe that has
/// passed. Without a timeframe all of it counts as passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::objectives::KeyResultStatus")]
pub enum KeyResultStatus {
    /// There is no current value yet, or the timeframe has not begun.
    NotStarted,
    /// Progress is at least 70 % of what the time that has passed asks for.
    OnTrack,
    /// Progress is at least 40 % of what the time that has passed asks for.
    AtRisk,
    /// Progress is less than that.
    Behind,
    /// The target is reached (for a value to be maintained: to 95 %).
    Achieved,
    /// The timeframe is over, and the target is not reached.
    Missed,
}
