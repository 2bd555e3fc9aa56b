//! What the tests of webhooks share.

use chrono::Utc;
use mdl::events::Stamped;
use mdl::ids::EventId;
use mdl_tests::{Client, TestApp, eventually};
use serde_json::{Value, json};

/// An endpoint that was made for a test.
pub struct Endpoint {
    pub id: String,
    pub secret: String,
}

/// Makes an endpoint, which must succeed.
pub async fn endpoint(client: &Client, url: &str) -> Endpoint {
    endpoint_with(client, json!({ "url": url })).await
}

pub async fn endpoint_with(client: &Client, input: Value) -> Endpoint {
    let answer = client.mutate("createWebhookEndpoint", input, "endpoint { id } secret").await;
    assert_eq!(answer.user_errors(), [""; 0], "{}", answer.body);
    let payload = answer.payload();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Endpoint { id: text(&payload["endpoint"]["id"]), secret: text(&payload["secret"]) }
}

/// Owes an event to whoever wants it, as the relay does.
pub async fn tell(app: &TestApp, sequence: i64, kind: &str, payload: Value) {
    let event = stamped(app, sequence, kind, payload);
    let tx = app.app.db.dispatch().await.unwrap();
    mdl::webhooks::owe(&tx, &[event]).await.unwrap();
    tx.commit().await.unwrap();
}

pub fn stamped(app: &TestApp, sequence: i64, kind: &str, payload: Value) -> Stamped {
    Stamped {
        tenant: app.tenant.id,
        sequence,
        id: EventId::new(),
        kind: kind.to_owned(),
        version: 1,
        subject: None,
        payload,
        actor: None,
        occurred_at: Utc::now(),
        trace_context: json!({}),
    }
}

/// All deliveries, the oldest first.
pub async fn deliveries(client: &Client) -> Vec<Value> {
    let query = "{ webhookDeliveries(last: 100) { nodes {
        id messageId kind sequence state origin replayOf nextAttemptAt endpoint { id }
        attempts { number status errorClass error response milliseconds } } } }";
    let data = client.ask(query, json!({})).await;
    let mut all = data["webhookDeliveries"]["nodes"].as_array().unwrap().clone();
    all.reverse();
    all
}

/// Waits until all deliveries are as wanted.
pub async fn until(client: &Client, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    eventually(what, async || Some(deliveries(client).await).filter(|all| wanted(all))).await
}

/// Waits until this many deliveries have all reached a state.
pub async fn until_state(client: &Client, count: usize, state: &str) -> Vec<Value> {
    let what = format!("{count} deliveries are {state}");
    until(client, &what, |all| all.len() == count && all.iter().all(|delivery| delivery["state"] == state)).await
}
