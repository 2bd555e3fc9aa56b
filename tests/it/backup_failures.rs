//! What goes wrong with backups is noticed, said in a sentence, and leaves nothing behind.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use mdl::actor::Actor;
use mdl::backups::{BackUp, BackUpFiles, Progress, PruneBackups};
use mdl::jobs::{self, Enqueue, Job};
use mdl::tenants::SYSTEM;
use mdl_tests::backups::{Backups, generate_key, told};
use mdl_tests::servers::WorkerProcess;
use mdl_tests::{TestApp, eventually};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Flips one bit in each of these places, and cuts the file off at each of those.
const FLIPS: [f64; 8] = [0.0, 0.0009, 0.1, 0.25, 0.5, 0.75, 0.9, 0.9999];
const CUTS: [f64; 6] = [0.0, 0.001, 0.2, 0.5, 0.9, 0.9999];
const MANIFEST_FLIPS: [f64; 6] = [0.0, 0.01, 0.3, 0.5, 0.7, 0.95];

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kinds_of_damage_are_noticed() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    let id = backups.make(&["--no-verify"]).await;
    let (dump, manifest) = (backups.files(&id).join("database.dump.age"), backups.files(&id).join("manifest.json"));
    let whole = (std::fs::read(&dump).unwrap(), std::fs::read(&manifest).unwrap());
    let mut noticed = 0;
    let variants = FLIPS.map(|place| (&dump, &whole.0, flipped(&whole.0, place))).into_iter();
    let variants = variants.chain(CUTS.map(|place| (&dump, &whole.0, whole.0[..at(&whole.0, place)].to_vec())));
    let variants = variants.chain(MANIFEST_FLIPS.map(|place| (&manifest, &whole.1, flipped(&whole.1, place))));
    for (file, good, bad) in variants {
        std::fs::write(file, &bad).unwrap();
        let told = backups.run(&["verify", &id]).await;
        assert!(!told.succeeded && told.stderr.contains("is damaged"), "{}: {told:?}", file.display());
        assert_eq!(told.stderr.trim().lines().count(), 1, "one sentence: {told:?}");
        std::fs::write(file, good).unwrap();
        noticed += 1;
    }
    assert_eq!(noticed, 20);
    backups.must(&["verify", &id]).await;
    let broken = whole.0[..1000].to_vec();
    std::fs::write(&dump, broken).unwrap();
    let restored = backups.run(&["restore", &id, "--into", &format!("{}_bad", app.database.name())]).await;
    assert!(!restored.succeeded && restored.stderr.contains("is damaged"), "{restored:?}");
    assert_eq!(app.database.others(&format!("{}_bad", app.database.name())).await, [""; 0], "nothing was made");
}

/// Without encryption, nothing but the hashes and the restore itself can notice.
#[tokio::test(flavor = "multi_thread")]
async fn damage_is_noticed_without_encryption_too() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    backups.set(&[("MDL_BACKUP_RECIPIENTS", ""), ("MDL_BACKUP_UNENCRYPTED", "yes")]);
    let id = backups.make(&["--no-verify"]).await;
    let dump = backups.files(&id).join("database.dump");
    let whole = std::fs::read(&dump).unwrap();
    for bad in [flipped(&whole, 0.3), flipped(&whole, 0.8), whole[..at(&whole, 0.6)].to_vec()] {
        std::fs::write(&dump, &bad).unwrap();
        let told = backups.run(&["verify", &id]).await;
        assert!(!told.succeeded && told.stderr.contains("is damaged"), "{told:?}");
    }
    std::fs::write(&dump, &whole).unwrap();
    backups.must(&["verify", &id]).await;
}

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

/// Whoever can write to the place can make a backup that passes for one; what is in it may not reach the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_backup_runs_no_program() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    backups.set(&[("MDL_BACKUP_RECIPIENTS", ""), ("MDL_BACKUP_UNENCRYPTED", "yes")]);
    // Its COPY statement is long enough to be written over.
    let columns: Vec<_> = (0..8).map(|number| format!("a_column_with_quite_a_long_name_{number} text")).collect();
    app.database.execute(&format!("SET ROLE mdl_owner; CREATE TABLE planted ({})", columns.join(", "))).await;
    app.database.execute("INSERT INTO planted DEFAULT VALUES").await;
    let id = backups.make(&["--no-verify"]).await;
    let dump = backups.files(&id).join("database.dump");
    let mut content = std::fs::read(&dump).unwrap();
    let statement = b"COPY public.planted (";
    let start = content.windows(statement.len()).position(|window| window == statement).expect("the dump has the statement");
    let length = content[start..].windows(7).position(|window| window == b"stdin;\n").expect("its end") + 7;
    let marker = backups.folder().join("marker");
    let planted = format!("COPY public.planted FROM PROGRAM 'touch {}';", marker.display());
    assert!(planted.len() < length);
    let planted = format!("{planted:length$}");
    content[start..start + length].copy_from_slice(planted.as_bytes());
    let before = std::fs::read(&dump).unwrap();
    std::fs::write(&dump, &content).unwrap();
    forge_manifest(&backups.files(&id).join("manifest.json"), &before, &content);

    let told = backups.run(&["verify", &id]).await;
    assert!(!told.succeeded && told.stderr.contains("COPY to or from an external program"), "{told:?}");
    assert!(!marker.exists());
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
async fn damaged_files_do_not_keep_the_database_from_being_restored() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    let storage = app.app.config.storage.url.to_file_path().unwrap();
    for (name, content) in [("damaged.csv", "metric_id,name\nM-1,One\n"), ("missing.csv", "M-2"), ("whole.csv", "M-3")] {
        std::fs::write(storage.join(name), content).unwrap();
    }
    let id = backups.make(&["--no-verify"]).await;
    std::fs::remove_file(stored(&backups, "M-2")).unwrap();
    damage(&stored(&backups, "metric_id,name\nM-1,One\n"));
    std::fs::remove_dir_all(&storage).unwrap();

    let beside = format!("{}_beside", app.database.name());
    let told = backups.run(&["restore", &id, "--into", &beside]).await;
    assert!(told.succeeded && told.stdout.contains("Brought back 1 files"), "{told:?}");
    assert!(told.stdout.contains("2 files were not brought back"), "{told:?}");
    for name in ["damaged.csv", "missing.csv"] {
        let warnings = told.stderr.lines().filter(|line| line.starts_with("Warning: ") && line.contains(name)).count();
        assert_eq!(warnings, 1, "{name}: {told:?}");
        assert!(!storage.join(name).exists());
    }
    assert_eq!(std::fs::read_to_string(storage.join("whole.csv")).unwrap(), "M-3");

    // Nor does the list of them.
    app.database.drop_other(&beside).await;
    std::fs::remove_file(backups.files(&id).join("files.json")).unwrap();
    std::fs::remove_file(storage.join("whole.csv")).unwrap();
    let told = backups.run(&["restore", &id, "--into", &beside]).await;
    assert!(told.succeeded && told.stderr.contains("The list of the uploaded files"), "{told:?}");
    assert!(storage.join("whole.csv").exists(), "the place lists it as well");
    app.database.drop_other(&beside).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_tenant_that_do_not_come_back_are_named() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    let storage = app.app.config.storage.url.to_file_path().unwrap();
    let theirs = storage.join(app.tenant.id.to_string());
    std::fs::create_dir_all(&theirs).unwrap();
    for (name, content) in [("damaged.csv", "metric_id,name\nM-1,One\n"), ("missing.csv", "M-2"), ("whole.csv", "M-3")] {
        std::fs::write(theirs.join(name), content).unwrap();
    }
    std::fs::write(storage.join("others.csv"), "M-4").unwrap();
    let [damaged, missing, whole] = ["damaged", "missing", "whole"].map(|name| format!("{}/{name}.csv", app.tenant.id));
    let id = backups.make(&["--no-verify"]).await;
    std::fs::remove_file(stored(&backups, "M-2")).unwrap();
    damage(&stored(&backups, "metric_id,name\nM-1,One\n"));
    std::fs::remove_file(storage.join("others.csv")).unwrap();
    std::fs::remove_dir_all(&theirs).unwrap();
    let restore = async |how: &str| {
        let told = backups.run(&["restore", &id, "--tenant", "acme", "--json", how]).await;
        let said: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:?}"));
        (told.succeeded, [said["files"].clone(), said["lostFiles"].clone(), said["failedFiles"].clone()])
    };

    let dry = restore("--dry-run").await;
    assert_eq!(dry, (true, [json!(2), json!([missing]), json!([])]), "it does not read them");
    assert!(!theirs.exists());
    // Where nothing can be put, they may come another time.
    std::fs::write(&theirs, "in the way").unwrap();
    assert_eq!(restore("--yes").await, (false, [json!(0), json!([missing]), json!([damaged, whole])]));
    std::fs::remove_file(&theirs).unwrap();
    assert_eq!(restore("--yes").await, (true, [json!(1), json!([missing, damaged]), json!([])]));
    assert_eq!(std::fs::read_to_string(theirs.join("whole.csv")).unwrap(), "M-3");
    assert!(!storage.join("others.csv").exists(), "it is not theirs");
    let told = backups.run(&["restore", &id, "--tenant", "acme", "--yes"]).await;
    assert!(told.succeeded && told.stdout.contains("2 files were not brought back"), "{told:?}");
    for name in [&missing, &damaged] {
        let warnings = told.stderr.lines().filter(|line| line.starts_with("Warning: ") && line.contains(name.as_str())).count();
        assert_eq!(warnings, 1, "{name}: {told:?}");
    }
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
async fn a_dump_without_a_manifest_stays_and_is_listed() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    let id = backups.make(&["--no-verify"]).await;
    let manifest = backups.files(&id).join("manifest.json");
    let whole = std::fs::read(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    let told = backups.must(&["list"]).await;
    assert!(told.contains(&id) && told.contains("without a manifest"), "{told}");
    backups.make(&["--no-verify"]).await;
    assert_eq!(backups.list().await.len(), 2, "the next backup leaves it alone");
    days_pass(&backups);
    let told = backups.run(&["prune"]).await;
    assert!(told.succeeded && told.stderr.contains("No files are removed"), "{told:?}");
    assert_eq!(backups.list().await.len(), 2, "the database knows that it was published here");
    std::fs::write(&manifest, whole).unwrap();
    backups.must(&["verify", &id]).await;
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

    let prune = async |arguments: &[&str]| -> Value {
        let pruned = backups.must(&[&["prune", "--json"], arguments].concat()).await;
        serde_json::from_str::<Value>(&pruned).unwrap()["places"][0].clone()
    };
    eventually("the server has noticed", async || backups.run(&["prune"]).await.succeeded.then_some(())).await;
    let pruned = prune(&[]).await;
    assert_eq!((&pruned["leftovers"], &pruned["temporaryFiles"]), (&json!([]), &json!(0)), "somebody may want to look at it");
    days_pass(&backups);
    for arguments in [&["--dry-run"][..], &[]] {
        let pruned = prune(arguments).await;
        assert_eq!((&pruned["leftovers"], &pruned["temporaryFiles"]), (&json!([died]), &json!(2)), "{pruned}");
        assert_eq!(backups.files(died).exists(), !arguments.is_empty());
    }
    assert!(halves.iter().all(|file| !file.exists()) && others.iter().all(|file| file.exists()));
    assert_eq!(backups.list().await.len(), 0);
    assert_eq!(app.database.text("SELECT state FROM backups").await.as_deref(), Some("failed"));
    backups.make(&[]).await;
}

/// As it is after the database was restored from an older backup.
#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_the_database_does_not_know_stays() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    let id = backups.make(&["--no-verify"]).await;
    std::fs::remove_file(backups.files(&id).join("manifest.json")).unwrap();
    days_pass(&backups);
    app.database.execute("DELETE FROM backups").await;
    backups.must(&["prune"]).await;
    assert_eq!(backups.list().await.len(), 1);
    // And one of which a clean-up died between its steps goes.
    let known = "INSERT INTO backups (tenant_id, id, program_version, encrypted, state, stored_bytes, pruned_at)
                 SELECT id, '{id}', '', true, 'verified', 1, now() FROM tenants WHERE slug = 'mdl-system'";
    app.database.execute(&known.replace("{id}", &id)).await;
    backups.must(&["prune"]).await;
    assert_eq!(backups.list().await.len(), 0);
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
    eventually("the lock is free", async || backups.run(&["now", "--no-verify"]).await.succeeded.then_some(())).await;
    let ended = "SELECT count(*) FROM backups WHERE state = 'failed' AND error = 'Its job ended before it was begun'";
    assert_eq!(app.database.number(ended).await, 1);
}

async fn enqueue(app: &TestApp, job: impl Job) {
    let tx = app.app.db.begin(SYSTEM).await.unwrap();
    jobs::enqueue(&tx, &Actor::system(SYSTEM), &job, &Enqueue::default()).await.unwrap();
    tx.commit().await.unwrap();
}

/// Each place has to prove itself, by what is in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_counts_after_it_was_read() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    let remote = backups.folder().join("remote");
    let remote_url = format!("file://{}", remote.display());
    backups.set(&[("MDL_BACKUP_REMOTE_URL", &remote_url)]);
    let id = backups.make(&["--no-verify"]).await;
    let copy = remote.join("backups").join(&id);
    let whole = std::fs::read(copy.join("database.dump.age")).unwrap();
    std::fs::write(copy.join("database.dump.age"), flipped(&whole, 0.5)).unwrap();
    let told = backups.run(&["verify", &id]).await;
    assert!(!told.succeeded && told.stderr.contains("is damaged") && told.stderr.contains("/remote"), "{told:?}");
    assert!(backups.files(&id).join("verified.json").exists(), "what is in the first place was restored");
    assert!(!copy.join("verified.json").exists(), "what is in the second is not the same");
    let alarms =
        format!("SELECT count(*) FROM outbox WHERE kind = 'backup.verification.failed' AND payload ->> 'place' = '{remote_url}'");
    assert_eq!(app.database.number(&alarms).await, 1);

    // The drill looks at the second place, too, when the first has failed.
    std::fs::write(copy.join("database.dump.age"), &whole).unwrap();
    std::fs::write(backups.files(&id).join("database.dump.age"), flipped(&whole, 0.5)).unwrap();
    let (drilling, _) = app.another_api(&backups.settings()).await;
    let why = mdl::backups::drill(&drilling, &Progress::default()).await.unwrap_err();
    assert!(why.to_string().contains("is damaged"), "{why}");
    assert!(!backups.files(&id).join("verified.json").exists());
    assert!(copy.join("verified.json").exists());
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

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_stored_anew() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    let remote = backups.folder().join("remote");
    backups.set(&[("MDL_BACKUP_REMOTE_URL", &format!("file://{}", remote.display()))]);
    let uploaded = app.app.config.storage.url.to_file_path().unwrap().join("metrics.csv");
    std::fs::write(&uploaded, "metric_id,name\nM-1,One\n".repeat(1_000)).unwrap();
    let old = backups.make(&[]).await;
    for place in [backups.folder().join("place"), remote.clone()] {
        let file = only_file(&place.join("files"));
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, flipped(&whole, 0.5)).unwrap();
        let from = format!("file://{}", place.display());
        let told = backups.run(&["verify", &old, "--from", &from]).await;
        assert!(!told.succeeded && told.stderr.contains("is damaged"), "{told:?}");
        assert!(!file.exists(), "it makes room");
        let new = backups.make(&[]).await;
        assert_eq!(only_file(&place.join("files")), file);
        for id in [&old, &new] {
            backups.must(&["verify", id, "--from", &from]).await;
        }
        // Of files that were stored anew, the lists agree: nothing is stored twice, and all can be copied.
        let stored = std::fs::read(&file).unwrap();
        backups.make(&[]).await;
        assert_eq!(std::fs::read(&file).unwrap(), stored);
    }

    // Nobody has it any more: what is left of it stays.
    std::fs::remove_file(&uploaded).unwrap();
    let file = only_file(&backups.folder().join("place/files"));
    std::fs::write(&file, flipped(&std::fs::read(&file).unwrap(), 0.5)).unwrap();
    let told = backups.run(&["verify", &old]).await;
    assert!(!told.succeeded && told.stderr.contains("is damaged"), "{told:?}");
    assert!(file.exists());
}

/// Where the place has an uploaded file with this content.
fn stored(backups: &Backups, content: &str) -> PathBuf {
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(content));
    let mut files = std::fs::read_dir(backups.folder().join("place/files")).unwrap().map(|entry| entry.unwrap().path());
    files.find(|file| file.display().to_string().contains(&hash)).expect("it is stored")
}

fn damage(file: &Path) {
    std::fs::write(file, flipped(&std::fs::read(file).unwrap(), 0.9)).unwrap();
}

fn only_file(folder: &Path) -> PathBuf {
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

/// The files of the place.
fn left(backups: &Backups) -> Vec<String> {
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

/// Makes all files of the place two days older.
fn days_pass(backups: &Backups) {
    let then = SystemTime::now() - Duration::from_secs(2 * 86_400);
    for file in left(backups) {
        std::fs::File::options().append(true).open(file).unwrap().set_modified(then).unwrap();
    }
}

fn at(content: &[u8], place: f64) -> usize {
    (content.len() as f64 * place) as usize
}

fn flipped(content: &[u8], place: f64) -> Vec<u8> {
    let mut content = content.to_vec();
    let at = at(&content, place);
    content[at] ^= 4;
    content
}

/// Makes a manifest say of the dump what somebody put in its place.
fn forge_manifest(file: &Path, before: &[u8], after: &[u8]) {
    let hash = |bytes: &[u8]| data_encoding::HEXLOWER.encode(&Sha256::digest(bytes));
    let text = std::fs::read_to_string(file).unwrap().replace(&hash(before), &hash(after));
    let manifest = text.split_once("\"manifest\":").unwrap().1.strip_suffix('}').unwrap();
    std::fs::write(file, format!("{{\"sha256\":\"{}\",\"manifest\":{manifest}}}", hash(manifest.as_bytes()))).unwrap();
}
