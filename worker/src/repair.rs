//! Mends what a writer left undone that died between its commit and the news of it: bumps the versions of what events tell
//! of, once more.
//!
//! Each look takes the events that have been committed since the look before. PostgreSQL knows which: those that the snapshot
//! of that look did not see. So nothing has to be remembered but this snapshot, and no slow transaction is passed over.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mdl::events;
use mdl::ids::{EventId, TenantId};
use mdl::versions::{Change, Entities};
use uuid::Uuid;

use crate::Shared;
use crate::link::Outage;

/// How long kept answers may be out of date when their writer has died.
const LOOK: Duration = Duration::from_secs(2);
/// The first look goes this far back, the others as far as a transaction may have begun before.
const FIRST_REACH: Duration = Duration::from_secs(600);
const REACH: Duration = Duration::from_secs(60);
/// After a look that took long, how many times as long it rests: a large import is not to be slowed down by it.
const REST: u32 = 10;

/// Looks until told to stop.
pub async fn repair(shared: Shared) {
    let mut outage = Outage::of("look for changes that caches were not told of");
    let mut seen = None;
    loop {
        let start = Instant::now();
        match look(&shared, seen.as_deref()).await {
            Ok(snapshot) => {
                outage.over();
                seen = Some(snapshot);
            }
            Err(error) => outage.failed(&error),
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK.max(start.elapsed() * REST)) => {}
        }
    }
}

/// Bumps what has changed since the snapshot, and gives the one of now.
async fn look(shared: &Shared, since: Option<&str>) -> mdl::Result<String> {
    let tx = shared.db.dispatch().await?;
    let reach = if since.is_some() { REACH } else { FIRST_REACH };
    let (now, changed) = events::committed_since(&tx, since, oldest(reach)).await?;
    tx.commit().await?;
    let mut tenants: HashMap<TenantId, Entities> = HashMap::new();
    for (tenant, kind) in changed {
        let entities = tenants.entry(tenant).or_default();
        *entities = entities.and(Entities::of_kind(&kind));
    }
    for (tenant, entities) in tenants {
        shared.app.versions.bump(tenant, Change::of(entities)).await;
    }
    Ok(now)
}

/// The least id that an event made this long ago can have: ids begin with the time.
fn oldest(reach: Duration) -> EventId {
    let then = SystemTime::now().checked_sub(reach).and_then(|then| then.duration_since(UNIX_EPOCH).ok());
    EventId(Uuid::from_u128(then.map_or(0, |then| then.as_millis() << 80)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_id_is_of_its_time() {
        let (before, after) = (oldest(Duration::from_secs(1)), oldest(Duration::ZERO));
        assert!(before.0 < after.0 && after.0 <= Uuid::now_v7());
    }
}
