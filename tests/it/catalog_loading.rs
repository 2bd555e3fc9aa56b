//! One statement per level of nesting, whatever the page size, and no document that nobody asked for.

use mdl::domains::{self, Content};
use mdl::metrics::{self, Definition, NewMetric};
use mdl::objectives::{self, KeyResultContent, NewObjective, key_results};
use mdl_tests::{Direct, TestApp};
use serde_json::json;

/// The statements around a snapshot's own: one that opens it (and sets the tenant), one that ends it.
const SNAPSHOT: u64 = 2;

/// Sixty metrics in six domains; each depends on the one before it, and on one that does not exist.
async fn catalog(app: &TestApp) {
    let system = app.system();
    for d in 0..6 {
        let mut content = Content::named(format!("Domain {d}"));
        content.key_metric_keys = vec![format!("M-{:03}", d * 10), "M-NONE".to_owned()];
        domains::create(&app.app, &system, &format!("DOMAIN-{d}"), &content).await.unwrap();
    }
    for m in 0..60 {
        let mut definition = Definition::default();
        definition.summary.name = format!("Metric {m}");
        definition.summary.formula = Some("a / b".to_owned());
        definition.summary.tags = vec![format!("tag-{}", m % 3), "all".to_owned()];
        definition.details.notes = Some("a note".to_owned());
        definition.details.relationships.upstream_keys = vec!["M-NONE".to_owned()];
        if m > 0 {
            definition.details.relationships.upstream_keys.push(format!("M-{:03}", m - 1));
        }
        let new = NewMetric {
            key: format!("M-{m:03}"),
            domain: Some(format!("DOMAIN-{}", m / 10)),
            definition,
            version: None,
            message: None,
        };
        metrics::create(&app.app, &system, new).await.unwrap();
    }
}

async fn goals(app: &TestApp) {
    let system = app.system();
    for o in 0..20 {
        let content = objectives::Content {
            name: format!("Objective {o}"),
            metric_keys: vec![format!("M-{o:03}"), "M-NONE".to_owned()],
            ..objectives::Content::default()
        };
        let new = NewObjective { key: format!("O-{o:02}"), domain: Some(format!("DOMAIN-{}", o % 6)), content };
        let objective = objectives::create(&app.app, &system, new).await.unwrap();
        for k in 0..3 {
            let content = KeyResultContent {
                name: format!("Key result {k}"),
                target_value: Some(10.0),
                current_value: Some(5.0),
                ..KeyResultContent::default()
            };
            let keys = [format!("M-{:03}", o + k), format!("M-{:03}", o + k + 20)];
            key_results::create(&app.app, &system, objective.id, &format!("KR-{k}"), &content, &keys).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_is_a_statement() {
    let app = TestApp::start().await;
    catalog(&app).await;
    goals(&app).await;
    let api = Direct::new(&app);
    // Each query, and how many statements it may take.
    let cases = [
        ("{ __typename }", 0),
        ("{ metrics(first: 50) { nodes { key name domain { name } } } }", 2),
        ("{ metrics(first: 3) { nodes { key name domain { name } } } }", 2),
        ("{ metrics(first: 50) { totalCount nodes { key } } }", 2),
        // Details come with the page.
        ("{ metrics(first: 50) { nodes { notes dimensions { name } definition { numerator { eventName } } } } }", 1),
        (
            "{ metrics(first: 50) { edges { cursor node { ...Parts } } } } fragment Parts on Metric { governance { regulatoryConstraints } }",
            1,
        ),
        ("{ metrics(first: 50) { nodes { key upstream(first: 5) { totalCount nodes { key notes domain { key } } } } } }", 4),
        ("{ metrics(first: 50) { nodes { downstream(first: 3) { nodes { key upstream(first: 3) { nodes { key } } } } } } }", 3),
        ("{ metrics(first: 50) { nodes { unresolvedReferences { key side } } } }", 2),
        ("{ metrics(first: 50) { nodes { versions(first: 3) { totalCount nodes { version message } } } } }", 3),
        ("{ metrics(first: 50) { nodes { versions(first: 2) { nodes { metric { name notes domain { name } } } } } } }", 4),
        ("{ metrics(first: 50) { nodes { keyResults { progress status objective { name } } } } }", 3),
        ("{ metric(key: \"M-001\") { name notes domain { name } } }", 2),
        ("{ metric(key: \"M-001\", version: \"1.0.0\") { name notes } }", 2),
        ("{ businessDomains { nodes { key metricCount metrics(first: 4) { totalCount nodes { key notes } } } } }", 3),
        ("{ businessDomains { nodes { objectives(first: 2) { totalCount nodes { key } } keyMetrics { key } } } }", 4),
        ("{ objectives { nodes { key keyResults { key metrics { key domain { key } } } } } }", 4),
        ("{ objectives { nodes { progress keyResults { progress status metricKeys } } } }", 3),
        ("{ objectives { nodes { metrics { key } unresolvedMetricKeys domain { name } } } }", 3),
        ("{ catalogStats { metricCount byTier { tier count } byDomain { domain { name } count } } }", 4),
    ];
    let mut wrong = Vec::new();
    for (query, statements) in cases {
        let expected = if statements == 0 { 0 } else { statements + SNAPSHOT };
        // Batches form by luck of timing if they do at all.
        for _ in 0..5 {
            let answer = api.query(query, json!({})).await;
            if answer.statements != expected {
                wrong.push(format!("{} statements instead of {expected}: {query}", answer.statements));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn things_by_id_share_a_statement_for_each_type() {
    let app = TestApp::start().await;
    catalog(&app).await;
    goals(&app).await;
    let api = Direct::new(&app);
    let found = api
        .query(
            "{ metrics(first: 20) { nodes { id } } businessDomains { nodes { id } } objectives(first: 2) { nodes { id keyResults { id } } } }",
            json!({}),
        )
        .await
        .data;
    let mut ids = Vec::new();
    for list in ["metrics", "businessDomains", "objectives"] {
        ids.extend(found[list]["nodes"].as_array().unwrap().iter().map(|node| node["id"].clone()));
    }
    ids.push(found["objectives"]["nodes"][0]["keyResults"][0]["id"].clone());
    let answer = api.query("query($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }", json!({ "ids": ids })).await;
    assert_eq!(answer.statements, 4 + SNAPSHOT);
    let returned: Vec<_> = answer.data["nodes"].as_array().unwrap().iter().map(|node| node["id"].clone()).collect();
    assert_eq!(returned, ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_pages_go_on_where_they_ended() {
    let app = TestApp::start().await;
    catalog(&app).await;
    let api = Direct::new(&app);
    let query = "query($after: String, $before: String, $first: Int, $last: Int) { businessDomain(key: \"DOMAIN-2\") {
        metrics(first: $first, after: $after, last: $last, before: $before) {
            nodes { key } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } } }";
    let page = async |variables| {
        let metrics = api.query(query, variables).await.data["businessDomain"]["metrics"].clone();
        let keys: Vec<String> =
            metrics["nodes"].as_array().unwrap().iter().map(|node| node["key"].as_str().unwrap().to_owned()).collect();
        (keys, metrics["pageInfo"].clone())
    };
    let (first, info) = page(json!({ "first": 4 })).await;
    assert_eq!(first, ["M-020", "M-021", "M-022", "M-023"]);
    assert_eq!((&info["hasNextPage"], &info["hasPreviousPage"]), (&json!(true), &json!(false)));
    let (second, info) = page(json!({ "first": 100, "after": info["endCursor"] })).await;
    assert_eq!(second.len(), 6);
    assert_eq!(info["hasNextPage"], json!(false));
    let (back, info) = page(json!({ "last": 2, "before": info["startCursor"] })).await;
    assert_eq!(back, ["M-022", "M-023"]);
    assert_eq!(info["hasPreviousPage"], json!(true));
}
