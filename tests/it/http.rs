//! The API over HTTP: what is accepted and refused, and what surrounds every answer. docs/api/http.md is the contract. What is
//! for browsers is in `browsers`.

use std::io::Read;
use std::time::Duration;

use mdl::actor::Role;
use mdl_tests::servers::ApiProcess;
use mdl_tests::{Client, PASSWORD, TestApp, email, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CREATE: &str = r#"mutation { createMetric(input: { key: "M", name: "M" }) { userErrors { code } } }"#;

#[tokio::test(flavor = "multi_thread")]
async fn only_json_is_read() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let before = app.database.contents().await;
    let body = json!({ "query": CREATE }).to_string();
    for media in
        ["text/plain", "application/x-www-form-urlencoded", "application/graphql", "application/json; charset=latin1", ""]
    {
        let answer = editor.receive(post(&app).header("content-type", media).body(body.clone())).await;
        let wanted = (StatusCode::UNSUPPORTED_MEDIA_TYPE, Some("UNSUPPORTED_MEDIA_TYPE"));
        assert_eq!((answer.status, answer.error_code()), wanted, "{media}");
    }
    let packed = post(&app).header("content-type", "application/json").header("content-encoding", "gzip").body(body.clone());
    assert_eq!(editor.receive(packed).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(app.database.contents().await, before);
    let json = post(&app).header("content-type", "application/json; charset=utf-8").body(body);
    assert_eq!(editor.receive(json).await.user_errors(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_another_site_changes_nothing() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let before = app.database.contents().await;
    let form = |operations: Value| {
        let parts = [
            format!("name=\"operations\"\r\n\r\n{operations}"),
            "name=\"map\"\r\n\r\n{\"0\":[\"variables.input.file\"]}".to_owned(),
            "name=\"0\"; filename=\"x.json\"\r\n\r\n{}".to_owned(),
        ];
        let parts = parts.map(|part| format!("--b\r\nContent-Disposition: form-data; {part}\r\n")).concat();
        post(&app).header("content-type", "multipart/form-data; boundary=b").body(format!("{parts}--b--\r\n"))
    };
    let import = json!({
        "query": "mutation($input: ImportCatalogInput!) { importCatalog(input: $input) { import { id } userErrors { code } } }",
        "variables": { "input": { "file": null } },
    });
    let refused = editor.receive(form(import.clone())).await;
    assert_eq!((refused.status, refused.error_code()), (StatusCode::BAD_REQUEST, Some("PREFLIGHT_REQUIRED")));
    let anonymous = app.anonymous().receive(form(import.clone()).header("graphql-require-preflight", "1")).await;
    assert_eq!((anonymous.status, anonymous.error_code()), (StatusCode::UNAUTHORIZED, Some("UNAUTHENTICATED")));
    assert_eq!(app.database.contents().await, before);
    let answer = editor.receive(form(import).header("graphql-require-preflight", "1")).await;
    assert_eq!(answer.user_errors(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn get_is_for_queries() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let get = async |parameters: &[(&str, &str)]| {
        let url = url::Url::parse_with_params(&format!("{}/graphql", app.base), parameters).unwrap();
        editor.receive(editor.http.get(url)).await
    };
    let two = "query A($n: Int) { metrics(first: $n) { totalCount } } query B { me { role } }";
    assert_eq!(get(&[("query", two), ("operationName", "B")]).await.data(), json!({ "me": { "role": "EDITOR" } }));
    let found = get(&[("query", two), ("operationName", "A"), ("variables", "{\"n\":1}")]).await;
    assert_eq!(found.data(), json!({ "metrics": { "totalCount": 0 } }));
    let three = "query A($id: ID!, $ids: [ID!]!, $n: Int!) { nodes(ids: $ids) { id } node(id: $id) { id } metrics(last: $n) { totalCount } }
        query B { me { role } }";
    assert_eq!(get(&[("query", three), ("operationName", "B")]).await.data(), json!({ "me": { "role": "EDITOR" } }));
    let unnamed = [("query", "{ me { role } }"), ("operationName", ""), ("variables", ""), ("extensions", "")];
    assert_eq!(get(&unnamed).await.data(), json!({ "me": { "role": "EDITOR" } }));
    let posted = editor.post(&json!({ "query": "{ me { role } }", "operationName": "" })).await;
    assert_eq!(posted.data(), json!({ "me": { "role": "EDITOR" } }));
    let before = app.database.contents().await;
    let refused = get(&[("query", CREATE)]).await;
    assert_eq!((refused.status, refused.error_code()), (StatusCode::METHOD_NOT_ALLOWED, Some("METHOD_NOT_ALLOWED")));
    assert_eq!(refused.header("allow"), Some("POST"));
    assert_eq!(app.database.contents().await, before);
    for bad in [vec![], vec![("query", "{ me { role } }"), ("variables", "[")], vec![("query", "{a}"), ("query", "{b}")]] {
        assert_eq!(get(&bad).await.status, StatusCode::BAD_REQUEST, "{bad:?}");
    }
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = editor.receive(editor.http.request(method.clone(), format!("{}/graphql", app.base))).await;
        assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, Some("GET, POST")), "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_what_is_accepted() {
    let app = TestApp::start().await;
    let viewer = app.client(Role::Viewer).await;
    let ask = async |accept: &str, query: &str| viewer.send_with(query, json!({}), &[("accept", accept)]).await;
    for (accept, media) in [
        ("application/json", "application/json; charset=utf-8"),
        ("*/*", "application/json; charset=utf-8"),
        ("application/graphql-response+json", "application/graphql-response+json; charset=utf-8"),
        ("application/graphql-response+json, application/json;q=0.9", "application/graphql-response+json; charset=utf-8"),
    ] {
        let answer = ask(accept, "{ __typename }").await;
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, Some(media)), "{accept}");
    }
    assert_eq!(ask("text/html", "{ __typename }").await.status, StatusCode::NOT_ACCEPTABLE);
    for document in ["{", "{ nothing }", "query A { me { role } } query B { me { role } }"] {
        let plain = ask("application/json", document).await;
        let graphql = ask("application/graphql-response+json", document).await;
        assert_eq!((plain.status, graphql.status), (StatusCode::OK, StatusCode::BAD_REQUEST), "{document}");
        assert!(graphql.body.get("data").is_none(), "{document}: nothing was executed");
    }
    let failed = ask("application/graphql-response+json", "{ users { totalCount } }").await;
    assert_eq!((failed.status, failed.error_code()), (StatusCode::OK, Some("FORBIDDEN")), "it was executed");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_answered_in_order() {
    let app = TestApp::start().await;
    let editor = app.client(Role::Editor).await;
    let send = async |batch: Value| editor.receive(post(&app).json(&batch)).await;
    let read = json!({ "query": "{ metrics { totalCount } }" });
    let answer = send(json!([read, { "query": CREATE }, { "query": "{ nothing }" }, read])).await;
    assert_eq!(answer.body[0]["data"]["metrics"]["totalCount"], 0);
    assert_eq!(answer.body[2]["errors"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED");
    assert_eq!(answer.body[3]["data"]["metrics"]["totalCount"], 1);
    assert_eq!(send(json!(vec![&read; 10])).await.body.as_array().unwrap().len(), 10);
    assert_eq!(send(json!(vec![&read; 11])).await.error_code(), Some("BATCH_TOO_LONG"));
    assert_eq!(send(json!([])).await.error_code(), Some("BAD_REQUEST"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_bounded() {
    let app = TestApp::start_with(&[("MDL_MAX_BODY_BYTES", "2000")]).await;
    let viewer = app.client(Role::Viewer).await;
    let fits = format!("{{ __typename }} #{}", "x".repeat(1_900));
    viewer.ask(&fits, json!({})).await;
    let long = viewer.send(&format!("{{ __typename }} #{}", "x".repeat(2_000)), json!({})).await;
    assert_eq!((long.status, long.error_code()), (StatusCode::PAYLOAD_TOO_LARGE, Some("BODY_TOO_LONG")));
    // Without a length said beforehand.
    let pieces = futures::stream::iter((0..3).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 1000]))));
    let streamed = post(&app).header("content-type", "application/json").body(reqwest::Body::wrap_stream(pieces));
    assert_eq!(viewer.receive(streamed).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    for broken in ["", "{", "null", "7", "{\"query\": 7}", "\u{0}"] {
        let answer = viewer.receive(post(&app).header("content-type", "application/json").body(broken)).await;
        assert_eq!((answer.status, answer.error_code()), (StatusCode::BAD_REQUEST, Some("BAD_REQUEST")), "{broken}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_bounded() {
    let app = TestApp::start().await;
    let viewer = app.client(Role::Viewer).await;
    let lineage = |levels: usize| {
        format!(
            "{{ metrics(first: 1) {{ nodes {{ {} key {} }} }} }}",
            "upstream(first: 1) { nodes {".repeat(levels),
            "} }".repeat(levels)
        )
    };
    let aliases = |count: usize| format!("{{ {} }}", (0..count).map(|i| format!("a{i}: __typename ")).collect::<String>());
    let pages = "{ metrics(first: 100) { nodes { upstream(first: 100) { nodes { upstream(first: 100) { nodes { key } } } } } } }";
    let bomb: String = (0..40).map(|i| format!("fragment F{i} on Query {{ ...F{} ...F{} }} ", i + 1, i + 1)).collect();
    for (document, code) in [
        (lineage(5), None),
        (lineage(7), Some("TOO_DEEP")),
        (aliases(30), None),
        (aliases(31), Some("TOO_MANY_ALIASES")),
        (pages.to_owned(), Some("TOO_COMPLEX")),
        (format!("{{ {} }}", "__typename ".repeat(5_000)), Some("DOCUMENT_TOO_LONG")),
        ("{".repeat(200), Some("TOO_DEEP")),
        (format!("{{ ...F0 }} {bomb} fragment F40 on Query {{ __typename }}"), Some("TOO_COMPLEX")),
        ("{ ...F } fragment F on Query { ...F }".to_owned(), Some("GRAPHQL_VALIDATION_FAILED")),
        ("{ me { role }".to_owned(), Some("GRAPHQL_PARSE_FAILED")),
        ("{ nothing }".to_owned(), Some("GRAPHQL_VALIDATION_FAILED")),
        ("query($n: Int!) { metrics(first: $n) { totalCount } }".to_owned(), Some("GRAPHQL_VALIDATION_FAILED")),
        ("subscription { catalogChanged { cursor } }".to_owned(), Some("NOT_ACCEPTABLE")),
    ] {
        let answer = viewer.send(&document, json!({})).await;
        let shown: String = document.chars().take(100).collect();
        assert_eq!(answer.error_code(), code, "{shown}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_shown_to_the_signed_in() {
    let app = TestApp::start().await;
    let viewer = app.client(Role::Viewer).await;
    let schema = "{ __schema { queryType { name } types { name fields { name type { ofType { name } } } } } }";
    assert_eq!(viewer.ask(schema, json!({})).await["__schema"]["queryType"]["name"], "Query");
    assert_eq!(app.anonymous().send(schema, json!({})).await.error_code(), Some("UNAUTHENTICATED"));
    let hint = async |client: &Client| {
        client.send("{ metrcs { totalCount } }", json!({})).await.body.to_string().contains("Did you mean")
    };
    assert!(hint(&viewer).await);
    assert!(!hint(app.anonymous()).await, "suggestions tell of the schema, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_may_be_public() {
    let app = TestApp::start_with(&[("MDL_GRAPHQL_PUBLIC_INTROSPECTION", "true")]).await;
    let data = app.anonymous().ask("{ __schema { queryType { name } } }", json!({})).await;
    assert_eq!(data["__schema"]["queryType"]["name"], "Query");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_answers_are_compressed() {
    let app = TestApp::start().await;
    let viewer = app.client(Role::Viewer).await;
    let ask = async |encoding: &str, query: &str| {
        let request = post(&app).bearer_auth(viewer.credential.as_deref().unwrap()).header("accept-encoding", encoding);
        let response = request.json(&json!({ "query": query })).send().await.unwrap();
        let used = response.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        (used, response.bytes().await.unwrap())
    };
    let long = "{ __schema { types { name description } } }";
    let (plain, text) = ask("identity", long).await;
    assert_eq!(plain, None);
    for encoding in ["gzip", "br", "zstd"] {
        let (used, body) = ask(encoding, long).await;
        assert_eq!(used.as_deref(), Some(encoding));
        assert!(body.len() * 2 < text.len(), "{encoding}: {} of {}", body.len(), text.len());
        if encoding == "gzip" {
            let mut inflated = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut inflated).unwrap();
            assert_eq!(inflated, text);
        }
        assert_eq!(ask(encoding, "{ __typename }").await.0, None, "short answers are not");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_names_its_request() {
    let app = TestApp::start().await;
    let id = async |sent: Option<&str>| {
        let headers: Vec<_> = sent.map(|id| ("x-request-id", id)).into_iter().collect();
        let answer = app.anonymous().send_with("{", json!({}), &headers).await;
        answer.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(id(Some("from-the-proxy/7")).await, "from-the-proxy/7");
    let (one, other) = (id(None).await, id(None).await);
    assert!(uuid::Uuid::parse_str(&one).is_ok() && one != other, "{one} {other}");
    for bad in ["two words", &"x".repeat(129)] {
        assert!(uuid::Uuid::parse_str(&id(Some(bad)).await).is_ok(), "{bad}");
    }
    assert!(app.anonymous().get("/nowhere").await.header("x-request-id").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_which_server_is_down() {
    let app = TestApp::start().await;
    assert_eq!(app.anonymous().get("/health").await.body, json!({ "status": "ok" }));
    // A server that takes more than a moment to connect to counts as down.
    let wanted = json!({ "status": "ready", "postgresql": "up", "redis": "up", "migrations": "applied" });
    assert_eq!(ready_says(app.anonymous(), StatusCode::OK, &wanted).await, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_api_works() {
    let app = TestApp::start_with(&[("REDIS_URL", "redis://127.0.0.1:1/0")]).await;
    // That the connection is refused is known at once.
    let wanted = json!({ "status": "ready", "postgresql": "up", "redis": "down", "errors": { "redis": "UNAVAILABLE" } });
    ready_says(app.anonymous(), StatusCode::OK, &wanted).await;
    let editor = app.client(Role::Editor).await;
    editor.write("createMetric", json!({ "key": "M", "name": "M" })).await;
    assert_eq!(editor.ask("{ metrics { totalCount } }", json!({})).await["metrics"]["totalCount"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgresql_the_api_says_so() {
    let app = TestApp::start().await;
    let (_, base) = app.another_api(&[("DATABASE_POOL_WAIT_SECONDS", "1")]).await;
    let viewer = app.client(Role::Viewer).await.at(&base);
    let name = app.database.text("SELECT current_database()::text").await.unwrap();
    app.database.allow_connections(false).await;
    let wanted = json!({ "postgresql": "down", "redis": "up" });
    let anonymous = app.anonymous().at(&base);
    let ready = ready_says(&anonymous, StatusCode::SERVICE_UNAVAILABLE, &wanted).await;
    assert!(!ready.to_string().contains(&name), "{ready}");
    assert_eq!(anonymous.get("/health").await.status, StatusCode::OK);
    // Either the credential or the field cannot be looked up.
    let answer = viewer.send("{ metrics { totalCount } }", json!({})).await;
    assert_eq!(answer.error_code(), Some("UNAVAILABLE"), "{}", answer.body);
    assert!(!answer.body.to_string().contains(&name), "{}", answer.body);

    app.database.allow_connections(true).await;
    eventually("it works again", async || {
        let answer = viewer.send("{ metrics { totalCount } }", json!({})).await;
        answer.body["data"]["metrics"]["totalCount"].is_number().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_asks_too_often_is_told_to_wait() {
    let app = TestApp::start_with(&[("MDL_RATE_LIMIT_PER_SECOND", "1"), ("MDL_RATE_LIMIT_BURST", "5")]).await;
    let (viewer, editor) = (app.client(Role::Viewer).await, app.client(Role::Editor).await);
    let limited = eventually("the limit is reached", async || {
        let answer = viewer.send("{ __typename }", json!({})).await;
        (answer.status == StatusCode::TOO_MANY_REQUESTS).then_some(answer)
    })
    .await;
    assert_eq!((limited.error_code(), limited.header("retry-after")), (Some("RATE_LIMITED"), Some("1")));
    editor.ask("{ __typename }", json!({})).await;
    let stranger = eventually("strangers have a limit of their own", async || {
        let answer = app.anonymous().send("{ __typename }", json!({})).await;
        (answer.status == StatusCode::TOO_MANY_REQUESTS).then_some(answer)
    })
    .await;
    assert_eq!(stranger.error_code(), Some("RATE_LIMITED"));
    let batch = editor.receive(post(&app).json(&json!(vec![json!({ "query": "{ __typename }" }); 10]))).await;
    assert_eq!(batch.status, StatusCode::TOO_MANY_REQUESTS, "each operation of a batch counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_cannot_be_tried_at_will() {
    let app = TestApp::start().await;
    let (_, base) = app.another_api(&[("MDL_SIGN_IN_LIMIT_PER_MINUTE", "2")]).await;
    let (viewer, anonymous) = (app.client(Role::Viewer).await.at(&base), app.anonymous().at(&base));
    let input = format!(r#"{{ tenant: "acme", email: "{}", password: "guess" }}"#, email(Role::Admin));
    let field = |alias: &str| format!("{alias}: signIn(input: {input}) {{ userErrors {{ code }} }} ");
    let two = anonymous.send(&format!("mutation {{ {} {} }}", field("a"), field("b")), json!({})).await;
    assert_eq!(two.data()["b"]["userErrors"][0]["code"], "WRONG_CREDENTIALS");
    let more = anonymous.send(&format!("mutation {{ {} }}", field("a")), json!({})).await;
    assert_eq!((more.status, more.error_code()), (StatusCode::TOO_MANY_REQUESTS, Some("RATE_LIMITED")));
    assert!(more.header("retry-after").unwrap().parse::<u64>().unwrap() <= 30);
    let change = json!({ "currentPassword": PASSWORD, "newPassword": "a new password of some length" });
    assert_eq!(viewer.mutate("changePassword", change, "").await.status, StatusCode::TOO_MANY_REQUESTS);
    viewer.ask("{ me { role } }", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_takes_too_long_is_given_up() {
    let app = TestApp::start().await;
    let (_, hasty) = app.another_api(&[("MDL_REQUEST_TIMEOUT_SECONDS", "1")]).await;
    let editor = app.client(Role::Editor).await;
    let id = editor.write("createMetric", json!({ "key": "M", "name": "M" })).await["id"].clone();
    let before = app.database.contents().await;
    let mut superuser = app.database.superuser().await;
    let lock = superuser.transaction().await.unwrap();
    lock.batch_execute("SELECT FROM metrics FOR UPDATE").await.unwrap();
    let answer = editor.at(&hasty).mutate("updateMetric", json!({ "id": id, "name": "N" }), "").await;
    assert_eq!((answer.status, answer.error_code()), (StatusCode::GATEWAY_TIMEOUT, Some("TIMEOUT")));
    lock.rollback().await.unwrap();
    assert_eq!(app.database.contents().await, before);
    let again = eventually("the row is free again", async || {
        let answer = editor.mutate("updateMetric", json!({ "id": id, "name": "N" }), "metric { revision }").await;
        (answer.status == StatusCode::OK).then_some(answer)
    })
    .await;
    assert_eq!(again.payload()["metric"]["revision"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_answers_loses_its_place() {
    let app = TestApp::start().await;
    let api = ApiProcess::start(&app, &[("MDL_WRITE_TIMEOUT_SECONDS", "1"), ("MDL_MAX_CONNECTIONS", "1")]).await;
    let address = api.base().replacen("http://", "", 1);
    let health = format!("{}/health", api.base());
    let request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    let open = async || {
        let mut stream = TcpStream::connect(&address).await.ok()?;
        stream.write_all(request).await.ok()?;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.ok()?;
        assert_eq!(&first, b"HTTP/1.1 200");
        Some(stream)
    };
    let mut stream = eventually("the connection of before has ended", open).await;
    assert!(reqwest::get(&health).await.is_err(), "there is no other place");
    // Nothing more is read: answers fill the buffers between the two, until the server cannot write and reads no more requests.
    let requests = request.repeat(100);
    let closed = async { while stream.write_all(&requests).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(60), closed).await.expect("it is closed");
    eventually("the place is free again", async || reqwest::get(&health).await.ok()).await;
}

/// Waits until the API says so of its servers, in these fields and perhaps in others, and gives all that it says.
async fn ready_says(client: &Client, status: StatusCode, wanted: &Value) -> Value {
    eventually("it says how its servers are", async || {
        let ready = client.get("/health/ready").await;
        let says = wanted.as_object().unwrap().iter().all(|(server, state)| ready.body[server] == *state);
        (ready.status == status && says).then_some(ready.body)
    })
    .await
}

fn post(app: &TestApp) -> reqwest::RequestBuilder {
    app.anonymous().http.post(format!("{}/graphql", app.base))
}
