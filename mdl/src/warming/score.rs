//! How much something is used: each use counts, and half as much after some hours.
//!
//! A score is the logarithm of the sum of `2^(t / HALF_LIFE)` over the times `t` of all uses ("forward decay", Cormode and
//! others 2009). So it need not be computed anew as time passes, and two scores compare the same at any later time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// After this a use counts half.
pub const HALF_LIFE: Duration = Duration::from_secs(6 * 3_600);

#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Score(f64);

impl Score {
    /// Of so many uses at this time.
    pub fn of(uses: u32, at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(f64::from(uses.max(1)).log2() + since.as_secs_f64() / HALF_LIFE.as_secs_f64())
    }

    /// Of the uses of both.
    pub fn and(self, other: Self) -> Self {
        let (most, least) = if self.0 >= other.0 { (self.0, other.0) } else { (other.0, self.0) };
        Self(most + (least - most).exp2().ln_1p() / std::f64::consts::LN_2)
    }

    /// As Redis orders it.
    pub fn value(self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_add_up_and_fade() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let close = |one: Score, other: Score| (one.value() - other.value()).abs() < 1e-9;
        let three = Score::of(1, now).and(Score::of(1, now)).and(Score::of(1, now));
        assert!(close(three, Score::of(3, now)));
        assert!(close(Score::of(2, now), Score::of(1, now + HALF_LIFE)), "two of before count as one of now");
        assert!(Score::of(1, now + HALF_LIFE * 10) > Score::of(1_000, now));
        assert!(Score::of(1, now + HALF_LIFE * 9) < Score::of(1_000, now));
        assert!(close(Score::of(1, now).and(Score::of(1_000, now)), Score::of(1_001, now)), "in any order");
    }
}
