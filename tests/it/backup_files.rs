//! Uploaded files that a backup has lost are named, keep nobody from the rest, and are stored anew.

use std::path::{Path, PathBuf};

use mdl_tests::TestApp;
use mdl_tests::backups::Backups;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::backup_damage::flipped;

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
    assert!(told.succeeded && told.stdout.contains("Brought back 1 file that"), "{told:?}");
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
