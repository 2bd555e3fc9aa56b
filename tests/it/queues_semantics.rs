//! What the queues promise beyond running a job: turns, limits, pauses, batches, periods, attempts.

use std::cell::Cell;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use mdl::Actor;
use mdl::actor::Subject;
use mdl::ids::{JobId, SessionId, TenantId, UserId};
use mdl::jobs::steer::{Action, steer};
use mdl::jobs::store::{AttemptOutcome, Filter, attempts};
use mdl::jobs::{Enqueue, JobState, batches, queues};
use mdl::tenants::SYSTEM;

use crate::jobs_bench::{Bench, Obedient, Probe, test_app};

const NOTHING: Probe = Probe::FailUntil { attempt: 0 };

/// Another tenant of the bench.
async fn another_tenant(bench: &Bench, slug: &str) -> TenantId {
    let tenant = TenantId::new();
    let insert = format!("INSERT INTO tenants (id, slug, name) VALUES ('{tenant}', '{slug}', '{slug}')");
    bench.admin.batch_execute(&insert).await.unwrap();
    tenant
}

async fn enqueue_for(bench: &Bench, tenant: TenantId, count: usize, probe: &Probe) -> Vec<JobId> {
    let probes = vec![probe.clone(); count];
    let tx = bench.app.db.begin(tenant).await.unwrap();
    let ids = mdl::jobs::enqueue_many(&tx, &Actor::system(tenant), &probes, 0, None).await.unwrap();
    tx.commit().await.unwrap();
    ids
}

async fn until_started(bench: &Bench, job: JobId) {
    let started = format!("SELECT count(*) FROM jobs WHERE id = '{job}' AND started_at IS NOT NULL");
    bench.until(async || bench.number(&started).await == 1).await;
}

/// Waits until a job has begun that was just enqueued. How many of other tenants went before it meanwhile.
async fn went_before(bench: &Bench, job: JobId) -> i64 {
    let now = bench.admin.query_one("SELECT clock_timestamp()::text", &[]).await.unwrap().get::<_, String>(0);
    until_started(bench, job).await;
    let others = format!(
        "SELECT count(*) FROM jobs AS other JOIN jobs AS this ON this.tenant_id <> other.tenant_id
         WHERE this.id = '{job}' AND other.started_at > '{now}' AND other.started_at < this.started_at"
    );
    bench.number(&others).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_one_tenant_does_not_delay_the_first_job_of_another() {
    let bench = test_app(&["--worker-concurrency=4", "--worker-queue-window=200"]).await;
    enqueue_for(&bench, bench.tenant, 20_000, &Probe::Take { millis: 20 }).await;
    let worker = bench.worker();
    bench.until_count(JobState::Succeeded, 100).await;
    for slug in ["second", "third"] {
        let other = another_tenant(&bench, slug).await;
        let first = enqueue_for(&bench, other, 1, &NOTHING).await[0];
        let others = went_before(&bench, first).await;
        assert!(others <= 300, "{others} jobs of the backlog went before the first one of another tenant");
    }
    // Two backlogs are worked off side by side.
    let other = another_tenant(&bench, "fourth").await;
    enqueue_for(&bench, other, 5_000, &Probe::Take { millis: 20 }).await;
    let of_both = format!("FROM jobs WHERE started_at >= (SELECT min(started_at) FROM jobs WHERE tenant_id = '{other}')");
    bench.until(async || bench.number(&format!("SELECT count(*) {of_both}")).await >= 400).await;
    let of_the_fourth = format!(
        "SELECT count(*) FILTER (WHERE tenant_id = '{other}')
         FROM (SELECT tenant_id {of_both} ORDER BY started_at, turn LIMIT 400) AS first"
    );
    let share = bench.number(&of_the_fourth).await;
    assert!((133..=267).contains(&share), "{share} of the fourth tenant among 400 of it and the first");
    let sent = "SELECT count(*) FROM jobs WHERE state = 'dispatched'";
    assert!(bench.number(sent).await <= 300, "the window is shared");
    worker.stop().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_of_three_times_the_weight_has_three_jobs_for_one() {
    let bench = test_app(&["--worker-concurrency=4", "--worker-queue-window=400"]).await;
    let light = another_tenant(&bench, "light").await;
    let heavy = Actor::system(bench.tenant);
    let person = Subject::User { user: UserId::new(), session: SessionId::new() };
    for tenant in [light, bench.tenant] {
        enqueue_for(&bench, tenant, 2_000, &Probe::Take { millis: 2 }).await;
    }
    let own = queues::set_weight(&bench.app, &Actor { subject: person, ..heavy.clone() }, "probes", 100).await;
    assert_eq!(own.unwrap_err().code(), "FORBIDDEN", "nobody gives themselves more");
    assert_eq!(queues::set_weight(&bench.app, &heavy, "probes", 0).await.unwrap_err().code(), "BAD_USER_INPUT");
    assert_eq!(queues::set_weight(&bench.app, &heavy, "probes", 3).await.unwrap().weight, 3);
    let window = format!(
        "SELECT count(*) FILTER (WHERE tenant_id = '{}'), count(*) FILTER (WHERE tenant_id = '{light}')
         FROM jobs WHERE state = 'dispatched'",
        bench.tenant
    );
    // The last one that was well filled.
    let sent = Cell::new((0, 0));
    let worker = bench.worker();
    bench
        .until(async || {
            let row = bench.admin.query_one(&window, &[]).await.unwrap();
            let now: (i64, i64) = (row.get(0), row.get(1));
            if now.0 + now.1 > 100 {
                sent.set(now);
            }
            bench.count(JobState::Succeeded).await >= 800
        })
        .await;
    worker.stop().await;
    // In the order in which they began, while both had a backlog.
    let of_the_heavy = format!(
        "SELECT count(*) FILTER (WHERE tenant_id = '{}') FROM
         (SELECT tenant_id FROM jobs WHERE started_at IS NOT NULL ORDER BY started_at, turn LIMIT 800) AS first",
        bench.tenant
    );
    let share = bench.number(&of_the_heavy).await;
    assert!((560..=640).contains(&share), "{share} of 800, where 600 are three for one");
    let sent = sent.get();
    assert!(sent.0 > 2 * sent.1, "the window is shared by weight: {sent:?}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_does_not_begin() {
    let bench = test_app(&[]).await;
    let other = another_tenant(&bench, "other").await;
    let (own, system) = (Actor::system(bench.tenant), Actor::system(SYSTEM));
    let worker = bench.worker();
    let warm = bench.enqueue(&NOTHING).await;
    bench.until_job(warm, JobState::Succeeded).await;

    queues::pause(&bench.app, &own, "probes").await.unwrap();
    enqueue_for(&bench, bench.tenant, 50, &NOTHING).await;
    let others = enqueue_for(&bench, other, 1, &NOTHING).await[0];
    until_started(&bench, others).await;
    assert_eq!(bench.count(JobState::Waiting).await, 50, "the tenant's own wait, another tenant's do not");

    queues::pause(&bench.app, &system, "probes").await.unwrap();
    queues::resume(&bench.app, &own, "probes").await.unwrap();
    let others = enqueue_for(&bench, other, 1, &NOTHING).await[0];
    // Nothing happens: there is nothing to wait for but time.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(bench.count(JobState::Waiting).await, 51, "the whole queue waits");
    queues::resume(&bench.app, &system, "probes").await.unwrap();
    bench.until_count(JobState::Succeeded, 53).await;
    until_started(&bench, others).await;
    assert_eq!(bench.number("SELECT count(*) FROM audit_log WHERE action LIKE 'queue.%'").await, 4);
    worker.stop().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_comes_back_when_its_queue_is_paused() {
    let bench = test_app(&["--worker-concurrency=1", "--worker-queue-window=50"]).await;
    let worker = bench.worker();
    enqueue_for(&bench, bench.tenant, 60, &Probe::Take { millis: 50 }).await;
    bench.until_count(JobState::Succeeded, 3).await;
    queues::pause(&bench.app, &Actor::system(bench.tenant), "probes").await.unwrap();
    assert_eq!(bench.count(JobState::Dispatched).await, 0);
    bench.until(async || bench.count(JobState::Running).await == 0).await;
    let done = bench.count(JobState::Succeeded).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.count(JobState::Succeeded).await, done, "nothing begins");
    queues::resume(&bench.app, &Actor::system(bench.tenant), "probes").await.unwrap();
    bench.until_count(JobState::Succeeded, 60).await;
    worker.stop().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_run_at_once_than_the_limit() {
    let bench = test_app(&["--worker-concurrency=20"]).await;
    let other = another_tenant(&bench, "other").await;
    for tenant in [bench.tenant, other] {
        enqueue_for(&bench, tenant, 40, &Probe::Take { millis: 30 }).await;
    }
    queues::set_concurrency(&bench.app, &Actor::system(bench.tenant), "probes", Some(2)).await.unwrap();
    queues::set_concurrency(&bench.app, &Actor::system(SYSTEM), "probes", Some(5)).await.unwrap();
    let workers = [bench.worker(), bench.worker()];
    let (mut own, mut all) = (0, 0);
    while bench.count(JobState::Succeeded).await < 80 {
        let running = "SELECT count(*) FROM jobs WHERE state IN ('dispatched', 'running')";
        all = all.max(bench.number(running).await);
        own = own.max(bench.number(&format!("{running} AND tenant_id = '{}'", bench.tenant)).await);
    }
    assert!((1..=2).contains(&own) && (3..=5).contains(&all), "{own} of the limited tenant, {all} of all");
    for worker in workers {
        worker.stop().await;
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_after_a_batch_waits_for_all_of_it() {
    let bench = test_app(&["--worker-concurrency=8"]).await;
    let own = Actor::system(bench.tenant);
    let batch = async |probes: &[Probe]| {
        let tx = bench.app.db.begin(bench.tenant).await.unwrap();
        let then = batches::enqueue_batch(&tx, &own, probes, &Probe::Take { millis: 0 }).await.unwrap();
        tx.commit().await.unwrap();
        then
    };
    let then = batch(&vec![Probe::Take { millis: 20 }; 40]).await;
    assert_eq!(bench.job(then).await.state, JobState::Held);
    let worker = bench.worker();
    bench.until_job(then, JobState::Succeeded).await;
    let last = bench.admin.query_one("SELECT job FROM effects ORDER BY at DESC LIMIT 1", &[]).await.unwrap();
    assert_eq!(last.get::<_, uuid::Uuid>(0), then.0);
    assert_eq!(bench.number("SELECT count(*) FROM effects").await, 41);

    // A dead one holds the rest up until somebody decides.
    let then = batch(&[NOTHING, Probe::Refuse]).await;
    bench.until_count(JobState::Dead, 1).await;
    assert_eq!(bench.job(then).await.state, JobState::Held);
    let dead = Filter { states: Some(vec![JobState::Dead]), ..Filter::default() };
    assert_eq!(steer(&bench.app, &own, Action::Discard, &dead, false).await.unwrap(), 1);
    bench.until_job(then, JobState::Succeeded).await;
    let then = batch(&[]).await;
    bench.until_job(then, JobState::Succeeded).await;
    worker.stop().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_be_taken_for_a_period() {
    let bench = test_app(&[]).await;
    let worker = bench.worker();
    let how = Enqueue { unique_key: Some("daily".to_owned()), unique_for: Some(Duration::from_secs(3600)), ..Enqueue::default() };
    let first = bench.enqueue_as(&NOTHING, &how).await.unwrap();
    bench.until_job(first, JobState::Succeeded).await;
    assert_eq!(bench.enqueue_as(&NOTHING, &how).await, None, "it has ended, but not its period");
    bench.admin.batch_execute("UPDATE jobs SET unique_until = now() - interval '1 second'").await.unwrap();
    assert!(bench.enqueue_as(&NOTHING, &how).await.is_some());
    worker.stop().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_remembered_and_snoozes_are_none() {
    let bench = test_app(&[]).await;
    let worker = bench.worker();
    let of = async |id| {
        let tx = bench.app.db.begin(bench.tenant).await.unwrap();
        let attempts = attempts(&tx, bench.tenant, id).await.unwrap();
        attempts.into_iter().map(|attempt| (attempt.number, attempt.outcome, attempt.error.is_some())).collect::<Vec<_>>()
    };
    let retried = bench.enqueue(&Probe::FailUntil { attempt: 3 }).await;
    let refused = bench.enqueue(&Probe::Refuse).await;
    let time = Utc::now() + TimeDelta::seconds(1);
    let early = bench.enqueue(&Probe::NotBefore { time }).await;
    bench.until_job(retried, JobState::Succeeded).await;
    assert_eq!(of(retried).await, [(1, AttemptOutcome::Failed, true), (2, AttemptOutcome::Failed, true)]);
    bench.until_job(refused, JobState::Dead).await;
    assert_eq!(of(refused).await, [(1, AttemptOutcome::Dead, true)]);
    let job = bench.until_job(early, JobState::Succeeded).await;
    assert!(job.attempt == 1 && of(early).await.is_empty() && job.finished_at.unwrap() >= time);

    let obeys = bench.enqueue(&Obedient).await;
    bench.until(async || bench.job(obeys).await.progress_done.is_some()).await;
    let job = bench.job(obeys).await;
    assert_eq!((job.progress_done, job.progress_total, job.progress_message.as_deref()), (Some(3), Some(7), Some("waiting")));
    let this = Filter { ids: Some(vec![obeys]), ..Filter::default() };
    assert_eq!(steer(&bench.app, &Actor::system(bench.tenant), Action::Cancel, &this, false).await.unwrap(), 1);
    bench.until_job(obeys, JobState::Cancelled).await;
    assert_eq!(of(obeys).await, [(1, AttemptOutcome::Cancelled, false)]);
    worker.stop().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_tell_that_they_live_and_that_they_stopped() {
    let bench = test_app(&[]).await;
    let worker = bench.worker();
    let mut killed = bench.worker_process();
    bench.until(async || bench.number("SELECT count(*) FROM workers").await == 2).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    worker.stop().await;
    let told = "SELECT count(*) FROM workers WHERE stopped_at IS NOT NULL AND memory_bytes > 0 AND queues = '{probes}'";
    assert_eq!(bench.number(told).await, 1, "the one that was told to stop says so");
    bench.end().await;
}
