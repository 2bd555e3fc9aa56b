//! Answers that are made before somebody asks for them: by whom, for whom, and by whom not.

use std::time::Duration;

use mdl::actor::{Permissions, Role};
use mdl::ids::TenantId;
use mdl::jobs::{self, Enqueue, Job, queues};
use mdl::tenants::Tenant;
use mdl::warming::{Asked, PATH, Warm, WarmCache, used};
use mdl_tests::servers::PrivateRedis;
use mdl_tests::{Answer, Client, TestApp, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::cache::{source, started};
use crate::hearing::{live, undisturbed_after};

const SECRET: &str = "a secret of more than 32 characters";
const READ: &str = "query Read($key: String) { metric(key: $key) { name } }";
const STATS: &str = "{ catalogStats { metricCount } }";
/// However slow this machine is, an api is not taken for busy.
const PATIENT: (&str, &str) = ("MDL_WARM_BUSY_MILLISECONDS", "10000");

fn warm(tenant: TenantId, permissions: Permissions, query: &str, variables: Value) -> Warm {
    Warm { tenant, asked: Asked { permissions, query: query.to_owned(), operation_name: None, variables } }
}

/// Asks an api to warm, with this secret.
async fn ask(base: &str, secret: &str, body: &impl serde::Serialize) -> Answer {
    let client = Client::anonymous(base).with(secret);
    client.receive(client.http.post(format!("{base}{PATH}")).json(body)).await
}

/// Enqueues a warming for the first tenant, and waits until a worker has done it.
async fn warmed_now(app: &TestApp) {
    let tx = app.app.db.begin(app.tenant.id).await.unwrap();
    let job = jobs::enqueue(&tx, &app.system(), &WarmCache {}, &Enqueue::default()).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    let done = format!("SELECT count(*) FROM jobs WHERE id = '{job}' AND state = 'succeeded'");
    eventually("it was warmed", async || (app.database.number(&done).await == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_warmed_is_there_for_those_it_was_warmed_for() {
    let app = started(&[("MDL_WARM_SECRET", SECRET)]).await;
    let other = app.other_tenant().await;
    let [editor, viewer] = [app.client(Role::Editor).await, app.client(Role::Viewer).await];
    let other_viewer = app.client_of("globex", Role::Viewer).await;
    let id = editor.write("createMetric", json!({ "key": "M", "name": "Ours" })).await["id"].clone();
    app.client_of("globex", Role::Editor).await.write("createMetric", json!({ "key": "M", "name": "Theirs" })).await;
    let (base, variables) = (&app.base, json!({ "key": "M" }));
    let for_viewers = async |tenant: &Tenant, query: &str| {
        ask(base, SECRET, &warm(tenant.id, Role::Viewer.permissions(), query, variables.clone())).await
    };
    let work = async |round: usize| {
        // Under another name it is another question, which nobody has asked.
        let query = READ.replace("Read", &format!("Read{round}"));
        let warmed = [for_viewers(&app.tenant, &query).await, for_viewers(&app.tenant, &query).await];
        let mut found = Vec::new();
        for client in [&viewer, &editor, &other_viewer] {
            found.push(client.send(&query, variables.clone()).await);
        }
        let theirs = for_viewers(&other, &query).await;
        (query, warmed, found, theirs)
    };
    let (query, [first, again], found, theirs) =
        undisturbed_after(&app.app, &[app.tenant.id, other.id], async |_| (), work).await;

    assert_eq!((first.status, &first.body), (StatusCode::OK, &json!({ "outcome": "made" })), "one word, and no data");
    assert_eq!(again.body, json!({ "outcome": "kept" }));
    let found: Vec<_> = found.iter().map(|answer| (source(answer), answer.data()["metric"]["name"].clone())).collect();
    // It is for all in the tenant who may read the catalog, and for nobody else.
    assert_eq!(found, [("HIT", json!("Ours")), ("HIT", json!("Ours")), ("MISS", json!("Theirs"))]);
    assert_eq!(theirs.body, json!({ "outcome": "kept" }));
    // It is old after a change, as any other.
    editor.write("updateMetric", json!({ "id": id, "name": "Other" })).await;
    assert_eq!(for_viewers(&app.tenant, &query).await.body, json!({ "outcome": "made" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_good_for_nothing_else() {
    let app = started(&[("MDL_WARM_SECRET", SECRET)]).await;
    let id = app.client(Role::Editor).await.write("createMetric", json!({ "key": "M", "name": "M" })).await["id"].clone();
    // The api has just started, and asks for a warming.
    eventually("the warming is enqueued", async || {
        (app.database.number("SELECT count(*) FROM jobs WHERE kind = 'warm_caches'").await == 1).then_some(())
    })
    .await;
    let before = app.database.contents().await;
    let all = Permissions::all();
    for (query, variables) in [
        (
            "mutation($id: ID!) { archiveMetric(input: { id: $id }) { metric { id } userErrors { message } } }",
            json!({ "id": id }),
        ),
        ("mutation { purgeCache(input: {}) { userErrors { message } } }", json!({})),
        ("{ me { role } }", json!({})),
        ("{ apiKeys(first: 10) { nodes { id } } }", json!({})),
        ("{ imports(first: 10) { nodes { id } } }", json!({})),
        ("{ __schema { types { name } } }", json!({})),
        // Of one person.
        ("query($id: ID!) { node(id: $id) { id } }", json!({ "id": id })),
        ("{ metric(key: \"M\") { nonsense } }", json!({})),
        ("{ metric", json!({})),
    ] {
        let answer = ask(&app.base, SECRET, &warm(app.tenant.id, all, query, variables)).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}: {}", answer.body);
        assert!(answer.body.get("data").is_none() && answer.body.get("outcome").is_none(), "{}", answer.body);
    }
    // What the named permissions do not allow fails as it would for a caller who has them.
    let users = "{ users { nodes { name } } }";
    let refused = ask(&app.base, SECRET, &warm(app.tenant.id, Role::Viewer.permissions(), users, json!({}))).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(app.database.contents().await, before);

    let good = warm(app.tenant.id, all, STATS, json!({}));
    for secret in ["", "a secret of more than 32 characterz", &SECRET[1..]] {
        assert_eq!(ask(&app.base, secret, &good).await.status, StatusCode::UNAUTHORIZED, "{secret}");
    }
    assert_eq!(ask(&app.base, SECRET, &json!({ "tenant": app.tenant.id })).await.status, StatusCode::BAD_REQUEST);
    let long = json!({ "query": " ".repeat(100_000) });
    assert_eq!(ask(&app.base, SECRET, &long).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    // It is no credential of the API itself.
    assert_eq!(app.anonymous().with(SECRET).send(STATS, json!({})).await.error_code(), Some("UNAUTHENTICATED"));
    // And where none is set, there is nothing to ask.
    let without = app.instance(&[("MDL_WARM_SECRET", SECRET), ("MDL_CACHE_BYTES", "0")]).await;
    assert_eq!(ask(&without.base, SECRET, &good).await.status, StatusCode::NOT_FOUND);
    let without = TestApp::start().await;
    assert_eq!(ask(&without.base, SECRET, &good).await.status, StatusCode::NOT_FOUND);
    assert_eq!(ask(&without.base, "", &good).await.status, StatusCode::NOT_FOUND);
}

/// The operations of the first tenant that Redis knows of, as `name of the operation or text, variables`.
async fn used_lately(app: &TestApp) -> Vec<Asked> {
    used::top(&app.app, app.tenant.id, 100).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_is_not_warmed() {
    let app = started(&[("MDL_WARM_SECRET", SECRET)]).await;
    let viewer = app.client(Role::Viewer).await;
    let failing = "{ metrics(first: 1, after: \"nonsense\") { totalCount } }";
    for _ in 0..3 {
        assert!(viewer.send(failing, json!({})).await.error_code().is_some());
    }
    viewer.send(STATS, json!({})).await;
    eventually("Redis is told what was used", async || (!used_lately(&app).await.is_empty()).then_some(())).await;
    let used: Vec<_> = used_lately(&app).await.into_iter().map(|asked| asked.query).collect();
    assert_eq!(used, [STATS]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_not_felt_after_warming() {
    let redis = PrivateRedis::start().await;
    let url = redis.url();
    let app = started(&[("REDIS_URL", &url), ("MDL_WARM_SECRET", SECRET)]).await;
    let [editor, viewer] = [app.client(Role::Editor).await, app.client(Role::Viewer).await];
    let id = editor.write("createMetric", json!({ "key": "M", "name": "M" })).await["id"].clone();
    for _ in 0..20 {
        viewer.send(READ, json!({ "key": "M" })).await;
    }
    editor.send(STATS, json!({})).await;
    viewer.send("{ me { role } }", json!({})).await;
    eventually("Redis is told what was used", async || (used_lately(&app).await.len() == 2).then_some(())).await;
    let used = used_lately(&app).await;
    assert_eq!((used[0].query.as_str(), &used[0].variables), (READ, &json!({ "key": "M" })), "the most used first");
    assert_eq!(used[0].permissions, Role::Viewer.permissions());

    // Redis forgets all; the next use of anything makes the api tell it everything again.
    redis.flush().await;
    assert_eq!(used_lately(&app).await, []);
    editor.send(STATS, json!({})).await;
    eventually("Redis is told again", async || (used_lately(&app).await.len() == 2).then_some(())).await;

    // An api that starts, with nothing kept anywhere: without warming it has to make the answers, after warming it has them.
    // (What Redis keeps is under the names of the others' prefix: this one sees none of it.)
    let (cold, cold_base) = app.another_api(&[]).await;
    live(&cold).await;
    editor.write("updateMetric", json!({ "id": id, "name": "M 2", "tier": "TIER_2" })).await;
    assert_eq!(source(&viewer.at(&cold_base).send(READ, json!({ "key": "M" })).await), "MISS");
    app.start_worker_with(&[("MDL_WARM_API_URLS", &cold_base), PATIENT]);
    eventually("it was warmed, since it has started", async || {
        let done = "SELECT count(*) FROM jobs WHERE kind = 'warm_cache' AND state = 'succeeded'";
        (app.database.number(done).await > 0).then_some(())
    })
    .await;
    let change = async |round: usize| {
        let tier = ["TIER_1", "TIER_2"][round % 2];
        editor.write("updateMetric", json!({ "id": id, "name": format!("M of {round}"), "tier": tier })).await;
    };
    let work = async |_| {
        warmed_now(&app).await;
        // By whomever it was used, it is there for all who may read the catalog.
        [
            viewer.at(&cold_base).send(READ, json!({ "key": "M" })).await,
            editor.at(&cold_base).send(STATS, json!({})).await,
            editor.at(&cold_base).send(READ, json!({ "key": "M" })).await,
        ]
    };
    let answers = undisturbed_after(&cold, &[app.tenant.id], change, work).await;
    assert_eq!(answers.each_ref().map(source), ["HIT", "HIT", "HIT"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_followed_by_warming() {
    let app = started(&[("MDL_WARM_SECRET", SECRET), ("MDL_WARM_AFTER_IMPORT_ENTRIES", "3")]).await;
    let viewer = app.client(Role::Viewer).await;
    viewer.send(STATS, json!({})).await;
    eventually("Redis is told what was used", async || (used_lately(&app).await.len() == 1).then_some(())).await;
    app.start_worker_with(&[("MDL_WARM_API_URLS", &app.base), ("MDL_SCHEDULES", "warm_caches=off"), PATIENT]);
    let warmings = async |state: &str| {
        app.database.number(&format!("SELECT count(*) FROM jobs WHERE kind = 'warm_cache' AND state = '{state}'")).await
    };
    // Since an api has started.
    eventually("it was warmed", async || (warmings("succeeded").await == 1).then_some(())).await;
    let import = async |count: usize| {
        let keys = (0..count).map(|_| format!("M-{}", uuid::Uuid::now_v7().simple()));
        let metrics: Vec<_> = keys.map(|key| json!({ "metric_id": key, "name": key })).collect();
        let input = json!({ "text": json!({ "metrics": metrics }).to_string(), "fileName": "metrics.json" });
        let answer = app.client(Role::Editor).await.mutate("importCatalog", input, "import { id }").await;
        assert_eq!(answer.user_errors(), [""; 0]);
        eventually("the import ends", async || {
            let open = "SELECT count(*) FROM jobs WHERE kind = 'import_catalog' AND state <> 'succeeded'";
            (app.database.number(open).await == 0).then_some(())
        })
        .await;
    };
    import(2).await;
    let jobs = "SELECT count(*) FROM jobs WHERE kind = 'warm_cache'";
    assert_eq!(app.database.number(jobs).await, 1, "a small import is felt by few");
    eventually("the answer is old", async || (source(&viewer.send(STATS, json!({})).await) == "MISS").then_some(())).await;

    let let_warm = async || {
        queues::resume(&app.app, &app.system(), WarmCache::QUEUE).await.unwrap();
        let is_done = async || app.database.number(jobs).await == warmings("succeeded").await;
        eventually("it was warmed", async || is_done().await.then_some(())).await;
    };
    let large_import = async |_| {
        let_warm().await;
        // So that the next warming does not begin before the api has heard of everything.
        queues::pause(&app.app, &app.system(), WarmCache::QUEUE).await.unwrap();
        import(3).await;
        assert_eq!(warmings("waiting").await, 1);
    };
    let work = async |_| {
        let_warm().await;
        let answer = viewer.send(STATS, json!({})).await;
        (answer, app.database.number("SELECT count(*) FROM metrics").await)
    };
    let (answer, count) = undisturbed_after(&app.app, &[app.tenant.id], large_import, work).await;
    assert_eq!((source(&answer), &answer.data()["catalogStats"]["metricCount"]), ("HIT", &json!(count)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_api_is_left_alone() {
    let app = started(&[("MDL_WARM_SECRET", SECRET), ("DATABASE_POOL_SIZE", "2")]).await;
    let [editor, viewer] = [app.client(Role::Editor).await, app.client(Role::Viewer).await];
    let id = editor.write("createMetric", json!({ "key": "M", "name": "M" })).await["id"].clone();
    viewer.send(READ, json!({ "key": "M" })).await;
    let held = [app.app.db.begin(app.tenant.id).await.unwrap(), app.app.db.begin(app.tenant.id).await.unwrap()];
    let answer = ask(&app.base, SECRET, &warm(app.tenant.id, Permissions::all(), STATS, json!({}))).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    eventually("Redis is told what was used", async || (used_lately(&app).await.len() == 1).then_some(())).await;

    // One that answers too late, and one that is not there, do not keep the worker from the third.
    let slow = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let slow_base = format!("http://{}", slow.local_addr().unwrap());
    let urls = format!("{slow_base},http://127.0.0.1:1,{}", app.base);
    drop(held);
    app.start_worker_with(&[("MDL_WARM_API_URLS", &urls), ("MDL_WARM_BUSY_MILLISECONDS", "2000")]);
    let change = async |round: usize| {
        editor.write("updateMetric", json!({ "id": id, "name": format!("M of {round}") })).await;
    };
    let work = async |_| {
        warmed_now(&app).await;
        viewer.send(READ, json!({ "key": "M" })).await
    };
    let answer = undisturbed_after(&app.app, &[app.tenant.id], change, work).await;
    assert_eq!(source(&answer), "HIT");
    let mut asked = 0;
    while tokio::time::timeout(Duration::from_millis(50), slow.accept()).await.is_ok() {
        asked += 1;
    }
    assert!(asked >= 1);
}
