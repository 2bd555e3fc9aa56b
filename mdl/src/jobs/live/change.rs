//! What a job's change is called.

use super::look::Mark;
use crate::jobs::{JobRow, JobState};

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    Enqueued,
    /// It waits again, and not because it failed: handed back, put off, recalled, retried or given another time.
    PutBack,
    Dispatched,
    Started,
    /// While it ran: it said how far it is, or was asked to stop.
    Progressed,
    /// It waits for its next attempt.
    Failed,
    Succeeded,
    Dead,
    Cancelled,
    Discarded,
}

impl Change {
    /// From what was known of it, if anything was, to what it is.
    pub(super) fn between(before: Option<&Mark>, now: &JobRow) -> Self {
        match now.state {
            JobState::Held => Self::Enqueued,
            JobState::Waiting => match before {
                None if now.started_at.is_none() => Self::Enqueued,
                // An attempt that failed is counted, one that was handed back is not; of those before, nothing is known.
                None if now.attempt > 0 => Self::Failed,
                Some(before) if now.attempt >= before.attempt + i32::from(before.state != JobState::Running) => Self::Failed,
                None | Some(_) => Self::PutBack,
            },
            JobState::Dispatched => Self::Dispatched,
            JobState::Running => match before {
                Some(before) if before.state == JobState::Running && before.started_at == now.started_at => Self::Progressed,
                None | Some(_) => Self::Started,
            },
            JobState::Succeeded => Self::Succeeded,
            JobState::Dead => Self::Dead,
            JobState::Cancelled => Self::Cancelled,
            JobState::Discarded => Self::Discarded,
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, Utc};
    use serde_json::Value;

    use super::*;
    use crate::ids::{JobId, TenantId};

    fn job(state: JobState, attempt: i32, started: Option<i64>) -> JobRow {
        let now = Utc::now();
        JobRow {
            tenant_id: TenantId::new(),
            id: JobId::new(),
            queue: "q".to_owned(),
            kind: "k".to_owned(),
            payload: Value::Null,
            state,
            priority: 0,
            run_at: now,
            unique_key: None,
            attempt,
            max_attempts: 3,
            worker: None,
            cancel_requested_at: None,
            last_error: None,
            trace_context: Value::Null,
            enqueued_by: None,
            created_at: now,
            started_at: started.map(|seconds| chrono::DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)),
            finished_at: None,
            batch_id: None,
            waits_for: None,
            progress_done: None,
            progress_total: None,
            progress_message: None,
        }
    }

    #[test]
    fn each_change_has_its_name() {
        use JobState::{Dead, Dispatched, Held, Running, Waiting};
        /// State, attempt, and the second in which that began.
        type Seen = (JobState, i32, Option<i64>);
        let cases: [(Option<Seen>, Seen, Change); 14] = [
            (None, (Held, 0, None), Change::Enqueued),
            (None, (Waiting, 0, None), Change::Enqueued),
            (None, (Waiting, 1, Some(1)), Change::Failed),
            (None, (Waiting, 0, Some(1)), Change::PutBack),
            (None, (Running, 1, Some(1)), Change::Started),
            (Some((Held, 0, None)), (Waiting, 0, None), Change::PutBack),
            (Some((Dispatched, 0, None)), (Waiting, 0, None), Change::PutBack),
            (Some((Dispatched, 1, Some(1))), (Waiting, 2, Some(2)), Change::Failed),
            (Some((Dispatched, 0, None)), (Running, 1, Some(1)), Change::Started),
            (Some((Running, 1, Some(1))), (Running, 1, Some(1)), Change::Progressed),
            (Some((Running, 1, Some(1))), (Running, 2, Some(2)), Change::Started),
            (Some((Running, 2, Some(1))), (Waiting, 2, Some(1)), Change::Failed),
            (Some((Running, 2, Some(1))), (Waiting, 1, Some(1)), Change::PutBack),
            (Some((Dead, 3, Some(1))), (Waiting, 0, Some(1)), Change::PutBack),
        ];
        for (before, now, expected) in cases {
            let before = before.map(|(state, attempt, started)| Mark::of(&job(state, attempt, started)));
            let (state, attempt, started) = now;
            assert_eq!(Change::between(before.as_ref(), &job(state, attempt, started)), expected, "{before:?} {now:?}");
        }
    }
}
