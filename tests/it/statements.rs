//! What a request costs PostgreSQL. How many statements each query takes is in `catalog_loading`.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use mdl::actor::Role;
use mdl::db::MAX_PREPARED;
use mdl::domains;
use mdl_tests::TestApp;
use serde_json::{Value, json};
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

#[tokio::test(flavor = "multi_thread")]
async fn details_that_nobody_asked_for_are_not_read() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    editor.write("createBusinessDomain", json!({ "key": "D", "name": "D", "keyMetricKeys": ["M"] })).await;
    editor.write("createMetric", json!({ "key": "M", "name": "M", "domain": "D" })).await;
    editor.write("createObjective", json!({ "key": "O", "name": "O", "metricKeys": ["M"] })).await;
    // The program may read every column but that one.
    app.database
        .execute(
            "DO $$ BEGIN
                REVOKE SELECT ON metrics FROM mdl_app;
                EXECUTE (SELECT format('GRANT SELECT (%s) ON metrics TO mdl_app', string_agg(quote_ident(column_name), ', '))
                           FROM information_schema.columns WHERE table_name = 'metrics' AND column_name <> 'details');
             END $$",
        )
        .await;
    let page = "nodes { key name tags definition { formula unit } governance { ownerTeam } versions { nodes { version } } }";
    for query in [
        format!("{{ metrics {{ totalCount {page} }} }}"),
        format!(r#"{{ metrics(search: "m") {{ {page} }} }}"#),
        format!(r#"{{ metric(key: "M") {{ upstream {{ {page} }} domain {{ keyMetrics {{ key }} }} }} }}"#),
        "{ objectives { nodes { metrics { key } keyResults { metrics { key } } } } }".to_owned(),
    ] {
        editor.ask(&query, json!({})).await;
    }
    for field in ["notes", "definition { formulaDetail }", "governance { regulatoryConstraints }", "extra"] {
        let answer = editor.send(&format!("{{ metrics {{ nodes {{ {field} }} }} }}"), json!({})).await;
        assert_eq!(answer.error_code(), Some("INTERNAL"), "{field} is in the details");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_no_data_takes_no_connection() {
    let app = TestApp::start().await;
    let sent = || app.app.db.statements_sent();
    let viewer = app.client(Role::Viewer).await;
    let mut least = u64::MAX;
    // Whether the credential still holds is asked again from time to time.
    for _ in 0..5 {
        let before = sent();
        viewer.ask("{ __typename __schema { queryType { name } } }", json!({})).await;
        least = least.min(sent() - before);
    }
    assert_eq!(least, 0);
    let before = sent();
    app.anonymous().ask("{ __typename }", json!({})).await;
    app.anonymous().send("{ metrics { totalCount } }", json!({})).await;
    assert_eq!(app.anonymous().get("/health").await.status, 200);
    assert_eq!(sent(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_request_costs_the_same_for_every_page_size() {
    let app = TestApp::start_with(&[("MDL_CACHE_BYTES", "0")]).await;
    let editor = app.client(Role::Editor).await;
    for d in 0..5 {
        editor.write("createBusinessDomain", json!({ "key": format!("D-{d}"), "name": format!("D-{d}") })).await;
    }
    for m in 0..50 {
        let input = json!({ "key": format!("M-{m:02}"), "name": "M", "domain": format!("D-{}", m % 5) });
        editor.write("createMetric", input).await;
    }
    let mut costs = Vec::new();
    for size in [1, 5, 50] {
        let query = format!("{{ metrics(first: {size}) {{ nodes {{ key domain {{ name }} createdBy {{ name }} }} }} }}");
        let mut least = u64::MAX;
        for _ in 0..4 {
            let before = app.app.db.statements_sent();
            editor.ask(&query, json!({})).await;
            least = least.min(app.app.db.statements_sent() - before);
        }
        costs.push(least);
    }
    // A transaction's begin and end, the page, the domains, the people.
    assert_eq!(costs, [5, 5, 5]);
}

/// What is not kept prepared is prepared anew each time: one more round trip.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_prepared_once() {
    #[derive(QueryableByName)]
    struct Kept {
        #[diesel(sql_type = diesel::sql_types::Text)]
        statement: String,
    }
    let app = TestApp::start_with(&[("DATABASE_POOL_SIZE", "2")]).await;
    let editor = app.client(Role::Editor).await;
    // So that all of it is on the other connection.
    let _held = app.app.db.begin(app.tenant.id).await.unwrap();
    let id = editor.write("createMetric", json!({ "key": "M", "name": "M" })).await["id"].clone();
    editor.write("updateMetric", json!({ "id": id, "name": "N" })).await;
    editor.write("createBusinessDomain", json!({ "key": "D", "name": "D" })).await;
    let objective = editor.write("createObjective", json!({ "key": "O", "name": "O" })).await["id"].clone();
    editor.write("createKeyResult", json!({ "objectiveId": objective, "key": "K", "name": "K" })).await;
    let import = json!({ "text": "{\"metrics\": []}", "fileName": "none.json" });
    assert_eq!(editor.mutate("importCatalog", import, "").await.user_errors(), [""; 0]);

    let tx = app.app.db.begin(app.tenant.id).await.unwrap();
    let question = sql_query("SELECT statement FROM pg_prepared_statements");
    let kept: Vec<Kept> = diesel_async::RunQueryDsl::load(question, &mut &*tx).await.unwrap();
    for start in [
        "INSERT INTO \"metrics\"",
        "UPDATE \"metrics\"",
        "INSERT INTO \"metric_versions\"",
        "INSERT INTO \"business_domains\"",
        "INSERT INTO \"objectives\"",
        "INSERT INTO \"key_results\"",
        "INSERT INTO \"audit_log\"",
        "INSERT INTO \"outbox\"",
        "INSERT INTO \"imports\"",
        "INSERT INTO \"jobs\"",
        "SELECT pg_notify",
    ] {
        assert!(
            kept.iter().any(|kept| kept.statement.starts_with(start)),
            "{start} is not among {:?}",
            kept.iter().map(|kept| &kept.statement).collect::<Vec<_>>()
        );
    }
}

/// Each combination of conditions is a text of its own, and callers decide how many there are.
#[tokio::test(flavor = "multi_thread")]
async fn ever_more_filters_are_not_kept_prepared() {
    #[derive(QueryableByName)]
    struct Kept {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        statements: i64,
    }
    let conditions = [
        r#"key: { in: ["M"] }"#,
        r#"category: { in: ["c"] }"#,
        "tier: { in: [TIER_1] }",
        "indicatorKind: { in: [LEADING] }",
        "metricType: { in: [RATIO] }",
        "status: { in: [ACTIVE] }",
        r#"ownerTeam: { in: ["t"] }"#,
        "piiInvolved: true",
        r#"tags: { containsAny: ["t"] }"#,
        "archived: true",
    ];
    // The bits of a number say which conditions there are.
    let list = |n: usize| {
        let conditions = conditions.iter().enumerate().filter(|(bit, _)| (n >> bit) & 1 == 1).map(|(_, condition)| *condition);
        format!("f{n}: metrics(filter: {{ {} }}) {{ totalCount }}", conditions.collect::<Vec<_>>().join(", "))
    };
    let app = TestApp::start_with(&[("DATABASE_POOL_SIZE", "2")]).await;
    let viewer = app.client(Role::Viewer).await;
    // So that all of it is on the other connection.
    let _held = app.app.db.begin(app.tenant.id).await.unwrap();
    let mut kept = Vec::new();
    let filters: Vec<usize> = (0..MAX_PREPARED * 2).collect();
    for some in filters.chunks(25) {
        let lists: Vec<_> = some.iter().map(|n| list(*n)).collect();
        let data = viewer.ask(&format!("{{ {} }}", lists.join(" ")), json!({})).await;
        assert_eq!(data.as_object().unwrap().len(), some.len());
        let tx = app.app.db.begin(app.tenant.id).await.unwrap();
        let question = sql_query("SELECT count(*) AS statements FROM pg_prepared_statements");
        let Kept { statements } = diesel_async::RunQueryDsl::get_result(question, &mut &*tx).await.unwrap();
        tx.commit().await.unwrap();
        kept.push(usize::try_from(statements).unwrap());
    }
    let most = *kept.iter().max().unwrap();
    // With the question, and what the driver itself asks.
    assert!(most < MAX_PREPARED + 10, "{kept:?}");
    // Each list is a statement, and is kept.
    assert!(most > MAX_PREPARED - 50, "{kept:?}");
}

/// What is logged meanwhile, as JSON, a line each: by this thread, on which a test's own future runs.
async fn logged(work: impl Future<Output = ()>) -> Vec<Value> {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let log = Log::default();
    let writer = log.clone();
    let format = tracing_subscriber::fmt::layer().json().with_current_span(true).with_writer(move || writer.clone());
    {
        let _mine = tracing::subscriber::set_default(tracing_subscriber::registry().with(format));
        work.instrument(tracing::info_span!("request", graphql.operation = "Domains")).await;
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn slow(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line["fields"]["message"] == "A statement was slow").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_statements_are_logged_with_their_operation() {
    for (limit, is_slow) in [("0", true), ("60000", false)] {
        let app = TestApp::start_with(&[("DATABASE_SLOW_STATEMENT_MILLISECONDS", limit)]).await;
        let lines = logged(async {
            let snapshot = app.app.db.snapshot(app.tenant.id);
            let filter = domains::store::Filter::default();
            snapshot.read(async |conn| domains::store::count(conn, app.tenant.id, &filter).await).await.unwrap();
            snapshot.finish().await;
        })
        .await;
        let slow = slow(&lines);
        let of_domains = slow.iter().find(|line| line["fields"]["statement"].as_str().unwrap().contains("business_domains"));
        assert_eq!(of_domains.is_some(), is_slow, "{lines:?}");
        if let Some(line) = of_domains {
            assert_eq!(line["span"]["graphql.operation"], "Domains", "{line}");
            assert!(line["fields"]["duration_ms"].is_u64(), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_slowly_is_logged_and_what_was_given_up_is_forgotten() {
    let app = TestApp::start_with(&[("DATABASE_SLOW_STATEMENT_MILLISECONDS", "1000"), ("DATABASE_POOL_SIZE", "2")]).await;
    // Leaves one connection for all that follows.
    let _other = app.app.db.begin(app.tenant.id).await.unwrap();
    let sleep = async |seconds: &str| {
        let tx = app.app.db.begin(app.tenant.id).await.unwrap();
        let mut conn: &AsyncPgConnection = &tx;
        conn.batch_execute(&format!("SELECT pg_sleep({seconds})")).await.unwrap();
        tx.commit().await.unwrap();
    };
    let lines = logged(async {
        tokio::time::timeout(Duration::from_millis(50), sleep("1.5")).await.unwrap_err();
        sleep("0").await;
        // Had the one that was given up been counted, these would be taken for slow.
        sleep("0.01").await;
        sleep("1.2").await;
    })
    .await;
    let slow: Vec<_> = slow(&lines).iter().map(|line| line["fields"]["statement"].clone()).collect();
    assert_eq!(slow, ["SELECT pg_sleep(1.2)"], "{lines:?}");
}
