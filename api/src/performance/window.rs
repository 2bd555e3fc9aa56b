//! Counts of the last minutes: two windows that take turns, so that what is read is of the current one and the one before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use histogram::{AtomicHistogram32, Config, Histogram32};

use super::Ending;
use crate::cache::Source;

/// How long one window is. What is read is of one to two of them.
pub const WINDOW: Duration = Duration::from_secs(300);

/// In microseconds: each bucket is 3 % wide, and the last ends after 67 seconds, later than any request.
const BUCKETS: (u8, u8) = (5, 26);
const LONGEST: u64 = (1 << 26) - 1;

/// The two windows of an operation. Counting takes no lock: a request that ends in the moment in which the windows change may be lost.
pub struct Windows([Counts; 2]);

struct Counts {
    /// Number of the window since 1970 that these are of.
    number: AtomicU64,
    times: AtomicHistogram32,
    total: AtomicU64,
    errors: AtomicU64,
    kept: AtomicU64,
    hits: AtomicU64,
}

/// What the windows say.
#[derive(Debug, Clone)]
pub struct Window {
    times: Histogram32,
    pub count: u64,
    pub total_microseconds: u64,
    pub errors: u64,
    /// Requests whose answer is kept, and those of them whose answer was there.
    pub kept: u64,
    pub hits: u64,
}

impl Default for Windows {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counts {
            number: AtomicU64::new(0),
            times: AtomicHistogram32::with_config(&buckets()),
            total: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        }))
    }
}

impl Windows {
    pub fn record(&self, took: Duration, ending: Ending) {
        self.record_in(current(), took, ending);
    }

    pub fn read(&self) -> Window {
        self.read_at(current())
    }

    fn record_in(&self, number: u64, took: Duration, ending: Ending) {
        let counts = &self.0[(number % 2) as usize];
        let of = counts.number.load(Ordering::Relaxed);
        // Of those that find it out of date, one clears it.
        if of < number && counts.number.compare_exchange(of, number, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            counts.clear();
        }
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(LONGEST).min(LONGEST);
        counts.times.increment(microseconds).expect("within the buckets");
        counts.total.fetch_add(microseconds, Ordering::Relaxed);
        let add = |counter: &AtomicU64, when: bool| {
            if when {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        };
        add(&counts.errors, ending.failed);
        add(&counts.kept, ending.source.is_some());
        add(&counts.hits, ending.source.is_some_and(|source| source != Source::Made));
    }

    fn read_at(&self, now: u64) -> Window {
        let nothing = Histogram32::with_config(&buckets());
        let mut sum = Window { times: nothing, count: 0, total_microseconds: 0, errors: 0, kept: 0, hits: 0 };
        for counts in self.0.iter().filter(|counts| counts.number.load(Ordering::Relaxed) + 1 >= now) {
            sum.times = sum.times.wrapping_add(&counts.times.load()).expect("the same buckets");
            sum.total_microseconds += counts.total.load(Ordering::Relaxed);
            sum.errors += counts.errors.load(Ordering::Relaxed);
            sum.kept += counts.kept.load(Ordering::Relaxed);
            sum.hits += counts.hits.load(Ordering::Relaxed);
        }
        sum.count = sum.times.as_slice().iter().copied().map(u64::from).sum();
        sum
    }
}

impl Counts {
    fn clear(&self) {
        self.times.drain();
        for counter in [&self.total, &self.errors, &self.kept, &self.hits] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

impl Window {
    /// The time that this share of the requests (0 to 1) took at most, within 3 %.
    pub fn quantile(&self, share: f64) -> Duration {
        let bucket = self.times.quantile_bucket(share).ok().flatten();
        bucket.map_or(Duration::ZERO, |bucket| Duration::from_micros(bucket.end()))
    }
}

/// When the window before the current one began.
pub fn since() -> DateTime<Utc> {
    let began = UNIX_EPOCH + WINDOW * u32::try_from(current().saturating_sub(1)).unwrap_or(u32::MAX);
    began.into()
}

fn current() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() / WINDOW.as_secs()
}

fn buckets() -> Config {
    let (grouping, longest) = BUCKETS;
    Config::new(grouping, longest).expect("a grouping below the longest")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISS: Ending = Ending { failed: false, source: Some(Source::Made) };
    const HIT: Ending = Ending { failed: false, source: Some(Source::Memory) };
    const FAILED: Ending = Ending { failed: true, source: None };

    #[test]
    fn percentiles_are_within_a_few_percent() {
        let windows = Windows::default();
        for number in 1..=1_000 {
            windows.record_in(7, Duration::from_micros(number * 100), if number % 10 == 0 { MISS } else { HIT });
        }
        windows.record_in(7, Duration::from_secs(600), FAILED);
        let window = windows.read_at(7);
        assert_eq!((window.count, window.errors, window.kept, window.hits), (1_001, 1, 1_000, 900));
        for (share, expected) in [(0.5, 50_000.0), (0.95, 95_000.0), (0.99, 99_000.0)] {
            let found = window.quantile(share).as_micros() as f64;
            assert!((found / expected - 1.0).abs() < 0.04, "{share}: {found}");
        }
        assert!(window.quantile(1.0) > Duration::from_secs(60), "as long as can be counted");
        assert_eq!(Windows::default().read_at(7).quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn what_is_older_than_two_windows_is_gone() {
        let windows = Windows::default();
        windows.record_in(7, Duration::from_millis(1), HIT);
        assert_eq!(windows.read_at(8).count, 1);
        assert_eq!(windows.read_at(9).count, 0);
        windows.record_in(8, Duration::from_millis(1), MISS);
        windows.record_in(9, Duration::from_millis(1), HIT);
        let window = windows.read_at(9);
        assert_eq!((window.count, window.hits, window.total_microseconds), (2, 1, 2_000));
    }
}
