//! What becomes of jobs, as operators hear of it live.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use mdl::Actor;
use mdl::actor::Role;
use mdl::ids::{JobId, TenantId};
use mdl::jobs::store::Filter;
use mdl::jobs::{self, Enqueue, Job, RawJob};
use mdl_tests::servers::PrivateRedis;
use mdl_tests::socket::Socket;
use mdl_tests::{TestApp, eventually};
use serde_json::{Value, json};

use crate::jobs_bench::{Failing, Obedient, Probe, registry};

const CHANGES: &str = "subscription($filter: JobFilter) { jobChanged(filter: $filter) { change job {
    id kind state attempt error progress { done total } attempts { outcome } enqueuedBy { name } } } }";

async fn enqueue(app: &TestApp, tenant: TenantId, job: &impl Job) -> JobId {
    enqueue_at(app, tenant, job, &Enqueue::default()).await
}

async fn enqueue_at(app: &TestApp, tenant: TenantId, job: &impl Job, how: &Enqueue) -> JobId {
    let tx = app.app.db.begin(tenant).await.unwrap();
    let id = jobs::enqueue(&tx, &Actor::system(tenant), job, how).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    id
}

/// A job whose time does not come while a test runs. Told at the beginning, it says that the subscription has begun.
async fn enqueue_for_later(app: &TestApp, tenant: TenantId) -> JobId {
    let how = Enqueue { run_at: Some(Utc::now() + TimeDelta::hours(1)), ..Enqueue::default() };
    enqueue_at(app, tenant, &Probe::Refuse, &how).await
}

/// The next change that a subscription tells: its name, and the job.
async fn next(socket: &mut Socket, subscription: &str) -> (Option<String>, Value) {
    let message = socket.next().await.unwrap();
    assert_eq!((&message["id"], &message["type"]), (&json!(subscription), &json!("next")), "{message}");
    let change = &message["payload"]["data"]["jobChanged"];
    assert!(message["payload"]["errors"].is_null(), "{message}");
    (change["change"].as_str().map(str::to_owned), change["job"].clone())
}

/// The names of a job's changes up to this one, and the job as it was told with that.
async fn until(socket: &mut Socket, kind: &str, last: &str) -> (Vec<String>, Value) {
    until_told(socket, kind, |change, _| change == last).await
}

/// The names of a job's changes up to one that is as wanted, and the job as it was told with that.
async fn until_told(socket: &mut Socket, kind: &str, wanted: impl Fn(&str, &Value) -> bool) -> (Vec<String>, Value) {
    let mut names = Vec::new();
    loop {
        let (change, job) = next(socket, "all").await;
        assert_eq!(job["kind"], kind, "{job}");
        names.extend(change);
        if names.last().is_some_and(|name| wanted(name, &job)) {
            return (names, job);
        }
    }
}

/// Whether some of these are told, in their order.
fn in_order(told: &[String], order: &[&str]) {
    let mut rest = order.iter();
    assert!(told.iter().all(|told| rest.any(|name| name == told)), "{told:?} are not of {order:?} in this order");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_hear_what_becomes_of_their_jobs() {
    let app = TestApp::start().await;
    let (own, other) = (app.tenant.id, app.other_tenant().await);
    app.start_worker_doing(registry());
    let admin = app.client(Role::Admin).await;
    let stranger = app.client_of(&other.slug, Role::Admin).await;
    enqueue_for_later(&app, own).await;
    enqueue_for_later(&app, other.id).await;
    let mut socket = Socket::connect(&app.base, admin.credential.as_ref().unwrap()).await;
    let mut elsewhere = Socket::connect(&app.base, stranger.credential.as_ref().unwrap()).await;
    for socket in [&mut socket, &mut elsewhere] {
        socket.subscribe("all", CHANGES, json!({})).await;
        let (change, job) = next(socket, "all").await;
        assert_eq!((change, &job["state"]), (None, &json!("WAITING")), "first, what is there: {job}");
    }

    let steer = async |mutation: &str, kind: &str, input: Value| {
        let operation = format!("mutation($input: {kind}!) {{ {mutation}(input: $input) {{ count userErrors {{ message }} }} }}");
        assert_eq!(admin.ask(&operation, json!({ "input": input })).await[mutation]["count"], 1);
    };
    enqueue(&app, own, &Obedient).await;
    // Changes that follow each other closely are told as one.
    let (told, job) = until_told(&mut socket, "obedient", |_, job| !job["progress"].is_null()).await;
    in_order(&told, &["ENQUEUED", "DISPATCHED", "STARTED", "PROGRESSED"]);
    assert_eq!((&job["state"], &job["progress"]), (&json!("RUNNING"), &json!({ "done": 3, "total": 7 })), "{told:?}");
    steer("cancelJobs", "JobSelectionInput", json!({ "ids": [job["id"]] })).await;
    let (told, job) = until(&mut socket, "obedient", "CANCELLED").await;
    in_order(&told, &["PROGRESSED", "CANCELLED"]);
    assert_eq!(job["attempts"], json!([{ "outcome": "CANCELLED" }]), "what is selected beyond the row is of the same time");

    enqueue(&app, own, &Probe::Refuse).await;
    let (told, dead) = until(&mut socket, "probe", "DEAD").await;
    in_order(&told, &["ENQUEUED", "DISPATCHED", "STARTED", "DEAD"]);
    assert!(dead["error"].as_str().unwrap().contains("thing"), "{dead}");
    enqueue(&app, own, &Probe::FailUntil { attempt: 0 }).await;
    until(&mut socket, "probe", "SUCCEEDED").await;

    enqueue(&app, own, &Failing).await;
    let (told, failed) = until(&mut socket, "failing", "FAILED").await;
    in_order(&told, &["ENQUEUED", "DISPATCHED", "STARTED", "FAILED"]);
    assert_eq!((&failed["state"], &failed["attempt"]), (&json!("WAITING"), &json!(1)));
    steer("cancelJobs", "JobSelectionInput", json!({ "ids": [failed["id"]] })).await;
    until(&mut socket, "failing", "CANCELLED").await;

    // It waits for a worker that knows its kind.
    let unknown = RawJob { queue: "probes", kind: "nobody_knows", payload: Value::Null, max_attempts: 1 };
    let tx = app.app.db.begin(own).await.unwrap();
    jobs::enqueue_raw(&tx, &app.system(), unknown, &Enqueue::default()).await.unwrap();
    tx.commit().await.unwrap();
    let (told, waiting) = until(&mut socket, "nobody_knows", "PUT_BACK").await;
    in_order(&told, &["ENQUEUED", "DISPATCHED", "STARTED", "PUT_BACK"]);
    assert_eq!((&waiting["state"], &waiting["attempt"]), (&json!("WAITING"), &json!(0)));
    steer("cancelJobs", "JobSelectionInput", json!({ "ids": [waiting["id"]] })).await;
    until(&mut socket, "nobody_knows", "CANCELLED").await;

    // What no worker does is told as well.
    steer("discardJobs", "JobSelectionInput", json!({ "ids": [dead["id"]] })).await;
    assert_eq!(until(&mut socket, "probe", "DISCARDED").await.0, ["DISCARDED"]);
    // One that was told lately: what was told of those that wait for longer is not remembered.
    let later = enqueue_for_later(&app, own).await;
    let (_, waiting) = until(&mut socket, "probe", "ENQUEUED").await;
    let filter = json!({ "ids": [waiting["id"]], "state": { "in": ["WAITING"] } });
    let input = json!({ "filter": filter, "runAt": "2100-01-01T00:00:00Z" });
    steer("rescheduleJobs", "RescheduleJobsInput", input).await;
    let (told, job) = until(&mut socket, "probe", "PUT_BACK").await;
    assert_eq!(told, ["PUT_BACK"]);
    let row = app.database.text(&format!("SELECT state FROM jobs WHERE id = '{later}' AND run_at > '2099-01-01'")).await;
    assert_eq!((row.as_deref(), &job["state"]), (Some("waiting"), &json!("WAITING")));

    enqueue_for_later(&app, other.id).await;
    let (change, _) = next(&mut elsewhere, "all").await;
    assert_eq!(change.as_deref(), Some("ENQUEUED"), "nothing of another tenant was told before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_is_the_one_of_the_list() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    enqueue(&app, app.tenant.id, &Probe::Refuse).await;
    enqueue_for_later(&app, app.tenant.id).await;
    app.start_worker_doing(registry());
    let list = "query($filter: JobFilter) { jobs(filter: $filter) { nodes { id } } }";
    let dead = json!({ "filter": { "state": { "in": ["DEAD"] }, "kind": { "in": ["probe"] }, "error": "THING" } });
    let found = eventually("a job is dead", async || {
        let found = admin.ask(list, dead.clone()).await["jobs"]["nodes"].clone();
        (found.as_array().unwrap().len() == 1).then_some(found)
    })
    .await;
    let mut socket = Socket::connect(&app.base, admin.credential.as_ref().unwrap()).await;
    let this = json!({ "filter": { "ids": [found[0]["id"]] } });
    socket.subscribe("this", CHANGES, this).await;
    let (change, job) = next(&mut socket, "this").await;
    assert_eq!((change, &job["state"]), (None, &json!("DEAD")), "one that is named is told though it has ended");
    socket.subscribe("dead", CHANGES, dead).await;
    socket.subscribe("others", CHANGES, json!({ "filter": { "queue": { "in": ["imports"] } } })).await;
    let waiting = json!({ "filter": { "state": { "in": ["WAITING"] } } });
    socket.subscribe("waiting", CHANGES, waiting).await;
    next(&mut socket, "waiting").await;
    let dying = async {
        loop {
            enqueue(&app, app.tenant.id, &Probe::Refuse).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let hearing = async {
        loop {
            let message = socket.next().await.unwrap();
            let change = &message["payload"]["data"]["jobChanged"];
            match message["id"].as_str() {
                Some("waiting") => assert_eq!(change["job"]["state"], "WAITING"),
                Some("dead") => break change.clone(),
                _ => panic!("not what was asked for: {message}"),
            }
        }
    };
    let change = tokio::select! {
        change = hearing => change,
        () = dying => unreachable!("there is always one more"),
    };
    assert_eq!((&change["change"], &change["job"]["state"]), (&json!("DEAD"), &json!("DEAD")));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_subscription_to_redis_tells_at_once_and_ends_with_the_last_listener() {
    let app = TestApp::start().await;
    app.start_worker_doing(registry());
    let admin = app.client(Role::Admin).await;
    let channel = jobs::live::channel(&app.app.config.redis.prefix);
    let subscribed = async || {
        let mut conn = app.app.redis.get().await.unwrap();
        let counts: (String, i64) = redis::cmd("PUBSUB").arg("NUMSUB").arg(&channel).query_async(&mut *conn).await.unwrap();
        counts.1
    };
    assert_eq!(subscribed().await, 0);
    let mut socket = Socket::connect(&app.base, admin.credential.as_ref().unwrap()).await;
    socket.subscribe("all", CHANGES, json!({})).await;
    socket.subscribe("none", CHANGES, json!({ "filter": { "queue": { "in": ["nothing"] } } })).await;
    eventually("it is subscribed", async || (subscribed().await == 1).then_some(())).await;
    // That may be for the sake of the other one.
    enqueue_for_later(&app, app.tenant.id).await;
    next(&mut socket, "all").await;
    // Each waits for the one before; if PostgreSQL had to be asked, all but the first would take two seconds.
    let mut took = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        enqueue(&app, app.tenant.id, &Probe::FailUntil { attempt: 0 }).await;
        until(&mut socket, "probe", "SUCCEEDED").await;
        took.push(start.elapsed());
    }
    took.sort_unstable();
    assert!(took[1] < Duration::from_millis(1_500), "{took:?}");
    assert_eq!(subscribed().await, 1);
    drop(socket);
    eventually("nobody is subscribed", async || (subscribed().await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_told_of_without_redis() {
    let mut redis = PrivateRedis::start().await;
    let app = TestApp::start_with(&[("REDIS_URL", &redis.url())]).await;
    app.start_worker_doing(registry());
    let admin = app.client(Role::Admin).await;
    enqueue_for_later(&app, app.tenant.id).await;
    let mut socket = Socket::connect(&app.base, admin.credential.as_ref().unwrap()).await;
    socket.subscribe("all", CHANGES, json!({})).await;
    next(&mut socket, "all").await;
    redis.stop();
    enqueue(&app, app.tenant.id, &Probe::Refuse).await;
    let (told, _) = until(&mut socket, "probe", "DEAD").await;
    in_order(&told, &["ENQUEUED", "DISPATCHED", "STARTED", "DEAD"]);
    let redis = redis.restart().await;
    enqueue(&app, app.tenant.id, &Probe::Refuse).await;
    until(&mut socket, "probe", "DEAD").await;
    redis.flush().await;
    enqueue(&app, app.tenant.id, &Probe::Refuse).await;
    until(&mut socket, "probe", "DEAD").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_does_not_keep_up_is_told_and_let_go() {
    let app = TestApp::start().await;
    let mut slow = app.app.live.subscribe_to_jobs(app.tenant.id, Filter::default()).await.unwrap();
    let last = Filter { kinds: Some(vec!["last".to_owned()]), ..Filter::default() };
    let mut quick = app.app.live.subscribe_to_jobs(app.tenant.id, last).await.unwrap();
    let tx = app.app.db.begin(app.tenant.id).await.unwrap();
    jobs::enqueue_many(&tx, &app.system(), &vec![Probe::Refuse; 400], 0, None).await.unwrap();
    let job = RawJob { queue: "probes", kind: "last", payload: Value::Null, max_attempts: 1 };
    jobs::enqueue_raw(&tx, &app.system(), job, &Enqueue::default()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(quick.next().await.unwrap().unwrap().job.kind, "last");
    let mut got = Vec::new();
    let error = loop {
        match slow.next().await {
            Some(Ok(changed)) => got.push(changed.job.id),
            Some(Err(error)) => break error,
            None => panic!("it ended without a word"),
        }
    };
    assert_eq!(error.code(), "SLOW_CONSUMER");
    assert!((1..=256).contains(&got.len()), "{}", got.len());
    assert!(got.is_sorted(), "what was in the queue, oldest first");
    assert!(slow.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_hears_of_every_job_of_a_burst() {
    let app = TestApp::start().await;
    let mut listener = app.app.live.subscribe_to_jobs(app.tenant.id, Filter::default()).await.unwrap();
    let tx = app.app.db.begin(app.tenant.id).await.unwrap();
    jobs::enqueue_many(&tx, &app.system(), &vec![Probe::Refuse; 600], 0, None).await.unwrap();
    tx.commit().await.unwrap();
    let mut heard = HashSet::new();
    while heard.len() < 600 {
        heard.insert(listener.next().await.unwrap().unwrap().job.id);
    }
}
