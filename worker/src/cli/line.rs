//! One line on a terminal that is written over; elsewhere nothing, as a log of it helps nobody.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mdl::backups::{Progress, Step};
use tokio_util::task::AbortOnDropHandle;

const DRAW: Duration = Duration::from_millis(200);

/// A line that is drawn anew until this is dropped, which leaves an empty line behind.
pub struct Line {
    ended: Arc<Mutex<bool>>,
    _drawing: AbortOnDropHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        // Ending the task is not enough: it may be drawing, and would do so after what is printed next.
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        eprint!("\r\x1b[2K");
    }
}

/// Shows how far it is until the line is dropped.
pub fn follow(progress: &Progress) -> Option<Line> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let steps = progress.follow();
    let ended = Arc::new(Mutex::new(false));
    let is_over = ended.clone();
    let drawing = tokio::spawn(async move {
        let (mut phase, mut since) = (steps.borrow().phase, Instant::now());
        loop {
            let step = *steps.borrow();
            if step.phase != phase {
                (phase, since) = (step.phase, Instant::now());
            }
            if !draw(&is_over, &text(step, since.elapsed())) {
                return;
            }
            tokio::time::sleep(DRAW).await;
        }
    });
    Some(Line { ended, _drawing: AbortOnDropHandle::new(drawing) })
}

/// Draws it unless it has ended; whether it has not.
fn draw(ended: &Mutex<bool>, text: &str) -> bool {
    let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
    if !*ended {
        eprint!("\r\x1b[2K{text}");
        // Only the progress is lost.
        let _flushed = std::io::stderr().flush();
    }
    !*ended
}

fn text(step: Step, elapsed: Duration) -> String {
    let phase = step.phase.as_str().replace('_', " ");
    let share = step.expected.filter(|expected| *expected > 0 && step.done <= *expected);
    let share = share.map(|expected| format!(" of {} ({} %)", size(expected), step.done * 100 / expected)).unwrap_or_default();
    let done = if step.done > 0 { format!(": {}{share}", size(step.done)) } else { String::new() };
    format!("{phase}{done}, {} s", elapsed.as_secs())
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        let sizes: Vec<_> = [0, 999, 1_000, 123_456_789, 5_000_000_000_000].into_iter().map(size).collect();
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "123.5 MB", "5.0 TB"]);
    }

    #[test]
    fn a_step_is_a_line() {
        let step = Step { phase: mdl::backups::Phase::StoringFiles, done: 500_000, expected: Some(1_000_000) };
        assert_eq!(text(step, Duration::from_secs(3)), "storing files: 500.0 kB of 1.0 MB (50 %), 3 s");
    }
}
