//! What operators see and do, over GraphQL and at the terminal.

use std::process::{Child, Command, Stdio};

use mdl::Actor;
use mdl::actor::Role;
use mdl::jobs::{Job, RawJob};
use mdl::maintenance::TidyImports;
use mdl::schedules::{self, CatchUp, Definition, Overlap};
use mdl::tenants::SYSTEM;
use mdl_tests::servers::binary;
use mdl_tests::{Client, TestApp, eventually};
use serde_json::{Value, json};

const IMPORT: &str =
    "mutation($input: ImportCatalogInput!) { importCatalog(input: $input) { import { id } userErrors { message } } }";
const RETRY: &str = "mutation($input: JobSelectionInput!) { retryJobs(input: $input) { count userErrors { field code } } }";

/// The jobs that a filter lets through.
async fn jobs(client: &Client, filter: Value) -> Value {
    let query = "query($filter: JobFilter) { jobs(first: 50, filter: $filter) { totalCount nodes {
        id kind queue state error attempt payload traceId enqueuedBy { name } attempts { number outcome error } } } }";
    client.ask(query, json!({ "filter": filter })).await["jobs"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_finds_a_job_by_its_error_and_retries_it_by_filter() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    for name in ["good", "lost"] {
        let text = format!("{{\"metrics\": [{{\"metric_id\": \"M-{name}\", \"name\": \"{name}\"}}]}}");
        admin.ask(IMPORT, json!({ "input": { "text": text, "fileName": format!("{name}.json") } })).await;
    }
    // The file of one of them is gone, for now.
    let key = app.database.text("SELECT storage_key FROM imports WHERE file_name = 'lost.json'").await.unwrap();
    let storage = app.environment().into_iter().find(|(name, _)| name == "MDL_STORAGE_URL").unwrap().1;
    let file = std::path::Path::new(storage.strip_prefix("file://").unwrap()).join(key);
    let away = file.with_extension("away");
    std::fs::rename(&file, &away).unwrap();
    app.start_worker();

    let all = eventually("one succeeds, one fails", async || {
        let all = jobs(&admin, json!(null)).await;
        let with = |field: &str, value: Value| all["nodes"].as_array().unwrap().iter().any(|job| job[field] == value);
        (with("state", json!("SUCCEEDED")) && all["nodes"].as_array().unwrap().iter().any(|job| !job["error"].is_null()))
            .then_some(all)
    })
    .await;
    assert_eq!(all["totalCount"], 2, "every job is seen: {all}");
    let error = all["nodes"].as_array().unwrap().iter().find_map(|job| job["error"].as_str()).unwrap().to_owned();
    let words: String = error.chars().take(20).collect();
    let found = jobs(&admin, json!({ "error": words.to_uppercase(), "kind": { "in": ["import_catalog"] } })).await;
    assert_eq!(found["totalCount"], 1, "{found}");
    assert_eq!(found["nodes"][0]["enqueuedBy"]["name"], "The admin");
    assert!(!found["nodes"][0]["attempts"].as_array().unwrap().is_empty(), "{found}");

    // While the file is away: by itself the job is tried again, too.
    let retry = async |dry_run: bool| {
        let input = json!({ "filter": { "error": words }, "dryRun": dry_run });
        eventually("it is between two attempts, or dead", async || {
            let answer = admin.ask(RETRY, json!({ "input": input })).await["retryJobs"].clone();
            (answer["count"] == 1).then_some(answer)
        })
        .await
    };
    let retried = "SELECT count(*) FROM audit_log WHERE action = 'job.retried'";
    assert_eq!(retry(true).await["userErrors"], json!([]));
    assert_eq!(app.database.number(retried).await, 0, "only tried");
    assert_eq!(retry(false).await["userErrors"], json!([]));
    assert_eq!(app.database.number(retried).await, 1);
    std::fs::rename(&away, &file).unwrap();
    eventually("it succeeds", async || {
        let jobs = jobs(&admin, json!({ "state": { "in": ["SUCCEEDED"] } })).await;
        (jobs["totalCount"] == 2).then_some(())
    })
    .await;
    assert_eq!(app.database.number("SELECT count(*) FROM metrics WHERE key IN ('M-good', 'M-lost')").await, 2);
    let queues = admin
        .ask("{ queues { name succeeded dead failureRate workers runSecondsP95 } workers { alive version } }", json!({}))
        .await;
    let imports = queues["queues"].as_array().unwrap().iter().find(|queue| queue["name"] == "imports").unwrap();
    assert_eq!((&imports["succeeded"], &imports["failureRate"], &imports["workers"]), (&json!(2), &json!(0.0), &json!(1)));
    assert_eq!(queues["workers"][0]["alive"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_of_an_import_says_how_far_it_is_and_which_key_enqueued_it() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let scopes = json!({ "name": "nightly", "scopes": ["CATALOG_IMPORT", "OPERATE"] });
    let key = admin.mutate("createApiKey", scopes, "key").await.payload()["key"].as_str().unwrap().to_owned();
    let program = admin.with(key.as_str());
    let text = "{\"metrics\": [{\"metric_id\": \"A\", \"name\": \"A\"}, {\"metric_id\": \"B\", \"name\": \"B\"}]}";
    program.ask(IMPORT, json!({ "input": { "text": text, "fileName": "two.json" } })).await;
    app.start_worker();
    let query = "{ jobs(filter: { kind: { in: [\"import_catalog\"] } }) { nodes {
        state progress { done total } enqueuedBy { name } enqueuedByKey { name user { name } } } } }";
    let job = eventually("it is imported", async || {
        let job = program.ask(query, json!({})).await["jobs"]["nodes"][0].clone();
        (job["state"] == "SUCCEEDED").then_some(job)
    })
    .await;
    assert_eq!(job["progress"], json!({ "done": 2, "total": 2 }));
    assert_eq!(job["enqueuedByKey"], json!({ "name": "nightly", "user": { "name": "The admin" } }));
    assert_eq!(job["enqueuedBy"], Value::Null, "not a person");
}

/// Jobs as they come to be after a bad night.
async fn dead_jobs(app: &TestApp) {
    app.database
        .execute(
            "INSERT INTO jobs (tenant_id, id, queue, kind, payload, max_attempts, attempt, state, last_error, finished_at, unique_key)
             SELECT tenants.id, gen_random_uuid(), 'nights', 'probe', '{\"apiKey\": \"geheim\", \"n\": 1}', 3, 3, 'dead',
                    'no answer from 10%_of the servers', now(), CASE WHEN n <= 2 THEN 'same' END
             FROM tenants, generate_series(1, 10) AS n WHERE slug <> 'mdl-system'",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steering_is_for_jobs_in_a_state_for_it() {
    let app = TestApp::start().await;
    app.other_tenant().await;
    dead_jobs(&app).await;
    let admin = app.client(Role::Admin).await;
    let steer = async |mutation: &str, kind: &str, input: Value| {
        let operation =
            format!("mutation($input: {kind}!) {{ done: {mutation}(input: $input) {{ count userErrors {{ code }} }} }}");
        admin.ask(&operation, json!({ "input": input })).await["done"].clone()
    };
    let all = json!({ "filter": { "queue": { "in": ["nights"] } } });
    let refused = steer("retryJobs", "JobSelectionInput", json!({})).await;
    assert_eq!(refused["userErrors"][0]["code"], "REQUIRED", "not everything by mistake");
    let none = steer("retryJobs", "JobSelectionInput", json!({ "filter": { "error": "100%" } })).await;
    assert_eq!(none["count"], 0, "per cent means itself");
    assert_eq!(steer("cancelJobs", "JobSelectionInput", all.clone()).await["count"], 0, "they have ended");
    let retried = steer("retryJobs", "JobSelectionInput", json!({ "filter": { "error": "10%_OF" } })).await;
    assert_eq!(retried["count"], 9, "of two with the same key, one");
    let later = json!({ "filter": all["filter"], "runAt": "2100-01-01T00:00:00Z" });
    assert_eq!(steer("rescheduleJobs", "RescheduleJobsInput", later).await["count"], 9);
    assert_eq!(steer("discardJobs", "JobSelectionInput", all.clone()).await["count"], 1);
    assert_eq!(steer("cancelJobs", "JobSelectionInput", all).await["count"], 9);
    let states = "SELECT string_agg(DISTINCT state, ' ') || ' ' || count(*) FROM jobs WHERE tenant_id = (SELECT id FROM tenants WHERE slug = 'globex')";
    assert_eq!(app.database.text(states).await.as_deref(), Some("dead 10"), "another tenant's are another tenant's");
    let found = jobs(&admin, json!({ "state": { "in": ["DISCARDED"] } })).await;
    assert_eq!(found["nodes"][0]["payload"], json!({ "apiKey": "[redacted]", "n": 1 }));
    let entries = "SELECT count(*) FROM audit_log WHERE action LIKE 'job.%' AND details -> 'count' IS NOT NULL";
    assert_eq!(app.database.number(entries).await, 4);
    assert_eq!(app.database.number("SELECT count(*) FROM audit_log WHERE details ? 'operator'").await, 0, "nobody's command");
    // The deployment's operators have no say in a tenant's jobs by id, either.
    let filter = mdl::jobs::store::Filter { queues: Some(vec!["nights".to_owned()]), ..Default::default() };
    let action = mdl::jobs::steer::Action::Retry;
    assert_eq!(mdl::jobs::steer::steer(&app.app, &Actor::system(SYSTEM), action, &filter, false).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_for_queues_that_there_are() {
    let app = TestApp::start().await;
    app.other_tenant().await;
    let admin = app.client(Role::Admin).await;
    let before = app.database.contents().await;
    for (mutation, kind, input) in [
        ("pauseQueue", "QueueInput", json!({ "queue": "improts" })),
        ("resumeQueue", "QueueInput", json!({ "queue": "improts" })),
        ("setQueueConcurrency", "SetQueueConcurrencyInput", json!({ "queue": "improts", "concurrency": 2 })),
    ] {
        let operation = format!(
            "mutation($input: {kind}!) {{ {mutation}(input: $input) {{ settings {{ queue }} userErrors {{ field code message }} }} }}"
        );
        let refused = admin.send(&operation, json!({ "input": input })).await;
        assert_eq!(refused.user_errors(), ["queue: NOT_FOUND"], "{mutation}");
        let said = refused.payload()["userErrors"][0]["message"].clone();
        assert_eq!(said, "There is no queue of this name; there are backups, imports, maintenance", "{mutation}");
    }
    let worker = |arguments: &[&str]| {
        Command::new(binary("mdl-worker")).args(["queues"]).args(arguments).envs(app.environment()).output().unwrap()
    };
    for arguments in [
        &["pause", "improts"][..],
        &["resume", "improts", "--tenant", "acme"],
        &["limit", "improts", "3"],
        &["weigh", "improts", "--tenant", "acme", "3"],
    ] {
        let refused = worker(arguments);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("there are backups, imports, maintenance"), "{arguments:?}: {said}");
    }
    assert_eq!(app.database.contents().await, before);
    // Nobody serves it yet, and it is one.
    assert!(worker(&["pause", "maintenance"]).status.success());
    // One of another version is known by its jobs: to those who see them.
    app.database
        .execute(
            "INSERT INTO jobs (tenant_id, id, queue, kind, payload, max_attempts)
             SELECT id, gen_random_uuid(), 'nights', 'probe', '{}', 3 FROM tenants WHERE slug = 'globex'",
        )
        .await;
    assert!(!worker(&["pause", "nights", "--tenant", "acme"]).status.success());
    assert!(worker(&["pause", "nights"]).status.success());
    assert!(worker(&["pause", "nights", "--tenant", "acme"]).status.success(), "now it has settings for all");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_come_in_pages_in_either_order() {
    let app = TestApp::start().await;
    dead_jobs(&app).await;
    let admin = app.client(Role::Admin).await;
    for (field, direction) in [("CREATED_AT", "ASC"), ("CREATED_AT", "DESC"), ("RUN_AT", "ASC"), ("RUN_AT", "DESC")] {
        let mut seen = Vec::new();
        let mut after = json!(null);
        loop {
            let query = "query($by: JobOrder, $after: String) { jobs(first: 3, after: $after, orderBy: $by) {
                nodes { id } pageInfo { hasNextPage endCursor } } }";
            let page = admin.ask(query, json!({ "by": { "field": field, "direction": direction }, "after": after })).await;
            seen.extend(page["jobs"]["nodes"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()));
            after = page["jobs"]["pageInfo"]["endCursor"].clone();
            if page["jobs"]["pageInfo"]["hasNextPage"] == false {
                break;
            }
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!((count, seen.len()), (10, 10), "{field} {direction}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_sees_and_steers_all_tenants() {
    let app = TestApp::start().await;
    app.other_tenant().await;
    dead_jobs(&app).await;
    let worker = |arguments: &[&str]| {
        let output = Command::new(binary("mdl-worker")).args(arguments).envs(app.environment()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let json = |arguments: &[&str]| -> Value { serde_json::from_str(&worker(arguments)).unwrap() };

    let queues = json(&["queues", "--json"]);
    assert_eq!((&queues[0]["name"], &queues[0]["dead"]), (&json!("nights"), &json!(20)));
    assert_eq!(json(&["queues", "--tenant", "acme", "--json"])[0]["dead"], 10);
    let text = worker(&["queues"]);
    assert!(text.lines().any(|line| line.contains("nights") && line.contains("20")), "{text}");

    let listed = json(&["jobs", "list", "--error", "no answer", "--tenant", "globex", "--json"]);
    let (listed, more) = (listed["jobs"].as_array().unwrap(), &listed["hasMore"]);
    assert_eq!((listed.len(), more), (10, &json!(false)));
    let shown = worker(&["jobs", "show", listed[0]["id"].as_str().unwrap()]);
    assert!(shown.contains("no answer from") && shown.contains("[redacted]") && !shown.contains("geheim"), "{shown}");
    let text = worker(&["jobs", "list", "--state", "dead"]);
    assert!(text.contains("globex") && text.contains("acme"), "{text}");

    let filter = ["--queue", "nights", "--json"];
    let steer = |command: &[&str]| json(&[&["jobs"], command, &filter].concat())["count"].clone();
    assert_eq!(steer(&["retry", "--dry-run"]), 18);
    assert_eq!(app.database.number("SELECT count(*) FROM jobs WHERE state = 'dead'").await, 20);
    assert_eq!(steer(&["retry"]), 18);
    assert_eq!(steer(&["reschedule", "--at", "2100-01-01T00:00:00Z"]), 18);
    let text = worker(&["jobs", "list", "--queue", "nights", "--state", "waiting"]);
    assert_eq!(text.lines().filter(|line| line.contains(" in 2") && line.contains(" d ")).count(), 18, "due in days: {text}");
    assert_eq!(steer(&["discard", "--tenant", "acme"]), 1);
    assert_eq!(steer(&["cancel"]), 18);

    assert_eq!(worker(&["queues", "limit", "nights", "3"]), "nights: not paused, at most 3 jobs at once\n");
    assert_eq!(worker(&["queues", "pause", "nights", "--tenant", "acme"]), "nights: paused, no limit\n");
    let text = worker(&["queues"]);
    assert!(text.contains("limit 3") && text.contains("paused (acme)"), "{text}");
    assert!(worker(&["schedules"]).contains("schedule"));

    let set = json(&["queues", "weigh", "nights", "--tenant", "acme", "3", "--json"]);
    let wanted = json!({ "queue": "nights", "tenant": "acme", "pausedAt": set["pausedAt"], "concurrency": null, "weight": 3 });
    assert!(set == wanted && set["pausedAt"].is_string(), "{set}");
    let set = json(&["queues", "resume", "nights", "--json"]);
    assert_eq!((&set["tenant"], &set["pausedAt"], &set["concurrency"]), (&json!(null), &json!(null), &json!(3)));

    let job = RawJob { queue: TidyImports::QUEUE, kind: TidyImports::KIND, payload: json!({}), max_attempts: 3 };
    let timing = "0 0 1 1 *".parse().unwrap();
    let (overlap, catch_up) = (Overlap::Skip, CatchUp::Never);
    let yearly = Definition { name: "yearly", description: "", timing, overlap, catch_up, enabled: true, job };
    schedules::declare(&app.app.db, &[yearly]).await.unwrap();
    assert!(json(&["schedules", "run", "yearly", "--json"])["job"].is_string());
    assert!(json(&["schedules", "pause", "yearly", "--json"])["pausedAt"].is_string());
    assert_eq!(json(&["schedules", "resume", "yearly", "--json"]), json!({ "name": "yearly", "pausedAt": null }));

    let unnamed = "SELECT count(*) FROM audit_log WHERE action ~ '^(job|queue|schedule)[.]' AND NOT details ? 'operator'";
    assert_eq!(app.database.number(unnamed).await, 0);
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let who = "SELECT string_agg(DISTINCT details #>> '{operator,user}' || ' on ' || (details #>> '{operator,host}'), ', ')
               FROM audit_log WHERE details ? 'operator'";
    let wanted = format!("{} on {}", user.trim(), mdl::telemetry::host_name());
    assert_eq!(app.database.text(who).await, Some(wanted));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_the_terminal_is_one_of_graphql_and_the_other_way_round() {
    let app = TestApp::start().await;
    app.other_tenant().await;
    dead_jobs(&app).await;
    let admin = app.client(Role::Admin).await;
    let show = |id: &str| {
        let mut command = Command::new(binary("mdl-worker"));
        command.args(["jobs", "show", id, "--json"]).envs(app.environment()).output().unwrap()
    };
    let shown = |id: &str| -> Value { serde_json::from_slice(&show(id).stdout).unwrap() };
    let found = admin.ask("{ me { user { id } } jobs(first: 1) { nodes { id error } } }", json!({})).await;
    let (job, user) = (&found["jobs"]["nodes"][0], found["me"]["user"]["id"].as_str().unwrap());

    let by_global = shown(job["id"].as_str().unwrap());
    let plain = by_global["id"].as_str().unwrap();
    assert!(uuid::Uuid::try_parse(plain).is_ok() && by_global["error"] == job["error"], "{by_global}");
    assert_eq!(shown(plain), by_global);
    let of_user = show(user);
    let said = String::from_utf8_lossy(&of_user.stderr);
    assert!(!of_user.status.success() && said.contains("Is the id of a user, not of a job"), "{said}");

    let by_id = "query($id: ID!) { job(id: $id) { id error } }";
    assert_eq!(admin.ask(by_id, json!({ "id": plain })).await["job"], *job);
    assert_eq!(app.client_of("globex", Role::Admin).await.ask(by_id, json!({ "id": plain })).await["job"], json!(null));
    let discard = "mutation($input: JobSelectionInput!) { discardJobs(input: $input) { count userErrors { code } } }";
    let input = json!({ "input": { "ids": [plain] } });
    assert_eq!(admin.ask(discard, input).await["discardJobs"], json!({ "count": 1, "userErrors": [] }));
    let node = admin.send("query($id: ID!) { node(id: $id) { id } }", json!({ "id": plain })).await;
    assert_eq!(node.error_code(), Some("BAD_USER_INPUT"), "a UUID does not say of what it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_lists_jobs_page_by_page() {
    let app = TestApp::start().await;
    app.other_tenant().await;
    dead_jobs(&app).await;
    let list = |arguments: &[&str]| {
        let mut command = Command::new(binary("mdl-worker"));
        let output =
            command.args(["jobs", "list", "--queue", "nights"]).args(arguments).envs(app.environment()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for order in [&["--json"][..], &["--json", "--oldest"]] {
        let mut seen = Vec::new();
        let mut after = Vec::new();
        loop {
            let arguments: Vec<&str> =
                [order, &["--limit", "8"]].concat().into_iter().chain(after.iter().map(String::as_str)).collect();
            let page: Value = serde_json::from_str(&list(&arguments).1).unwrap();
            seen.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()));
            if page["hasMore"] == false {
                break;
            }
            after = vec!["--after".to_owned(), page["endCursor"].as_str().unwrap().to_owned()];
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!((count, seen.len()), (20, 20), "{order:?}");
    }
    let (_, text, _) = list(&["--limit", "8"]);
    let cursor = text.split("--after ").nth(1).and_then(|rest| rest.split(' ').next()).expect("that there are more");
    let (_, rest, _) = list(&["--after", cursor]);
    assert_eq!(rest.lines().filter(|line| line.contains("probe")).count(), 12, "{rest}");
    let (succeeded, _, said) = list(&["--after", "nonsense"]);
    assert!(!succeeded && said.contains("Not a cursor"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_views_go_on_while_the_database_is_away() {
    let app = TestApp::start().await;
    dead_jobs(&app).await;
    let mut views = [&["queues", "--watch"][..], &["jobs", "list", "--watch"]].map(|arguments| View::start(&app, arguments));
    for view in &views {
        eventually("it is drawn", async || view.shows("nights").or(view.shows("probe"))).await;
    }
    app.database.allow_connections(false).await;
    for view in &views {
        eventually("it says that it sees nothing", async || view.shows("Nothing was seen for")).await;
    }
    app.database.allow_connections(true).await;
    for view in &mut views {
        eventually("it sees again", async || view.shows("nights").or(view.shows("probe"))).await;
        assert!(view.process.try_wait().unwrap().is_none(), "until Ctrl-C");
    }
}

/// A live view of `mdl-worker`, ended with the test.
struct View {
    process: Child,
    drawn: tempfile::NamedTempFile,
}

impl View {
    fn start(app: &TestApp, arguments: &[&str]) -> Self {
        let drawn = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new(binary("mdl-worker"));
        command.args(arguments).envs(app.environment()).stdout(Stdio::from(drawn.reopen().unwrap()));
        Self { process: command.spawn().unwrap(), drawn }
    }

    /// Whether what was drawn last has this in it.
    fn shows(&self, text: &str) -> Option<()> {
        let drawn = std::fs::read_to_string(self.drawn.path()).unwrap();
        drawn.rsplit("\x1b[H\x1b[2J").next().is_some_and(|last| last.contains(text)).then_some(())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.process.kill().expect("the view ends");
        self.process.wait().expect("the view has ended");
    }
}
