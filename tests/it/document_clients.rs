//! Clients of other makers: Apollo Client's persisted-query link, and what graphql-codegen's client preset writes.

use mdl::actor::Role;
use mdl_tests::{PASSWORD, TestApp, clients, email, root};
use serde_json::{Value, json};

use crate::documents::{connected, publish};

const OPERATIONS: &str = "
    query Me { me { role user { ...Person } } }
    fragment Person on User { name }
    query Metrics($first: Int!, $filter: MetricFilter) { metrics(first: $first, filter: $filter) { totalCount nodes { key } } }
";

#[tokio::test(flavor = "multi_thread")]
async fn apollo_client_sends_the_hash_alone_from_the_second_call_on() {
    if clients::folder().is_none() {
        return;
    }
    let app = TestApp::start().await;
    connected(&app.app).await;
    let token = app.client(Role::Viewer).await.credential.unwrap();
    let url = format!("{}/graphql", app.base);
    let request = |method: &str, text: bool, code: Value| json!({ "method": method, "text": text, "status": 200, "code": code });
    for (arguments, query, method) in
        [(vec![], "query A { me { role } }", "POST"), (vec!["get"], "query B { me { role } }", "GET")]
    {
        let arguments: Vec<&str> = [url.as_str(), &token].into_iter().chain(arguments).collect();
        let told = clients::run("apollo.js", &arguments, query).await;
        let expected = [
            request(method, false, json!("PERSISTED_QUERY_NOT_FOUND")),
            request("POST", true, Value::Null),
            request(method, false, Value::Null),
        ];
        assert_eq!(told["requests"], json!(expected), "{told}");
        assert_eq!(told["answers"][1]["me"]["role"], "VIEWER", "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apollo_client_signs_in_where_trusted_documents_are_preferred() {
    if clients::folder().is_none() {
        return;
    }
    let app = TestApp::start_with(&[("MDL_DOCUMENTS_MODE", "prefer-trusted")]).await;
    connected(&app.app).await;
    let input = format!(r#"{{ tenant: "acme", email: "{}", password: "{PASSWORD}" }}"#, email(Role::Viewer));
    let text = format!("mutation SignIn {{ signIn(input: {input}) {{ user {{ name }} userErrors {{ message }} }} }}");
    let told = clients::run("apollo.js", &[&format!("{}/graphql", app.base), ""], &text).await;
    for answer in [&told["answers"][0], &told["answers"][1]] {
        assert_eq!(answer["signIn"]["user"]["name"], "The viewer", "{told}");
    }
    let codes: Vec<&Value> = told["requests"].as_array().unwrap().iter().map(|request| &request["code"]).collect();
    let unknown = json!("PERSISTED_QUERY_NOT_FOUND");
    assert_eq!(codes, [&unknown, &Value::Null, &unknown, &Value::Null], "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_graphql_codegen_writes_runs_where_only_trusted_documents_do() {
    if clients::folder().is_none() {
        return;
    }
    let app = TestApp::start().await;
    let schema = root().join("schema.graphql").display().to_string();
    let manifest = clients::run("codegen.js", &[&schema], OPERATIONS).await;
    let admin = app.client(Role::Admin).await;
    let published = publish(&admin, &manifest.to_string()).await;
    assert_eq!(published.user_errors(), [""; 0]);
    let id = |name: &str| {
        let documents = published.payload()["documents"].as_array().unwrap().clone();
        let found = documents.iter().find(|document| document["name"] == name).expect("a document of this name");
        found["documentId"].as_str().unwrap().to_owned()
    };

    let viewer = app.instance(&[("MDL_DOCUMENTS_MODE", "trusted-only")]).await;
    let viewer = viewer.with(app.client(Role::Viewer).await.credential.unwrap());
    let me = viewer.post(&json!({ "documentId": id("Me") })).await.data();
    assert_eq!(me["me"]["user"]["name"], "The viewer");
    let metrics = json!({ "documentId": id("Metrics"), "variables": { "first": 5 } });
    assert_eq!(viewer.post(&metrics).await.data()["metrics"]["totalCount"], 0);
    assert_eq!(viewer.send("{ me { role } }", json!({})).await.error_code(), Some("DOCUMENT_NOT_TRUSTED"));

    // Apollo Client with the ids of the manifest instead of hashes: never a text.
    let (url, token) = (format!("{}/graphql", viewer.base), viewer.credential.unwrap());
    let told = clients::run("apollo.js", &[&url, &token, "id", &id("Me")], "query Me { me { role user { name } } }").await;
    let texts: Vec<&Value> = told["requests"].as_array().unwrap().iter().map(|request| &request["text"]).collect();
    assert_eq!((texts, &told["answers"][1]["me"]["role"]), (vec![&json!(false), &json!(false)], &json!("VIEWER")), "{told}");
    let told = clients::run("apollo.js", &[&url, &token], "query Other { me { role } }").await;
    assert!(told["answers"][1]["error"].as_str().unwrap().contains("published documents"), "{told}");
}
