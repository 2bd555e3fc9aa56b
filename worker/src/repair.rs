//! Mends what a writer left undone that died between its commit and the news of it: bumps the versions of what events tell
//! of, once more.
//!
//! Each look takes the events that were published since the look before, and those that are not published yet, without those
//! whose writers are known to have told it themselves. What was published is known by how far the stream of each tenant goes.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use chrono::Utc;
use mdl::events::{history, stamping};
use mdl::ids::{EventId, TenantId};
use mdl::versions::{Change, Entities, Versions};

use crate::Shared;
use crate::link::Outage;

/// How long kept answers may be out of date when their writer has died.
const LOOK: Duration = Duration::from_secs(2);
/// The first look takes all for changed that has events as young as this.
const FIRST_REACH: Duration = Duration::from_secs(600);
/// After a look that took long, how many times as long it rests: a large import is not to be slowed down by it.
const REST: u32 = 10;

/// How long a writer that has committed may take to tell of it.
const TELLING: Duration = Duration::from_millis(250);

/// Looks until told to stop.
pub async fn repair(shared: Shared) {
    let mut outage = Outage::of("look for changes that caches were not told of");
    let mut seen = None;
    loop {
        let start = Instant::now();
        match look(&shared, &mut seen).await {
            Ok(()) => outage.over(),
            Err(error) => outage.failed(&error),
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK.max(start.elapsed() * REST)) => {}
        }
    }
}

/// Bumps what has changed untold since the streams went as far as `seen`, which afterwards is how far they go now.
async fn look(shared: &Shared, seen: &mut Option<HashMap<TenantId, i64>>) -> mdl::Result<()> {
    let tx = shared.db.dispatch().await?;
    let now: HashMap<TenantId, i64> = history::last_of_each(&tx, None, None).await?.into_iter().collect();
    let mut tenants: HashMap<TenantId, Entities> = HashMap::new();
    let behind = match &*seen {
        Some(seen) => {
            let grown = now.iter().map(|(tenant, last)| (*tenant, seen.get(tenant).copied().unwrap_or(0), *last));
            grown.filter(|(_, seen, last)| seen < last).map(|(tenant, seen, _)| (tenant, seen)).collect()
        }
        None => {
            let young = history::last_of_each(&tx, None, Some(Utc::now() - FIRST_REACH)).await?;
            tenants.extend(young.into_iter().map(|(tenant, _)| (tenant, Entities::ALL)));
            HashMap::new()
        }
    };
    let told = stamping::told_since(&tx, &behind).await?;
    tx.commit().await?;
    let told: Vec<_> = told.into_iter().filter(|told| !Entities::of_kind(&told.thing).is_empty()).collect();
    let untold = untold(&shared.app.versions, told.iter().map(|told| told.event).collect()).await?;
    for told in told.into_iter().filter(|told| untold.contains(&told.event)) {
        let entities = tenants.entry(told.tenant).or_default();
        *entities = entities.and(Entities::of_kind(&told.thing));
    }
    for (tenant, entities) in tenants {
        shared.app.versions.bump(tenant, Change::of(entities)).await;
    }
    *seen = Some(now);
    Ok(())
}

/// Those of these events that nobody tells.
async fn untold(versions: &Versions, events: Vec<EventId>) -> mdl::Result<HashSet<EventId>> {
    let mut untold = versions.untold(events).await?;
    if !untold.is_empty() {
        tokio::time::sleep(TELLING).await;
        untold = versions.untold(untold).await?;
    }
    Ok(untold.into_iter().collect())
}
