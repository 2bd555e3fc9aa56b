//! A backup goes through the worker piece by piece, however large the database is.
#![cfg(target_os = "linux")]

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mdl::actor::Actor;
use mdl::backups::BackUp;
use mdl::jobs::{self, Enqueue};
use mdl::tenants::SYSTEM;
use mdl_tests::backups::Backups;
use mdl_tests::servers::{WorkerProcess, memory_kb};
use mdl_tests::{TestApp, eventually_within};
use rand::RngCore;
use serde_json::json;

/// What the dump has at least, in bytes: it cannot be compressed much.
const DUMP: i64 = 100_000_000;
/// What the worker may hold in memory meanwhile, in bytes.
const MEMORY: u64 = 200_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_large_database_takes_little_memory() {
    let app = TestApp::start().await;
    let superuser = app.database.superuser().await;
    let insert = "INSERT INTO audit_log (tenant_id, id, actor_kind, action, entity_kind, details)
                  VALUES ($1, gen_random_uuid(), 'system', 'test', 'ballast', $2)";
    // Random bytes in Base64 come to three quarters when they are compressed.
    let mut bytes = vec![0; 800_000];
    for _ in 0..130 {
        rand::rng().fill_bytes(&mut bytes);
        superuser.execute(insert, &[&app.tenant.id.0, &json!(STANDARD.encode(&bytes))]).await.unwrap();
    }
    let backups = Backups::of(&app);
    let worker = WorkerProcess::start_with(backups.environment());
    let before = peak(&worker);
    let tx = app.app.db.begin(SYSTEM).await.unwrap();
    jobs::enqueue(&tx, &Actor::system(SYSTEM), &BackUp::default(), &Enqueue::default()).await.unwrap();
    tx.commit().await.unwrap();
    for state in ["published", "verified"] {
        eventually_within(Duration::from_secs(300), state, async || {
            let failed = app.database.text("SELECT last_error FROM jobs WHERE kind = 'back_up'").await;
            assert_eq!(failed, None);
            let reached = format!("SELECT count(*) FROM backups WHERE state IN ('{state}', 'verified')");
            (app.database.number(&reached).await == 1).then_some(())
        })
        .await;
    }
    let dump = app.database.number("SELECT stored_bytes FROM backups").await;
    let after = peak(&worker);
    println!(
        "{} MB of dump; the worker held {} MB before and {} MB at most",
        dump / 1_000_000,
        before / 1_000_000,
        after / 1_000_000
    );
    assert!(dump > DUMP, "{dump} bytes are too few to tell");
    assert!(after < MEMORY, "the worker held {after} bytes");
}

/// The most memory that a process has ever held, in bytes.
fn peak(worker: &WorkerProcess) -> u64 {
    memory_kb(worker.id(), "VmHWM").expect("it runs") * 1024
}
