//! Imports that are killed, cancelled, or run twice.

use std::time::{Duration, Instant};

use mdl::Error;
use mdl::ids::ImportId;
use mdl::imports::{self, End, Import, ImportState, Mode, Upload};
use mdl::jobs::steer::{Action, steer};
use mdl::jobs::store::Filter;
use mdl_tests::{TestApp, eventually};
use tokio_postgres::Client;
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
    assert_eq!(run_when_free(&test, first.id).await.unwrap(), End::Finished);
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
        assert_eq!(run_when_free(&test, import.id).await.unwrap(), End::Finished);
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
    // Holds the first up in the middle.
    let superuser = test.database.superuser().await;
    superuser.batch_execute("BEGIN; LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let (app, tenant) = (test.app.clone(), test.tenant.id);
    let first = tokio::spawn(async move { imports::run(&app, tenant, import.id, CancellationToken::new(), false).await });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("it waits for the table", async || (test.database.number(waiting).await > 0).then_some(())).await;
    assert_eq!(run(&test, import.id).await.unwrap(), End::Elsewhere);
    superuser.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(first.await.unwrap().unwrap(), End::Finished);
    assert_eq!(counts(&read(&test, import.id).await), (1000, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_stops_an_import_in_the_middle() {
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
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
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

/// Runs an import when the connection of the run before it has ended.
async fn run_when_free(test: &TestApp, id: ImportId) -> mdl::Result<End> {
    eventually("the import is free", async || match run(test, id).await {
        Ok(End::Elsewhere) => None,
        ran => Some(ran),
    })
    .await
}

/// Lets the last attempt at an import fail, for a reason that is not in its file.
async fn give_up(test: &TestApp, client: &Client, import: &Import) {
    refuse_metrics(client).await;
    let last = imports::run(&test.app, test.tenant.id, import.id, CancellationToken::new(), true).await;
    assert!(matches!(last, Err(Error::Internal(_))), "{last:?}");
    let import = read(test, import.id).await;
    assert_eq!(import.state, ImportState::Failed);
    assert!(import.error.unwrap().starts_with("It could not be finished"));
    accept_metrics(client).await;
}

async fn refuse_metrics(client: &Client) {
    let refuse = "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
        'BEGIN RAISE EXCEPTION ''not now''; END'; \
        CREATE TRIGGER refuse BEFORE INSERT ON metrics FOR EACH STATEMENT EXECUTE FUNCTION refuse()";
    client.batch_execute(refuse).await.unwrap();
}

async fn accept_metrics(client: &Client) {
    client.batch_execute("DROP TRIGGER refuse ON metrics").await.unwrap();
}

/// Keeps workers away from an import, as one does that has not ended yet.
async fn keep_away(client: &Client, import: &Import) {
    let lock = format!("SELECT pg_advisory_lock(hashtextextended('import:{}', 0))", import.id);
    client.batch_execute(&lock).await.unwrap();
}

/// As if the job had ended so long ago.
async fn job_ended(test: &TestApp, import: &Import, ago: &str) {
    let statement = format!(
        "UPDATE jobs SET state = 'dead', last_error = 'gone', finished_at = now() - interval '{ago}' WHERE id = '{}'",
        import.job_id.unwrap()
    );
    test.database.execute(&statement).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_the_worker_that_has_an_import_is_no_attempt() {
    let test = TestApp::start().await;
    let client = test.database.superuser().await;
    let import = start(&test, ndjson(0..5), rows("m.ndjson")).await;
    keep_away(&client, &import).await;
    test.start_worker();
    let snoozed = "jobs WHERE kind = 'import_catalog' AND state = 'waiting' AND started_at IS NOT NULL AND attempt = 0";
    eventually("the job is put off", async || (count(&client, snoozed).await == 1).then_some(())).await;
    assert_eq!(count(&client, "job_attempts").await, 0);
    assert_eq!(read(&test, import.id).await.state, ImportState::Queued);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_was_given_up_runs_when_somebody_retries_its_job() {
    let test = TestApp::start().await;
    let client = test.database.superuser().await;
    let import = start(&test, ndjson(0..5), rows("m.ndjson")).await;
    refuse_metrics(&client).await;
    test.database.execute("UPDATE jobs SET max_attempts = 1 WHERE kind = 'import_catalog'").await;
    test.start_worker();
    let dead = "jobs WHERE kind = 'import_catalog' AND state = 'dead'";
    eventually("the job is dead", async || (count(&client, dead).await == 1).then_some(())).await;
    assert_eq!(read(&test, import.id).await.state, ImportState::Failed);

    accept_metrics(&client).await;
    let filter = Filter { ids: import.job_id.map(|job| vec![job]), ..Filter::default() };
    assert_eq!(steer(&test.app, &test.system(), Action::Retry, &filter, false).await.unwrap(), 1);
    let succeeded = "jobs WHERE kind = 'import_catalog' AND state = 'succeeded'";
    eventually("the job has succeeded", async || (count(&client, succeeded).await == 1).then_some(())).await;
    let import = read(&test, import.id).await;
    assert_eq!((import.state, import.error.as_deref(), counts(&import)), (ImportState::Succeeded, None, (5, 0, 0, 0)));
    assert_eq!(count(&client, "metrics").await, 5);
    let told = "SELECT string_agg(kind, ' ' ORDER BY id) FROM outbox WHERE kind LIKE 'import.%'";
    assert_eq!(test.database.text(told).await.as_deref(), Some("import.failed import.completed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_was_given_up_can_be_opened_again_for_an_hour() {
    for mode in [Mode::RowByRow, Mode::AllOrNothing] {
        let test = TestApp::start().await;
        let client = test.database.superuser().await;
        let import = start(&test, ndjson(0..5), Upload { mode, ..rows("m.ndjson") }).await;
        give_up(&test, &client, &import).await;
        job_ended(&test, &import, "59 minutes").await;
        imports::tidy(&test.app).await.unwrap();
        assert_eq!(run_when_free(&test, import.id).await.unwrap(), End::Finished);
        let opened = read(&test, import.id).await;
        assert_eq!((opened.state, counts(&opened)), (ImportState::Succeeded, (5, 0, 0, 0)));
        assert!(test.app.storage.get(&import.storage_key).await.is_err(), "the file is of no more use");

        let late = start(&test, ndjson(5..9), Upload { mode, ..rows("m.ndjson") }).await;
        give_up(&test, &client, &late).await;
        job_ended(&test, &late, "61 minutes").await;
        imports::tidy(&test.app).await.unwrap();
        assert!(test.app.storage.get(&late.storage_key).await.is_err(), "nor is this one");
        for _ in 0..2 {
            let error = run_when_free(&test, late.id).await.unwrap_err();
            assert!(matches!(error, Error::Invalid(_)) && error.to_string().contains("import the file again"), "{error}");
        }
        assert_eq!(read(&test, late.id).await.state, ImportState::Failed);
        assert_eq!(count(&client, "metrics").await, 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_not_opened_again_for_nothing() {
    let test = TestApp::start().await;
    let client = test.database.superuser().await;
    let bad = import(&test, "{\"metric_id\":\"BAD\",\"name\":\"\"}\n", whole("bad.ndjson")).await;
    assert_eq!(
        (run_when_free(&test, bad.id).await.unwrap(), read(&test, bad.id).await),
        (End::Finished, bad),
        "its content is no better"
    );

    let lost = start(&test, ndjson(0..5), rows("m.ndjson")).await;
    test.app.storage.delete(&lost.storage_key).await.unwrap();
    let error = run(&test, lost.id).await.unwrap_err().to_string();
    assert!(error.contains("import the file again"), "{error}");
    let failed = read(&test, lost.id).await;
    assert!(failed.state == ImportState::Failed && failed.error.unwrap().contains("import the file again"));

    let first = start(&test, ndjson(5..9), rows("m.ndjson")).await;
    give_up(&test, &client, &first).await;
    let second = start(&test, ndjson(5..9), rows("m.ndjson")).await;
    assert_ne!(first.id, second.id);
    let error = run_when_free(&test, first.id).await.unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "another one does the same: {error}");
    assert_eq!(run(&test, second.id).await.unwrap(), End::Finished);
    assert_eq!(run_when_free(&test, first.id).await.unwrap(), End::Finished);
    assert_eq!(counts(&read(&test, first.id).await), (0, 0, 4, 0));
}
