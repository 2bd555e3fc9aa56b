//! What others test servers with: the audits of npm graphql-http.

use mdl::actor::Role;
use mdl_tests::{TestApp, clients};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn every_audit_passes() {
    if clients::folder().is_none() {
        return;
    }
    let app = TestApp::start().await;
    let viewer = app.client(Role::Viewer).await;
    let token = viewer.credential.unwrap();
    let report = clients::run("audits.js", &[&format!("{}/graphql", app.base), &token], "").await;
    assert_eq!(report, json!({ "audits": 61, "failed": [] }));
}
