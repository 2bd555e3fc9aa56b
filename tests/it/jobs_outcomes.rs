//! What becomes of a job.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use mdl::jobs::{self, Enqueue, JobState};

use crate::jobs_bench::{Gated, Obedient, Probe, test_app};

// Threads enough, however few the machine has: the attempts of the job that blocks one overlap.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn jobs_end_as_their_handlers_do() {
    let bench = test_app(&["--worker-concurrency=20"]).await;
    let worker = bench.worker();

    let succeeded = bench.enqueue(&Probe::Take { millis: 0 }).await;
    let retried = bench.enqueue(&Probe::FailUntil { attempt: 3 }).await;
    let failed = bench.enqueue(&Probe::FailUntil { attempt: 9 }).await;
    let refused = bench.enqueue(&Probe::Refuse).await;
    let panicked = bench.enqueue(&Probe::Panic).await;
    let hung = bench.enqueue(&Probe::Hang).await;
    let blocked = bench.enqueue(&Probe::Block { millis: 4_000 }).await;

    let job = bench.until_job(succeeded, JobState::Succeeded).await;
    assert_eq!((job.attempt, job.last_error), (1, None));
    let job = bench.until_job(retried, JobState::Succeeded).await;
    assert_eq!((job.attempt, job.last_error), (3, None), "it is tried again until it works, and then there is no error");
    let job = bench.until_job(failed, JobState::Dead).await;
    assert_eq!(job.attempt, 3, "and not for ever");
    assert_eq!(job.last_error.as_deref(), Some("Internal error: not yet"), "without what PostgreSQL cannot store");
    let job = bench.until_job(refused, JobState::Dead).await;
    assert_eq!((job.attempt, job.last_error.as_deref()), (1, Some("There is no thing \"x\"")));
    let job = bench.until_job(panicked, JobState::Dead).await;
    assert_eq!((job.attempt, job.last_error.as_deref()), (3, Some("The handler panicked: as the test wanted")));
    for id in [hung, blocked] {
        let job = bench.until_job(id, JobState::Dead).await;
        assert_eq!((job.attempt, job.last_error.as_deref()), (3, Some("Did not end within 2 s")));
        assert!(job.finished_at.is_some());
    }
    assert_eq!(bench.number("SELECT count(*) FROM effects").await, 1);
    worker.stop().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_cannot_be_read_die_and_the_worker_lives() {
    let bench = test_app(&[]).await;
    let worker = bench.worker();
    let insert = "INSERT INTO jobs (tenant_id, id, queue, kind, payload, max_attempts) VALUES ($1, gen_random_uuid(), 'probes', $2, $3, 3)";
    bench.admin.execute(insert, &[&bench.tenant.0, &"probe", &serde_json::json!({"Nonsense": 1})]).await.unwrap();
    let mut redis = redis::Client::open(bench.app.config.redis.url.as_str()).unwrap().get_connection().unwrap();
    let () = redis::cmd("ZADD").arg(bench.app.redis_key("queue:probes")).arg(1).arg("rubbish").query(&mut redis).unwrap();

    bench.until_count(JobState::Dead, 1).await;
    let row = bench.admin.query_one("SELECT last_error FROM jobs WHERE kind = 'probe'", &[]).await.unwrap();
    assert!(row.get::<_, String>(0).starts_with("The payload cannot be read: unknown variant `Nonsense`"));
    let next = bench.enqueue(&Probe::Take { millis: 0 }).await;
    bench.until_job(next, JobState::Succeeded).await;
    worker.stop().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_unknown_kinds_wait_a_day_for_a_newer_worker() {
    let bench = test_app(&[]).await;
    let worker = bench.worker();
    let insert = "INSERT INTO jobs (tenant_id, id, queue, kind, payload, max_attempts, created_at)
         VALUES ($1, gen_random_uuid(), 'probes', $2, '{}', 1, now() - $3 * interval '1 hour')";
    for (kind, hours) in [("of_tomorrow", 23.0), ("of_yesterday", 25.0)] {
        bench.admin.execute(insert, &[&bench.tenant.0, &kind, &hours]).await.unwrap();
    }
    bench.until_count(JobState::Dead, 1).await;
    let row = bench.admin.query_one("SELECT kind, last_error FROM jobs WHERE state = 'dead'", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "of_yesterday");
    assert!(row.get::<_, String>(1).contains("does not know jobs of kind \"of_yesterday\""));
    let snoozed = "SELECT count(*) FROM jobs WHERE kind = 'of_tomorrow' AND state = 'waiting' AND attempt = 0
         AND run_at BETWEEN now() + interval '20 seconds' AND now() + interval '30 seconds'";
    bench.until(async || bench.number(snoozed).await == 1).await;
    worker.stop().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_cancelled_before_they_begin_and_while_they_run() {
    // So long that no renewal by the clock comes by that job.
    let bench = test_app(&["--worker-lease-seconds=3600"]).await;
    let how = Enqueue { run_at: Some(Utc::now() + TimeDelta::hours(1)), ..Enqueue::default() };
    let later = bench.enqueue_as(&Probe::Take { millis: 0 }, &how).await.unwrap();
    let cancel = async |id| {
        let tx = bench.app.db.begin(bench.tenant).await.unwrap();
        let state = jobs::request_cancel(&tx, bench.tenant, id).await.unwrap();
        tx.commit().await.unwrap();
        state
    };
    assert_eq!(cancel(later).await, Some(JobState::Cancelled));
    assert_eq!(cancel(later).await, Some(JobState::Cancelled), "twice is once");
    assert_eq!(cancel(mdl::ids::JobId::new()).await, None);

    let worker = bench.worker();
    let running = bench.enqueue(&Obedient).await;
    bench.until(async || bench.job(running).await.progress_done.is_some()).await;
    assert_eq!(cancel(running).await, Some(JobState::Running));
    bench.until_job(running, JobState::Cancelled).await;

    let failing = bench.enqueue(&Probe::Hang).await;
    bench.until_job(failing, JobState::Running).await;
    cancel(failing).await;
    let job = bench.until_job(failing, JobState::Cancelled).await;
    assert_eq!(job.attempt, 1, "what was to be cancelled is not tried again");
    worker.stop().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_handed_back_by_a_worker_that_stops() {
    let bench = test_app(&["--worker-lease-seconds=60", "--worker-grace-seconds=5"]).await;
    let folder = tempfile::tempdir().unwrap();
    let gates = ["quick", "slow"].map(|name| Gated::new(&folder, name));
    let first = bench.worker();
    let [quick, slow] = [bench.enqueue(&gates[0]).await, bench.enqueue(&gates[1]).await];
    bench.until(async || gates.iter().all(Gated::has_begun)).await;

    first.stop.gently.cancel();
    gates[0].open();
    first.stop().await;
    assert_eq!(bench.job(quick).await.state, JobState::Succeeded, "what fits into the grace is finished");
    let job = bench.job(slow).await;
    assert_eq!((job.state, job.attempt), (JobState::Waiting, 0), "the rest goes back, and the attempt does not count");

    gates[1].open();
    let second = bench.worker();
    let job = bench.until_job(slow, JobState::Succeeded).await;
    assert_eq!(job.attempt, 1);
    assert_eq!(bench.number("SELECT count(*) FROM effects").await, 2);
    second.stop().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_belong_to_the_newest_lease() {
    let bench = test_app(&[]).await;
    let worker = bench.worker();
    let folder = tempfile::tempdir().unwrap();
    let gated = Gated::new(&folder, "taken");
    let id = bench.enqueue(&gated).await;
    bench.until(async || gated.has_begun()).await;
    let taken = "UPDATE jobs SET lease_token = lease_token + 1, worker = 'another', lease_until = now() + interval '1 hour'";
    bench.admin.execute(taken, &[]).await.unwrap();
    gated.open();
    // Our worker runs it to its end, or drops it: neither may show.
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(bench.job(id).await.state, JobState::Running);
    assert_eq!(bench.number("SELECT count(*) FROM effects").await, 0, "the handler's own transaction is refused");
    // The other one dies, and it comes back to us.
    bench.admin.execute("UPDATE jobs SET lease_until = now()", &[]).await.unwrap();
    bench.until_job(id, JobState::Succeeded).await;
    assert_eq!(bench.number("SELECT count(*) FROM effects").await, 1);
    worker.stop().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_by_priority_and_when_they_are_due() {
    let bench = test_app(&["--worker-concurrency=1", "--worker-queue-window=2"]).await;
    let mut ids = Vec::new();
    for priority in [0, 5, -5, 9, 1] {
        let how = Enqueue { priority, ..Enqueue::default() };
        ids.push(bench.enqueue_as(&Probe::Take { millis: 1 }, &how).await.unwrap());
    }
    let unique =
        Enqueue { unique_key: Some("one".to_owned()), run_at: Some(Utc::now() + TimeDelta::hours(1)), ..Enqueue::default() };
    let later = bench.enqueue_as(&Probe::Take { millis: 1 }, &unique).await.unwrap();
    assert_eq!(bench.enqueue_as(&Probe::Take { millis: 1 }, &unique).await, None, "one unfinished job of a key");

    let worker = bench.worker();
    bench.until_count(JobState::Succeeded, 5).await;
    let soon = "UPDATE jobs SET run_at = now() + interval '2 seconds' WHERE id = $1";
    bench.admin.execute(soon, &[&later.0]).await.unwrap();
    let job = bench.until_job(later, JobState::Succeeded).await;
    let late = job.started_at.unwrap() - job.run_at;
    assert!(late >= TimeDelta::zero() && late < TimeDelta::seconds(10), "started {late} after it was due");
    let rows = bench.admin.query("SELECT job FROM effects ORDER BY at", &[]).await.unwrap();
    let order: Vec<uuid::Uuid> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(order, [ids[3], ids[1], ids[4], ids[0], ids[2], later].map(|id| id.0));
    assert!(bench.enqueue_as(&Probe::Take { millis: 1 }, &unique).await.is_some(), "the key is free again");
    worker.stop().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_claimed_ahead_is_not_held_up_by_a_long_one() {
    // Short ones first, so that the worker claims ahead; then one that takes its only place for long, and one behind that.
    let bench = test_app(&["--worker-concurrency=1"]).await;
    bench.enqueue_many(200, &Probe::FailUntil { attempt: 0 }).await;
    let long = bench.enqueue(&Obedient).await;
    let behind = bench.enqueue(&Probe::Take { millis: 0 }).await;
    let first = bench.worker();
    bench.until_job(long, JobState::Running).await;
    let second = bench.worker();
    bench.until_job(behind, JobState::Succeeded).await;
    assert_eq!(bench.job(long).await.state, JobState::Running);
    assert_eq!(bench.job(behind).await.attempt, 1, "it had not begun");
    let tx = bench.app.db.begin(bench.tenant).await.unwrap();
    jobs::request_cancel(&tx, bench.tenant, long).await.unwrap();
    tx.commit().await.unwrap();
    first.stop().await;
    second.stop().await;
    bench.end().await;
}
