//! One listener: first the jobs as they are, then what becomes of them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use metrics::counter;

use super::look::Mark;
use super::{Changed, Joined, PAGE, Streams};
use crate::error::{Error, Result};
use crate::ids::{JobId, TenantId};
use crate::instruments;
use crate::jobs::JobState;
use crate::jobs::store::{self, Filter, Order};
use crate::page::PageArgs;

/// What one listener is told.
pub struct Subscription {
    joined: Joined,
    /// Jobs as they were when it came, and not yet given out.
    first: VecDeque<Arc<Changed>>,
    /// How these were. A change that made them so needs no telling.
    given: HashMap<JobId, Mark>,
    ended: bool,
}

impl Subscription {
    /// Begins with the newest jobs that the filter names, or that it lets through and that have not ended.
    pub(super) async fn begin(streams: Streams, tenant: TenantId, filter: Filter) -> Result<Self> {
        // From before they are read: what changes meanwhile is in the queue.
        let joined = streams.join(tenant, filter.clone()).await?;
        let mut wanted = filter;
        if wanted.ids.is_none() {
            let unfinished = JobState::UNFINISHED.into_iter();
            let states = wanted.states.take();
            wanted.states = Some(unfinished.filter(|state| states.as_ref().is_none_or(|of| of.contains(state))).collect());
        }
        let args = PageArgs::parse(Some(PAGE as i32), None, None, None)?;
        let snapshot = streams.0.db.snapshot(tenant);
        let page = snapshot.read(async |conn| store::page(conn, &[tenant], &wanted, Order::Newest, &args).await).await?;
        snapshot.finish().await;
        let given = page.items.iter().map(|job| (job.id, Mark::of(job))).collect();
        let first = page.items.into_iter().map(|job| Arc::new(Changed { change: None, job })).collect();
        Ok(Self { joined, first, given, ended: false })
    }

    /// The next change. After an error there is none.
    pub async fn next(&mut self) -> Option<Result<Arc<Changed>>> {
        if let Some(job) = self.first.pop_front() {
            return Some(Ok(job));
        }
        while let Some(changed) = self.joined.queue.recv().await {
            let known = self.given.remove(&changed.job.id).is_some_and(|given| given == Mark::of(&changed.job));
            if !known {
                return Some(Ok(changed));
            }
        }
        // It was let go, and is told so once.
        let told = std::mem::replace(&mut self.ended, true);
        (!told).then(|| {
            counter!(instruments::LIVE_SLOW).increment(1);
            Err(Error::TooSlow)
        })
    }
}
