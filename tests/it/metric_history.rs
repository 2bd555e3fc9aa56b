//! Changes of a metric, and how it was before them.

use mdl_tests::TestApp;
use serde_json::{Value, json};

use crate::metrics::{DEFINITION, NONE, update, whole, with_metric};

#[tokio::test(flavor = "multi_thread")]
async fn the_version_grows_by_what_was_touched() {
    let app = TestApp::start().await;
    let (editor, id) = with_metric(&app, whole()).await;
    editor.write("createBusinessDomain", json!({ "key": "D", "name": "D" })).await;
    let steps = [
        (json!({ "notes": "Another note" }), "1.0.1", "PATCH", json!(["notes"])),
        (json!({ "tags": ["one"], "synonyms": null }), "1.0.2", "PATCH", json!(["synonyms", "tags"])),
        (json!({ "governance": { "ownerTeam": "Others" } }), "1.0.3", "PATCH", json!(["governance.owner_team"])),
        (json!({ "name": "Renamed" }), "1.1.0", "MINOR", json!(["name"])),
        (json!({ "domain": "D" }), "1.2.0", "MINOR", json!(["domain"])),
        (json!({ "tier": null, "notes": null }), "1.3.0", "MINOR", json!(["notes", "tier"])),
        (json!({ "targets": { "targetValue": 1.0 } }), "1.3.1", "PATCH", json!(["targets.target_value"])),
        (json!({ "definition": { "formula": "b / a" } }), "2.0.0", "MAJOR", json!(["definition.formula"])),
        (json!({ "description": "New" }), "2.1.0", "MINOR", json!(["description"])),
        (json!({ "category": "Finance", "name": "Again" }), "3.0.0", "MAJOR", json!(["category", "name"])),
        (json!({ "definition": { "unit": null } }), "4.0.0", "MAJOR", json!(["definition.unit"])),
    ];
    for (revision, (change, version, tier, fields)) in steps.into_iter().enumerate() {
        let updated = update(&editor, &id, change.clone()).await;
        assert_eq!(updated.user_errors(), NONE, "{change}");
        let metric = updated.payload()["metric"].clone();
        assert_eq!((&metric["version"], &metric["revision"]), (&json!(version), &json!(revision + 2)), "{change}");
        let latest = &metric["versions"]["nodes"][0];
        let mut changed: Vec<String> = serde_json::from_value(latest["changedFields"].clone()).unwrap();
        changed.sort();
        assert_eq!((&latest["changeTier"], &latest["version"]), (&json!(tier), &json!(version)), "{change}");
        assert_eq!(json!(changed), fields, "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_changes_what_it_names() {
    let app = TestApp::start().await;
    let (editor, id) = with_metric(&app, whole()).await;
    let change = json!({
        "id": id, "definition": { "formulaDetail": null, "unit": "share" }, "governance": null, "dimensions": [],
        "targets": { "warningThreshold": null }, "extra": { "only": 1 },
    });
    let answer = editor.mutate("updateMetric", change, &format!("metric {{ {DEFINITION} }}")).await;
    let mut wanted = whole();
    wanted["definition"]["formulaDetail"] = Value::Null;
    wanted["definition"]["unit"] = json!("share");
    wanted["dimensions"] = json!([]);
    wanted["targets"]["warningThreshold"] = Value::Null;
    wanted["extra"] = json!({ "only": 1 });
    wanted["governance"] = json!({
        "dataClassification": null, "piiInvolved": false, "regulatoryConstraints": [], "ownerTeam": null, "technicalOwner": null,
        "businessOwner": null,
    });
    assert_eq!(answer.payload()["metric"], wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_nothing_writes_nothing() {
    let app = TestApp::start().await;
    let (editor, id) = with_metric(&app, whole()).await;
    let before = app.database.contents().await;
    let mut same = whole();
    same["name"] = json!("M");
    same["message"] = json!("Nothing new");
    for change in [same, json!({}), json!({ "definition": {} }), json!({ "tags": ["security", "kpi"], "expectedVersion": 1 })] {
        let answer = update(&editor, &id, change).await;
        assert_eq!((answer.user_errors(), &answer.payload()["metric"]["revision"]), (vec![], &json!(1)));
    }
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_update_writes_nothing() {
    let app = TestApp::start().await;
    let (editor, id) = with_metric(&app, whole()).await;
    let domain = editor.write("createBusinessDomain", json!({ "key": "D", "name": "D" })).await["id"].clone();
    let before = app.database.contents().await;
    for (change, errors) in [
        (json!({ "name": null }), vec!["name: REQUIRED"]),
        (json!({ "name": "N", "domain": "NONE" }), vec!["domain: NOT_FOUND"]),
        (json!({ "name": "N", "tags": [""] }), vec!["tags.0: REQUIRED"]),
        (json!({ "name": "N", "expectedVersion": 7 }), vec!["expectedVersion: VERSION_CONFLICT"]),
        (json!({ "name": "N", "expectedVersion": 0 }), vec!["expectedVersion: VERSION_CONFLICT"]),
        (json!({ "name": "N", "message": "x".repeat(2_001) }), vec!["message: TOO_LONG"]),
    ] {
        assert_eq!(update(&editor, &id, change.clone()).await.user_errors(), errors, "{change}");
    }
    assert_eq!(update(&editor, &domain, json!({ "name": "N" })).await.user_errors(), ["id: INVALID"]);
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_on_the_same_revision_one_wins() {
    let app = TestApp::start().await;
    let (editor, id) = with_metric(&app, json!({})).await;
    let change = |name: &str| json!({ "name": name, "expectedVersion": 1 });
    let (one, other) = tokio::join!(update(&editor, &id, change("One")), update(&editor, &id, change("Other")));
    let mut errors = [one.user_errors(), other.user_errors()];
    errors.sort();
    assert_eq!(errors, [vec![], vec!["expectedVersion: VERSION_CONFLICT".to_owned()]]);
    assert_eq!(app.database.number("SELECT count(*) FROM metric_versions").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metric_is_shown_as_it_was() {
    let app = TestApp::start().await;
    let (editor, id) = with_metric(&app, whole()).await;
    update(&editor, &id, json!({ "name": "Second", "message": "A better name", "definition": { "formula": "b" } })).await.data();
    update(&editor, &id, json!({ "notes": null, "targets": null })).await.data();
    let query = format!(
        "query($v: String!) {{ metric(key: \"M\", version: $v) {{ name version revision updatedBy {{ email }} {DEFINITION} }} }}"
    );
    let then = async |version: &str| editor.ask(&query, json!({ "v": version })).await["metric"].clone();
    let first = then("1").await;
    for (field, value) in whole().as_object().unwrap() {
        assert_eq!(&first[field], value, "{field}");
    }
    let second = then("2.0.0").await;
    assert_eq!((&second["name"], &second["revision"], &second["notes"]), (&json!("Second"), &json!(2), &whole()["notes"]));
    assert_eq!(then("2.0.1").await["notes"], Value::Null);

    for (version, code) in [("3.0.0", "BAD_USER_INPUT"), ("x", "BAD_USER_INPUT")] {
        assert_eq!(editor.send(&query, json!({ "v": version })).await.error_code(), Some(code), "{version}");
    }
    let history = editor
        .ask(
            r#"{ metric(key: "M") { versions(first: 2) { totalCount nodes { version message metric { name notes } } pageInfo { endCursor hasNextPage } } } }"#,
            json!({}),
        )
        .await["metric"]["versions"]
        .clone();
    assert_eq!((&history["totalCount"], &history["pageInfo"]["hasNextPage"]), (&json!(3), &json!(true)));
    assert_eq!(history["nodes"][1]["message"], "A better name");
    assert_eq!(history["nodes"][1]["metric"], json!({ "name": "Second", "notes": whole()["notes"] }));
    crate::metric_lists::assert_walks_nested(&editor, r#"metric(key: "M")"#, "versions", "version", 3, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_metric_keeps_its_key_and_its_history() {
    let app = TestApp::start().await;
    let (editor, id) = with_metric(&app, json!({ "status": "ACTIVE" })).await;
    let archive =
        async |input: Value| editor.mutate("archiveMetric", input, "metric { status archivedAt revision version }").await;
    let before = app.database.contents().await;
    let conflict = archive(json!({ "id": id, "expectedVersion": 2 })).await;
    assert_eq!(conflict.user_errors(), ["expectedVersion: VERSION_CONFLICT"]);
    assert_eq!(app.database.contents().await, before);

    let archived = archive(json!({ "id": id, "expectedVersion": 1 })).await.payload();
    assert_eq!((&archived["metric"]["status"], &archived["metric"]["revision"]), (&json!("REMOVED"), &json!(2)));
    let before = app.database.contents().await;
    assert_eq!(archive(json!({ "id": id })).await.payload(), archived, "the same call again");
    let taken = editor.mutate("createMetric", json!({ "key": "M", "name": "M" }), "").await;
    assert_eq!(taken.user_errors(), ["key: TAKEN"]);
    let message = "There is a metric \"M\" already: it is archived, and can be restored";
    assert_eq!(taken.payload()["userErrors"][0]["message"], message);
    assert_eq!(app.database.contents().await, before);
    let found = editor
        .ask(
            r#"{ metrics { totalCount } old: metrics(filter: { archived: true }) { nodes { key } }
                 both: metrics(filter: { or: [{ archived: true }, { archived: false }] }) { totalCount }
                 metric(key: "M") { status archivedAt versions { totalCount } }
                 was: metric(key: "M", version: "1.0.0") { status archivedAt } }"#,
            json!({}),
        )
        .await;
    assert_eq!((&found["metrics"]["totalCount"], &found["both"]["totalCount"]), (&json!(0), &json!(1)));
    assert_eq!(found["old"]["nodes"], json!([{ "key": "M" }]));
    assert_eq!(found["metric"]["versions"]["totalCount"], 2);
    assert_eq!(found["was"], json!({ "status": "ACTIVE", "archivedAt": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_metric_is_restored_as_it_was() {
    let app = TestApp::start().await;
    let (editor, id) = with_metric(&app, json!({ "status": "ACTIVE" })).await;
    let restore =
        async |input: Value| editor.mutate("restoreMetric", input, "metric { status archivedAt revision version }").await;
    let before = app.database.contents().await;
    assert_eq!(restore(json!({ "id": id })).await.payload()["metric"]["revision"], 1, "it is not archived");
    assert_eq!(app.database.contents().await, before);
    editor.write("archiveMetric", json!({ "id": id })).await;

    let before = app.database.contents().await;
    let refused = update(&editor, &id, json!({ "status": "DRAFT" })).await;
    assert_eq!(refused.user_errors(), ["status: INVALID"]);
    assert_eq!(refused.payload()["userErrors"][0]["message"], "The metric is archived: restore it first");
    for (expected, message) in [
        (1, "The metric has changed since revision 1: it is at 2 now. Read it again and repeat your change"),
        (3, "There is no revision 3 of the metric yet: it is at 2"),
        (0, "There is no revision 0 of the metric: it is at 2"),
    ] {
        let conflict = restore(json!({ "id": id, "expectedVersion": expected })).await;
        assert_eq!(conflict.user_errors(), ["expectedVersion: VERSION_CONFLICT"]);
        assert_eq!(conflict.payload()["userErrors"][0]["message"], message);
    }
    assert_eq!(app.database.contents().await, before);

    assert_eq!(update(&editor, &id, json!({ "notes": "why" })).await.user_errors(), [""; 0]);
    let restored = restore(json!({ "id": id, "expectedVersion": 3 })).await.payload();
    let wanted = json!({ "status": "ACTIVE", "archivedAt": null, "revision": 4, "version": "1.0.3" });
    assert_eq!(restored["metric"], wanted);
    let before = app.database.contents().await;
    assert_eq!(restore(json!({ "id": id })).await.payload(), restored, "the same call again");
    assert_eq!(app.database.contents().await, before);
    let found = editor
        .ask(
            r#"{ metrics { nodes { key } } metric(key: "M") { versions(first: 1) { nodes { message changedFields changeTier } } } }"#,
            json!({}),
        )
        .await;
    assert_eq!(found["metrics"]["nodes"], json!([{ "key": "M" }]));
    let wanted = json!([{ "message": "Restored", "changedFields": ["status"], "changeTier": "PATCH" }]);
    assert_eq!(found["metric"]["versions"]["nodes"], wanted);

    // One that was never anything else begins anew.
    let gone = editor.write("createMetric", json!({ "key": "GONE", "name": "Gone", "status": "REMOVED" })).await["id"].clone();
    editor.write("archiveMetric", json!({ "id": gone })).await;
    assert_eq!(restore(json!({ "id": gone })).await.payload()["metric"]["status"], "DRAFT");
}
