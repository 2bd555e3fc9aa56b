//! One listener: first what it missed, then what comes, without a gap or a repetition. One that had no room for what came has
//! missed it, and begins again where it is.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Filter, Joined, Live, PAGE, read};
use crate::error::{Code, Error, Result};
use crate::events::Stamped;
use crate::ids::TenantId;

/// The events that one listener gets, in order.
pub struct Subscription {
    live: Live,
    tenant: TenantId,
    filter: Filter,
    /// The last sequence that was looked at, whether it was wanted or not.
    seen: i64,
    /// Read, and not yet given out.
    page: VecDeque<Arc<Stamped>>,
    phase: Phase,
}

enum Phase {
    /// Reads page after page, until it is near the end.
    Behind,
    /// Hears what comes; what was there up to this sequence is still to be read.
    Joining(Joined, i64),
    Hearing(Joined),
    Ended,
}

impl Subscription {
    pub(super) async fn begin(live: Live, tenant: TenantId, filter: Filter, after: Option<i64>) -> Result<Self> {
        let (seen, phase) = match after {
            None => {
                let (joined, position) = live.join(tenant, filter.clone()).await?;
                (position, Phase::Hearing(joined))
            }
            Some(after) => {
                let bounds = live.bounds(tenant).await?;
                if after < 0 || after > bounds.last {
                    return Err(Error::invalid("after", Code::Invalid, "Is not a cursor of this catalog's events"));
                }
                if after + 1 < bounds.kept_from {
                    return Err(Error::CursorTooOld);
                }
                (after, Phase::Behind)
            }
        };
        Ok(Self { live, tenant, filter, seen, page: VecDeque::new(), phase })
    }

    /// The next event. After an error there is none.
    pub async fn next(&mut self) -> Option<Result<Arc<Stamped>>> {
        loop {
            if let Some(event) = self.page.pop_front() {
                return Some(Ok(event));
            }
            match self.advance().await {
                Ok(None) => {}
                Ok(Some(event)) => return Some(Ok(event)),
                Err(Some(error)) => {
                    self.phase = Phase::Ended;
                    return Some(Err(error));
                }
                Err(None) => return None,
            }
        }
    }

    /// One step: an event that was heard, or a page that was read. `Err(None)` at the end.
    async fn advance(&mut self) -> Result<Option<Arc<Stamped>>, Option<Error>> {
        match &mut self.phase {
            Phase::Ended => Err(None),
            Phase::Behind => {
                // In a box, as all that happens once and is larger than what stays.
                let full = Box::pin(self.turn_page(i64::MAX)).await?;
                if !full {
                    let (joined, position) = Box::pin(self.live.join(self.tenant, self.filter.clone())).await?;
                    self.phase = Phase::Joining(joined, position);
                }
                Ok(None)
            }
            Phase::Joining(_, until) => {
                let until = *until;
                if self.seen < until {
                    Box::pin(self.turn_page(until)).await?;
                } else if let Phase::Joining(joined, _) = std::mem::replace(&mut self.phase, Phase::Ended) {
                    self.phase = Phase::Hearing(joined);
                }
                Ok(None)
            }
            Phase::Hearing(joined) => match joined.queue.recv().await {
                Some(event) if event.sequence <= self.seen => Ok(None),
                Some(event) => {
                    self.seen = event.sequence;
                    Ok(Some(event))
                }
                // It had no room.
                None => {
                    self.phase = Phase::Behind;
                    Ok(None)
                }
            },
        }
    }

    /// Reads the next page, up to a sequence. Whether it was full.
    async fn turn_page(&mut self, until: i64) -> Result<bool> {
        let events = read(&self.live.0.db, self.tenant, self.seen, PAGE).await?;
        let full = events.len() as i64 == PAGE;
        match events.first() {
            Some(first) if first.sequence > self.seen + 1 => return Err(Error::CursorTooOld),
            // They were there a moment ago.
            None if until != i64::MAX => return Err(Error::CursorTooOld),
            _ => {}
        }
        for event in events.into_iter().take_while(|event| event.sequence <= until) {
            self.seen = event.sequence;
            if self.filter.wants(&event) {
                self.page.push_back(event);
            }
        }
        Ok(full)
    }
}
