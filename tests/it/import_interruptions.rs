//! Imports that are killed, cancelled, or run twice.

use std::time::{Duration, Instant};

use mdl::Error;
use mdl::imports::{self, End, ImportState, Mode, Upload};
use mdl_tests::TestApp;
use tokio_util::sync::CancellationToken;

use crate::imports::{count, counts, import, ndjson, read, rows, run, start, whole};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_file_twice_at_once_is_one_import() {
    let test = TestApp::start().await;
    let (first, second) =
        tokio::join!(start(&test, ndjson(0..5), whole("a.ndjson")), start(&test, ndjson(0..5), whole("b.ndjson")));
    assert_eq!(first.id, second.id);
    assert_ne!(start(&test, ndjson(0..5), rows("a.ndjson")).await.id, first.id);
    let client = test.database.superuser().await;
    assert_eq!(count(&client, "jobs WHERE kind = 'import_catalog'").await, 2);
    run(&test, first.id).await.unwrap();
    let later = import(&test, ndjson(0..5), whole("a.ndjson")).await;
    assert_eq!(counts(&later), (0, 0, 5, 0));
    // Once more, as a job does whose end was not recorded.
    assert_eq!(run(&test, first.id).await.unwrap(), End::Finished);
    assert_eq!(counts(&read(&test, first.id).await), (5, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_goes_on_and_each_row_lands_once() {
    for mode in [Mode::RowByRow, Mode::AllOrNothing] {
        let test = TestApp::start_with(&[("MDL_IMPORT_BATCH_ROWS", "50")]).await;
        let client = test.database.superuser().await;
        let bad = "{\"metric_id\":\"BAD\",\"name\":\"\"}\n";
        let content = if mode == Mode::RowByRow { ndjson(0..2000) + bad + &ndjson(2000..3000) } else { ndjson(0..3000) };
        let import = start(&test, content, Upload { mode, ..rows("m.ndjson") }).await;
        for _ in 0..3 {
            let (app, tenant) = (test.app.clone(), test.tenant.id);
            let task = tokio::spawn(async move { imports::run(&app, tenant, import.id, CancellationToken::new(), false).await });
            let before = read(&test, import.id).await.rows_done;
            let deadline = Instant::now() + Duration::from_secs(10);
            while read(&test, import.id).await.rows_done == before && !task.is_finished() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            task.abort();
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        let end = loop {
            match run(&test, import.id).await {
                // The killed worker's connection has not ended yet.
                Err(Error::Unavailable { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                other => break other.unwrap(),
            }
        };
        assert_eq!(end, End::Finished);
        let import = read(&test, import.id).await;
        let failed = i64::from(mode == Mode::RowByRow);
        assert_eq!((import.state, counts(&import)), (ImportState::Succeeded, (3000, 0, 0, failed)));
        assert_eq!(count(&client, "metrics").await, 3000);
        assert_eq!(count(&client, "metric_versions").await, 3000);
        assert_eq!(count(&client, "outbox WHERE kind = 'metric.created'").await, 3000);
        assert_eq!(count(&client, "import_issues WHERE severity = 'error'").await, failed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_cannot_run_one_import() {
    let test = TestApp::start_with(&[("MDL_IMPORT_BATCH_ROWS", "20")]).await;
    let import = start(&test, ndjson(0..1000), rows("m.ndjson")).await;
    let (a, b) = tokio::join!(run(&test, import.id), run(&test, import.id));
    assert!(
        matches!(
            (&a, &b),
            (Ok(End::Finished), Err(Error::Unavailable { .. })) | (Err(Error::Unavailable { .. }), Ok(End::Finished))
        ),
        "{a:?} {b:?}"
    );
    assert_eq!(counts(&read(&test, import.id).await), (1000, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_works_within_a_second() {
    for mode in [Mode::RowByRow, Mode::AllOrNothing] {
        let test = TestApp::start_with(&[("MDL_IMPORT_BATCH_ROWS", "20")]).await;
        let client = test.database.superuser().await;
        let import = start(&test, ndjson(0..20_000), Upload { mode, ..rows("m.ndjson") }).await;
        let (app, tenant) = (test.app.clone(), test.tenant.id);
        let task = tokio::spawn(async move { imports::run(&app, tenant, import.id, CancellationToken::new(), false).await });
        while read(&test, import.id).await.rows_done == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let asked = Instant::now();
        imports::cancel(&test.app, &test.system(), import.id).await.unwrap();
        assert_eq!(task.await.unwrap().unwrap(), End::Cancelled);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        let import = read(&test, import.id).await;
        assert_eq!(import.state, ImportState::Cancelled);
        assert_eq!(count(&client, "metrics").await, import.rows_done);
        assert_eq!(import.rows_done > 0, mode == Mode::RowByRow);
    }
    let test = TestApp::start().await;
    let waiting = start(&test, ndjson(0..5), rows("m.ndjson")).await;
    let cancelled = imports::cancel(&test.app, &test.system(), waiting.id).await.unwrap();
    assert_eq!(cancelled.state, ImportState::Cancelled);
    assert_eq!(run(&test, waiting.id).await.unwrap(), End::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_waits_for_no_lock_of_the_import_itself() {
    let test = TestApp::start_with(&[("MDL_IMPORT_BATCH_ROWS", "20")]).await;
    let client = test.database.superuser().await;
    let import = start(&test, ndjson(0..20_000), rows("m.ndjson")).await;
    // A batch waits for the transaction of the watch, and has just the import's row when the watch has told of the cancelling.
    let slow_updates = "CREATE FUNCTION update_slowly() RETURNS trigger LANGUAGE plpgsql AS \
        'BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END'; \
        CREATE TRIGGER slow AFTER UPDATE ON imports FOR EACH ROW \
        WHEN (NEW.state = 'running' AND NEW.rows_total IS NOT NULL) EXECUTE FUNCTION update_slowly()";
    client.batch_execute(slow_updates).await.unwrap();
    let (app, tenant) = (test.app.clone(), test.tenant.id);
    let task = tokio::spawn(async move { imports::run(&app, tenant, import.id, CancellationToken::new(), false).await });
    while read(&test, import.id).await.rows_done == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    imports::cancel(&test.app, &test.system(), import.id).await.unwrap();
    assert_eq!(task.await.unwrap().unwrap(), End::Cancelled);
    let import = read(&test, import.id).await;
    assert_eq!((import.state, count(&client, "metrics").await), (ImportState::Cancelled, import.rows_done));
}
