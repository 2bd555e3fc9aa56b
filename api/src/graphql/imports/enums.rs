//! The enums of imports, as the schema spells them.

use async_graphql::Enum;

/// Where an import stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::imports::ImportState")]
pub enum ImportState {
    /// Waits for a worker.
    Queued,
    /// A worker is at it.
    Running,
    /// Done; single entries may have failed if it goes row by row.
    Succeeded,
    /// Given up: `error` and `issues` say why.
    Failed,
    /// Stopped by somebody.
    Cancelled,
}

/// What happens to the good entries of a file that has bad ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::imports::Mode")]
pub enum ImportMode {
    /// Nothing is imported unless everything can be.
    AllOrNothing,
    /// Each entry by itself.
    RowByRow,
}

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::imports::Format")]
pub enum ImportFormat {
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// One JSON object on each line.
    Ndjson,
    /// Metrics as a table; the guide documents the columns.
    Csv,
    /// Mozilla's metric-hub definitions, in TOML.
    MetricHub,
}

/// Whether a problem kept its entry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::imports::Severity")]
pub enum ImportIssueSeverity {
    /// It did.
    Error,
    /// The entry was imported nevertheless.
    Warning,
}

/// What a dry run would do to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::imports::ChangeAction")]
pub enum ImportChangeAction {
    /// It would be new.
    Create,
    /// It would change.
    Update,
}
