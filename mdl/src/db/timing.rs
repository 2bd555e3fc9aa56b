//! Times the statements of a connection, tells of slow ones, and counts those that were prepared to be kept.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::{DebugQuery, Instrumentation, InstrumentationEvent};
use tracing::warn;

use crate::instruments;

pub const COMMIT: &str = "COMMIT";
/// The same, where something else is sent before it has ended.
pub const COMMIT_AND_GO_ON: &str = "COMMIT AND NO CHAIN";
pub const ROLLBACK: &str = "ROLLBACK";
/// Nothing is begun after one of these until it has ended.
const ENDS: [&str; 2] = [COMMIT, ROLLBACK];

/// Longest text of a statement that is told of, in bytes.
const MAX_TEXT: usize = 2_000;

tokio::task_local! {
    /// Of the statements that this task waits for, the slowest that was slow.
    static SLOWEST: RefCell<Option<SlowStatement>>;
}

/// A statement that was slow.
#[derive(Debug)]
pub struct SlowStatement {
    /// With placeholders where it has values.
    pub text: String,
    took: Duration,
}

/// The result of some work, and the slowest of its statements, if one was slow.
pub async fn with_slowest<T>(work: impl Future<Output = T>) -> (T, Option<SlowStatement>) {
    SLOWEST.scope(RefCell::default(), async { (work.await, SLOWEST.with(RefCell::take)) }).await
}

/// Notes a slow statement for whoever asks for it. Most do not.
fn note(statement: SlowStatement) {
    let _nobody_asks = SLOWEST.try_with(|slowest| {
        let mut slowest = slowest.borrow_mut();
        if slowest.as_ref().is_none_or(|slowest| slowest.took < statement.took) {
            *slowest = Some(statement);
        }
    });
}

/// What the connections of a program have in common.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Statements sent so far.
    pub statements: Arc<AtomicU64>,
    /// From how long on a statement is slow.
    pub slow: Duration,
}

impl Timing {
    pub fn of_connection(&self) -> OfConnection {
        OfConnection { common: self.clone(), begun: VecDeque::new(), prepared: 0 }
    }
}

/// What one connection does.
#[derive(Debug)]
pub struct OfConnection {
    common: Timing,
    /// When its statements were begun that have not ended. They end in this order; what was given up never does, and the
    /// transaction's end follows.
    begun: VecDeque<Instant>,
    /// How many statements it has prepared to keep them, also those that could not be.
    pub prepared: usize,
}

impl Instrumentation for OfConnection {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match event {
            InstrumentationEvent::StartQuery { .. } => self.begun.push_back(Instant::now()),
            InstrumentationEvent::CacheQuery { .. } => self.prepared += 1,
            InstrumentationEvent::FinishQuery { query, error, .. } => self.finish(query, error.is_some()),
            _ => {}
        }
    }
}

impl OfConnection {
    fn finish(&mut self, query: &dyn DebugQuery, failed: bool) {
        let Self { common: Timing { statements, slow }, begun, .. } = self;
        statements.fetch_add(1, Ordering::Relaxed);
        let outcome = if failed { "error" } else { "ok" };
        metrics::counter!(instruments::DB_STATEMENTS, "outcome" => outcome).increment(1);
        let took = begun.pop_front().map_or(Duration::ZERO, |begun| begun.elapsed());
        if took < *slow && begun.is_empty() {
            return;
        }
        let mut text = query.to_string();
        if !begun.is_empty() && ENDS.contains(&text.as_str()) {
            begun.clear();
        } else if took >= *slow {
            text.truncate(text.floor_char_boundary(MAX_TEXT));
            // The span of the request or job says for which operation, and for whom.
            warn!(duration_ms = took.as_millis() as u64, statement = text.as_str(), "A statement was slow");
            note(SlowStatement { text, took });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_slowest_statement_is_told_to_who_waits_for_it() {
        let slow = |text: &str, milliseconds| {
            note(SlowStatement { text: text.to_owned(), took: Duration::from_millis(milliseconds) });
        };
        slow("nobody asks", 900);
        let (result, slowest) = with_slowest(async {
            slow("a", 600);
            slow("b", 800);
            slow("c", 700);
            1
        })
        .await;
        assert_eq!((result, slowest.unwrap().text.as_str()), (1, "b"));
        assert!(with_slowest(async {}).await.1.is_none());
    }
}
