//! What operators are told of how fast an API is.

use mdl::actor::Role;
use mdl_tests::{Client, TestApp};
use serde_json::{Value, json};

use crate::cache::{source, started};

const READ: &str = "query Read($key: String) { metric(key: $key) { name } }";
const STATS: &str = "query Stats {
    performanceStats {
        instance since
        operations { name documentHash count errors hitRate p50Milliseconds p95Milliseconds p99Milliseconds }
        slowestReads { operation statement milliseconds at }
        postgresql { size open idle waiting } readReplica { size } redis { size open idle waiting }
    } }";

async fn stats(client: &Client) -> Value {
    client.ask(STATS, json!({})).await["performanceStats"].take()
}

fn operation<'a>(stats: &'a Value, name: &str) -> Option<&'a Value> {
    stats["operations"].as_array().unwrap().iter().find(|operation| operation["name"] == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_their_tenants_operations() {
    // Every read is slow.
    let app = started(&[("DATABASE_SLOW_STATEMENT_MILLISECONDS", "0")]).await;
    app.other_tenant().await;
    let [admin, viewer] = [app.client(Role::Admin).await, app.client(Role::Viewer).await];
    let mut hits = 0;
    for _ in 0..10 {
        hits += u32::from(source(&viewer.send(READ, json!({ "key": "M" })).await) == "HIT");
    }
    assert!(hits > 0);
    viewer.send("query Wrong { metrics(first: -1) { totalCount } }", json!({})).await;
    viewer.send("query Mine { me { role } }", json!({})).await;
    viewer.send("{ catalogStats { metricCount } }", json!({})).await;
    app.client_of("globex", Role::Viewer).await.send("query Theirs { catalogStats { metricCount } }", json!({})).await;

    let told = stats(&admin).await;
    let read = operation(&told, "Read").unwrap();
    assert_eq!((&read["count"], &read["errors"], &read["hitRate"]), (&json!(10), &json!(0), &json!(f64::from(hits) / 10.0)));
    let [p50, p95, p99] = ["p50Milliseconds", "p95Milliseconds", "p99Milliseconds"].map(|name| read[name].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p95 && p95 <= p99, "{read}");
    assert_eq!(read["documentHash"].as_str().unwrap().len(), 64);
    let wrong = operation(&told, "Wrong").unwrap();
    assert_eq!((&wrong["count"], &wrong["errors"]), (&json!(1), &json!(1)));
    let mine = operation(&told, "Mine").unwrap();
    assert_eq!((&mine["errors"], &mine["hitRate"]), (&json!(0), &Value::Null), "answers like this are not kept");
    assert!(told["operations"].as_array().unwrap().iter().any(|operation| operation["name"].is_null()));
    assert!(operation(&told, "Theirs").is_none());

    let slow: Vec<_> = told["slowestReads"].as_array().unwrap().iter().collect();
    assert!(slow.iter().any(|read| read["operation"] == "Read") && slow.iter().all(|read| read["operation"] != "Theirs"));
    let of_read = slow.iter().find(|read| read["operation"] == "Read").unwrap();
    let statement = of_read["statement"].as_str().unwrap();
    assert!(statement.contains("\"metrics\"") && statement.contains("$1"), "{statement}");
    let times: Vec<_> = slow.iter().map(|read| read["milliseconds"].as_f64().unwrap()).collect();
    assert!(times.is_sorted_by(|one, next| one >= next), "{times:?}");
    assert_eq!((&told["postgresql"]["size"], &told["readReplica"]), (&json!(6), &Value::Null));
    assert!(told["postgresql"]["open"].as_u64().unwrap() >= 1 && told["redis"]["size"].as_u64().unwrap() == 8);
    assert!(told["instance"].as_str().is_some_and(|name| !name.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_counts_for_itself_and_only_operators_ask() {
    let app = TestApp::start_with(&[("MDL_CACHE_BYTES", "0"), ("DATABASE_SLOW_STATEMENT_MILLISECONDS", "60000")]).await;
    let other = app.instance(&[]).await;
    let admin = app.client(Role::Admin).await;
    admin.send(READ, json!({ "key": "M" })).await;
    let told = stats(&admin).await;
    assert!(operation(&told, "Read").is_some_and(|read| read["hitRate"].is_null()), "{told}");
    assert_eq!(told["slowestReads"], json!([]));
    assert!(operation(&stats(&admin.at(&other.base)).await, "Read").is_none());
    for role in [Role::Viewer, Role::Editor] {
        assert_eq!(app.client(role).await.send(STATS, json!({})).await.error_code(), Some("FORBIDDEN"));
    }
}
