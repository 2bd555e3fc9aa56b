//! How often published documents are used: counted in memory, written every few seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use chrono::{DateTime, Utc};
use mdl::Result;
use mdl::db::Db;
use mdl::documents::store::{self, Use};
use mdl::error::causes;
use mdl::ids::{DocumentId, TenantId};
use tracing::warn;

/// Between two writes. A process that ends loses what it counted since the last one.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// Documents counted at once; the uses of others are not counted until the next write.
const MAX_COUNTED: usize = 20_000;

/// By owner and document: how often since the last write, and when last.
type Counts = HashMap<(TenantId, DocumentId), (i64, DateTime<Utc>)>;

#[derive(Default)]
pub struct Usage(Mutex<Counts>);

impl Usage {
    /// Counts nothing yet. What is counted is written for as long as somebody holds it.
    pub fn start(db: Db) -> Arc<Self> {
        let usage = Arc::<Self>::default();
        tokio::spawn(write_for_ever(Arc::downgrade(&usage), db));
        usage
    }

    pub fn count(&self, owner: TenantId, document: DocumentId) {
        let now = Utc::now();
        let mut counts = self.lock();
        if counts.len() < MAX_COUNTED || counts.contains_key(&(owner, document)) {
            let (count, last) = counts.entry((owner, document)).or_insert((0, now));
            *count += 1;
            *last = now;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Writes what was counted. What could not be written is counted again.
    async fn write(&self, db: &Db) {
        let counts = std::mem::take(&mut *self.lock());
        let mut by_owner: HashMap<TenantId, Vec<Use>> = HashMap::new();
        for ((owner, document), (count, last)) in counts {
            by_owner.entry(owner).or_default().push(Use { document, count, last });
        }
        for (owner, mut uses) in by_owner {
            // Two instances that lock the same rows do it in the same order.
            uses.sort_by_key(|used| used.document);
            if let Err(error) = write_of(db, owner, &uses).await {
                warn!(error = causes(&error), tenant.id = %owner, "Could not write how often documents were used; trying again later");
                let mut counts = self.lock();
                for used in uses {
                    let (count, last) = counts.entry((owner, used.document)).or_insert((0, used.last));
                    *count += used.count;
                    *last = used.last.max(*last);
                }
            }
        }
    }
}

async fn write_for_ever(usage: Weak<Usage>, db: Db) {
    loop {
        tokio::time::sleep(WRITE_EVERY).await;
        let Some(usage) = usage.upgrade() else { return };
        usage.write(&db).await;
    }
}

async fn write_of(db: &Db, owner: TenantId, uses: &[Use]) -> Result<()> {
    let tx = db.begin(owner).await?;
    store::add_uses(&tx, owner, uses).await?;
    tx.commit().await
}
