//! The work that goes on while things break, and what must be true of it afterwards.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mdl::actor::Actor;
use mdl::ids::{ImportId, JobId, TenantId, WebhookDeliveryId};
use mdl::imports::{self, Mode, Upload};
use mdl::jobs::{self, Enqueue};
use mdl::webhooks::message::{ID_HEADER, message_id};
use mdl_tests::{Client, TestApp, eventually};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::crash_stage::{Deed, Stage};

/// Writers over HTTP in each tenant.
const WRITERS: usize = 2;
/// Metrics of an import.
const ROWS: usize = 3;
/// Longer than any outage of the suite.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes, jobs and imports that go on until they are told to stop.
pub struct Workload {
    stop: CancellationToken,
    writing: Vec<JoinHandle<Acknowledged>>,
}

/// What somebody was told is done.
#[derive(Default)]
pub struct Acknowledged {
    metrics: Vec<Written>,
    jobs: Vec<JobId>,
    imports: Vec<ImportId>,
}

/// A metric that was created and then described: when the first was asked for, and when it was answered.
struct Written {
    tenant: TenantId,
    key: String,
    asked: Instant,
    answered: Instant,
}

impl Workload {
    pub fn start(stage: &mut Stage) -> Self {
        let stop = CancellationToken::new();
        let mut writing = Vec::new();
        for (number, company) in stage.companies.iter().enumerate() {
            for writer in 0..WRITERS {
                let (client, random) = (company.client.clone(), StdRng::from_rng(&mut stage.random));
                writing.push(tokio::spawn(write(client, company.id, format!("W{number}-{writer}"), random, stop.clone())));
            }
            let (app, random) = (stage.app.clone(), StdRng::from_rng(&mut stage.random));
            writing.push(tokio::spawn(enqueue(app, company.id, random, stop.clone())));
            writing.push(tokio::spawn(import(stage.app.clone(), company.id, stop.clone())));
        }
        Self { stop, writing }
    }

    /// Lets what was begun be acknowledged.
    pub async fn end(self) -> Acknowledged {
        self.stop.cancel();
        let mut all = Acknowledged::default();
        for writing in self.writing {
            let Acknowledged { metrics, jobs, imports } = writing.await.unwrap();
            all.metrics.extend(metrics);
            all.jobs.extend(jobs);
            all.imports.extend(imports);
        }
        assert!(!all.metrics.is_empty() && !all.jobs.is_empty() && !all.imports.is_empty(), "there was work");
        all
    }
}

async fn write(client: Client, tenant: TenantId, name: String, mut random: StdRng, stop: CancellationToken) -> Acknowledged {
    let mut metrics = Vec::new();
    while !stop.is_cancelled() {
        let key = format!("{name}-{}", metrics.len());
        let asked = Instant::now();
        let id = until_acknowledged(&client, "createMetric", json!({ "key": key, "name": key })).await;
        let answered = Instant::now();
        let id = match id {
            Some(id) => id,
            // It was done, and the answer was lost.
            None => until_read(&client, &key).await,
        };
        until_acknowledged(&client, "updateMetric", json!({ "id": id, "description": "described" })).await;
        metrics.push(Written { tenant, key, asked, answered });
        tokio::time::sleep(Duration::from_millis(random.random_range(0..20))).await;
    }
    Acknowledged { metrics, ..Acknowledged::default() }
}

/// Repeats a mutation of a metric until it is answered. The metric's id; `None` when an attempt before had created it.
async fn until_acknowledged(client: &Client, field: &str, input: Value) -> Option<Value> {
    let kind = format!("{}{}Input", field[..1].to_uppercase(), &field[1..]);
    let query =
        format!("mutation($input: {kind}!) {{ {field}(input: $input) {{ metric {{ id }} userErrors {{ field code }} }} }}");
    let start = Instant::now();
    for attempt in 0.. {
        if let Some(data) = answer(client, &query, &json!({ "input": input })).await {
            let payload = &data[field];
            let taken = json!([{ "field": ["key"], "code": "TAKEN" }]);
            assert!(payload["userErrors"] == json!([]) || (attempt > 0 && payload["userErrors"] == taken), "{payload}");
            return payload["metric"]["id"].is_string().then(|| payload["metric"]["id"].clone());
        }
        assert!(start.elapsed() < PATIENCE, "{field} is not answered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    unreachable!("it is repeated without end")
}

async fn until_read(client: &Client, key: &str) -> Value {
    let query = "query($key: String!) { metric(key: $key) { id } }";
    let variables = json!({ "key": key });
    eventually("a metric is read", async || answer(client, query, &variables).await.map(|data| data["metric"]["id"].clone()))
        .await
}

/// The data of an answer; `None` when there is none, or when it says that this may pass.
async fn answer(client: &Client, query: &str, variables: &Value) -> Option<Value> {
    let body = json!({ "query": query, "variables": variables });
    let request = client.http.post(format!("{}/graphql", client.base)).timeout(Duration::from_secs(10)).json(&body);
    let response = request.bearer_auth(client.credential.as_deref().unwrap()).send().await.ok()?;
    let mut body: Value = response.json().await.ok()?;
    if body["errors"].is_array() {
        let code = body["errors"][0]["extensions"]["code"].as_str().unwrap_or_default();
        assert!(code == "UNAVAILABLE", "a caller cannot know that this may pass: {body}");
        return None;
    }
    Some(body["data"].take())
}

async fn enqueue(app: Arc<TestApp>, tenant: TenantId, mut random: StdRng, stop: CancellationToken) -> Acknowledged {
    let mut jobs = Vec::new();
    while !stop.is_cancelled() {
        let deed = Deed { millis: random.random_range(0..300), fails: random.random_ratio(1, 10) };
        if let Ok(id) = try_enqueue(&app, tenant, &deed).await {
            jobs.push(id);
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(10..60))).await;
    }
    Acknowledged { jobs, ..Acknowledged::default() }
}

pub async fn try_enqueue(app: &TestApp, tenant: TenantId, deed: &Deed) -> mdl::Result<JobId> {
    let tx = app.app.db.begin(tenant).await?;
    let id = jobs::enqueue(&tx, &Actor::system(tenant), deed, &Enqueue::default()).await?;
    tx.commit().await?;
    Ok(id.expect("it has no unique key"))
}

async fn import(app: Arc<TestApp>, tenant: TenantId, stop: CancellationToken) -> Acknowledged {
    let mut imports = Vec::new();
    for number in 0.. {
        if stop.is_cancelled() {
            break;
        }
        let row = |row| format!("{{\"metric_id\": \"IMPORT-{number}-{row}\", \"name\": \"Imported\"}}\n");
        let content = futures::stream::iter([Ok::<_, std::io::Error>((0..ROWS).map(row).collect::<String>().into())]);
        let upload = Upload { file_name: Some("metrics.ndjson".to_owned()), mode: Mode::AllOrNothing, ..Upload::default() };
        if let Ok(import) = imports::start(&app.app, &Actor::system(tenant), content, upload).await {
            imports.push(import.id);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Acknowledged { imports, ..Acknowledged::default() }
}

/// Waits until everything is done that is owed, and looks whether it was done as it should: by what PostgreSQL holds, by what
/// the API says, and by what the receivers got. No more than `repeats` jobs may have run a second time to their end, besides
/// those whose worker gave no sign of life, as one does that the machine does not let run.
pub async fn assert_whole(stage: &Stage, acknowledged: Acknowledged, repeats: i64) {
    let database = &stage.app.database;
    for (what, owed) in [
        ("every job has ended", "jobs WHERE kind IN ('deed', 'import_catalog') AND finished_at IS NULL"),
        ("every import has ended", "imports WHERE finished_at IS NULL"),
        ("every event is numbered", "outbox WHERE sequence IS NULL"),
        ("every webhook is delivered", "webhook_deliveries WHERE state = 'pending'"),
    ] {
        let count = format!("SELECT count(*) FROM {owed}");
        eventually(what, async || (database.number(&count).await == 0).then_some(())).await;
    }
    for (what, wrong) in [
        ("jobs that were not done", "jobs WHERE kind IN ('deed', 'import_catalog') AND state <> 'succeeded'"),
        ("imports that did not succeed", "imports WHERE state <> 'succeeded'"),
        ("jobs without an effect", "jobs WHERE kind = 'deed' AND NOT EXISTS (SELECT FROM runs WHERE job = jobs.id)"),
        (
            "effects of attempts whose successor was done",
            "runs WHERE EXISTS (SELECT FROM runs AS later WHERE later.job = runs.job AND later.attempt > runs.attempt AND later.at <= runs.at)",
        ),
        ("attempts with two effects", "(SELECT FROM runs GROUP BY job, attempt HAVING count(*) > 1) AS twice"),
        ("commits that were not cleared away", "outbox_commits"),
        (
            "gaps and repeats of the numbers of events",
            "(SELECT FROM outbox GROUP BY tenant_id HAVING (min(sequence), max(sequence), count(DISTINCT sequence)) <> (1, count(*), count(*))) AS streams",
        ),
        (
            "metrics without the one event of their creation",
            "metrics WHERE 1 <> (SELECT count(*) FROM outbox WHERE kind = 'metric.created' AND subject_id = metrics.id AND outbox.tenant_id = metrics.tenant_id)",
        ),
        ("events of metrics that do not exist", "outbox WHERE kind LIKE 'metric.%' AND subject_id NOT IN (SELECT id FROM metrics)"),
        (
            "metrics with another number of events than of revisions",
            "metrics WHERE revision <> (SELECT count(*) FROM outbox WHERE kind LIKE 'metric.%' AND subject_id = metrics.id)",
        ),
        (
            "metrics with another number of audit entries than of revisions",
            "metrics WHERE key LIKE 'W%' AND revision <> (SELECT count(*) FROM audit_log WHERE entity_id = metrics.id)",
        ),
        (
            "events without the one delivery that was owed, done",
            "outbox WHERE (kind LIKE 'metric.%' OR kind LIKE 'import.%')
               AND ARRAY['delivered'] IS DISTINCT FROM (SELECT array_agg(state) FROM webhook_deliveries WHERE event_id = outbox.id)",
        ),
    ] {
        assert_eq!(database.number(&format!("SELECT count(*) FROM {wrong}")).await, 0, "{what}");
    }
    let Acknowledged { metrics, jobs, imports } = acknowledged;
    assert_acknowledged(stage, &metrics, &jobs, &imports).await;
    assert_in_order(stage, &metrics).await;
    assert_the_api_knows(stage).await;
    let (received, again) = assert_received(stage).await;
    let runs = database.number("SELECT count(*) FROM runs").await;
    let repeated = runs - database.number("SELECT count(DISTINCT job) FROM runs").await;
    println!(
        "{} metrics, {} jobs ({repeated} ran again after their effect), {} imports, {received} webhooks ({again} came again); seed {}",
        metrics.len(),
        jobs.len(),
        imports.len(),
        stage.seed,
    );
    let lost = database.number("SELECT count(*) FROM job_attempts WHERE outcome = 'lost'").await;
    assert!(repeated <= repeats.max(lost), "{repeated} jobs ran again after their effect, and {lost} attempts were lost");
}

async fn assert_acknowledged(stage: &Stage, metrics: &[Written], jobs: &[JobId], imports: &[ImportId]) {
    let database = stage.app.database.superuser().await;
    let described = database.query("SELECT tenant_id, key FROM metrics WHERE description = 'described'", &[]).await.unwrap();
    let described: HashSet<(uuid::Uuid, String)> = described.iter().map(|row| (row.get(0), row.get(1))).collect();
    for metric in metrics {
        assert!(described.contains(&(metric.tenant.0, metric.key.clone())), "{} was acknowledged, and is lost", metric.key);
    }
    let ids: Vec<uuid::Uuid> = jobs.iter().map(|id| id.0).chain(imports.iter().map(|id| id.0)).collect();
    let kept = "SELECT count(*) FROM (SELECT id FROM jobs UNION ALL SELECT id FROM imports) AS kept WHERE id = ANY($1)";
    let kept: i64 = database.query_one(kept, &[&ids]).await.unwrap().get(0);
    assert_eq!(kept, ids.len() as i64, "jobs and imports that were acknowledged, and are lost");
}

/// Who had been answered before another asked comes before the other in the stream of the tenant.
async fn assert_in_order(stage: &Stage, metrics: &[Written]) {
    let database = stage.app.database.superuser().await;
    let written: HashMap<_, _> = metrics.iter().map(|one| ((one.tenant.0, one.key.as_str()), one)).collect();
    for company in &stage.companies {
        let stream = "SELECT payload ->> 'key' FROM outbox WHERE tenant_id = $1 AND kind = 'metric.created' ORDER BY sequence";
        let mut latest: Option<Instant> = None;
        for row in database.query(stream, &[&company.id.0]).await.unwrap() {
            let Some(one) = written.get(&(company.id.0, row.get::<_, &str>(0))) else { continue };
            assert!(latest.is_none_or(|asked| asked < one.answered), "{} comes too late", one.key);
            latest = latest.max(Some(one.asked));
        }
    }
}

/// Its kept answers are not those of before.
async fn assert_the_api_knows(stage: &Stage) {
    for company in &stage.companies {
        let count = format!("SELECT count(*) FROM metrics WHERE tenant_id = '{}'", company.id);
        let there = stage.app.database.number(&count).await;
        eventually("the API tells of every metric", async || {
            let data = answer(&company.client, "{ metrics { totalCount } }", &json!({})).await?;
            (data["metrics"]["totalCount"] == there).then_some(())
        })
        .await;
    }
}

/// Each delivery has arrived, under one id. How many there were, and how many came more than once after an answer of success.
async fn assert_received(stage: &Stage) -> (usize, usize) {
    let database = stage.app.database.superuser().await;
    let (mut received, mut again) = (0, 0);
    for company in &stage.companies {
        let mut ids: HashMap<i64, HashSet<String>> = HashMap::new();
        let requests = company.receiver.received();
        for request in &requests {
            let sequence = request.json()["sequence"].as_i64().unwrap();
            ids.entry(sequence).or_default().insert(request.header(ID_HEADER).to_owned());
        }
        let deliveries = "SELECT sequence, id FROM webhook_deliveries WHERE tenant_id = $1";
        let rows = database.query(deliveries, &[&company.id.0]).await.unwrap();
        for row in &rows {
            let wanted = message_id(WebhookDeliveryId(row.get(1)));
            let sequence: i64 = row.get(0);
            assert_eq!(ids.get(&sequence), Some(&HashSet::from([wanted])), "what came for event {sequence}");
        }
        let refused = requests.iter().enumerate().filter(|(number, _)| number % 20 == 7).count();
        received += rows.len();
        again += requests.len() - refused - rows.len();
    }
    (received, again)
}
