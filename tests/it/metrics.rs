//! A metric: its definition, whole. Its changes are in `metric_history`, lists in `metric_lists`, lineage in `metric_lineage`.

use mdl::actor::Role;
use mdl_tests::{Answer, Client, TestApp};
use serde_json::{Value, json};

/// Everything that a definition has.
pub const DEFINITION: &str = "
    shortName description category tier indicatorKind metricType status tags synonyms notes extra
    alignment { strategicPillar objectiveKeys keyResultRefs whyItMatters }
    definition {
        formula formulaDetail unit expectedDirection exampleCalculation
        numerator { eventName filters { field operator value } }
        denominator { eventName filters { field operator value } }
    }
    data {
        primarySources { system tableOrStream connectionId } secondarySources { system tableOrStream connectionId }
        freshness updateFrequency timeGrains retention
    }
    governance { dataClassification piiInvolved regulatoryConstraints ownerTeam technicalOwner businessOwner }
    dimensions { name description allowedValues required }
    targets {
        targetValue warningThreshold criticalThreshold comparisonBaseline
        alertRules { ruleId name condition severity notifyChannels evaluationWindow }
    }
    visualization { defaultChartType defaultTimeRange dashboards { tool url } drilldowns }
    relationships { upstreamKeys downstreamKeys tradeoffs }
    usage { decisionUseCases reviewCadence playbooks { name url } }
    exampleQueries { language query }";
pub const NONE: [&str; 0] = [];

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_definition_comes_back_as_it_was_sent() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    editor.write("createBusinessDomain", json!({ "key": "DOMAIN-IDENTITY", "name": "Identity" })).await;
    let mut input = whole();
    for (field, value) in [
        ("key", "METRIC-LOGIN-SUCCESS-RATE"),
        ("name", "Login success rate"),
        ("domain", "Identity"),
        ("version", "2.1"),
        ("message", "From the old wiki"),
    ] {
        input[field] = value.into();
    }
    let answer = editor.mutate("createMetric", input, &format!("metric {{ id version {DEFINITION} }}")).await;
    assert_eq!(answer.user_errors(), NONE);
    let mut created = answer.payload()["metric"].clone();
    assert_eq!(created["version"], "2.1.0");
    let id = created["id"].take();

    let query = format!(
        "query($id: ID!) {{
            metric(key: \"METRIC-LOGIN-SUCCESS-RATE\") {{ {DEFINITION} }}
            byId: metric(id: $id) {{ {DEFINITION} }}
            node(id: $id) {{ ... on Metric {{ {DEFINITION} }} }}
            then: metric(id: $id, version: \"2.1.0\") {{ {DEFINITION} }}
            listed: metrics {{ nodes {{ {DEFINITION} }} }}
            main: metric(id: $id) {{
                id key name domain {{ key }} version revision createdBy {{ name }} updatedBy {{ name }} archivedAt
                alignment {{ objectives {{ key }} }}
                versions {{ totalCount nodes {{ version revision changeTier message createdBy {{ name }} changedFields }} }}
            }} }}"
    );
    let found = app.client(Role::Viewer).await.ask(&query, json!({ "id": id })).await;
    for place in ["/metric", "/byId", "/node", "/then", "/listed/nodes/0"] {
        let metric = found.pointer(place).unwrap();
        for (field, value) in whole().as_object().unwrap() {
            assert_eq!(&metric[field], value, "{field} of {place}");
        }
        assert_eq!(metric.as_object().unwrap().len(), whole().as_object().unwrap().len(), "{place}");
    }
    let main = &found["main"];
    assert_eq!((&main["name"], &main["domain"]["key"]), (&json!("Login success rate"), &json!("DOMAIN-IDENTITY")));
    assert_eq!((&main["createdBy"]["name"], &main["updatedBy"]["name"]), (&json!("The editor"), &json!("The editor")));
    let version = &main["versions"]["nodes"][0];
    assert_eq!((&version["changeTier"], &version["message"]), (&json!("INITIAL"), &json!("From the old wiki")));
    assert_eq!((&main["versions"]["totalCount"], &version["version"]), (&json!(1), &json!("2.1.0")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metric_needs_no_more_than_a_key_and_a_name() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let answer =
        editor.mutate("createMetric", json!({ "key": "M", "name": "M" }), &format!("metric {{ version {DEFINITION} }}")).await;
    let metric = answer.payload()["metric"].clone();
    assert_eq!(
        (&metric["version"], &metric["status"], &metric["metricType"]),
        (&json!("1.0.0"), &json!("DRAFT"), &json!("SIMPLE"))
    );
    assert_eq!((&metric["description"], &metric["tags"], &metric["extra"]), (&json!(""), &json!([]), &json!({})));
    assert_eq!((&metric["definition"]["exampleCalculation"], &metric["notes"]), (&Value::Null, &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_wrong_with_a_metric_is_said_at_once() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    editor.write("createMetric", json!({ "key": "TAKEN", "name": "Taken" })).await;
    let before = app.database.contents().await;
    let attempt = async |input: Value| editor.mutate("createMetric", input, "metric { id }").await.user_errors();
    let bad = json!({
        "key": "", "name": "two\nlines", "description": "x".repeat(20_001), "message": "m".repeat(2_001), "category": "",
        "tags": ["ok", "", "x".repeat(301)], "synonyms": vec!["s"; 201], "definition": { "formula": "\u{0}", "unit": "\t" },
        "governance": { "ownerTeam": " " }, "dimensions": [{ "name": "" }],
        "relationships": { "upstreamKeys": ["a key"] }, "visualization": { "dashboards": [{ "tool": "x", "url": "javascript:alert(1)" }] },
        "usage": { "playbooks": [{ "name": "ok", "url": "https://example.com" }, { "name": "bad", "url": "/relative" }] },
    });
    let wanted = [
        "key: REQUIRED",
        "name: INVALID",
        "description: TOO_LONG",
        "definition.formula: INVALID",
        "category: REQUIRED",
        "definition.unit: REQUIRED",
        "governance.ownerTeam: REQUIRED",
        "tags.1: REQUIRED",
        "tags.2: TOO_LONG",
        "synonyms: TOO_MANY",
        "relationships.upstreamKeys.0: INVALID",
        "dimensions.0.name: REQUIRED",
        "visualization.dashboards.0.url: INVALID",
        "usage.playbooks.1.url: INVALID",
        "message: TOO_LONG",
    ];
    assert_eq!(attempt(bad).await, wanted);
    assert_eq!(attempt(json!({ "key": "M", "name": "M", "version": "two" })).await, ["version: INVALID"]);
    assert_eq!(attempt(json!({ "key": "M", "name": "M", "domain": "NONE" })).await, ["domain: NOT_FOUND"]);
    assert_eq!(attempt(json!({ "key": "TAKEN", "name": "M" })).await, ["key: TAKEN"], "the same call again");
    let of_each = json!({ "key": "TAKEN", "name": "", "domain": "NONE", "version": "two" });
    let wanted = ["name: REQUIRED", "version: INVALID", "domain: NOT_FOUND", "key: TAKEN"];
    assert_eq!(attempt(of_each).await, wanted);
    assert_eq!(attempt(json!({ "key": "M", "name": "M", "domain": "a\u{0}b" })).await, ["domain: NOT_FOUND"]);
    let blank = json!({
        "key": "M", "name": "M", "data": {
            "primarySources": [{ "system": "" }], "secondarySources": [{ "system": "s" }, { "system": " " }], "timeGrains": ["day", ""],
        },
        "definition": {
            "numerator": { "eventName": " ", "filters": [{ "field": "", "operator": "\t" }] }, "denominator": { "eventName": "" },
        },
        "governance": { "regulatoryConstraints": [""] }, "exampleQueries": [{ "query": "\n" }],
        "targets": { "alertRules": [{ "condition": "" }, { "condition": "> 1", "severity": " " }] },
        "visualization": { "dashboards": [{ "tool": "" }] }, "usage": { "playbooks": [{ "name": "" }] },
    });
    let wanted = [
        "definition.numerator.eventName: REQUIRED",
        "definition.numerator.filters.0.field: REQUIRED",
        "definition.numerator.filters.0.operator: REQUIRED",
        "definition.denominator.eventName: REQUIRED",
        "data.primarySources.0.system: REQUIRED",
        "data.secondarySources.1.system: REQUIRED",
        "data.timeGrains.1: REQUIRED",
        "governance.regulatoryConstraints.0: REQUIRED",
        "exampleQueries.0.query: REQUIRED",
        "targets.alertRules.0.condition: REQUIRED",
        "targets.alertRules.1.severity: REQUIRED",
        "visualization.dashboards.0.tool: REQUIRED",
        "usage.playbooks.0.name: REQUIRED",
    ];
    assert_eq!(attempt(blank).await, wanted);
    assert_eq!(attempt(json!({ "key": "M", "name": "M", "notes": "x".repeat(300_000) })).await, [": TOO_LONG"]);
    assert_eq!(attempt(json!({ "key": "M", "name": "M", "notes": "a\u{0}b" })).await, [": INVALID"]);
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_write_changes_nothing() {
    let app = TestApp::start().await;
    let (_, id) = with_metric(&app, json!({})).await;
    let viewer = app.client(Role::Viewer).await;
    let before = app.database.contents().await;
    for (client, code) in [(&viewer, "FORBIDDEN"), (app.anonymous(), "UNAUTHENTICATED")] {
        for (field, input) in [
            ("createMetric", json!({ "key": "NEW", "name": "New" })),
            ("updateMetric", json!({ "id": id, "name": "New" })),
            ("archiveMetric", json!({ "id": id })),
            ("restoreMetric", json!({ "id": id })),
        ] {
            assert_eq!(client.mutate(field, input, "").await.error_code(), Some(code), "{field}");
        }
    }
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_audited_and_owed_to_subscribers() {
    let app = TestApp::start().await;
    let (editor, id) = with_metric(&app, json!({})).await;
    let query = "mutation($input: UpdateMetricInput!) { updateMetric(input: $input) { userErrors { code } } }";
    let renamed = editor.send_with(query, json!({ "input": { "id": id, "name": "N" } }), &[("x-request-id", "request-7")]);
    renamed.await.data();
    let audited = app
        .database
        .text("SELECT details::text FROM audit_log WHERE action = 'metric.updated' AND request_id = 'request-7'")
        .await;
    let audited: Value = serde_json::from_str(&audited.unwrap()).unwrap();
    assert_eq!(audited, json!({ "key": "M", "version": "1.1.0", "changedFields": ["name"] }));
    editor.write("archiveMetric", json!({ "id": id })).await;
    let owed = app.database.text("SELECT string_agg(kind || ' ' || (payload->>'version'), ', ' ORDER BY id) FROM outbox").await;
    assert_eq!(owed.as_deref(), Some("metric.created 1.0.0, metric.updated 1.1.0, metric.archived 1.1.1"));
    editor.write("restoreMetric", json!({ "id": id })).await;
    let last = app.database.text("SELECT kind || ' ' || (payload->>'version') FROM outbox ORDER BY id DESC LIMIT 1").await;
    assert_eq!(last.as_deref(), Some("metric.updated 1.1.2"), "as when an import brings it back");
    assert_eq!(app.database.number("SELECT count(*) FROM audit_log WHERE action = 'metric.restored'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutation_of_several_fields_sees_what_it_wrote() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let done = editor
        .ask(
            r#"mutation {
                domain: createBusinessDomain(input: { key: "D", name: "D" }) { businessDomain { metricCount } }
                metric: createMetric(input: { key: "M", name: "M", domain: "D" }) { metric { domain { key metricCount metrics { nodes { key } } } } }
                second: createMetric(input: { key: "N", name: "N", domain: "D", relationships: { upstreamKeys: ["M"] } }) {
                    metric { upstream { nodes { key downstream { nodes { key } } } } domain { metricCount } } }
            }"#,
            json!({}),
        )
        .await;
    assert_eq!(done["domain"]["businessDomain"]["metricCount"], 0);
    assert_eq!(
        done["metric"]["metric"]["domain"],
        json!({ "key": "D", "metricCount": 1, "metrics": { "nodes": [{ "key": "M" }] } })
    );
    assert_eq!(
        done["second"]["metric"]["upstream"]["nodes"],
        json!([{ "key": "M", "downstream": { "nodes": [{ "key": "N" }] } }])
    );
    assert_eq!(done["second"]["metric"]["domain"]["metricCount"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn things_are_found_by_their_ids() {
    let app = TestApp::start().await;
    let (editor, id) = with_metric(&app, json!({})).await;
    let domain = editor.write("createBusinessDomain", json!({ "key": "D", "name": "D" })).await["id"].clone();
    let query = "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id ... on Metric { key } } }";
    let unknown = made_up_metric_id();
    let found = editor.ask(query, json!({ "ids": [domain, unknown, id, id] })).await["nodes"].clone();
    let metric = json!({ "__typename": "Metric", "id": id, "key": "M" });
    assert_eq!(found, json!([{ "__typename": "BusinessDomain", "id": domain }, null, metric, metric]));
    assert_eq!(editor.send(query, json!({ "ids": vec![&id; 101] })).await.error_code(), Some("BAD_USER_INPUT"));
    let nonsense = editor.send("{ node(id: \"nonsense\") { id } }", json!({})).await;
    assert_eq!((nonsense.error_code(), &nonsense.body["data"]["node"]), (Some("BAD_USER_INPUT"), &Value::Null));
    let nowhere = update(&editor, &json!(unknown), json!({ "name": "N" })).await;
    assert_eq!(nowhere.user_errors(), ["id: NOT_FOUND"]);
    assert_eq!(nowhere.payload()["userErrors"][0]["message"], "There is no metric with this id");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_is_counted() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    editor.write("createBusinessDomain", json!({ "key": "D", "name": "D" })).await;
    editor.write("createObjective", json!({ "key": "O", "name": "O" })).await;
    for (key, tier, category, domain) in [
        ("A", json!("TIER_1"), json!("KPI"), json!("D")),
        ("B", json!("TIER_1"), json!("KPI"), Value::Null),
        ("C", Value::Null, Value::Null, Value::Null),
    ] {
        editor
            .write("createMetric", json!({ "key": key, "name": key, "tier": tier, "category": category, "domain": domain }))
            .await;
    }
    let gone = editor.write("createMetric", json!({ "key": "GONE", "name": "Gone", "tier": "TIER_1" })).await;
    editor.write("archiveMetric", json!({ "id": gone["id"] })).await;
    let stats = editor
        .ask(
            "{ catalogStats { metricCount businessDomainCount objectiveCount byTier { tier count } byCategory { category count }
               byStatus { status count } byDomain { domain { key } count } } }",
            json!({}),
        )
        .await["catalogStats"]
        .clone();
    let wanted = json!({
        "metricCount": 3, "businessDomainCount": 1, "objectiveCount": 1,
        "byTier": [{ "tier": "TIER_1", "count": 2 }, { "tier": null, "count": 1 }],
        "byCategory": [{ "category": "KPI", "count": 2 }, { "category": null, "count": 1 }],
        "byStatus": [{ "status": "DRAFT", "count": 3 }],
        "byDomain": [{ "domain": null, "count": 2 }, { "domain": { "key": "D" }, "count": 1 }],
    });
    assert_eq!(stats, wanted);
}

/// Everything but key, name, domain and version.
pub fn whole() -> Value {
    json!({
        "shortName": "login_success_rate", "description": "Share of attempts that succeed.\nRetries count.", "category": "KPI",
        "tier": "TIER_1", "indicatorKind": "LEADING", "metricType": "RATIO", "status": "IN_REVIEW", "tags": ["security", "kpi"],
        "synonyms": ["sign-in rate", "Anmeldequote"], "notes": "Mind the bots. 漢字 🎯", "extra": { "legacyId": 17, "nested": [{ "a": null }] },
        "alignment": {
            "strategicPillar": "Trust", "objectiveKeys": ["OBJ-1"], "keyResultRefs": ["OBJ-1:KR-1"], "whyItMatters": "Locked out is lost.",
        },
        "definition": {
            "formula": "successes / attempts", "formulaDetail": "By UTC day.", "unit": "percentage", "expectedDirection": "INCREASE",
            "exampleCalculation": { "successes": 90, "attempts": 100, "result": 0.9 },
            "numerator": { "eventName": "login", "filters": [
                { "field": "result", "operator": "eq", "value": "success" }, { "field": "region", "operator": "in", "value": ["eu", "us"] },
            ] },
            "denominator": { "eventName": "login", "filters": [{ "field": "bot", "operator": "is_null", "value": null }] },
        },
        "data": {
            "primarySources": [{ "system": "warehouse", "tableOrStream": "auth.events", "connectionId": "wh-1" }],
            "secondarySources": [{ "system": "logs", "tableOrStream": null, "connectionId": null }],
            "freshness": "1_hour", "updateFrequency": "hourly", "timeGrains": ["hour", "day"], "retention": "24_months",
        },
        "governance": {
            "dataClassification": "internal", "piiInvolved": true, "regulatoryConstraints": ["GDPR"], "ownerTeam": "Identity",
            "technicalOwner": "ada@example.com", "businessOwner": "bob@example.com",
        },
        "dimensions": [
            { "name": "region", "description": "Of the user.", "allowedValues": ["eu", "us"], "required": true },
            { "name": "device", "description": null, "allowedValues": [], "required": false },
        ],
        "targets": {
            "targetValue": 0.98, "warningThreshold": 0.95, "criticalThreshold": 0.9, "comparisonBaseline": "previous_week",
            "alertRules": [{
                "ruleId": "r-1", "name": "Low", "condition": "value < warning_threshold", "severity": "warning",
                "notifyChannels": ["slack:#identity"], "evaluationWindow": "15_minutes",
            }],
        },
        "visualization": {
            "defaultChartType": "line", "defaultTimeRange": "last_30_days",
            "dashboards": [{ "tool": "Looker", "url": "https://looker.example.com/7" }, { "tool": "Wall", "url": null }], "drilldowns": ["region"],
        },
        "relationships": { "upstreamKeys": ["METRIC-LOGINS"], "downstreamKeys": ["METRIC-RETENTION"], "tradeoffs": ["fraud"] },
        "usage": {
            "decisionUseCases": ["whether to roll back"], "reviewCadence": "weekly",
            "playbooks": [{ "name": "Outage", "url": "https://wiki.example.com/outage" }],
        },
        "exampleQueries": [{ "language": "sql", "query": "SELECT 1" }],
    })
}

/// An editor, and the id of a metric `M` with this content.
pub async fn with_metric(app: &TestApp, mut content: Value) -> (Client, Value) {
    let editor = app.client(Role::Editor).await;
    content["key"] = json!("M");
    content["name"] = json!("M");
    let id = editor.write("createMetric", content).await["id"].clone();
    (editor, id)
}

pub async fn update(client: &Client, id: &Value, mut change: Value) -> Answer {
    change["id"] = id.clone();
    let selection = "metric { version revision versions(first: 1) { nodes { version changeTier changedFields message } } }";
    client.mutate("updateMetric", change, selection).await
}

fn made_up_metric_id() -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([b"m".as_slice(), &[7; 16]].concat())
}
