//! What is refused before anything of it is executed, though async-graphql alone would execute it.

use mdl::actor::Role;
use mdl_tests::TestApp;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_a_rule_of_graphql_is_not_executed() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let before = app.database.contents().await;
    for (text, variables, named) in [
        (r#"{ metric(key: "M") { domain { a: name } domain { a: key } } }"#, json!({}), "`a`"),
        ("{ metrics(first: 1) { nodes { a: key } } metrics(first: 1) { nodes { a: name } } }", json!({}), "`a`"),
        (
            r#"{ metric(key: "M") { ...A ...B } } fragment A on Metric { domain { x: name } } fragment B on Metric { domain { x: key } }"#,
            json!({}),
            "`x`",
        ),
        (r#"{ metric(key: "M") { versions(first: 1) { totalCount } versions(first: 2) { totalCount } } }"#, json!({}), "first"),
        (r#"mutation { createMetric(input: { key: "TWICE", key: "TWO", name: "a" }) { metric { key } } }"#, json!({}), "\"key\""),
        (r#"{ metrics(orderBy: { field: "KEY" }) { totalCount } }"#, json!({}), "MetricOrderField"),
        ("query($f: String!) { metrics(orderBy: { field: $f }) { totalCount } }", json!({ "f": "KEY" }), "$f"),
        ("query($id: String) { node(id: $id) { id } }", json!({ "id": "x" }), "$id"),
        ("query($n: Int! = 3) { metrics(first: $n) { totalCount } }", json!({ "n": null }), "$n"),
        (
            r#"mutation($id: ID) { createMetric(input: { key: "HALF", name: "h" }) { metric { key } } archiveMetric(input: { id: $id }) { metric { key } } }"#,
            json!({}),
            "$id",
        ),
        (r#"mutation M() { createMetric(input: { key: "A", name: "x" }) { metric { key } } }"#, json!({}), "Variable"),
    ] {
        let answer = admin.send(text, variables).await.body;
        assert!(answer["data"].is_null(), "{text}: {answer}");
        assert_eq!(answer["errors"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED", "{text}: {answer}");
        let message = answer["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains(named), "{text}: {message}");
    }
    assert_eq!(app.database.contents().await, before);
    let merged = r#"{ metrics(first: 1) { totalCount } metrics(first: 1) { nodes { key } } }"#;
    assert_eq!(admin.ask(merged, json!({})).await, json!({ "metrics": { "totalCount": 0, "nodes": [] } }));
}

/// A date is looked at before anything is executed, wherever it stands.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_date_is_told_before_anything_is_done() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let before = app.database.contents().await;
    let both = "mutation($a: CreateMetricInput!, $b: CreateObjectiveInput!) {
        createMetric(input: $a) { metric { key } } createObjective(input: $b) { objective { key } } }";
    let objective =
        |starts_on: Value| json!({ "a": { "key": "M", "name": "M" }, "b": { "key": "O", "name": "O", "startsOn": starts_on } });
    let since = "query($from: DateTime) { metrics(filter: { updatedAt: { from: $from } }) { totalCount } }";
    for (text, variables, wanted) in [
        (both, objective(json!("nope")), r#""input.startsOn": "nope" is not a day"#),
        (both, objective(json!("-9999-01-01")), r#""input.startsOn": "-9999-01-01" is not a day of the years 1 to 9999"#),
        (both, objective(json!(5)), r#""input.startsOn": 5 is not a day"#),
        (
            "mutation($s: NaiveDate, $e: NaiveDate) { createMetric(input: { key: \"M\", name: \"M\" }) { metric { key } }
             createObjective(input: { key: \"O\", name: \"O\", startsOn: $s, endsOn: $e }) { objective { key } } }",
            json!({ "s": "nope" }),
            r#""input.startsOn": "nope" is not a day"#,
        ),
        (since, json!({ "from": "-9999-01-01T00:00:00Z" }), r#"is not a time of the years 1 to 9999"#),
        (since, json!({ "from": "2026-01-01" }), r#""filter.updatedAt.from": "2026-01-01" is not a time"#),
        (
            "query($from: DateTime = \"x\") { metrics(filter: { updatedAt: { from: $from } }) { totalCount } }",
            json!({}),
            r#""from": "x" is not a time"#,
        ),
        (
            r#"mutation { createMetric(input: { key: "M", name: "M" }) { metric { key } } createObjective(input: { key: "O", name: "O", endsOn: "2026-02-30" }) { objective { key } } }"#,
            json!({}),
            r#""input.endsOn": "2026-02-30" is not a day"#,
        ),
    ] {
        // The second time it is known to fit, but for its values.
        for _ in 0..2 {
            let answer = admin.send(text, variables.clone()).await.body;
            assert!(answer["data"].is_null() && answer["errors"][0]["path"].is_null(), "{text}: {answer}");
            let message = answer["errors"][0]["message"].as_str().unwrap();
            assert!(message.contains(wanted), "{text}: {message}");
        }
    }
    assert_eq!(app.database.contents().await, before);
    // What another operation of the document asks for is not this one's date.
    let two = "query A($d: DateTime) { ...F } query B($d: String!) { metric(key: $d) { key } }
        fragment F on Query { metrics(filter: { updatedAt: { from: $d } }) { totalCount } }";
    let other = admin.post(&json!({ "query": two, "operationName": "B", "variables": { "d": "REVENUE" } })).await;
    assert_eq!(other.data(), json!({ "metric": null }));
    assert_eq!(admin.ask(since, json!({ "from": "2026-01-01T00:00:00Z" })).await["metrics"]["totalCount"], 0);
}
