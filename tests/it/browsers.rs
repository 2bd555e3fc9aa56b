//! What browsers are served, and what they are told.

use mdl_tests::{Answer, TestApp};
use reqwest::{Method, StatusCode};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_what_they_may_do() {
    let app = TestApp::start().await;
    for path in ["/graphql?query={__typename}", "/graphiql", "/health", "/nowhere", "/assets/nothing.js"] {
        let answer = app.anonymous().get(path).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("strict-transport-security"), None, "{path}: not behind TLS");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
    }
    assert_eq!(app.anonymous().get("/graphql?query={__typename}").await.header("cache-control"), Some("no-store"));
    let nowhere = app.anonymous().get("/nowhere").await;
    assert_eq!((nowhere.status, nowhere.error_code()), (StatusCode::NOT_FOUND, Some("NOT_FOUND")));
    for path in ["/assets/../graphiql.html", "/assets/%2e%2e/graphiql.html", "/assets/..%2f..%2fpackage.json"] {
        let answer = app.anonymous().get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_tls_browsers_are_told_to_stay_there() {
    let app = TestApp::start_with(&[("MDL_PUBLIC_URL", "https://mdl.example.com")]).await;
    let header = app.anonymous().get("/health").await.header("strict-transport-security").map(str::to_owned);
    assert_eq!(header.as_deref(), Some("max-age=63072000; includeSubDomains"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_named_origins_may_call() {
    let app = TestApp::start_with(&[("MDL_CORS_ORIGINS", "https://app.example.com,http://localhost:3000")]).await;
    let preflight = async |origin: &str| {
        let request = app.anonymous().http.request(Method::OPTIONS, format!("{}/graphql", app.base));
        let request = request.header("origin", origin).header("access-control-request-method", "POST");
        app.anonymous()
            .receive(request.header("access-control-request-headers", "authorization,content-type,apollographql-client-name"))
            .await
    };
    for origin in ["https://app.example.com", "http://localhost:3000"] {
        let answer = preflight(origin).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (StatusCode::OK, Some(origin)));
        let allowed = answer.header("access-control-allow-headers").unwrap();
        assert!(allowed.contains("authorization") && allowed.contains("apollographql-client-name"), "{allowed}");
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let sent = app.anonymous().send_with("{ __typename }", json!({}), &[("origin", origin)]).await;
        assert_eq!(sent.header("access-control-allow-origin"), Some(origin));
        assert!(sent.header("vary").unwrap_or_default().to_lowercase().contains("origin"));
    }
    for origin in ["https://evil.example.com", "https://app.example.com.evil.com", "null"] {
        assert_eq!(preflight(origin).await.header("access-control-allow-origin"), None, "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_served_with_its_assets() {
    let app = TestApp::start().await;
    let page = app.anonymous().get("/graphiql").await;
    if !mdl_tests::root().join("web/dist").is_dir() {
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE, "it says how to build it");
        return;
    }
    assert_eq!((page.status, page.header("cache-control")), (StatusCode::OK, Some("no-cache")));
    let html = page.body.as_str().unwrap();
    let script = html.split("src=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().trim_start_matches('.');
    let asset = app.anonymous().get(script).await;
    assert_eq!(
        (asset.status, asset.header("cache-control")),
        (StatusCode::OK, Some("public, max-age=31536000, immutable")),
        "{script}"
    );
    assert!(asset.header("content-type").unwrap().contains("javascript"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_not_built_says_how() {
    let app = TestApp::start_with(&[("MDL_WEB_DIR", "/nonexistent")]).await;
    let page: Answer = app.anonymous().get("/graphiql").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(page.body.as_str().unwrap().contains("npm run build"));
}
