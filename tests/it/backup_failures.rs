//! What goes wrong with backups is said in a sentence, is told to operators, and leaves nothing behind.

use mdl::actor::Actor;
use mdl::backups::{BackUp, BackUpFiles, Progress, PruneBackups};
use mdl::jobs::{self, Enqueue, Job};
use mdl::tenants::SYSTEM;
use mdl_tests::backups::{Backups, generate_key, told};
use mdl_tests::servers::WorkerProcess;
use mdl_tests::{TestApp, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_missing_or_wrong_are_said_to_be() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    let id = backups.make(&["--no-verify"]).await;
    let wrong = backups.folder().join("wrong.txt");
    generate_key(&wrong);
    for file in [wrong.display().to_string(), String::new()] {
        backups.set(&[("MDL_BACKUP_IDENTITY_FILE", &file)]);
        for arguments in [vec!["verify", &id], vec!["restore", &id]] {
            let told = backups.run(&arguments).await;
            assert!(!told.succeeded && told.stderr.contains("MDL_BACKUP_IDENTITY_FILE has no key for it"), "{told:?}");
        }
    }
    backups.set(&[("MDL_BACKUP_RECIPIENTS", "")]);
    let open = backups.run(&["now"]).await;
    assert!(!open.succeeded && open.stderr.contains("MDL_BACKUP_UNENCRYPTED"), "{open:?}");
    assert_eq!(backups.list().await.len(), 1);
}

/// What is missing around a backup says nothing about it.
#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_of_an_operator_leaves_a_good_backup_good() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    let id = backups.make(&[]).await;
    let proof = std::fs::read(backups.files(&id).join("verified.json")).unwrap();
    let state = async || app.database.text("SELECT concat_ws(' ', state, verified_at, error) FROM backups").await;
    let told = "SELECT count(*) FROM outbox WHERE kind = 'backup.verification.failed'";
    let before = state().await;
    let wrong = backups.folder().join("wrong.txt");
    generate_key(&wrong);
    for (setting, value, reason) in [
        ("MDL_BACKUP_SCRATCH_URL", "", "Set MDL_BACKUP_SCRATCH_URL"),
        ("MDL_BACKUP_SCRATCH_URL", "postgres://mdl_scratch@127.0.0.1:1/postgres", "PostgreSQL is not available"),
        ("MDL_BACKUP_TOOLS_DIR", "/none", "Cannot start pg_restore"),
        ("MDL_BACKUP_IDENTITY_FILE", wrong.to_str().unwrap(), "has no key for it"),
        ("MDL_BACKUP_IDENTITY_FILE", "/none", "Cannot read the private keys in /none"),
        ("MDL_BACKUP_IDENTITY_FILE", "", "has no key for it"),
    ] {
        let good = backups.environment().iter().find(|(name, _)| name == setting).map(|(_, value)| value.clone());
        backups.set(&[(setting, value)]);
        let failed = backups.run(&["verify", &id]).await;
        assert!(!failed.succeeded && failed.stderr.contains(reason), "{setting}={value}: {failed:?}");
        assert_eq!(failed.stderr.trim().lines().count(), 1, "one sentence: {failed:?}");
        assert_eq!(std::fs::read(backups.files(&id).join("verified.json")).unwrap(), proof, "{setting}={value}");
        assert_eq!(state().await, before, "{setting}={value}");
        assert_eq!(app.database.number(told).await, 0, "{setting}={value}");
        backups.set(&[(setting, good.as_deref().unwrap_or_default())]);
    }
    let nowhere = backups.run(&["verify", &id, "--from", "nowhere"]).await;
    assert!(!nowhere.succeeded && nowhere.stderr.contains("nowhere is not the address of a place"), "{nowhere:?}");
    assert_eq!(app.database.number(told).await, 0);
    let running = "SELECT count(*) FROM restore_drills WHERE state = 'running'";
    assert_eq!(app.database.number(running).await, 0);

    // Nobody looks on when the schedule restores it.
    backups.set(&[("MDL_BACKUP_SCRATCH_URL", "")]);
    let (drilling, _) = app.another_api(&backups.settings()).await;
    mdl::backups::drill(&drilling, &Progress::default()).await.unwrap_err();
    assert_eq!(app.database.number(told).await, 1);
    assert_eq!(state().await, before);
    assert!(backups.files(&id).join("verified.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    app.database.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('29991231235959')").await;
    let id = backups.make(&["--no-verify"]).await;
    let told = backups.run(&["restore", &id]).await;
    assert!(!told.succeeded && told.stderr.contains("newer schema"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_not_there_is_said_to_be_missing() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    let id = backups.make(&["--no-verify"]).await;
    let elsewhere = backups.folder().join("elsewhere");
    std::fs::rename(backups.folder().join("place"), &elsewhere).unwrap();
    let missing = format!("There is no folder {} (MDL_BACKUP_URL)", backups.folder().join("place").display());
    for arguments in [vec!["list"], vec!["restore", &id], vec!["verify", &id], vec!["prune"]] {
        let told = backups.run(&arguments).await;
        assert!(!told.succeeded && told.stderr.contains(&missing), "{arguments:?}: {told:?}");
    }
    assert!(!backups.folder().join("place").exists(), "nobody has made it");

    // As on a machine that does not know the place: an operator names it.
    let beside = format!("{}_beside", app.database.name());
    let nowhere = backups.run(&["restore", &id, "--from", "file:///proc/nowhere", "--into", &beside]).await;
    assert!(!nowhere.succeeded && nowhere.stderr.contains("There is no folder /proc/nowhere (--from)"), "{nowhere:?}");
    backups.must(&["restore", &id, "--from", &format!("file://{}", elsewhere.display()), "--into", &beside]).await;
    app.database.drop_other(&beside).await;
    backups.set(&[("MDL_BACKUP_URL", &format!("file://{}", elsewhere.display()))]);
    assert_eq!(backups.list().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_publishes_nothing() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    // No file may be longer than 32 kB.
    let mut command = std::process::Command::new("bash");
    let script = "trap '' XFSZ; ulimit -f 32; exec \"$0\" backup now";
    command.args(["-c", script]).arg(mdl_tests::servers::binary("mdl-worker")).envs(backups.environment().iter().cloned());
    let told = told(command).await;
    assert!(!told.succeeded && told.stderr.contains("There is no room in file://"), "{told:?}");
    assert_eq!(told.stderr.trim().lines().count(), 1, "one sentence: {told:?}");
    assert_eq!(backups.list().await.len(), 0);
    assert_eq!(left(&backups), [""; 0], "nothing is left");
    assert_eq!(app.database.text("SELECT state FROM backups").await.as_deref(), Some("failed"));
    assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE kind = 'backup.failed'").await, 1);
    backups.make(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_cannot_begin_is_told_of_and_tried_again() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    // Where nobody can make a directory.
    backups.set(&[("MDL_BACKUP_URL", "file:///proc/backups")]);
    mdl::backups::request(&app.app, &Actor::system(SYSTEM)).await.unwrap();
    enqueue(&app, BackUp::default()).await;
    enqueue(&app, BackUpFiles::default()).await;
    let _worker = WorkerProcess::start_with(backups.environment());
    let again = "SELECT count(*) FROM jobs WHERE queue = 'backups' AND state = 'waiting' AND attempt = 1
                 AND run_at > now() + interval '4 minutes'";
    eventually("they wait for their second attempts", async || (app.database.number(again).await == 3).then_some(())).await;
    let failed = "SELECT count(*) FROM backups WHERE state = 'failed' AND error LIKE '%Cannot keep backups in /proc/backups%'";
    assert_eq!(app.database.number(failed).await, 2, "the one that somebody waits for, and that of the schedule");
    assert_eq!(app.database.number("SELECT count(*) FROM backups").await, 2);
    assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE kind = 'backup.failed'").await, 3);
}

/// Also what comes before the place: the role that reads the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_without_its_role_is_told_of() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    backups.set(&[("MDL_BACKUP_DATABASE_URL", &app.database.url("mdl_nobody"))]);
    let told = backups.run(&["now"]).await;
    assert!(!told.succeeded && told.stderr.contains("PostgreSQL is not available"), "{told:?}");
    assert_eq!(app.database.text("SELECT state FROM backups").await.as_deref(), Some("failed"));
    assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE kind = 'backup.failed'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_backups_wait_for_each_other() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    let somebody = app.database.superuser().await;
    somebody.execute("SELECT pg_advisory_lock(1835297890)", &[]).await.unwrap();
    mdl::backups::request(&app.app, &Actor::system(SYSTEM)).await.unwrap();
    enqueue(&app, PruneBackups::default()).await;
    let worker = WorkerProcess::start_with(backups.environment());
    let waiting = "SELECT count(*) FROM jobs WHERE queue = 'backups' AND state = 'waiting' AND attempt = 0
                   AND run_at > now() + interval '9 minutes'";
    eventually("both come again later", async || (app.database.number(waiting).await == 2).then_some(())).await;
    assert_eq!(app.database.text("SELECT state FROM backups").await.as_deref(), Some("queued"));
    assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE kind = 'backup.failed'").await, 0, "nothing has failed");

    // Nobody makes the one any more that was asked for.
    drop((worker, somebody));
    app.database.execute("UPDATE jobs SET state = 'cancelled', finished_at = now() WHERE kind = 'back_up'").await;
    let ended = "SELECT count(*) FROM backups WHERE state = 'failed' AND error = 'Its job ended before it was begun'";
    let (watching, _) = app.another_api(&backups.settings()).await;
    mdl::backups::watch::overdue(&watching).await.unwrap();
    assert_eq!(app.database.number(ended).await, 1, "known before the next backup");
    eventually("the lock is free", async || backups.run(&["now", "--no-verify"]).await.succeeded.then_some(())).await;
    assert_eq!(app.database.number(ended).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_restore_before_the_first_backup_is_no_failure() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    let (drilling, _) = app.another_api(&backups.settings()).await;
    mdl::backups::drill(&drilling, &Progress::default()).await.unwrap();
    assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE kind LIKE 'backup.%'").await, 0);
    mdl::backups::watch::overdue(&drilling).await.unwrap();
    assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE kind = 'backup.overdue'").await, 1, "that is told");

    // Where there were backups, it is one.
    backups.make(&["--no-verify"]).await;
    std::fs::remove_dir_all(backups.folder().join("place/backups")).unwrap();
    let why = mdl::backups::drill(&drilling, &Progress::default()).await.unwrap_err();
    assert!(why.to_string().contains("There is no backup in"), "{why}");
    assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE kind = 'backup.verification.failed'").await, 1);
}

pub async fn enqueue(app: &TestApp, job: impl Job) {
    let tx = app.app.db.begin(SYSTEM).await.unwrap();
    jobs::enqueue(&tx, &Actor::system(SYSTEM), &job, &Enqueue::default()).await.unwrap();
    tx.commit().await.unwrap();
}

/// The files of the place.
pub fn left(backups: &Backups) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![backups.folder().join("place")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path().display().to_string());
            }
        }
    }
    files
}
