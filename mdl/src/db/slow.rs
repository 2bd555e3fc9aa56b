//! The reads that took longer than a setting says, the latest of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::ids::TenantId;

/// Of all tenants together: a database that is slow for everybody is not to take the memory.
const MAX_KEPT: usize = 1_000;

/// A read that took long.
#[derive(Debug, Clone)]
pub struct SlowRead {
    pub tenant: TenantId,
    /// The name of the operation that it was for, if it had one.
    pub operation: Option<Arc<str>>,
    /// The text of the slowest of its statements; `None` if none took long by itself.
    pub statement: Option<String>,
    /// With the wait for a connection.
    pub took: Duration,
    /// When it ended.
    pub at: DateTime<Utc>,
}

#[derive(Debug, Default)]
pub struct SlowReads(Mutex<VecDeque<SlowRead>>);

impl SlowReads {
    pub fn add(&self, read: SlowRead) {
        let mut reads = self.lock();
        if reads.len() == MAX_KEPT {
            reads.pop_front();
        }
        reads.push_back(read);
    }

    /// Those of a tenant since then, the slowest first.
    pub fn of(&self, tenant: TenantId, since: DateTime<Utc>) -> Vec<SlowRead> {
        let wanted = |read: &&SlowRead| read.tenant == tenant && read.at >= since;
        let mut reads: Vec<_> = self.lock().iter().filter(wanted).cloned().collect();
        reads.sort_by_key(|read| std::cmp::Reverse(read.took));
        reads
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<SlowRead>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_for_their_tenant() {
        let (reads, tenant) = (SlowReads::default(), TenantId::new());
        let add = |tenant, milliseconds| {
            reads.add(SlowRead {
                tenant,
                operation: None,
                statement: None,
                took: Duration::from_millis(milliseconds),
                at: Utc::now(),
            });
        };
        add(TenantId::new(), 9_999);
        for milliseconds in [600, 800, 700] {
            add(tenant, milliseconds);
        }
        let start = Utc::now() - chrono::TimeDelta::seconds(60);
        let found: Vec<_> = reads.of(tenant, start).iter().map(|read| read.took.as_millis()).collect();
        assert_eq!(found, [800, 700, 600]);
        assert!(reads.of(tenant, Utc::now() + chrono::TimeDelta::seconds(1)).is_empty());
        for _ in 0..MAX_KEPT {
            add(TenantId::new(), 500);
        }
        assert!(reads.of(tenant, start).is_empty());
    }
}
