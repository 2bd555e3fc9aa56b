//! Documents by hash and by id: what is found, for whom, and for how long.

use std::time::{Duration, Instant};

use mdl::actor::Role;
use mdl::documents::{self, ALL_TENANTS, NewDocument, sha256};
use mdl::{Actor, App};
use mdl_tests::{Answer, Client, TestApp, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::cache::{source, started};
use crate::cache_repeats::repeat;
use crate::hearing::undisturbed;

const TEXT: &str = "query Role { me { role } }";

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_hash_is_enough() {
    let app = TestApp::start().await;
    connected(&app.app).await;
    app.other_tenant().await;
    let viewer = app.client(Role::Viewer).await;
    for accept in ["application/graphql-response+json", "application/json"] {
        let unknown = viewer.receive(post(&viewer, &by_hash(TEXT, false)).header("accept", accept)).await;
        assert_eq!((unknown.status, unknown.error_code()), (StatusCode::OK, Some("PERSISTED_QUERY_NOT_FOUND")), "{accept}");
        assert_eq!(unknown.body["errors"][0]["message"], "PersistedQueryNotFound");
    }
    assert_eq!(viewer.post(&by_hash(TEXT, true)).await.data()["me"]["role"], "VIEWER");
    assert_eq!(viewer.post(&by_hash(TEXT, false)).await.data()["me"]["role"], "VIEWER");
    let extensions = by_hash(TEXT, false)["extensions"].to_string();
    let address = url::Url::parse_with_params(&format!("{}/graphql", app.base), [("extensions", extensions)]).unwrap();
    assert_eq!(viewer.receive(viewer.http.get(address)).await.data()["me"]["role"], "VIEWER");
    // Another user of the tenant, another instance; not another tenant, though it shares the parsed form.
    assert_eq!(app.client(Role::Admin).await.post(&by_hash(TEXT, false)).await.data()["me"]["role"], "ADMIN");
    let elsewhere = connected_instance(&app, &[]).await.with(viewer.credential.clone().unwrap());
    assert_eq!(elsewhere.post(&by_hash(TEXT, false)).await.data()["me"]["role"], "VIEWER");
    let stranger = app.client_of("globex", Role::Viewer).await;
    assert_eq!(stranger.post(&by_hash(TEXT, false)).await.error_code(), Some("PERSISTED_QUERY_NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_hashes_to_it_is_registered_and_only_by_the_known() {
    let app = TestApp::start().await;
    let viewer = app.client(Role::Viewer).await;
    let mut wrong = by_hash(TEXT, true);
    wrong["query"] = json!("{ me { role isApiKey } }");
    let answer = viewer.post(&wrong).await;
    assert_eq!(answer.error_code(), Some("PERSISTED_QUERY_HASH_MISMATCH"), "{}", answer.body);
    let public = "{ __typename }";
    assert_eq!(app.anonymous().post(&by_hash(public, true)).await.data()["__typename"], "Query");
    for client in [app.anonymous(), &viewer] {
        assert_eq!(client.post(&by_hash(public, false)).await.error_code(), Some("PERSISTED_QUERY_NOT_FOUND"));
    }
    // What cannot be parsed is not registered either.
    assert_eq!(viewer.post(&by_hash("{ me", true)).await.error_code(), Some("GRAPHQL_PARSE_FAILED"));
    assert_eq!(viewer.post(&by_hash("{ me", false)).await.error_code(), Some("PERSISTED_QUERY_NOT_FOUND"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_registers_so_many() {
    let settings = [("MDL_APQ_MAX_DOCUMENTS", "3"), ("MDL_APQ_MAX_BYTES", "100"), ("MDL_APQ_TTL_SECONDS", "1")];
    let app = TestApp::start_with(&settings[..2]).await;
    connected(&app.app).await;
    let viewer = app.client(Role::Viewer).await;
    let text = |i: usize| format!("query Q{i} {{ me {{ role }} }}");
    for i in 0..5 {
        viewer.post(&by_hash(&text(i), true)).await.data();
    }
    // A fresh instance has nothing in memory.
    let elsewhere = connected_instance(&app, &[]).await.with(viewer.credential.clone().unwrap());
    let mut found = 0;
    for i in 0..5 {
        found += usize::from(elsewhere.post(&by_hash(&text(i), false)).await.error_code().is_none());
    }
    assert_eq!(found, 3);
    let long = format!("{{ me {{ role }} }} # {}", "x".repeat(100));
    viewer.post(&by_hash(&long, true)).await.data();
    assert_eq!(viewer.post(&by_hash(&long, false)).await.error_code(), Some("PERSISTED_QUERY_NOT_FOUND"));

    let forgetful = connected_instance(&app, &settings).await.with(viewer.credential.clone().unwrap());
    forgetful.post(&by_hash("{ me { isApiKey } }", true)).await.data();
    eventually("the text is forgotten", async || {
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let answer = forgetful.post(&by_hash("{ me { isApiKey } }", false)).await;
        (answer.error_code() == Some("PERSISTED_QUERY_NOT_FOUND")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_registers_so_many_bytes() {
    let app = TestApp::start_with(&[("MDL_APQ_MAX_TENANT_BYTES", "1000")]).await;
    let credential = app.client(Role::Viewer).await.credential.unwrap();
    // A fresh instance has nothing in memory.
    let fresh = async || connected_instance(&app, &[]).await.with(credential.clone());
    let text = |i: usize| format!("query Q{i} {{ me {{ role }} }} # {}", "x".repeat(370));
    let found = async || {
        let (mut found, instance) = (0, fresh().await);
        for i in 0..5 {
            found += usize::from(instance.post(&by_hash(&text(i), false)).await.error_code().is_none());
        }
        found
    };
    // Each text has some 400 bytes, however often it is registered.
    for i in [0, 0, 0, 1] {
        fresh().await.post(&by_hash(&text(i), true)).await.data();
    }
    assert_eq!(found().await, 2);
    let viewer = fresh().await;
    for i in 2..5 {
        viewer.post(&by_hash(&text(i), true)).await.data();
    }
    assert_eq!(found().await, 2);
    // What would leave no room for any is not registered.
    let long = format!("{{ me {{ role }} }} # {}", "x".repeat(1_000));
    viewer.post(&by_hash(&long, true)).await.data();
    assert_eq!(viewer.post(&by_hash(&long, false)).await.error_code(), Some("PERSISTED_QUERY_NOT_FOUND"));
    assert_eq!(found().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_text_still_works() {
    let app = TestApp::start_with(&[("REDIS_URL", "redis://127.0.0.1:1/0")]).await;
    let viewer = app.client(Role::Viewer).await;
    assert_eq!(viewer.post(&by_hash(TEXT, false)).await.error_code(), Some("PERSISTED_QUERY_NOT_FOUND"));
    for with_text in [true, false, true] {
        assert_eq!(viewer.post(&by_hash(TEXT, with_text)).await.data()["me"]["role"], "VIEWER");
    }
    // An instance that was told nothing asks for the text.
    let elsewhere = app.instance(&[]).await.with(viewer.credential.clone().unwrap());
    assert_eq!(elsewhere.post(&by_hash(TEXT, false)).await.error_code(), Some("PERSISTED_QUERY_NOT_FOUND"));
    elsewhere.ask(TEXT, json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_document_runs_by_its_id() {
    let app = TestApp::start().await;
    app.other_tenant().await;
    let (admin, viewer) = (app.client(Role::Admin).await, app.client(Role::Viewer).await);
    let elsewhere = app.instance(&[]).await.with(viewer.credential.clone().unwrap());
    let ask = json!({ "documentId": "me-1" });
    assert_eq!(elsewhere.post(&ask).await.error_code(), Some("DOCUMENT_NOT_FOUND"), "and that is remembered");
    let published = publish(&admin, &json!({ "me-1": TEXT }).to_string()).await;
    assert_eq!(published.user_errors(), [""; 0]);
    assert_eq!(published.payload()["documents"][0]["version"], 1);
    assert_eq!(published.payload()["documents"][0]["publishedBy"]["email"], "admin@example.com");
    eventually("both instances run it", async || {
        let both = [viewer.post(&ask).await, elsewhere.post(&ask).await];
        both.iter().all(|answer| answer.error_code().is_none()).then_some(())
    })
    .await;
    // By every name it has; with variables, a GET, a batch.
    let hash = data_encoding::HEXLOWER.encode(&sha256(TEXT));
    for name in ["me-1", &hash, &format!("sha256:{hash}")] {
        let get = viewer.get(&format!("/graphql?documentId={name}&variables={{}}")).await;
        assert_eq!(get.data()["me"]["role"], "VIEWER", "{name}");
    }
    assert_eq!(viewer.post(&by_hash(TEXT, false)).await.data()["me"]["role"], "VIEWER");
    let batch = viewer.post(&json!([ask, { "documentId": "none" }])).await.body;
    assert_eq!(
        (&batch[0]["data"]["me"]["role"], &batch[1]["errors"][0]["extensions"]["code"]),
        (&json!("VIEWER"), &json!("DOCUMENT_NOT_FOUND"))
    );
    let stranger = app.client_of("globex", Role::Admin).await;
    assert_eq!(stranger.post(&ask).await.error_code(), Some("DOCUMENT_NOT_FOUND"));

    let id = published.payload()["documents"][0]["id"].clone();
    let withdraw =
        async |client: &Client| client.mutate("withdrawDocument", json!({ "id": id }), "document { withdrawnAt }").await;
    assert_eq!(withdraw(&stranger).await.user_errors(), ["id: NOT_FOUND"]);
    assert!(withdraw(&admin).await.payload()["document"]["withdrawnAt"].is_string());
    let withdrawn = Instant::now();
    eventually("no instance runs it", async || {
        let asked = withdrawn.elapsed();
        let both = [viewer.post(&ask).await, elsewhere.post(&ask).await];
        let refused = both.iter().all(|answer| answer.error_code() == Some("DOCUMENT_NOT_FOUND"));
        assert!(refused || asked < Duration::from_secs(2), "still run {asked:?} after");
        refused.then_some(())
    })
    .await;
    assert_eq!(withdraw(&admin).await.user_errors(), [""; 0], "the same call again");
    let actions = "SELECT string_agg(action, ' ' ORDER BY id) FROM audit_log WHERE entity_kind = 'document'";
    assert_eq!(app.database.text(actions).await.as_deref(), Some("documents.published document.withdrawn"));
    assert_eq!(publish(&admin, &json!({ "me-1": TEXT }).to_string()).await.payload()["documents"][0]["withdrawnAt"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_publishes_says_how_answers_are_kept() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let manifest = json!({ "counted": "query Counted { catalogStats { metricCount } }" }).to_string();
    let publish = async |caching: Value| {
        let input = json!({ "manifest": manifest, "caching": caching });
        admin.mutate("publishDocuments", input, "documents { cacheSeconds public }").await
    };
    // Within a second every process knows what was published.
    let answered = async |cache_control: &str, x_cache: &str| {
        eventually("the document is answered as was said", async || {
            let answer = admin.get("/graphql?documentId=counted").await;
            let as_said = answer.header("cache-control") == Some(cache_control) && answer.header("x-cache") == Some(x_cache);
            as_said.then_some(())
        })
        .await;
    };
    let first = publish(Value::Null).await.payload();
    assert_eq!(first["documents"], json!([{ "cacheSeconds": null, "public": false }]));
    answered("private, no-cache", "HIT").await;
    let public = publish(json!({ "cacheSeconds": 60, "public": true })).await.payload();
    assert_eq!(public["documents"], json!([{ "cacheSeconds": 60, "public": true }]));
    answered("public, max-age=60", "HIT").await;
    assert_eq!(publish(Value::Null).await.payload(), public, "as before");
    assert_eq!(publish(json!({ "cacheSeconds": 0 })).await.user_errors(), [""; 0]);
    answered("no-store", "BYPASS").await;
    for wrong in [-1, 86_401] {
        assert_eq!(publish(json!({ "cacheSeconds": wrong })).await.user_errors(), ["caching.cacheSeconds: OUT_OF_RANGE"]);
    }
    let changes = "SELECT count(*) FROM audit_log WHERE action = 'documents.caching_changed'";
    assert_eq!(app.database.number(changes).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_hash_becomes_that_of_a_publication() {
    let app = started(&[]).await;
    let admin = app.client(Role::Admin).await;
    let text = "query Counted { catalogStats { metricCount } }";
    let extensions = by_hash(text, false)["extensions"].to_string();
    let address = url::Url::parse_with_params(&format!("{}/graphql", app.base), [("extensions", extensions)]).unwrap();
    let ask = async |how: &str| match how {
        "GET" => admin.receive(admin.http.get(address.clone())).await,
        "hash" => admin.post(&by_hash(text, false)).await,
        _ => admin.post(&by_hash(text, true)).await,
    };
    let soon = async |how: &str, cache_control: &str, x_cache: &str| {
        let since = Instant::now();
        eventually("it is answered as was said", async || {
            let asked = since.elapsed();
            let answer = ask(how).await;
            let as_said = answer.header("cache-control") == Some(cache_control);
            assert!(as_said || asked < Duration::from_secs(2), "{how}: not yet {asked:?} after");
            (as_said && source(&answer) == x_cache).then_some(())
        })
        .await;
    };
    // Registered, and known by its bytes.
    for how in ["hash and text", "GET", "hash"] {
        repeat(&app.app, app.tenant.id, async || ask(how).await).await.data();
    }
    let publish = async |caching: Value| {
        let input = json!({ "manifest": json!({ "counted": text }).to_string(), "caching": caching });
        admin.mutate("publishDocuments", input, "documents { id }").await.payload()["documents"][0]["id"].clone()
    };
    publish(json!({ "cacheSeconds": 60, "public": true })).await;
    soon("GET", "public, max-age=60", "HIT").await;
    let id = publish(json!({ "cacheSeconds": 0 })).await;
    for how in ["GET", "hash", "hash and text"] {
        soon(how, "no-store", "BYPASS").await;
    }
    eventually("uses are counted", async || (app.database.number("SELECT use_count FROM documents").await > 0).then_some(()))
        .await;
    // A text alone is nobody's publication for those who may send any.
    let by_text = undisturbed(&app.app, app.tenant.id, async || {
        admin.ask(text, json!({})).await;
        admin.send(text, json!({})).await
    })
    .await;
    assert_eq!(source(&by_text), "HIT");
    // Withdrawn, it is what was registered again.
    admin.mutate("withdrawDocument", json!({ "id": id }), "document { id }").await.data();
    soon("GET", "private, no-cache", "HIT").await;
    soon("hash", "no-store", "HIT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_published_whole_or_not_at_all() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let before = app.database.contents().await;
    let bad = json!({
        "good": TEXT,
        "typo": "query Typo {\n  metrics { totl }\n}",
        "broken": "query Broken { me",
        "h1": "query Twice { nobody }",
        "h2": "query Twice { nothing }",
        "costly": "{ metrics(first: 100) { nodes { upstream(first: 100) { nodes { upstream(first: 100) { nodes { key } } } } } } }",
    });
    let answer = publish(&admin, &bad.to_string()).await;
    assert_eq!(answer.payload()["documents"], Value::Null);
    let messages = answer.payload()["userErrors"].to_string();
    for wanted in
        ["\"Typo, line 2, column 13: Unknown field", "\"Broken, line 1", "\"Twice (h1), line 1", "\"Twice (h2), ", "\"costly"]
    {
        assert!(messages.contains(wanted), "{wanted}: {messages}");
    }
    assert!(!messages.contains("good") && !messages.contains("Role"), "{messages}");
    for (manifest, code) in [("", "INVALID"), ("{}", "REQUIRED"), ("[1]", "INVALID"), ("{ \"a\": ", "INVALID")] {
        assert_eq!(publish(&admin, manifest).await.user_errors(), [format!("manifest: {code}")], "{manifest}");
    }
    let two_texts = r#"{ "a": "{ me { role } }", "b": "{ __typename }", "a": "{ me { isApiKey } }" }"#;
    assert_eq!(publish(&admin, two_texts).await.user_errors(), ["manifest: TAKEN"]);
    assert_eq!(app.database.contents().await, before);

    // Documents whose variables decide on cost or are required can be published.
    let variables = "query Q($first: Int!, $ids: [ID!]!, $input: MetricFilter!) {
        metrics(first: $first, filter: $input) { totalCount } nodes(ids: $ids) { id } }";
    assert_eq!(publish(&admin, variables).await.user_errors(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_have_the_types_of_their_places() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let before = app.database.contents().await;
    for (text, variable, declared, expected) in [
        ("query($n: Int!) { metric(key: $n) { key } }", "n", "Int!", "String"),
        ("query($id: String) { metric(id: $id) { key } }", "id", "String", "ID"),
        ("query($ids: [ID!]) { nodes(ids: $ids) { id } }", "ids", "[ID!]", "[ID!]!"),
        ("query($ids: [ID!] = null) { nodes(ids: $ids) { id } }", "ids", "[ID!]", "[ID!]!"),
        ("query($ids: [ID]!) { nodes(ids: $ids) { id } }", "ids", "[ID]!", "[ID!]!"),
        ("query($yes: Boolean) { me { role @include(if: $yes) } }", "yes", "Boolean", "Boolean!"),
        ("query($key: String) { metrics(filter: { key: { in: [$key] } }) { totalCount } }", "key", "String", "String!"),
        ("query($key: String!) { metrics(filter: { key: { in: $key } }) { totalCount } }", "key", "String!", "[String!]!"),
        (
            "query($x: Boolean) { ...A } fragment A on Query { ...B } fragment B on Query { metric(key: $x) { key } }",
            "x",
            "Boolean",
            "String",
        ),
    ] {
        let answer = publish(&admin, text).await;
        assert_eq!(answer.user_errors(), ["manifest: INVALID"], "{text}");
        let message = answer.payload()["userErrors"][0]["message"].as_str().unwrap().to_owned();
        let wanted = format!(
            r#", line 1, column 7: Variable "${variable}" of type "{declared}" used in position expecting type "{expected}"."#
        );
        assert!(message.ends_with(&wanted), "{text}: {message}");
    }
    assert_eq!(app.database.contents().await, before);

    for text in [
        "query($key: String!, $id: ID) { metric(key: $key, id: $id) { key } }",
        // A default, of the variable or of the argument, stands in for null.
        "query($ids: [ID!] = []) { nodes(ids: $ids) { id } }",
        "query($minutes: Int) { queues(minutes: $minutes) { name } }",
        "query($keys: [String!]!) { metrics(filter: { key: { in: $keys } }) { totalCount } }",
        "query($key: String!) { metrics(filter: { key: { in: [$key] } }) { totalCount } }",
        // What stands in a scalar has no type.
        r#"mutation($x: Int) { createMetric(input: { key: "M", name: "M", extra: { x: $x } }) { metric { key } } }"#,
        // A fragment counts for the operations that spread it.
        "query A($x: String) { ...F } query B($x: ID) { metric(id: $x) { key } } fragment F on Query { metric(key: $x) { key } }",
    ] {
        assert_eq!(publish(&admin, text).await.user_errors(), [""; 0], "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_grow_and_an_id_keeps_its_text() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let versions = async |manifest: Value| -> Vec<Value> {
        let answer = publish(&admin, &manifest.to_string()).await;
        let documents = answer.payload()["documents"].as_array().cloned().unwrap_or_default();
        documents.iter().map(|document| json!([document["name"], document["documentId"], document["version"]])).collect()
    };
    let other = "query Role { me { role isApiKey } }";
    assert_eq!(versions(json!({ "a": TEXT })).await, [json!(["Role", "a", 1])]);
    assert_eq!(versions(json!({ "b": other, "c": TEXT })).await, [json!(["Role", "b", 2]), json!(["Role", "c", 1])]);
    assert_eq!(versions(json!({ "a": TEXT, "b": other })).await, [json!(["Role", "a", 1]), json!(["Role", "b", 2])]);
    assert_eq!(publish(&admin, &json!({ "a": other }).to_string()).await.user_errors(), ["manifest: TAKEN"]);
    let apollo = |body: &str| {
        json!({ "format": "apollo-persisted-query-manifest", "version": 1,
                "operations": [{ "id": "x", "name": "Named", "type": "query", "body": body }, { "id": "x", "name": "Named", "type": "query", "body": TEXT }] })
    };
    assert_eq!(versions(apollo(TEXT)).await[0], json!(["Named", "x", 1]), "the same twice is once");
    assert_eq!(app.database.number("SELECT count(*) FROM documents").await, 4);
    let list = admin
        .ask("{ documents(first: 3) { totalCount nodes { name documentId sha256 } pageInfo { hasNextPage } } }", json!({}))
        .await;
    assert_eq!((&list["documents"]["totalCount"], &list["documents"]["nodes"][0]["name"]), (&json!(4), &json!("Named")));
    assert_eq!(list["documents"]["pageInfo"]["hasNextPage"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_all_tenants_are_read_by_all_and_written_by_none() {
    let app = TestApp::start().await;
    app.other_tenant().await;
    let new = NewDocument { document_id: "all-1".to_owned(), name: "Public".to_owned(), text: "{ __typename }".to_owned() };
    let published = documents::publish(&app.app, &Actor::system(ALL_TENANTS), &[new], None).await.unwrap();
    for client in [app.anonymous().clone(), app.client(Role::Viewer).await, app.client_of("globex", Role::Viewer).await] {
        assert_eq!(client.post(&json!({ "documentId": "all-1" })).await.data()["__typename"], "Query");
    }
    let admin = app.client(Role::Admin).await;
    let list = admin.ask("{ documents { nodes { id forAllTenants useCount } } }", json!({})).await["documents"]["nodes"].clone();
    assert_eq!((&list[0]["forAllTenants"], &list[0]["useCount"]), (&json!(true), &Value::Null));
    let withdrawn = admin.mutate("withdrawDocument", json!({ "id": list[0]["id"] }), "document { id }").await;
    assert_eq!(withdrawn.user_errors(), ["id: INVALID"]);
    let message = withdrawn.payload()["userErrors"][0]["message"].clone();
    assert_eq!(message, "The document is for all tenants: only the operator withdraws it");
    // Row-level security says so, too.
    let tx = app.app.db.begin(app.tenant.id).await.unwrap();
    let mut conn: &diesel_async::AsyncPgConnection = &tx;
    for statement in ["UPDATE documents SET name = 'x'", "DELETE FROM documents"] {
        assert_eq!(diesel_async::RunQueryDsl::execute(diesel::sql_query(statement), &mut conn).await.unwrap(), 0, "{statement}");
    }
    drop(tx);
    // A tenant's own document of the same id comes first.
    publish(&admin, &json!({ "all-1": TEXT }).to_string()).await.data();
    eventually("the tenant's own comes first", async || {
        let answer = admin.post(&json!({ "documentId": "all-1" })).await;
        (answer.data()["me"]["role"] == "ADMIN").then_some(())
    })
    .await;
    assert_eq!(app.anonymous().post(&json!({ "documentId": "all-1" })).await.data()["__typename"], "Query");
    eventually("uses are counted", async || {
        let counted = format!("SELECT use_count FROM documents WHERE id = '{}' AND last_used_at IS NOT NULL", published[0].id);
        let counts = app.database.superuser().await.query(&counted, &[]).await.unwrap();
        counts.first().filter(|row| row.get::<_, i64>(0) >= 4).map(|_| ())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_mutation_by_text_and_by_hash_is_one_request() {
    let app = TestApp::start().await;
    connected(&app.app).await;
    let editor = app.client(Role::Editor).await;
    let text = "mutation($input: CreateMetricInput!) { createMetric(input: $input) { metric { key } userErrors { message } } }";
    let send = async |mut body: Value| {
        body["variables"] = json!({ "input": { "key": "M", "name": "M" } });
        editor.receive(post(&editor, &body).header("idempotency-key", "one")).await
    };
    let first = send(by_hash(text, true)).await;
    assert_eq!(first.header("idempotency-replayed"), None);
    for again in [by_hash(text, false), json!({ "query": text })] {
        let again = send(again).await;
        assert_eq!((again.header("idempotency-replayed"), &again.body), (Some("true"), &first.body));
    }
    assert_eq!(send(json!({ "query": format!("{text} ") })).await.error_code(), Some("IDEMPOTENCY_CONFLICT"));
    assert_eq!(app.database.number("SELECT count(*) FROM metrics").await, 1);
}

/// A request by Apollo's protocol, with the text or without.
pub fn by_hash(text: &str, with_text: bool) -> Value {
    let hash = data_encoding::HEXLOWER.encode(&sha256(text));
    let mut request = json!({ "extensions": { "persistedQuery": { "version": 1, "sha256Hash": hash } } });
    if with_text {
        request["query"] = json!(text);
    }
    request
}

/// Waits until an API has a connection to Redis: one that has none after a quarter of a second does without, and knows no hash.
pub async fn connected(app: &App) {
    eventually("it has a connection to Redis", async || app.ping_redis().await.ok()).await;
}

/// A client of another instance, which has a connection to Redis.
async fn connected_instance(app: &TestApp, settings: &[(&str, &str)]) -> Client {
    let (other, base) = app.another_api(settings).await;
    connected(&other).await;
    Client::anonymous(&base)
}

/// Publishes a manifest by the mutation.
pub async fn publish(client: &Client, manifest: &str) -> Answer {
    let selection = "documents { id documentId name version publishedBy { email } withdrawnAt } outdated { errors }";
    client.mutate("publishDocuments", json!({ "manifest": manifest }), selection).await
}

fn post(client: &Client, body: &Value) -> reqwest::RequestBuilder {
    client.http.post(format!("{}/graphql", client.base)).json(body)
}
