//! How the relay tells Redis of events, for those who listen live.
//!
//! A message names a tenant and the last sequence of its stream, and carries the events before it where they are few. Nobody
//! relies on a message: who misses one sees the gap in the sequence, and asks PostgreSQL.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::events::Stamped;
use crate::ids::TenantId;

/// Longer messages tell only how far the stream goes.
const MAX_BYTES: usize = 64 * 1024;

/// Events of one tenant that have just got their sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct News {
    pub tenant: TenantId,
    /// The last sequence.
    pub last: i64,
    /// The last events in order, without a gap; empty when they are too much for a message.
    pub events: Vec<Arc<Stamped>>,
}

/// The channel of all news.
pub fn channel(prefix: &str) -> String {
    format!("{prefix}:events")
}

/// What is published for the events of one tenant, which are in order.
pub fn encode(tenant: TenantId, events: &[Stamped]) -> Vec<u8> {
    let last = events.last().map_or(0, |event| event.sequence);
    let encode = |events| serde_json::to_vec(&News { tenant, last, events }).expect("events are plain data");
    let whole = encode(events.iter().cloned().map(Arc::new).collect());
    if whole.len() <= MAX_BYTES { whole } else { encode(Vec::new()) }
}

pub fn decode(message: &[u8]) -> Result<News, serde_json::Error> {
    serde_json::from_slice(message)
}
