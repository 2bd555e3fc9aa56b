//! Objectives, the key results that measure them, and how far they have come.

use chrono::{TimeDelta, Utc};
use mdl::actor::Role;
use mdl_tests::{Client, TestApp};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn an_objective_comes_back_as_it_was_sent() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    editor.write("createBusinessDomain", json!({ "key": "DOMAIN-GROWTH", "name": "Growth" })).await;
    editor.write("createMetric", json!({ "key": "MRR", "name": "MRR" })).await;
    let id = editor.write("createObjective", growth()).await["id"].clone();
    let query = "query($id: ID!) { objective(id: $id) { key name description owner status priority pillar timeframe { start end }
        domain { key } metricKeys metrics { key } unresolvedMetricKeys extra revision progress keyResults { key } createdBy { name } } }";
    let found = app.client(Role::Viewer).await.ask(query, json!({ "id": id })).await["objective"].clone();
    let wanted = json!({
        "key": "OBJ-1", "name": "Grow", "description": "Why.", "owner": "Ada", "status": "ACTIVE", "priority": "P0",
        "pillar": "Growth", "timeframe": { "start": "2026-01-01", "end": "2026-12-31" }, "domain": { "key": "DOMAIN-GROWTH" },
        "metricKeys": ["LATER", "MRR"], "metrics": [{ "key": "MRR" }], "unresolvedMetricKeys": ["LATER"],
        "extra": { "source": "okr tool" }, "revision": 1, "progress": null, "keyResults": [],
        "createdBy": { "name": "The editor" },
    });
    assert_eq!(found, wanted);
    let by_key = editor.ask(r#"{ objective(key: "OBJ-1") { id } none: objective(key: "OBJ-2") { id } }"#, json!({})).await;
    assert_eq!(by_key, json!({ "objective": { "id": id }, "none": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_wrong_with_an_objective_is_said_at_once() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    editor.write("createObjective", json!({ "key": "OBJ-1", "name": "Grow" })).await;
    let before = app.database.contents().await;
    let attempt = async |input: Value| editor.mutate("createObjective", input, "").await.user_errors();
    let bad = json!({ "key": "", "name": "", "startsOn": "2026-02-01", "endsOn": "2026-01-01", "metricKeys": ["a b", " "] });
    let wanted = ["key: REQUIRED", "name: REQUIRED", "endsOn: OUT_OF_RANGE", "metricKeys.0: INVALID", "metricKeys.1: REQUIRED"];
    assert_eq!(attempt(bad).await, wanted);
    assert_eq!(attempt(json!({ "key": "OBJ-2", "name": "Grow", "domain": "NONE" })).await, ["domain: NOT_FOUND"]);
    assert_eq!(attempt(json!({ "key": "OBJ-1", "name": "Grow" })).await, ["key: TAKEN"]);
    let of_each = attempt(json!({ "key": "OBJ-1", "name": "", "domain": "NONE" })).await;
    assert_eq!(of_each, ["name: REQUIRED", "domain: NOT_FOUND", "key: TAKEN"]);
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_objective_is_changed_and_archived() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    editor.write("createBusinessDomain", json!({ "key": "DOMAIN-GROWTH", "name": "Growth" })).await;
    let id = editor.write("createObjective", growth()).await["id"].clone();
    let update = async |mut change: Value| {
        change["id"] = id.clone();
        editor
            .mutate("updateObjective", change, "objective { name owner status domain { key } timeframe { end } revision }")
            .await
    };
    let changed = update(json!({ "owner": null, "status": "ACHIEVED", "domain": null, "expectedVersion": 1 })).await.payload();
    let wanted = json!({
        "name": "Grow", "owner": null, "status": "ACHIEVED", "domain": null, "timeframe": { "end": "2026-12-31" }, "revision": 2,
    });
    assert_eq!(changed["objective"], wanted);
    let before = app.database.contents().await;
    assert_eq!(update(json!({ "status": "ACHIEVED" })).await.payload()["objective"]["revision"], 2, "the same call again");
    assert_eq!(update(json!({ "name": "X", "expectedVersion": 1 })).await.user_errors(), ["expectedVersion: VERSION_CONFLICT"]);
    assert_eq!(update(json!({ "endsOn": "2020-01-01" })).await.user_errors(), ["endsOn: OUT_OF_RANGE"]);
    assert_eq!(app.database.contents().await, before);

    editor.write("archiveObjective", json!({ "id": id, "expectedVersion": 2 })).await;
    let before = app.database.contents().await;
    assert_eq!(editor.write("archiveObjective", json!({ "id": id })).await["revision"], 3, "the same call again");
    assert_eq!(app.database.contents().await, before);
    let lists =
        editor.ask("{ now: objectives { totalCount } then: objectives(filter: { archived: true }) { totalCount } }", json!({}));
    assert_eq!(lists.await, json!({ "now": { "totalCount": 0 }, "then": { "totalCount": 1 } }));
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_status_are_computed() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let day = |days: i64| (Utc::now() + TimeDelta::days(days)).date_naive();
    // Half of the time has passed.
    let timeframe = json!({ "key": "OBJ", "name": "Grow", "startsOn": day(-50), "endsOn": day(49) });
    let id = editor.write("createObjective", timeframe).await["id"].clone();
    for (key, direction, values) in [
        ("A-ON-TRACK", "INCREASE", [Some(0.0), Some(100.0), Some(40.0)]),
        ("B-AT-RISK", "DECREASE", [Some(100.0), Some(0.0), Some(75.0)]),
        ("C-BEHIND", "INCREASE", [Some(0.0), Some(100.0), Some(10.0)]),
        ("D-ACHIEVED", "INCREASE", [None, Some(10.0), Some(12.0)]),
        ("E-KEPT", "MAINTAIN", [None, Some(100.0), Some(97.0)]),
        ("F-UNKNOWN", "INCREASE", [None, Some(10.0), None]),
    ] {
        let input = json!({
            "objectiveId": id, "key": key, "name": key, "direction": direction, "baselineValue": values[0],
            "targetValue": values[1], "currentValue": values[2],
        });
        editor.write("createKeyResult", input).await;
    }
    let objective = editor.ask(r#"{ objective(key: "OBJ") { progress keyResults { key progress status } } }"#, json!({})).await;
    let wanted = json!([
        { "key": "A-ON-TRACK", "progress": 0.4, "status": "ON_TRACK" },
        { "key": "B-AT-RISK", "progress": 0.25, "status": "AT_RISK" },
        { "key": "C-BEHIND", "progress": 0.1, "status": "BEHIND" },
        { "key": "D-ACHIEVED", "progress": 1.0, "status": "ACHIEVED" },
        { "key": "E-KEPT", "progress": 0.97, "status": "ACHIEVED" },
        { "key": "F-UNKNOWN", "progress": null, "status": "NOT_STARTED" },
    ]);
    assert_eq!(objective["objective"]["keyResults"], wanted);
    let mean = objective["objective"]["progress"].as_f64().unwrap();
    assert!((mean - (0.4 + 0.25 + 0.1 + 1.0 + 0.97) / 5.0).abs() < 1e-9, "{mean}");

    editor.write("updateObjective", json!({ "id": id, "endsOn": day(-1) })).await;
    let later = editor.ask(r#"{ objective(key: "OBJ") { keyResults { status } } }"#, json!({})).await;
    let statuses: Vec<_> = later["objective"]["keyResults"].as_array().unwrap().iter().map(|k| k["status"].clone()).collect();
    assert_eq!(statuses, ["MISSED", "MISSED", "MISSED", "ACHIEVED", "ACHIEVED", "MISSED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn key_results_are_linked_to_metrics() {
    let app = TestApp::start().await;
    let (editor, objective) = with_objective(&app).await;
    for key in ["M-1", "M-2"] {
        editor.write("createMetric", json!({ "key": key, "name": key })).await;
    }
    let input = json!({ "objectiveId": objective, "key": "KR", "name": "More", "metricKeys": ["M-2", "LATER", "M-1"], "extra": { "a": 1 } });
    let id = editor.write("createKeyResult", input).await["id"].clone();
    let query = r#"{ objective(key: "OBJ") { keyResults { key metricKeys metrics { key } objective { key } extra } }
        metric(key: "M-1") { keyResults { key objective { key } } } }"#;
    let found = editor.ask(query, json!({})).await;
    let wanted = json!([{
        "key": "KR", "metricKeys": ["M-2", "LATER", "M-1"], "metrics": [{ "key": "M-2" }, { "key": "M-1" }],
        "objective": { "key": "OBJ" }, "extra": { "a": 1 },
    }]);
    assert_eq!(found["objective"]["keyResults"], wanted);
    assert_eq!(found["metric"]["keyResults"], json!([{ "key": "KR", "objective": { "key": "OBJ" } }]));

    editor.write("updateKeyResult", json!({ "id": id, "metricKeys": ["LATER"] })).await;
    editor.write("createMetric", json!({ "key": "LATER", "name": "Later" })).await;
    let found = editor.ask(query, json!({})).await;
    assert_eq!(found["objective"]["keyResults"][0]["metrics"], json!([{ "key": "LATER" }]), "a reference resolves by itself");
    assert_eq!(found["metric"]["keyResults"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metric_named_twice_is_linked_once() {
    let app = TestApp::start().await;
    let (editor, objective) = with_objective(&app).await;
    let input = json!({ "objectiveId": objective, "key": "KR", "name": "More", "metricKeys": ["M", "M", "N"] });
    let id = editor.write("createKeyResult", input).await["id"].clone();
    let before = app.database.contents().await;
    let again = editor.write("updateKeyResult", json!({ "id": id, "metricKeys": ["M", "M", "N"] })).await;
    assert_eq!(again["revision"], 1, "the same call again changes nothing");
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn key_results_are_changed_and_archived() {
    let app = TestApp::start().await;
    let (editor, objective) = with_objective(&app).await;
    let new = json!({ "objectiveId": objective, "key": "KR", "name": "More", "targetValue": 10.0, "currentValue": 1.0 });
    let id = editor.write("createKeyResult", new.clone()).await["id"].clone();
    let errors = async |field: &str, input: Value| editor.mutate(field, input, "").await.user_errors();

    let before = app.database.contents().await;
    assert_eq!(errors("createKeyResult", new).await, ["key: TAKEN"]);
    let bad = json!({ "objectiveId": objective, "key": "a b", "name": "", "unit": " ", "metricKeys": ["a b"] });
    assert_eq!(
        errors("createKeyResult", bad).await,
        ["key: INVALID", "name: REQUIRED", "unit: REQUIRED", "metricKeys.0: INVALID"]
    );
    assert_eq!(errors("createKeyResult", json!({ "objectiveId": id, "key": "K", "name": "K" })).await, ["objectiveId: INVALID"]);
    let stale = json!({ "id": id, "currentValue": 2.0, "expectedVersion": 9 });
    assert_eq!(errors("updateKeyResult", stale).await, ["expectedVersion: VERSION_CONFLICT"]);
    assert_eq!(app.database.contents().await, before);

    let changed = json!({ "id": id, "currentValue": 5.0, "expectedVersion": 1 });
    let changed = editor.mutate("updateKeyResult", changed, "keyResult { progress currentValue revision }").await;
    assert_eq!(changed.payload()["keyResult"], json!({ "progress": 0.5, "currentValue": 5.0, "revision": 2 }));
    let told = app.database.text("SELECT payload->>'currentValue' FROM outbox WHERE kind = 'keyResult.progress.changed'").await;
    assert_eq!(told.as_deref(), Some("5.0"));

    editor.write("archiveKeyResult", json!({ "id": id, "expectedVersion": 2 })).await;
    let before = app.database.contents().await;
    editor.write("archiveKeyResult", json!({ "id": id })).await;
    assert_eq!(app.database.contents().await, before, "the same call again");
    let found = editor.ask(r#"{ objective(key: "OBJ") { progress keyResults { key } } }"#, json!({})).await;
    assert_eq!(found["objective"], json!({ "progress": null, "keyResults": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_write_changes_nothing() {
    let app = TestApp::start().await;
    let (editor, objective) = with_objective(&app).await;
    let new = json!({ "objectiveId": objective, "key": "KR", "name": "More" });
    let key_result = editor.write("createKeyResult", new).await["id"].clone();
    let viewer = app.client(Role::Viewer).await;
    let before = app.database.contents().await;
    for (client, code) in [(&viewer, "FORBIDDEN"), (app.anonymous(), "UNAUTHENTICATED")] {
        for (field, input) in [
            ("createObjective", json!({ "key": "NEW", "name": "New" })),
            ("updateObjective", json!({ "id": objective, "name": "New" })),
            ("archiveObjective", json!({ "id": objective })),
            ("createKeyResult", json!({ "objectiveId": objective, "key": "NEW", "name": "New" })),
            ("updateKeyResult", json!({ "id": key_result, "currentValue": 1.0 })),
            ("archiveKeyResult", json!({ "id": key_result })),
        ] {
            assert_eq!(client.mutate(field, input, "").await.error_code(), Some(code), "{field}");
        }
    }
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn objectives_are_filtered_and_ordered() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    editor.write("createBusinessDomain", json!({ "key": "D", "name": "D" })).await;
    for input in [
        json!({ "key": "O-1", "name": "same", "status": "ACTIVE", "owner": "Ada", "startsOn": "2026-01-01", "endsOn": "2026-03-31" }),
        json!({ "key": "O-2", "name": "same", "status": "DRAFT", "pillar": "Growth", "startsOn": "2026-04-01" }),
        json!({ "key": "O-3", "name": "same", "domain": "D", "endsOn": "2026-01-01" }),
        json!({ "key": "O-4", "name": "alpha" }),
    ] {
        editor.write("createObjective", input).await;
    }
    app.database.execute("UPDATE objectives SET updated_at = '2026-01-01'").await;
    for (filter, wanted) in [
        (r#"status: { in: [ACTIVE] }"#, vec!["O-1"]),
        (r#"owner: { in: ["Ada", "Bob"] }"#, vec!["O-1"]),
        (r#"pillar: { in: ["Growth"] }"#, vec!["O-2"]),
        (r#"domain: { in: ["D"] }"#, vec!["O-3"]),
        (r#"key: { in: ["O-2", "O-4"] }"#, vec!["O-2", "O-4"]),
        (r#"on: "2026-03-31""#, vec!["O-1"]),
        (r#"on: "2026-01-01""#, vec!["O-1", "O-3"]),
        (r#"on: "2026-04-01""#, vec!["O-2"]),
        (r#"on: "2025-12-31""#, vec!["O-3"]),
        (r#"status: { in: [DRAFT] }, pillar: { in: ["Growth"] }"#, vec!["O-2"]),
    ] {
        let found =
            editor.ask(&format!("{{ objectives(filter: {{ {filter} }}) {{ totalCount nodes {{ key }} }} }}"), json!({})).await;
        let keys: Vec<_> =
            found["objectives"]["nodes"].as_array().unwrap().iter().map(|node| node["key"].as_str().unwrap()).collect();
        assert_eq!(keys, wanted, "{filter}");
        assert_eq!(found["objectives"]["totalCount"], wanted.len(), "{filter}");
    }
    for field in ["KEY", "NAME", "UPDATED_AT"] {
        for direction in ["ASC", "DESC"] {
            let order = format!("orderBy: {{ field: {field}, direction: {direction} }}");
            crate::metric_lists::assert_walks(&editor, "objectives", &order, 4, 3).await;
        }
    }
}

fn growth() -> Value {
    json!({
        "key": "OBJ-1", "name": "Grow", "description": "Why.", "owner": "Ada", "status": "ACTIVE", "priority": "P0",
        "pillar": "Growth", "startsOn": "2026-01-01", "endsOn": "2026-12-31", "domain": "DOMAIN-GROWTH",
        "metricKeys": ["LATER", "MRR"], "extra": { "source": "okr tool" },
    })
}

/// An editor, and the id of an objective `OBJ`.
async fn with_objective(app: &TestApp) -> (Client, Value) {
    let editor = app.client(Role::Editor).await;
    let id = editor.write("createObjective", json!({ "key": "OBJ", "name": "Grow" })).await["id"].clone();
    (editor, id)
}
