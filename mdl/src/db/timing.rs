//! Times the statements of a connection, and tells of slow ones.

use std::cell::RefCell;
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
                    warn!(duration_ms = took.as_millis() as u64, statement = text.as_str(), "A statement was slow");
                    note(SlowStatement { text, took });
                }
            }
            _ => {}
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
