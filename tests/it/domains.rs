//! Business domains: the catalog's plain entries, and the pattern for others.

use mdl::actor::Role;
use mdl_tests::{Answer, TestApp};
use serde_json::{Value, json};

const DOMAIN: &str = "id key name description ownerTeam stakeholders industry priority objectiveKeys keyMetricKeys extra implied
    revision createdBy { name } updatedBy { name } archivedAt";
const NONE: [&str; 0] = [];

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_comes_back_as_it_was_sent() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let answer = editor.mutate("createBusinessDomain", revenue(), &format!("businessDomain {{ {DOMAIN} }}")).await;
    assert_eq!(answer.user_errors(), NONE);
    let domain = answer.payload()["businessDomain"].clone();
    for (field, value) in revenue().as_object().unwrap() {
        assert_eq!(&domain[field], value, "{field}");
    }
    assert_eq!((&domain["revision"], &domain["implied"], &domain["archivedAt"]), (&json!(1), &json!(false), &Value::Null));
    assert_eq!(domain["createdBy"]["name"], "The editor");

    let viewer = app.client(Role::Viewer).await;
    let query = format!(
        "query($id: ID!, $key: String!) {{
            byKey: businessDomain(key: $key) {{ {DOMAIN} }} byId: businessDomain(id: $id) {{ {DOMAIN} }}
            node(id: $id) {{ ... on BusinessDomain {{ {DOMAIN} }} }} other: businessDomain(key: \"NONE\") {{ id }} }}"
    );
    let found = viewer.ask(&query, json!({ "id": domain["id"], "key": "DOMAIN-REVENUE" })).await;
    assert_eq!((&found["byKey"], &found["byId"], &found["node"], &found["other"]), (&domain, &domain, &domain, &Value::Null));
    let neither = viewer.send("{ businessDomain { id } }", json!({})).await;
    assert_eq!(neither.error_code(), Some("BAD_USER_INPUT"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_names_are_unique() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    editor.write("createBusinessDomain", revenue()).await;
    let other = editor.write("createBusinessDomain", json!({ "key": "DOMAIN-B", "name": "B" })).await;
    let before = app.database.contents().await;
    let attempt = async |field: &str, input: Value| editor.mutate(field, input, "").await.user_errors();
    let again = attempt("createBusinessDomain", revenue()).await;
    assert_eq!(again, ["key: TAKEN", "name: TAKEN"], "the same call again");
    assert_eq!(attempt("createBusinessDomain", json!({ "key": "NEW", "name": "Revenue" })).await, ["name: TAKEN"]);
    assert_eq!(attempt("updateBusinessDomain", json!({ "id": other["id"], "name": "Revenue" })).await, ["name: TAKEN"]);
    let of_each = json!({ "id": other["id"], "name": "Revenue", "ownerTeam": "" });
    assert_eq!(attempt("updateBusinessDomain", of_each).await, ["ownerTeam: REQUIRED", "name: TAKEN"]);
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_wrong_with_a_domain_is_said_at_once() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let before = app.database.contents().await;
    let bad = json!({
        "key": "no spaces", "name": " ", "description": "x".repeat(20_001), "ownerTeam": "a\nb",
        "stakeholders": vec!["S"; 201], "keyMetricKeys": ["ok", ""],
    });
    let answer = editor.mutate("createBusinessDomain", bad, "businessDomain { id }").await;
    let wanted = [
        "key: INVALID",
        "name: REQUIRED",
        "description: TOO_LONG",
        "ownerTeam: INVALID",
        "stakeholders: TOO_MANY",
        "keyMetricKeys.1: REQUIRED",
    ];
    assert_eq!(answer.user_errors(), wanted);
    assert_eq!(answer.payload()["businessDomain"], Value::Null);
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_changes_what_it_names() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let id = editor.write("createBusinessDomain", revenue()).await["id"].clone();
    let update = async |change: Value| -> Answer {
        let mut input = change;
        input["id"] = id.clone();
        editor.mutate("updateBusinessDomain", input, &format!("businessDomain {{ {DOMAIN} }}")).await
    };
    let changed = update(json!({ "name": "Income", "industry": null, "stakeholders": ["CEO"], "expectedVersion": 1 })).await;
    let changed = changed.payload()["businessDomain"].clone();
    assert_eq!(
        (&changed["name"], &changed["industry"], &changed["stakeholders"]),
        (&json!("Income"), &Value::Null, &json!(["CEO"]))
    );
    assert_eq!((&changed["ownerTeam"], &changed["revision"]), (&json!("Finance"), &json!(2)));

    let before = app.database.contents().await;
    assert_eq!(update(json!({ "name": "Income" })).await.payload()["businessDomain"]["revision"], 2, "the same call again");
    assert_eq!(
        update(json!({ "name": "Late", "expectedVersion": 1 })).await.user_errors(),
        ["expectedVersion: VERSION_CONFLICT"]
    );
    assert_eq!(update(json!({ "name": null })).await.user_errors(), ["name: REQUIRED"]);
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_domain_leaves_the_lists_and_keeps_its_metrics() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let id = editor.write("createBusinessDomain", revenue()).await["id"].clone();
    editor.write("createMetric", json!({ "key": "MRR", "name": "MRR", "domain": "Revenue" })).await;
    let archive =
        async |input: Value| editor.mutate("archiveBusinessDomain", input, "businessDomain { archivedAt revision }").await;
    let before = app.database.contents().await;
    let conflict = archive(json!({ "id": id, "expectedVersion": 7 })).await;
    assert_eq!(conflict.user_errors(), ["expectedVersion: VERSION_CONFLICT"]);
    assert_eq!(app.database.contents().await, before);

    let archived = archive(json!({ "id": id, "expectedVersion": 1 })).await.payload();
    assert!(archived["businessDomain"]["archivedAt"].is_string());
    let before = app.database.contents().await;
    assert_eq!(archive(json!({ "id": id })).await.payload(), archived, "the same call again");
    assert_eq!(app.database.contents().await, before);
    let found = editor
        .ask(
            r#"{ now: businessDomains { totalCount } then: businessDomains(filter: { archived: true }) { nodes { key } }
                 metric(key: "MRR") { domain { key archivedAt } } }"#,
            json!({}),
        )
        .await;
    assert_eq!((&found["now"]["totalCount"], &found["then"]["nodes"][0]["key"]), (&json!(0), &json!("DOMAIN-REVENUE")));
    assert_eq!(found["metric"]["domain"]["key"], "DOMAIN-REVENUE");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_write_changes_nothing() {
    let app = TestApp::start().await;
    let id = app.client(Role::Editor).await.write("createBusinessDomain", revenue()).await["id"].clone();
    let viewer = app.client(Role::Viewer).await;
    let before = app.database.contents().await;
    for (client, code) in [(&viewer, "FORBIDDEN"), (app.anonymous(), "UNAUTHENTICATED")] {
        for (field, input) in [
            ("createBusinessDomain", json!({ "key": "NEW", "name": "New" })),
            ("updateBusinessDomain", json!({ "id": id, "name": "New" })),
            ("archiveBusinessDomain", json!({ "id": id })),
        ] {
            assert_eq!(client.mutate(field, input, "").await.error_code(), Some(code), "{field}");
        }
    }
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_audited_and_owed_to_subscribers() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let id = editor.write("createBusinessDomain", revenue()).await["id"].clone();
    editor.write("updateBusinessDomain", json!({ "id": id, "name": "Income" })).await;
    editor.write("archiveBusinessDomain", json!({ "id": id })).await;
    let wanted = Some("domain.created domain.updated domain.archived");
    let audited =
        app.database.text("SELECT string_agg(action, ' ' ORDER BY id) FROM audit_log WHERE entity_kind = 'business_domain'");
    assert_eq!(audited.await.as_deref(), wanted);
    assert_eq!(app.database.text("SELECT string_agg(kind, ' ' ORDER BY id) FROM outbox").await.as_deref(), wanted);
    let query =
        "SELECT count(*) FROM audit_log WHERE entity_kind = 'business_domain' AND actor_kind = 'user' AND request_id IS NOT NULL";
    assert_eq!(app.database.number(query).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn domains_are_filtered_and_ordered() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    for (key, name, team) in [("D-3", "alpha", "One"), ("D-2", "Beta", "Two"), ("D-1", "éclair", "One"), ("D-4", "zeta", "Three")]
    {
        editor.write("createBusinessDomain", json!({ "key": key, "name": name, "ownerTeam": team })).await;
    }
    let keys = async |arguments: &str| -> Vec<String> {
        let found = editor.ask(&format!("{{ businessDomains{arguments} {{ nodes {{ key }} }} }}"), json!({})).await;
        let nodes = found["businessDomains"]["nodes"].as_array().unwrap().clone();
        nodes.iter().map(|node| node["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys("").await, ["D-3", "D-2", "D-1", "D-4"], "as people sort words");
    assert_eq!(keys("(orderBy: { field: KEY, direction: DESC })").await, ["D-4", "D-3", "D-2", "D-1"]);
    assert_eq!(keys("(orderBy: { field: UPDATED_AT })").await, ["D-3", "D-2", "D-1", "D-4"]);
    assert_eq!(keys(r#"(filter: { ownerTeam: { in: ["One"] } })"#).await, ["D-3", "D-1"]);
    assert_eq!(keys(r#"(filter: { key: { in: ["D-4", "D-9"] } })"#).await, ["D-4"]);
    assert_eq!(keys(r#"(filter: { key: { in: [] } })"#).await, [""; 0]);
    for field in ["NAME", "KEY", "UPDATED_AT"] {
        for direction in ["ASC", "DESC"] {
            let order = format!("orderBy: {{ field: {field}, direction: {direction} }}");
            crate::metric_lists::assert_walks(&editor, "businessDomains", &order, 4, 3).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_shows_what_belongs_to_it() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let mut revenue = revenue();
    revenue["keyMetricKeys"] = json!(["M-2", "MISSING", "M-0"]);
    editor.write("createBusinessDomain", revenue).await;
    for i in 0..5 {
        editor.write("createMetric", json!({ "key": format!("M-{i}"), "name": "M", "domain": "DOMAIN-REVENUE" })).await;
    }
    editor.write("createMetric", json!({ "key": "ELSEWHERE", "name": "M" })).await;
    editor.write("createObjective", json!({ "key": "O-1", "name": "Grow", "domain": "Revenue" })).await;
    let query = r#"query($after: String) { businessDomain(key: "DOMAIN-REVENUE") {
        metricCount metrics(first: 3, after: $after) { totalCount nodes { key } pageInfo { endCursor hasNextPage } }
        last: metrics(last: 2) { nodes { key } pageInfo { hasPreviousPage } }
        objectives { totalCount nodes { key } } keyMetrics { key } keyMetricKeys } }"#;
    let found = editor.ask(query, json!({})).await["businessDomain"].clone();
    assert_eq!((&found["metricCount"], &found["metrics"]["totalCount"]), (&json!(5), &json!(5)));
    assert_eq!(found["metrics"]["nodes"], json!([{ "key": "M-0" }, { "key": "M-1" }, { "key": "M-2" }]));
    assert_eq!(found["last"], json!({ "nodes": [{ "key": "M-3" }, { "key": "M-4" }], "pageInfo": { "hasPreviousPage": true } }));
    assert_eq!(found["objectives"], json!({ "totalCount": 1, "nodes": [{ "key": "O-1" }] }));
    assert_eq!(found["keyMetrics"], json!([{ "key": "M-2" }, { "key": "M-0" }]), "in the domain's own order");
    let next = editor.ask(query, json!({ "after": found["metrics"]["pageInfo"]["endCursor"] })).await["businessDomain"].clone();
    assert_eq!(next["metrics"]["nodes"], json!([{ "key": "M-3" }, { "key": "M-4" }]));
    assert_eq!(next["metrics"]["pageInfo"]["hasNextPage"], false);
}

fn revenue() -> Value {
    json!({
        "key": "DOMAIN-REVENUE", "name": "Revenue", "description": "What comes in.\nAnd when.", "ownerTeam": "Finance",
        "stakeholders": ["CFO", "Sales"], "industry": "Software", "priority": "critical", "objectiveKeys": ["OBJ-1"],
        "keyMetricKeys": ["MRR"], "extra": { "costCentre": 7, "nested": { "a": [1, null] } },
    })
}
