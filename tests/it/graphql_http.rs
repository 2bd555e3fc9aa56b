//! What others test servers with: the audits of npm graphql-http.

use std::process::Command;

use mdl::actor::Role;
use mdl_tests::{TestApp, root};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn every_audit_passes() {
    let folder = root().join("tests/clients");
    if Command::new("node").arg("--version").output().is_err() {
        eprintln!("skipped: node is missing, which runs the audits of graphql-http");
        return;
    }
    if !folder.join("node_modules/graphql-http").is_dir() {
        let installed = Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder).output();
        if !installed.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: npm ci in tests/clients failed: {installed:?}");
            return;
        }
    }
    let app = TestApp::start().await;
    let viewer = app.client(Role::Viewer).await;
    let url = format!("{}/graphql", app.base);
    let token = viewer.credential.clone().unwrap();
    let run = move || Command::new("node").arg("audits.js").args([url, token]).current_dir(folder).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(report, json!({ "audits": 61, "failed": [] }));
}
