//! What is sent to webhook endpoints, and what becomes of it.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Redirect};
use futures::{StreamExt, stream};
use mdl::actor::Role;
use mdl_tests::{Receiver, TestApp, eventually};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::webhooks::{deliveries, endpoint, endpoint_with, stamped, tell, until, until_state};

/// Fast enough for tests.
const QUICK: (&str, &str) = ("MDL_WEBHOOK_RETRY_SECONDS", "0,0");

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_as_the_standard_says() {
    let app = TestApp::start().await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::start().await;
    let headers =
        json!([{ "name": "X-Plain", "value": "open" }, { "name": "Authorization", "value": "Bearer s3cret", "secret": true }]);
    endpoint_with(&admin, json!({ "url": receiver.url, "headers": headers })).await;
    let event = stamped(&app, 7, "metric.created", json!({ "key": "METRIC-1" }));
    let tx = app.app.db.dispatch().await.unwrap();
    // However often the relay comes by.
    for _ in 0..2 {
        mdl::webhooks::owe(&tx, std::slice::from_ref(&event)).await.unwrap();
    }
    tx.commit().await.unwrap();

    let all = until_state(&admin, 1, "DELIVERED").await;
    let received = receiver.received();
    assert_eq!(received.len(), 1);
    let message = &received[0];
    assert_eq!(message.header("webhook-id"), all[0]["messageId"].as_str().unwrap());
    let age = chrono::Utc::now().timestamp() - message.header("webhook-timestamp").parse::<i64>().unwrap();
    assert!((0..60).contains(&age), "{age}");
    assert!(message.header("webhook-signature").starts_with("v1,"));
    assert_eq!((message.header("x-plain"), message.header("authorization")), ("open", "Bearer s3cret"));
    assert_eq!(message.header("content-type"), "application/json");
    assert_eq!(message.path, "/hook");
    let timestamp = event.occurred_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let body = json!({ "type": "metric.created", "timestamp": timestamp, "sequence": 7, "data": { "key": "METRIC-1" } });
    assert_eq!(message.json(), body);
    assert_eq!(all[0]["attempts"][0]["status"], 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attempt_is_repeated_with_the_same_id_and_body() {
    let app = TestApp::start_with(&[QUICK]).await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::answering(|number, _| match number {
        0 => (StatusCode::INTERNAL_SERVER_ERROR, "a\0b".repeat(3_000)).into_response(),
        1 => Redirect::to("https://elsewhere.example/").into_response(),
        _ => StatusCode::OK.into_response(),
    })
    .await;
    let failing = endpoint(&admin, &receiver.url).await;
    tell(&app, 1, "metric.created", json!({ "key": "M" })).await;

    let all = until_state(&admin, 1, "DELIVERED").await;
    let attempts = all[0]["attempts"].as_array().unwrap();
    let told: Vec<_> = attempts.iter().map(|attempt| (attempt["status"].clone(), attempt["errorClass"].clone())).collect();
    let expected = [(json!(500), json!("STATUS")), (json!(303), json!("REDIRECT")), (json!(200), Value::Null)];
    assert_eq!(told, expected);
    let kept = attempts[0]["response"].as_str().unwrap();
    assert!(kept.starts_with("a\u{fffd}b") && kept.chars().count() == 4_096, "{}", kept.len());
    let received = receiver.received();
    assert_eq!(received.len(), 3);
    assert!(received.iter().all(|one| one.header("webhook-id") == received[0].header("webhook-id")));
    assert!(received.iter().all(|one| one.body == received[0].body));
    let query = "query($id: ID!) { webhookEndpoint(id: $id) { failingSince statistics { attempts successRate pending p95Milliseconds } } }";
    let read = admin.ask(query, json!({ "id": failing.id })).await["webhookEndpoint"].clone();
    assert_eq!(read["failingSince"], Value::Null, "it works again");
    assert_eq!((&read["statistics"]["attempts"], &read["statistics"]["pending"]), (&json!(3), &json!(0)));
    assert!((read["statistics"]["successRate"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_attempt_somebody_may_ask_for_one_more() {
    let app = TestApp::start_with(&[QUICK]).await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let receiver =
        Receiver::answering(
            |number, _| {
                if number < 3 { StatusCode::BAD_GATEWAY.into_response() } else { StatusCode::OK.into_response() }
            },
        )
        .await;
    endpoint(&admin, &receiver.url).await;
    tell(&app, 1, "metric.created", json!({ "key": "M" })).await;
    let all = until_state(&admin, 1, "FAILED").await;
    assert_eq!(all[0]["attempts"].as_array().unwrap().len(), 3);
    assert_eq!(all[0]["nextAttemptAt"], Value::Null);

    let retried = admin.mutate("retryDelivery", json!({ "id": all[0]["id"] }), "delivery { state }").await;
    assert_eq!(retried.payload()["delivery"]["state"], "PENDING");
    let all = until_state(&admin, 1, "DELIVERED").await;
    assert_eq!(all[0]["attempts"][3]["number"], 4);
    let again = admin.mutate("retryDelivery", json!({ "id": all[0]["id"] }), "delivery { state }").await;
    assert_eq!(again.user_errors(), ["id: INVALID"]);
    let ids: std::collections::HashSet<_> = receiver.received().iter().map(|one| one.header("webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_asks_for_time_gets_it() {
    let app = TestApp::start_with(&[QUICK]).await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::answering(|number, _| match number {
        0 => {
            let mut answer = StatusCode::TOO_MANY_REQUESTS.into_response();
            answer.headers_mut().insert("retry-after", HeaderValue::from_static("2"));
            answer
        }
        _ => StatusCode::OK.into_response(),
    })
    .await;
    endpoint(&admin, &receiver.url).await;
    tell(&app, 1, "metric.created", json!({})).await;
    receiver.until(1).await;
    until(&admin, "the answer is written down", |all| !all[0]["attempts"].as_array().unwrap().is_empty()).await;
    // Others for the same receiver wait as well.
    tell(&app, 2, "metric.created", json!({})).await;
    until_state(&admin, 2, "DELIVERED").await;
    let received = receiver.received();
    assert_eq!(received.len(), 3);
    assert!(received[1..].iter().all(|one| one.at - received[0].at >= Duration::from_millis(1_900)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_one_more_attempt_does_not_wait_for_the_receivers_pause() {
    let app = TestApp::start_with(&[QUICK]).await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::answering(|number, _| match number {
        0 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "86400")]).into_response(),
        _ => StatusCode::OK.into_response(),
    })
    .await;
    endpoint(&admin, &receiver.url).await;
    tell(&app, 1, "metric.created", json!({})).await;
    let all = until(&admin, "the answer is written down", |all| !all[0]["attempts"].as_array().unwrap().is_empty()).await;
    let paused = "SELECT count(*) FROM webhook_endpoints WHERE not_before > now() + interval '23 hours'";
    assert_eq!(app.database.number(paused).await, 1);
    admin.mutate("retryDelivery", json!({ "id": all[0]["id"] }), "delivery { state }").await.data();
    until_state(&admin, 1, "DELIVERED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_gone_is_told_no_more() {
    let app = TestApp::start().await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::answering(|_, _| StatusCode::GONE.into_response()).await;
    let gone = endpoint(&admin, &receiver.url).await;
    tell(&app, 1, "metric.created", json!({})).await;
    let query = "query($id: ID!) { webhookEndpoint(id: $id) { enabled disabledReason } }";
    eventually("the endpoint is disabled", async || {
        let read = admin.ask(query, json!({ "id": gone.id })).await;
        (read["webhookEndpoint"] == json!({ "enabled": false, "disabledReason": "GONE" })).then_some(())
    })
    .await;
    tell(&app, 2, "metric.created", json!({})).await;
    let all = deliveries(&admin).await;
    assert_eq!((all.len(), &all[0]["state"], &all[0]["attempts"][0]["errorClass"]), (1, &json!("FAILED"), &json!("GONE")));
    assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE kind = 'webhook.endpoint.disabled'").await, 1);
    assert_eq!(
        app.database.number("SELECT count(*) FROM audit_log WHERE action = 'webhook.disabled' AND actor_kind = 'system'").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_for_five_days_is_disabled() {
    let app = TestApp::start_with(&[("MDL_WEBHOOK_RETRY_SECONDS", "0,86400")]).await;
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::answering(|_, _| StatusCode::INTERNAL_SERVER_ERROR.into_response()).await;
    endpoint(&admin, &receiver.url).await;
    let failing = "UPDATE webhook_endpoints SET failing_since = now() - interval '119 hours 30 minutes', last_failed_at = now() - interval '24 hours'";
    app.database.execute(failing).await;
    app.start_worker();
    tell(&app, 1, "metric.created", json!({})).await;
    until(&admin, "two attempts have failed", |all| all[0]["attempts"].as_array().unwrap().len() == 2).await;
    let days = "SELECT count(*) FROM webhook_endpoints WHERE enabled AND failing_since < now() - interval '119 hours'";
    assert_eq!(app.database.number(days).await, 1, "almost five days, and tried again every day");
    app.database.execute("UPDATE webhook_endpoints SET failing_since = now() - interval '121 hours'").await;
    tell(&app, 2, "metric.created", json!({})).await;
    eventually("it is disabled", async || {
        let failing = "SELECT count(*) FROM webhook_endpoints WHERE NOT enabled AND disabled_reason = 'failing'";
        (app.database.number(failing).await == 1).then_some(())
    })
    .await;
    let states = deliveries(&admin).await;
    assert!(states.iter().all(|delivery| delivery["state"] == "DISCARDED"), "{states:?}");
    assert_eq!(app.database.number("SELECT count(*) FROM outbox WHERE kind = 'webhook.endpoint.disabled'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failure_after_a_long_silence_is_the_first_anew() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::answering(|_, _| StatusCode::BAD_GATEWAY.into_response()).await;
    endpoint(&admin, &receiver.url).await;
    let long_ago =
        "UPDATE webhook_endpoints SET failing_since = now() - interval '6 days', last_failed_at = now() - interval '5 days'";
    app.database.execute(long_ago).await;
    app.start_worker();
    tell(&app, 1, "metric.created", json!({})).await;
    let all = until(&admin, "the attempt has failed", |all| !all[0]["attempts"].as_array().unwrap().is_empty()).await;
    assert_eq!(all[0]["state"], "PENDING", "it is tried again");
    let anew = "SELECT count(*) FROM webhook_endpoints WHERE enabled AND failing_since > now() - interval '1 minute'";
    assert_eq!(app.database.number(anew).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tests_and_our_own_faults_do_not_count_against_an_endpoint() {
    let app = TestApp::start_with(&[QUICK]).await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::answering(|_, _| StatusCode::BAD_GATEWAY.into_response()).await;
    let new = endpoint(&admin, &receiver.url).await;
    let test = json!({ "id": new.id, "kind": "metric.created" });
    admin.mutate("testWebhook", test, "delivery { id }").await.data();
    until_state(&admin, 1, "FAILED").await;
    app.database.execute("UPDATE webhook_secrets SET sealed = set_byte(sealed, 2, 255 - get_byte(sealed, 2))").await;
    tell(&app, 1, "metric.created", json!({})).await;
    let all = until_state(&admin, 2, "FAILED").await;
    assert_eq!(all[1]["attempts"][2]["errorClass"], "SECRET");
    let counted = "SELECT count(*) FROM webhook_endpoints WHERE failing_since IS NOT NULL OR last_failed_at IS NOT NULL";
    assert_eq!(app.database.number(counted).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_kept() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let (limited, free) = (Receiver::start().await, Receiver::start().await);
    endpoint_with(&admin, json!({ "url": limited.url, "rateLimit": 5 })).await;
    endpoint(&admin, &free.url).await;
    for sequence in 0..20 {
        tell(&app, sequence, "metric.created", json!({})).await;
    }
    // Two workers share the limit.
    app.start_worker();
    app.start_worker();
    let last_of_limited = limited.until(20).await[19].at;
    assert!(free.until(20).await.iter().all(|one| one.at < last_of_limited), "the free one does not wait for the other");
    until_state(&admin, 40, "DELIVERED").await;
    // By when they were taken, which the limit is about: requests may be held up on their way.
    let of_limited = "FROM webhook_attempts AS attempts JOIN webhook_endpoints AS endpoints ON endpoints.id = endpoint_id
                      WHERE rate_limit IS NOT NULL";
    let within_a_second = format!(
        "SELECT max(count) FROM (SELECT count(*) OVER (
             ORDER BY at RANGE BETWEEN CURRENT ROW AND interval '999 milliseconds' FOLLOWING) {of_limited}) AS each"
    );
    let most = app.database.number(&within_a_second).await;
    assert!(most <= 10, "{most} in a second: a second's worth may be saved up");
    let span = format!("SELECT (extract(epoch FROM max(at) - min(at)) * 1000)::bigint {of_limited}");
    assert!(app.database.number(&span).await >= 2_900);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_host_does_not_hold_up_others_and_keeps_its_attempts() {
    let app = TestApp::start_with(&[QUICK, ("MDL_WEBHOOK_TIMEOUT_SECONDS", "1"), ("MDL_WEBHOOK_CONCURRENCY", "8")]).await;
    let admin = app.client(Role::Admin).await;
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let good = Receiver::start().await;
    let hanging = endpoint(&admin, &format!("http://{}/", silent.local_addr().unwrap())).await;
    endpoint(&admin, &good.url).await;
    for sequence in 0..50 {
        tell(&app, sequence, "metric.created", json!({})).await;
    }
    app.start_worker();
    good.until(50).await;
    let of_hanging = |all: &[Value]| all.iter().filter(|one| one["endpoint"]["id"] == hanging.id).cloned().collect::<Vec<_>>();
    let count = |all: &[Value]| all.iter().map(|one| one["attempts"].as_array().unwrap().len()).sum::<usize>();
    let all = until(&admin, "the host is found silent", |all| count(&of_hanging(all)) >= 5).await;
    let classes: Vec<_> = of_hanging(&all).iter().flat_map(|one| one["attempts"].as_array().unwrap().clone()).collect();
    assert!(classes.iter().all(|attempt| attempt["errorClass"] == "TIMEOUT" && attempt["status"] == Value::Null));
    // Whatever was under way may end; then it rests, for ten seconds.
    let is_under_way = |one: &Value| one["state"] == "PENDING" && one["nextAttemptAt"].is_null();
    let all = until(&admin, "nothing is under way", |all| !all.iter().any(is_under_way)).await;
    let before = count(&all);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(count(&deliveries(&admin).await), before, "it is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_an_attempt_ends_with_the_status() {
    let app = TestApp::start_with(&[("MDL_WEBHOOK_TIMEOUT_SECONDS", "5")]).await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::answering(|_, _| {
        let begun = stream::once(async { Ok::<_, std::io::Error>("begun") });
        Body::from_stream(begun.chain(stream::pending())).into_response()
    })
    .await;
    endpoint(&admin, &receiver.url).await;
    tell(&app, 1, "metric.created", json!({})).await;
    let all = until_state(&admin, 1, "DELIVERED").await;
    let attempt = &all[0]["attempts"][0];
    assert_eq!((&attempt["status"], &attempt["response"]), (&json!(200), &json!("begun")));
    assert!(attempt["milliseconds"].as_i64().unwrap() < 5_000, "{attempt}");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_next_attempt_while_one_is_under_way() {
    let app = TestApp::start_with(&[("MDL_WEBHOOK_RETRY_SECONDS", "3600")]).await;
    let admin = app.client(Role::Admin).await;
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    endpoint(&admin, &format!("http://{}/", silent.local_addr().unwrap())).await;
    tell(&app, 1, "metric.created", json!({})).await;
    let waiting = deliveries(&admin).await;
    assert!(waiting[0]["nextAttemptAt"].is_string(), "{waiting:?}");
    app.start_worker();
    let all = until(&admin, "an attempt is under way", |all| all[0]["nextAttemptAt"].is_null()).await;
    assert_eq!((&all[0]["state"], &all[0]["attempts"]), (&json!("PENDING"), &json!([])));
    // Which resets the connection.
    drop(silent);
    let all = until(&admin, "it has failed", |all| !all[0]["attempts"].as_array().unwrap().is_empty()).await;
    assert!(all[0]["nextAttemptAt"].is_string(), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_cannot_be_decrypted_are_a_failed_attempt() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::start().await;
    endpoint(&admin, &receiver.url).await;
    app.database.execute("UPDATE webhook_secrets SET sealed = set_byte(sealed, 2, 255 - get_byte(sealed, 2))").await;
    app.start_worker();
    tell(&app, 1, "metric.created", json!({})).await;
    let all = until(&admin, "the attempt has failed", |all| !all[0]["attempts"].as_array().unwrap().is_empty()).await;
    assert_eq!((&all[0]["attempts"][0]["errorClass"], &all[0]["state"]), (&json!("SECRET"), &json!("PENDING")));
    assert!(receiver.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_deliveries_are_removed() {
    // The worker is not to be quicker.
    let app = TestApp::start_with(&[("MDL_WEBHOOK_RETENTION_DAYS", "60")]).await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::start().await;
    endpoint(&admin, &receiver.url).await;
    tell(&app, 1, "metric.created", json!({})).await;
    tell(&app, 2, "metric.created", json!({})).await;
    until_state(&admin, 2, "DELIVERED").await;
    app.database.execute("UPDATE webhook_deliveries SET finished_at = now() - interval '31 days' WHERE sequence = 1").await;
    let age = Duration::from_secs(30 * 24 * 3600);
    let tx = app.app.db.dispatch().await.unwrap();
    assert_eq!(mdl::webhooks::ledger::delete_finished(&tx, age, 100).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let left = deliveries(&admin).await;
    assert_eq!((left.len(), &left[0]["sequence"]), (1, &json!(2)));
    assert_eq!(app.database.number("SELECT count(*) FROM webhook_attempts").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_request_to_the_receiver() {
    let tracer = SdkTracerProvider::builder().build().tracer("test");
    tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(tracer)).init();
    let app = TestApp::start().await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::start().await;
    endpoint(&admin, &receiver.url).await;
    let create = "mutation { createMetric(input: { key: \"METRIC-1\", name: \"M\" }) { metric { id } } }";
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    admin.send_with(create, json!({}), &[("traceparent", &parent)]).await.data();
    let received = receiver.until(1).await;
    let told = received[0].header("traceparent");
    assert!(told.starts_with(&format!("00-{trace}-")) && told != parent, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_claimed_ahead_goes_back_when_a_receiver_fails_and_that_is_no_attempt() {
    const DELIVERIES: usize = 600;
    let app = TestApp::start_with(&[("MDL_WEBHOOK_RETRY_SECONDS", "0,0,0,0,0")]).await;
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::answering(|number, _| match number {
        300..303 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    })
    .await;
    endpoint(&admin, &receiver.url).await;
    let events: Vec<_> = (0..DELIVERIES as i64).map(|i| stamped(&app, i, "metric.created", json!({ "key": "M" }))).collect();
    let tx = app.app.db.dispatch().await.unwrap();
    mdl::webhooks::owe(&tx, &events).await.unwrap();
    tx.commit().await.unwrap();
    app.start_worker();

    eventually("all are delivered", async || {
        let delivered = "SELECT count(*) FROM webhook_deliveries WHERE state = 'delivered'";
        (app.database.number(delivered).await == DELIVERIES as i64).then_some(())
    })
    .await;
    assert_eq!(receiver.received().len(), DELIVERIES + 3);
    let miscounted = "SELECT count(*) FROM webhook_deliveries AS d
                      WHERE attempt <> (SELECT count(*) FROM webhook_attempts AS a WHERE a.delivery_id = d.id)";
    assert_eq!(app.database.number(miscounted).await, 0);
}
