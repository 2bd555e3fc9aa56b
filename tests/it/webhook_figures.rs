//! Figures for people; on a busy machine only their ratios mean something.
//!
//! `cargo nextest run --release --workspace --run-ignored only -E 'test(webhook_figures)' --no-capture`

use std::time::{Duration, Instant};

use futures::StreamExt;
use mdl::events::Stamped;
use mdl::webhooks::endpoints::{self, Draft};
use mdl_tests::{Receiver, TestApp, eventually};
use serde_json::json;

use crate::webhooks::stamped;

const DELIVERIES: usize = 5_000;
const ENDPOINTS: usize = 1_000;
const EVENTS: usize = 100;
const BETWEEN_EVENTS: Duration = Duration::from_millis(200);

async fn add(app: &TestApp, draft: Draft) {
    endpoints::create(&app.app, &app.system(), draft).await.unwrap();
}

async fn owe(app: &TestApp, events: &[Stamped]) {
    let tx = app.app.db.dispatch().await.unwrap();
    mdl::webhooks::owe(&tx, events).await.unwrap();
    tx.commit().await.unwrap();
}

/// Deliveries to one local receiver, with ledger and signature, against a loop of the same client without either.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn deliveries_per_second() {
    let app = TestApp::start().await;
    let receiver = Receiver::start().await;
    let client = mdl::outbound::Guard::new(&app.app.config.webhooks.allow).client(Duration::from_secs(15)).unwrap();
    let plain = async |count: usize| {
        let start = Instant::now();
        let requests = futures::stream::iter(0..count).map(|_| client.post(&receiver.url).body(vec![b'x'; 300]).send());
        requests.buffer_unordered(32).for_each(async |answer| drop(answer.unwrap().bytes().await.unwrap())).await;
        count as f64 / start.elapsed().as_secs_f64()
    };
    plain(500).await;
    let plain = plain(DELIVERIES).await;
    add(&app, Draft { url: receiver.url.clone(), ..Draft::default() }).await;
    let payload = json!({ "key": "METRIC-1", "name": "x".repeat(150) });
    let events: Vec<_> = (0..DELIVERIES).map(|i| stamped(&app, i as i64, "metric.created", payload.clone())).collect();
    owe(&app, &events).await;
    let start = Instant::now();
    app.start_worker();
    let open = "SELECT count(*) FROM webhook_deliveries WHERE state = 'pending'";
    eventually("all are delivered", async || (app.database.number(open).await == 0).then_some(())).await;
    let ours = DELIVERIES as f64 / start.elapsed().as_secs_f64();
    println!("plain client {plain:.0}/s, webhooks {ours:.0}/s: {:.0} %", 100.0 * ours / plain);
}

/// How long the endpoints wait of which nothing is wrong: first all of them, then with one that hangs and one that answers 500.
/// Each event is for a few of them, and there is far less to send than could be sent.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn a_hanging_and_a_failing_endpoint_among_a_thousand() {
    let settings = [("MDL_WEBHOOK_RETRY_SECONDS", "1,1,1,1,1,1,1,1,1,1,1,1"), ("MDL_WEBHOOK_MAX_ENDPOINTS", "2000")];
    let app = TestApp::start_with(&settings).await;
    let good = Receiver::start().await;
    let failing =
        Receiver::answering(|_, _| axum::response::IntoResponse::into_response(reqwest::StatusCode::INTERNAL_SERVER_ERROR)).await;
    let hanging = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let kinds: Vec<&str> = mdl::events::kinds::ALL.iter().map(|kind| kind.name).collect();
    for number in 0..ENDPOINTS {
        let event_kinds = vec![kinds[number % kinds.len()].to_owned()];
        add(&app, Draft { url: good.url.clone(), event_kinds, ..Draft::default() }).await;
    }
    app.start_worker();
    let mut sequence = 0;
    let mut rounds = async |name: &str| {
        app.database.execute("TRUNCATE webhook_deliveries CASCADE").await;
        let mut ticks = tokio::time::interval(BETWEEN_EVENTS);
        let before = commits(&app).await;
        for _ in 0..EVENTS {
            ticks.tick().await;
            sequence += 1;
            let kind = kinds[sequence as usize % kinds.len()];
            owe(&app, &[stamped(&app, sequence, kind, json!({ "key": "METRIC-1" }))]).await;
        }
        let commits = commits(&app).await - before;
        let open = "SELECT count(*) FROM webhook_deliveries JOIN webhook_endpoints AS e ON e.id = endpoint_id WHERE state = 'pending' AND description = ''";
        eventually("all that can be are delivered", async || (app.database.number(open).await == 0).then_some(())).await;
        let quantile = |part: &str| {
            format!(
                "SELECT (1000 * percentile_cont({part}) WITHIN GROUP (ORDER BY extract(epoch FROM at - d.created_at)::float8))::bigint
                 FROM webhook_attempts JOIN webhook_deliveries AS d ON d.id = delivery_id JOIN webhook_endpoints AS e ON e.id = d.endpoint_id
                 WHERE e.description = ''"
            )
        };
        let (p50, p95) = (app.database.number(&quantile("0.5")).await, app.database.number(&quantile("0.95")).await);
        println!("{name}: delay p50 {p50} ms, p95 {p95} ms; {commits} transactions meanwhile");
    };
    rounds("to warm up").await;
    rounds("all well").await;
    for url in [failing.url.clone(), format!("http://{}/", hanging.local_addr().unwrap())] {
        add(&app, Draft { url, description: "bad".to_owned(), ..Draft::default() }).await;
    }
    rounds("one hangs, one answers 500").await;
    rounds("the same, later").await;
}

/// What PostgreSQL has committed in the test's database.
async fn commits(app: &TestApp) -> i64 {
    app.database.number("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()").await
}
