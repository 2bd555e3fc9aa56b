//! Nothing is lost: not with a worker, not with Redis, not with a connection.

use std::time::{Duration, Instant};

use mdl::jobs::JobState;
use mdl_tests::eventually;
use mdl_tests::servers::PrivateRedis;

use crate::jobs_bench::{Bench, Probe, test_app};

const JOBS: i64 = 200;

/// For what comes back only when its lease has ended.
const SHORT_LEASE: &str = "--worker-lease-seconds=2";

#[tokio::test(flavor = "multi_thread")]
async fn jobs_survive_a_killed_worker() {
    let bench = test_app(&[SHORT_LEASE]).await;
    bench.enqueue_many(JOBS as usize, &Probe::Take { millis: 20 }).await;
    let mut victim = bench.worker_process();
    bench.until_count(JobState::Succeeded, 60).await;
    victim.kill().unwrap();
    victim.wait().unwrap();
    let left_running = bench.count(JobState::Running).await;

    let worker = bench.worker();
    bench.until_count(JobState::Succeeded, JOBS).await;
    worker.stop().await;
    assert_each_once(&bench, left_running).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_survive_a_flushed_redis() {
    let redis = PrivateRedis::start().await;
    let bench = test_app(&[&format!("--redis-url={}", redis.url())]).await;
    let worker = bench.worker();
    bench.enqueue_many(JOBS as usize, &Probe::Take { millis: 20 }).await;
    for done in [20, 80] {
        bench.until_count(JobState::Succeeded, done).await;
        redis.flush().await;
    }
    bench.until_count(JobState::Succeeded, JOBS).await;
    worker.stop().await;
    assert_each_once(&bench, 0).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_on_without_redis() {
    let mut redis = PrivateRedis::start().await;
    let bench = test_app(&[&format!("--redis-url={}", redis.url())]).await;
    let worker = bench.worker();
    bench.enqueue_many(JOBS as usize, &Probe::Take { millis: 20 }).await;
    bench.until_count(JobState::Succeeded, 20).await;
    redis.stop();
    bench.until_count(JobState::Succeeded, 100).await;
    let _redis = redis.restart().await;
    bench.until_count(JobState::Succeeded, JOBS).await;
    let after = bench.enqueue(&Probe::Take { millis: 0 }).await;
    bench.until_job(after, JobState::Succeeded).await;
    assert!(!worker.has_ended());
    worker.stop().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_survive_an_absent_postgresql() {
    let bench = test_app(&[SHORT_LEASE]).await;
    let worker = bench.worker();
    bench.enqueue_many(JOBS as usize, &Probe::Take { millis: 20 }).await;
    let others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let (connected, cut) = (format!("SELECT count(*) {others}"), format!("SELECT count(pg_terminate_backend(pid)) {others}"));
    let mut cuts = 0;
    for (done, away) in [(20, Duration::ZERO), (60, Duration::from_secs(3)), (100, Duration::ZERO)] {
        bench.until_count(JobState::Succeeded, done).await;
        // It may be on its way back from the time before.
        eventually("the worker is connected", async || (bench.number(&connected).await > 0).then_some(())).await;
        bench.allow_connections(away.is_zero()).await;
        cuts += bench.number(&cut).await;
        tokio::time::sleep(away).await;
        bench.allow_connections(true).await;
    }
    assert!(cuts > 0, "there was nothing to cut");
    bench.until_count(JobState::Succeeded, JOBS).await;
    // A cut connection may have committed without our knowing it; then its job ran twice.
    assert_each_once(&bench, 12).await;
    assert!(!worker.has_ended());
    worker.stop().await;
    bench.end().await;
}

/// A figure for people: `cargo test --workspace --test it jobs_per_second -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, and asserts nothing"]
async fn jobs_per_second() {
    for count in [2_000, 8_000] {
        let bench = test_app(&["--worker-concurrency=16"]).await;
        bench.enqueue_many(count, &Probe::FailUntil { attempt: 0 }).await;
        let start = Instant::now();
        let worker = bench.worker();
        bench.until_count(JobState::Succeeded, count as i64).await;
        println!("{count} jobs that do nothing: {:.0}/s", count as f64 / start.elapsed().as_secs_f64());
        worker.stop().await;
        bench.end().await;
    }
}

/// Every job has succeeded, and no more than `twice` had their effect again.
async fn assert_each_once(bench: &Bench, twice: i64) {
    assert_eq!(bench.count(JobState::Succeeded).await, JOBS);
    assert_eq!(bench.number("SELECT count(DISTINCT job) FROM effects").await, JOBS);
    let repeated = bench.number("SELECT count(*) FROM effects").await - JOBS;
    assert!(repeated <= twice, "{repeated} jobs had their effect twice");
}
