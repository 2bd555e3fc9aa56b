//! What webhooks keep to themselves: the secrets of receivers, and what one tenant does from all others.

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::any;
use futures::future::join_all;
use mdl::actor::Role;
use mdl::events::Stamped;
use mdl_tests::{Receiver, TestApp};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::webhooks::{endpoint, endpoint_with, stamped, tell, until, until_state};

#[tokio::test(flavor = "multi_thread")]
async fn secret_headers_do_not_follow_an_endpoint_to_another_address() {
    let app = TestApp::start().await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let (ours, theirs) = (Receiver::start().await, Receiver::start().await);
    let header = |value: Option<&str>| json!([{ "name": "X-Gateway-Key", "value": value, "secret": true }]);
    let made = endpoint_with(&admin, json!({ "url": ours.url, "headers": header(Some("s3cret")) })).await;
    let change = async |url: &str, headers: Option<Value>| {
        let mut input = json!({ "id": made.id, "url": url });
        if let Some(headers) = headers {
            input["headers"] = headers;
        }
        admin.mutate("updateWebhookEndpoint", input, "endpoint { url }").await
    };
    let try_out = async || {
        let input = json!({ "id": made.id, "kind": "metric.created" });
        admin.mutate("testWebhook", input, "delivery { id }").await.data();
    };
    let other_scheme = ours.url.replacen("http:", "https:", 1);
    for (url, headers) in [(&theirs.url, None), (&theirs.url, Some(header(None))), (&other_scheme, None)] {
        let refused = change(url, headers).await;
        assert_eq!(refused.user_errors(), ["headers: REQUIRED"], "{}", refused.body);
        let message = refused.payload()["userErrors"][0]["message"].as_str().unwrap().to_lowercase();
        assert_eq!(message, "give the values of secret headers again when the address changes: x-gateway-key");
    }
    try_out().await;
    assert_eq!(ours.until(1).await[0].header("x-gateway-key"), "s3cret");
    assert!(theirs.received().is_empty(), "nothing has changed");

    assert_eq!(change(&format!("{}/v2?x=1", ours.url), None).await.user_errors(), [""; 0], "the same host");
    assert_eq!(change(&theirs.url, Some(header(Some("another")))).await.user_errors(), [""; 0]);
    try_out().await;
    assert_eq!(theirs.until(1).await[0].header("x-gateway-key"), "another");
    assert_eq!(change(&ours.url, Some(json!([]))).await.user_errors(), [""; 0], "without its headers it may go anywhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_say_how_a_message_is_sent_are_refused() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    for name in [
        "Accept-Encoding",
        "Connection",
        "Content-Length",
        "Content-Type",
        "Expect",
        "Host",
        "HTTP2-Settings",
        "Keep-Alive",
        "Proxy-Authorization",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
    ] {
        let input = json!({ "url": "https://receiver.example/", "headers": [{ "name": name, "value": "x" }] });
        let answer = admin.mutate("createWebhookEndpoint", input, "secret").await;
        assert_eq!(answer.user_errors(), ["headers.0.name: INVALID"], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_wrong_is_said_without_the_address() {
    let app = TestApp::start().await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    // Nobody listens there.
    endpoint(&admin, "http://127.0.0.1:1/s3cret?token=s3cret").await;
    tell(&app, 1, "metric.created", json!({})).await;
    let all = until(&admin, "the attempt has failed", |all| !all[0]["attempts"].as_array().unwrap().is_empty()).await;
    let attempt = &all[0]["attempts"][0];
    let error = attempt["error"].as_str().unwrap();
    assert_eq!(attempt["errorClass"], "CONNECT");
    assert!(!error.is_empty() && !error.contains("s3cret"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_so_many_endpoints_and_no_more() {
    let app = TestApp::start_with(&[("MDL_WEBHOOK_MAX_ENDPOINTS", "2")]).await;
    let admin = app.client(Role::Admin).await;
    let input = json!({ "url": "https://receiver.example/" });
    let at_once = (0..4).map(|_| admin.mutate("createWebhookEndpoint", input.clone(), "endpoint { id }"));
    let answers = join_all(at_once).await;
    let refused = answers.iter().filter(|answer| answer.user_errors() == [": TOO_MANY"]).count();
    assert_eq!(refused, 2, "however many come at once");
    assert_eq!(app.database.number("SELECT count(*) FROM webhook_endpoints").await, 2);
    let other = app.other_tenant().await;
    endpoint(&app.client_of(&other.slug, Role::Admin).await, "https://receiver.example/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_silent_to_one_tenant_is_there_for_another() {
    let app = TestApp::start_with(&[("MDL_WEBHOOK_RETRY_SECONDS", "0,0"), ("MDL_WEBHOOK_TIMEOUT_SECONDS", "3")]).await;
    let admin = app.client(Role::Admin).await;
    let other = app.other_tenant().await;
    let stranger = app.client_of(&other.slug, Role::Admin).await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router =
        Router::new().route("/silent", any(std::future::pending::<StatusCode>)).fallback(|| async { StatusCode::NO_CONTENT });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    endpoint(&admin, &format!("{base}/silent")).await;
    endpoint(&stranger, &format!("{base}/good")).await;
    for sequence in 0..10 {
        tell(&app, sequence, "metric.created", json!({})).await;
    }
    app.start_worker();
    let count = |all: &[Value]| all.iter().map(|one| one["attempts"].as_array().unwrap().len()).sum::<usize>();
    until(&admin, "the host is left alone", |all| count(all) >= 5).await;

    let start = Instant::now();
    let event = Stamped { tenant: other.id, ..stamped(&app, 1, "metric.created", json!({})) };
    let tx = app.app.db.dispatch().await.unwrap();
    mdl::webhooks::owe(&tx, &[event]).await.unwrap();
    tx.commit().await.unwrap();
    until_state(&stranger, 1, "DELIVERED").await;
    // The host rests for ten seconds at least.
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}
