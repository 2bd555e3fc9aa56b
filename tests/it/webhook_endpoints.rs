//! What people do with webhook endpoints.

use mdl::actor::Role;
use mdl::sealing::{Sealer, SealingKey};
use mdl::webhooks::endpoints::{self, Draft};
use mdl::webhooks::secrets;
use mdl::{App, Error};
use mdl_tests::app::WEBHOOK_KEY;
use mdl_tests::{Receiver, TestApp};
use serde_json::{Value, json};

use crate::subscriptions::told;
use crate::webhooks::{endpoint, endpoint_with, tell, until_state};

const ALL: &str =
    "id url description eventKinds filter { domains tags tiers changedFields } headers { name value secret } rateLimit
    enabled disabledReason revision secrets { createdAt expiresAt }";

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_made_changed_and_removed() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let input = json!({
        "url": "https://receiver.example/hooks#x", "description": "Tests", "eventKinds": ["metric.created"],
        "filter": { "tags": ["a"] }, "rateLimit": 5,
        "headers": [{ "name": "X-Gateway", "value": "open" }, { "name": "Authorization", "value": "Bearer s3cret", "secret": true }],
    });
    let made = endpoint_with(&admin, input).await;
    assert!(made.secret.starts_with("whsec_") && made.secret.len() == 50, "32 bytes in Base64");

    let query = format!("query($id: ID!) {{ webhookEndpoint(id: $id) {{ {ALL} }} }}");
    let read = admin.ask(&query, json!({ "id": made.id })).await["webhookEndpoint"].clone();
    assert_eq!(read["url"], "https://receiver.example/hooks");
    let headers = json!([{ "name": "x-gateway", "value": "open", "secret": false }, { "name": "authorization", "value": null, "secret": true }]);
    assert_eq!(read["headers"], headers);
    assert_eq!((&read["enabled"], &read["revision"], &read["rateLimit"]), (&json!(true), &json!(1), &json!(5)));
    assert_eq!(read["filter"], json!({ "domains": [], "tags": ["a"], "tiers": [], "changedFields": [] }));
    assert_eq!(read["secrets"].as_array().unwrap().len(), 1);
    let stored = app.database.text("SELECT row::text FROM webhook_endpoints AS row").await.unwrap();
    let sealed = app.database.text("SELECT encode(sealed, 'escape') FROM webhook_secrets").await.unwrap();
    assert!(!stored.contains("s3cret") && !sealed.contains(&made.secret[6..]), "secrets are encrypted");

    // A secret header keeps its value when none is given.
    let change = json!({
        "id": made.id, "expectedVersion": 1, "description": "More", "rateLimit": null,
        "headers": [{ "name": "Authorization" }],
    });
    let changed = admin.mutate("updateWebhookEndpoint", change.clone(), &format!("endpoint {{ {ALL} }}")).await;
    assert_eq!(changed.user_errors(), [""; 0]);
    let changed = changed.payload()["endpoint"].clone();
    assert_eq!(changed["headers"], json!([{ "name": "authorization", "value": null, "secret": true }]));
    assert_eq!(
        (&changed["revision"], &changed["rateLimit"], &changed["eventKinds"]),
        (&json!(2), &Value::Null, &json!(["metric.created"]))
    );
    let conflict = admin.mutate("updateWebhookEndpoint", change, "endpoint { id }").await;
    assert_eq!(conflict.user_errors(), ["expectedVersion: VERSION_CONFLICT"]);

    let off = admin.mutate("disableWebhookEndpoint", json!({ "id": made.id }), "endpoint { enabled disabledReason }").await;
    assert_eq!(off.payload()["endpoint"], json!({ "enabled": false, "disabledReason": "BY_HAND" }));
    let on =
        admin.mutate("enableWebhookEndpoint", json!({ "id": made.id }), "endpoint { enabled disabledReason revision }").await;
    assert_eq!(on.payload()["endpoint"], json!({ "enabled": true, "disabledReason": null, "revision": 4 }));
    let gone = admin.mutate("deleteWebhookEndpoint", json!({ "id": made.id }), "deletedId").await;
    assert_eq!(gone.payload()["deletedId"], made.id);
    assert_eq!(admin.ask(&query, json!({ "id": made.id })).await["webhookEndpoint"], Value::Null);

    let audited =
        app.database.text("SELECT string_agg(action, ' ' ORDER BY id) FROM audit_log WHERE action LIKE 'webhook.%'").await;
    let expected = "webhook.created webhook.updated webhook.disabled webhook.enabled webhook.deleted";
    assert_eq!(audited.as_deref(), Some(expected));
    assert_eq!(app.database.number("SELECT count(*) FROM audit_log WHERE details::text LIKE '%cret%'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_endpoint_is_said() {
    let app = TestApp::start_with(&[("MDL_WEBHOOK_ALLOW", "localhost:3000")]).await;
    let admin = app.client(Role::Admin).await;
    for (url, right) in [
        ("https://receiver.example/", true),
        ("http://localhost:3000/", true),
        ("http://receiver.example/", false),
        ("https://localhost:3001/", false),
        ("https://127.0.0.1/", false),
        ("https://2130706433/", false),
        ("https://[::ffff:169.254.169.254]/", false),
        ("https://user:password@receiver.example/", false),
        ("nonsense", false),
    ] {
        let answer = admin.mutate("createWebhookEndpoint", json!({ "url": url }), "secret").await;
        let expected: &[&str] = if right { &[] } else { &["url: INVALID"] };
        assert_eq!(answer.user_errors(), expected, "{url}");
    }
    let input = json!({
        "url": "https://receiver.example/", "rateLimit": 0, "eventKinds": [""],
        "headers": [
            { "name": "webhook-id", "value": "x" }, { "name": "no spaces", "value": "x" },
            { "name": "x-a", "value": "two\nlines" }, { "name": "x-b" }, { "name": "x-c", "secret": false },
        ],
    });
    let answer = admin.mutate("createWebhookEndpoint", input, "secret").await;
    let expected = [
        "eventKinds.0: NOT_FOUND",
        "headers.0.name: INVALID",
        "headers.1.name: INVALID",
        "headers.2.value: INVALID",
        "headers.3.value: REQUIRED",
        "headers.4.value: REQUIRED",
        "rateLimit: OUT_OF_RANGE",
    ];
    assert_eq!(answer.user_errors(), expected, "{}", answer.body);

    let filter = json!({ "tiers": ["TIER_1", "tier_9"], "changedFields": ["definition", "nonsense.x"] });
    let input = json!({ "url": "https://receiver.example/", "filter": filter });
    let answer = admin.mutate("createWebhookEndpoint", input, "secret").await;
    let expected = ["filter.tiers.1: NOT_FOUND", "filter.changedFields.1: NOT_FOUND"];
    assert_eq!(answer.user_errors(), expected, "{}", answer.body);
    assert!(answer.body.to_string().contains("There are: tier_1, tier_2, tier_3"), "{}", answer.body);

    let without_key = App { sealer: Sealer::new(&[]), ..app.app.clone() };
    let draft = Draft { url: "https://receiver.example/".to_owned(), ..Draft::default() };
    let error = endpoints::create(&without_key, &app.system(), draft).await.map(drop).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }) && error.to_string().contains("MDL_WEBHOOK_KEYS is not set"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_told_what_they_want() {
    let app = TestApp::start().await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let (all, some, off) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    endpoint(&admin, &all.url).await;
    let filter = json!({ "domains": ["DOMAIN-GROWTH"], "changedFields": ["definition"] });
    endpoint_with(&admin, json!({ "url": some.url, "eventKinds": ["metric.updated"], "filter": filter })).await;
    let disabled = endpoint(&admin, &off.url).await;
    admin.mutate("disableWebhookEndpoint", json!({ "id": disabled.id }), "").await;

    let payload = |domain: &str, field: &str| json!({ "domain": { "key": domain }, "changedFields": [field] });
    tell(&app, 1, "metric.updated", payload("DOMAIN-GROWTH", "definition.formula")).await;
    tell(&app, 2, "metric.updated", payload("DOMAIN-GROWTH", "name")).await;
    tell(&app, 3, "metric.updated", payload("DOMAIN-OTHER", "definition.formula")).await;
    tell(&app, 4, "metric.created", payload("DOMAIN-GROWTH", "definition.formula")).await;
    until_state(&admin, 5, "DELIVERED").await;
    let sequences = |receiver: &Receiver| {
        let mut sequences: Vec<_> = receiver.received().iter().map(|one| one.json()["sequence"].as_i64().unwrap()).collect();
        sequences.sort_unstable();
        sequences
    };
    assert_eq!((sequences(&all), sequences(&some), sequences(&off)), (vec![1, 2, 3, 4], vec![1], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_takes_what_people_call_things() {
    let app = TestApp::start().await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::start().await;
    let filter = json!({ "domains": ["Customer Care"], "tiers": ["TIER_1"] });
    let made = endpoint_with(&admin, json!({ "url": receiver.url, "filter": filter })).await;
    let query = "query($id: ID!) { webhookEndpoint(id: $id) { filter { tiers } } }";
    let stored = admin.ask(query, json!({ "id": made.id })).await["webhookEndpoint"]["filter"].clone();
    assert_eq!(stored, json!({ "tiers": ["tier_1"] }));
    let payload = |tier: &str| json!({ "domain": { "key": "DOMAIN-CARE", "name": "Customer Care" }, "tier": tier });
    tell(&app, 1, "metric.updated", payload("tier_2")).await;
    tell(&app, 2, "metric.updated", payload("tier_1")).await;
    until_state(&admin, 1, "DELIVERED").await;
    assert_eq!(receiver.received()[0].json()["sequence"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_of_what_the_endpoint_is_told_of() {
    let app = TestApp::start().await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let made = endpoint_with(&admin, json!({ "url": Receiver::start().await.url, "eventKinds": ["metric.created"] })).await;
    let metric = admin.write("createMetric", json!({ "key": "M", "name": "M" })).await["id"].clone();
    admin.write("updateMetric", json!({ "id": metric, "name": "N" })).await;
    told(&app, 2).await;
    let replay = async |from: i64, to: i64, kinds: Value| {
        let input = json!({ "id": made.id, "from": from, "to": to, "kinds": kinds });
        admin.mutate("replayEvents", input, "count").await
    };
    for (kinds, count) in [
        (Value::Null, 1),
        (json!(["metric.created"]), 1),
        (json!(["metric.created", "metric.updated"]), 1),
        (json!(["metric.updated"]), 0),
    ] {
        assert_eq!(replay(1, 2, kinds.clone()).await.payload()["count"], count, "{kinds}");
    }
    for (from, to, kinds, expected) in
        [(1, 2, json!([]), "kinds: REQUIRED"), (0, 2, Value::Null, "from: OUT_OF_RANGE"), (2, 1, Value::Null, "to: OUT_OF_RANGE")]
    {
        assert_eq!(replay(from, to, kinds).await.user_errors(), [expected]);
    }
    let replayed = "SELECT count(*) FROM webhook_deliveries WHERE origin = 'replay'";
    assert_eq!(app.database.number(replayed).await, 3, "and nothing of what was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_secrets_can_be_changed() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::start().await;
    let headers = json!([{ "name": "authorization", "value": "Bearer s3cret", "secret": true }]);
    endpoint_with(&admin, json!({ "url": receiver.url, "headers": headers })).await;
    let key = |text: &str| text.parse::<SealingKey>().unwrap();
    let (old, new) = (key(WEBHOOK_KEY), key("bmV3IGtleSBvZiBhbGwgdGhlIHRlc3RzLCAzMiBieXQ="));
    let both = App { sealer: Sealer::new(&[new.clone(), old]), ..app.app.clone() };
    assert_eq!(secrets::reseal(&both).await.unwrap(), 2, "a secret and a header");
    assert_eq!(secrets::reseal(&both).await.unwrap(), 0);

    let only_new = App { sealer: Sealer::new(&[new]), ..app.app.clone() };
    app.start_worker_of(only_new);
    tell(&app, 1, "metric.created", json!({})).await;
    until_state(&admin, 1, "DELIVERED").await;
    assert_eq!(receiver.received()[0].header("authorization"), "Bearer s3cret");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_has_its_limits() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let made = endpoint(&admin, "https://receiver.example/").await;
    let rotate = async |hours: u32| {
        let input = json!({ "id": made.id, "overlapHours": hours });
        admin.mutate("rotateWebhookSecret", input, "secret endpoint { secrets { expiresAt } }").await
    };
    assert_eq!(rotate(169).await.user_errors(), ["overlapHours: OUT_OF_RANGE"]);
    for count in 2..=5 {
        let answer = rotate(24).await;
        assert_eq!(answer.payload()["endpoint"]["secrets"].as_array().unwrap().len(), count, "{}", answer.body);
    }
    assert_eq!(rotate(24).await.user_errors(), ["overlapHours: TOO_MANY"]);
    let answer = rotate(0).await;
    assert_eq!(answer.payload()["endpoint"]["secrets"], json!([{ "expiresAt": null }]));
}
