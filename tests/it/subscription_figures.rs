//! Figures for people: many subscribers on one api process. docs/operations/performance.md has the command.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use mdl_tests::servers::ApiProcess;
use mdl_tests::socket::Socket;
use mdl_tests::variable;
use serde_json::{Value, json};

use crate::subscriptions::{key, started};

/// They are told of nothing, but have to be asked about each event.
const IDLE: usize = 5_000;
const ACTIVE: usize = 500;
const BETWEEN_EVENTS: Duration = Duration::from_millis(20);
/// `MDL_FIGURES=full` is the whole time.
const SECONDS: u64 = 20;
const SECONDS_IN_FULL: u64 = 600;
const CHANGES: &str = "subscription($filter: CatalogChangeFilter) { catalogChanged(filter: $filter) { cursor kind key name } }";

/// When each event was asked for, by its key.
type Begun = Arc<Mutex<HashMap<String, Instant>>>;

/// Notes how long each event took until it was here.
async fn listen(mut socket: Socket, begun: Begun, events: usize) -> Vec<Duration> {
    let mut took = Vec::with_capacity(events);
    while took.len() < events {
        let message = socket.next().await.expect("it stays open");
        let key = message["payload"]["data"]["catalogChanged"]["key"].as_str().expect("an event").to_owned();
        took.push(begun.lock().unwrap()[&key].elapsed());
    }
    took
}

async fn subscribe(base: &str, credential: &str, filter: Value) -> Socket {
    let mut socket = Socket::connect(base, credential).await;
    socket.subscribe("figures", CHANGES, json!({ "filter": filter })).await;
    socket
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn five_thousand_idle_and_five_hundred_active_subscribers() {
    let many =
        [("MDL_LIVE_CONNECTIONS_PER_USER", "10000"), ("MDL_RATE_LIMIT_PER_SECOND", "100000"), ("MDL_RATE_LIMIT_BURST", "100000")];
    let (app, editor) = started(&many).await;
    let credential = key(&editor).await;
    let api = ApiProcess::start(&app, &[]).await;
    let base = api.base();
    let connect = |count: usize, filter: Value| {
        let (base, credential) = (&base, &credential);
        stream::iter(0..count).map(move |_| subscribe(base, credential, filter.clone())).buffer_unordered(50).collect::<Vec<_>>()
    };
    let first = connect(1, json!({ "kinds": ["objective"] })).await;
    let alone = api.resident_kb();
    let idle = connect(IDLE, json!({ "kinds": ["objective"] })).await;
    let per_subscriber = (api.resident_kb() - alone) as f64 / IDLE as f64;
    let idle: Vec<_> = first.into_iter().chain(idle).map(|socket| tokio::spawn(listen(socket, Begun::default(), 1))).collect();
    let active = connect(ACTIVE, json!({ "kinds": ["metric"] })).await;

    let seconds = if variable("MDL_FIGURES").as_deref() == Some("full") { SECONDS_IN_FULL } else { SECONDS };
    let events = (Duration::from_secs(seconds).as_millis() / BETWEEN_EVENTS.as_millis()) as usize;
    let begun = Begun::default();
    let listening: Vec<_> = active.into_iter().map(|socket| tokio::spawn(listen(socket, begun.clone(), events))).collect();
    let before = api.resident_kb();
    let mut ticks = tokio::time::interval(BETWEEN_EVENTS);
    for number in 0..events {
        ticks.tick().await;
        let key = format!("FIGURE-{number}");
        begun.lock().unwrap().insert(key.clone(), Instant::now());
        editor.write("createMetric", json!({ "key": key, "name": "A metric that is made to be told of" })).await;
    }
    let mut took = Vec::with_capacity(ACTIVE * events);
    for listener in listening {
        took.extend(listener.await.unwrap());
    }
    took.sort_unstable();
    let percentile = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_millis();
    println!(
        "{} + {ACTIVE} subscribers, {events} events in {seconds} s, each told {ACTIVE} times: p50 {} ms, p95 {} ms, p99 {} ms from the \
         request to the subscriber; {per_subscriber:.1} kB for each subscriber; the api {} MiB before the events and {} MiB after",
        idle.iter().filter(|idle| !idle.is_finished()).count(),
        percentile(0.5),
        percentile(0.95),
        percentile(0.99),
        before / 1024,
        api.resident_kb() / 1024,
    );
}
