//! People sign in, stay signed in, and stop being so when they should.

use mdl::actor::Role;
use mdl_tests::TestApp;
use serde_json::json;

const ME: &str = "{ me { user { email } } }";

#[tokio::test(flavor = "multi_thread")]
async fn smoke() {
    let app = TestApp::start().await;
    let viewer = app.client(Role::Viewer).await;
    assert_eq!(viewer.ask(ME, json!({})).await["me"]["user"]["email"], "viewer@example.com");
}
