//! Another tenant's admin, with every id of the first tenant in hand, sees nothing of it and changes nothing in it.

use mdl::actor::Role;
use mdl_tests::TestApp;
use serde_json::json;

use crate::root_fields::{MARK, MUTATIONS, QUERIES, Seed, call, fingerprint};

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_sees_nothing() {
    let app = TestApp::start().await;
    app.other_tenant().await;
    let seed = Seed::plant(&app).await;
    let own = app.client(Role::Admin).await;
    let stranger = app.client_of("globex", Role::Admin).await;
    let mut marked = 0;
    for field in QUERIES {
        let seen = call(&own, field, &seed).await.body.to_string();
        marked += usize::from(seen.to_uppercase().contains(MARK));
        let answer = call(&stranger, field, &seed).await;
        assert!(!answer.body.to_string().to_uppercase().contains(MARK), "{}: {}", field.name, answer.body);
        assert!(answer.status.is_success(), "{}: {}", field.name, answer.body);
    }
    // Or the test would pass for a server that answers nothing.
    assert!(marked >= QUERIES.len() - 8, "the owner sees the mark in {marked} of {} answers", QUERIES.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_changes_nothing() {
    let app = TestApp::start().await;
    let other = app.other_tenant().await;
    let seed = Seed::plant(&app).await;
    let stranger = app.client_of("globex", Role::Admin).await;
    let before = fingerprint(&app).await;
    for field in MUTATIONS.iter().filter(|field| !CREATES.contains(&field.name)) {
        let answer = call(&stranger, field, &seed).await;
        assert!(!answer.body.to_string().to_uppercase().contains(MARK), "{}: {}", field.name, answer.body);
    }
    // What the stranger did to itself does not count; there is nothing, since every id was somebody else's.
    assert_eq!(fingerprint(&app).await, before, "tenant {} changed something", other.slug);
}

/// These make something of the caller's own.
const CREATES: &[&str] = &[
    "createUser",
    "createApiKey",
    "createBusinessDomain",
    "createMetric",
    "createObjective",
    "importCatalog",
    "purgeCache",
    "revokeAllApiKeys",
    "publishDocuments",
    "pauseQueue",
    "resumeQueue",
    "setQueueConcurrency",
    "createWebhookEndpoint",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_same_keys_live_in_both_tenants() {
    let app = TestApp::start().await;
    app.other_tenant().await;
    let operation = "mutation($input: CreateMetricInput!) { createMetric(input: $input) { metric { key } userErrors { code } } }";
    for tenant in ["acme", "globex"] {
        let admin = app.client_of(tenant, Role::Admin).await;
        let answer = admin.send(operation, json!({ "input": { "key": "METRIC-CHURN", "name": tenant } })).await;
        assert_eq!(answer.user_errors(), Vec::<String>::new());
    }
    for tenant in ["acme", "globex"] {
        let admin = app.client_of(tenant, Role::Admin).await;
        let data = admin.ask("{ metrics(first: 10) { nodes { name } } }", json!({})).await;
        assert_eq!(data["metrics"]["nodes"], json!([{ "name": tenant }]));
    }
}
