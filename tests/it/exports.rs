//! Exports of a catalog: what an import makes of them, who may have them, and how they end when they are not whole.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use mdl::Actor;
use mdl::actor::Role;
use mdl::exports::{self, Export, Format, Patience};
use mdl::imports::ImportState;
use mdl::metrics::NewMetric;
use mdl::objectives::{NewObjective, key_results};
use mdl::{domains, metrics, objectives};
use mdl_tests::servers::binary;
use mdl_tests::{Client, TestApp, eventually};
use serde_json::{Value, json};

use crate::imports::{count, counts, import, name, ndjson, shared, whole};

async fn start(test: &TestApp, format: Format, patience: Option<Patience>) -> Export {
    exports::start(&test.app, &test.system(), format, patience).await.unwrap()
}

/// The pieces until the end, or until it breaks off.
async fn text(export: Export) -> mdl::Result<String> {
    let pieces: Vec<Bytes> = export.try_collect().await?;
    Ok(String::from_utf8(pieces.concat()).unwrap())
}

async fn exported(test: &TestApp, format: Format) -> String {
    text(start(test, format, None).await).await.unwrap()
}

/// A GET with the client's credential, the body as text.
async fn download(client: &Client, path: &str) -> reqwest::Result<String> {
    let request = client.http.get(format!("{}{path}", client.base)).bearer_auth(client.credential.as_ref().unwrap());
    request.send().await?.text().await
}

fn file(format: Format) -> String {
    format!("catalog.{}", format.as_str())
}

/// The catalog as the database has it, without what each tenant has of its own. Whatever has a column is compared.
async fn stored(test: &TestApp) -> Vec<String> {
    const OWN: &str =
        "'{tenant_id,id,domain_id,objective_id,search,position,revision,created_at,created_by,updated_at,updated_by}'";
    let queries = [
        format!("SELECT (to_jsonb(t) - {OWN}::text[])::text FROM business_domains t WHERE archived_at IS NULL ORDER BY key"),
        format!(
            "SELECT ((to_jsonb(t) - {OWN}::text[]) || jsonb_build_object('domain', d.key))::text \
             FROM metrics t LEFT JOIN business_domains d ON d.id = t.domain_id WHERE t.archived_at IS NULL ORDER BY t.key"
        ),
        format!(
            "SELECT ((to_jsonb(t) - {OWN}::text[]) || jsonb_build_object('domain', d.key))::text \
             FROM objectives t LEFT JOIN business_domains d ON d.id = t.domain_id WHERE t.archived_at IS NULL ORDER BY t.key"
        ),
        format!(
            "SELECT ((to_jsonb(t) - {OWN}::text[]) || jsonb_build_object('objective', o.key, 'metrics', \
                ARRAY (SELECT metric_key FROM key_result_metrics l WHERE l.key_result_id = t.id ORDER BY l.position)))::text \
             FROM key_results t JOIN objectives o ON o.id = t.objective_id \
             WHERE t.archived_at IS NULL AND o.archived_at IS NULL ORDER BY o.key, t.position"
        ),
        "SELECT jsonb_build_array(m.key, e.upstream_key, e.downstream_key)::text FROM metric_edges e JOIN metrics m ON m.id = e.declared_by \
         WHERE m.archived_at IS NULL ORDER BY 1"
            .to_owned(),
    ];
    let client = test.database.superuser().await;
    let mut rows = Vec::new();
    for query in queries {
        rows.extend(client.query(&query, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)));
    }
    rows
}

/// Exports the catalog in every format, imports each where it came from, which must change nothing, and into an empty tenant, which
/// must have the same catalog then.
async fn goes_round(test: &TestApp) {
    let before = stored(test).await;
    assert!(!before.is_empty());
    for format in Format::ALL {
        let text = exported(test, format).await;
        let again = import(test, text.clone(), whole(&file(format))).await;
        let all = (0, 0, again.rows_done, 0);
        assert_eq!((again.state, counts(&again)), (ImportState::Succeeded, all), "{format:?}: {:?}", again.error);
        assert_eq!(stored(test).await, before, "{format:?}");

        let empty = TestApp::start().await;
        let first = import(&empty, text.clone(), whole(&file(format))).await;
        let all = (again.rows_done, 0, 0, 0);
        assert_eq!((first.state, counts(&first)), (ImportState::Succeeded, all), "{format:?}: {:?}", first.error);
        assert_eq!(stored(&empty).await, before, "{format:?}");
        assert_eq!(exported(&empty, format).await, text, "{format:?}: the same catalog is the same text");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metric_hub_catalog_goes_round() {
    let Some(files) = shared("metric-hub") else { return };
    let test = TestApp::start().await;
    for path in &files {
        import(&test, std::fs::read(path).unwrap(), whole(name(path))).await;
    }
    assert_eq!(exported(&test, Format::Ndjson).await.lines().count(), 404, "its domains are only named");
    goes_round(&test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_samples_go_round() {
    let Some(files) = shared("mdl-samples") else { return };
    let test = TestApp::start().await;
    for path in files.iter().filter(|path| name(path).starts_with("sample-")) {
        import(&test, std::fs::read(path).unwrap(), whole(name(path))).await;
    }
    assert_eq!(exported(&test, Format::Ndjson).await.lines().count(), 6 + 12 + 4);
    goes_round(&test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_of_ops_dev_goes_round() {
    let test = TestApp::start().await;
    let folder = mdl_tests::root().join("ops/sample-catalog");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "yaml")) {
        let import = import(&test, std::fs::read(path).unwrap(), whole(name(path))).await;
        assert_eq!(import.state, ImportState::Succeeded, "{path:?}");
    }
    goes_round(&test).await;
}

/// A definition that has everything, in texts and numbers that are easily taken for others.
fn everything() -> Value {
    let calculation = json!({
        "formula_detail": "d",
        "numerator": {"event_name": "e", "filters": [
            {"field": "f", "operator": "in", "value": ["", null, 1, {"a": []}]},
            {"field": "g", "operator": "is_null", "value": null},
        ]},
        "denominator": {"event_name": "e"},
        "example": {"a": 0.1, "b": 0.30000000000000004, "c": [1e29, 1e-7], "result": null},
    });
    let data = json!({
        "primary_sources": [{"system": "s", "table_or_stream": "t", "connection_id": "c"}, {"system": "only"}],
        "secondary_sources": [{"system": "s2"}], "freshness": "24_hours", "update_frequency": "daily",
        "time_grains": ["day", "week"], "retention": "84_months",
    });
    let dimensions = json!([
        {"name": "region", "description": "d", "allowed_values": ["NO", "DE"], "required": true},
        {"name": "plan", "required": false},
    ]);
    let targets = json!({
        "target_value": 0.30000000000000004, "warning_threshold": -1.5, "critical_threshold": 1e300,
        "comparison_baseline": "previous_month",
        "alert_rules": [
            {"rule_id": "r", "name": "n", "condition": "value < 1", "severity": "critical", "notify_channels": ["slack:#x"],
                "evaluation_window": "1_hour"},
            {"condition": "true"},
        ],
    });
    let visualization = json!({
        "default_chart_type": "line", "default_time_range": "last_30_days", "drilldowns": ["region"],
        "dashboards": [{"tool": "Looker", "url": "https://example.com/?a=b#c"}, {"tool": "Grafana"}],
    });
    let extra = json!({
        "name": "another", "business_domain": "DOMAIN-9", "domain": 7, "governance.created_at": "2025-01-01", "metric_id": ["x"],
        "nothing": null, "large": u64::MAX, "float": 1e29, "deep": {"": [[], {}, "", [[1]]]}, "extra": {"extra": 1},
        "end_date": "2025-12-31T23:59:59Z",
    });
    let details = json!({
        "alignment": {"strategic_pillar": "p", "objective_keys": ["O-1"], "key_result_refs": ["O-1:K"], "why_it_matters": " w\n"},
        "calculation": calculation,
        "data": data,
        "regulatory_constraints": ["GDPR"],
        "dimensions": dimensions,
        "targets": targets,
        "visualization": visualization,
        "relationships": {"upstream_keys": ["M-2", "M-9"], "downstream_keys": ["M-8"], "tradeoffs": ["cost"]},
        "usage": {"decision_use_cases": ["u"], "review_cadence": "weekly", "playbooks": [{"name": "p", "url": "https://example.com"}]},
        "notes": "n\n",
        "example_queries": [{"language": "sql", "query": "SELECT 1;\nSELECT 2;\n"}, {"query": "q"}],
        "extra": extra,
    });
    json!({
        "name": "Net \"revenue\": retention", "short_name": "1.10", "description": "First\n  second\n\nlast\n", "category": "yes",
        "tier": "tier_1", "indicator_kind": "lagging", "metric_type": "ratio", "status": "in_review",
        "tags": ["null", "010", "~", "a: b", "- c", "#d", "Größe 🙂"], "synonyms": ["NRR", "0x1F"],
        "formula": "SELECT a\n\tFROM b -- c\r\n", "unit": "%", "expected_direction": "stable", "owner_team": "&team",
        "technical_owner": "t@example.com", "business_owner": "B, C", "data_classification": "internal", "pii_involved": true,
        "details": details,
    })
}

async fn add_metric(test: &TestApp, key: &str, domain: Option<&str>, definition: Value) -> metrics::Metric {
    let definition = serde_json::from_value(definition).unwrap();
    let new = NewMetric {
        key: key.to_owned(),
        domain: domain.map(str::to_owned),
        definition,
        version: Some("3.10.1".to_owned()),
        message: None,
    };
    metrics::create(&test.app, &test.system(), new).await.unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_can_be_said_goes_round() {
    let test = TestApp::start().await;
    let (app, actor) = (&test.app, test.system());
    let content = json!({
        "name": "Sales: all", "description": "d\ne", "owner_team": "1", "stakeholders": ["s", "true"], "industry": "i", "priority": "p",
        "objective_keys": ["O-1"], "key_metric_keys": ["M-1"], "extra": {"id": 1, "metadata": {"x": null}, "metadata.created_by": "admin"},
    });
    domains::create(app, &actor, "SALES", &serde_json::from_value(content).unwrap()).await.unwrap();
    import(&test, ndjson(0..2), whole("m.ndjson")).await;
    add_metric(&test, "M-1", Some("SALES"), everything()).await;
    add_metric(&test, "M-2", None, json!({"name": "bare"})).await;
    let content = json!({
        "name": "Grow", "description": "d", "owner": "o", "status": "active", "priority": "P0", "pillar": "p", "starts_on": "0001-01-01",
        "ends_on": "9999-12-31", "metric_keys": ["M-2", "M-1"], "extra": {"timeframe.end": "x", "title": "t", "key_results": 3},
    });
    let new = NewObjective {
        key: "O-1".to_owned(),
        domain: Some("Growth".to_owned()),
        content: serde_json::from_value(content).unwrap(),
    };
    let objective = objectives::create(app, &actor, new).await.unwrap();
    let content = json!({
        "name": "More", "description": "d\n", "unit": "%", "direction": "maintain", "baseline_value": 0.30000000000000004, "target_value": 1e22,
        "current_value": -0.5, "extra": {"metric_id": "M", "extra": {"x": []}, "title": null},
    });
    let keys = ["M-2".to_owned(), "M-1".to_owned()];
    key_results::create(app, &actor, objective.id, "K", &serde_json::from_value(content).unwrap(), &keys).await.unwrap();
    let bare = serde_json::from_value(json!({"name": "Bare"})).unwrap();
    key_results::create(app, &actor, objective.id, "A", &bare, &[]).await.unwrap();
    goes_round(&test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_as_long_and_as_deep_as_may_be_goes_round() {
    let test = TestApp::start().await;
    let (app, actor) = (&test.app, test.system());
    let deep = (0..50).fold(json!(1), |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({"a": inner}) });
    let extra = |bytes: usize| json!({"deep": deep, "long": "x".repeat(bytes - 400)});
    let content = json!({"name": "d", "description": "ü".repeat(20_000), "extra": extra(262_144)});
    domains::create(app, &actor, "D", &serde_json::from_value(content).unwrap()).await.unwrap();
    let filters = json!([{"field": "f", "operator": "in", "value": deep}]);
    let calculation = json!({"numerator": {"event_name": "e", "filters": filters}, "example": {"x": deep}});
    let details = json!({"calculation": calculation, "extra": extra(200_000)});
    add_metric(&test, "M", Some("D"), json!({"name": "m", "details": details})).await;
    let content = json!({"name": "o", "extra": extra(262_144)});
    let new = NewObjective { key: "O".to_owned(), domain: None, content: serde_json::from_value(content).unwrap() };
    let objective = objectives::create(app, &actor, new).await.unwrap();
    for i in 0..100 {
        let content = json!({"name": "k", "description": "d".repeat(20_000), "extra": extra(16_384)});
        let content = serde_json::from_value(content).unwrap();
        key_results::create(app, &actor, objective.id, &format!("K{i}"), &content, &[]).await.unwrap();
    }
    goes_round(&test).await;

    let before = stored(&test).await;
    let too_much = [json!({"deep": [deep]}), extra(262_144 + 1_000)];
    for extra in too_much {
        let content = serde_json::from_value(json!({"name": "e", "extra": extra})).unwrap();
        assert!(domains::create(app, &actor, "E", &content).await.is_err());
    }
    assert_eq!(stored(&test).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_catalog_is_one() {
    let test = TestApp::start().await;
    assert_eq!(exported(&test, Format::Ndjson).await, "");
    for format in [Format::Json, Format::Yaml] {
        let text = exported(&test, format).await;
        let import = import(&test, text, whole(&file(format))).await;
        assert_eq!((import.state, counts(&import)), (ImportState::Succeeded, (0, 0, 0, 0)), "{format:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_archived_is_left_out_and_left_alone() {
    let test = TestApp::start().await;
    let (app, actor) = (&test.app, test.system());
    let domain = domains::create(app, &actor, "SALES", &domains::Content::named("All sales")).await.unwrap();
    add_metric(&test, "M-1", Some("SALES"), json!({"name": "kept"})).await;
    let archived = add_metric(&test, "M-2", Some("SALES"), json!({"name": "gone"})).await;
    metrics::archive(app, &actor, archived.id, None).await.unwrap();
    domains::archive(app, &actor, domain.id, None).await.unwrap();
    let client = test.database.superuser().await;
    let all = async || (count(&client, "metrics WHERE archived_at IS NOT NULL").await, count(&client, "business_domains").await);
    let before = all().await;
    for format in Format::ALL {
        let text = exported(&test, format).await;
        assert!(text.contains("M-1") && text.contains("All sales") && !text.contains("M-2") && !text.contains("SALES"), "{text}");
        let again = import(&test, text, whole(&file(format))).await;
        assert_eq!(counts(&again), (0, 0, 1, 0));
    }
    assert_eq!(all().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn domains_that_are_only_named_go_round_by_name() {
    let test = TestApp::start().await;
    let (app, actor) = (&test.app, test.system());
    let names = ["COVID-19", "SCOPE-3", "DOMAIN-X", "Growth", "GROWTH_1"];
    let metric =
        |name: &str| json!({"metric_id": format!("M-{name}"), "name": "m", "business_domain": {"name": name}}).to_string();
    let objective = |name: &str| json!({"objective_id": format!("O-{name}"), "name": "o", "domain": {"name": name}}).to_string();
    let named = names.iter().flat_map(|name| [metric(name), objective(name)]).collect::<Vec<_>>().join("\n");
    assert_eq!(counts(&import(&test, named, whole("m.ndjson")).await), (10, 0, 0, 0));
    // Keys that are names of others.
    for (key, name) in [("Growth", "Sales"), ("SCOPE-3", "Climate")] {
        domains::create(app, &actor, key, &domains::Content::named(name)).await.unwrap();
        add_metric(&test, &format!("M-{name}"), Some(name), json!({"name": "m"})).await;
    }
    let client = test.database.superuser().await;
    assert_eq!(count(&client, "business_domains WHERE implied").await, 5);
    goes_round(&test).await;

    // Archived, all are named just so: they are found, and elsewhere made.
    test.database.execute("UPDATE business_domains SET archived_at = now()").await;
    let before = stored(&test).await;
    for format in Format::ALL {
        let text = exported(&test, format).await;
        let again = import(&test, text.clone(), whole(&file(format))).await;
        assert_eq!((counts(&again), stored(&test).await), ((0, 0, 12, 0), before.clone()), "{format:?}");
        let empty = TestApp::start().await;
        assert_eq!(counts(&import(&empty, text.clone(), whole(&file(format))).await), (12, 0, 0, 0), "{format:?}");
        assert_eq!(count(&empty.database.superuser().await, "business_domains WHERE implied").await, 7, "{format:?}");
        assert_eq!(exported(&empty, format).await, text, "{format:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_the_catalog_may_have_it_and_nobody_elses() {
    let test = TestApp::start().await;
    import(&test, ndjson(0..3), whole("m.ndjson")).await;
    let other = test.other_tenant().await;
    let new = NewMetric {
        key: "SECRET".to_owned(),
        domain: None,
        definition: serde_json::from_value(json!({"name": "secret"})).unwrap(),
        version: None,
        message: None,
    };
    metrics::create(&test.app, &Actor::system(other.id), new).await.unwrap();

    let viewer = test.client(Role::Viewer).await;
    for (format, content_type) in [("json", "application/json"), ("ndjson", "application/x-ndjson"), ("yaml", "application/yaml")]
    {
        let answer = viewer.get(&format!("/export/catalog?format={format}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some(content_type)));
        let disposition = answer.header("content-disposition").unwrap();
        assert!(disposition.starts_with("attachment; filename=\"catalog-2"), "{disposition}");
        assert!(disposition.ends_with(&format!(".{format}\"")), "{disposition}");
        let text = answer.body.to_string();
        assert!(text.contains("METRIC-2") && !text.to_lowercase().contains("secret"), "{text}");
    }
    let theirs = download(&test.client_of("globex", Role::Viewer).await, "/export/catalog").await.unwrap();
    assert_eq!(theirs.lines().count(), 1);
    assert!(theirs.contains("SECRET"), "{theirs}");

    let nobody = test.anonymous().get("/export/catalog").await;
    assert_eq!((nobody.status.as_u16(), nobody.error_code()), (401, Some("UNAUTHENTICATED")));
    let stranger = test.anonymous().with("wrong").get("/export/catalog").await;
    assert_eq!((stranger.status.as_u16(), stranger.error_code()), (401, Some("UNAUTHENTICATED")));
    let mut actor = test.system();
    actor.permissions = [mdl::actor::Permission::CatalogImport].into_iter().collect();
    let refused = exports::start(&test.app, &actor, Format::Json, None).await.err();
    assert!(matches!(refused, Some(mdl::Error::Forbidden(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_otherwise_is_refused() {
    let test = TestApp::start().await;
    let viewer = test.client(Role::Viewer).await;
    let unknown = viewer.get("/export/catalog?format=csv").await;
    assert_eq!((unknown.status.as_u16(), unknown.error_code()), (400, Some("BAD_USER_INPUT")));
    let message = unknown.body["errors"][0]["message"].as_str().unwrap();
    assert!(message.ends_with("the formats are json, ndjson, yaml"), "{message}");
    for query in ["fromat=json", "format=json&format=yaml", "archived=true"] {
        let refused = viewer.get(&format!("/export/catalog?{query}")).await;
        assert_eq!((refused.status.as_u16(), refused.error_code()), (400, Some("BAD_REQUEST")), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_formats_say_the_same() {
    let test = TestApp::start().await;
    import(&test, ndjson(0..250), whole("m.ndjson")).await;
    let objective = json!({"objectives": [{"objective_id": "O", "name": "o"}], "domains": [{"id": "D", "name": "d"}]});
    import(&test, objective.to_string(), whole("o.json")).await;
    let viewer = test.client(Role::Viewer).await;
    let json: Value = serde_json::from_str(&download(&viewer, "/export/catalog?format=json").await.unwrap()).unwrap();
    let lists = ["business_domains", "metrics", "objectives"].map(|list| json[list].as_array().unwrap());
    assert_eq!(lists.map(Vec::len), [1, 250, 1]);
    let ndjson = download(&viewer, "/export/catalog").await.unwrap();
    let lines: Vec<Value> = ndjson.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lists.into_iter().flatten().collect::<Vec<_>>(), lines.iter().collect::<Vec<_>>());
    let yaml = download(&viewer, "/export/catalog?format=yaml").await.unwrap();
    assert_eq!(yaml, exported(&test, Format::Yaml).await);
    let empty = TestApp::start().await;
    import(&empty, yaml, whole("m.yaml")).await;
    assert_eq!(exported(&empty, Format::Ndjson).await, ndjson);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_the_middle_breaks_the_transfer() {
    let test = TestApp::start().await;
    import(&test, ndjson(0..1_000), whole("m.ndjson")).await;
    test.database
        .execute("UPDATE metrics SET details = '{\"targets\": {\"target_value\": \"x\"}}' WHERE key = 'METRIC-999'")
        .await;
    let viewer = test.client(Role::Viewer).await;
    for encoding in ["identity", "gzip"] {
        for format in Format::ALL {
            let path = format!("{}/export/catalog?format={}", viewer.base, format.as_str());
            let request = viewer.http.get(path).bearer_auth(viewer.credential.as_ref().unwrap());
            let response = request.header("accept-encoding", encoding).send().await.unwrap();
            assert_eq!(response.status().as_u16(), 200);
            assert!(response.bytes().await.is_err(), "{encoding} {format:?}");
        }
    }
    // The connections are whole.
    assert_eq!(viewer.ask("{ metrics { totalCount } }", json!({})).await["metrics"]["totalCount"], 1_000);
}

/// Waits until so many transactions of this database are open.
async fn wait_for_open(test: &TestApp, wanted: i64) {
    // Whether a statement runs in it or not.
    let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
                 AND xact_start IS NOT NULL AND pid <> pg_backend_pid()";
    let what = format!("{wanted} transactions are open");
    eventually(&what, async || (test.database.number(query).await == wanted).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_or_takes_nothing_ends_it() {
    let test = TestApp::start().await;
    import(&test, ndjson(0..4_000), whole("m.ndjson")).await;
    let mut export = start(&test, Format::Ndjson, None).await;
    assert!(export.next().await.unwrap().is_ok());
    wait_for_open(&test, 1).await;
    drop(export);
    wait_for_open(&test, 0).await;

    let (short, long) = (Duration::from_millis(100), Duration::from_secs(60));
    for patience in [Patience { piece: short, whole: long }, Patience { piece: long, whole: short }] {
        let mut export = start(&test, Format::Ndjson, Some(patience)).await;
        // With the first piece it has begun, if the time was not over before.
        let first = export.next().await.unwrap();
        wait_for_open(&test, 0).await;
        assert!(first.is_err() || text(export).await.is_err(), "{patience:?}: it is not taken for the whole");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_it_is_of_one_moment() {
    let test = TestApp::start().await;
    import(&test, ndjson(0..4_000), whole("m.ndjson")).await;
    let before = exported(&test, Format::Ndjson).await;
    let export = start(&test, Format::Ndjson, None).await;
    let changed = import(&test, ndjson(0..4_001).replace("a / b", "a / c"), whole("m.ndjson")).await;
    assert_eq!(counts(&changed), (1, 4_000, 0, 0));
    assert_eq!(text(export).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_export_to_a_file() {
    let test = TestApp::start().await;
    import(&test, ndjson(0..300), whole("m.ndjson")).await;
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], output: Stdio| {
        let mut command = Command::new(binary("mdl-api"));
        command.args(["export", "--tenant", "acme"]).args(arguments).envs(test.environment()).stdout(output).output().unwrap()
    };
    for (name, format) in [("c.json", Format::Json), ("c.jsonl", Format::Ndjson), ("c.yml", Format::Yaml), ("c", Format::Ndjson)]
    {
        let path = folder.path().join(name);
        std::fs::write(&path, "as it was").unwrap();
        let done = run(&["--output", path.to_str().unwrap()], Stdio::piped());
        assert!(done.status.success() && done.stdout.is_empty(), "{done:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), exported(&test, format).await, "{name}");
    }
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let (private, link, nowhere) = (folder.path().join("c.json"), folder.path().join("link"), folder.path().join("nowhere.json"));
    std::fs::set_permissions(&private, Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&private, &link).unwrap();
    for name in [&private, &link] {
        assert!(run(&["--format", "json", "--output", name.to_str().unwrap()], Stdio::piped()).status.success());
        assert_eq!(mode(&private), 0o600, "it is as private as it was");
    }
    assert!(link.is_symlink());
    std::os::unix::fs::symlink(folder.path().join("nothing"), &nowhere).unwrap();
    let refused = run(&["--output", nowhere.to_str().unwrap()], Stdio::piped());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("It is a link to nothing"), "{refused:?}");
    assert!(nowhere.is_symlink());
    for link in [link, nowhere] {
        std::fs::remove_file(link).unwrap();
    }

    let printed = run(&["--format", "json"], Stdio::piped());
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), exported(&test, Format::Json).await);

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert!(run(&[], writer.into()).status.success(), "a reader that has gone is no failure");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert!(!run(&[], full.into()).status.success());

    test.database
        .execute("UPDATE metrics SET details = '{\"targets\": {\"target_value\": \"x\"}}' WHERE key = 'METRIC-99'")
        .await;
    let path = folder.path().join("c.json");
    let before = std::fs::read_to_string(&path).unwrap();
    let broken = run(&["--output", path.to_str().unwrap()], Stdio::piped());
    assert!(!broken.status.success(), "{broken:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4, "nothing is left beside it");
    for arguments in [&["--output", "c.csv"][..], &["--output", "/dev/null", "--format", "json"], &["--format", "csv"]] {
        assert!(!run(arguments, Stdio::piped()).status.success(), "{arguments:?}");
    }
}
