//! Mutations of the catalog: they do what they say, and say what they refuse.

use mdl::actor::Role;
use mdl_tests::{Direct, TestApp};
use serde_json::{Value, json};

const CREATE: &str = "mutation($input: CreateMetricInput!) { createMetric(input: $input) {
    metric { id key name version revision domain { key } upstream { nodes { key } } unresolvedReferences { key side } }
    userErrors { field code message } } }";
const UPDATE: &str = "mutation($input: UpdateMetricInput!) { updateMetric(input: $input) {
    metric { name version revision description tags notes definition { formula unit } governance { ownerTeam piiInvolved } }
    userErrors { field code message } } }";

#[tokio::test(flavor = "multi_thread")]
async fn a_metric_is_created_changed_and_archived() {
    let app = TestApp::start().await;
    let api = Direct::new(&app);
    let domain = api
        .mutate(
            "mutation { createBusinessDomain(input: { key: \"DOMAIN-GROWTH\", name: \"Growth\" }) { businessDomain { id } userErrors { code } } }",
            json!({}),
        )
        .await;
    assert_eq!(domain["createBusinessDomain"]["userErrors"], json!([]));

    let input = json!({
        "key": "METRIC-CHURN", "name": "Churn", "domain": "Growth", "tags": ["retention"],
        "definition": { "formula": "lost / total", "unit": "percentage",
                        "numerator": { "eventName": "lost", "filters": [{ "field": "plan", "operator": "in", "value": ["a", "b"] }] } },
        "governance": { "ownerTeam": "Growth Analytics", "piiInvolved": true },
        "relationships": { "upstreamKeys": ["METRIC-CUSTOMERS"] },
        "extra": { "color": "red" }
    });
    let created = api.mutate(CREATE, json!({ "input": input })).await["createMetric"].clone();
    assert_eq!(created["userErrors"], json!([]));
    let metric = &created["metric"];
    assert_eq!((&metric["version"], &metric["revision"]), (&json!("1.0.0"), &json!(1)));
    assert_eq!(metric["domain"]["key"], "DOMAIN-GROWTH");
    assert_eq!(metric["unresolvedReferences"], json!([{ "key": "METRIC-CUSTOMERS", "side": "UPSTREAM" }]));
    let id = metric["id"].clone();

    // What is left out stays, null clears, groups are merged.
    let input = json!({ "id": id, "expectedVersion": 1, "message": "Say what counts", "description": "Share of customers lost",
                        "definition": { "unit": null }, "governance": { "piiInvolved": false }, "tags": null });
    let updated = api.mutate(UPDATE, json!({ "input": input })).await["updateMetric"].clone();
    assert_eq!(updated["userErrors"], json!([]));
    let metric = &updated["metric"];
    assert_eq!((&metric["version"], &metric["revision"]), (&json!("2.0.0"), &json!(2)), "a unit is what the number is");
    assert_eq!(metric["definition"], json!({ "formula": "lost / total", "unit": null }));
    assert_eq!(metric["governance"], json!({ "ownerTeam": "Growth Analytics", "piiInvolved": false }));
    assert_eq!(metric["tags"], json!([]));

    // The same again says that somebody was faster; without a version it changes nothing.
    let again = api.mutate(UPDATE, json!({ "input": input })).await["updateMetric"].clone();
    assert_eq!(again["metric"], Value::Null);
    assert_eq!(
        (&again["userErrors"][0]["code"], &again["userErrors"][0]["field"]),
        (&json!("VERSION_CONFLICT"), &json!(["expectedVersion"]))
    );
    let mut forced = input.clone();
    forced.as_object_mut().unwrap().remove("expectedVersion");
    assert_eq!(api.mutate(UPDATE, json!({ "input": forced })).await["updateMetric"]["metric"]["revision"], 2);

    let archived = api
        .mutate(
            "mutation($id: ID!) { archiveMetric(input: { id: $id, expectedVersion: 2 }) { metric { status archivedAt } userErrors { code } } }",
            json!({ "id": id }),
        )
        .await["archiveMetric"]
        .clone();
    assert_eq!(archived["metric"]["status"], "REMOVED");

    let found = api
        .query(
            "query($id: ID!) { metrics { totalCount } all: metrics(filter: { archived: true }) { totalCount }
               metric(id: $id) { versions { totalCount nodes { version changeTier changedFields message metric { tags definition { unit } } } } }
               was: metric(key: \"METRIC-CHURN\", version: \"1.0.0\") { revision tags extra definition { unit numerator { filters { value } } } } }",
            json!({ "id": id }),
        )
        .await
        .data;
    assert_eq!((&found["metrics"]["totalCount"], &found["all"]["totalCount"]), (&json!(0), &json!(1)));
    let versions = &found["metric"]["versions"];
    assert_eq!(versions["totalCount"], 3);
    assert_eq!(versions["nodes"][1]["changeTier"], "MAJOR");
    assert_eq!(versions["nodes"][1]["message"], "Say what counts");
    assert_eq!(versions["nodes"][2]["metric"], json!({ "tags": ["retention"], "definition": { "unit": "percentage" } }));
    assert_eq!(
        found["was"],
        json!({ "revision": 1, "tags": ["retention"], "extra": { "color": "red" },
                "definition": { "unit": "percentage", "numerator": { "filters": [{ "value": ["a", "b"] }] } } })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_wrong_is_said_at_once() {
    let app = TestApp::start().await;
    let api = Direct::new(&app);
    let input = json!({ "key": "with space", "name": " ", "usage": { "playbooks": [{ "name": "p", "url": "javascript:alert(1)" }] },
                        "governance": { "ownerTeam": "" } });
    let answer = api.mutate(CREATE, json!({ "input": input })).await["createMetric"].clone();
    assert_eq!(answer["metric"], Value::Null);
    let fields: Vec<String> = answer["userErrors"].as_array().unwrap().iter().map(|error| error["field"].to_string()).collect();
    assert_eq!(fields, [r#"["key"]"#, r#"["name"]"#, r#"["governance","ownerTeam"]"#, r#"["usage","playbooks","0","url"]"#]);

    let ok = json!({ "input": { "key": "M", "name": "M" } });
    api.mutate(CREATE, ok.clone()).await;
    let taken = api.mutate(CREATE, ok).await["createMetric"]["userErrors"][0].clone();
    assert_eq!((&taken["code"], &taken["field"]), (&json!("TAKEN"), &json!(["key"])));
    let lost = api.mutate(CREATE, json!({ "input": { "key": "N", "name": "N", "domain": "NOWHERE" } })).await;
    assert_eq!(lost["createMetric"]["userErrors"][0]["field"], json!(["domain"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn objectives_say_how_far_they_have_come() {
    let app = TestApp::start().await;
    let api = Direct::new(&app);
    api.mutate(CREATE, json!({ "input": { "key": "M-1", "name": "One" } })).await;
    let objective = api
        .mutate(
            "mutation { createObjective(input: { key: \"OBJ-1\", name: \"Grow\", status: ACTIVE, startsOn: \"2020-01-01\", endsOn: \"2020-12-31\",
               metricKeys: [\"M-1\", \"M-2\"] }) { objective { id progress unresolvedMetricKeys timeframe { start end } } userErrors { code field } } }",
            json!({}),
        )
        .await["createObjective"]
        .clone();
    assert_eq!(objective["userErrors"], json!([]));
    assert_eq!(objective["objective"]["unresolvedMetricKeys"], json!(["M-2"]));
    assert_eq!(objective["objective"]["progress"], Value::Null);
    let key_result = api
        .mutate(
            "mutation($id: ID!) { createKeyResult(input: { objectiveId: $id, key: \"KR-1\", name: \"From 10 to 20\", baselineValue: 10,
               targetValue: 20, currentValue: 10, metricKeys: [\"M-1\"] }) { keyResult { id progress status metrics { key } } userErrors { code field } } }",
            json!({ "id": objective["objective"]["id"] }),
        )
        .await["createKeyResult"]
        .clone();
    assert_eq!(key_result["userErrors"], json!([]));
    assert_eq!(key_result["keyResult"]["status"], "MISSED");
    assert_eq!(key_result["keyResult"]["metrics"], json!([{ "key": "M-1" }]));
    let moved = api
        .mutate(
            "mutation($id: ID!) { updateKeyResult(input: { id: $id, expectedVersion: 1, currentValue: 15 }) {
               keyResult { progress revision objective { progress keyResults { key } } } userErrors { code } } }",
            json!({ "id": key_result["keyResult"]["id"] }),
        )
        .await["updateKeyResult"]
        .clone();
    assert_eq!(
        moved["keyResult"],
        json!({ "progress": 0.5, "revision": 2, "objective": { "progress": 0.5, "keyResults": [{ "key": "KR-1" }] } })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_changes_nothing() {
    let app = TestApp::start().await;
    let api = Direct::new(&app);
    let denied = api.run(Role::Viewer, CREATE, json!({ "input": { "key": "M", "name": "M" } })).await;
    assert_eq!(denied.errors[0]["extensions"]["code"], "FORBIDDEN");
    assert_eq!(denied.statements, 0);
    assert_eq!(api.query("{ catalogStats { metricCount } }", json!({})).await.data["catalogStats"]["metricCount"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_combine_and_search_ranks() {
    let app = TestApp::start().await;
    let api = Direct::new(&app);
    let metrics = [
        json!({ "key": "METRIC-LOGIN-SUCCESS-RATE", "name": "Login success rate", "tier": "TIER_1", "tags": ["auth", "kpi"], "status": "ACTIVE" }),
        json!({ "key": "METRIC-LOGIN-ATTEMPTS", "name": "Login attempts", "tier": "TIER_2", "tags": ["auth"], "status": "ACTIVE" }),
        json!({ "key": "METRIC-REVENUE", "name": "Revenue", "tier": "TIER_1", "tags": ["kpi"], "status": "DRAFT",
                "description": "Money of those who log in, or do not: login is not needed." }),
        json!({ "key": "METRIC-CHURN", "name": "Churn", "tags": [] }),
    ];
    for input in metrics {
        api.mutate(CREATE, json!({ "input": input })).await;
    }
    let keys = async |filter: &str| -> Vec<String> {
        let found = api.query(&format!("{{ metrics({filter}) {{ nodes {{ key }} }} }}"), json!({})).await.data;
        let nodes = found["metrics"]["nodes"].as_array().unwrap().clone();
        nodes.iter().map(|node| node["key"].as_str().unwrap().trim_start_matches("METRIC-").to_owned()).collect()
    };
    assert_eq!(keys("filter: { tier: { in: [TIER_1] } }").await, ["LOGIN-SUCCESS-RATE", "REVENUE"]);
    assert_eq!(
        keys("filter: { tier: { in: [TIER_1, TIER_2] }, status: { in: [ACTIVE] } }").await,
        ["LOGIN-ATTEMPTS", "LOGIN-SUCCESS-RATE"]
    );
    assert_eq!(keys("filter: { not: { tier: { in: [TIER_1] } } }").await, ["CHURN", "LOGIN-ATTEMPTS"], "no tier is not tier 1");
    assert_eq!(keys("filter: { tags: { containsAll: [\"auth\", \"kpi\"] } }").await, ["LOGIN-SUCCESS-RATE"]);
    assert_eq!(
        keys("filter: { or: [{ tags: { containsAny: [\"kpi\"] } }, { key: { in: [\"METRIC-CHURN\"] } }] }, orderBy: { field: NAME, direction: DESC }").await,
        ["REVENUE", "LOGIN-SUCCESS-RATE", "CHURN"]
    );
    assert_eq!(keys("filter: { domain: { isNull: false } }").await, Vec::<String>::new());
    assert_eq!(keys("filter: { domain: { in: [\"NONE\"] } }").await, Vec::<String>::new());
    assert_eq!(
        keys("filter: { not: { domain: { in: [\"NONE\"] } }, createdAt: { from: \"2020-01-01T00:00:00Z\" } }, first: 1").await,
        ["CHURN"]
    );
    // Names weigh more than descriptions; a key, a misspelling, an exclusion.
    assert_eq!(keys("search: \"login\"").await[2], "REVENUE");
    assert_eq!(keys("search: \"METRIC-LOGIN-SUCCESS-RATE\"").await[0], "LOGIN-SUCCESS-RATE");
    assert_eq!(keys("search: \"revenu\"").await, ["REVENUE"]);
    assert_eq!(keys("search: \"sucess\"").await, ["LOGIN-SUCCESS-RATE"]);
    assert_eq!(keys("search: \"login -attempts\", filter: { tier: { in: [TIER_1] } }").await, ["LOGIN-SUCCESS-RATE", "REVENUE"]);

    let refused = api.run(Role::Viewer, "{ metrics(orderBy: { field: RELEVANCE }) { nodes { key } } }", json!({})).await;
    assert_eq!(refused.errors[0]["extensions"]["code"], "BAD_USER_INPUT");
    assert_eq!(refused.errors[0]["message"], "orderBy: RELEVANCE orders the results of a search; give one");
    let both = api.run(Role::Viewer, "{ metric { key } }", json!({})).await;
    assert_eq!(both.errors[0]["extensions"]["code"], "BAD_USER_INPUT");
    let page = api.run(Role::Viewer, "{ metrics(first: 101) { nodes { key } } }", json!({})).await;
    assert_eq!(page.errors[0]["extensions"]["code"], "BAD_USER_INPUT");
}
