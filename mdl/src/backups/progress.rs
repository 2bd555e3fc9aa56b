//! How far a backup or a restore is, for whoever looks on: a terminal, or the row that GraphQL shows.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::store::Of;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Starting,
    Dumping,
    StoringFiles,
    Copying,
    Checking,
    Restoring,
    Comparing,
    RestoringFiles,
    Finished,
}

crate::text::text_enum!(Phase {
    Starting = "starting",
    Dumping = "dumping",
    StoringFiles = "storing_files",
    Copying = "copying",
    Checking = "checking",
    Restoring = "restoring",
    Comparing = "comparing",
    RestoringFiles = "restoring_files",
    Finished = "finished",
});

/// A moment of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub phase: Phase,
    /// Bytes done in this phase.
    pub done: u64,
    /// Bytes that this phase will come to, as far as that is known.
    pub expected: Option<u64>,
}

/// Tells how far it is. Cheap to clone; all clones tell of the same work.
#[derive(Debug, Clone)]
pub struct Progress {
    step: watch::Sender<Step>,
    /// The row that shows it, once there is one.
    row: Arc<Mutex<Option<Of>>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { step: watch::Sender::new(Step { phase: Phase::Starting, done: 0, expected: None }), row: Arc::default() }
    }
}

impl Progress {
    /// Begins a phase.
    pub fn begin(&self, phase: Phase, expected: Option<u64>) {
        self.step.send_replace(Step { phase, done: 0, expected });
    }

    /// More bytes of this phase are done.
    pub fn advance(&self, bytes: u64) {
        self.step.send_modify(|step| step.done += bytes);
    }

    pub fn follow(&self) -> watch::Receiver<Step> {
        self.step.subscribe()
    }

    pub(super) fn shown_by(&self, row: Of) {
        *self.row.lock().unwrap_or_else(PoisonError::into_inner) = Some(row);
    }

    pub(super) fn row(&self) -> Option<Of> {
        *self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
