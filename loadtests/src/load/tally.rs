//! What came of the requests.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::timetable::Stage;

/// Different errors that are told one by one.
const ERRORS_KEPT: usize = 10;

/// More than a request can take: it would have been left out, or have ended at its timeout.
const LONGEST_MICROSECONDS: u64 = 60_000_000;

/// The answers of a stage, or to a document.
pub struct Tally {
    /// Latencies in microseconds.
    latencies: Histogram<u64>,
    errors: u64,
    unsent: u64,
}

/// What `X-Cache` says of an answer to a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cache {
    Hit,
    Miss,
    Bypass,
}

impl Cache {
    pub fn parse(header: &str) -> Option<Self> {
        match header {
            "HIT" => Some(Self::Hit),
            "MISS" => Some(Self::Miss),
            "BYPASS" => Some(Self::Bypass),
            _ => None,
        }
    }
}

impl Default for Tally {
    fn default() -> Self {
        let latencies = Histogram::new_with_bounds(1, LONGEST_MICROSECONDS, 3).expect("bounds that a histogram can have");
        Self { latencies, errors: 0, unsent: 0 }
    }
}

impl Tally {
    pub fn answered(&mut self, latency: Duration, well: bool) {
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(microseconds);
        self.errors += u64::from(!well);
    }

    /// A request was so late that it was left out.
    pub fn not_sent(&mut self) {
        self.unsent += 1;
    }

    pub fn sent(&self) -> u64 {
        self.latencies.len()
    }

    /// Errors, and what was not even sent.
    pub fn failed(&self) -> u64 {
        self.errors + self.unsent
    }

    /// The latency that this share of the requests stayed within; `None` if there was none.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        (self.sent() > 0).then(|| Duration::from_micros(self.latencies.value_at_quantile(share)))
    }
}

/// Everything that is counted in a run.
pub struct Tallies {
    pub stages: Vec<Tally>,
    /// By name, with the number of hits and of queries.
    pub documents: BTreeMap<&'static str, DocumentTally>,
    /// How often each error came.
    pub errors: BTreeMap<String, u64>,
    pub hits: u64,
    pub misses: u64,
    pub bypassed: u64,
}

/// The answers to a document.
pub struct DocumentTally {
    pub answers: Tally,
    pub hits: u64,
}

/// What came of one request.
pub struct Outcome {
    pub stage: usize,
    pub document: &'static str,
    /// From when it was due to the last byte of its answer.
    pub latency: Duration,
    /// Of queries only.
    pub cache: Option<Cache>,
    pub error: Option<String>,
}

impl Tallies {
    pub fn new(stages: usize) -> Self {
        let stages = (0..stages).map(|_| Tally::default()).collect();
        Self { stages, documents: BTreeMap::new(), errors: BTreeMap::new(), hits: 0, misses: 0, bypassed: 0 }
    }

    pub fn record(&mut self, outcome: Outcome) {
        let well = outcome.error.is_none();
        let document =
            self.documents.entry(outcome.document).or_insert_with(|| DocumentTally { answers: Tally::default(), hits: 0 });
        document.answers.answered(outcome.latency, well);
        self.stages[outcome.stage].answered(outcome.latency, well);
        match outcome.cache {
            Some(Cache::Hit) => {
                self.hits += 1;
                document.hits += 1;
            }
            Some(Cache::Miss) => self.misses += 1,
            Some(Cache::Bypass) => self.bypassed += 1,
            None => {}
        }
        if let Some(error) = outcome.error {
            self.error(error);
        }
    }

    pub fn not_sent(&mut self, stage: usize) {
        self.stages[stage].not_sent();
    }

    fn error(&mut self, error: String) {
        let known = self.errors.len() < ERRORS_KEPT || self.errors.contains_key(&error);
        *self.errors.entry(if known { error } else { "others".to_owned() }).or_default() += 1;
    }

    /// The run as text: each stage, each document, the response cache, the errors.
    pub fn report(&self, stages: &[Stage]) -> String {
        let mut out = String::from("stage            wanted/s       sent     failed   p50 ms   p95 ms   p99 ms   max ms\n");
        for (stage, tally) in stages.iter().zip(&self.stages) {
            out.push_str(&format!("{:<14} {:>10.0} {}\n", stage.name, stage.rate, figures(tally)));
        }
        out.push_str("\ndocument       from cache       sent     failed   p50 ms   p95 ms   p99 ms   max ms\n");
        for (name, document) in &self.documents {
            let share = percent(document.hits, document.answers.sent());
            out.push_str(&format!("{name:<14} {share:>10} {}\n", figures(&document.answers)));
        }
        let queries = self.hits + self.misses + self.bypassed;
        out.push_str(&format!(
            "\nhit rate of the response cache: {} ({} HIT, {} MISS, {} BYPASS)\n",
            percent(self.hits, queries),
            self.hits,
            self.misses,
            self.bypassed
        ));
        let unsent: u64 = self.stages.iter().map(|tally| tally.unsent).sum();
        if unsent > 0 {
            out.push_str(&format!("left out, {unsent} times: a request that would have been sent far too late\n"));
        }
        for (error, count) in &self.errors {
            out.push_str(&format!("error, {count} times: {error}\n"));
        }
        out
    }
}

fn figures(tally: &Tally) -> String {
    let at = |share| tally.percentile(share).map_or("-".to_owned(), |latency| format!("{:.2}", latency.as_secs_f64() * 1e3));
    let (p50, p95, p99, max) = (at(0.5), at(0.95), at(0.99), at(1.0));
    format!("{:>10} {:>10} {p50:>8} {p95:>8} {p99:>8} {max:>8}", tally.sent(), tally.failed())
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", part as f64 / whole as f64 * 100.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_where_they_belong() {
        let mut tallies = Tallies::new(2);
        let outcome = |stage, cache, error: Option<&str>| Outcome {
            stage,
            document: "metric",
            latency: Duration::from_millis(10),
            cache,
            error: error.map(str::to_owned),
        };
        tallies.record(outcome(0, Some(Cache::Hit), None));
        tallies.record(outcome(1, Some(Cache::Miss), None));
        tallies.record(outcome(1, None, Some("500")));
        tallies.not_sent(1);
        assert_eq!((tallies.stages[0].sent(), tallies.stages[0].failed()), (1, 0));
        assert_eq!((tallies.stages[1].sent(), tallies.stages[1].failed(), tallies.stages[1].unsent), (2, 2, 1));
        assert_eq!((tallies.hits, tallies.misses, tallies.documents["metric"].hits), (1, 1, 1));
        let p95 = tallies.stages[1].percentile(0.95).unwrap();
        assert!((9_990..=10_010).contains(&p95.as_micros()), "{p95:?}");
        let stages = crate::load::Profile::Spike.stages(1.0, 1.0);
        let report = tallies.report(&stages);
        assert!(report.contains("hit rate of the response cache: 50.0 %"), "{report}");
        assert!(report.contains("error, 1 times: 500"), "{report}");
    }

    #[test]
    fn many_different_errors_are_told_as_others() {
        let mut tallies = Tallies::new(1);
        (0..50).for_each(|number| tallies.error(number.to_string()));
        assert_eq!(tallies.errors.len(), ERRORS_KEPT + 1);
        assert_eq!(tallies.errors["others"], 40);
    }
}
