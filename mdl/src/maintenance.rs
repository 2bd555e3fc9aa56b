//! What MDL does for itself by the clock: the jobs' payloads. Their work is in the features that they tidy; the times are in
//! the worker's table of schedules. All are jobs of the tenant [`SYSTEM`](crate::tenants::SYSTEM), and see to every tenant.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::jobs::Job;

/// The queue of these jobs.
pub const QUEUE: &str = "maintenance";

/// Deletes jobs that ended long ago, workers long gone, and old times of schedules: [`crate::jobs::prune`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PruneJobs {}

impl Job for PruneJobs {
    const KIND: &'static str = "prune_jobs";
    const QUEUE: &'static str = QUEUE;
    const MAX_ATTEMPTS: i32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(3_600);
}

/// Deletes idempotency keys past their time and sessions that ended long ago: [`crate::idempotency::prune`],
/// [`crate::sessions::prune`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PruneCredentials {}

impl Job for PruneCredentials {
    const KIND: &'static str = "prune_credentials";
    const QUEUE: &'static str = QUEUE;
    const MAX_ATTEMPTS: i32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(3_600);
}

/// Announces API keys that stop working within a week: [`crate::api_keys::announce_expiring`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AnnounceExpiringKeys {}

impl Job for AnnounceExpiringKeys {
    const KIND: &'static str = "announce_expiring_keys";
    const QUEUE: &'static str = QUEUE;
    const MAX_ATTEMPTS: i32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(3_600);
}

/// Ends imports whose job nobody will run any more: [`crate::imports::tidy`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TidyImports {}

impl Job for TidyImports {
    const KIND: &'static str = "tidy_imports";
    const QUEUE: &'static str = QUEUE;
    const MAX_ATTEMPTS: i32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(3_600);
}
