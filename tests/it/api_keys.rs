//! Credentials of programs.

use chrono::{TimeDelta, Utc};
use mdl::actor::Role;
use mdl_tests::{Answer, Client, TestApp, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};

const KEY: &str = "key apiKey { id name hint scopes expiresAt revokedAt lastUsedAt user { email } }";
const METRICS: &str = "{ metrics { totalCount } }";
const NONE: [&str; 0] = [];

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_once() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let answer = create(&editor, &["CATALOG_READ"]).await;
    assert_eq!(answer.user_errors(), NONE);
    let (key, row) = (text(&answer), answer.payload()["apiKey"].clone());
    assert!(key.starts_with("mdl_") && key.ends_with(row["hint"].as_str().unwrap()), "{row}");
    assert_eq!(row["user"]["email"], "editor@example.com");
    assert_eq!(row["scopes"], json!(["CATALOG_READ"]));

    for request in [editor.http.get(url(&app)).bearer_auth(&key), editor.http.get(url(&app)).header("x-api-key", &key)] {
        assert_eq!(app.anonymous().receive(request).await.data()["me"]["isApiKey"], true);
    }
    let secret = &key[key.len() - 20..];
    let stored = app.database.text("SELECT row_to_json(api_keys)::text FROM api_keys").await.unwrap();
    let logged = app.database.text("SELECT string_agg(details::text, ' ') FROM audit_log").await.unwrap();
    assert!(!stored.contains(secret) && !logged.contains(secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_limit_a_key() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let reader = admin.with(text(&create(&admin, &["CATALOG_READ"]).await));
    assert_eq!(reader.ask("{ me { permissions } }", json!({})).await["me"]["permissions"], json!(["CATALOG_READ"]));
    reader.ask(METRICS, json!({})).await;
    let before = catalog(&app).await;
    let attempts = [
        reader.mutate("createMetric", json!({ "key": "M", "name": "M" }), "").await,
        reader.send("{ users { totalCount } }", json!({})).await,
        reader.send("{ apiKeys { totalCount } }", json!({})).await,
        create(&reader, &["CATALOG_READ"]).await,
        reader.mutate("revokeAllApiKeys", json!({}), "revokedCount").await,
    ];
    for answer in attempts {
        assert_eq!(answer.error_code(), Some("FORBIDDEN"), "{}", answer.body);
    }
    let password = json!({ "currentPassword": mdl_tests::PASSWORD, "newPassword": "another password" });
    assert_eq!(reader.mutate("changePassword", password, "").await.error_code(), Some("UNAUTHENTICATED"));
    assert_eq!(catalog(&app).await, before);

    let writer = admin.with(text(&create(&admin, &["CATALOG_WRITE"]).await));
    writer.mutate("createMetric", json!({ "key": "M", "name": "M" }), "").await.data();
    assert_eq!(writer.send(METRICS, json!({})).await.error_code(), Some("FORBIDDEN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_no_more_than_its_user() {
    let app = TestApp::start().await;
    let (admin, editor) = (app.client(Role::Admin).await, app.client(Role::Editor).await);
    let before = app.database.contents().await;
    let wanted = create(&app.client(Role::Viewer).await, &["CATALOG_READ", "CATALOG_WRITE"]).await;
    assert_eq!(wanted.user_errors(), ["scopes: INVALID"]);
    assert_eq!(wanted.payload()["key"], Value::Null);
    assert_eq!(app.database.contents().await["api_keys"], before["api_keys"]);

    let program = editor.with(text(&create(&editor, &["CATALOG_WRITE"]).await));
    program.mutate("createMetric", json!({ "key": "M", "name": "M" }), "").await.data();
    let id = editor.ask("{ me { user { id } } }", json!({})).await["me"]["user"]["id"].clone();
    admin.mutate("setRole", json!({ "id": id, "role": "VIEWER" }), "").await.data();
    eventually("the key may no longer write", async || {
        let answer = program.mutate("createMetric", json!({ "key": "N", "name": "N" }), "").await;
        (answer.error_code() == Some("FORBIDDEN")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_wrong_with_a_new_key_is_said_at_once() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let before = app.database.contents().await;
    let bad = json!({ "name": " ", "scopes": [], "expiresAt": Utc::now() - TimeDelta::minutes(1) });
    let answer = editor.mutate("createApiKey", bad, KEY).await;
    assert_eq!(answer.user_errors(), ["name: REQUIRED", "scopes: REQUIRED", "expiresAt: OUT_OF_RANGE"]);
    assert_eq!(app.database.contents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_is_refused() {
    let app = TestApp::start().await;
    let viewer = app.client(Role::Viewer).await;
    let input = json!({ "name": "today", "scopes": ["CATALOG_READ"], "expiresAt": Utc::now() + TimeDelta::hours(1) });
    let program = viewer.with(text(&viewer.mutate("createApiKey", input, KEY).await));
    program.ask(METRICS, json!({})).await;
    app.database.execute("UPDATE api_keys SET expires_at = now()").await;
    refused(&program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused() {
    let app = TestApp::start().await;
    let viewer = app.client(Role::Viewer).await;
    let (answer, other) = (create(&viewer, &["CATALOG_READ"]).await, create(&viewer, &["CATALOG_READ"]).await);
    let (program, id) = (viewer.with(text(&answer)), answer.payload()["apiKey"]["id"].clone());
    program.ask(METRICS, json!({})).await;

    let stranger = app.client(Role::Editor).await;
    assert_eq!(revoke(&stranger, &id).await.user_errors(), ["id: NOT_FOUND"]);
    let made_up = {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([b"a".as_slice(), &[7; 16]].concat())
    };
    assert_eq!(revoke(&stranger, &json!(made_up)).await.user_errors(), ["id: NOT_FOUND"], "as one that does not exist");
    assert_eq!(revoke(&program, &id).await.user_errors(), ["id: NOT_FOUND"], "a key without MANAGE has no keys of its own");
    assert_eq!(app.database.number("SELECT count(*) FROM api_keys WHERE revoked_at IS NOT NULL").await, 0);

    assert!(revoke(&viewer, &id).await.payload()["apiKey"]["revokedAt"].is_string());
    refused(&program).await;
    viewer.with(text(&other)).ask(METRICS, json!({})).await;
    let before = app.database.contents().await["audit_log"].clone();
    assert_eq!(revoke(&viewer, &id).await.user_errors(), NONE, "the same call again");
    assert_eq!(app.database.contents().await["audit_log"], before);
    assert_eq!(revoke(&viewer, &json!("nonsense")).await.user_errors(), ["id: INVALID"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_keys_of_a_user_can_be_revoked_at_once() {
    let app = TestApp::start().await;
    let (viewer, admin) = (app.client(Role::Viewer).await, app.client(Role::Admin).await);
    let mine = admin.with(text(&create(&admin, &["CATALOG_READ"]).await));
    let mut programs = Vec::new();
    for _ in 0..3 {
        programs.push(viewer.with(text(&create(&viewer, &["CATALOG_READ"]).await)));
    }
    let id = viewer.ask("{ me { user { id } } }", json!({})).await["me"]["user"]["id"].clone();
    let stranger = app.client(Role::Editor).await.mutate("revokeAllApiKeys", json!({ "userId": id }), "revokedCount").await;
    assert_eq!(stranger.error_code(), Some("FORBIDDEN"));
    for count in [3, 0] {
        let answer = admin.mutate("revokeAllApiKeys", json!({ "userId": id }), "revokedCount").await;
        assert_eq!(answer.payload()["revokedCount"], count);
    }
    for program in programs {
        refused(&program).await;
    }
    mine.ask(METRICS, json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_of_a_key_is_noted() {
    let app = TestApp::start().await;
    let viewer = app.client(Role::Viewer).await;
    let answer = create(&viewer, &["CATALOG_READ"]).await;
    assert_eq!(answer.payload()["apiKey"]["lastUsedAt"], Value::Null);
    viewer.with(text(&answer)).ask(METRICS, json!({})).await;
    eventually("the use is in the list of keys", async || {
        let keys = viewer.ask("{ apiKeys { nodes { lastUsedAt } } }", json!({})).await;
        keys["apiKeys"]["nodes"][0]["lastUsedAt"].is_string().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_list_their_own_keys_and_admins_everybodys() {
    let app = TestApp::start().await;
    let (viewer, admin) = (app.client(Role::Viewer).await, app.client(Role::Admin).await);
    for _ in 0..3 {
        create(&viewer, &["CATALOG_READ"]).await;
    }
    create(&admin, &["MANAGE"]).await;
    let list = "query($everybody: Boolean!, $after: String) { apiKeys(first: 2, everybody: $everybody, after: $after) {
        totalCount nodes { id user { email } } pageInfo { endCursor hasNextPage } } }";
    let mine = viewer.ask(list, json!({ "everybody": false })).await["apiKeys"].clone();
    assert_eq!((&mine["totalCount"], &mine["pageInfo"]["hasNextPage"]), (&json!(3), &json!(true)));
    let rest = viewer.ask(list, json!({ "everybody": false, "after": mine["pageInfo"]["endCursor"] })).await["apiKeys"].clone();
    assert_eq!((rest["nodes"].as_array().unwrap().len(), &rest["pageInfo"]["hasNextPage"]), (1, &json!(false)));

    assert_eq!(viewer.send(list, json!({ "everybody": true })).await.error_code(), Some("FORBIDDEN"));
    let all = admin.ask(list, json!({ "everybody": true })).await["apiKeys"].clone();
    assert_eq!(all["totalCount"], 4);
    assert_eq!(all["nodes"][0]["user"]["email"], "admin@example.com", "newest first");
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_keys_are_refused() {
    let app = TestApp::start().await;
    let viewer = app.client(Role::Viewer).await;
    let key = text(&create(&viewer, &["CATALOG_READ"]).await);
    let last = if key.ends_with('A') { "B" } else { "A" };
    for made_up in [format!("{}{last}", &key[..key.len() - 1]), format!("{key}x"), "mdl_".to_owned(), "mdl_x".to_owned()] {
        let answer = viewer.with(&made_up).send(METRICS, json!({})).await;
        assert_eq!((answer.status, answer.error_code()), (StatusCode::UNAUTHORIZED, Some("UNAUTHENTICATED")), "{made_up}");
    }
    let both = viewer.http.get(url(&app)).bearer_auth(&key).header("x-api-key", &key);
    assert_eq!(app.anonymous().receive(both).await.status, StatusCode::UNAUTHORIZED);
}

fn url(app: &TestApp) -> String {
    format!("{}/graphql?query={{me{{isApiKey}}}}", app.base)
}

pub async fn create(client: &Client, scopes: &[&str]) -> Answer {
    client.mutate("createApiKey", json!({ "name": "notebook", "scopes": scopes }), KEY).await
}

pub async fn revoke(client: &Client, id: &Value) -> Answer {
    client.mutate("revokeApiKey", json!({ "id": id }), "apiKey { revokedAt }").await
}

/// The key that was made.
pub fn text(answer: &Answer) -> String {
    answer.payload()["key"].as_str().unwrap_or_else(|| panic!("{}", answer.body)).to_owned()
}

/// The tables without that of the keys, which notes their use.
async fn catalog(app: &TestApp) -> std::collections::BTreeMap<String, String> {
    let mut contents = app.database.contents().await;
    contents.remove("api_keys");
    contents
}

async fn refused(program: &Client) {
    eventually("the key is refused", async || {
        (program.send(METRICS, json!({})).await.status == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
}
