//! Whoever asks, and after whatever was written: a kept answer is the one that would be made now.

use std::collections::BTreeSet;

use mdl::actor::Role;
use mdl_tests::{Client, TestApp, eventually};
use serde_json::{Value, json};

use crate::cache::{source, started};
use crate::hearing::{live, undisturbed};
use crate::held_commits::HeldCommits;
use crate::root_fields::{MUTATIONS, Needs, QUERIES, Seed, call};

/// Root fields whose answers are never kept. The others are, for everybody who may ask.
const NEVER_KEPT: &[&str] = &[
    "me",
    "apiKeys",
    "import",
    "imports",
    "documents",
    "eventTypes",
    "eventCursor",
    "performanceStats",
    "queues",
    "jobs",
    "job",
    "workers",
    "schedules",
    "backups",
    "restoreDrills",
    "webhookEndpoint",
    "webhookEndpoints",
    "webhookDelivery",
    "webhookDeliveries",
];

/// Mutations after which none of [`WIDE`] may have changed.
const CHANGE_NOTHING_KEPT: &[&str] = &[
    "signIn",
    "refreshSession",
    "signOut",
    "changePassword",
    "createApiKey",
    "revokeApiKey",
    "revokeAllApiKeys",
    "importCatalog",
    "cancelImport",
    "publishDocuments",
    "withdrawDocument",
    "createWebhookEndpoint",
    "updateWebhookEndpoint",
    "rotateWebhookSecret",
    "testWebhook",
    "retryDelivery",
    "replayEvents",
    "disableWebhookEndpoint",
    "enableWebhookEndpoint",
    "deleteWebhookEndpoint",
    "purgeCache",
    "backUpNow",
    "retryJobs",
    "cancelJobs",
    "discardJobs",
    "rescheduleJobs",
    "pauseQueue",
    "resumeQueue",
    "setQueueConcurrency",
    "runScheduleNow",
    "pauseSchedule",
    "resumeSchedule",
];

/// Much of everything that can be kept.
const WIDE: &[(&str, &str)] = &[
    (
        "metrics",
        "{ metrics(first: 100) { totalCount nodes { id key name revision version description archivedAt updatedAt
             updatedBy { name role suspendedAt updatedAt } domain { name revision } keyResults { key revision }
             versions(first: 5) { nodes { version } } } } }",
    ),
    ("archived", "{ metrics(first: 100, filter: { archived: true }) { totalCount nodes { key revision archivedAt } } }"),
    (
        "domains",
        "{ businessDomains(first: 100) { totalCount nodes { key name revision description archivedAt metricCount
             metrics(first: 5) { nodes { key } } objectives(first: 5) { nodes { key } } createdBy { name } } } }",
    ),
    (
        "objectives",
        "{ objectives(first: 100) { totalCount nodes { key revision description archivedAt progress unresolvedMetricKeys
             keyResults { key revision currentValue status } metrics { key } domain { name } } } }",
    ),
    (
        "stats",
        "{ catalogStats { metricCount businessDomainCount objectiveCount byDomain { count domain { key } } byStatus { count } } }",
    ),
    ("users", "{ users(first: 100) { totalCount nodes { id name role suspendedAt updatedAt } } }"),
];

#[tokio::test(flavor = "multi_thread")]
async fn after_every_mutation_kept_answers_are_true() {
    let app = started(&[]).await;
    let (second, second_base) = app.another_api(&[]).await;
    live(&second).await;
    let (_, truth_base) = app.another_api(&[("MDL_CACHE_BYTES", "0")]).await;
    let seed = Seed::plant(&app).await;
    let admin = app.client(Role::Admin).await;
    let (second, truth) = (admin.at(&second_base), admin.at(&truth_base));
    for mutation in MUTATIONS {
        for _ in 0..2 {
            wide(&admin).await;
            wide(&second).await;
        }
        let before = wide(&truth).await;
        call(&admin, mutation, &seed).await;
        let after = wide(&truth).await;
        assert_eq!(wide(&admin).await, after, "{} where it was done", mutation.name);
        eventually("the other API knows it", async || (wide(&second).await == after).then_some(())).await;
        let changed = before != after;
        let expected = !CHANGE_NOTHING_KEPT.contains(&mutation.name);
        assert_eq!(changed, expected, "whether {} changes anything that is asked for here", mutation.name);
    }
}

async fn wide(client: &Client) -> Vec<(&'static str, Value)> {
    let mut answers = Vec::new();
    for (name, query) in WIDE {
        answers.push((*name, client.ask(query, json!({})).await));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_what_is_kept_for_others() {
    let app = started(&[]).await;
    let other = app.other_tenant().await;
    let (_, truth_base) = app.another_api(&[("MDL_CACHE_BYTES", "0")]).await;
    let seed = Seed::plant(&app).await;
    // The import has no worker, so nothing moves.
    let mut callers = Vec::new();
    for tenant in [&app.tenant, &other] {
        for role in [Role::Admin, Role::Editor, Role::Viewer] {
            callers.push((tenant, role, app.client_of(&tenant.slug, role).await));
        }
    }
    for field in QUERIES {
        for (tenant, role, client) in callers.iter().chain(callers.iter().rev()) {
            let answer = call(client, field, &seed).await;
            let truth = call(&client.at(&truth_base), field, &seed).await;
            assert_eq!(answer.body, truth.body, "{} for {role:?} of {}", field.name, tenant.slug);
            let kept = field.needs.allow(Some(*role)) && !NEVER_KEPT.contains(&field.name) && answer.body.get("errors").is_none();
            // Asks for all kinds of things, imports too.
            let kept = kept && field.name != "nodes";
            let again = undisturbed(&app.app, tenant.id, async || {
                call(client, field, &seed).await;
                call(client, field, &seed).await
            })
            .await;
            let expected = if kept { "HIT" } else { "BYPASS" };
            assert_eq!(source(&again), expected, "{} for {role:?} of {}", field.name, tenant.slug);
            assert_eq!(again.body, truth.body);
        }
    }
    let kept: BTreeSet<_> = QUERIES.iter().filter(|field| field.needs > Needs::SignedIn).map(|field| field.name).collect();
    assert!(kept.len() >= 10, "the test is about something");
}

/// Everybody finds themselves by their id, and not everybody finds others.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_kept_for_each_person() {
    let app = started(&[]).await;
    let viewer = app.client(Role::Viewer).await;
    let id = viewer.ask("{ me { user { id } } }", json!({})).await["me"]["user"]["id"].clone();
    let other = app.client(Role::Admin).await;
    let email = "colleague@example.com";
    let input = json!({ "email": email, "name": "C", "password": mdl_tests::app::PASSWORD, "role": "VIEWER" });
    assert_eq!(other.mutate("createUser", input, "").await.user_errors(), [""; 0]);
    let colleague = app.anonymous().sign_in("acme", email, mdl_tests::app::PASSWORD).await;
    for _ in 0..2 {
        let node = async |client: &Client| client.ask("query($id: ID!) { node(id: $id) { id } }", json!({ "id": id })).await;
        assert_eq!(node(&viewer).await["node"]["id"], id);
        assert_eq!(node(&colleague).await["node"], Value::Null);
    }
}

/// The worker writes as well.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_makes_kept_answers_old() {
    let app: TestApp = started(&[]).await;
    app.start_worker();
    let editor = app.client(Role::Editor).await;
    let query = "{ metrics(first: 10) { nodes { key } } }";
    for round in 0..3 {
        for _ in 0..2 {
            editor.ask(query, json!({})).await;
        }
        let text = format!("{{\"metrics\": [{{\"metric_id\": \"M-{round}\", \"name\": \"M {round}\"}}]}}");
        let answer = editor.mutate("importCatalog", json!({ "text": text, "fileName": "m.json" }), "import { id }").await;
        let id = answer.payload()["import"]["id"].clone();
        eventually("the import ends", async || {
            let data = editor.ask("query($id: ID!) { import(id: $id) { state } }", json!({ "id": id })).await;
            (data["import"]["state"] == "SUCCEEDED").then_some(())
        })
        .await;
        eventually("what another process wrote is known", async || {
            let nodes = editor.ask(query, json!({})).await["metrics"]["nodes"].as_array().unwrap().len();
            (nodes == round + 1).then_some(())
        })
        .await;
    }
}

/// A domain that was only a name gets its key while somebody writes a metric of it: who asks by the new key sees that as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_domain_gets_its_key_while_a_metric_of_it_is_written() {
    let app: TestApp = started(&[]).await;
    app.start_worker();
    let editor = app.client(Role::Editor).await;
    let import = async |text: Value| {
        let input = json!({ "text": text.to_string(), "fileName": "m.ndjson" });
        editor.mutate("importCatalog", input, "import { id }").await.payload()["import"]["id"].clone()
    };
    let ended = async |id: Value| {
        eventually("the import ends", async || {
            let data = editor.ask("query($id: ID!) { import(id: $id) { state } }", json!({ "id": id })).await;
            (data["import"]["state"] == "SUCCEEDED").then_some(())
        })
        .await;
    };
    ended(import(json!({ "metric_id": "M", "name": "M", "business_domain": "Growth" })).await).await;
    let id = editor.ask("{ metric(key: \"M\") { id } }", json!({})).await["metric"]["id"].clone();

    let held = HeldCommits::of(&app.database, "UPDATE").await;
    let writer = editor.clone();
    let written =
        tokio::spawn(async move { writer.write("updateMetric", json!({ "id": id, "description": "As written" })).await });
    held.one().await;
    let importing = import(json!({ "id": "D-7", "name": "Growth" })).await;
    let query = "{ metrics(filter: { domain: { in: [\"D-7\"] } }) { nodes { description } } }";
    let nodes = async || editor.ask(query, json!({})).await["metrics"]["nodes"].clone();
    eventually("the import waits, or has ended", async || {
        (held.hold_somebody_else_up().await || nodes().await != json!([])).then_some(())
    })
    .await;
    nodes().await;
    held.let_go().await;
    written.await.unwrap();
    ended(importing).await;
    eventually("what the worker wrote is known", async || (nodes().await != json!([])).then_some(())).await;
    assert_eq!(nodes().await, json!([{ "description": "As written" }]));
}
