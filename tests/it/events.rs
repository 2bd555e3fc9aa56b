//! Events: owed by every writer, numbered in the order of their commits without a gap, whoever dies on the way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mdl::actor::{Actor, Role};
use mdl::events::kinds::METRIC_UPDATED;
use mdl::events::payloads::MetricPayload;
use mdl::events::{self, Payload, Stamped};
use mdl::ids::TenantId;
use mdl_tests::servers::WorkerProcess;
use mdl_tests::{TestApp, TestDatabase, eventually, root, variable};
use rand::Rng;
use rand::seq::SliceRandom;
use serde_json::json;
use tokio::sync::Mutex;

/// Transactions of the test of the order; 10,000 are the figure of the documentation.
fn transactions() -> usize {
    variable("MDL_TEST_TRANSACTIONS").map_or(800, |count| count.parse().unwrap())
}

/// One that was committed: its mark, and when its commit was asked for and answered.
struct Committed {
    tenant: TenantId,
    mark: String,
    asked: Instant,
    answered: Instant,
}

/// Writes a share of the transactions, each with one event; three of ten are rolled back.
async fn write(app: &TestApp, tenants: &[TenantId], marks: std::ops::Range<usize>) -> Vec<Committed> {
    let mut outcomes: Vec<bool> = marks.clone().map(|mark| mark % 10 >= 3).collect();
    outcomes.shuffle(&mut rand::rng());
    let mut committed = Vec::new();
    for (mark, commits) in marks.zip(outcomes) {
        let (tenant, before, after) = {
            let mut random = rand::rng();
            (tenants[random.random_range(0..tenants.len())], random.random_range(0..4), random.random_range(0..8))
        };
        let mark = mark.to_string();
        let actor = Actor::system(tenant);
        let tx = app.app.db.begin(tenant).await.unwrap();
        tokio::time::sleep(Duration::from_millis(before)).await;
        let payload = MetricPayload { key: mark.clone(), ..MetricPayload::example() };
        events::push(&tx, &actor, METRIC_UPDATED, payload.id, &payload).await.unwrap();
        // So that transactions end in another order than they wrote.
        tokio::time::sleep(Duration::from_millis(after)).await;
        if commits {
            let asked = Instant::now();
            tx.commit().await.unwrap();
            committed.push(Committed { tenant, mark, asked, answered: Instant::now() });
        }
    }
    committed
}

/// Everything in the stream of a tenant.
async fn stream(app: &TestApp, tenant: TenantId) -> Vec<Stamped> {
    let snapshot = app.app.db.snapshot(tenant);
    let found = snapshot.read(async |conn| events::after(conn, tenant, 0, i64::MAX).await).await.unwrap();
    snapshot.finish().await;
    found
}

/// 10,000 transactions take some minutes: `MDL_TEST_TRANSACTIONS=10000 ops/dev test -E 'test(commits_are_numbered)'`.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commits_are_numbered_in_order_without_a_gap() {
    let count = transactions();
    let app = Arc::new(TestApp::start_with(&[("DATABASE_POOL_SIZE", "12")]).await);
    let tenants = [app.tenant.id, app.other_tenant().await.id];
    let writers = 8;
    let share = count / writers;
    let workers = Arc::new(Mutex::new([WorkerProcess::start(&app), WorkerProcess::start(&app)]));
    let killing = {
        let (app, workers) = (app.clone(), workers.clone());
        tokio::spawn(async move {
            let mut kills = 0;
            loop {
                let (pause, which) = {
                    let mut random = rand::rng();
                    (random.random_range(300..1500), random.random_range(0..2))
                };
                tokio::time::sleep(Duration::from_millis(pause)).await;
                let mut workers = workers.lock().await;
                workers[which].kill();
                workers[which] = WorkerProcess::start(&app);
                kills += 1;
                eprintln!("killed {kills} workers");
            }
        })
    };
    let writing = (0..writers).map(|writer| {
        let app = app.clone();
        tokio::spawn(async move { write(&app, &tenants, writer * share..(writer + 1) * share).await })
    });
    let mut committed = Vec::new();
    for writer in writing.collect::<Vec<_>>() {
        committed.extend(writer.await.unwrap());
    }
    killing.abort();
    assert_eq!(committed.len(), share * writers * 7 / 10);

    let waiting = "SELECT count(*) FROM outbox WHERE sequence IS NULL";
    eventually("every event is numbered", async || (app.database.number(waiting).await == 0).then_some(())).await;
    assert_eq!(app.database.number("SELECT count(*) FROM outbox_commits").await, 0);
    for tenant in tenants {
        let stream = stream(&app, tenant).await;
        let of_tenant: Vec<_> = committed.iter().filter(|one| one.tenant == tenant).collect();
        assert_eq!(stream.len(), of_tenant.len(), "what was committed, and nothing else");
        assert!(stream.iter().zip(1..).all(|(event, sequence)| event.sequence == sequence), "without a gap");
        let mut latest = None;
        for event in &stream {
            let commit = of_tenant.iter().find(|one| event.payload["key"] == one.mark).expect("it was committed");
            // Who had been answered before another asked was committed before.
            assert!(latest.is_none_or(|asked| asked < commit.answered), "{} comes too late", commit.mark);
            latest = latest.max(Some(commit.asked));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_another_takes_over() {
    let app = TestApp::start().await;
    let mut workers = [WorkerProcess::start(&app), WorkerProcess::start(&app)];
    let holders =
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND mode = 'ExclusiveLock'
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let editor = app.client(Role::Editor).await;
    let numbered = "SELECT coalesce(max(sequence), 0)::bigint FROM outbox";
    for (round, hang) in [(1, false), (2, true)] {
        editor.write("createBusinessDomain", json!({ "key": format!("D{round}"), "name": format!("D{round}") })).await;
        eventually("the event is numbered", async || (app.database.number(numbered).await == round * 2 - 1).then_some(())).await;
        assert_eq!(app.database.number(holders).await, 1, "one of two leads");
        let leader = if workers[0].publishes().await { 0 } else { 1 };
        let start = Instant::now();
        if hang {
            workers[leader].pause();
        } else {
            workers[leader].kill();
        }
        editor.write("createBusinessDomain", json!({ "key": format!("E{round}"), "name": format!("E{round}") })).await;
        eventually("another took over", async || (app.database.number(numbered).await == round * 2).then_some(())).await;
        assert!(start.elapsed() < Duration::from_secs(30), "took over after {:?}", start.elapsed());
        workers[leader].kill();
        workers[leader] = WorkerProcess::start(&app);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_are_removed_from_the_beginning_on() {
    let app = TestApp::start().await;
    app.start_worker();
    let editor = app.client(Role::Editor).await;
    let numbered = "SELECT count(*) FROM outbox WHERE sequence IS NOT NULL";
    // The first by itself: the worker removes old events after its first round, and for long not again.
    for keys in [&["D0"][..], &["D1", "D2", "D3"]] {
        for key in keys {
            editor.write("createBusinessDomain", json!({ "key": key, "name": key })).await;
        }
        let count = if keys.len() == 1 { 1 } else { 4 };
        eventually("the events are numbered", async || (app.database.number(numbered).await == count).then_some(())).await;
    }
    app.database.execute("UPDATE outbox SET published_at = now() - interval '31 days' WHERE sequence IN (1, 2, 4)").await;
    let tx = app.app.db.dispatch().await.unwrap();
    assert_eq!(events::history::prune(&tx, 30, 1).await.unwrap(), 1, "no more at once than asked for");
    assert_eq!(events::history::prune(&tx, 30, 100).await.unwrap(), 1);
    assert_eq!(events::history::prune(&tx, 30, 100).await.unwrap(), 0, "the third is young, and what is kept has no gap");
    assert_eq!(events::bounds(&tx, app.tenant.id).await.unwrap(), events::Bounds { kept_from: 3, last: 4 });
    tx.commit().await.unwrap();
    let left: Vec<i64> = stream(&app, app.tenant.id).await.iter().map(|event| event.sequence).collect();
    assert_eq!(left, [3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rolled_back_is_not_owed() {
    let app = TestApp::start().await;
    let payload = MetricPayload::example();
    let tx = app.app.db.begin(app.tenant.id).await.unwrap();
    events::push(&tx, &app.system(), METRIC_UPDATED, payload.id, &payload).await.unwrap();
    drop(tx);
    eventually("the transaction has ended", async || {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
        (app.database.number(open).await == 0).then_some(())
    })
    .await;
    assert_eq!(app.database.number("SELECT count(*) FROM outbox").await, 0);
    assert_eq!(app.database.number("SELECT count(*) FROM outbox_commits").await, 0);
}

/// Of a transaction with savepoints, as imports have them, only what was kept is told.
#[tokio::test(flavor = "multi_thread")]
async fn savepoints_are_no_transactions_of_their_own() {
    let database = TestDatabase::migrated().await;
    let superuser = database.superuser().await;
    let event = |id: u8| {
        format!(
            "INSERT INTO outbox (tenant_id, id, kind, payload) SELECT id, '00000000-0000-7000-8000-0000000000{id:02}', 'domain.created', '{{}}' FROM tenants WHERE slug = 'acme'"
        )
    };
    superuser
        .batch_execute(&format!(
            "INSERT INTO tenants (id, slug, name) VALUES (gen_random_uuid(), 'acme', 'Acme');
             BEGIN; SAVEPOINT a; {}; ROLLBACK TO a; SAVEPOINT b; {}; RELEASE b; {}; COMMIT",
            event(1),
            event(2),
            event(3)
        ))
        .await
        .unwrap();
    assert_eq!(database.number("SELECT count(*) FROM outbox_commits WHERE position IS NOT NULL").await, 1);
    assert_eq!(database.number("SELECT count(*) FROM outbox JOIN outbox_commits USING (tenant_id, transaction_id)").await, 2);
}

#[test]
fn the_documentation_lists_the_kinds() {
    let page = std::fs::read_to_string(root().join("docs/events.md")).unwrap();
    let (_, listed) = page.split_once("\n## Kinds\n\n").expect("the chapter on kinds");
    assert_eq!(listed, events::kinds::reference(), "renew it with: target/debug/mdl-api event-types");
}
