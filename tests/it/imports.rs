//! Bulk imports, with the worker's work done in place: what a file becomes. What comes in between is in `import_interruptions`.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use mdl::Error;
use mdl::ids::{ImportId, MetricId};
use mdl::imports::{self, End, Format, Import, ImportChange, ImportIssue, ImportState, Mode, Upload};
use mdl::metrics::{self, Columns, Semver};
use mdl::page::PageArgs;
use mdl_tests::{TestApp, eventually};
use serde_json::json;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

/// Rows by row, under this name.
pub fn rows(file_name: &str) -> Upload {
    Upload { file_name: Some(file_name.to_owned()), mode: Mode::RowByRow, ..Upload::default() }
}

pub fn whole(file_name: &str) -> Upload {
    Upload { mode: Mode::AllOrNothing, ..rows(file_name) }
}

pub async fn start(test: &TestApp, content: impl Into<Bytes>, upload: Upload) -> Import {
    let content = futures::stream::iter([Ok::<_, std::io::Error>(content.into())]);
    imports::start(&test.app, &test.system(), content, upload).await.unwrap()
}

pub async fn run(test: &TestApp, id: ImportId) -> mdl::Result<End> {
    imports::run(&test.app, test.tenant.id, id, CancellationToken::new(), false).await
}

pub async fn read(test: &TestApp, id: ImportId) -> Import {
    test.app
        .db
        .snapshot(test.tenant.id)
        .read(async |conn| imports::store::by_id(conn, test.tenant.id, id).await)
        .await
        .unwrap()
        .unwrap()
}

/// Imports a file to its end.
pub async fn import(test: &TestApp, content: impl Into<Bytes>, upload: Upload) -> Import {
    let import = start(test, content, upload).await;
    assert_eq!(run(test, import.id).await.unwrap(), End::Finished);
    read(test, import.id).await
}

async fn issues(test: &TestApp, id: ImportId) -> Vec<ImportIssue> {
    let all = PageArgs::first(100);
    test.app
        .db
        .snapshot(test.tenant.id)
        .read(async |conn| imports::store::issues(conn, test.tenant.id, id, None, &all).await)
        .await
        .unwrap()
        .items
}

async fn changes(test: &TestApp, id: ImportId) -> Vec<ImportChange> {
    let all = PageArgs::first(100);
    test.app
        .db
        .snapshot(test.tenant.id)
        .read(async |conn| imports::store::changes(conn, test.tenant.id, id, &all).await)
        .await
        .unwrap()
        .items
}

/// Created, updated, unchanged, failed.
pub fn counts(import: &Import) -> (i64, i64, i64, i64) {
    (import.created_count, import.updated_count, import.unchanged_count, import.failed_count)
}

pub async fn count(client: &Client, what: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {what}"), &[]).await.unwrap().get(0)
}

async fn metric(test: &TestApp, key: &str) -> Arc<metrics::Metric> {
    let rows = test
        .app
        .db
        .snapshot(test.tenant.id)
        .read(async |conn| metrics::store::by_keys(conn, test.tenant.id, &[key.to_owned()], Columns::ROW).await)
        .await;
    rows.unwrap().pop().unwrap_or_else(|| panic!("no metric {key}")).0
}

/// So many metrics, each downstream of the next, which comes later in the file.
pub fn ndjson(metrics: std::ops::Range<usize>) -> String {
    metrics
        .map(|i| {
            json!({
                "metric_id": format!("METRIC-{i}"), "name": format!("Metric {i}"), "business_domain": "Growth",
                "definition": {"formula": "a / b", "unit": "ratio"}, "governance": {"version": "1.4.0", "status": "active"},
                "relationships": {"upstream_metric_ids": [format!("METRIC-{}", i + 1)]},
            })
            .to_string()
                + "\n"
        })
        .collect()
}

/// The real catalogs, where they are at hand.
pub fn shared(folder: &str) -> Option<Vec<PathBuf>> {
    let path = mdl_tests::root().join("../shared/data").join(folder);
    let path = if path.exists() { path } else { PathBuf::from("/work/shared/data").join(folder) };
    let Ok(files) = std::fs::read_dir(&path) else {
        eprintln!("Skipped: {} is not there", path.display());
        return None;
    };
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).filter(|file| !file.ends_with("LICENSE")).collect();
    files.sort();
    Some(files)
}

pub fn name(file: &std::path::Path) -> &str {
    file.file_name().unwrap().to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_metric_hub_files_import_with_exact_counts() {
    let Some(files) = shared("metric-hub") else { return };
    let test = TestApp::start().await;
    let mut found = Vec::new();
    for file in &files {
        let import = import(&test, std::fs::read(file).unwrap(), whole(name(file))).await;
        assert_eq!((import.state, import.format), (ImportState::Succeeded, Some(Format::MetricHub)), "{:?}", import.error);
        assert_eq!(counts(&import), (import.rows_done, 0, 0, 0));
        assert_eq!(import.rows_total, Some(import.rows_done));
        found.push((name(file), import.created_count));
    }
    let expected = [
        ("ads.toml", 10),
        ("fenix.toml", 53),
        ("firefox_desktop.toml", 214),
        ("firefox_ios.toml", 37),
        ("focus_android.toml", 22),
        ("focus_ios.toml", 22),
        ("functions.toml", 0),
        ("klar_android.toml", 17),
        ("klar_ios.toml", 17),
        ("monitor_cirrus.toml", 1),
        ("multi_product.toml", 11),
    ];
    assert_eq!(found, expected);
    let client = test.database.superuser().await;
    assert_eq!(count(&client, "metrics").await, 404);
    assert_eq!(count(&client, "metric_versions").await, 404);
    assert_eq!(count(&client, "business_domains WHERE implied").await, 10);
    assert_eq!(count(&client, "outbox WHERE kind = 'metric.created'").await, 404);

    let upstream = client
        .query("SELECT upstream_key FROM metric_edges WHERE downstream_key = 'firefox_desktop.ad_click_rate' ORDER BY 1", &[])
        .await
        .unwrap();
    let upstream: Vec<String> = upstream.iter().map(|row| row.get(0)).collect();
    assert_eq!(upstream, ["firefox_desktop.ad_clicks", "firefox_desktop.search_count"]);

    for file in &files {
        let again = import(&test, std::fs::read(file).unwrap(), rows(name(file))).await;
        assert_eq!(counts(&again), (0, 0, again.rows_done, 0), "{file:?}");
    }
    assert_eq!(count(&client, "metric_versions").await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_shapes_of_the_samples_import() {
    let Some(files) = shared("mdl-samples") else { return };
    let test = TestApp::start().await;
    let mut found = Vec::new();
    for file in files.iter().filter(|file| name(file).starts_with("sample-")) {
        let import = import(&test, std::fs::read(file).unwrap(), whole(name(file))).await;
        assert_eq!(import.state, ImportState::Succeeded, "{file:?}: {:?}", import.error);
        found.push((name(file), counts(&import)));
    }
    let expected = [
        ("sample-domains.json", (6, 0, 0, 0)),
        ("sample-metrics.json", (13, 0, 0, 0)),
        // The same five metrics and objective, in the other format.
        ("sample-metrics.yaml", (0, 0, 6, 0)),
        // Has the objective OBJ-001 in the other shape.
        ("sample-objectives.json", (3, 1, 0, 0)),
    ];
    assert_eq!(found, expected);
    for file in files.iter().filter(|file| name(file).starts_with("template-")) {
        let import = import(&test, std::fs::read(file).unwrap(), rows(name(file))).await;
        assert_eq!(counts(&import), (0, 0, 0, 1), "{file:?}");
        let issues = issues(&test, import.id).await;
        assert!(issues.iter().all(|issue| issue.code == "REQUIRED"), "{issues:?}");
    }
    let login = metric(&test, "METRIC-LOGIN-SUCCESS-RATE").await;
    assert_eq!(login.summary.tier.map(|tier| tier.as_str()), Some("tier_1"));
    assert_eq!(login.summary.indicator_kind.map(|kind| kind.as_str()), Some("leading"));
    let client = test.database.superuser().await;
    assert_eq!(count(&client, "metrics m JOIN business_domains d ON d.id = m.domain_id WHERE d.key = 'DOMAIN-001'").await, 1);
    assert_eq!(count(&client, "objectives").await, 4);
    // Key results that the second file does not mention stay.
    assert_eq!(count(&client, "key_results").await, 2 + 11);
    assert_eq!(count(&client, "metrics WHERE details -> 'extra' ? 'governance.created_at'").await, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_differs_is_written_and_a_dry_run_writes_nothing() {
    let test = TestApp::start().await;
    let client = test.database.superuser().await;
    let first = import(&test, ndjson(0..3), whole("m.ndjson")).await;
    assert_eq!(counts(&first), (3, 0, 0, 0));
    assert_eq!(metric(&test, "METRIC-0").await.version, Semver { major: 1, minor: 4, patch: 0 });

    let changed = ndjson(0..4).replacen("a / b", "a / c", 1).replacen("Metric 1", "Metric one", 1);
    let dry = import(&test, changed.clone(), Upload { dry_run: true, ..whole("m.ndjson") }).await;
    assert_eq!((dry.state, counts(&dry)), (ImportState::Succeeded, (1, 2, 1, 0)));
    assert_eq!(count(&client, "metrics").await, 3);
    let found: Vec<_> = changes(&test, dry.id)
        .await
        .into_iter()
        .map(|change| (change.action.as_str(), change.entity_key, change.fields.0))
        .collect();
    assert_eq!((found[0].0, found[0].1.as_str()), ("update", "METRIC-0"));
    assert_eq!(
        serde_json::to_value(&found[0].2).unwrap(),
        json!([{"field": "definition.formula", "before": "a / b", "after": "a / c"}])
    );
    assert_eq!(
        serde_json::to_value(&found[1].2).unwrap(),
        json!([{"field": "name", "before": "Metric 1", "after": "Metric one"}])
    );
    assert_eq!((found[2].0, found[2].1.as_str()), ("create", "METRIC-3"));
    assert!(found[2].2.iter().any(|field| field.field == "domain" && field.after == "Growth"), "{:?}", found[2].2);

    let wet = import(&test, changed, whole("m.ndjson")).await;
    assert_eq!(counts(&wet), (1, 2, 1, 0));
    assert_eq!(metric(&test, "METRIC-0").await.version, Semver { major: 2, minor: 0, patch: 0 });
    assert_eq!(metric(&test, "METRIC-1").await.version, Semver { major: 1, minor: 5, patch: 0 });
    assert_eq!(count(&client, "metric_versions").await, 6);
    assert_eq!(count(&client, "metric_edges").await, 4);
    assert_eq!(count(&client, "outbox WHERE kind IN ('metric.updated', 'metric.definition.changed')").await, 2);
    assert_eq!(
        count(&client, "outbox WHERE (payload ->> 'breaking')::boolean AND payload #>> '{domain,name}' = 'Growth'").await,
        1
    );
    assert_eq!(count(&client, "outbox WHERE kind = 'import.completed'").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_entries_stop_a_whole_import_and_fail_alone_in_rows() {
    let test = TestApp::start().await;
    let client = test.database.superuser().await;
    let file = format!(
        "{}{}{}",
        ndjson(0..1),
        "{\"metric_id\":\"M\",\"name\":\"m\",\"tier\":\"Tier-9\"}\n{\"metric_id\":\"METRIC-0\",\"name\":\"again\"}\n",
        ndjson(7..8)
    );

    let refused = import(&test, file.clone(), whole("m.ndjson")).await;
    assert_eq!((refused.state, counts(&refused)), (ImportState::Failed, (0, 0, 0, 2)));
    assert_eq!(refused.error.as_deref(), Some("Nothing was imported: 2 entries have errors"));
    assert_eq!(count(&client, "metrics").await, 0);

    let import = import(&test, file, rows("m.ndjson")).await;
    assert_eq!((import.state, counts(&import)), (ImportState::Succeeded, (2, 0, 0, 2)));
    let of_both = [issues(&test, refused.id).await, issues(&test, import.id).await];
    for found in of_both {
        let errors: Vec<_> = found.iter().filter(|issue| issue.severity.as_str() == "error").collect();
        assert_eq!((errors[0].line, errors[0].code.as_str(), errors[0].field.as_deref()), (Some(2), "INVALID", Some("tier")));
        assert_eq!((errors[0].entity_key.as_deref(), errors[0].raw_value.as_deref()), (Some("M"), Some("Tier-9")));
        assert_eq!((errors[1].line, errors[1].code.as_str()), (Some(3), "DUPLICATE"));
        assert!(errors[1].message.contains("line 1"), "{}", errors[1].message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_breaks_off_leaves_nothing() {
    let test = TestApp::start_with(&[("MDL_IMPORT_BATCH_ROWS", "10")]).await;
    let client = test.database.superuser().await;
    let good = ndjson(0..100);
    let gzip = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(good.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let mut bad_text = good.clone().into_bytes();
    bad_text[good.len() - 10] = 0xff;
    let broken: [(&str, Vec<u8>, &str); 5] = [
        ("m.ndjson", good.as_bytes()[..good.len() - 30].to_vec(), "TRUNCATED"),
        ("m.ndjson", gzip[..gzip.len() - 20].to_vec(), "TRUNCATED"),
        ("m.ndjson", bad_text, "ENCODING"),
        ("m.json", format!("{{\"metrics\": [{}", good.trim().replace('\n', ",")).into_bytes(), "TRUNCATED"),
        ("m.csv", good.encode_utf16().flat_map(u16::to_le_bytes).collect(), "ENCODING"),
    ];
    for (file_name, content, code) in broken {
        let import = import(&test, content, rows(file_name)).await;
        let issues = issues(&test, import.id).await;
        assert_eq!((import.state, issues.len(), issues[0].code.as_str()), (ImportState::Failed, 1, code), "{issues:?}");
        assert!(import.error.unwrap().starts_with("Nothing was imported: "));
    }
    assert_eq!(count(&client, "metrics").await, 0);
    assert_eq!(count(&client, "outbox WHERE kind = 'import.failed'").await, 5);
    let good = import(&test, gzip, rows("m.ndjson.gz")).await;
    assert_eq!(counts(&good), (100, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_refuses_fails_alone() {
    let test = TestApp::start().await;
    let client = test.database.superuser().await;
    client.batch_execute("ALTER TABLE metrics ADD CONSTRAINT lucky CHECK (key NOT IN ('METRIC-13', 'METRIC-77'))").await.unwrap();
    let refused = import(&test, ndjson(0..100), whole("m.ndjson")).await;
    assert_eq!((refused.state, count(&client, "metrics").await), (ImportState::Failed, 0));
    let import = import(&test, ndjson(0..100), rows("m.ndjson")).await;
    assert_eq!((import.state, counts(&import)), (ImportState::Succeeded, (98, 0, 0, 2)));
    let mut found: Vec<_> =
        issues(&test, import.id).await.into_iter().filter(|issue| issue.code == "REFUSED").map(|issue| issue.line).collect();
    found.sort();
    assert_eq!(found, [Some(14), Some(78)]);
    assert_eq!(count(&client, "metric_versions").await, 98);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_domain_is_made_and_its_definition_takes_it_over() {
    let test = TestApp::start().await;
    let client = test.database.superuser().await;
    let named = import(&test, ndjson(0..2), whole("m.ndjson")).await;
    let found: Vec<_> = issues(&test, named.id).await.into_iter().map(|issue| (issue.code, issue.line)).collect();
    assert_eq!(found, [("UNKNOWN_DOMAIN".to_owned(), Some(1))]);
    let implied = metric(&test, "METRIC-0").await.summary.domain_id;
    assert!(implied.is_some());
    // Within one file the definition may come after the metrics that name it.
    let file = format!(
        "{}{}",
        ndjson(0..3),
        "{\"id\":\"D-7\",\"name\":\"Growth\",\"owner\":\"Ann\"}\n{\"metric_id\":\"X\",\"name\":\"x\",\"business_domain\":\"D-7\"}\n"
    );
    let defined = import(&test, file, whole("m.ndjson")).await;
    assert_eq!(counts(&defined), (2, 1, 2, 0));
    assert_eq!(issues(&test, defined.id).await, []);
    assert_eq!(count(&client, "business_domains WHERE key = 'D-7' AND NOT implied AND owner_team = 'Ann'").await, 1);
    assert_eq!(metric(&test, "X").await.summary.domain_id, implied);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_editors_import_and_only_their_tenant_sees_it() {
    let test = TestApp::start().await;
    let mut viewer = test.system();
    viewer.permissions = mdl::actor::Role::Viewer.permissions();
    let denied = imports::start_inline(&test.app, &viewer, ndjson(0..1), rows("m.ndjson")).await;
    assert!(matches!(denied, Err(Error::Forbidden(_))));
    let client = test.database.superuser().await;
    assert_eq!((count(&client, "imports").await, count(&client, "jobs").await), (0, 0));

    let import = imports::start_inline(&test.app, &test.system(), ndjson(0..1), rows("m.ndjson")).await.unwrap();
    let other = mdl::Actor::system(test.other_tenant().await.id);
    let cancelled = imports::cancel(&test.app, &other, import.id).await;
    assert!(matches!(cancelled, Err(Error::NotFound { .. })));
    imports::run(&test.app, other.tenant, import.id, CancellationToken::new(), true).await.unwrap();
    assert_eq!(read(&test, import.id).await.state, ImportState::Queued);
    for (text, code) in [(String::new(), "REQUIRED"), (" ".repeat(512 * 1024 + 1), "TOO_LONG")] {
        let refused = imports::start_inline(&test.app, &test.system(), text, rows("m.ndjson")).await;
        let Err(Error::Invalid(problems)) = refused else { panic!("{refused:?}") };
        let found: Vec<_> = problems.iter().map(|problem| (problem.field.join("."), problem.code.as_str())).collect();
        assert_eq!(found, [("text".to_owned(), code)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_refuses_the_dates_that_an_import_refuses() {
    let test = TestApp::start().await;
    let file = json!({"objectives": [{"objective_id": "O", "name": "o", "start_date": "-9999-01-01"}]}).to_string();
    for dry_run in [true, false] {
        let import = import(&test, file.clone(), Upload { dry_run, ..whole("m.json") }).await;
        assert_eq!((import.state, import.failed_count), (ImportState::Failed, 1));
        let found: Vec<_> = issues(&test, import.id).await.into_iter().map(|issue| (issue.field, issue.code)).collect();
        assert_eq!(found, [(Some("start_date".to_owned()), "OUT_OF_RANGE".to_owned())]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_names_domains_and_says_null_for_nothing() {
    let test = TestApp::start().await;
    let file = |domain: &str, keys: serde_json::Value| {
        json!({
            "metrics": [{"metric_id": "M", "name": "m", "business_domain": domain, "tags": keys,
                "relationships": {"upstream_metric_ids": keys}}],
            "objectives": [{"objective_id": "O", "name": "o", "business_domain": domain}],
        })
        .to_string()
    };
    let dry = Upload { dry_run: true, ..whole("m.json") };
    let created = import(&test, file("Growth", json!(["A"])), dry.clone()).await;
    let fields: Vec<_> = changes(&test, created.id).await.into_iter().flat_map(|change| change.fields.0).collect();
    assert!(fields.iter().any(|field| field.field == "name") && fields.iter().all(|field| field.before.is_null()), "{fields:?}");

    import(&test, file("Growth", json!(["A"])), whole("m.json")).await;
    let updated = import(&test, file("Sales", json!([])), dry).await;
    let fields: Vec<_> = changes(&test, updated.id).await.into_iter().map(|change| change.fields.0).collect();
    let domain = json!({"field": "domain", "before": "Growth", "after": "Sales"});
    assert_eq!(
        serde_json::to_value(&fields).unwrap(),
        json!([
            [
                domain,
                {"field": "tags", "before": ["A"], "after": null},
                {"field": "relationships.upstream_keys", "before": ["A"], "after": null},
            ],
            [domain],
        ])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_for_a_metric_that_exists_is_warned_of() {
    let test = TestApp::start().await;
    import(&test, ndjson(0..1), whole("m.ndjson")).await;
    let again = import(&test, ndjson(0..1).replace("1.4.0", "3.0.0"), whole("m.ndjson")).await;
    assert_eq!((counts(&again), again.warning_count), ((0, 0, 1, 0), 1));
    let found: Vec<_> = issues(&test, again.id).await.into_iter().map(|issue| (issue.field, issue.code)).collect();
    assert_eq!(found, [(Some("governance.version".to_owned()), "CHANGED".to_owned())]);
    assert_eq!(metric(&test, "METRIC-0").await.version, Semver { major: 1, minor: 4, patch: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_refused_has_its_format() {
    let test = TestApp::start().await;
    let csv = import(&test, "metric_id,nmae\nA,a\n", rows("m.txt")).await;
    assert_eq!((csv.state, csv.format), (ImportState::Failed, Some(Format::Csv)));
    let yaml = import(&test, "metrics: {}\n", whole("m.yaml")).await;
    assert_eq!((yaml.state, yaml.format), (ImportState::Failed, Some(Format::Yaml)));
    let unknown = import(&test, "Dear all, these are our metrics", rows("m.txt")).await;
    assert_eq!((unknown.state, unknown.format), (ImportState::Failed, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_imports_a_csv_file() {
    let test = TestApp::start().await;
    test.start_worker();
    let template =
        test.anonymous().http.get(format!("{}/templates/metrics.csv", test.base)).send().await.unwrap().text().await.unwrap();
    let import = start(&test, template, rows("m.csv")).await;
    let ended = async || Some(read(&test, import.id).await).filter(|import| import.finished_at.is_some());
    let import = eventually("the import has ended", ended).await;
    assert_eq!((import.state, counts(&import)), (ImportState::Succeeded, (1, 0, 0, 0)));
    assert!(metric(&test, "METRIC-LOGIN-SUCCESS-RATE").await.id > MetricId(uuid::Uuid::nil()));
}
