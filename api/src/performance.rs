//! How long operations take in this process, and how often their answer was kept: what `performanceStats` tells.
//!
//! Each tenant's are counted apart, since the names of operations are its own. An operation that is known costs one look into a
//! map and a few additions; those that are used least are forgotten when there are many.

mod window;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use mdl::Actor;
use mdl::documents::DocumentHash;
use mdl::ids::TenantId;
use moka::sync::Cache;

use crate::cache::Source;
use crate::graphql::executor::Wanted;
use window::Windows;

pub use window::{WINDOW, Window};

/// Operations of all tenants that are counted at once; each takes some 6 kB.
const MAX_OPERATIONS: u64 = 500;

/// The operations of this process.
pub struct Performance {
    started: DateTime<Utc>,
    operations: Cache<Key, Arc<Measured>>,
}

/// One operation of a document, of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    tenant: TenantId,
    document: DocumentHash,
    /// Of the operation in the document.
    place: usize,
}

/// An operation, and how it fares.
pub struct Measured {
    pub name: Option<String>,
    pub document: DocumentHash,
    windows: Windows,
}

/// How a request for an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// With errors, or without an answer.
    pub failed: bool,
    /// Where its answer came from; `None` when answers like this are not kept.
    pub source: Option<Source>,
}

impl Default for Performance {
    fn default() -> Self {
        let operations = Cache::builder().max_capacity(MAX_OPERATIONS).time_to_idle(2 * WINDOW).build();
        Self { started: Utc::now(), operations }
    }
}

impl Performance {
    /// Where a request for this operation is to be counted.
    pub fn of(&self, actor: &Actor, wanted: Wanted<'_>) -> Arc<Measured> {
        let key = Key { tenant: actor.tenant, document: wanted.document.hash, place: wanted.place };
        self.operations.get_with(key, || {
            let name = wanted.operation().name.clone();
            Arc::new(Measured { name, document: key.document, windows: Windows::default() })
        })
    }

    /// The operations of a tenant that were used lately, those first that took the most time altogether.
    pub fn of_tenant(&self, tenant: TenantId) -> Vec<(Arc<Measured>, Window)> {
        let of_tenant = self.operations.iter().filter(|(key, _)| key.tenant == tenant);
        let mut found: Vec<_> = of_tenant.map(|(_, measured)| (measured.clone(), measured.windows.read())).collect();
        found.retain(|(_, window)| window.count > 0);
        found.sort_by_key(|(_, window)| std::cmp::Reverse(window.total_microseconds));
        found
    }

    /// From when on requests are counted.
    pub fn since(&self) -> DateTime<Utc> {
        self.started.max(window::since())
    }
}

impl Measured {
    /// Counts a request that took this long.
    pub fn record(&self, took: Duration, ending: Ending) {
        self.windows.record(took, ending);
    }
}
