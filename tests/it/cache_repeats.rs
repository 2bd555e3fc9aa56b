//! Requests that are the same byte for byte as ones before. The API knows them again, and nobody is to notice but for the time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::stream;
use mdl::App;
use mdl::actor::Role;
use mdl::ids::TenantId;
use mdl_tests::{Answer, Client, eventually};
use reqwest::{Body, StatusCode};
use serde_json::{Value, json};

use crate::api_keys;
use crate::cache::{source, started};
use crate::documents::publish;
use crate::hearing::{Hearing, live, undisturbed};

const DOMAINS: &str = "query Domains { businessDomains(first: 5) { nodes { key name } } }";
/// How often a request is sent until it is surely known: made, found, known.
const TIMES: usize = 4;

async fn add_domain(editor: &Client, key: &str) {
    editor.write("createBusinessDomain", json!({ "key": key, "name": key })).await;
}

/// What an answer says, without what differs from answer to answer.
fn said(answer: &Answer) -> (StatusCode, BTreeMap<String, String>, Value) {
    let headers = answer.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let same = headers.filter(|(name, _)| !["x-request-id", "age", "date"].contains(&name.as_str()));
    (answer.status, same.collect(), answer.body.clone())
}

/// Sends until the request is surely known, and returns all answers.
async fn send_all(app: &App, tenant: TenantId, send: impl AsyncFn() -> Answer) -> Vec<Answer> {
    undisturbed(app, tenant, async || {
        let mut answers = Vec::new();
        for _ in 0..TIMES {
            answers.push(send().await);
        }
        answers
    })
    .await
}

/// The same, and returns the last answer.
pub async fn repeat(app: &App, tenant: TenantId, send: impl AsyncFn() -> Answer) -> Answer {
    let answer = send_all(app, tenant, send).await.pop().unwrap();
    assert_eq!(source(&answer), "HIT", "{answer:?}");
    answer
}

/// Asks until it is refused. What a process knows of credentials and published documents is less than a second old.
async fn refused_soon(ask: impl AsyncFn() -> Answer, code: &str) {
    let since = Instant::now();
    eventually("it is refused", async || {
        let asked = since.elapsed();
        let refused = ask().await.error_code() == Some(code);
        assert!(refused || asked < Duration::from_secs(2), "still not refused {asked:?} after");
        refused.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_is_answered_alike() {
    let app = started(&[("MDL_CORS_ORIGINS", "https://pages.example")]).await;
    let editor = app.client(Role::Editor).await;
    add_domain(&editor, "DOMAIN-A").await;
    let url = format!("{}/graphql", app.base);
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("query", DOMAINS).finish();
    let body = json!({ "query": DOMAINS }).to_string();
    let post = || editor.http.post(&url).header("content-type", "application/json").body(body.clone());
    let get = || editor.http.get(format!("{url}?{query}"));
    let in_pieces = || {
        let (one, two) = body.split_at(9);
        let pieces = [Ok::<_, std::io::Error>(one.to_owned()), Ok(two.to_owned())];
        let length = body.len().to_string();
        let request = editor.http.post(&url).header("content-type", "application/json").header("content-length", length);
        request.body(Body::wrap_stream(stream::iter(pieces)))
    };
    let first = repeat(&app.app, app.tenant.id, async || editor.receive(get()).await).await;
    let etag = first.header("etag").unwrap().to_owned();
    let requests: [(&str, &dyn Fn() -> reqwest::RequestBuilder); 6] = [
        ("POST", &post),
        ("a body in pieces", &in_pieces),
        ("GET", &get),
        ("compressed", &|| post().header("accept-encoding", "br")),
        ("another type, for a page", &|| {
            post().header("accept", "application/graphql-response+json").header("origin", "https://pages.example")
        }),
        ("GET of what is there", &|| get().header("if-none-match", &etag)),
    ];
    for (name, request) in requests {
        let send = async || editor.receive(request().header("x-request-id", "as-sent")).await;
        let answers = send_all(&app.app, app.tenant.id, send).await;
        assert!(answers.iter().all(|answer| answer.header("x-request-id") == Some("as-sent")), "{name}");
        let said: Vec<_> = answers.iter().filter(|answer| source(answer) == "HIT").map(said).collect();
        assert!(said.len() >= TIMES - 1 && said.iter().all(|one| *one == said[0]), "{name}: {said:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_seen_at_once() {
    let app = started(&[]).await;
    let editor = app.client(Role::Editor).await;
    for count in 1..=5 {
        add_domain(&editor, &format!("DOMAIN-{count}")).await;
        let at_once = editor.send(DOMAINS, json!({})).await;
        let known = repeat(&app.app, app.tenant.id, async || editor.send(DOMAINS, json!({})).await).await;
        for answer in [at_once, known] {
            assert_eq!(answer.data()["businessDomains"]["nodes"].as_array().unwrap().len(), count);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_ends_is_refused_within_a_second() {
    let app = started(&[]).await;
    let viewer = app.client(Role::Viewer).await;
    let key = api_keys::create(&viewer, &["CATALOG_READ"]).await;
    let hearing = Hearing::of(&[&app.app]).await;
    let program = viewer.with(api_keys::text(&key));
    for client in [&viewer, &program] {
        repeat(&app.app, app.tenant.id, async || client.send(DOMAINS, json!({})).await).await;
    }
    api_keys::revoke(&viewer, &key.payload()["apiKey"]["id"]).await.data();
    refused_soon(async || program.send(DOMAINS, json!({})).await, "UNAUTHENTICATED").await;
    let others = viewer.send(DOMAINS, json!({})).await;
    assert!(source(&others) == "HIT" || (source(&others) == "MISS" && !hearing.held()), "{others:?}");
    let other = app.other_tenant().await;
    add_domain(&app.client(Role::Editor).await, "DOMAIN-OURS").await;
    let stranger = app.client_of(&other.slug, Role::Viewer).await;
    let theirs = repeat(&app.app, other.id, async || stranger.send(DOMAINS, json!({})).await).await;
    assert_eq!(theirs.data(), json!({ "businessDomains": { "nodes": [] } }));
}

#[tokio::test(flavor = "multi_thread")]
async fn published_documents_are_known_until_they_are_withdrawn() {
    let app = started(&[]).await;
    let (admin, viewer) = (app.client(Role::Admin).await, app.client(Role::Viewer).await);
    let (strict, base) = app.another_api(&[("MDL_DOCUMENTS_MODE", "trusted-only")]).await;
    live(&strict).await;
    let published = publish(&admin, &json!({ "domains": DOMAINS }).to_string()).await;
    let viewer = viewer.at(&base);
    let ask = async || viewer.post(&json!({ "documentId": "domains" })).await;
    repeat(&strict, app.tenant.id, ask).await;
    let withdraw = json!({ "id": published.payload()["documents"][0]["id"] });
    admin.mutate("withdrawDocument", withdraw, "document { id }").await.data();
    refused_soon(ask, "DOCUMENT_NOT_FOUND").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeating_is_limited_as_asking_is() {
    let app = started(&[("MDL_RATE_LIMIT_PER_SECOND", "1"), ("MDL_RATE_LIMIT_BURST", "10")]).await;
    let viewer = app.client(Role::Viewer).await;
    let start = Instant::now();
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(viewer.send(DOMAINS, json!({})).await);
    }
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS).collect();
    // One more may be sent each second.
    let least = 9_u64.saturating_sub(start.elapsed().as_secs());
    assert!((least..=10).contains(&(refused.len() as u64)), "{} refused", refused.len());
    assert!(refused.iter().all(|answer| answer.header("retry-after").is_some()));
}
