//! How much is claimed ahead: what will begin in the next moment, going by the pace of the last one. Who claims no more than can
//! begin at once waits for the ledger most of the time.

use std::time::Duration;

/// The next moment.
pub const MOMENT: Duration = Duration::from_millis(50);

/// How many will end in the next moment, if so many ended in so long a time. At most `most`.
pub fn soon(ended: usize, elapsed: Duration, most: usize) -> usize {
    let share = MOMENT.as_secs_f64() / elapsed.max(Duration::from_millis(1)).as_secs_f64();
    ((ended as f64 * share) as usize).min(most)
}
