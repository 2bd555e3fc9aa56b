//! Backups and restores that are killed leave nothing that is taken for a whole one, and what they leave goes.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use mdl::actor::Actor;
use mdl::backups::{BackUp, RestoreDrillJob};
use mdl::tenants::SYSTEM;
use mdl_tests::backups::{Backups, told};
use mdl_tests::servers::{WorkerProcess, binary};
use mdl_tests::{TestApp, eventually};
use serde_json::{Value, json};

use crate::backup_failures::{enqueue, left};

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_restore_is_not_switched_to_and_begins_anew() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    let id = backups.make(&["--no-verify"]).await;
    // A pg_restore that does all of it, and does not end.
    let tools = backups.folder().join("tools");
    std::fs::create_dir(&tools).unwrap();
    let done = backups.folder().join("done");
    let script = format!(
        "#!/bin/sh\nPATH=\"$MDL_TEST_PG_BIN:$PATH\"\npg_restore \"$@\" || exit\ntouch '{}'\nexec sleep 120\n",
        done.display()
    );
    let pg_restore = tools.join("pg_restore");
    std::fs::write(&pg_restore, script).unwrap();
    std::fs::set_permissions(&pg_restore, std::fs::Permissions::from_mode(0o755)).unwrap();
    let good = backups.environment().iter().find(|(name, _)| name == "MDL_BACKUP_TOOLS_DIR").map(|(_, value)| value.clone());
    backups.set(&[("MDL_BACKUP_TOOLS_DIR", &tools.display().to_string())]);
    let beside = format!("{}_beside", app.database.name());
    let mut hung = backups.command(&["restore", &id, "--into", &beside]).stdout(Stdio::null()).spawn().unwrap();
    eventually("its tables are there", async || done.exists().then_some(())).await;
    hung.kill().unwrap();
    hung.wait().unwrap();
    backups.set(&[("MDL_BACKUP_TOOLS_DIR", good.as_deref().unwrap_or_default())]);

    let told = backups.run(&["switch", &beside, "--yes"]).await;
    assert!(!told.succeeded && told.stderr.contains("was interrupted: run it again"), "{told:?}");
    assert_eq!(app.database.others(&beside).await, [beside.as_str()], "nothing was renamed");
    let told = backups.run(&["restore", &id, "--into", &beside]).await;
    assert!(told.succeeded && told.stderr.contains("Dropped the database that an interrupted restore had left"), "{told:?}");
    let again = backups.run(&["restore", &id, "--into", &beside]).await;
    assert!(!again.succeeded && again.stderr.contains(&format!("mdl-worker backup switch {beside}")), "{again:?}");
    let told = backups.must(&["switch", &beside, "--yes"]).await;
    let kept = told.split("is kept as ").nth(1).and_then(|rest| rest.split(':').next()).expect("the name of the old one");
    app.database.drop_other(kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backup_publishes_nothing_and_the_next_one_tidies_up() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    // A pg_dump that begins, and does not end.
    let tools = backups.folder().join("tools");
    std::fs::create_dir(&tools).unwrap();
    let script = "#!/bin/sh\nPATH=\"$MDL_TEST_PG_BIN:$PATH\"\n[ \"$2\" != '' ] || exec pg_dump \"$@\"\npg_dump \"$@\" | head -c 60000\nexec sleep 120\n";
    let pg_dump = tools.join("pg_dump");
    std::fs::write(&pg_dump, script).unwrap();
    std::fs::set_permissions(&pg_dump, std::fs::Permissions::from_mode(0o755)).unwrap();
    let good = backups.environment().iter().find(|(name, _)| name == "MDL_BACKUP_TOOLS_DIR").map(|(_, value)| value.clone());
    backups.set(&[("MDL_BACKUP_TOOLS_DIR", &tools.display().to_string())]);
    let mut hung = backups.command(&["now"]).stdout(Stdio::null()).spawn().unwrap();
    eventually("it has begun to write", async || left(&backups).iter().any(|file| file.contains('#')).then_some(())).await;
    let another = backups.run(&["now"]).await;
    assert!(!another.succeeded && another.stderr.contains("Another backup"), "{another:?}");
    hung.kill().unwrap();
    hung.wait().unwrap();
    assert_eq!(backups.list().await.len(), 0);

    backups.set(&[("MDL_BACKUP_TOOLS_DIR", good.as_deref().unwrap_or_default())]);
    eventually("the server has noticed", async || backups.run(&["now"]).await.succeeded.then_some(())).await;
    assert_eq!(backups.list().await.len(), 1);
    assert!(left(&backups).iter().all(|file| !file.contains('#')), "{:?}", left(&backups));
    let abandoned = "SELECT count(*) FROM backups WHERE state = 'failed' AND error LIKE 'The program that made it%'";
    assert_eq!(app.database.number(abandoned).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_has_failed_at_once() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    backups.make(&["--no-verify"]).await;
    // Tools that begin nothing, and do not end.
    let tools = backups.folder().join("tools");
    std::fs::create_dir(&tools).unwrap();
    for tool in ["pg_dump", "pg_restore"] {
        let script =
            format!("#!/bin/sh\nPATH=\"$MDL_TEST_PG_BIN:$PATH\"\n[ \"$2\" != '' ] || exec {tool} \"$@\"\nexec sleep 120\n");
        std::fs::write(tools.join(tool), script).unwrap();
        std::fs::set_permissions(tools.join(tool), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    backups.set(&[("MDL_BACKUP_TOOLS_DIR", &tools.display().to_string())]);
    let _worker = WorkerProcess::start_with(backups.environment());
    enqueue(&app, BackUp::default()).await;
    enqueue(&app, RestoreDrillJob::default()).await;
    for (kind, table) in [("back_up", "backups"), ("restore_drill", "restore_drills")] {
        let running = format!("SELECT count(*) FROM {table} WHERE state = 'running'");
        eventually("it is under way", async || (app.database.number(&running).await == 1).then_some(())).await;
        let mut cancel = Command::new(binary("mdl-worker"));
        cancel.args(["jobs", "cancel", "--kind", kind, "--state", "running"]).envs(app.environment());
        let told = told(cancel).await;
        assert!(told.succeeded && told.stdout.contains(": 1 job\n"), "{told:?}");
        let cancelled = format!(
            "SELECT count(*) FROM {table} WHERE state = 'failed' AND finished_at IS NOT NULL AND error LIKE 'Its job was cancelled%'"
        );
        eventually("it has failed", async || (app.database.number(&cancelled).await == 1).then_some(())).await;
        assert_eq!(app.database.number(&running).await, 0);
    }
    assert_eq!(app.database.number("SELECT count(*) FROM backups WHERE state = 'published'").await, 1, "the other is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_whose_backup_was_killed_goes_after_a_day() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    let place = backups.folder().join("place");
    // A file storage that lets everybody in, and never answers: it is asked when the dump is whole.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let good = app.app.config.storage.url.to_string();
    backups.set(&[
        ("MDL_STORAGE_URL", "s3://uploads"),
        ("MDL_STORAGE_ENDPOINT", &format!("http://{}", silent.local_addr().unwrap())),
        ("MDL_STORAGE_ACCESS_KEY_ID", "nobody"),
        ("MDL_STORAGE_SECRET_ACCESS_KEY", "nothing"),
    ]);
    let mut hung = backups.command(&["now"]).stdout(Stdio::null()).spawn().unwrap();
    eventually("the dump has its name", async || left(&backups).iter().any(|file| file.ends_with(".age")).then_some(())).await;
    hung.kill().unwrap();
    hung.wait().unwrap();
    backups.set(&[("MDL_STORAGE_URL", &good), ("MDL_STORAGE_ENDPOINT", "")]);
    let died = backups.list().await.pop().unwrap();
    let died = died["id"].as_str().unwrap();
    // Halves of other files, and what is none.
    let halves = ["files.json#1", &format!("backups/{died}/manifest.json#2")].map(|name| place.join(name));
    let others = ["notes#1", "files.json#old"].map(|name| place.join(name));
    halves.iter().chain(&others).for_each(|file| std::fs::write(file, "half").unwrap());
    let folder = place.join("files/folder#1");
    std::fs::create_dir_all(&folder).unwrap();

    let prune = async |arguments: &[&str]| -> Value {
        let pruned = backups.must(&[&["prune", "--json"], arguments].concat()).await;
        serde_json::from_str::<Value>(&pruned).unwrap()["places"][0].clone()
    };
    eventually("the server has noticed", async || backups.run(&["prune"]).await.succeeded.then_some(())).await;
    let pruned = prune(&[]).await;
    assert_eq!((&pruned["leftovers"], &pruned["temporaryFiles"]), (&json!([]), &json!(0)), "somebody may want to look at it");
    days_pass(&backups);
    make_old(&folder);
    for arguments in [&["--dry-run"][..], &[]] {
        let pruned = prune(arguments).await;
        assert_eq!((&pruned["leftovers"], &pruned["temporaryFiles"]), (&json!([died]), &json!(2)), "{pruned}");
        assert_eq!(backups.files(died).exists(), !arguments.is_empty());
    }
    assert!(halves.iter().all(|file| !file.exists()) && others.iter().all(|file| file.exists()) && folder.exists());
    assert_eq!(backups.list().await.len(), 0);
    assert_eq!(app.database.text("SELECT state FROM backups").await.as_deref(), Some("failed"));
    backups.make(&[]).await;
}

/// As it is after the database was restored from an older backup.
#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_the_database_does_not_know_stays() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    let id = backups.make(&["--no-verify"]).await;
    std::fs::remove_file(backups.files(&id).join("manifest.json")).unwrap();
    days_pass(&backups);
    app.database.execute("DELETE FROM backups").await;
    backups.must(&["prune"]).await;
    assert_eq!(backups.list().await.len(), 1);
    // One that was removed from a place which keeps backups for a shorter time.
    let known = "INSERT INTO backups (tenant_id, id, program_version, encrypted, state, stored_bytes, pruned_at)
                 SELECT id, '{id}', '', true, 'verified', 1, now() FROM tenants WHERE slug = 'mdl-system'";
    app.database.execute(&known.replace("{id}", &id)).await;
    backups.must(&["prune"]).await;
    assert_eq!(backups.list().await.len(), 1);
    // And one of which a clean-up of this place died between its steps.
    backups.set(&[("MDL_BACKUP_LOCAL_DAYS", "0")]);
    backups.must(&["prune"]).await;
    assert_eq!(backups.list().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_brought_back_during_a_clean_up_saves_its_backup() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    // A file that no other backup has.
    let storage = app.app.config.storage.url.to_file_path().unwrap();
    std::fs::create_dir_all(&storage).unwrap();
    std::fs::write(storage.join("gone.csv"), "metric_id,name\n").unwrap();
    let saved = backups.make(&["--no-verify"]).await;
    std::fs::remove_file(storage.join("gone.csv")).unwrap();
    let manifest = backups.files(&saved).join("manifest.json");
    let whole = std::fs::read(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    app.database.execute("UPDATE backups SET state = 'failed', stored_bytes = NULL, places = '{}'").await;
    days_pass(&backups);
    let old = backups.make(&[]).await;
    backups.make(&[]).await;

    // Holds it up when it has looked, and before it removes anything.
    backups.set(&[("MDL_BACKUP_LOCAL_DAYS", "0"), ("MDL_BACKUP_KEEP_VERIFIED", "1")]);
    let somebody = app.database.superuser().await;
    somebody.batch_execute(&format!("BEGIN; SELECT FROM backups WHERE id = '{old}' FOR UPDATE")).await.unwrap();
    let pruning = tokio::spawn(told(backups.command(&["prune"])));
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                   AND query LIKE 'UPDATE \"backups\" %'";
    eventually("it waits", async || (app.database.number(waiting).await == 1).then_some(())).await;
    std::fs::write(&manifest, whole).unwrap();
    somebody.batch_execute("COMMIT").await.unwrap();
    let told = pruning.await.unwrap();
    assert!(told.succeeded && !told.stdout.contains(&saved), "{told:?}");
    assert!(told.stdout.contains(&old) && !backups.files(&old).exists(), "{told:?}");
    backups.must(&["verify", &saved]).await;
}

/// As a copy leaves it that is killed before its manifest.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_copy_goes_where_another_place_has_the_whole() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    let remote = backups.folder().join("remote");
    backups.set(&[("MDL_BACKUP_REMOTE_URL", &format!("file://{}", remote.display()))]);
    let id = backups.make(&["--no-verify"]).await;
    let copy = remote.join("backups").join(&id);
    std::fs::remove_file(copy.join("manifest.json")).unwrap();
    make_old(&copy.join("database.dump.age"));
    make_old(&copy.join("files.json"));
    backups.must(&["prune"]).await;
    assert!(copy.exists(), "the database knows that it was whole, so its manifest was lost");
    app.database.execute("UPDATE backups SET places = places[1:1]").await;
    backups.must(&["prune"]).await;
    assert!(copy.exists(), "nobody knows yet that the other one is good");
    backups.must(&["verify", &id]).await;
    let (dump, aside) = (backups.files(&id).join("database.dump.age"), backups.folder().join("aside"));
    std::fs::rename(&dump, &aside).unwrap();
    backups.must(&["prune"]).await;
    assert!(copy.exists(), "the other one has lost its dump");
    std::fs::rename(&aside, &dump).unwrap();
    backups.must(&["prune"]).await;
    assert!(!copy.exists());
    backups.must(&["verify", &id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_without_a_manifest_stays_and_is_listed() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    let id = backups.make(&["--no-verify"]).await;
    let manifest = backups.files(&id).join("manifest.json");
    let whole = std::fs::read(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    let told = backups.must(&["list"]).await;
    assert!(told.contains(&id) && told.contains("without a manifest"), "{told}");
    for command in ["verify", "restore"] {
        let told = backups.run(&[command, &id]).await;
        assert!(!told.succeeded && told.stderr.contains("has no manifest.json in file://"), "{told:?}");
        assert_eq!(told.stderr.trim().lines().count(), 1, "{told:?}");
    }
    backups.make(&["--no-verify"]).await;
    assert_eq!(backups.list().await.len(), 2, "the next backup leaves it alone");
    days_pass(&backups);
    let told = backups.run(&["prune"]).await;
    assert!(told.succeeded && told.stderr.contains("No files are removed"), "{told:?}");
    assert_eq!(backups.list().await.len(), 2, "the database knows that it was published here");
    std::fs::write(&manifest, whole).unwrap();
    backups.must(&["verify", &id]).await;
}

/// The dump has a row of its own backup, from before that was published.
#[tokio::test(flavor = "multi_thread")]
async fn the_dump_that_the_database_was_restored_from_stays() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    mdl::backups::request(&app.app, &Actor::system(SYSTEM)).await.unwrap();
    let id = backups.make(&["--no-verify"]).await;
    let beside = format!("{}_beside", app.database.name());
    backups.must(&["restore", &id, "--into", &beside]).await;
    // The place is away when the switch would tell the database what is there.
    let place = format!("file://{}", backups.folder().join("place").display());
    backups.set(&[("MDL_BACKUP_URL", "file:///proc/nowhere")]);
    let told = backups.run(&["switch", &beside, "--yes"]).await;
    assert!(told.succeeded && told.stderr.contains("could not be told of the backups"), "{told:?}");
    backups.set(&[("MDL_BACKUP_URL", &place)]);
    assert_eq!(app.database.number("SELECT count(*) FROM backups").await, 0, "nor is the one known that was asked for");
    let asked = "SELECT count(*) FROM jobs WHERE kind = 'back_up' AND payload ->> 'id' IS NULL";
    assert_eq!(app.database.number(asked).await, 1, "it is made, under a new id");

    std::fs::remove_file(backups.files(&id).join("manifest.json")).unwrap();
    days_pass(&backups);
    backups.must(&["prune"]).await;
    assert_eq!(backups.list().await.len(), 1);
    let kept = told.stdout.split("is kept as ").nth(1).and_then(|rest| rest.split(':').next()).expect("the name of the old one");
    app.database.drop_other(kept).await;
}

/// Makes all files of the place two days old.
fn days_pass(backups: &Backups) {
    left(backups).iter().for_each(|file| make_old(Path::new(file)));
}

fn make_old(file: &Path) {
    let then = SystemTime::now() - Duration::from_secs(2 * 86_400);
    std::fs::File::open(file).unwrap().set_modified(then).unwrap();
}
