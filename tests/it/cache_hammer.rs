//! A writer at one API and readers at two: what was acknowledged is seen at once where it was written, soon everywhere, and
//! nobody goes back in time. `MDL_TEST_HAMMER_SECONDS` makes it longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mdl::actor::Role;
use mdl_tests::{Client, eventually, variable};
use serde_json::{Value, json};

use crate::cache::{source, started};
use crate::hearing::live;

const READ: &str = "query($key: String) { metric(key: $key) { description } }";
/// How late another API may be: it is a few milliseconds. A machine that is too busy for beats goes by slices of a second.
const BOUND: Duration = Duration::from_millis(1500);

/// When each value was acknowledged, in microseconds since the start, and 0 before.
struct Log {
    start: Instant,
    acknowledged: Vec<AtomicU64>,
    newest: AtomicU64,
    /// Of each reader.
    hits: [AtomicU64; 3],
    over: AtomicBool,
}

#[derive(Default)]
struct Seen {
    reads: u64,
    hits: u64,
    worst: Duration,
}

async fn read(client: &Client) -> (u64, bool) {
    let answer = client.send(READ, json!({ "key": "M" })).await;
    let hit = source(&answer) == "HIT";
    (answer.data()["metric"]["description"].as_str().unwrap().parse().unwrap(), hit)
}

/// Reads until it is over. Whatever was acknowledged longer than the bound ago must have been seen.
async fn keep_reading(client: Client, number: usize, log: Arc<Log>) -> Seen {
    let (mut last, mut seen) = (0, Seen::default());
    while !log.over.load(Ordering::Relaxed) {
        let newest = log.newest.load(Ordering::Acquire);
        let asked = log.start.elapsed();
        let (value, hit) = read(&client).await;
        assert!(value >= last, "went back from {last} to {value}");
        if value < newest {
            // The first that was missed is the one that was known the longest.
            let since = log.acknowledged[value as usize + 1].load(Ordering::Acquire);
            seen.worst = seen.worst.max(asked.saturating_sub(Duration::from_micros(since)));
        }
        last = value;
        seen.reads += 1;
        seen.hits += u64::from(hit);
        log.hits[number].fetch_add(u64::from(hit), Ordering::Relaxed);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_sees_the_past_after_the_present() {
    let seconds = variable("MDL_TEST_HAMMER_SECONDS").map_or(4, |seconds| seconds.parse().unwrap());
    let limits = [("MDL_RATE_LIMIT_PER_SECOND", "100000"), ("MDL_RATE_LIMIT_BURST", "100000")];
    let app = started(&limits).await;
    let (second, base) = app.another_api(&[]).await;
    live(&second).await;
    let writer = app.client(Role::Editor).await;
    let id = writer.write("createMetric", json!({ "key": "M", "name": "M", "description": "0" })).await["id"].clone();
    let log = Arc::new(Log {
        start: Instant::now(),
        acknowledged: (0..1_000_000).map(|_| AtomicU64::new(0)).collect(),
        newest: AtomicU64::new(0),
        hits: Default::default(),
        over: AtomicBool::new(false),
    });
    let mut readers = Vec::new();
    for (number, (name, base)) in
        [("the writer's", &app.base), ("the other", &base), ("the other", &base)].into_iter().enumerate()
    {
        let reader = app.client(Role::Viewer).await.at(base);
        readers.push((name, tokio::spawn(keep_reading(reader, number, log.clone()))));
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut value = 0;
    while Instant::now() < end {
        value += 1;
        let input = json!({ "id": id, "description": value.to_string() });
        let answer = writer.mutate("updateMetric", input, "metric { description }").await;
        assert_eq!(answer.payload()["metric"]["description"], Value::String(value.to_string()));
        log.acknowledged[value as usize].store(log.start.elapsed().as_micros() as u64, Ordering::Release);
        log.newest.store(value, Ordering::Release);
        assert_eq!(read(&writer).await.0, value, "the writer reads what it has written");
        // Now and then there is time for hits.
        if value % 10 == 1 {
            let hits = || log.hits.each_ref().map(|hits| hits.load(Ordering::Relaxed));
            let before = hits();
            let all_grew = || hits().iter().zip(before).all(|(now, before)| *now > before);
            eventually("every reader has a hit", async || all_grew().then_some(())).await;
        }
    }
    log.over.store(true, Ordering::Relaxed);
    println!("{value} writes in {seconds} s");
    for (name, reader) in readers {
        let Seen { reads, hits, worst } = reader.await.unwrap();
        println!("at {name} API: {reads} reads, {hits} hits, {:.1} ms late at worst", worst.as_secs_f64() * 1000.0);
        assert!(worst < BOUND, "{worst:?} late at {name} API");
        assert!(hits > 0, "nothing was ever kept at {name} API");
        if name == "the writer's" {
            assert_eq!(worst, Duration::ZERO, "nobody is late where it was written");
        }
    }
}
