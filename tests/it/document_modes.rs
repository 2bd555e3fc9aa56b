//! Which documents may be run: the three modes of a deployment, and the command line that publishes for them.

use std::process::{Command, Output};

use mdl::actor::Role;
use mdl_tests::{Client, PASSWORD, TestApp, email, eventually, servers};
use reqwest::StatusCode;
use serde_json::json;

use crate::documents::{by_hash, publish};

const TEXT: &str = "query Role { me { role } }";
const TRUSTED_ONLY: [(&str, &str); 1] = [("MDL_DOCUMENTS_MODE", "trusted-only")];
const PREFER_TRUSTED: [(&str, &str); 1] = [("MDL_DOCUMENTS_MODE", "prefer-trusted")];

#[tokio::test(flavor = "multi_thread")]
async fn trusted_only_runs_nothing_else() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    publish(&admin, &json!({ "role": TEXT }).to_string()).await.data();
    let strict = app.instance(&TRUSTED_ONLY).await;
    let admin = strict.with(admin.credential.clone().unwrap());
    for ask in [json!({ "documentId": "role" }), by_hash(TEXT, false), by_hash(TEXT, true), json!({ "query": TEXT })] {
        assert_eq!(admin.post(&ask).await.data()["me"]["role"], "ADMIN", "{ask}");
    }
    let other = "{ me { isApiKey } }";
    for (client, who) in [(&admin, "an admin"), (&strict, "the unknown")] {
        for ask in [json!({ "query": other }), by_hash(other, true), by_hash(other, false), json!({ "query": "{ __typename }" })]
        {
            let answer = client.receive(client.http.post(format!("{}/graphql", client.base)).json(&ask)).await;
            assert_eq!(answer.error_code(), Some("DOCUMENT_NOT_TRUSTED"), "{who}: {ask}");
        }
    }
    let get = admin.http.get(format!("{}/graphql?query={{__typename}}", admin.base));
    let refused = admin.receive(get.header("accept", "application/graphql-response+json")).await;
    assert_eq!((refused.status, refused.error_code()), (StatusCode::BAD_REQUEST, Some("DOCUMENT_NOT_TRUSTED")));
    // What another instance let in by hash is not trusted for that.
    app.client(Role::Editor).await.post(&by_hash(other, true)).await.data();
    assert_eq!(admin.post(&by_hash(other, false)).await.error_code(), Some("DOCUMENT_NOT_TRUSTED"));
    let sign_in = json!({ "query": "mutation { signOut(input: { refreshToken: \"x\" }) { userErrors { message } } }" });
    assert_eq!(strict.post(&sign_in).await.error_code(), Some("DOCUMENT_NOT_TRUSTED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_trusted_is_preferred_the_explorers_may_send_their_own() {
    let app = TestApp::start_with(&PREFER_TRUSTED).await;
    // Signing in is for everybody, or nobody could explore.
    let (viewer, editor, admin) = (app.client(Role::Viewer).await, app.client(Role::Editor).await, app.client(Role::Admin).await);
    let refused = async |client: &Client| {
        for ask in [json!({ "query": TEXT }), by_hash(TEXT, true)] {
            assert_eq!(client.post(&ask).await.error_code(), Some("DOCUMENT_NOT_TRUSTED"), "{ask}");
        }
        // Registered by others or not.
        assert_eq!(client.post(&by_hash(TEXT, false)).await.error_code(), Some("PERSISTED_QUERY_NOT_FOUND"));
    };
    refused(&viewer).await;
    refused(app.anonymous()).await;
    for client in [&editor, &admin] {
        client.post(&by_hash(TEXT, true)).await.data();
        client.ask(TEXT, json!({})).await;
    }
    refused(&viewer).await;
    let key = async |scopes: serde_json::Value| {
        let made = editor.mutate("createApiKey", json!({ "name": "key", "scopes": scopes }), "key").await;
        editor.with(made.payload()["key"].as_str().unwrap())
    };
    refused(&key(json!(["CATALOG_READ"])).await).await;
    key(json!(["CATALOG_READ", "EXPLORE"])).await.ask(TEXT, json!({})).await;
    let smuggled = "mutation { signOut(input: { refreshToken: \"x\" }) { userErrors { message } } createMetric(input: { key: \"M\", name: \"M\" }) { userErrors { message } } }";
    assert_eq!(viewer.send(smuggled, json!({})).await.error_code(), Some("DOCUMENT_NOT_TRUSTED"));

    publish(&admin, TEXT).await.data();
    eventually("the viewer may run it, too", async || viewer.send(TEXT, json!({})).await.error_code().is_none().then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_trusted_is_preferred_a_client_that_sends_hashes_can_sign_in() {
    let app = TestApp::start_with(&PREFER_TRUSTED).await;
    let text = "mutation($input: SignInInput!) { signIn(input: $input) { session { accessToken } userErrors { message } } }";
    let send = async |with_text: bool| {
        let mut ask = by_hash(text, with_text);
        ask["variables"] = json!({ "input": { "tenant": "acme", "email": email(Role::Viewer), "password": PASSWORD } });
        app.anonymous().post(&ask).await
    };
    for _ in 0..2 {
        let unknown = send(false).await;
        assert_eq!((unknown.status, unknown.error_code()), (StatusCode::OK, Some("PERSISTED_QUERY_NOT_FOUND")));
        let session = send(true).await.payload()["session"].clone();
        assert!(session["accessToken"].is_string(), "{session}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_publish_and_check_at_the_command_line() {
    let app = TestApp::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let relay = file("relay.json", &json!({ "r1": TEXT, "r2": "query Two { me { isApiKey } }" }).to_string());
    let one =
        file("sign-out.graphql", "mutation Out($input: SignOutInput!) { signOut(input: $input) { userErrors { message } } }");
    let broken = file("broken.json", &json!({ "b": "query Bad { me { rle } }" }).to_string());
    let run = |arguments: &[&str]| said(&app, arguments);

    let (code, out, _) = run(&["publish", &relay, "--tenant", "acme"]);
    assert!(out.contains("relay.json: published 2 documents\n"), "{out}");
    assert!(code == Some(0) && out.contains("Role version 1: r1") && out.contains("Two version 1: r2"), "{out}");
    let (code, out, _) = run(&["publish", &one, "--all-tenants"]);
    assert!(code == Some(0) && out.contains("Out version 1: ") && out.contains("published 1 document\n"), "{out}");
    let (code, _, errors) = run(&["publish", &broken, "--tenant", "acme"]);
    assert!(code == Some(1) && errors.contains("Bad, line 1, column 18: Unknown field \"rle\""), "{errors}");
    let (_, _, errors) = run(&["publish", &file("all.graphql", "query All {\n  nothing\n}"), "--tenant", "acme"]);
    assert!(errors.contains("all.graphql: published nothing\n  All, line 2, column 3: "), "{errors}");
    assert_ne!(run(&["publish", &relay]).0, Some(0), "for whom must be said");
    assert_ne!(run(&["publish", &relay, "--tenant", "nobody"]).0, Some(0));

    let (code, out, _) = run(&["check"]);
    assert!(code == Some(0) && out.contains("3 of 3 published documents fit the schema"), "{out}");
    let (_, out, _) = run(&["list", "--tenant", "acme"]);
    assert_eq!(out.lines().count(), 3, "{out}");
    assert_eq!(run(&["list", "--all-tenants"]).1.lines().count(), 1);

    // As if the schema had changed: every tenant's documents are looked at.
    app.database.execute("UPDATE documents SET text = 'query Two { me { gone } }' WHERE document_id = 'r2'").await;
    let (code, out, errors) = run(&["check"]);
    assert!(code == Some(1) && out.contains("2 of 3"), "{out}");
    assert!(errors.contains("Two version 1: r2 (tenant acme)") && errors.contains("Unknown field \"gone\""), "{errors}");
    let outdated = publish(&app.client(Role::Admin).await, TEXT).await.payload()["outdated"].clone();
    assert!(outdated[0]["errors"][0].as_str().unwrap().starts_with("line 1, column 18: Unknown field \"gone\""), "{outdated}");

    // As if it had been published when variables of the wrong type were overlooked.
    let misplaced = "UPDATE documents SET text = 'query Two($n: Int!) { metric(key: $n) { key } }' WHERE document_id = 'r2'";
    app.database.execute(misplaced).await;
    let (code, _, errors) = run(&["check"]);
    let wanted = r#"line 1, column 11: Variable "$n" of type "Int!" used in position expecting type "String"."#;
    assert!(code == Some(1) && errors.contains(wanted), "{errors}");

    let (code, out, _) = run(&["withdraw", "r2", "--tenant", "acme"]);
    assert!(code == Some(0) && out.contains("Withdrew Two version 1: r2"), "{out}");
    assert_ne!(run(&["withdraw", "r2", "--tenant", "acme"]).0, Some(0));
    assert_eq!(run(&["check"]).0, Some(0));
}

/// The exit code of `mdl-api documents …`, and what it says on both outputs.
fn said(app: &TestApp, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(servers::binary("mdl-api"))
        .arg("documents")
        .args(arguments)
        .envs(app.environment())
        .output()
        .expect("mdl-api, which cargo build --workspace --bins makes");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}
