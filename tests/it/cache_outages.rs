//! The cache while Redis is away, frozen or empty, and after a writer that died too early.

use std::time::{Duration, Instant};

use mdl::App;
use mdl::actor::Role;
use mdl::versions::{GRACE, SLICE, TRUST};
use mdl_tests::servers::PrivateRedis;
use mdl_tests::{Client, TestApp, eventually};
use serde_json::{Value, json};

use crate::cache::{source, started};
use crate::hearing::{live, undisturbed};

const READ: &str = "{ metric(key: \"M\") { description } }";

/// Two APIs on one Redis.
struct Pair {
    app: TestApp,
    other_app: App,
    writer: Client,
    other: Client,
    id: Value,
}

impl Pair {
    async fn on(redis: &PrivateRedis) -> Self {
        let url = redis.url();
        let unlimited = [("MDL_RATE_LIMIT_PER_SECOND", "100000"), ("MDL_RATE_LIMIT_BURST", "100000")];
        let app = started(&[&[("REDIS_URL", url.as_str())], &unlimited[..]].concat()).await;
        let (other_app, base) = app.another_api(&[]).await;
        live(&other_app).await;
        let writer = app.client(Role::Editor).await;
        let other = writer.at(&base);
        let id = writer.write("createMetric", json!({ "key": "M", "name": "M", "description": "0" })).await["id"].clone();
        Self { app, other_app, writer, other, id }
    }

    async fn write(&self, value: u32) {
        let input = json!({ "id": self.id, "description": value.to_string() });
        assert_eq!(self.writer.mutate("updateMetric", input, "").await.user_errors(), [""; 0]);
    }

    /// Writes; the writer sees it at once, the other API within the bound. Gives how long that took.
    async fn write_and_see(&self, value: u32, bound: Duration) -> Duration {
        for client in [&self.writer, &self.other] {
            read(client).await;
            read(client).await;
        }
        self.write(value).await;
        let written = Instant::now();
        assert_eq!(read(&self.writer).await.0, value, "the writer reads what it has written");
        loop {
            let asked = written.elapsed();
            if read(&self.other).await.0 == value {
                return asked;
            }
            assert!(asked < bound, "the other API is {asked:?} behind");
        }
    }

    async fn live(&self) {
        live(&self.app.app).await;
        live(&self.other_app).await;
    }
}

async fn read(client: &Client) -> (u32, String) {
    let answer = client.send(READ, json!({})).await;
    let value = answer.data()["metric"]["description"].as_str().unwrap().parse().unwrap();
    (value, source(&answer).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_nothing_is_older_than_a_second() {
    let mut redis = PrivateRedis::start().await;
    let pair = Pair::on(&redis).await;
    let usual = pair.write_and_see(1, Duration::from_secs(1)).await;
    redis.stop();
    let bound = TRUST.max(SLICE);
    let mut worst = Duration::ZERO;
    // The first while the end of Redis may not have been noticed.
    for value in 2..8 {
        worst = worst.max(pair.write_and_see(value, bound).await);
    }
    println!("{usual:?} with Redis, {worst:?} without at worst, {bound:?} allowed");
    // Answers are kept all the same, for the rest of the second.
    let (start, mut hits) = (Instant::now(), 0);
    for _ in 0..20 {
        hits += u32::from(read(&pair.other).await.1 == "HIT");
    }
    // Five times a second it tries to reach Redis, and then begins anew: reads that are slower than that find nothing.
    assert!(hits >= 10 || start.elapsed() > Duration::from_secs(1), "{hits} hits of 20 without Redis");

    let redis = redis.restart().await;
    pair.live().await;
    pair.write_and_see(8, Duration::from_secs(1)).await;
    eventually("the two share answers again", async || {
        pair.write(9).await;
        read(&pair.writer).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        (read(&pair.other).await == (9, "HIT".to_owned())).then_some(())
    })
    .await;
    drop(redis);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_holds_nobody_up() {
    let redis = PrivateRedis::start().await;
    let pair = Pair::on(&redis).await;
    pair.write_and_see(1, Duration::from_secs(1)).await;
    redis.pause();
    let mut times = Vec::new();
    for value in 2..6 {
        let start = Instant::now();
        pair.write_and_see(value, TRUST.max(SLICE)).await;
        times.push(start.elapsed());
    }
    // Who waited for Redis would do so each time.
    assert!(times.iter().any(|time| *time < Duration::from_secs(3)), "a write and some reads took {times:?}");
    redis.resume();
    // What was written meanwhile is told late, and nothing comes back before it is.
    let resumed = Instant::now();
    while resumed.elapsed() < GRACE + TRUST {
        assert_eq!((read(&pair.writer).await.0, read(&pair.other).await.0), (5, 5), "{:?} after", resumed.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    pair.live().await;
    for value in 6..10 {
        pair.write_and_see(value, Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_forgets_everything_brings_nothing_back() {
    let redis = PrivateRedis::start().await;
    let pair = Pair::on(&redis).await;
    for value in 1..10 {
        pair.write_and_see(value, Duration::from_secs(1)).await;
        redis.flush().await;
        assert_eq!(read(&pair.writer).await.0, value);
        assert_eq!(read(&pair.other).await.0, value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_with_the_past_brings_nothing_back() {
    let redis = PrivateRedis::start().await;
    let pair = Pair::on(&redis).await;
    pair.write_and_see(1, Duration::from_secs(1)).await;
    // Now there are answers in memory and in Redis, and Redis saves them with their versions.
    for (app, client) in [(&pair.app.app, &pair.writer), (&pair.other_app, &pair.other)] {
        let again = undisturbed(app, pair.app.tenant.id, async || {
            read(client).await;
            read(client).await
        })
        .await;
        assert_eq!(again, (1, "HIT".to_owned()));
    }
    redis.save().await;
    pair.write_and_see(2, Duration::from_secs(1)).await;
    let redis = redis.restart().await;
    for _ in 0..20 {
        assert_eq!((read(&pair.writer).await.0, read(&pair.other).await.0), (2, 2));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pair.live().await;
    for client in [&pair.writer, &pair.other, &pair.writer] {
        assert_eq!(read(client).await.0, 2);
    }
    pair.write_and_see(3, Duration::from_secs(1)).await;
    drop(redis);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_writer_left_is_found() {
    let redis = PrivateRedis::start().await;
    let pair = Pair::on(&redis).await;
    pair.app.start_worker();
    pair.write_and_see(1, Duration::from_secs(1)).await;
    let superuser = pair.app.database.superuser().await;
    // The worker's first look finds everything; the others have to find what is new.
    for value in 2..5 {
        read(&pair.other).await;
        read(&pair.other).await;
        // All that a writer leaves that dies right after its commit.
        let committed = format!(
            "BEGIN;
             UPDATE metrics SET description = '{value}';
             INSERT INTO outbox (tenant_id, id, kind, payload)
                 SELECT tenant_id, '{}', 'metric.updated', '{{}}' FROM metrics;
             COMMIT",
            uuid::Uuid::now_v7()
        );
        superuser.batch_execute(&committed).await.unwrap();
        eventually("the change is found", async || (read(&pair.other).await.0 == value).then_some(())).await;
    }
}
