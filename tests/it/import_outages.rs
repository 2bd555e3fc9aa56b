//! Imports by the real worker program, while things break around it: nothing is lost, and each row lands once.

use mdl::ids::ImportId;
use mdl::imports::{self, Import, ImportState, Mode, Upload};
use mdl_tests::servers::{PrivateRedis, WorkerProcess};
use mdl_tests::{TestApp, eventually};
use tokio_postgres::Client;

const ROWS: i64 = 4_000;

/// Small batches, so that there is a middle to break things in; a short lease, so that the rescue does not take long.
const SETTINGS: &[(&str, &str)] = &[("MDL_IMPORT_BATCH_ROWS", "100"), ("MDL_WORKER_LEASE_SECONDS", "3")];

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_replaced_and_each_row_lands_once() {
    for mode in [Mode::RowByRow, Mode::AllOrNothing] {
        let test = TestApp::start_with(SETTINGS).await;
        let gate = Gate::close(&test).await;
        let import = start(&test, mode).await;
        let mut victim = WorkerProcess::start(&test);
        gate.reached(&test).await;
        victim.kill();
        gate.open().await;
        let left = read(&test, import).await;
        assert_eq!(left.state, ImportState::Running, "killed in the middle");

        let _next = WorkerProcess::start(&test);
        ends_complete(&test, import).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_redis_costs_no_import() {
    let redis = PrivateRedis::start().await;
    let url = redis.url();
    let settings: Vec<_> =
        SETTINGS.iter().copied().chain([("REDIS_URL", url.as_str()), ("MDL_WORKER_CONCURRENCY", "1")]).collect();
    let test = TestApp::start_with(&settings).await;
    let gate = Gate::close(&test).await;
    let first = start(&test, Mode::RowByRow).await;
    let second = start_file(&test, "{\"metric_id\": \"METRIC-LAST\", \"name\": \"Last\"}\n".to_owned(), Mode::RowByRow).await;
    let _worker = WorkerProcess::start(&test);
    gate.reached(&test).await;
    // The first is being worked at; the second waits, its id perhaps in Redis.
    redis.flush().await;
    gate.open().await;
    ends_complete(&test, first).await;
    eventually("the import that waited has ended", async || {
        Some(read(&test, second).await).filter(|import| import.state == ImportState::Succeeded)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_stop_hands_its_import_over() {
    let settings: Vec<_> = SETTINGS.iter().copied().chain([("MDL_WORKER_GRACE_SECONDS", "0")]).collect();
    let test = TestApp::start_with(&settings).await;
    let gate = Gate::close(&test).await;
    let import = start(&test, Mode::RowByRow).await;
    let worker = WorkerProcess::start(&test);
    gate.reached(&test).await;
    assert_eq!(worker.terminate(), Some(0));
    gate.open().await;

    let _next = WorkerProcess::start(&test);
    ends_complete(&test, import).await;
}

/// Holds imports up in the middle, until it is opened.
struct Gate(Client);

impl Gate {
    async fn close(test: &TestApp) -> Self {
        let superuser = test.database.superuser().await;
        let close = "SELECT pg_advisory_lock(7);
            CREATE FUNCTION wait_in_the_middle() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
            BEGIN
                IF EXISTS (SELECT FROM metrics OFFSET 1000) THEN PERFORM pg_advisory_xact_lock_shared(7); END IF;
                RETURN NULL;
            END $$;
            CREATE TRIGGER gate AFTER INSERT ON metrics FOR EACH STATEMENT EXECUTE FUNCTION wait_in_the_middle()";
        superuser.batch_execute(close).await.unwrap();
        Self(superuser)
    }

    /// Waits until an import waits here.
    async fn reached(&self, test: &TestApp) {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        eventually("some rows are done", async || (test.database.number(waiting).await > 0).then_some(())).await;
    }

    async fn open(self) {
        self.0.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    }
}

async fn start(test: &TestApp, mode: Mode) -> ImportId {
    let rows = (0..ROWS).map(|n| {
        format!("{{\"metric_id\": \"METRIC-{n}\", \"name\": \"Metric {n}\", \"description\": \"{}\"}}\n", "text ".repeat(50))
    });
    start_file(test, rows.collect(), mode).await
}

async fn start_file(test: &TestApp, text: String, mode: Mode) -> ImportId {
    let content = futures::stream::iter([Ok::<_, std::io::Error>(text.into())]);
    let upload = Upload { file_name: Some("metrics.ndjson".to_owned()), mode, ..Upload::default() };
    imports::start(&test.app, &test.system(), content, upload).await.unwrap().id
}

async fn read(test: &TestApp, id: ImportId) -> Import {
    let snapshot = test.app.db.snapshot(test.tenant.id);
    snapshot.read(async |conn| imports::store::by_id(conn, test.tenant.id, id).await).await.unwrap().unwrap()
}

/// The import ends, and what it was to bring is there once: rows, versions, events.
async fn ends_complete(test: &TestApp, id: ImportId) {
    let import =
        eventually("the import has ended", async || Some(read(test, id).await).filter(|import| import.finished_at.is_some()))
            .await;
    assert_eq!((import.state, import.rows_done, import.failed_count), (ImportState::Succeeded, ROWS, 0));
    let superuser = test.database.superuser().await;
    for what in [
        "metrics WHERE key ~ '^METRIC-[0-9]+$' AND revision = 1",
        "metric_versions v JOIN metrics m ON m.id = v.metric_id WHERE m.key ~ '^METRIC-[0-9]+$'",
        "outbox WHERE kind = 'metric.created' AND payload ->> 'key' ~ '^METRIC-[0-9]+$'",
    ] {
        let count: i64 = superuser.query_one(&format!("SELECT count(*) FROM {what}"), &[]).await.unwrap().get(0);
        assert_eq!(count, ROWS, "{what}");
    }
}
