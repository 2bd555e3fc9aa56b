//! A backup brings everything back, into its own place or beside it, and one tenant alone.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use mdl::actor::{Actor, Role};
use mdl::backups::BackUpFiles;
use mdl::ids::TenantId;
use mdl::jobs::{self, Enqueue};
use mdl::tenants::SYSTEM;
use mdl_tests::backups::{Backups, told};
use mdl_tests::servers::WorkerProcess;
use mdl_tests::{Client, Receiver, TestApp, eventually, root};
use serde_json::{Value, json};

use crate::webhooks::{endpoint, tell, until};

const QUERY: &str = "{ metrics(first: 10) { totalCount nodes { key name description } } }";

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_database_is_brought_back() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    fill(&app, &editor).await;
    let backups = Backups::of(&app);
    let id = backups.make(&[]).await;
    let listed = backups.list().await.pop().unwrap();
    assert!(listed["verifiedAt"].is_string(), "{listed}");
    assert_eq!(listed["files"], 1);
    let before = contents(&app).await;

    app.database.drop_other(app.database.name()).await;
    let storage = app.app.config.storage.url.to_file_path().unwrap();
    std::fs::remove_dir_all(&storage).unwrap();
    let told = backups.must(&["restore", &id, "--in-place", "--yes"]).await;
    assert!(told.contains("Brought back 1 file that"), "{told}");

    assert_eq!(contents(&app).await, before);
    let editor = app.client(Role::Editor).await;
    assert_eq!(editor.ask(QUERY, json!({})).await["metrics"]["totalCount"], 3, "people sign in, and find what there was");
    let written = editor.mutate("createMetric", json!({ "key": "M-NEW", "name": "New" }), "").await;
    assert_eq!(written.user_errors(), [""; 0], "privileges and policies are there too");
    let owners = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relowner <> 'mdl_owner'::regrole";
    assert_eq!(app.database.number(owners).await, 0);
    // It knows the backup that it came from, and can be backed up again.
    assert_eq!(app.database.text("SELECT state FROM backups").await.as_deref(), Some("verified"));
    backups.make(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_beside_touches_nothing_until_the_switch() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    fill(&app, &editor).await;
    // As a worker left it that ran when the backup was made.
    app.database.execute("UPDATE jobs SET state = 'running', lease_until = now() + interval '1 hour', worker = 'w'").await;
    app.database
        .execute(&format!("INSERT INTO event_streams (tenant_id, last_sequence) VALUES ('{}', 7) ON CONFLICT (tenant_id) DO UPDATE SET last_sequence = 7", app.tenant.id))
        .await;
    let backups = Backups::of(&app);
    let id = backups.make(&["--no-verify"]).await;
    editor.write("createMetric", json!({ "key": "M-LATER", "name": "Later" })).await;
    let kept = editor.ask(QUERY, json!({})).await;
    assert_eq!(editor.ask(QUERY, json!({})).await, kept);
    let before = app.database.contents().await;

    let beside = format!("{}_beside", app.database.name());
    let told = backups.must(&["restore", &id, "--into", &beside]).await;
    assert!(told.contains(&format!("mdl-worker backup switch {beside}")), "{told}");
    assert_eq!(app.database.contents().await, before, "the database in use is as it was");
    let again = backups.run(&["restore", &id, "--into", &beside]).await;
    assert!(!again.succeeded && again.stderr.contains("already"), "{again:?}");
    let unconfirmed = backups.run(&["switch", &beside]).await;
    assert!(!unconfirmed.succeeded && unconfirmed.stderr.contains("--yes"), "{unconfirmed:?}");

    let told = backups.must(&["switch", &beside, "--yes"]).await;
    let away =
        told.split("is kept as ").nth(1).and_then(|rest| rest.split(':').next()).expect("the name of the old one").to_owned();
    let seen = eventually("the API has connected again, and forgotten its answers", async || {
        let seen = editor.send(QUERY, json!({})).await;
        (seen.body["data"]["metrics"]["totalCount"] == 3).then_some(seen)
    })
    .await;
    assert_ne!(seen.data(), kept);
    assert_eq!(app.database.number("SELECT count(*) FROM jobs WHERE state = 'running'").await, 0, "nobody holds a lease");
    assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE sequence IS NULL").await, 0, "nothing is told twice");
    assert_eq!(
        app.database.number("SELECT count(*) FROM event_streams WHERE last_sequence = 7").await,
        0,
        "streams go on far beyond"
    );
    app.database.drop_other(&away).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_switch_shuts_nobody_out() {
    let app = TestApp::start().await;
    fill(&app, &app.client(Role::Editor).await).await;
    let backups = Backups::of(&app);
    let id = backups.make(&["--no-verify"]).await;
    let (name, beside) = (app.database.name(), format!("{}_beside", app.database.name()));
    backups.must(&["restore", &id, "--into", &beside]).await;
    // The switch may not end the session of a superuser, and waits for it.
    let somebody = app.database.superuser().await;
    let mut switch = backups.command(&["switch", &beside, "--yes"]).stdout(Stdio::null()).spawn().unwrap();
    let renaming = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'ALTER DATABASE \"{name}\" RENAME%'"
    );
    eventually("it waits", async || {
        let waiting: i64 = somebody.query_one(&renaming, &[]).await.unwrap().get(0);
        (waiting == 1).then_some(())
    })
    .await;
    let interrupted = Command::new("kill").args(["-TERM", &switch.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    assert!(!switch.wait().unwrap().success());
    assert_eq!(app.database.number("SELECT count(*) FROM metrics").await, 3, "whoever connects has waited a moment");
    assert_eq!(app.database.others(&beside).await, [beside.as_str()], "nothing was renamed");

    drop(somebody);
    let told = backups.must(&["switch", &beside, "--yes"]).await;
    assert!(told.contains(&format!("{beside} is in use now, under the name {name}.")), "{told}");
    assert_eq!(app.database.number("SELECT count(*) FROM metrics").await, 3);
    let kept = told.split("is kept as ").nth(1).and_then(|rest| rest.split(':').next()).expect("the name of the old one");
    // Interrupted later, it would have left it so.
    let again = backups.run(&["switch", &beside, "--yes"]).await;
    assert!(!again.succeeded && again.stderr.contains(&format!("mdl-worker backup switch {name}")), "{again:?}");

    // And back, to what was never restored.
    let told = backups.must(&["switch", kept, "--yes"]).await;
    let second = told.split("is kept as ").nth(1).and_then(|rest| rest.split(':').next()).expect("the name of the other one");
    assert_eq!(app.database.number("SELECT count(*) FROM metrics").await, 3);
    app.database.drop_other(second).await;
}

/// As a switch of an older version left it that was interrupted.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_opens_what_is_closed() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    app.database.allow_connections(false).await;
    let told = backups.must(&["switch", app.database.name(), "--yes"]).await;
    assert!(told.contains("is in use already"), "{told}");
    assert!(app.database.number("SELECT count(*) FROM tenants").await > 0);

    app.database.allow_connections(false).await;
    let gone = backups.run(&["switch", "mdl_gone", "--yes"]).await;
    assert!(!gone.succeeded && gone.stderr.contains("There is no database mdl_gone"), "{gone:?}");
    assert!(app.database.number("SELECT count(*) FROM tenants").await > 0, "also when there is nothing to switch to");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_after_the_backup_is_not_sent_again() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::start().await;
    endpoint(&admin, &receiver.url).await;
    // One is owed to the receiver, the other has no place in its stream yet.
    tell(&app, 1, "metric.created", json!({ "key": "M-OWED" })).await;
    admin.write("createMetric", json!({ "key": "M-WRITTEN", "name": "Written" })).await;
    let backups = Backups::of(&app);
    let id = backups.make(&["--no-verify"]).await;
    let mut worker = WorkerProcess::start(&app);
    receiver.until(2).await;
    worker.kill();

    backups.must(&["restore", &id, "--in-place", "--yes"]).await;
    assert_eq!(app.database.text("SELECT string_agg(state, ' ') FROM webhook_deliveries").await.as_deref(), Some("discarded"));
    let _worker = WorkerProcess::start(&app);
    let admin = app.client(Role::Admin).await;
    admin.write("createMetric", json!({ "key": "M-NEW", "name": "New" })).await;
    until(&admin, "what is new is delivered", |all| all.iter().any(|one| one["state"] == "DELIVERED")).await;
    let keys: Vec<_> = receiver.received().iter().map(|one| one.json()["data"]["key"].clone()).collect();
    assert_eq!((keys.len(), &keys[2]), (3, &json!("M-NEW")), "{keys:?}");

    let discarded =
        admin.ask("{ webhookDeliveries(first: 1, filter: { state: { in: [DISCARDED] } }) { nodes { id } } }", json!({})).await;
    let retry = json!({ "id": discarded["webhookDeliveries"]["nodes"][0]["id"] });
    assert_eq!(admin.mutate("retryDelivery", retry, "").await.user_errors(), [""; 0], "it can be sent by hand");
    let again = receiver.until(4).await;
    assert!(again[..2].iter().any(|one| one.header("webhook-id") == again[3].header("webhook-id")));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenant_is_brought_back_into_a_running_system() {
    let app = TestApp::start().await;
    let globex = app.other_tenant().await;
    let (acme, other) = (app.client(Role::Editor).await, app.client_of("globex", Role::Editor).await);
    fill(&app, &acme).await;
    other.write("createMetric", json!({ "key": "G-1", "name": "Theirs" })).await;
    let backups = Backups::of(&app);
    let id = backups.make(&["--no-verify"]).await;
    let before = rows_of(&app, app.tenant.id).await;

    acme.write("createMetric", json!({ "key": "M-LATER", "name": "Later" })).await;
    app.database
        .execute(&format!("DELETE FROM key_results; DELETE FROM memberships WHERE tenant_id = '{}'", app.tenant.id))
        .await;
    app.database.execute("UPDATE metrics SET name = 'Changed' WHERE key = 'M-1'").await;
    other.write("createMetric", json!({ "key": "G-2", "name": "Theirs too" })).await;
    let changed = app.database.contents().await;
    let others = rows_of(&app, globex.id).await;

    let told = backups.must(&["restore", &id, "--tenant", "acme", "--dry-run"]).await;
    let metrics: Vec<_> = told.lines().find(|line| line.starts_with("metrics ")).unwrap().split_whitespace().collect();
    assert_eq!(metrics, ["metrics", "4", "3", "0", "1", "1"], "now, backup, added, changed, removed");
    let imports: Vec<_> = told.lines().find(|line| line.starts_with("imports ")).unwrap().split_whitespace().collect();
    assert_eq!(imports, ["imports", "1", "1", "0", "1", "0"], "the one under way is ended");
    assert_eq!(app.database.contents().await, changed, "a dry run changes nothing");

    backups.must(&["restore", &id, "--tenant", "acme", "--yes"]).await;
    assert_eq!(rows_of(&app, app.tenant.id).await, before);
    assert_eq!(rows_of(&app, globex.id).await, others);
    let audited = "SELECT count(*) FROM audit_log WHERE action = 'tenant.restored'";
    assert_eq!(app.database.number(audited).await, 1);
    eventually("kept answers are forgotten", async || {
        (acme.ask(QUERY, json!({})).await["metrics"]["totalCount"] == 3).then_some(())
    })
    .await;
    let unknown = backups.run(&["restore", &id, "--tenant", "nobody", "--dry-run"]).await;
    assert!(!unknown.succeeded && unknown.stderr.contains("has no tenant"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scratch_database_that_stays_does_not_undo_the_restore_of_a_tenant() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    editor.write("createMetric", json!({ "key": "M-1", "name": "Metric 1" })).await;
    let mut backups = Backups::of(&app);
    let (name, scratch) = (app.database.name(), app.database.server_url("mdl_scratch"));
    backups.set(&[("MDL_BACKUP_SCRATCH_URL", &format!("{scratch}?application_name={name}"))]);
    let id = backups.make(&["--no-verify"]).await;
    editor.write("createMetric", json!({ "key": "M-LATER", "name": "Later" })).await;
    // Holds it up at its last statement.
    let somebody = app.database.superuser().await;
    somebody.batch_execute("BEGIN; LOCK TABLE outbox IN SHARE MODE").await.unwrap();
    let restoring = tokio::spawn(told(backups.command(&["restore", &id, "--tenant", "acme", "--yes"])));
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                   AND query LIKE 'INSERT INTO outbox %'";
    eventually("it waits", async || (app.database.number(waiting).await == 1).then_some(())).await;
    let scratch = format!(
        "SELECT 'mdl_scratch_' || lpad(to_hex(objid::bigint), 8, '0') FROM pg_locks JOIN pg_stat_activity USING (pid)
         WHERE locktype = 'advisory' AND application_name = '{name}'"
    );
    let scratch = app.database.text(&scratch).await.expect("the scratch database");
    let end = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '{name}'");
    assert!(app.database.number(&end).await > 0);
    somebody.batch_execute("COMMIT").await.unwrap();
    let told = restoring.await.unwrap();
    assert!(told.succeeded && told.stderr.contains("Could not drop a scratch database"), "{told:?}");
    assert_eq!(app.database.number("SELECT count(*) FROM metrics").await, 1);
    backups.must(&["verify", &id]).await;
    // The next one drops it, or another test's, which may still be at it.
    eventually("it is dropped", async || app.database.others(&scratch).await.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_stored_between_backups() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    fill(&app, &editor).await;
    let mut backups = Backups::of(&app);
    let remote = backups.folder().join("remote");
    backups.set(&[("MDL_BACKUP_REMOTE_URL", &format!("file://{}", remote.display()))]);
    let id = backups.make(&[]).await;
    let storage = app.app.config.storage.url.to_file_path().unwrap();
    std::fs::write(storage.join("later.csv"), "metric_id,name\nM-9,Later\n").unwrap();
    let _worker = WorkerProcess::start_with(backups.environment());
    let enqueue = async || {
        let tx = app.app.db.begin(SYSTEM).await.unwrap();
        jobs::enqueue(&tx, &Actor::system(SYSTEM), &BackUpFiles::default(), &Enqueue::default()).await.unwrap();
        tx.commit().await.unwrap();
    };
    let until = async |what: &str| {
        let count = format!("SELECT count(*) FROM jobs WHERE kind = 'back_up_files' AND {what}");
        eventually(what, async || (app.database.number(&count).await == 1).then_some(())).await;
    };
    enqueue().await;
    until("state = 'succeeded'").await;
    // A run that has nothing new, and one that comes while a backup is made.
    enqueue().await;
    eventually("it is done again", async || {
        let done = "SELECT count(*) FROM jobs WHERE kind = 'back_up_files' AND state = 'succeeded'";
        (app.database.number(done).await == 2).then_some(())
    })
    .await;
    let somebody = app.database.superuser().await;
    somebody.execute("SELECT pg_advisory_lock(1835297890)", &[]).await.unwrap();
    enqueue().await;
    until("state = 'waiting' AND run_at > now() + interval '9 minutes' AND attempt = 0").await;
    somebody.execute("SELECT pg_advisory_unlock_all()", &[]).await.unwrap();

    let told = backups.must(&["prune"]).await;
    let stored = |place: &str| std::fs::read_dir(backups.folder().join(place).join("files")).unwrap().count();
    assert_eq!((stored("place"), stored("remote")), (2, 2), "no backup has the later one, and it stays: {told}");
    std::fs::remove_dir_all(backups.folder().join("place")).unwrap();
    std::fs::remove_dir_all(&storage).unwrap();
    let beside = format!("{}_beside", app.database.name());
    let told = backups.must(&["restore", &id, "--into", &beside]).await;
    assert!(told.contains("Brought back 2 files"), "{told}");
    assert_eq!(std::fs::read_to_string(storage.join("later.csv")).unwrap(), "metric_id,name\nM-9,Later\n");
    app.database.drop_other(&beside).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_backups_go_and_the_last_verified_ones_stay() {
    let app = TestApp::start().await;
    fill(&app, &app.client(Role::Editor).await).await;
    let mut backups = Backups::of(&app);
    backups.set(&[("MDL_BACKUP_LOCAL_DAYS", "0"), ("MDL_BACKUP_KEEP_VERIFIED", "1")]);
    let unverified = backups.make(&["--no-verify"]).await;
    backups.must(&["prune"]).await;
    assert_eq!(backups.list().await.len(), 1, "while none is verified, all stay");
    let first = backups.make(&[]).await;
    let second = backups.make(&[]).await;
    let told = backups.must(&["prune", "--dry-run"]).await;
    assert!(told.contains(&unverified) && told.contains(&first) && !told.contains(&second), "{told}");
    assert_eq!(backups.list().await.len(), 3);
    backups.must(&["prune"]).await;
    let left: Vec<_> = backups.list().await.iter().map(|backup| backup["id"].clone()).collect();
    assert_eq!(left, [second.as_str()]);
    // The uploaded file is the same in all of them, stored once, and still needed.
    assert_eq!(std::fs::read_dir(backups.folder().join("place/files")).unwrap().count(), 1);
    backups.must(&["verify", &second]).await;
    assert_eq!(app.database.number("SELECT count(*) FROM backups WHERE pruned_at IS NOT NULL").await, 2);
}

/// The page of the documentation, command by command, as somebody would who follows it.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_commands_work() {
    let app = TestApp::start().await;
    fill(&app, &app.client(Role::Editor).await).await;
    let backups = Backups::of(&app);
    let page = std::fs::read_to_string(root().join("docs/operations/backup-recovery.md")).unwrap();
    let blocks = page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let commands: Vec<_> = blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("mdl-worker backup ")).collect();
    for command in ["now", "list", "verify", "restore", "switch", "prune", "keygen"] {
        assert!(commands.iter().any(|line| line.split(' ').next() == Some(command)), "{command} is not documented");
    }
    let beside = format!("{}_beside", app.database.name());
    std::fs::create_dir(backups.folder().join("place")).unwrap();
    for line in commands {
        // Comments, and where the output goes, are the shell's.
        let line = line.split(['#', '>']).next().unwrap().trim();
        let id = backups.list().await.pop().map(|backup| backup["id"].as_str().unwrap().to_owned()).unwrap_or_default();
        let line = line.replace("$ID", &id).replace("mdl_restored", &beside).replace("$TENANT", "acme");
        let mut arguments: Vec<_> = line.split(' ').collect();
        let asks =
            arguments[0] == "switch" || line.contains("--in-place") || (line.contains("--tenant") && !line.contains("--dry-run"));
        if asks && !arguments.contains(&"--yes") {
            // A terminal would ask here.
            arguments.push("--yes");
        }
        backups.must(&arguments).await;
    }
    for name in app.database.others(&format!("{}_", app.database.name())).await {
        app.database.drop_other(&name).await;
    }
}

/// Three metrics, an objective, and an import with its file.
async fn fill(app: &TestApp, editor: &Client) {
    for number in 1..=3 {
        editor.write("createMetric", json!({ "key": format!("M-{number}"), "name": format!("Metric {number}") })).await;
    }
    let objective = editor.write("createObjective", json!({ "key": "O", "name": "Objective" })).await;
    let input = json!({ "objectiveId": objective["id"], "key": "K", "name": "Key result", "currentValue": 0.1 });
    assert_eq!(editor.mutate("createKeyResult", input, "").await.user_errors(), [""; 0]);
    let text = "{\"metric_id\": \"M-1\", \"name\": \"Metric 1\"}\n";
    let input = json!({ "text": text, "fileName": "metrics.ndjson" });
    assert_eq!(editor.mutate("importCatalog", input, "").await.user_errors(), [""; 0]);
    assert_eq!(app.app.storage.list().await.unwrap().len(), 1);
}

/// The tables that a restore brings back as they were: not the ledgers of what goes on, and not what signing in writes.
async fn contents(app: &TestApp) -> BTreeMap<String, String> {
    let mut contents = app.database.contents().await;
    let moving = ["jobs", "outbox", "outbox_commits", "event_streams", "sessions", "refresh_tokens", "backups", "restore_drills"];
    contents.retain(|table, _| !moving.contains(&table.as_str()));
    assert!(contents.len() > 15, "the tables are there");
    contents
}

/// What one tenant has of what a restore of it brings back.
async fn rows_of(app: &TestApp, tenant: TenantId) -> Value {
    let superuser = app.database.superuser().await;
    let mut rows = serde_json::Map::new();
    for table in ["users", "memberships", "metrics", "metric_versions", "objectives", "key_results", "imports"] {
        // An import that was under way is ended, since its job stays away.
        let query = format!(
            "SELECT coalesce(jsonb_agg(to_jsonb(t) - '{{last_signed_in_at,state,error,finished_at}}'::text[] ORDER BY t::text), '[]')
             FROM {table} t WHERE tenant_id = $1"
        );
        let found: Value = superuser.query_one(&query, &[&tenant.0]).await.unwrap().get(0);
        rows.insert(table.to_owned(), found);
    }
    rows.into()
}
