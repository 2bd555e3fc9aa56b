//! Queries on a read replica that is behind, stuck, gone, and back: nobody sees the past after the present.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mdl::actor::Role;
use mdl_tests::postgres::PrivatePostgres;
use mdl_tests::{Client, TestApp, TestDatabase, eventually};
use serde_json::{Value, json};

use crate::cache::source;
use crate::hearing::live;

const READ: &str = "{ metric(key: \"M\") { description } }";

/// An API whose queries may read from a replica, and the servers.
struct Replicated {
    app: TestApp,
    writer: Client,
    id: Value,
    primary: PrivatePostgres,
    replica: PrivatePostgres,
}

impl Replicated {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let primary = PrivatePostgres::start();
        let database = TestDatabase::migrated_on(primary.url("postgres")).await;
        let replica = primary.replica();
        let read_url = database.url("mdl_app").replace(&primary.port().to_string(), &replica.port().to_string());
        let unlimited = [("MDL_RATE_LIMIT_PER_SECOND", "100000"), ("MDL_RATE_LIMIT_BURST", "100000")];
        let app =
            TestApp::start_on(database, &[&[("DATABASE_READ_URL", read_url.as_str())], &unlimited[..], settings].concat()).await;
        live(&app.app).await;
        let writer = app.client(Role::Editor).await;
        let id = writer.write("createMetric", json!({ "key": "M", "name": "M", "description": "0" })).await["id"].clone();
        Self { app, writer, id, primary, replica }
    }

    async fn write(&self, value: u32) {
        let input = json!({ "id": self.id, "description": value.to_string() });
        assert_eq!(self.writer.mutate("updateMetric", input, "").await.user_errors(), [""; 0]);
    }

    /// Makes answers until one of them was read from the replica.
    async fn until_the_replica_serves(&self, client: &Client) {
        let start = Instant::now();
        for number in 0.. {
            let before = self.app.app.db.replica_reads();
            // Each time another question, so that the answer is not there yet.
            client.ask(&READ.replace("{ description", &format!("{{ d{number}: description description")), json!({})).await;
            if self.app.app.db.replica_reads() > before {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the replica serves nothing");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn read(client: &Client) -> (u32, String) {
    let answer = client.send(READ, json!({})).await;
    let value = answer.data()["metric"]["description"].as_str().unwrap().parse().unwrap();
    (value, source(&answer).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_behind_is_not_asked() {
    // With answers kept, and without.
    for bytes in ["67108864", "0"] {
        let test = Replicated::start(&[("MDL_CACHE_BYTES", bytes)]).await;
        let (other_app, base) = test.app.another_api(&[]).await;
        live(&other_app).await;
        let other = test.writer.at(&base);
        test.until_the_replica_serves(&test.writer).await;

        test.replica.execute("SELECT pg_wal_replay_pause()").await;
        for value in 1..5 {
            test.write(value).await;
            let before = test.app.app.db.replica_reads();
            assert_eq!(read(&test.writer).await.0, value, "the writer reads what it has written");
            assert_eq!(test.app.app.db.replica_reads(), before, "the replica has not replayed it");
            eventually("the other API has heard of it", async || (read(&other).await.0 == value).then_some(())).await;
        }
        // What was kept meanwhile is of the present, and stays so when the replica has caught up.
        test.replica.execute("SELECT pg_wal_replay_resume()").await;
        test.until_the_replica_serves(&test.writer).await;
        for client in [&test.writer, &other] {
            assert_eq!(read(client).await.0, 4);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_is_read_from_the_primary() {
    let test = Replicated::start(&[]).await;
    test.until_the_replica_serves(&test.writer).await;
    test.replica.execute("SELECT pg_wal_replay_pause()").await;
    let admin = test.app.client(Role::Admin).await;
    let before = test.app.app.db.replica_reads();
    let made = admin.mutate("createApiKey", json!({ "name": "New", "scopes": ["CATALOG_READ"] }), "apiKey { id }").await;
    assert_eq!(made.user_errors(), [""; 0]);
    let keys = admin.ask("{ apiKeys(first: 10) { nodes { name } } }", json!({})).await;
    assert_eq!(keys["apiKeys"]["nodes"], json!([{ "name": "New" }]));
    assert_eq!(test.app.app.db.replica_reads(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_replica_the_primary_answers() {
    let test = Replicated::start(&[("MDL_CACHE_BYTES", "0")]).await;
    test.until_the_replica_serves(&test.writer).await;
    test.replica.stop();
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(read(&test.writer).await.0, 0);
        assert!(start.elapsed() < Duration::from_secs(10), "an answer took {:?}", start.elapsed());
    }
    test.replica.begin();
    test.until_the_replica_serves(&test.writer).await;
    // One that follows nobody any more is no replica: it may lack what was written since.
    test.replica.execute("SELECT pg_promote()").await;
    let promoted = test.app.app.db.replica_reads();
    test.write(1).await;
    assert_eq!(read(&test.writer).await.0, 1);
    assert_eq!(test.app.app.db.replica_reads(), promoted);
}

/// A writer and readers on two APIs, while the replica stops and goes. What an API has heard of is the least that it shows: the
/// writer's own has heard when the write is done, the other when the news has come.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_sees_the_past_while_the_replica_stutters() {
    let test = Replicated::start(&[]).await;
    let (other_app, base) = test.app.another_api(&[]).await;
    live(&other_app).await;
    let (here, there) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let over = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for (base, heard) in [(&test.app.base, &here), (&base, &there), (&base, &there)] {
        let (reader, heard, over) = (test.app.client(Role::Viewer).await.at(base), heard.clone(), over.clone());
        readers.push(tokio::spawn(async move {
            let mut reads = 0;
            while !over.load(Ordering::Relaxed) {
                // One of many questions, so that some are asked for the first time after the replica has caught up.
                let question = READ.replace("{ metric", &format!("{{ q{}: metric", reads % 50));
                let least = heard.load(Ordering::SeqCst);
                let value: u32 =
                    reader.send(&question, json!({})).await.payload()["description"].as_str().unwrap().parse().unwrap();
                assert!(value >= least, "{least} was heard of, and {value} is shown");
                reads += 1;
            }
            reads
        }));
    }
    let served = || test.app.app.db.replica_reads() + other_app.db.replica_reads();
    let start = Instant::now();
    let mut value = 0;
    while start.elapsed() < Duration::from_secs(4) || served() == 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "the replica serves nothing");
        test.replica.execute("SELECT pg_wal_replay_pause()").await;
        for _ in 0..3 {
            value += 1;
            let changes = async || other_app.versions.changes(test.app.tenant.id);
            let before = eventually("the other API hears", changes).await;
            test.write(value).await;
            here.store(value, Ordering::SeqCst);
            assert_eq!(read(&test.writer).await.0, value, "the writer reads what it has written");
            eventually("the other API has heard of it", async || changes().await.filter(|after| *after > before)).await;
            there.store(value, Ordering::SeqCst);
        }
        test.replica.execute("SELECT pg_wal_replay_resume()").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut reads = 0;
    for reader in readers {
        reads += reader.await.unwrap();
    }
    println!("{value} writes, {reads} reads, {} of them on the replica", served());
    drop(test.primary);
}
