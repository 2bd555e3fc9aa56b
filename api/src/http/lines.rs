//! Lines of the log that anybody can cause any number of, and that must not fill the disk.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Lines that say the same.
pub struct Lines {
    written: DefaultDirectRateLimiter,
    left_out: AtomicU64,
}

impl Lines {
    pub fn per_second(count: NonZeroU32) -> Self {
        Self { written: RateLimiter::direct(Quota::per_second(count)), left_out: AtomicU64::new(0) }
    }

    /// How many were left out since the last line, if there may be one now.
    pub fn may_tell(&self) -> Option<u64> {
        if self.written.check().is_ok() {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// A count that is left out when it is none.
pub fn some(count: u64) -> Option<u64> {
    (count > 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_cannot_fill_the_log() {
        let faults = Lines::per_second(NonZeroU32::new(10).unwrap());
        let (mut all, mut lines, mut left_out) = (0, 0, 0);
        while all < 1_000 || left_out == 0 {
            all += 1;
            if let Some(before) = faults.may_tell() {
                lines += 1;
                left_out += before;
            }
        }
        assert!(lines < all / 10, "{lines} lines about {all}");
        assert_eq!(lines + left_out + faults.left_out.load(Ordering::Relaxed), all, "each is told or counted");
    }
}
