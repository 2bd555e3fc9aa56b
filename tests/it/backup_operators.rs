//! Backups for those who operate the deployment: by the worker, in GraphQL, in a bucket.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use mdl::actor::{Actor, Role};
use mdl::tenants::SYSTEM;
use mdl::users::{self, NewUser};
use mdl_tests::backups::Backups;
use mdl_tests::servers::{WorkerProcess, free_port};
use mdl_tests::{Client, PASSWORD, TestApp, clients, eventually};
use serde_json::json;

const BACKUPS: &str = "{ backups(first: 5) { newestVerified { backupId } nodes { backupId state phase doneBytes expectedBytes places storedBytes rowCount encrypted error requestedBy { name } } } restoreDrills(first: 5) { nodes { backupId state doneBytes expectedBytes place differences error } } }";

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_asks_for_a_backup_and_sees_it_verified() {
    let app = TestApp::start().await;
    let operator = operator(&app).await;
    let backups = Backups::of(&app);
    let asked = operator.send("mutation { backUpNow { backup { backupId state } userErrors { message } } }", json!({})).await;
    let backup = asked.payload()["backup"].clone();
    assert_eq!(backup["state"], "QUEUED");
    let again = operator.send("mutation { backUpNow { backup { backupId } userErrors { message } } }", json!({})).await;
    assert_eq!(again.payload()["backup"], json!(null), "one at a time");
    let theirs = app.client(Role::Admin).await;
    assert_eq!(theirs.ask(BACKUPS, json!({})).await["backups"]["nodes"], json!([]), "other tenants have no backups");

    let _worker = WorkerProcess::start_with(backups.environment());
    let seen = eventually("it is verified", async || {
        let seen = operator.ask(BACKUPS, json!({})).await;
        assert_ne!(seen["backups"]["nodes"][0]["state"], "FAILED", "{seen}");
        (seen["backups"]["nodes"][0]["state"] == "VERIFIED").then_some(seen)
    })
    .await;
    assert_eq!(seen["backups"]["newestVerified"]["backupId"], backup["backupId"]);
    assert_eq!(seen["restoreDrills"]["nodes"][0]["state"], "SUCCEEDED");
    for done in [&seen["backups"]["nodes"][0], &seen["restoreDrills"]["nodes"][0]] {
        assert_eq!(done["doneBytes"], done["expectedBytes"], "{seen}");
    }
    assert_eq!(backups.list().await[0]["id"], backup["backupId"]);
    let told =
        "SELECT count(*) FROM outbox WHERE kind = 'backup.completed' AND tenant_id = '00000000-0000-0000-0000-000000000001'";
    assert_eq!(app.database.number(told).await, 1);
}

/// Also the copy in a second place, of which the bucket is one here.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_takes_backups_and_gives_them_back() {
    let Some(bucket) = Bucket::start().await else { return };
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    let endpoint = format!("http://127.0.0.1:{}", bucket.port);
    backups.set(&[
        ("MDL_BACKUP_REMOTE_URL", "s3://backups/mdl"),
        ("MDL_BACKUP_ENDPOINT", &endpoint),
        ("MDL_BACKUP_ACCESS_KEY_ID", "S3RVER"),
        ("MDL_BACKUP_SECRET_ACCESS_KEY", "S3RVER"),
    ]);
    let id = backups.make(&[]).await;
    assert_eq!(backups.list().await[0]["places"].as_array().unwrap().len(), 2);
    std::fs::remove_dir_all(backups.folder().join("place")).unwrap();
    backups.must(&["verify", &id, "--from", "s3://backups/mdl"]).await;
    let beside = format!("{}_beside", app.database.name());
    backups.must(&["restore", &id, "--into", &beside]).await;
    app.database.drop_other(&beside).await;
    // And as the only place.
    backups.set(&[("MDL_BACKUP_REMOTE_URL", ""), ("MDL_BACKUP_URL", "s3://backups/other")]);
    backups.make(&[]).await;

    drop(bucket);
    let again = format!("file://{}", backups.folder().join("again").display());
    backups.set(&[("MDL_BACKUP_REMOTE_URL", "s3://backups/mdl"), ("MDL_BACKUP_URL", &again)]);
    let alone = backups.run(&["now"]).await;
    assert!(!alone.succeeded && alone.stderr.contains("has no copy in s3://backups/mdl"), "{alone:?}");
    assert_eq!(backups.list().await[0]["places"], json!([again]), "the first place has it, and is listed");
    assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE kind = 'backup.copy.failed'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_without_its_copy_is_good_and_the_command_fails() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    // Nobody answers there.
    backups.set(&[
        ("MDL_BACKUP_REMOTE_URL", "s3://backups/mdl"),
        ("MDL_BACKUP_ENDPOINT", "http://127.0.0.1:1"),
        ("MDL_BACKUP_ACCESS_KEY_ID", "S3RVER"),
        ("MDL_BACKUP_SECRET_ACCESS_KEY", "S3RVER"),
    ]);
    let told = backups.run(&["now"]).await;
    assert!(!told.succeeded && told.stdout.contains("Verified the backup"), "{told:?}");
    assert!(told.stderr.contains("Error: A backup could not be copied to the second place: "), "{told:?}");
    assert!(told.stderr.contains("has no copy in s3://backups/mdl"), "{told:?}");
    // What is wrong is not among what was asked for.
    let listed = backups.list().await;
    assert!(listed.len() == 1 && listed[0]["verifiedAt"].is_string(), "{listed:?}");
    backups.set(&[("MDL_LOG", "off")]);
    let told = backups.run(&["now", "--no-verify", "--json"]).await;
    assert!(!told.succeeded && !told.stderr.contains("Error: "), "MDL_LOG is heard: {told:?}");
    assert!(told.stderr.contains("has no copy in s3://backups/mdl"), "{told:?}");
    let made: serde_json::Value = serde_json::from_str(&told.stdout).expect("JSON alone");
    assert_eq!((&made["verifiedAt"], &made["lacking"]), (&json!(null), &json!(["s3://backups/mdl"])), "{made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_for_backups_speak_json() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    let json = async |arguments: &[&str]| -> serde_json::Value {
        let told = backups.must(&[arguments, &["--json"]].concat()).await;
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
    };
    let made = json(&["now"]).await;
    let id = made["id"].as_str().unwrap();
    let listed = backups.list().await.pop().unwrap();
    assert_eq!((&listed["id"], &listed["places"], &listed["rows"]), (&made["id"], &made["places"], &made["rows"]));
    assert!(made["verifiedAt"].is_string() && made["lacking"] == json!([]), "{made}");
    let verified = json(&["verify", id]).await;
    assert!(verified["place"] == made["places"][0] && verified["verifiedAt"].is_string(), "{verified}");
    let pruned = json(&["prune", "--dry-run"]).await;
    let nothing = json!({ "place": made["places"][0], "backups": [], "files": 0, "leftovers": [], "temporaryFiles": 0 });
    assert_eq!(pruned, json!({ "dryRun": true, "places": [nothing] }));
    let tenant = json(&["restore", id, "--tenant", "acme", "--dry-run"]).await;
    assert!(tenant["dryRun"] == true && !tenant["tables"].as_array().unwrap().is_empty(), "{tenant}");
    let beside = format!("{}_beside", app.database.name());
    let restored = json(&["restore", id, "--into", &beside]).await;
    assert_eq!((&restored["database"], &restored["inUse"]), (&json!(beside), &json!(false)), "{restored}");
    let switched = json(&["switch", &beside, "--yes"]).await;
    assert_eq!(switched["inUse"], true);
    app.database.drop_other(switched["kept"].as_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_says_when_caches_could_not_be_told() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    let told = backups.must(&["switch", app.database.name(), "--yes"]).await;
    assert!(told.contains("is in use already"), "{told}");
    backups.set(&[("REDIS_URL", "redis://127.0.0.1:1/0")]);
    let told = backups.run(&["switch", app.database.name(), "--yes"]).await;
    assert!(!told.succeeded && told.stdout.contains("is in use already"), "{told:?}");
    assert!(told.stderr.contains("Warning: Could not tell Redis of a write"), "{told:?}");
    assert!(told.stderr.contains("caches could not be told"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn that_there_is_none_is_told_once() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    let overdue = "SELECT count(*) FROM outbox WHERE kind = 'backup.overdue'";
    let (watching, _) = app.another_api(&[("MDL_BACKUP_DATABASE_URL", &app.database.url("mdl_backup"))]).await;
    for _ in 0..2 {
        mdl::backups::watch::overdue(&watching).await.unwrap();
        assert_eq!(app.database.number(overdue).await, 1);
    }
    backups.make(&[]).await;
    mdl::backups::watch::overdue(&watching).await.unwrap();
    assert_eq!(app.database.number(overdue).await, 1);
    app.database.execute("UPDATE backups SET started_at = started_at - interval '27 hours'").await;
    app.database.execute("UPDATE outbox SET created_at = created_at - interval '30 hours'").await;
    mdl::backups::watch::overdue(&watching).await.unwrap();
    assert_eq!(app.database.number(overdue).await, 2, "told again after one was verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_shows_what_another_has_made() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    backups.make(&[]).await;
    backups.make(&["--no-verify"]).await;
    let worker = WorkerProcess::start_with(backups.environment());
    let shown = eventually("it has looked", async || {
        worker.instruments().await.filter(|shown| shown.contains("\nmdl_backup_size_deviation_ratio "))
    })
    .await;
    assert!(shown.contains("\nmdl_backup_overdue 0\n") && shown.contains("\nmdl_backup_bytes "), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_jumps_is_told() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    backups.make(&["--no-verify"]).await;
    let filler = "SET ROLE mdl_owner; CREATE TABLE filler AS SELECT md5(n::text) || md5((n + 1)::text) AS text FROM generate_series(1, 5000) AS n";
    app.database.execute(filler).await;
    backups.make(&["--no-verify"]).await;
    assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE kind = 'backup.size.deviated'").await, 1);
}

/// A member of the tenant mdl-system.
async fn operator(app: &TestApp) -> Client {
    let email = "operator@example.com".to_owned();
    let new = NewUser { email: email.clone(), name: "The operator".to_owned(), password: PASSWORD.to_owned(), role: Role::Admin };
    users::create(&app.app, &Actor::system(SYSTEM), new).await.unwrap();
    app.anonymous().sign_in("mdl-system", &email, PASSWORD).await
}

/// An S3-compatible store with a bucket called `backups`.
struct Bucket {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Bucket {
    async fn start() -> Option<Self> {
        let clients = clients::folder()?;
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let process = Command::new(clients.join("node_modules/.bin/s3rver"))
            .args([
                "--silent",
                "--address",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--configure-bucket",
                "backups",
                "--directory",
            ])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the bucket answers", async || TcpStream::connect(("127.0.0.1", port)).ok()).await;
        Some(Self { process, port, _folder: folder })
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.process.kill().expect("the bucket ends");
        self.process.wait().expect("the bucket has ended");
    }
}
