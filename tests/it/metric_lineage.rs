//! Lineage: what metrics are computed from, declared by either end, before or after the other end exists.

use mdl::actor::Role;
use mdl_tests::{Client, TestApp};
use serde_json::{Value, json};

const LINEAGE: &str = "query($key: String!) { metric(key: $key) {
    upstream { totalCount nodes { key } } downstream { totalCount nodes { key } } unresolvedReferences { key side } } }";

#[tokio::test(flavor = "multi_thread")]
async fn either_end_may_declare_an_edge() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    metric(&editor, "REVENUE", &[], &["CHURN"]).await;
    metric(&editor, "CHURN", &["CUSTOMERS", "REVENUE"], &[]).await;
    metric(&editor, "CUSTOMERS", &[], &[]).await;
    assert_eq!(
        lineage(&editor, "CHURN").await,
        (vec!["CUSTOMERS".to_owned(), "REVENUE".to_owned()], vec![]),
        "declared twice, shown once"
    );
    assert_eq!(lineage(&editor, "REVENUE").await, (vec![], vec!["CHURN".to_owned()]));
    assert_eq!(lineage(&editor, "CUSTOMERS").await, (vec![], vec!["CHURN".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_resolves_once_the_metric_exists() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    metric(&editor, "A", &["LATER-UP"], &["LATER-DOWN"]).await;
    let found = editor.ask(LINEAGE, json!({ "key": "A" })).await["metric"].clone();
    let missing = json!([{ "key": "LATER-DOWN", "side": "DOWNSTREAM" }, { "key": "LATER-UP", "side": "UPSTREAM" }]);
    assert_eq!(found["unresolvedReferences"], missing);
    assert_eq!((&found["upstream"]["totalCount"], &found["downstream"]["totalCount"]), (&json!(0), &json!(0)));

    metric(&editor, "LATER-UP", &[], &[]).await;
    let found = editor.ask(LINEAGE, json!({ "key": "A" })).await["metric"].clone();
    assert_eq!(found["upstream"], json!({ "totalCount": 1, "nodes": [{ "key": "LATER-UP" }] }));
    assert_eq!(found["unresolvedReferences"], json!([{ "key": "LATER-DOWN", "side": "DOWNSTREAM" }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_replaces_the_edges_it_declared() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    for key in ["A", "B", "C"] {
        metric(&editor, key, &[], &[]).await;
    }
    let id = metric(&editor, "D", &["A", "B"], &["C"]).await;
    metric(&editor, "E", &[], &["D"]).await;
    editor.write("updateMetric", json!({ "id": id, "relationships": { "upstreamKeys": ["B", "D"] } })).await;
    // E declares its edge itself, D's other list is left alone, and no metric follows itself.
    assert_eq!(lineage(&editor, "D").await, (vec!["B".to_owned(), "E".to_owned()], vec!["C".to_owned()]));
    editor.write("updateMetric", json!({ "id": id, "relationships": null })).await;
    assert_eq!(lineage(&editor, "D").await, (vec!["E".to_owned()], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diamond_is_walked_from_both_ends() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    metric(&editor, "TOP", &[], &[]).await;
    metric(&editor, "LEFT", &["TOP"], &[]).await;
    metric(&editor, "RIGHT", &["TOP"], &[]).await;
    metric(&editor, "BOTTOM", &["LEFT", "RIGHT"], &[]).await;
    let query = r#"{
        up: metric(key: "BOTTOM") { upstream { nodes { key upstream { nodes { key downstream { nodes { key } } } } } } }
        down: metric(key: "TOP") { downstream { nodes { key downstream { nodes { key } } } } } }"#;
    let found = editor.ask(query, json!({})).await;
    let top = json!({ "nodes": [{ "key": "TOP", "downstream": { "nodes": [{ "key": "LEFT" }, { "key": "RIGHT" }] } }] });
    assert_eq!(
        found["up"]["upstream"]["nodes"],
        json!([{ "key": "LEFT", "upstream": top }, { "key": "RIGHT", "upstream": top }])
    );
    let bottom = json!({ "nodes": [{ "key": "BOTTOM" }] });
    assert_eq!(
        found["down"]["downstream"]["nodes"],
        json!([{ "key": "LEFT", "downstream": bottom }, { "key": "RIGHT", "downstream": bottom }])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circle_ends_where_the_query_ends() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    metric(&editor, "A", &["B"], &[]).await;
    metric(&editor, "B", &["A"], &[]).await;
    let query = r#"{ metric(key: "A") { upstream { nodes { key upstream { nodes { key upstream { nodes { key } } } } } } } }"#;
    let found = editor.ask(query, json!({})).await;
    assert_eq!(found.pointer("/metric/upstream/nodes/0/upstream/nodes/0/upstream/nodes/0/key"), Some(&json!("B")));
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_metrics_stay_in_the_lineage() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let old = metric(&editor, "OLD", &[], &[]).await;
    metric(&editor, "NEW", &["OLD"], &[]).await;
    editor.write("archiveMetric", json!({ "id": old })).await;
    assert_eq!(lineage(&editor, "NEW").await, (vec!["OLD".to_owned()], vec![]));
    assert_eq!(lineage(&editor, "OLD").await, (vec![], vec!["NEW".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_are_paged() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    metric(&editor, "HUB", &[], &[]).await;
    for i in 0..7 {
        metric(&editor, &format!("SPOKE-{i}"), &["HUB"], &[]).await;
        metric(&editor, &format!("SOURCE-{i}"), &[], &["HUB"]).await;
    }
    for side in ["upstream", "downstream"] {
        crate::metric_lists::assert_walks_nested(&editor, r#"metric(key: "HUB")"#, side, "key", 7, 3).await;
    }
    // The page belongs to each metric by itself.
    let query = "{ metrics(filter: { key: { in: [\"SPOKE-0\", \"SPOKE-1\", \"HUB\"] } }) { nodes { key downstream(first: 2) { totalCount nodes { key } } } } }";
    let found = editor.ask(query, json!({})).await["metrics"]["nodes"].clone();
    assert_eq!(
        found[0],
        json!({ "key": "HUB", "downstream": { "totalCount": 7, "nodes": [{ "key": "SPOKE-0" }, { "key": "SPOKE-1" }] } })
    );
    assert_eq!(found[1]["downstream"], json!({ "totalCount": 0, "nodes": [] }));
}

/// Adds a metric with these declarations, and gives its id.
async fn metric(client: &Client, key: &str, upstream: &[&str], downstream: &[&str]) -> Value {
    let input = json!({ "key": key, "name": key, "relationships": { "upstreamKeys": upstream, "downstreamKeys": downstream } });
    client.write("createMetric", input).await["id"].clone()
}

/// Keys of what is upstream and downstream.
async fn lineage(client: &Client, key: &str) -> (Vec<String>, Vec<String>) {
    let found = client.ask(LINEAGE, json!({ "key": key })).await["metric"].clone();
    let keys = |side: &str| -> Vec<String> {
        let nodes = found[side]["nodes"].as_array().unwrap();
        assert_eq!(found[side]["totalCount"], nodes.len());
        nodes.iter().map(|node| node["key"].as_str().unwrap().to_owned()).collect()
    };
    (keys("upstream"), keys("downstream"))
}
