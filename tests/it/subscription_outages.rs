//! Subscribers that come back lose nothing and get nothing twice, whatever died meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mdl::actor::Role;
use mdl_tests::servers::{ApiProcess, PrivateRedis, WorkerProcess};
use mdl_tests::socket::Socket;
use mdl_tests::{Client, TestApp};
use rand::Rng;
use serde_json::{Value, json};

const CHANGES: &str =
    "subscription($after: String) { catalogChanged(filter: { kinds: [\"metric\"] }, after: $after) { cursor sequence } }";

async fn key(client: &Client) -> String {
    let answer = client.mutate("createApiKey", json!({ "name": "key", "scopes": ["CATALOG_READ"] }), "key").await;
    answer.payload()["key"].as_str().unwrap().to_owned()
}

/// The sequences that a client gets which goes on after its last cursor whenever it was cut off, until there are so many.
async fn listen(base: String, key: String, count: usize) -> Vec<i64> {
    let (mut got, mut cursor) = (Vec::new(), mdl::page::cursor(&json!({ "event": 0 })));
    while got.len() < count {
        let socket = Socket::open(&base, &[("sec-websocket-protocol", "graphql-transport-ws")]).await;
        let Ok(mut socket) = socket else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        socket.init(&key).await;
        if socket.next().await.is_err() {
            continue;
        }
        socket.subscribe("1", CHANGES, json!({ "after": cursor })).await;
        while got.len() < count
            && let Ok(message) = socket.next().await
        {
            let change: &Value = &message["payload"]["data"]["catalogChanged"];
            let Some(sequence) = change["sequence"].as_i64() else { break };
            got.push(sequence);
            cursor = change["cursor"].as_str().unwrap().to_owned();
        }
    }
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_loses_and_repeats_nothing() {
    const CHANGED: usize = 150;
    let redis = PrivateRedis::start().await;
    let app = Arc::new(TestApp::start_with(&[("REDIS_URL", &redis.url())]).await);
    let editor = app.client(Role::Editor).await;
    let key = key(&editor).await;
    let mut api = ApiProcess::start(&app, &[]).await;
    let mut workers = [WorkerProcess::start(&app), WorkerProcess::start(&app)];
    let listeners: Vec<_> = (0..3).map(|_| tokio::spawn(listen(api.base(), key.clone(), CHANGED))).collect();
    let writing = tokio::spawn(async move {
        for i in 0..CHANGED {
            let pause = rand::rng().random_range(0..60);
            editor.write("createMetric", json!({ "key": format!("M{i}"), "name": "M" })).await;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    });
    let mut round = 0;
    while !writing.is_finished() {
        round += 1;
        tokio::time::sleep(Duration::from_millis(700)).await;
        match round % 3 {
            0 => redis.flush().await,
            1 => {
                let which = round / 3 % 2;
                workers[which].kill();
                workers[which] = WorkerProcess::start(&app);
            }
            _ => api = api.kill_and_restart().await,
        }
    }
    writing.await.unwrap();
    for listener in listeners {
        assert_eq!(listener.await.unwrap(), (1..=CHANGED as i64).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_events_arrive_within_seconds() {
    let mut redis = PrivateRedis::start().await;
    let app = TestApp::start_with(&[("REDIS_URL", &redis.url())]).await;
    app.start_worker();
    let editor = app.client(Role::Editor).await;
    let mut socket = Socket::connect(&app.base, editor.credential.as_ref().unwrap()).await;
    socket.subscribe("1", CHANGES, json!({ "after": mdl::page::cursor(&json!({ "event": 0 })) })).await;
    let hears = async |socket: &mut Socket, name: &str| {
        let start = Instant::now();
        editor.write("createMetric", json!({ "key": name, "name": name })).await;
        assert_eq!(socket.next().await.unwrap()["type"], "next");
        assert!(start.elapsed() < Duration::from_secs(10), "{name} came after {:?}", start.elapsed());
    };
    hears(&mut socket, "WITH").await;
    redis.pause();
    hears(&mut socket, "PAUSED").await;
    redis.resume();
    hears(&mut socket, "RESUMED").await;
    redis.stop();
    hears(&mut socket, "STOPPED").await;
    let redis = redis.restart().await;
    hears(&mut socket, "AGAIN").await;
    redis.flush().await;
    hears(&mut socket, "FLUSHED").await;
}
