//! The load test itself, with few users and for a moment: what it asks must be what the API answers.

use std::process::{Command, Output};

use mdl::actor::Role;
use mdl_tests::servers::binary;
use mdl_tests::{PASSWORD, TestApp, email};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_short_load_finds_no_errors() {
    let app = TestApp::start().await;
    fill(&app).await;
    let report = std::env::temp_dir().join(format!("mdl-load-{}.html", uuid::Uuid::now_v7()));
    // Writes for each of the documents: a tenth of 300 requests.
    let run =
        run_load(&app, &["steady", "--rate", "100", "--seconds", "3", "--writes", "0.1", "--report", report.to_str().unwrap()]);
    let (said, complained) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    // How fast this machine is now does not matter here, nor what is left out because of it.
    let mut errors = said.lines().filter(|line| line.starts_with("error, "));
    assert!(errors.next().is_none() && matches!(run.status.code(), Some(0 | 1)), "{said}\n{complained}");
    for document in
        ["metric ", "metrics ", "search ", "objectives ", "domain ", "reportProgress ", "hit rate of the response cache"]
    {
        assert!(said.lines().any(|line| line.starts_with(document)), "{document} in\n{said}");
    }
    let html = std::fs::read_to_string(&report).unwrap();
    std::fs::remove_file(&report).unwrap();
    assert!(html.contains("objectives"), "the report names the documents");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_without_anything_to_ask_for_says_so() {
    let app = TestApp::start().await;
    let run = run_load(&app, &["steady", "--seconds", "1"]);
    assert_eq!(run.status.code(), Some(2));
    let complained = String::from_utf8_lossy(&run.stderr);
    assert!(complained.contains("the catalog of acme: there must be metrics"), "{complained}");
}

fn run_load(app: &TestApp, arguments: &[&str]) -> Output {
    Command::new(binary("mdl-load"))
        .args(arguments)
        .args(["--url", &app.base, "--tenants", "acme", "--email", &email(Role::Admin), "--users", "20"])
        .env("MDL_LOAD_PASSWORD", PASSWORD)
        .output()
        .expect("mdl-load, which cargo build --workspace --bins makes")
}

async fn fill(app: &TestApp) {
    let editor = app.client(Role::Editor).await;
    editor.write("createBusinessDomain", json!({ "key": "DOMAIN-GROWTH", "name": "Growth" })).await;
    for number in 0..5 {
        let key = format!("METRIC-{number}");
        let input = json!({
            "key": key, "name": format!("Retention {number}"), "tags": ["retention"], "tier": "TIER_1", "domain": "DOMAIN-GROWTH",
        });
        editor.write("createMetric", input).await;
    }
    let objective = editor.write("createObjective", json!({ "key": "OBJ-1", "name": "Grow" })).await["id"].clone();
    let result = json!({ "objectiveId": objective, "key": "KR-1", "name": "More", "metricKeys": ["METRIC-1"], "targetValue": 9 });
    editor.write("createKeyResult", result).await;
}
