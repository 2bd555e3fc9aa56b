//! Subscribers that come back lose nothing and get nothing twice, whatever died meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mdl::actor::Role;
use mdl_tests::clients::{self, Script};
use mdl_tests::servers::{ApiProcess, PrivateRedis, WorkerProcess};
use mdl_tests::socket::Socket;
use mdl_tests::{Client, TestApp, root};
use rand::Rng;
use serde_json::{Value, json};

use crate::subscriptions::told;

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
        assert!(start.elapsed() < Duration::from_secs(25), "{name} came after {:?}", start.elapsed());
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

#[test]
fn the_documentation_shows_the_scripts() {
    let page = std::fs::read_to_string(root().join("docs/api/subscriptions.md")).unwrap();
    for name in ["follow.mjs", "follow-ws.mjs", "follow-sse.mjs"] {
        let script = std::fs::read_to_string(root().join("tests/clients").join(name)).unwrap();
        assert!(page.contains(&format!("```js\n{script}```\n")), "docs/api/subscriptions.md is to show {name} as it is");
    }
}

/// A script of the documentation gets every change once and in order, however often its API is killed and others change the
/// catalog meanwhile; it reads everything anew when it was away for too long, and ends when its credential does.
async fn follows_whatever_breaks(script: &str, scheme: &str, ends_with: &str) {
    if clients::folder().is_none() {
        return;
    }
    let app = TestApp::start().await;
    app.start_worker();
    let editor = app.client(Role::Editor).await;
    let create = async |key: &str| {
        editor.write("createMetric", json!({ "key": key, "name": key })).await;
        format!("metric.created {key}")
    };
    let mut published = 1;
    create("BEFORE").await;
    told(&app, published).await;
    let key = key(&editor).await;
    let mut api = ApiProcess::start(&app, &[]).await;
    let url = format!("{}/graphql", api.base().replacen("http", scheme, 1));
    let mut follower = Script::start(script, &[("MDL_URL", &url), ("MDL_API_KEY", &key)]);
    let mut expected = vec!["1 metrics".to_owned()];
    assert_eq!(follower.until(1).await, expected);

    for round in 1..=3 {
        expected.push(create(&format!("LISTENING-{round}")).await);
        assert_eq!(follower.until(expected.len()).await, expected);
        api.kill();
        for which in ["FIRST", "SECOND"] {
            expected.push(create(&format!("AWAY-{round}-{which}")).await);
        }
        published += 3;
        told(&app, published).await;
        api = api.restart().await;
    }
    assert_eq!(follower.until(expected.len()).await, expected);

    api.kill();
    create("NOT-TOLD").await;
    create("KEPT").await;
    published += 2;
    told(&app, published).await;
    let forget = "UPDATE event_streams SET kept_from = last_sequence; \
                  DELETE FROM outbox WHERE sequence < (SELECT max(last_sequence) FROM event_streams)";
    app.database.execute(forget).await;
    let _api = api.restart().await;
    expected.push(format!("{published} metrics"));
    assert_eq!(follower.until(expected.len()).await, expected);
    expected.push(create("AFTER").await);
    assert_eq!(follower.until(expected.len()).await, expected);

    let keys = editor.ask("{ apiKeys(first: 1) { nodes { id } } }", json!({})).await;
    editor.mutate("revokeApiKey", json!({ "id": keys["apiKeys"]["nodes"][0]["id"] }), "apiKey { id }").await.data();
    let (printed, error) = follower.failed().await;
    assert_eq!(printed, expected);
    assert!(error.contains(&format!("Cannot follow the catalog: {ends_with}")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_with_graphql_ws_loses_and_repeats_nothing() {
    follows_whatever_breaks("follow-ws.mjs", "ws", "4403").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_with_graphql_sse_loses_and_repeats_nothing() {
    follows_whatever_breaks("follow-sse.mjs", "http", "401").await;
}
