//! Figures of the queues for people; on a busy machine only their ratios mean something. docs/operations/jobs.md has the command.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use mdl::Actor;
use mdl::jobs::{self, JobState};
use mdl_tests::servers::PrivateRedis;
use mdl_tests::{clients, variable};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::jobs_bench::{Bench, Probe, test_app};

const NOTHING: Probe = Probe::FailUntil { attempt: 0 };

/// Small numbers, which only show that it runs, or those of the figures (`MDL_FIGURES=full`).
fn sized(small: usize, full: usize) -> usize {
    if variable("MDL_FIGURES").as_deref() == Some("full") { full } else { small }
}

async fn enqueue(bench: &Bench, count: usize, probe: &Probe) {
    for page in vec![probe.clone(); count].chunks(5_000) {
        let tx = bench.app.db.begin(bench.tenant).await.unwrap();
        jobs::enqueue_many(&tx, &Actor::system(bench.tenant), page, 0, None).await.unwrap();
        tx.commit().await.unwrap();
    }
}

/// Waits until all of so many jobs have succeeded; answers with the seconds that it took.
async fn done(bench: &Bench, count: usize) -> f64 {
    // By its indexes: counting a hundred thousand rows again and again would take the time of what is measured.
    let left = "SELECT (EXISTS (SELECT FROM jobs WHERE state = 'waiting')
                     OR EXISTS (SELECT FROM jobs WHERE state IN ('dispatched', 'running')))::int::int8";
    let start = Instant::now();
    while bench.number(left).await > 0 {
        assert!(start.elapsed() < Duration::from_secs(600), "not done in ten minutes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(bench.count(JobState::Succeeded).await as usize, count);
    seconds
}

/// Workers killed at random while they work: what is lost, what is done twice, and how long a job lies still.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn killed_workers() {
    let (count, kills, seeds) = (sized(300, 10_000), sized(2, 20), sized(1, 5));
    println!("seed | jobs | kills | lost | effects twice | runs repeated | longest rescue");
    for seed in 0..seeds as u64 {
        // With the lease that workers have if nothing is set.
        let bench = test_app(&["--worker-lease-seconds=15"]).await;
        let mut random = StdRng::seed_from_u64(seed);
        enqueue(&bench, count, &Probe::Take { millis: 15 }).await;
        let mut workers: Vec<Child> = (0..2).map(|_| bench.worker_process()).collect();
        let mut killed: Vec<(String, DateTime<Utc>)> = Vec::new();
        for _ in 0..kills {
            // In the midst of its work, which it has when some are done.
            let before = bench.count(JobState::Succeeded).await;
            bench.until(async || bench.count(JobState::Succeeded).await > before).await;
            tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
            let victim = &mut workers[random.random_range(0..2)];
            victim.kill().unwrap();
            killed.push((format!("-{}-", victim.id()), Utc::now()));
            victim.wait().unwrap();
            *victim = bench.worker_process();
        }
        done(&bench, count).await;
        for worker in &mut workers {
            worker.kill().unwrap();
            worker.wait().unwrap();
        }
        let lost = count as i64 - bench.count(JobState::Succeeded).await;
        let twice = bench.number("SELECT count(*) - count(DISTINCT job) FROM effects").await;
        let attempts = bench.admin.query("SELECT worker, finished_at FROM job_attempts WHERE outcome = 'lost'", &[]).await;
        let attempts = attempts.unwrap();
        let rescues = attempts.iter().map(|attempt| {
            let (worker, found): (String, DateTime<Utc>) = (attempt.get(0), attempt.get(1));
            let (_, died) = killed.iter().find(|(process, _)| worker.contains(process)).expect("only killed workers lose jobs");
            (found - died).as_seconds_f64()
        });
        let longest = rescues.fold(0.0, f64::max);
        println!("{seed} | {count} | {kills} | {lost} | {twice} | {} | {longest:.1} s", attempts.len());
        assert_eq!((lost, twice), (0, 0));
        assert!(longest <= 30.0, "{longest} s");
        bench.end().await;
    }
}

/// Redis forgets everything while jobs wait in it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn a_flushed_redis() {
    let count = sized(500, 10_000);
    let redis = PrivateRedis::start().await;
    let bench = test_app(&[&format!("--redis-url={}", redis.url())]).await;
    enqueue(&bench, count, &NOTHING).await;
    let worker = bench.worker();
    bench.until_count(JobState::Succeeded, 1).await;
    redis.flush().await;
    let seconds = done(&bench, count).await;
    println!("{count} jobs after a flush of Redis: {seconds:.1} s");
    assert!(seconds <= 60.0, "{seconds} s");
    worker.stop().await;
    bench.end().await;
}

/// Rows of jobs as the ledger takes them, and the same rows as PostgreSQL takes them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn enqueued_in_bulk() {
    let count = sized(5_000, 100_000);
    let bench = test_app(&[]).await;
    let setup = "CREATE TABLE bare (LIKE jobs INCLUDING DEFAULTS); CREATE TABLE indexed (LIKE jobs INCLUDING ALL)";
    bench.admin.batch_execute(setup).await.unwrap();
    let payload = serde_json::to_value(&NOTHING).unwrap();
    let insert = async |table: &str| {
        let statement = format!(
            "INSERT INTO {table} (tenant_id, id, queue, kind, payload, max_attempts)
             SELECT $1, new.id, 'probes', 'probe', new.payload, 3 FROM unnest($2::uuid[], $3::jsonb[]) AS new (id, payload)"
        );
        let statement = bench.admin.prepare(&statement).await.unwrap();
        let start = Instant::now();
        for page in vec![payload.clone(); count].chunks(5_000) {
            let ids: Vec<_> = page.iter().map(|_| uuid::Uuid::now_v7()).collect();
            bench.admin.execute(&statement, &[&bench.tenant.0, &ids, &page]).await.unwrap();
        }
        count as f64 / start.elapsed().as_secs_f64()
    };
    println!("rows a second: ledger | bare insert, without an index | with the ledger's indexes | share of the bare one");
    for _ in 0..3 {
        let start = Instant::now();
        enqueue(&bench, count, &NOTHING).await;
        let ours = count as f64 / start.elapsed().as_secs_f64();
        let (bare, indexed) = (insert("bare").await, insert("indexed").await);
        println!("{ours:.0} | {bare:.0} | {indexed:.0} | {:.2}", ours / bare);
    }
    bench.end().await;
}

/// A backlog of jobs that have failed once and are due again, and one of jobs that are new.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn a_backlog_of_due_retries() {
    let count = sized(2_000, 100_000);
    println!("jobs a second: new | due retries | ratio");
    let drained = async |retries: bool| {
        let bench = test_app(&["--worker-concurrency=100"]).await;
        enqueue(&bench, count, &NOTHING).await;
        if retries {
            let failed = "UPDATE jobs SET attempt = 1, started_at = now(), last_error = 'as the test wanted',
                              run_at = now() - random() * interval '10 minutes';
                          INSERT INTO job_attempts (tenant_id, job_id, lease_token, number, outcome, error)
                              SELECT tenant_id, id, 0, 1, 'failed', last_error FROM jobs";
            bench.admin.batch_execute(failed).await.unwrap();
        }
        bench.admin.batch_execute("VACUUM ANALYZE jobs").await.unwrap();
        let worker = bench.worker();
        let seconds = done(&bench, count).await;
        worker.stop().await;
        bench.end().await;
        count as f64 / seconds
    };
    let (new, due) = (drained(false).await, drained(true).await);
    println!("{new:.0} | {due:.0} | {:.2}", due / new);
}

/// Jobs that do nothing, through ledger and Redis, and through what others make.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn jobs_that_do_nothing() {
    let count = sized(1_000, 50_000);
    let peers = clients::packages("tests/peers");
    println!("jobs a second at a concurrency: | ours | bullmq | graphile-worker | graphile-worker, batched");
    for concurrency in [10, 100] {
        let bench = test_app(&[&format!("--worker-concurrency={concurrency}")]).await;
        enqueue(&bench, count, &NOTHING).await;
        let worker = bench.worker();
        let ours = count as f64 / done(&bench, count).await;
        worker.stop().await;
        let mut line = format!("{concurrency} | {ours:.0}");
        if let Some(folder) = &peers {
            let run = |script: &str, url: &str| -> Value {
                let arguments = [script, url, &count.to_string(), &concurrency.to_string()];
                let output = Command::new("node").args(arguments).current_dir(folder).output().unwrap();
                serde_json::from_slice(&output.stdout)
                    .unwrap_or_else(|error| panic!("{script}: {error}: {}", String::from_utf8_lossy(&output.stderr)))
            };
            let bullmq = run("bullmq.js", bench.app.config.redis.url.as_str());
            let graphile = run("graphile-worker.js", bench.superuser_url().as_str());
            for rate in [&bullmq["perSecond"], &graphile["perSecond"], &graphile["batchedPerSecond"]] {
                line += &format!(" | {:.0}", rate.as_f64().unwrap());
            }
        }
        println!("{line}");
        bench.end().await;
    }
}
