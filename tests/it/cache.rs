//! What callers see of the response cache.

use std::io::Read;
use std::time::{Duration, Instant};

use futures::future::join_all;
use mdl::actor::Role;
use mdl::versions::{Change, Entities};
use mdl_tests::servers::patient;
use mdl_tests::{Answer, Client, TestApp, eventually};
use reqwest::StatusCode;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, IF_NONE_MATCH};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::hearing::{Hearing, live, settled, undisturbed};

const METRICS: &str = "query Metrics { metrics(first: 100) { totalCount nodes { key name description } } }";
const DOMAINS: &str = "{ businessDomains(first: 100) { nodes { key name } } }";

pub async fn started(settings: &[(&str, &str)]) -> TestApp {
    let app = TestApp::start_with(settings).await;
    live(&app.app).await;
    app
}

/// `HIT`, `MISS` or `BYPASS`.
pub fn source(answer: &Answer) -> &str {
    answer.header("x-cache").unwrap_or("none")
}

/// An answer from the cache. Right after a write one may be made twice: before and after Redis has told the write back.
async fn kept(send: impl AsyncFn() -> Answer) -> Answer {
    eventually("the answer is kept", async || Some(send().await).filter(|answer| source(answer) == "HIT")).await
}

async fn add_metrics(client: &Client, count: usize) {
    for number in 0..count {
        let text = "How many of them there were, as everybody agrees. ".repeat(5);
        client
            .write("createMetric", json!({ "key": format!("M-{number}"), "name": format!("M {number}"), "description": text }))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_answer_is_kept_and_says_so() {
    let app = started(&[]).await;
    let editor = app.client(Role::Editor).await;
    add_metrics(&editor, 1).await;
    let made = Instant::now();
    let first = editor.send(METRICS, json!({})).await;
    assert_eq!((source(&first), first.header("age")), ("MISS", None));
    let second = kept(async || editor.send(METRICS, json!({})).await).await;
    let age: u64 = second.header("age").unwrap().parse().unwrap();
    assert!(age <= made.elapsed().as_secs() + 1, "{age} s");
    assert_eq!(first.body, second.body);
    assert!(first.header("etag").is_some_and(|tag| tag.starts_with("W/\"")) && first.header("etag") == second.header("etag"));
    assert_eq!(second.header("cache-control"), Some("no-store"), "a POST is kept by nobody else");
    // All who may read the catalog get it, whatever else they may; another document is asked anew.
    for role in [Role::Viewer, Role::Editor, Role::Admin] {
        let reader = app.client(role).await;
        let same = undisturbed(&app.app, app.tenant.id, async || {
            editor.send(METRICS, json!({})).await;
            reader.send(METRICS, json!({})).await
        })
        .await;
        assert_eq!(source(&same), "HIT", "{role:?}");
    }
    assert_eq!(source(&editor.send(&METRICS.replace("name ", ""), json!({})).await), "MISS");
    // What is the caller's own is not kept, nor what fails, nor what is written.
    let me = editor.send("{ me { role } }", json!({})).await;
    assert_eq!((source(&me), me.header("etag"), me.header("cache-control")), ("BYPASS", None, Some("no-store")));
    for _ in 0..2 {
        assert_eq!(source(&editor.send("{ users { nodes { name } } }", json!({})).await), "BYPASS");
        assert_eq!(source(&editor.send("{ metric { nonsense } }", json!({})).await), "BYPASS");
    }
    let written = editor.mutate("createMetric", json!({ "key": "M-9", "name": "M 9" }), "metric { id }").await;
    assert_eq!(source(&written), "BYPASS");
    assert_eq!(app.anonymous().send("{ __typename }", json!({})).await.header("x-cache"), Some("BYPASS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_asks_whether_it_is_still_so() {
    let app = started(&[]).await;
    let editor = app.client(Role::Editor).await;
    add_metrics(&editor, 1).await;
    let url = format!("{}/graphql?query={}", app.base, METRICS.replace(' ', "%20").replace('{', "%7B").replace('}', "%7D"));
    let get = async |tags: Option<&str>| {
        let mut request = editor.http.get(&url);
        if let Some(tags) = tags {
            request = request.header(IF_NONE_MATCH, tags);
        }
        editor.receive(request).await
    };
    let first = get(None).await;
    assert_eq!(
        (first.status, source(&first), first.header("cache-control")),
        (StatusCode::OK, "MISS", Some("private, no-cache"))
    );
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!(first.header("vary"), Some("accept, accept-encoding, authorization, x-api-key"));
    let same = get(Some(&format!("\"other\", {tag}"))).await;
    assert_eq!((same.status, same.header("etag"), &same.body), (StatusCode::NOT_MODIFIED, Some(tag.as_str()), &json!("")));
    assert_eq!(get(Some("\"other\"")).await.status, StatusCode::OK);
    // A change of something else of the kind makes it anew, and finds it the same.
    editor.write("createMetric", json!({ "key": "M-9", "name": "M 9" })).await;
    let id = editor.write("createMetric", json!({ "key": "M-8", "name": "M 8" })).await["id"].clone();
    let other = get(Some(&tag)).await;
    assert_eq!((other.status, source(&other)), (StatusCode::OK, "MISS"));
    let tag = other.header("etag").unwrap().to_owned();
    editor.write("updateMetric", json!({ "id": id, "notes": "not asked for" })).await;
    let same = get(Some(&tag)).await;
    assert_eq!((same.status, source(&same)), (StatusCode::NOT_MODIFIED, "MISS"));
    // A POST means what it says.
    let posted = kept(async || editor.send_with(METRICS, json!({}), &[("if-none-match", &tag)]).await).await;
    assert_eq!((posted.status, posted.header("etag")), (StatusCode::OK, Some(tag.as_str())));
    // A batch uses what is kept, and is not itself a thing that can be named.
    let batch =
        editor.http.post(format!("{}/graphql", app.base)).json(&json!([{ "query": METRICS }, { "query": "{ me { role } }" }]));
    let batch = editor.receive(batch).await;
    assert_eq!((batch.header("etag"), &batch.body[0]), (None, &posted.body));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_as_the_caller_likes() {
    let app = started(&[]).await;
    let editor = app.client(Role::Editor).await;
    add_metrics(&editor, 10).await;
    let fetch = async |query: &str, accepted: &str| {
        let request = editor.http.post(format!("{}/graphql", app.base)).json(&json!({ "query": query }));
        let request = request.header(AUTHORIZATION, format!("Bearer {}", editor.credential.as_deref().unwrap()));
        let response = request.header(ACCEPT_ENCODING, accepted).send().await.unwrap();
        let coding = response.headers().get(CONTENT_ENCODING).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(response.headers().get_all("vary").iter().count(), 1);
        (coding, response.bytes().await.unwrap())
    };
    let (coding, plain) = fetch(METRICS, "identity").await;
    assert_eq!(coding, None);
    for _ in 0..2 {
        let (coding, bytes) = fetch(METRICS, "gzip").await;
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text).unwrap();
        assert_eq!((coding.as_deref(), &text[..]), (Some("gzip"), &plain[..]));
        let (coding, bytes) = fetch(METRICS, "gzip, deflate, br, zstd").await;
        assert!(coding.as_deref() == Some("br") && bytes.len() < plain.len() / 4);
    }
    assert_eq!(fetch("{ metrics(first: 1) { nodes { key } } }", "br, gzip").await.0, None, "too short to gain anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_asks_no_server() {
    let app = started(&[]).await;
    let editor = app.client(Role::Editor).await;
    add_metrics(&editor, 1).await;
    let (start, mut statements) = (Instant::now(), 0);
    for _ in 0..20 {
        let (answers, sent) = undisturbed(&app.app, app.tenant.id, async || {
            editor.send(METRICS, json!({})).await;
            let before = app.app.db.statements_sent();
            let mut answers = Vec::new();
            for _ in 0..10 {
                answers.push(editor.send(METRICS, json!({})).await);
            }
            (answers, app.app.db.statements_sent() - before)
        })
        .await;
        assert!(answers.iter().all(|answer| source(answer) == "HIT"), "{answers:?}");
        statements += sent;
    }
    // Whether the credential still holds is asked about once a second.
    let allowed = 40.max(8 * (start.elapsed().as_secs() + 1));
    assert!(statements < allowed, "{statements} statements for 200 hits");
}

#[tokio::test(flavor = "multi_thread")]
async fn to_tell_redis_of_a_write_takes_no_time() {
    let app = started(&[]).await;
    let redis = redis::Client::open(app.app.config.redis.url.as_str()).unwrap();
    let mut redis = redis.get_multiplexed_async_connection_with_config(&patient()).await.unwrap();
    let (mut plain, mut times) = (Vec::new(), Vec::new());
    for _ in 0..41 {
        // What the least costs here and now.
        let start = Instant::now();
        redis::cmd("PING").exec_async(&mut redis).await.unwrap();
        plain.push(start.elapsed());
        let start = Instant::now();
        app.app.versions.bump(app.tenant.id, Change::of(Entities::ALL)).await;
        times.push(start.elapsed());
    }
    plain.sort();
    times.sort();
    println!("{:?} in the middle, {:?} at most; a PING takes {:?}", times[20], times[40], plain[20]);
    // A commit waits for 50 ms at most.
    assert!(times[20] < 4 * plain[20] + Duration::from_millis(20), "{times:?}, and PING {plain:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_ask_the_same_one_executes() {
    let app = started(&[]).await;
    let editor = app.client(Role::Editor).await;
    add_metrics(&editor, 1).await;
    settled(&app.app, app.tenant.id).await;
    let hearing = Hearing::of(&[&app.app]).await;
    let superuser = app.database.superuser().await;
    superuser.batch_execute("BEGIN; LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let ask = || {
        let editor = editor.clone();
        tokio::spawn(async move { editor.send(METRICS, json!({})).await })
    };
    // Another than this one waits for the table, which who executes does. (Within a transaction, activity would stand still.)
    let watching = app.database.superuser().await;
    let waits = async |than: i32| {
        let waiting = "SELECT pid FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> $1 LIMIT 1";
        let found = watching.query_opt(waiting, &[&than]).await.unwrap();
        found.map(|row| row.get::<_, i32>(0))
    };
    let leader = ask();
    let first = eventually("one executes", async || waits(0).await).await;
    let before = app.app.db.statements_sent();
    let followers: Vec<_> = (0..20).map(|_| ask()).collect();
    // The one that executes goes away; another takes over, and nobody hangs.
    leader.abort();
    eventually("another executes", async || waits(first).await).await;
    superuser.batch_execute("ROLLBACK").await.unwrap();
    let answers = join_all(followers).await;
    let mut sources: Vec<_> = answers.iter().map(|answer| source(answer.as_ref().unwrap()).to_owned()).collect();
    sources.sort();
    let statements = app.app.db.statements_sent() - before;
    if hearing.held() {
        assert_eq!(sources, [vec!["HIT".to_owned(); 19], vec!["MISS".to_owned()]].concat());
        assert!(statements < 25, "{statements} statements");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_api_finds_what_the_first_has_kept() {
    let app = started(&[]).await;
    let (second, base) = app.another_api(&[]).await;
    live(&second).await;
    let editor = app.client(Role::Editor).await;
    add_metrics(&editor, 1).await;
    let first = editor.send(METRICS, json!({})).await;
    let found = eventually("the other API finds it in Redis", async || {
        let answer = editor.at(&base).send(METRICS, json!({})).await;
        (source(&answer) == "HIT").then_some(answer)
    })
    .await;
    assert_eq!((found.body, found.headers.get("etag")), (first.body, first.headers.get("etag")));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_memory_nothing_is_kept() {
    let app = TestApp::start_with(&[("MDL_CACHE_BYTES", "0")]).await;
    let viewer = app.client(Role::Viewer).await;
    for _ in 0..2 {
        let answer = viewer.send(METRICS, json!({})).await;
        assert_eq!((source(&answer), answer.header("etag")), ("BYPASS", None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_document_is_kept_by_its_own_time() {
    let app = started(&[("MDL_CACHE_TTL_SECONDS", "100")]).await;
    let admin = app.client(Role::Admin).await;
    let domain = admin.write("createBusinessDomain", json!({ "key": "D", "name": "D" })).await["id"].clone();
    let personal = format!("query Mine {{ node(id: {domain}) {{ id }} }}");
    let documents = [
        ("short", "query Short { catalogStats { metricCount } }", json!({ "cacheSeconds": 60, "public": true })),
        ("long", "query Long { catalogStats { metricCount } }", json!({ "public": true })),
        ("personal", &personal, json!({ "public": true })),
    ];
    for (id, text, caching) in &documents {
        let input = json!({ "manifest": json!({ *id: text }).to_string(), "caching": caching });
        assert_eq!(admin.mutate("publishDocuments", input, "documents { id }").await.user_errors(), [""; 0]);
    }
    // What is kept of the same text for others, who do not ask by its id.
    let text = kept(async || admin.send(documents[0].1, json!({})).await).await;
    assert_eq!(source(&text), "HIT");
    let by_id = eventually("the document is known", async || {
        let answer = admin.get("/graphql?documentId=short").await;
        answer.error_code().is_none().then_some(answer)
    })
    .await;
    assert_eq!((source(&by_id), by_id.header("cache-control")), ("MISS", Some("public, max-age=60")));
    for (id, cache_control) in [("long", "public, max-age=100"), ("personal", "private, no-cache")] {
        assert_eq!(admin.get(&format!("/graphql?documentId={id}")).await.header("cache-control"), Some(cache_control), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_ends_after_its_time() {
    let app = started(&[("MDL_CACHE_TTL_SECONDS", "1")]).await;
    let viewer = app.client(Role::Viewer).await;
    assert_eq!(source(&viewer.send(METRICS, json!({})).await), "MISS");
    kept(async || viewer.send(METRICS, json!({})).await).await;
    eventually("its time is over", async || (source(&viewer.send(METRICS, json!({})).await) == "MISS").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_purge_what_was_changed_behind_our_back() {
    let app = started(&[]).await;
    let (second, base) = app.another_api(&[]).await;
    live(&second).await;
    let admin = app.client(Role::Admin).await;
    admin.write("createMetric", json!({ "key": "M", "name": "0" })).await;
    admin.write("createBusinessDomain", json!({ "key": "D", "name": "0" })).await;
    for api in [&app.app, &second] {
        settled(api, app.tenant.id).await;
    }
    let hearing = Hearing::of(&[&app.app, &second]).await;
    let superuser = app.database.superuser().await;
    let other = METRICS.replace("description", "notes");
    let names = async |query: &str| -> Vec<String> {
        let mut names = Vec::new();
        for base in [&app.base, &base] {
            let answer = admin.at(base).send(query, json!({})).await;
            let connection = answer.data().as_object().unwrap().values().next().unwrap().clone();
            names.push(connection["nodes"][0]["name"].as_str().unwrap().to_owned());
        }
        names
    };
    let all =
        async || -> Vec<Value> { vec![json!(names(METRICS).await), json!(names(&other).await), json!(names(DOMAINS).await)] };
    let change = async |name: &str| {
        let change = format!("UPDATE metrics SET name = '{name}'; UPDATE business_domains SET name = '{name}'");
        superuser.batch_execute(&change).await.unwrap();
    };
    let purge = async |input: Value| {
        assert_eq!(admin.mutate("purgeCache", input, "").await.user_errors(), [""; 0]);
    };
    let seen = |name: &str| json!([name, name]);
    let until = async |expected: [Value; 3]| {
        // What was not purged stays kept while changes are heard of.
        let as_expected = async || all().await == expected || !hearing.held();
        eventually("both have heard of the purge", async || as_expected().await.then_some(())).await;
    };

    assert_eq!(all().await, [seen("0"), seen("0"), seen("0")]);
    change("1").await;
    let kept = all().await;
    assert!(kept == [seen("0"), seen("0"), seen("0")] || !hearing.held(), "{kept:?}");
    purge(json!({ "documentHash": data_hex(METRICS) })).await;
    until([seen("1"), seen("0"), seen("0")]).await;
    purge(json!({ "type": "METRIC" })).await;
    until([seen("1"), seen("1"), seen("0")]).await;
    change("2").await;
    purge(json!({})).await;
    let everything = [seen("2"), seen("2"), seen("2")];
    eventually("both have heard of the purge", async || (all().await == everything).then_some(())).await;
    change("3").await;
    purge(json!({ "type": "IMPORT" })).await;
    purge(json!({ "documentHash": format!("sha256:{}", data_hex(METRICS)) })).await;
    until([seen("3"), seen("2"), seen("2")]).await;
    for (input, code) in [
        (json!({ "documentHash": "abc" }), "documentHash: INVALID"),
        (json!({ "documentHash": data_hex(METRICS), "type": "USER" }), "documentHash: INVALID"),
    ] {
        assert_eq!(admin.mutate("purgeCache", input, "").await.user_errors(), [code]);
    }
    let count = superuser.query_one("SELECT count(*) FROM audit_log WHERE action = 'cache.purged'", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 5);
}

fn data_hex(document: &str) -> String {
    Sha256::digest(document).iter().map(|byte| format!("{byte:02x}")).collect()
}
