//! How far a backup or a restore is, for whoever looks on: a terminal, or the row that GraphQL shows.

use tokio::sync::watch;

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
pub struct Progress(watch::Sender<Step>);

impl Default for Progress {
    fn default() -> Self {
        Self(watch::Sender::new(Step { phase: Phase::Starting, done: 0, expected: None }))
    }
}

impl Progress {
    /// Begins a phase.
    pub fn begin(&self, phase: Phase, expected: Option<u64>) {
        self.0.send_replace(Step { phase, done: 0, expected });
    }

    /// More bytes of this phase are done.
    pub fn advance(&self, bytes: u64) {
        self.0.send_modify(|step| step.done += bytes);
    }

    pub fn follow(&self) -> watch::Receiver<Step> {
        self.0.subscribe()
    }
}
