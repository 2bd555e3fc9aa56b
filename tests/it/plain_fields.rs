//! Fields that write themselves say what their resolvers say.

use mdl::actor::Role;
use mdl_tests::{Client, TestApp};
use serde_json::{Value, json};

use crate::root_fields::{MARK, Seed};

/// All fields of a type that take no arguments and have no fields of their own.
async fn leaves(client: &Client, name: &str) -> String {
    let query = "query($name: String!) { __type(name: $name) { fields { name args { name } type { ...T ofType { ...T ofType {
        ...T ofType { ...T } } } } } } } fragment T on __Type { kind }";
    let found = client.ask(query, json!({ "name": name })).await;
    let fields = found["__type"]["fields"].as_array().expect("a type with fields").iter();
    let names: Vec<&str> = fields
        .filter(|field| field["args"] == json!([]))
        .filter(|field| {
            let kinds = std::iter::successors(Some(&field["type"]), |kind| kind.get("ofType").filter(|kind| !kind.is_null()));
            kinds.last().is_some_and(|kind| kind["kind"] == "SCALAR" || kind["kind"] == "ENUM")
        })
        .filter_map(|field| field["name"].as_str())
        .collect();
    assert!(names.len() >= 5, "{name}: {names:?}");
    format!("__typename {}", names.join(" "))
}

#[tokio::test(flavor = "multi_thread")]
async fn they_say_what_their_resolvers_say() {
    let app = TestApp::start_with(&[("MDL_CACHE_BYTES", "0")]).await;
    let _seed = Seed::plant(&app).await;
    let editor = app.client(Role::Editor).await;
    let full = json!({
        "key": "METRIC-FULL", "name": "With \"quotes\" and \\ \u{1F600}", "description": "Lines\nand\ttabs \u{2028} <a>", "shortName": "f",
        "category": "KPI", "tier": "TIER_1", "indicatorKind": "LEADING", "metricType": "RATIO", "status": "ACTIVE",
        "tags": ["a", "b\"c"], "synonyms": ["s"], "domain": "DOMAIN-XYZZY",
    });
    assert_eq!(editor.mutate("createMetric", full, "").await.user_errors(), [""; 0]);
    let objective = editor.ask("{ objectives { nodes { id } } }", json!({})).await["objectives"]["nodes"][0]["id"].clone();
    let measured = json!({ "objectiveId": objective, "key": "KR-FULL", "name": MARK, "unit": "%", "direction": "DECREASE",
        "baselineValue": 40, "targetValue": 0.5, "currentValue": 1e21, "metricKeys": ["METRIC-FULL", "METRIC-XYZZY"] });
    assert_eq!(editor.mutate("createKeyResult", measured, "").await.user_errors(), [""; 0]);

    let [m, d, o, k, v] = ["Metric", "BusinessDomain", "Objective", "KeyResult", "MetricVersion"];
    let (m, d, o) = (leaves(&editor, m).await, leaves(&editor, d).await, leaves(&editor, o).await);
    let (k, v) = (leaves(&editor, k).await, leaves(&editor, v).await);
    let all = format!(
        "metrics {{ totalCount pageInfo {{ hasNextPage }} edges {{ cursor __typename node {{ {m} }} }}
           nodes {{ {m} domain {{ {d} }} keyResults {{ {k} }} versions {{ nodes {{ {v} metric {{ {m} }} }} }} }} }}
         objectives {{ nodes {{ {o} keyResults {{ {k} metrics {{ {m} }} }} metrics {{ {m} }} domain {{ {d} }} }} }}
         businessDomains {{ nodes {{ {d} keyMetrics {{ {m} }} metrics {{ edges {{ node {{ {m} }} }} }} }} }}
         metric(key: \"METRIC-FULL\") {{ {m} domain {{ {d} }} createdBy {{ name }} }} users {{ nodes {{ name }} }}"
    );
    let written = app.client(Role::Admin).await.ask(&format!("{{ {all} }}"), json!({})).await;
    // What is named twice is merged, and so nothing of it writes itself.
    let mut merged = app.client(Role::Admin).await.ask(&format!("{{ {all} __typename __typename }}"), json!({})).await;
    assert_eq!(merged.as_object_mut().expect("an object").remove("__typename"), Some(Value::from("Query")));
    assert_eq!(written, merged);
    assert_eq!(written["metrics"]["nodes"].as_array().map(Vec::len), Some(2));
    assert_eq!(written["objectives"]["nodes"][0]["keyResults"].as_array().map(Vec::len), Some(2));
}
