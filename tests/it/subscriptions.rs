//! Subscriptions over a websocket: what arrives, who may listen, and how connections end. Event streams are in `event_streams`.

use mdl::actor::Role;
use mdl::events;
use mdl::events::kinds::TENANT_RESTORED;
use mdl::events::live::Filter;
use mdl::events::payloads::TenantPayload;
use mdl_tests::socket::Socket;
use mdl_tests::{Client, TestApp, email, eventually};
use serde_json::{Value, json};

pub const CHANGES: &str = "subscription($filter: CatalogChangeFilter, $after: String) { \
     catalogChanged(filter: $filter, after: $after) { cursor sequence kind key name changedFields breaking payload } }";
pub const PROTOCOL: (&str, &str) = ("sec-websocket-protocol", "graphql-transport-ws");

/// An API with a worker, and the first event told: from then on everything is at work.
pub async fn started(settings: &[(&str, &str)]) -> (TestApp, Client) {
    let app = TestApp::start_with(settings).await;
    app.start_worker();
    let editor = app.client(Role::Editor).await;
    editor.write("createMetric", json!({ "key": "FIRST", "name": "First", "tags": ["seed"] })).await;
    told(&app, 1).await;
    (app, editor)
}

/// Waits until this many events are published.
pub async fn told(app: &TestApp, count: i64) {
    let numbered = "SELECT coalesce(max(last_sequence), 0)::bigint FROM event_streams";
    eventually("the events are published", async || (app.database.number(numbered).await >= count).then_some(())).await;
}

/// An API key of the editor, which every api process knows.
pub async fn key(client: &Client) -> String {
    let scopes = ["CATALOG_READ", "CATALOG_WRITE", "CATALOG_IMPORT"];
    let answer = client.mutate("createApiKey", json!({ "name": "key", "scopes": scopes }), "key").await;
    answer.payload()["key"].as_str().unwrap().to_owned()
}

fn change(message: &Value) -> &Value {
    assert_eq!(message["type"], "next", "{message}");
    &message["payload"]["data"]["catalogChanged"]
}

pub fn code(errors: &Value) -> &str {
    errors[0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("no code in {errors}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_arrive_as_they_happen_and_after_a_cursor() {
    let (app, editor) = started(&[]).await;
    let other = app.other_tenant().await;
    let stranger = app.client_of(&other.slug, Role::Editor).await;
    let mut socket = Socket::connect(&app.base, editor.credential.as_ref().unwrap()).await;
    let cursor = editor.ask("{ eventCursor }", json!({})).await["eventCursor"].as_str().unwrap().to_owned();
    socket.subscribe("live", CHANGES, json!({ "after": cursor })).await;
    let breaking = json!({ "filter": { "breakingOnly": true, "kinds": ["metric"] }, "after": cursor });
    socket.subscribe("breaking", CHANGES, breaking).await;

    let id = editor
        .write("createMetric", json!({ "key": "M", "name": "M", "definition": { "formula": "a" }, "tags": ["x"] }))
        .await["id"]
        .clone();
    let created = socket.next().await.unwrap();
    assert_eq!((&created["id"], &change(&created)["sequence"]), (&json!("live"), &json!(2)), "{created}");
    assert_eq!((&change(&created)["kind"], &change(&created)["key"]), (&json!("metric.created"), &json!("M")));
    stranger.write("createMetric", json!({ "key": "THEIRS", "name": "Theirs" })).await;
    editor.write("updateMetric", json!({ "id": id, "definition": { "formula": "b" } })).await;
    let mut seen = [socket.next().await.unwrap(), socket.next().await.unwrap()];
    seen.sort_by_key(|message| message["id"].to_string());
    for (message, id) in seen.iter().zip(["breaking", "live"]) {
        let change = change(message);
        assert_eq!((&message["id"], &change["kind"]), (&json!(id), &json!("metric.definition.changed")), "{message}");
        assert_eq!((&change["breaking"], &change["changedFields"]), (&json!(true), &json!(["definition.formula"])));
        assert_eq!((&change["sequence"], &change["payload"]["changeTier"]), (&json!(3), &json!("major")));
    }

    // Once more from the first: what was, and nobody else's.
    let first = change(&created)["cursor"].clone();
    socket.send(&json!({ "id": "live", "type": "complete" })).await;
    socket.send(&json!({ "id": "breaking", "type": "complete" })).await;
    socket.subscribe("again", CHANGES, json!({ "after": first })).await;
    assert_eq!(change(&socket.next().await.unwrap())["sequence"], 3);
    editor.write("archiveMetric", json!({ "id": id })).await;
    let archived = socket.next().await.unwrap();
    assert_eq!((&change(&archived)["kind"], &change(&archived)["sequence"]), (&json!("metric.archived"), &json!(4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_too_old_is_an_error() {
    let (app, editor) = started(&[]).await;
    let start = change_cursor(0);
    editor.write("createMetric", json!({ "key": "M", "name": "M" })).await;
    told(&app, 2).await;
    app.database.execute("UPDATE event_streams SET kept_from = 2; DELETE FROM outbox WHERE sequence = 1").await;
    let mut socket = Socket::connect(&app.base, editor.credential.as_ref().unwrap()).await;
    for (after, expected) in [(start, "CURSOR_TOO_OLD"), (change_cursor(9), "BAD_USER_INPUT"), ("x".to_owned(), "BAD_USER_INPUT")]
    {
        socket.subscribe("a", CHANGES, json!({ "after": after })).await;
        let refused = socket.next().await.unwrap();
        assert_eq!((&refused["type"], code(&refused["payload"])), (&json!("error"), expected), "{refused}");
        let said = refused["payload"][0]["message"].as_str().unwrap();
        assert!(!said.contains("list"), "{said}");
    }
    socket.subscribe("a", CHANGES, json!({ "after": change_cursor(1) })).await;
    assert_eq!(change(&socket.next().await.unwrap())["sequence"], 2);
}

pub fn change_cursor(sequence: i64) -> String {
    mdl::page::cursor(&json!({ "event": sequence }))
}

#[tokio::test(flavor = "multi_thread")]
async fn any_operation_runs_over_the_socket() {
    let (app, editor) = started(&[]).await;
    let mut socket = Socket::connect(&app.base, editor.credential.as_ref().unwrap()).await;
    let mut answer = async |query: &str, variables: Value| {
        socket.subscribe("1", query, variables).await;
        let answer = socket.next().await.unwrap();
        if answer["type"] == "next" {
            assert_eq!(socket.next().await.unwrap(), json!({ "id": "1", "type": "complete" }));
        }
        answer["payload"].clone()
    };
    assert_eq!(answer("{ me { role } }", json!({})).await["data"]["me"]["role"], "EDITOR");
    let create = "mutation($input: CreateMetricInput!) { createMetric(input: $input) { metric { key } userErrors { code } } }";
    let created = answer(create, json!({ "input": { "key": "M", "name": "M" } })).await;
    assert_eq!(created["data"]["createMetric"]["metric"]["key"], "M");
    assert_eq!(code(&answer("{ nothing }", json!({})).await), "GRAPHQL_VALIDATION_FAILED");
    assert_eq!(code(&answer("{ users(first: 1) { totalCount } }", json!({})).await["errors"]), "FORBIDDEN");
    let two = "subscription { a: catalogChanged { key } b: catalogChanged { key } }";
    assert_eq!(code(&answer(two, json!({})).await), "GRAPHQL_VALIDATION_FAILED");
    let unknown = answer(CHANGES, json!({ "filter": { "kinds": ["import"] } })).await;
    assert_eq!(code(&unknown), "BAD_USER_INPUT");
    assert!(unknown.to_string().contains("Those are metric, domain, objective, keyResult, tenant"), "{unknown}");
    // Plain HTTP has no place for more than one answer.
    assert_eq!(editor.send("subscription { catalogChanged { key } }", json!({})).await.error_code(), Some("NOT_ACCEPTABLE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_protocol_is_kept() {
    let app = TestApp::start_with(&[("MDL_CORS_ORIGINS", "https://app.example.com")]).await;
    let viewer = app.client(Role::Viewer).await.credential.unwrap();
    let open = async || Socket::open(&app.base, &[PROTOCOL]).await.unwrap();
    let ready = async || Socket::connect(&app.base, &viewer).await;

    for garbage in ["", "{", "[]", "{\"type\":\"unknown\"}", "{\"type\":\"subscribe\",\"payload\":{}}"] {
        let mut socket = ready().await;
        socket.send_text(garbage).await;
        assert_eq!(socket.closed().await.0, 4400, "{garbage}");
    }
    let mut socket = open().await;
    socket.subscribe("1", "{ me { role } }", json!({})).await;
    assert_eq!(socket.closed().await, (4401, "Unauthorized".to_owned()));
    for payload in [json!({}), json!({ "authorization": "Bearer a.b.c" }), json!({ "Authorization": 1 })] {
        let mut socket = open().await;
        socket.send(&json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(socket.closed().await.0, 4403, "{payload}");
    }
    let (_, impatient) = app.another_api(&[("MDL_SOCKET_INIT_SECONDS", "1")]).await;
    let mut socket = Socket::open(&impatient, &[PROTOCOL]).await.unwrap();
    assert_eq!(socket.closed().await, (4408, "Connection initialisation timeout".to_owned()));
    let mut socket = ready().await;
    for _ in 0..2 {
        socket.subscribe("same", "subscription { catalogChanged { key } }", json!({})).await;
    }
    assert_eq!(socket.closed().await, (4409, "Subscriber for same already exists".to_owned()));
    let mut socket = ready().await;
    socket.init(&viewer).await;
    assert_eq!(socket.closed().await, (4429, "Too many initialisation requests".to_owned()));
    let mut socket = ready().await;
    socket.send(&json!({ "type": "ping" })).await;
    assert_eq!(socket.next().await.unwrap(), json!({ "type": "pong" }));

    assert_eq!(Socket::open(&app.base, &[]).await.err(), Some(400), "without the subprotocol");
    for (origin, refused) in
        [("https://evil.example", Some(403)), ("null", Some(403)), ("https://app.example.com", None), (app.base.as_str(), None)]
    {
        assert_eq!(Socket::open(&app.base, &[PROTOCOL, ("origin", origin)]).await.err(), refused, "{origin}");
    }
    // Programs may send their credential with the request.
    let bearer = format!("Bearer {viewer}");
    let mut socket = Socket::open(&app.base, &[PROTOCOL, ("authorization", &bearer)]).await.unwrap();
    socket.send(&json!({ "type": "connection_init" })).await;
    assert_eq!(socket.next().await.unwrap()["type"], "connection_ack");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_is_answered() {
    let app = TestApp::start().await;
    let viewer = app.client(Role::Viewer).await.credential.unwrap();
    let mut unknown = Socket::open(&app.base, &[PROTOCOL]).await.unwrap();
    assert_eq!(unknown.close(1000, "bye").await, (1000, "bye".to_owned()));
    let mut socket = Socket::connect(&app.base, &viewer).await;
    socket.subscribe("1", "subscription { catalogChanged { key } }", json!({})).await;
    assert_eq!(socket.close(4999, "").await, (4999, String::new()));
    // What comes after a message that ends the connection does not keep the client from reading why it ended.
    let mut socket = Socket::connect(&app.base, &viewer).await;
    for _ in 0..100 {
        socket.send_text("{").await;
    }
    assert_eq!(socket.closed().await.0, 4400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_long_ends_the_connection_with_a_reason() {
    let app = TestApp::start_with(&[("MDL_MAX_BODY_BYTES", "10000")]).await;
    let viewer = app.client(Role::Viewer).await.credential.unwrap();
    let long = json!({ "type": "ping", "payload": "x".repeat(20_000) }).to_string();
    let expected = (1009, "A message has at most 10000 bytes".to_owned());
    let mut socket = Socket::open(&app.base, &[PROTOCOL]).await.unwrap();
    socket.send_text(&long).await;
    assert_eq!(socket.closed().await, expected, "before connection_init");
    let mut socket = Socket::connect(&app.base, &viewer).await;
    socket.send_text(&long).await;
    assert_eq!(socket.closed().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listens_to_an_objective_that_there_is_not() {
    let app = TestApp::start().await;
    let other = app.other_tenant().await;
    let stranger = app.client_of(&other.slug, Role::Editor).await;
    let theirs = stranger.write("createObjective", json!({ "key": "O", "name": "O" })).await["id"].clone();
    let editor = app.client(Role::Editor).await;
    let mut socket = Socket::connect(&app.base, editor.credential.as_ref().unwrap()).await;
    let query = "subscription($objective: ID!) { keyResultProgress(objective: $objective) { key } }";
    for objective in [theirs, json!("bzAwMDAwMDAwMDAwMDAwMDA")] {
        socket.subscribe("1", query, json!({ "objective": objective })).await;
        let refused = socket.next().await.unwrap();
        assert_eq!((&refused["type"], code(&refused["payload"])), (&json!("error"), "NOT_FOUND"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_result_is_in_the_domain_of_its_objective() {
    let (app, editor) = started(&[]).await;
    editor.write("createBusinessDomain", json!({ "key": "D", "name": "D" })).await;
    let objective = json!({ "key": "O", "name": "O", "domain": "D", "owner": "Dana" });
    let objective = editor.write("createObjective", objective).await["id"].clone();
    let other = editor.write("createObjective", json!({ "key": "P", "name": "P" })).await["id"].clone();
    let mut socket = Socket::connect(&app.base, editor.credential.as_ref().unwrap()).await;
    let filter = json!({ "kinds": ["keyResult"], "domains": ["D"], "owners": ["Dana"] });
    socket.subscribe("1", CHANGES, json!({ "filter": filter, "after": change_cursor(1) })).await;
    for (objective, key) in [(&other, "ELSEWHERE"), (&objective, "K")] {
        editor.write("createKeyResult", json!({ "objectiveId": objective, "key": key, "name": key })).await;
    }
    let told = socket.next().await.unwrap();
    assert_eq!((&change(&told)["key"], &change(&told)["payload"]["owner"]), (&json!("K"), &json!("Dana")), "{told}");
    assert_eq!(change(&told)["payload"]["domain"]["key"], "D");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_no_longer_listen_is_told_and_let_go() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let user = |role: Role| {
        let admin = admin.clone();
        async move {
            let users = admin.ask("{ users(first: 100) { nodes { id email } } }", json!({})).await;
            let users = users["users"]["nodes"].as_array().unwrap().clone();
            users.into_iter().find(|user| user["email"] == email(role)).unwrap()["id"].clone()
        }
    };
    let listening = async |credential: &str| {
        let mut socket = Socket::connect(&app.base, credential).await;
        socket.subscribe("1", "subscription { catalogChanged { key } }", json!({})).await;
        socket
    };
    let (editor, viewer) = (app.client(Role::Editor).await, app.client(Role::Viewer).await);
    let key = key(&editor).await;
    let mut of_key = listening(&key).await;
    let mut of_editor = listening(editor.credential.as_ref().unwrap()).await;
    let mut of_viewer = listening(viewer.credential.as_ref().unwrap()).await;
    let keys = editor.ask("{ apiKeys(first: 1) { nodes { id } } }", json!({})).await;
    editor.mutate("revokeApiKey", json!({ "id": keys["apiKeys"]["nodes"][0]["id"] }), "apiKey { id }").await.data();
    assert_eq!(of_key.closed().await, (4403, "The API key was revoked".to_owned()));
    admin.mutate("setRole", json!({ "id": user(Role::Editor).await, "role": "VIEWER" }), "user { id }").await.data();
    assert_eq!(of_editor.closed().await, (4403, "What you may do has changed; connect again".to_owned()));
    admin.mutate("suspendUser", json!({ "id": user(Role::Viewer).await }), "user { id }").await.data();
    assert_eq!(of_viewer.closed().await, (4403, "You are suspended".to_owned()));

    let mut of_key = listening(&self::key(&admin).await).await;
    app.database.execute("UPDATE api_keys SET expires_at = now()").await;
    assert_eq!(of_key.closed().await, (4403, "The API key has expired".to_owned()));
    let mut of_editor = listening(editor.credential.as_ref().unwrap()).await;
    let reset = json!({ "id": user(Role::Editor).await, "password": mdl_tests::PASSWORD });
    admin.mutate("resetPassword", reset, "").await.data();
    assert_eq!(of_editor.closed().await, (4403, "Your password was reset; sign in again".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_and_operations_are_counted() {
    let app = TestApp::start_with(&[("MDL_SOCKET_OPERATIONS", "2"), ("MDL_LIVE_CONNECTIONS_PER_USER", "1")]).await;
    let viewer = app.client(Role::Viewer).await.credential.unwrap();
    let mut socket = Socket::connect(&app.base, &viewer).await;
    for id in ["1", "2", "3"] {
        socket.subscribe(id, "subscription { catalogChanged { key } }", json!({})).await;
    }
    let refused = socket.next().await.unwrap();
    assert_eq!((&refused["id"], code(&refused["payload"])), (&json!("3"), "TOO_MANY"), "{refused}");
    let mut second = Socket::open(&app.base, &[PROTOCOL]).await.unwrap();
    second.init(&viewer).await;
    assert_eq!(second.closed().await.0, 1013);
    let editor = app.client(Role::Editor).await.credential.unwrap();
    Socket::connect(&app.base, &editor).await;
    drop(socket);
    eventually("the place is free again", async || {
        let mut socket = Socket::open(&app.base, &[PROTOCOL]).await.unwrap();
        socket.init(&viewer).await;
        socket.next().await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_subscription_has_its_permission() {
    let app = TestApp::start().await;
    let objective =
        app.client(Role::Editor).await.write("createObjective", json!({ "key": "O", "name": "O" })).await["id"].clone();
    let viewer = app.client(Role::Viewer).await;
    let fields = viewer.ask("{ __schema { subscriptionType { fields { name } } } }", json!({})).await;
    let mut names: Vec<String> = fields["__schema"]["subscriptionType"]["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| field["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["catalogChanged", "importProgress", "jobChanged", "keyResultProgress"], "each is below");
    let narrow = viewer.mutate("createApiKey", json!({ "name": "k", "scopes": ["CATALOG_READ"] }), "key").await;
    let narrow = narrow.payload()["key"].as_str().unwrap().to_owned();
    let mut socket = Socket::connect(&app.base, &narrow).await;
    let import = "subscription { importProgress(id: \"aTAwMDAwMDAwMDAwMDAwMDA\") { rowsDone } }";
    socket.subscribe("1", import, json!({})).await;
    assert_eq!(code(&socket.next().await.unwrap()["payload"]), "FORBIDDEN");
    for credential in [narrow.as_str(), app.client(Role::Editor).await.credential.as_ref().unwrap()] {
        let mut socket = Socket::connect(&app.base, credential).await;
        socket.subscribe("1", "subscription { jobChanged { job { id } } }", json!({})).await;
        assert_eq!(code(&socket.next().await.unwrap()["payload"]), "FORBIDDEN", "jobs are for operators");
    }
    let key_results = "subscription($objective: ID!) { keyResultProgress(objective: $objective) { key } }";
    socket.subscribe("2", key_results, json!({ "objective": objective })).await;
    socket.subscribe("3", "subscription { catalogChanged { key } }", json!({})).await;
    socket.send(&json!({ "type": "ping" })).await;
    assert_eq!(socket.next().await.unwrap()["type"], "pong", "these two may");
}

#[tokio::test(flavor = "multi_thread")]
async fn key_results_and_imports_tell_how_far_they_are() {
    let (app, editor) = started(&[]).await;
    let objective = editor.write("createObjective", json!({ "key": "O", "name": "O" })).await["id"].clone();
    let mut socket = Socket::connect(&app.base, editor.credential.as_ref().unwrap()).await;
    let query = "subscription($objective: ID!, $after: String) { keyResultProgress(objective: $objective, after: $after) { kind key currentValue progress } }";
    socket.subscribe("1", query, json!({ "objective": objective, "after": change_cursor(1) })).await;
    let content = json!({ "objectiveId": objective, "key": "K", "name": "K", "baselineValue": 0.0, "targetValue": 10.0 });
    let key_result = editor.write("createKeyResult", content).await["id"].clone();
    editor.write("updateKeyResult", json!({ "id": key_result, "currentValue": 5.0 })).await;
    let told = [socket.next().await.unwrap(), socket.next().await.unwrap()];
    let told = told.each_ref().map(|message| &message["payload"]["data"]["keyResultProgress"]);
    assert_eq!(told[0]["kind"], "keyResult.created");
    let expected = json!({ "kind": "keyResult.progress.changed", "key": "K", "currentValue": 5.0, "progress": 0.5 });
    assert_eq!(*told[1], expected);

    let text = json!({ "text": "{\"metrics\": [{\"metric_id\": \"I\", \"name\": \"I\"}]}", "fileName": "i.json" });
    let import = editor.mutate("importCatalog", text, "import { id }").await.payload()["import"]["id"].clone();
    socket
        .subscribe(
            "2",
            "subscription($id: ID!) { importProgress(id: $id) { state rowsDone createdCount } }",
            json!({ "id": import }),
        )
        .await;
    let mut last = Value::Null;
    loop {
        let message = socket.next().await.unwrap();
        match message["type"].as_str() {
            Some("next") if message["id"] == "2" => last = message["payload"]["data"]["importProgress"].clone(),
            Some("complete") => break,
            _ => {}
        }
    }
    assert_eq!(last, json!({ "state": "SUCCEEDED", "rowsDone": 1, "createdCount": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_told_that_the_tenant_was_restored() {
    let (app, editor) = started(&[]).await;
    let objective = editor.write("createObjective", json!({ "key": "O", "name": "O" })).await["id"].clone();
    let mut socket = Socket::connect(&app.base, editor.credential.as_ref().unwrap()).await;
    let after = change_cursor(1);
    let narrow = json!({ "kinds": ["metric"], "domains": ["NONE"], "breakingOnly": true });
    let query = CHANGES.replace("cursor sequence", "subject cursor sequence");
    socket.subscribe("narrow", &query, json!({ "filter": narrow, "after": after })).await;
    socket.subscribe("tenant", &query, json!({ "filter": { "kinds": ["tenant"] }, "after": after })).await;
    let query = "subscription($objective: ID!, $after: String) { keyResultProgress(objective: $objective, after: $after) { kind keyResult key } }";
    socket.subscribe("progress", query, json!({ "objective": objective, "after": after })).await;
    let stranger = app.client_of(&app.other_tenant().await.slug, Role::Editor).await;
    let mut other = Socket::connect(&app.base, stranger.credential.as_ref().unwrap()).await;
    other.subscribe("other", CHANGES, json!({ "after": change_cursor(0) })).await;

    editor.write("createMetric", json!({ "key": "M", "name": "M" })).await;
    let tx = app.app.db.begin(app.tenant.id).await.unwrap();
    let told = TenantPayload { id: app.tenant.id.0, backup: uuid::Uuid::nil() };
    events::push(&tx, &app.system(), TENANT_RESTORED, told.id, &told).await.unwrap();
    tx.commit().await.unwrap();
    let mut seen = [socket.next().await.unwrap(), socket.next().await.unwrap(), socket.next().await.unwrap()];
    seen.sort_by_key(|message| message["id"].to_string());
    for (message, id) in seen.iter().zip(["narrow", "progress", "tenant"]) {
        assert_eq!(message["id"], id, "{message}");
        if id == "progress" {
            let expected = json!({ "kind": "tenant.restored", "keyResult": null, "key": null });
            assert_eq!(message["payload"]["data"]["keyResultProgress"], expected);
        } else {
            let change = change(message);
            assert_eq!((&change["kind"], &change["subject"]), (&json!("tenant.restored"), &Value::Null), "{message}");
            assert_eq!(change["payload"]["id"], json!(app.tenant.id));
        }
    }
    stranger.write("createMetric", json!({ "key": "THEIRS", "name": "Theirs" })).await;
    assert_eq!(change(&other.next().await.unwrap())["key"], "THEIRS", "and nobody else");
}

/// Metrics of an import: more at once than wait for one listener.
pub const BURST: i64 = 600;

/// Imports so many metrics.
pub async fn burst(editor: &Client) {
    let tags = ["x", "y", "z"].map(|tag| tag.repeat(150));
    let metric = |i| json!({ "metric_id": format!("BURST-{i}"), "name": "B", "tags": tags });
    let metrics: Vec<Value> = (0..BURST).map(metric).collect();
    let text = json!({ "metrics": metrics }).to_string();
    editor.mutate("importCatalog", json!({ "text": text, "fileName": "burst.json" }), "import { id }").await.data();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_hears_all_of_an_import() {
    let (app, editor) = started(&[]).await;
    let mut socket = Socket::connect(&app.base, editor.credential.as_ref().unwrap()).await;
    socket.subscribe("all", CHANGES, json!({ "after": change_cursor(1) })).await;
    let narrow = json!({ "filter": { "tags": ["seed"] }, "after": change_cursor(1) });
    socket.subscribe("narrow", CHANGES, narrow).await;
    editor.write("createMetric", json!({ "key": "M", "name": "M", "tags": ["seed"] })).await;
    let mut heard = async |count: i64| {
        let (mut all, mut narrow) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let message = socket.next().await.unwrap();
            let sequence = change(&message)["sequence"].as_i64().unwrap();
            if message["id"] == "all" { all.push(sequence) } else { narrow.push(sequence) }
        }
        (all, narrow)
    };
    assert_eq!(heard(2).await, (vec![2], vec![2]), "both listen");
    burst(&editor).await;
    assert_eq!(heard(BURST).await, ((3..=BURST + 2).collect(), vec![]));
    told(&app, BURST + 3).await;
    editor.write("createMetric", json!({ "key": "AFTER", "name": "After", "tags": ["seed"] })).await;
    // Between them is the end of the import, which is no change of the catalog.
    assert_eq!(heard(2).await, (vec![BURST + 4], vec![BURST + 4]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_has_no_room_reads_what_it_missed() {
    let (app, editor) = started(&[]).await;
    let listen = async |filter: Filter| app.app.live.subscribe(app.tenant.id, filter, None).await.unwrap();
    let mut slow = listen(Filter::default()).await;
    let mut too_slow = listen(Filter::default()).await;
    let mut quick = listen(Filter { kinds: Some(vec!["import".to_owned()]), ..Filter::default() }).await;
    burst(&editor).await;
    // Told after all of its metrics.
    assert_eq!(quick.next().await.unwrap().unwrap().kind, "import.completed");
    let last = BURST + 2;
    for sequence in 2..=last {
        assert_eq!(slow.next().await.unwrap().unwrap().sequence, sequence);
    }
    editor.write("createMetric", json!({ "key": "LIVE", "name": "Live" })).await;
    assert_eq!(slow.next().await.unwrap().unwrap().sequence, last + 1, "and hears what comes");

    // One that takes its events when they are kept no longer is told so, after those that waited for it.
    let forget = "UPDATE event_streams SET kept_from = last_sequence; \
                  DELETE FROM outbox WHERE sequence < (SELECT max(last_sequence) FROM event_streams)";
    app.database.execute(forget).await;
    let mut got = Vec::new();
    let error = loop {
        match too_slow.next().await {
            Some(Ok(event)) => got.push(event.sequence),
            Some(Err(error)) => break error,
            None => panic!("it ended without a word"),
        }
    };
    assert_eq!(error.code(), "CURSOR_TOO_OLD");
    assert!(got.len() <= 256 && (2..).zip(&got).all(|(expected, got)| expected == *got), "{got:?}");
    assert!(too_slow.next().await.is_none());
}
