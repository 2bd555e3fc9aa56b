//! Fields that write themselves say what their resolvers say.

use mdl::actor::Role;
use mdl_tests::{Client, TestApp};
use serde_json::{Value, json};

use crate::root_fields::{MARK, Seed};

/// All fields of a type that take no arguments and have no fields of their own.
async fn leaves(client: &Client, name: &str) -> String {
    format!("__typename {}", leaf_names(client, name).await.join(" "))
}

async fn leaf_names(client: &Client, name: &str) -> Vec<String> {
    let query = "query($name: String!) { __type(name: $name) { fields { name args { name } type { ...T ofType { ...T ofType {
        ...T ofType { ...T } } } } } } } fragment T on __Type { kind }";
    let found = client.ask(query, json!({ "name": name })).await;
    let fields = found["__type"]["fields"].as_array().expect("a type with fields").iter();
    let names: Vec<String> = fields
        .filter(|field| field["args"] == json!([]))
        .filter(|field| {
            let kinds = std::iter::successors(Some(&field["type"]), |kind| kind.get("ofType").filter(|kind| !kind.is_null()));
            kinds.last().is_some_and(|kind| kind["kind"] == "SCALAR" || kind["kind"] == "ENUM")
        })
        .filter_map(|field| field["name"].as_str().map(str::to_owned))
        .collect();
    assert!(!names.is_empty(), "{name}");
    names
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

/// The metric with this key wherever it is shown in an answer.
fn shown<'a>(answer: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match answer {
        Value::Array(items) => items.iter().for_each(|item| shown(item, key, found)),
        Value::Object(fields) => {
            if answer["key"] == key {
                found.push(answer);
            }
            fields.values().for_each(|field| shown(field, key, found));
        }
        _ => {}
    }
}

/// Lists read what is asked for, and no more of a metric.
#[tokio::test(flavor = "multi_thread")]
async fn a_field_alone_says_what_it_says_among_all() {
    let app = TestApp::start_with(&[("MDL_CACHE_BYTES", "0")]).await;
    let editor = app.client(Role::Editor).await;
    let full = json!({
        "key": "FULL", "name": "Full", "description": "d", "shortName": "f", "category": "KPI", "tier": "TIER_1", "indicatorKind": "LEADING",
        "metricType": "RATIO", "status": "ACTIVE", "tags": ["a"], "synonyms": ["s"], "notes": "n", "extra": { "a": 1 },
        "domain": "D", "alignment": { "strategicPillar": "p", "whyItMatters": "w" },
        "definition": { "formula": "a / b", "unit": "u", "expectedDirection": "DECREASE", "formulaDetail": "f" },
        "governance": { "ownerTeam": "o", "technicalOwner": "t", "businessOwner": "b", "dataClassification": "c", "piiInvolved": true,
            "regulatoryConstraints": ["r"] },
        "data": { "freshness": "daily" }, "targets": { "targetValue": 0.5 }, "usage": { "reviewCadence": "weekly" },
        "relationships": { "upstreamKeys": ["NOBODY"], "tradeoffs": ["FULL"] }, "visualization": { "defaultChartType": "line" },
    });
    editor.write("createBusinessDomain", json!({ "key": "D", "name": "D", "keyMetricKeys": ["FULL"] })).await;
    editor.write("createMetric", full).await;
    editor.write("createMetric", json!({ "key": "NEXT", "name": "Next", "relationships": { "upstreamKeys": ["FULL"] } })).await;
    let objective = editor.write("createObjective", json!({ "key": "O", "name": "O", "metricKeys": ["FULL"] })).await;
    let measured = json!({ "objectiveId": objective["id"], "key": "K", "name": "K", "targetValue": 1, "metricKeys": ["FULL"] });
    editor.write("createKeyResult", measured).await;

    let mut fields = leaf_names(&editor, "Metric").await;
    for (section, of) in [
        ("alignment", "MetricAlignment"),
        ("definition", "MetricDefinition"),
        ("data", "MetricData"),
        ("governance", "MetricGovernance"),
        ("targets", "MetricTargets"),
        ("usage", "MetricUsage"),
        ("visualization", "MetricVisualization"),
        ("relationships", "MetricRelationships"),
        ("domain", "BusinessDomain"),
    ] {
        fields.extend(leaf_names(&editor, of).await.into_iter().map(|field| format!("{section} {{ {field} }}")));
    }
    fields.push(
        "versions(first: 1) { nodes { metric { description tags definition { unit } governance { ownerTeam } } } }".to_owned(),
    );
    let mut told = 0;
    for field in &fields {
        let of = format!("key {field}");
        let one = editor.ask(&format!("{{ metric(key: \"FULL\") {{ {of} }} }}"), json!({})).await["metric"].clone();
        let lists = format!(
            "{{ metrics(first: 3) {{ nodes {{ {of} upstream(first: 3) {{ nodes {{ {of} }} }} }} }} found: metrics(search: \"full\", first: 3) {{ edges {{ node {{ {of} }} }} }}
               businessDomains(first: 3) {{ nodes {{ metrics(first: 3) {{ nodes {{ ...F }} }} keyMetrics {{ {of} }} }} }}
               objectives(first: 3) {{ nodes {{ metrics {{ {of} }} keyResults {{ metrics {{ ... on Metric {{ {of} }} }} }} }} }} }}
             fragment F on Metric {{ {of} }}"
        );
        let mut answer = editor.ask(&lists, json!({})).await;
        for node in answer["metrics"]["nodes"].as_array_mut().expect("nodes") {
            let upstream = node.as_object_mut().and_then(|node| node.remove("upstream"));
            told += usize::from(upstream.is_some_and(|upstream| upstream["nodes"][0] == one));
        }
        let mut found = Vec::new();
        shown(&answer, "FULL", &mut found);
        assert_eq!(found.len(), 6, "{field}");
        assert!(found.iter().all(|found| **found == one), "{field}: {found:?} instead of {one}");
    }
    assert_eq!(told, fields.len(), "upstream, too");
}
