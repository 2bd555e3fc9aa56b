//! Damage to a backup is noticed wherever it is, and what somebody has put into it does nothing.

use std::path::Path;

use mdl::backups::Progress;
use mdl_tests::TestApp;
use mdl_tests::backups::Backups;
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

fn at(content: &[u8], place: f64) -> usize {
    (content.len() as f64 * place) as usize
}

pub fn flipped(content: &[u8], place: f64) -> Vec<u8> {
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
