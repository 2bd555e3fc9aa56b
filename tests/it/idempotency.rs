//! A mutation with `Idempotency-Key` is safe to repeat.

use mdl::actor::Role;
use mdl_tests::{Answer, Client, TestApp, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const CREATE: &str = "mutation($input: CreateMetricInput!) { createMetric(input: $input) {
    userErrors { field code } metric { revision name key id createdAt } } }";

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_is_answered_as_before() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let first = create(&editor, "key-1", "M").await;
    assert_eq!((first.user_errors(), first.header("idempotency-replayed")), (vec![], None));
    let before = app.database.contents().await;
    let second = create(&editor, "key-1", "M").await;
    assert_eq!((&second.body, second.header("idempotency-replayed")), (&first.body, Some("true")));
    assert_eq!(app.database.contents().await, before);
    assert_eq!(create(&editor, "key-2", "M").await.user_errors(), ["key: TAKEN"], "another key is another request");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stored_answer_has_the_same_bytes() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let text = async || {
        let body = json!({ "query": CREATE, "variables": { "input": { "key": "M", "name": "M" } } });
        let request = editor.http.post(format!("{}/graphql", app.base)).header("idempotency-key", "bytes").json(&body);
        request.bearer_auth(editor.credential.as_deref().unwrap()).send().await.unwrap().text().await.unwrap()
    };
    assert_eq!(text().await, text().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_for_one_request() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    create(&editor, "key-1", "M").await.data();
    let before = app.database.contents().await;
    let other = create(&editor, "key-1", "N").await;
    assert_eq!((other.status, other.error_code()), (StatusCode::CONFLICT, Some("IDEMPOTENCY_CONFLICT")));
    assert_eq!(app.database.contents().await, before);
}

/// With a plain hash, whoever has the database tries a password by one SHA-256.
#[tokio::test(flavor = "multi_thread")]
async fn the_stored_hash_of_a_request_tells_nothing_of_its_secrets() {
    const CREATE_USER: &str = "mutation($input: CreateUserInput!) { createUser(input: $input) { userErrors { code } } }";
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let variables = json!({ "input": { "email": "a@b", "name": "A", "password": "a password nobody knows", "role": "VIEWER" } });
    let send = async || admin.send_with(CREATE_USER, variables.clone(), &[("idempotency-key", "user")]).await;
    send().await.data();
    let text = variables.to_string();
    let mut plain = Sha256::new_with_prefix(Sha256::digest(CREATE_USER));
    plain.update(0_u64.to_be_bytes());
    plain.update((text.len() as u64).to_be_bytes());
    plain.update(&text);
    plain.update([0_u8; 32]);
    let plain: [u8; 32] = plain.finalize().into();
    let stored = app.database.text("SELECT encode(request_hash, 'hex') FROM idempotency_keys").await.unwrap();
    assert_ne!(stored, data_encoding::HEXLOWER.encode(&plain));
    assert_eq!(stored, data_encoding::HEXLOWER.encode(&app.keys.blind(&plain)), "it is that hash, blinded");
    assert_eq!(send().await.header("idempotency-replayed"), Some("true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_belong_to_a_user() {
    let app = TestApp::start().await;
    let (editor, admin) = (app.client(Role::Editor).await, app.client(Role::Admin).await);
    create(&editor, "key-1", "M").await.data();
    let other = create(&admin, "key-1", "M").await;
    assert_eq!((other.user_errors(), other.header("idempotency-replayed")), (vec!["key: TAKEN".to_owned()], None));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_runs() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let requests = (0..6).map(|_| create(&editor, "key-1", "M"));
    let answers = futures::future::join_all(requests).await;
    for answer in &answers {
        match answer.status {
            StatusCode::OK => assert_eq!(answer.user_errors(), [""; 0]),
            status => assert_eq!((status, answer.error_code()), (StatusCode::CONFLICT, Some("IDEMPOTENCY_CONFLICT"))),
        }
    }
    assert!(answers.iter().any(|answer| answer.status == StatusCode::OK));
    assert_eq!(app.database.number("SELECT count(*) FROM metrics").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_input_is_an_answer_too() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    assert_eq!(create(&editor, "key-1", "").await.user_errors(), ["key: REQUIRED"]);
    assert_eq!(create(&editor, "key-1", "").await.header("idempotency-replayed"), Some("true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_failed_gives_its_key_back() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    app.database.execute("ALTER TABLE metrics RENAME TO gone").await;
    assert_eq!(create(&editor, "key-1", "M").await.error_code(), Some("INTERNAL"));
    app.database.execute("ALTER TABLE gone RENAME TO metrics").await;
    assert_eq!(create(&editor, "key-1", "M").await.user_errors(), [""; 0]);

    let viewer = app.client(Role::Viewer).await;
    assert_eq!(create(&viewer, "key-1", "N").await.error_code(), Some("FORBIDDEN"));
    assert_eq!(create(&viewer, "key-1", "N").await.header("idempotency-replayed"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_is_not_done_again_because_part_of_its_answer_failed() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let create = async || {
        let query = "mutation($input: CreateMetricInput!) { createMetric(input: $input) {
            userErrors { code } metric { key keyResults { key } } } }";
        let input = json!({ "input": { "key": "M", "name": "M" } });
        editor.send_with(query, input, &[("idempotency-key", "key-1")]).await
    };
    app.database.execute("ALTER TABLE key_result_metrics RENAME TO gone").await;
    let first = create().await;
    assert_eq!(first.error_code(), Some("INTERNAL"));
    assert_eq!(app.database.number("SELECT count(*) FROM metrics").await, 1);
    app.database.execute("ALTER TABLE gone RENAME TO key_result_metrics").await;
    let again = create().await;
    assert_eq!((&again.body, again.header("idempotency-replayed")), (&first.body, Some("true")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_forgotten_after_a_day() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    create(&editor, "key-1", "M").await.data();
    app.database.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'").await;
    assert_eq!(create(&editor, "key-1", "N").await.user_errors(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_run_holds_its_key_until_its_lease_ends() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    create(&editor, "key-1", "M").await.data();
    // As if it had died before its change was committed.
    app.database
        .execute("UPDATE idempotency_keys SET response = NULL, wrote = false; DELETE FROM metric_versions; DELETE FROM metrics")
        .await;
    assert_eq!(create(&editor, "key-1", "M").await.status, StatusCode::CONFLICT);
    app.database.execute("UPDATE idempotency_keys SET locked_until = now()").await;
    assert_eq!(create(&editor, "key-1", "M").await.user_errors(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_is_not_done_again_though_its_answer_is_lost() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    // The change is committed; whatever comes after it fails.
    app.database
        .execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'lost'; END $$;
             CREATE TRIGGER fail BEFORE UPDATE OF response ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION fail()",
        )
        .await;
    create(&editor, "key-1", "M").await.data();
    app.database.execute("DROP TRIGGER fail ON idempotency_keys; DELETE FROM metric_versions; DELETE FROM metrics").await;
    let again = create(&editor, "key-1", "M").await;
    assert!(again.status == StatusCode::CONFLICT && again.body.to_string().contains("still runs"), "{}", again.body);
    app.database.execute("UPDATE idempotency_keys SET locked_until = now()").await;
    let again = create(&editor, "key-1", "M").await;
    assert!(again.status == StatusCode::CONFLICT && again.body.to_string().contains("its answer was lost"), "{}", again.body);
    assert_eq!(app.database.number("SELECT count(*) FROM metrics").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_has_lost_its_key_changes_nothing() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let id = editor.write("createMetric", json!({ "key": "M", "name": "M" })).await["id"].clone();
    let update = async || {
        let query =
            "mutation($input: UpdateMetricInput!) { updateMetric(input: $input) { metric { revision } userErrors { code } } }";
        let input = json!({ "input": { "id": id, "name": "New", "tags": ["once"] } });
        editor.send_with(query, input, &[("idempotency-key", "key-1")]).await
    };
    let waiting = async |count: i64| {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        eventually("they wait", async || (app.database.number(query).await == count).then_some(())).await;
    };
    let mut superuser = app.database.superuser().await;
    let lock = superuser.transaction().await.unwrap();
    lock.batch_execute("SELECT FROM metrics FOR UPDATE").await.unwrap();
    let between = async {
        waiting(1).await;
        // Its lease ends while it runs, and the caller tries again.
        app.database.execute("UPDATE idempotency_keys SET locked_until = now()").await;
        let second = async {
            waiting(2).await;
            lock.commit().await.unwrap();
        };
        tokio::join!(update(), second).0
    };
    let (first, second) = tokio::join!(update(), between);
    assert_eq!(first.error_code(), Some("IDEMPOTENCY_CONFLICT"), "{}", first.body);
    assert_eq!(second.payload()["metric"]["revision"], 2, "{}", second.body);
    assert_eq!(update().await.header("idempotency-replayed"), Some("true"));
    assert_eq!(app.database.number("SELECT count(*) FROM metric_versions").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_keys_and_secrets_are_refused() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    for bad in ["", &"x".repeat(256)] {
        let answer = create(&editor, bad, "M").await;
        assert_eq!((answer.status, answer.error_code()), (StatusCode::BAD_REQUEST, Some("BAD_USER_INPUT")), "{bad}");
        let message = "Idempotency-Key: An idempotency key has 1 to 255 printable ASCII characters";
        assert_eq!(answer.body["errors"][0]["message"], message);
    }
    let key = [("idempotency-key", "key-1")];
    for secret in [
        "mutation { createApiKey(input: { name: \"x\", scopes: [CATALOG_READ] }) { key } }",
        "mutation { createWebhookEndpoint(input: { url: \"https://example.com\" }) { secret } }",
        "mutation { rotateWebhookSecret(input: { id: \"x\" }) { secret } }",
    ] {
        let answer = editor.send_with(secret, json!({}), &key).await;
        assert_eq!((answer.status, answer.error_code()), (StatusCode::BAD_REQUEST, Some("BAD_REQUEST")), "{secret}");
    }
    let as_stream = [key[0], ("accept", "text/event-stream")];
    let answer = editor.send_with(CREATE, json!({ "input": { "key": "M", "name": "M" } }), &as_stream).await;
    assert_eq!((answer.status, answer.error_code()), (StatusCode::BAD_REQUEST, Some("BAD_REQUEST")));
    let batch = editor.http.post(format!("{}/graphql", app.base)).header(key[0].0, key[0].1).json(&json!([{ "query": CREATE }]));
    assert_eq!(editor.receive(batch).await.error_code(), Some("BAD_REQUEST"));
    assert_eq!(app.database.number("SELECT count(*) FROM metrics").await, 0);
    assert_eq!(app.database.number("SELECT count(*) FROM api_keys").await, 0);
    // A query needs no key, and is none the worse for it.
    for _ in 0..2 {
        let answer = editor.send_with("{ metrics { totalCount } }", json!({}), &key).await;
        assert_eq!((answer.data()["metrics"]["totalCount"].clone(), answer.header("idempotency-replayed")), (json!(0), None));
    }
}

async fn create(client: &Client, key: &str, metric: &str) -> Answer {
    let input: Value = json!({ "input": { "key": metric, "name": "M" } });
    client.send_with(CREATE, input, &[("idempotency-key", key)]).await
}
