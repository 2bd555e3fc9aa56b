//! What warming is good for: the share of answers that are there in the first minute after a restart and after an import, with
//! it and without. `docs/operations/performance.md` says how to run it, and what came out.

use std::time::{Duration, Instant};

use mdl::actor::Role;
use mdl::versions::{Change, Entities};
use mdl_tests::{Client, TestApp, eventually, variable};
use rand::Rng;
use rand::distr::weighted::WeightedIndex;
use serde_json::{Value, json};

use crate::cache::{source, started};

const SECRET: &str = "a secret of more than 32 characters";
const READ: &str = "query Read($key: String) { metric(key: $key) { key name description domain { name } versions(first: 3) { nodes { version } } } }";
/// Different questions, asked as Zipf's law says: the second half as often as the first, the third a third as often.
const QUESTIONS: usize = 400;
/// Requests per second.
const RATE: u32 = 50;

/// Hits among requests: in the first ten seconds, and in all.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    early: (u32, u32),
    all: (u32, u32),
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let share = |(hits, all): (u32, u32)| f64::from(hits) / f64::from(all.max(1)) * 100.0;
        write!(f, "first ten seconds {:.1} %, first minute {:.1} %", share(self.early), share(self.all))
    }
}

/// Asks at a fixed rate for this long.
async fn ask(client: &Client, time: Duration) -> Seen {
    let weights = WeightedIndex::new((1..=QUESTIONS).map(|rank| 1.0 / rank as f64)).unwrap();
    let (start, mut seen) = (Instant::now(), Seen::default());
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    while start.elapsed() < time {
        ticks.tick().await;
        let key = format!("M-{}", rand::rng().sample(&weights));
        let answer = client.send(READ, json!({ "key": key })).await;
        let hit = u32::from(source(&answer) == "HIT");
        seen.all = (seen.all.0 + hit, seen.all.1 + 1);
        if start.elapsed() < Duration::from_secs(10) {
            seen.early = (seen.early.0 + hit, seen.early.1 + 1);
        }
    }
    seen
}

async fn import(app: &TestApp, editor: &Client, name: &str) {
    let metrics: Vec<Value> =
        (0..QUESTIONS).map(|number| json!({ "metric_id": format!("M-{number}"), "name": format!("{name} {number}") })).collect();
    let input = json!({ "text": json!({ "metrics": metrics }).to_string(), "fileName": "metrics.json" });
    assert_eq!(editor.mutate("importCatalog", input, "import { id }").await.user_errors(), [""; 0]);
    eventually("the import ends", async || {
        let open = "SELECT count(*) FROM jobs WHERE kind = 'import_catalog' AND state <> 'succeeded'";
        (app.database.number(open).await == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes six minutes: run it to measure"]
async fn effect_of_warming() {
    let minute = Duration::from_secs(variable("MDL_TEST_WARM_SECONDS").map_or(60, |seconds| seconds.parse().unwrap()));
    for warm in [false, true] {
        let app = started(&[("MDL_WARM_SECRET", SECRET), ("MDL_WARM_OPERATIONS", "400")]).await;
        let [editor, viewer] = [app.client(Role::Editor).await, app.client(Role::Viewer).await];
        // The one that is to start later: its address has to be known to the worker now.
        let second = mdl_tests::servers::free_port();
        let urls = format!("{},http://127.0.0.1:{second}", app.base);
        if warm {
            app.start_worker_with(&[("MDL_WARM_API_URLS", &urls), ("MDL_SCHEDULES", "warm_caches=off")]);
        } else {
            app.start_worker();
        }
        import(&app, &editor, "First").await;
        ask(&viewer, minute).await;
        // Until Redis has been told.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let with = if warm { "with" } else { "without" };
        import(&app, &editor, "Second").await;
        println!("after an import, {with} warming: {}", ask(&viewer, minute).await);
        // Nothing that is kept is of use to the api that starts now.
        app.app.versions.bump(app.tenant.id, Change::of(Entities::ALL)).await;
        let (_, base) = app.another_api_at(second, &[]).await;
        println!("after a restart, {with} warming: {}", ask(&viewer.at(&base), minute).await);
    }
}
