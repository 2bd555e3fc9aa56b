//! Reads of single metrics that several requests share: each gets its own answer, and nobody depends on another.

use futures::future::join_all;
use mdl::actor::Role;
use mdl_tests::{Client, TestApp, eventually};
use serde_json::{Value, json};

const ONE: &str = "query($key: String!) { metric(key: $key) { id key name tags } }";

async fn started() -> TestApp {
    let unlimited = [("MDL_RATE_LIMIT_PER_SECOND", "100000"), ("MDL_RATE_LIMIT_BURST", "100000")];
    let app = TestApp::start_with(&[&[("MDL_CACHE_BYTES", "0")], &unlimited[..]].concat()).await;
    app.other_tenant().await;
    app
}

/// Metrics with the same keys in each catalog, and names that tell whose they are.
async fn fill(editor: &Client, whose: &str, count: usize) {
    for n in 0..count {
        editor.write("createMetric", json!({ "key": format!("M-{n}"), "name": format!("{whose} {n}") })).await;
    }
}

async fn name_of(client: &Client, key: &str) -> Value {
    client.ask(ONE, json!({ "key": key })).await["metric"]["name"].clone()
}

/// Returns when so many wait for the table. (`watching` is in no transaction, where activity would stand still.)
async fn reads_wait(watching: &tokio_postgres::Client, count: i64) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("reads wait for the table", async || {
        (watching.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) >= count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gets_its_own() {
    let app = started().await;
    let (ours, theirs) = (app.client(Role::Editor).await, app.client_of("globex", Role::Editor).await);
    fill(&ours, "ours", 20).await;
    fill(&theirs, "theirs", 20).await;
    let superuser = app.database.superuser().await;
    superuser.batch_execute("BEGIN; LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let asked: Vec<_> = (0..100)
        .map(|n| {
            let (whose, client) = if n % 2 == 0 { ("ours", ours.clone()) } else { ("theirs", theirs.clone()) };
            // Some twice, and some that there are not.
            let n = n / 2 % 25;
            tokio::spawn(async move { (whose, n, name_of(&client, &format!("M-{n}")).await) })
        })
        .collect();
    let watching = app.database.superuser().await;
    reads_wait(&watching, 2).await;
    superuser.batch_execute("ROLLBACK").await.unwrap();
    for asked in join_all(asked).await {
        let (whose, n, name) = asked.unwrap();
        assert_eq!(name, if n < 20 { json!(format!("{whose} {n}")) } else { Value::Null });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_away_takes_nobody_along() {
    let app = started().await;
    let editor = app.client(Role::Editor).await;
    fill(&editor, "ours", 5).await;
    let superuser = app.database.superuser().await;
    superuser.batch_execute("BEGIN; LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let ask = |n: usize| {
        let editor = editor.clone();
        tokio::spawn(async move { name_of(&editor, &format!("M-{n}")).await })
    };
    let watching = app.database.superuser().await;
    // One after the other, or they would share a read.
    let first = ask(0);
    reads_wait(&watching, 1).await;
    let second = ask(1);
    reads_wait(&watching, 2).await;
    first.abort();
    second.abort();
    // Who comes then does not wait for what is stuck.
    let third = ask(2);
    reads_wait(&watching, 3).await;
    superuser.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(third.await.unwrap(), "ours 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_read_is_told_of_and_the_next_is_sound() {
    let app = started().await;
    let editor = app.client(Role::Editor).await;
    fill(&editor, "ours", 5).await;
    let superuser = app.database.superuser().await;
    superuser.batch_execute("BEGIN; LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let watching = app.database.superuser().await;
    let mut asked = Vec::new();
    for n in 0..2 {
        let editor = editor.clone();
        asked.push(tokio::spawn(async move { editor.send(ONE, json!({ "key": format!("M-{n}") })).await }));
        // One after the other, or they would share a read.
        reads_wait(&watching, n + 1).await;
    }
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'";
    watching.execute(end, &[]).await.unwrap();
    superuser.batch_execute("ROLLBACK").await.unwrap();
    for asked in join_all(asked).await {
        let answer = asked.unwrap();
        assert_eq!(answer.error_code(), Some("UNAVAILABLE"), "{}", answer.body);
    }
    assert_eq!(name_of(&editor, "M-4").await, "ours 4");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_read() {
    let app = started().await;
    let editor = app.client(Role::Editor).await;
    fill(&editor, "ours", 1).await;
    let noise: Vec<_> = (0..8)
        .map(|_| {
            let editor = editor.clone();
            tokio::spawn(async move {
                loop {
                    name_of(&editor, "M-0").await;
                }
            })
        })
        .collect();
    let id = editor.ask(ONE, json!({ "key": "M-0" })).await["metric"]["id"].clone();
    for revision in 1..30 {
        let name = format!("ours, {revision}");
        editor.write("updateMetric", json!({ "id": id, "expectedVersion": revision, "name": name })).await;
        assert_eq!(name_of(&editor, "M-0").await, name);
    }
    noise.iter().for_each(|asking| asking.abort());
}

/// Each field of a metric alone: those that the row does not hold are read from a snapshot of their own operation, which refuses when its
/// policy takes it for a single read.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_for_a_single_read_is_one() {
    let app = started().await;
    let editor = app.client(Role::Editor).await;
    fill(&editor, "ours", 1).await;
    let asked = "{ __type(name: \"Metric\") { fields { name type { kind ofType { kind ofType { kind ofType { kind } } } } } } }";
    let fields = editor.ask(asked, json!({})).await["__type"]["fields"].clone();
    let fields = fields.as_array().unwrap();
    for field in fields {
        let is_object = field["type"].to_string().contains("\"OBJECT\"");
        let selected = format!("{} {}", field["name"].as_str().unwrap(), if is_object { "{ __typename }" } else { "" });
        let found = editor.ask(&format!("{{ metric(key: \"M-0\") {{ {selected} }} }}"), json!({})).await;
        assert!(found["metric"].is_object(), "{selected}: {found}");
    }
    assert!(fields.len() > 30, "{}", fields.len());
}
