//! Figures for people: what a backup that is restored on trial costs beside `pg_dump` and `pg_restore` alone.
//! docs/operations/backup-recovery.md has the command.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mdl_tests::backups::{Backups, told};
use mdl_tests::servers::memory_kb;
use mdl_tests::{TestApp, variable};

/// Rows of the audit log, of some 1.2 kB each; `MDL_FIGURES=full` makes a gigabyte of them.
const ROWS: u32 = 40_000;
const ROWS_IN_FULL: u32 = 800_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn a_backup_beside_its_tools_alone() {
    let rows = if variable("MDL_FIGURES").as_deref() == Some("full") { ROWS_IN_FULL } else { ROWS };
    let app = TestApp::start().await;
    app.database
        .execute(&format!(
            "INSERT INTO audit_log (tenant_id, id, actor_kind, action, entity_kind, details)
             SELECT '{}', gen_random_uuid(), 'system', 'test', 'ballast', jsonb_build_object('text', text.text)
             FROM generate_series(1, {rows}) AS row (number) CROSS JOIN LATERAL (
                 SELECT string_agg(md5(number::text || part::text), '') AS text FROM generate_series(1, 32) AS part) AS text;
             CHECKPOINT",
            app.tenant.id
        ))
        .await;
    let megabytes = app.database.number("SELECT pg_database_size(current_database())").await / 1_000_000;
    let backups = Backups::of(&app);

    println!("MB of database | pg_dump and pg_restore | backup and verification | share | restore | most memory of the worker");
    for _ in 0..3 {
        let alone = tools_alone(&app, backups.folder()).await;
        let (made, memory_kb) = make(&backups).await;
        let newest = backups.list().await.pop().unwrap();
        assert!(newest["verifiedAt"].is_string(), "{newest}");
        let beside = format!("{}_beside", app.database.name());
        let start = Instant::now();
        backups.must(&["restore", newest["id"].as_str().unwrap(), "--into", &beside]).await;
        let restored = start.elapsed();
        app.database.drop_other(&beside).await;
        let [alone, made, restored] = [alone, made, restored].map(|time| time.as_secs_f64());
        let memory = memory_kb / 1024;
        println!("{megabytes} | {alone:.1} s | {made:.1} s | {:.2} | {restored:.1} s | {memory} MiB", made / alone);
    }
}

/// The time of a dump to a file and of a restore from it, as an administrator would do both by hand.
async fn tools_alone(app: &TestApp, folder: &Path) -> Duration {
    let tool = |name: &str| variable("MDL_TEST_PG_BIN").map_or_else(|| name.to_owned(), |folder| format!("{folder}/{name}"));
    let file = folder.join("alone.dump");
    let target = format!("{}_alone", app.database.name());
    app.database.execute(&format!("CREATE DATABASE {target}")).await;
    let superuser = app.database.superuser_url();
    let start = Instant::now();
    let mut dump = Command::new(tool("pg_dump"));
    dump.arg("--format=custom").arg("--file").arg(&file).arg(superuser.as_str());
    let dumped = told(dump).await;
    assert!(dumped.succeeded, "{dumped:?}");
    let mut into = superuser;
    into.set_path(&target);
    let mut restore = Command::new(tool("pg_restore"));
    restore.arg("--exit-on-error").arg("--dbname").arg(into.as_str()).arg(&file);
    let restored = told(restore).await;
    assert!(restored.succeeded, "{restored:?}");
    let took = start.elapsed();
    app.database.drop_other(&target).await;
    took
}

/// The time of a backup with its verification, and the most memory that it took.
async fn make(backups: &Backups) -> (Duration, u64) {
    let start = Instant::now();
    let mut backup = backups.command(&["now"]).stdout(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    let status = loop {
        if let Some(status) = backup.try_wait().unwrap() {
            break status;
        }
        most = most.max(memory_kb(backup.id(), "VmHWM").unwrap_or(0));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(status.success(), "{status}");
    (start.elapsed(), most)
}
