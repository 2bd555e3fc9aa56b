//! Times the statements of a connection, and tells of slow ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use tracing::warn;

use crate::instruments;

pub const COMMIT: &str = "COMMIT";
pub const ROLLBACK: &str = "ROLLBACK";
/// Nothing is begun after one of these until it has ended.
const ENDS: [&str; 2] = [COMMIT, ROLLBACK];

/// Longest text of a statement in the log, in bytes.
const MAX_TEXT: usize = 2_000;

/// What the connections of a program have in common.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Statements sent so far.
    pub statements: Arc<AtomicU64>,
    /// From how long on a statement is slow.
    pub slow: Duration,
}

impl Timing {
    /// For one connection. Statements end in the order in which they were begun; what was given up never does, and the transaction's
    /// end follows.
    pub fn of_connection(&self) -> impl Instrumentation {
        let Timing { statements, slow } = self.clone();
        let mut begun = VecDeque::new();
        move |event: InstrumentationEvent<'_>| match event {
            InstrumentationEvent::StartQuery { .. } => begun.push_back(Instant::now()),
            InstrumentationEvent::FinishQuery { query, error, .. } => {
                statements.fetch_add(1, Ordering::Relaxed);
                let outcome = if error.is_some() { "error" } else { "ok" };
                metrics::counter!(instruments::DB_STATEMENTS, "outcome" => outcome).increment(1);
                let took = begun.pop_front().map_or(Duration::ZERO, |begun: Instant| begun.elapsed());
                if took < slow && begun.is_empty() {
                    return;
                }
                let mut text = query.to_string();
                if !begun.is_empty() && ENDS.contains(&text.as_str()) {
                    begun.clear();
                } else if took >= slow {
                    text.truncate(text.floor_char_boundary(MAX_TEXT));
                    // The span of the request or job says for which operation, and for whom.
                    warn!(duration_ms = took.as_millis() as u64, statement = text, "A statement was slow");
                }
            }
            _ => {}
        }
    }
}
