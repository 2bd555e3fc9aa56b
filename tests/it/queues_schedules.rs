//! What runs by the clock: once for each time, however many look at it; and what it does.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use mdl::actor::Role;
use mdl::db::Db;
use mdl::jobs::{Job, RawJob};
use mdl::maintenance::TidyImports;
use mdl::schedules::{self, CatchUp, Definition, Outcome, Overlap, Replaced};
use mdl::tenants::SYSTEM;
use mdl::{Actor, App, Error, api_keys, idempotency, imports, jobs, sessions};
use mdl_tests::{TestApp, eventually};
use serde_json::json;

fn definition(name: &'static str, timing: &str, overlap: Overlap, catch_up: CatchUp) -> Definition {
    let job = RawJob { queue: TidyImports::QUEUE, kind: TidyImports::KIND, payload: json!({}), max_attempts: 3 };
    Definition { name, description: "", timing: timing.parse().unwrap(), overlap, catch_up, enabled: true, job }
}

const EACH_SECOND: &str = "* * * * * *";

#[tokio::test(flavor = "multi_thread")]
async fn ten_schedulers_fire_each_time_once() {
    let app = TestApp::start().await;
    let table = [definition("each_second", EACH_SECOND, Overlap::Queue, CatchUp::Once)];
    let mut schedulers = Vec::new();
    for _ in 0..10 {
        let db = Db::new(&app.app.config.database, app.app.versions.clone());
        schedules::declare(&db, &table).await.unwrap();
        schedulers.push(tokio::spawn(async move {
            // How many times it took, and the seconds within which it has looked.
            let (mut taken, mut seen) = (0, BTreeSet::new());
            for _ in 0..100 {
                let second = Utc::now().timestamp();
                taken += schedules::fire(&db, &["each_second"]).await.unwrap().0.len() as i64;
                if Utc::now().timestamp() == second {
                    seen.insert(second);
                }
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            (taken, seen)
        }));
    }
    let (mut taken, mut seen) = (0, BTreeSet::new());
    for scheduler in schedulers {
        let (by_this, seen_by_this) = scheduler.await.unwrap();
        taken += by_this;
        seen.extend(seen_by_this);
    }
    assert!(taken >= 4, "{taken}");
    assert_eq!(app.database.number("SELECT count(*) FROM schedule_slots WHERE outcome = 'fired'").await, taken);
    assert_eq!(app.database.number("SELECT count(*) FROM jobs WHERE kind = 'tidy_imports'").await, taken, "a job for each time");
    let first = app.database.number("SELECT extract(epoch FROM min(slot))::bigint FROM schedule_slots").await;
    let missed = format!(
        "SELECT count(*) FROM unnest(ARRAY{:?}::bigint[]) AS seen
         WHERE to_timestamp(seen) NOT IN (SELECT slot FROM schedule_slots)",
        seen.range(first..).collect::<Vec<_>>()
    );
    assert_eq!(app.database.number(&missed).await, 0, "no second is left out");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_run_what_the_settings_say() {
    let app = TestApp::start().await;
    for _ in 0..2 {
        let settings = [("MDL_SCHEDULES", "tidy_imports=* * * * * *;prune_jobs=off")];
        let (worker, _) = app.another_api(&settings).await;
        tokio::spawn(mdl_worker::run(worker, mdl_worker::jobs::registry(), mdl_worker::Stop::default()));
    }
    let ran = "SELECT count(*) FROM jobs WHERE kind = 'tidy_imports' AND state = 'succeeded'";
    eventually("it runs three times", async || (app.database.number(ran).await >= 3).then_some(())).await;
    let twice = "SELECT count(*) - count(DISTINCT job_id) FROM schedule_slots WHERE outcome = 'fired'";
    assert_eq!(app.database.number(twice).await, 0);
    let enabled = "SELECT count(*) FROM schedules WHERE enabled AND name = 'prune_jobs'";
    assert_eq!(app.database.number(enabled).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_nobody_saw_are_made_up_for_once_or_pass() {
    let app = TestApp::start().await;
    let db = &app.app.db;
    let names = ["once", "never", "busy"];
    let table = [
        definition("once", "0 * * * *", Overlap::Skip, CatchUp::Once),
        definition("never", "0 * * * *", Overlap::Skip, CatchUp::Never),
        definition("busy", "0 * * * *", Overlap::Skip, CatchUp::Once),
    ];
    schedules::declare(db, &table).await.unwrap();
    assert!(schedules::fire(db, &names).await.unwrap().0.is_empty(), "a new schedule makes up for nothing");

    // Ten hours pass without a worker. The seventh of them began more than a minute ago, whenever this runs.
    let back = "UPDATE schedules SET since = now() - interval '10 hours', expression = to_char(now() - interval '30 minutes', 'MI') || ' * * * *'";
    app.database.execute(back).await;
    let busy = "INSERT INTO jobs (tenant_id, id, queue, kind, payload, max_attempts, unique_key)
         SELECT id, gen_random_uuid(), 'maintenance', 'tidy_imports', '{}', 3, 'schedule:busy' FROM tenants WHERE slug = 'mdl-system'";
    app.database.execute(busy).await;
    let (mut taken, next) = schedules::fire(db, &names).await.unwrap();
    taken.sort_by(|a, b| a.schedule.cmp(&b.schedule));
    let outcomes: Vec<_> = taken.iter().map(|slot| (slot.schedule.as_str(), slot.outcome, slot.job_id.is_some())).collect();
    assert_eq!(outcomes, [("busy", Outcome::Skipped, false), ("never", Outcome::Missed, false), ("once", Outcome::Fired, true)]);
    assert!(next.unwrap() < Duration::from_secs(3600));
    assert!(schedules::fire(db, &names).await.unwrap().0.is_empty(), "and that was it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_gone_when_no_worker_has_had_it_for_a_day() {
    let app = TestApp::start().await;
    let db = &app.app.db;
    let table = ["old", "new"].map(|name| definition(name, "0 * * * *", Overlap::Skip, CatchUp::Once));
    schedules::declare(db, &table).await.unwrap();
    schedules::pause(&app.app, &Actor::system(SYSTEM), "new").await.unwrap();
    let hours_pass = |hours: u32| format!("UPDATE schedules SET declared_at = declared_at - interval '{hours} hours'");
    let paused = "SELECT count(*) FROM schedules WHERE paused_at IS NOT NULL";

    // A worker of an older version, which does not know the new one, starts again and again beside a newer one.
    for _ in 0..2 {
        app.database.execute(&hours_pass(23)).await;
        schedules::declare(db, &table[..1]).await.unwrap();
        assert_eq!(app.database.number(paused).await, 1, "it stays as it was");
        schedules::declare_again(db, &table).await.unwrap();
    }
    // One from before this was so removes it.
    app.database.execute("DELETE FROM schedules WHERE name = 'new'").await;
    schedules::declare_again(db, &table).await.unwrap();
    assert_eq!(app.database.number("SELECT count(*) FROM schedules").await, 2);
    // The newer version is taken back.
    app.database.execute(&hours_pass(25)).await;
    schedules::declare(db, &table[..1]).await.unwrap();
    assert_eq!(app.database.text("SELECT string_agg(name, ' ') FROM schedules").await.as_deref(), Some("old"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_whose_times_were_replaced_hears_of_it() {
    let app = TestApp::start().await;
    let db = &app.app.db;
    let table = |timing: &str| [definition("moved", timing, Overlap::Skip, CatchUp::Once)];
    let (before, after) = (table("0 * * * *"), table("30 * * * *"));
    schedules::declare(db, &before).await.unwrap();
    assert_eq!(schedules::declare_again(db, &before).await.unwrap(), []);

    // Restarted with other settings: there is no other worker.
    schedules::declare(db, &after).await.unwrap();
    assert_eq!(schedules::declare_again(db, &after).await.unwrap(), []);
    // One that was not restarted.
    let told = schedules::declare_again(db, &before).await.unwrap();
    let replaced = Replaced { schedule: "moved", ours: "0 * * * * UTC".to_owned(), theirs: "30 * * * * UTC".to_owned() };
    assert_eq!(told, [replaced]);
    assert_eq!(
        app.database.text("SELECT expression FROM schedules").await.as_deref(),
        Some("30 * * * *"),
        "it takes nothing back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_of_the_deployment_pause_resume_and_request() {
    let app = TestApp::start().await;
    let (db, system) = (&app.app.db, Actor::system(SYSTEM));
    schedules::declare(db, &[definition("each_second", EACH_SECOND, Overlap::Queue, CatchUp::Once)]).await.unwrap();
    let refused = schedules::pause(&app.app, &app.system(), "each_second").await;
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    assert!(matches!(schedules::pause(&app.app, &system, "nothing").await, Err(Error::NotFound { .. })));

    assert!(schedules::pause(&app.app, &system, "each_second").await.unwrap().paused_at.is_some());
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(schedules::fire(db, &["each_second"]).await.unwrap().0.is_empty(), "its times pass");
    let slot = schedules::run_now(&app.app, &system, "each_second").await.unwrap();
    assert_eq!((slot.outcome, slot.job_id.is_some()), (Outcome::Requested, true), "but somebody may ask for it");
    let resumed = schedules::resume(&app.app, &system, "each_second").await.unwrap();
    assert!(resumed.is_active());
    let (taken, _) = schedules::fire(db, &["each_second"]).await.unwrap();
    assert!(taken.len() <= 1, "what passed is not made up for");
    let audited = "SELECT count(*) FROM audit_log WHERE action LIKE 'schedule.%'";
    assert_eq!(app.database.number(audited).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_deletes_what_is_old_and_done_with() {
    let app = TestApp::start().await;
    app.database
        .execute(
            "INSERT INTO jobs (tenant_id, id, queue, kind, payload, max_attempts, state, created_at, finished_at)
             SELECT tenants.id, gen_random_uuid(), 'imports', state || ' ' || age, '{}', 3, state,
                    now() - age * interval '1 day', now() - age * interval '1 day'
             FROM tenants, unnest(ARRAY['succeeded', 'cancelled', 'discarded', 'dead', 'waiting']) AS state,
                  unnest(ARRAY[6, 8]) AS age;
             INSERT INTO idempotency_keys (tenant_id, actor_id, key, request_hash, locked_until, created_at)
             SELECT id, gen_random_uuid(), age::text, '', now(), now() - age * interval '1 hour'
             FROM tenants, unnest(ARRAY[23, 25]) AS age;
             INSERT INTO sessions (tenant_id, id, user_id, expires_at)
             SELECT tenant_id, gen_random_uuid(), id, now() - age * interval '1 day' FROM users, unnest(ARRAY[29, 31]) AS age",
        )
        .await;
    assert_eq!(jobs::prune(&app.app).await.unwrap(), 6, "of the two tenants");
    let left = "SELECT string_agg(DISTINCT kind, ', ' ORDER BY kind) FROM jobs WHERE kind LIKE '% 8'";
    assert_eq!(app.database.text(left).await.as_deref(), Some("dead 8, waiting 8"));
    assert_eq!(app.database.number("SELECT count(*) FROM jobs WHERE kind LIKE '% 6'").await, 10);
    assert_eq!(idempotency::prune(&app.app).await.unwrap(), 1, "of the one tenant that people belong to");
    assert_eq!(sessions::prune(&app.app).await.unwrap(), 3, "of the admin, the editor and the viewer");
    assert_eq!(app.database.number("SELECT count(*) FROM sessions").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_expire_are_announced_once() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let create = "mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) { apiKey { id } userErrors { message } } }";
    for (name, days) in [("soon", 6), ("later", 8)] {
        let expires = Utc::now() + TimeDelta::days(days);
        admin.ask(create, json!({ "input": { "name": name, "scopes": ["CATALOG_READ"], "expiresAt": expires } })).await;
    }
    assert_eq!(api_keys::announce_expiring(&app.app).await.unwrap(), 1);
    assert_eq!(api_keys::announce_expiring(&app.app).await.unwrap(), 0);
    let event = "SELECT payload ->> 'name' FROM outbox WHERE kind = 'apiKey.expiring'";
    assert_eq!(app.database.text(event).await.as_deref(), Some("soon"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_whose_job_is_dead_does_not_run_for_ever() {
    let app = TestApp::start().await;
    let start = |app: App, actor: Actor, text: &'static str| async move {
        imports::start_inline(&app, &actor, text.to_owned(), imports::Upload::default()).await.unwrap()
    };
    let lost = start(app.app.clone(), app.system(), "{\"metrics\": []}").await;
    let recent = start(app.app.clone(), app.system(), "{\"metrics\": [ ]}").await;
    let die = |import: &imports::Import, ago: &str| {
        format!(
            "UPDATE imports SET state = 'running' WHERE id = '{0}';
             UPDATE jobs SET state = 'dead', last_error = 'gone', finished_at = now() - interval '{ago}' WHERE id = '{1}'",
            import.id,
            import.job_id.unwrap()
        )
    };
    app.database.execute(&die(&lost, "61 minutes")).await;
    app.database.execute(&die(&recent, "5 minutes")).await;
    assert_eq!(imports::tidy(&app.app).await.unwrap(), 1);
    let told = format!("SELECT state || ': ' || error FROM imports WHERE id = '{}'", lost.id);
    assert_eq!(app.database.text(&told).await.as_deref(), Some("failed: It could not be finished: gone"));
    let other = format!("SELECT state FROM imports WHERE id = '{}'", recent.id);
    assert_eq!(app.database.text(&other).await.as_deref(), Some("running"), "an operator may still retry the job");
}
