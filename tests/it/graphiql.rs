//! The page that people explore the API with, in a real browser.

use mdl::actor::Role;
use mdl_tests::browser::Browser;
use mdl_tests::{PASSWORD, TestApp, email, root};
use serde_json::{Value, json};

/// What runs the operation. While one runs, the button stops it.
const EXECUTE: &str = ".graphiql-execute-button:not([aria-label^='Stop'])";

#[tokio::test(flavor = "multi_thread")]
async fn somebody_signs_in_and_runs_a_query() {
    let Some(browser) = Browser::start(1280, 800).await else { return };
    assert!(root().join("web/dist/graphiql.html").exists(), "build it: cd web && npm ci && npm run build");
    let app = TestApp::start().await;
    plant(&app).await;
    browser.open(&format!("{}/graphiql", app.base)).await;

    browser.write("#tenant", "acme").await;
    browser.write("#email", &email(Role::Viewer)).await;
    browser.write("#password", "not the password").await;
    browser.click("#sign-in").await;
    browser.wait_for_text("[role=alert]", "Wrong tenant").await;
    // The form selects the password, so that typing replaces it.
    browser.write("#password", PASSWORD).await;
    browser.click("#sign-in").await;
    browser.wait_for_text("header .who", "The viewer").await;

    browser.click_until(EXECUTE, ".result-window", "Monthly recurring revenue").await;
    let third_tab = ".graphiql-tab:nth-child(3) button";
    browser.click_until(third_tab, ".graphiql-query-editor .CodeMirror", "query Objectives").await;
    browser.click_until(EXECUTE, ".result-window", "Grow the business").await;
    // The documentation comes from the schema.
    browser.click("[aria-label='Show Documentation Explorer']").await;
    browser.wait_for_text(".graphiql-doc-explorer-content", "Query").await;

    // A click that was too early sent the name of the first tab's operation, which is 400.
    let mut complaints = browser.complaints().await;
    complaints.retain(|complaint| !complaint.contains("/graphql - Failed to load resource"));
    assert_eq!(complaints, [""; 0], "the policy of the page is kept");
    browser.click("#sign-out").await;
    browser.wait_for("#sign-in").await;
    let kept = browser.script("return JSON.stringify(sessionStorage)").await;
    assert_eq!(kept, "{}", "the tokens are forgotten");
    let ended = "SELECT count(*) FROM sessions WHERE revoked_reason = 'signed_out'";
    mdl_tests::eventually("the session ends", async || (app.database.number(ended).await == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_hears_of_a_change() {
    let Some(browser) = Browser::start(1280, 800).await else { return };
    let app = TestApp::start().await;
    app.start_worker();
    let editor = app.client(Role::Editor).await;
    editor.write("createMetric", json!({ "key": "METRIC-BEFORE", "name": "Before" })).await;
    browser.open(&format!("{}/graphiql", app.base)).await;
    browser.write("#tenant", "acme").await;
    browser.write("#email", &email(Role::Viewer)).await;
    browser.write("#password", PASSWORD).await;
    browser.click("#sign-in").await;
    browser.wait_for_text("header .who", "The viewer").await;

    // From the beginning of the stream, so that the first event tells that it listens.
    let subscription =
        format!("subscription Changes {{ catalogChanged(after: \"{}\") {{ key }} }}", mdl::page::cursor(&json!({ "event": 0 })));
    browser.wait_for(".graphiql-query-editor .CodeMirror").await;
    let editor_of_page = "document.querySelector('.graphiql-query-editor .CodeMirror').CodeMirror";
    browser.script(&format!("{editor_of_page}.setValue({})", json!(subscription))).await;
    browser.click_until(EXECUTE, ".result-window", "METRIC-BEFORE").await;
    editor.write("createMetric", json!({ "key": "METRIC-AFTER", "name": "After" })).await;
    browser.wait_for_text(".result-window", "METRIC-AFTER").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_starter_works() {
    let app = TestApp::start().await;
    plant(&app).await;
    let editor = app.client(Role::Editor).await;
    let starters = starters();
    assert!(starters.len() >= 4, "{starters:?}");
    for (query, variables) in starters {
        let answer = editor.send(&query, variables).await;
        let data = answer.data();
        let payload = data.as_object().unwrap().values().next().unwrap().clone();
        assert!(!payload.is_null(), "{query} finds something in the sample catalog");
        assert!(payload["userErrors"].as_array().is_none_or(|errors| errors.is_empty()), "{query}: {payload}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_starters_name_what_the_sample_catalog_has() {
    let mut catalog = String::new();
    for file in std::fs::read_dir(root().join("ops/sample-catalog")).unwrap() {
        catalog.push_str(&std::fs::read_to_string(file.unwrap().path()).unwrap());
    }
    for (query, variables) in starters() {
        if let Some(key) = variables["key"].as_str() {
            assert!(catalog.contains(&format!("metric_id: {key}\n")), "{key}, of {query}");
        }
    }
}

/// What the starters look for, as the sample catalog has it.
async fn plant(app: &TestApp) {
    let editor = app.client(Role::Editor).await;
    let key = starters().iter().find_map(|(_, variables)| variables["key"].as_str().map(str::to_owned)).unwrap();
    editor.write("createMetric", json!({ "key": key, "name": "Monthly recurring revenue" })).await;
    let objective = editor.write("createObjective", json!({ "key": "OBJ-1", "name": "Grow the business" })).await;
    let key_result = json!({ "objectiveId": objective["id"], "key": "KR-1", "name": "More of it", "metricKeys": [key] });
    editor.write("createKeyResult", key_result).await;
}

/// The operations in web/src/starters.ts, with their variables. They are template strings without substitutions.
fn starters() -> Vec<(String, Value)> {
    let source = std::fs::read_to_string(root().join("web/src/starters.ts")).unwrap();
    let text = |after: &str| after.split('`').next().unwrap().replace("\\\\", "\\").to_owned();
    let starters = source.split("    query: `").skip(1).map(|starter| {
        let variables = starter.split_once("    variables: `").map(|(_, rest)| text(rest));
        let variables = variables.map(|text| serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")));
        (text(starter), variables.unwrap_or_else(|| json!({})))
    });
    starters.collect()
}
