//! What a write leaves kept: answers about other things than the one that was written, and those that only mention it.

use mdl::actor::Role;
use mdl_tests::{Client, TestApp, eventually};
use serde_json::{Value, json};

use crate::cache::{source, started};
use crate::hearing::{Hearing, live, settled};
use crate::held_commits::HeldCommits;

const ONE: &str =
    "query One($key: String) { metric(key: $key) { id key name shortName description category tier status metricType
    indicatorKind tags synonyms notes version revision updatedAt archivedAt extra domain { name }
    definition { formula unit expectedDirection } governance { ownerTeam } targets { targetValue } usage { reviewCadence }
    alignment { strategicPillar objectives { name } } relationships { upstreamKeys tradeoffs } keyResults { key currentValue }
    versions(first: 3) { nodes { version changedFields metric { name upstream { nodes { key } } } } } } }";
const ONE_BY_ID: &str = "query($id: ID!) { metric(id: $id) { name description status notes } }";
const LINEAGE: &str = "query Lineage($key: String!) { metric(key: $key) { key
    upstream { totalCount nodes { key name status archivedAt } } downstream { totalCount edges { cursor node { key name } } }
    unresolvedReferences { key side } } }";
const OBJECTIVE: &str = "query Objective($key: String!) { objective(key: $key) { name description status progress
    unresolvedMetricKeys metrics { name tier } keyResults { name currentValue status metrics { key name } objective { revision } } } }";
const OBJECTIVE_BY_ID: &str = "query($id: ID!) { objective(id: $id) { owner keyResults { progress } } }";
/// Mention metrics, and say no more of them.
const MENTIONS: &[&str] = &[
    "{ metrics(first: 100) { totalCount nodes { id key name shortName category tier status metricType indicatorKind tags archivedAt
         createdAt domain { name } } } }",
    "{ businessDomains { nodes { key metricCount metrics { nodes { key name } } keyMetrics { key name tier } } } }",
    "{ catalogStats { metricCount byTier { tier count } byStatus { status count } byCategory { category count } byDomain { count } } }",
    "{ objectives { nodes { key unresolvedMetricKeys metrics { key name status } keyResults { metrics { key name } } } } }",
];
/// Say everything, or choose by anything.
const LISTS: &[&str] = &[
    "{ metrics(first: 100) { nodes { key description notes revision governance { ownerTeam } } } }",
    "{ metrics(search: \"churn\") { nodes { key } } }",
    "{ metrics(orderBy: { field: UPDATED_AT, direction: DESC }) { nodes { key } } }",
    "{ metrics(filter: { ownerTeam: { in: [\"growth\"] } }) { nodes { key } } }",
    "{ objectives { nodes { key description progress keyResults { currentValue } } } }",
];

/// Metrics that have something in common.
const TAGGED: &str = "query Tagged($tag: String!) { metrics(filter: { tags: { containsAny: [$tag] } }) { totalCount
    nodes { key description tags domain { name } upstream { nodes { key name } } versions(first: 1) { nodes { version } } } } }";
const FOUND: &str =
    "query Found($filter: MetricFilter) { metrics(search: \"churn\", filter: $filter) { edges { node { key notes } } } }";
const DOMAIN: &str =
    "query Domain($key: String) { businessDomain(key: $key) { name metricCount metrics { nodes { key notes } } } }";
const DOMAIN_BY_ID: &str = "query($id: ID!) { businessDomain(id: $id) { metrics { totalCount } } }";

/// A catalog with ends that hang together.
struct Catalog {
    app: TestApp,
    editor: Client,
    /// By key.
    ids: Vec<(&'static str, Value)>,
}

impl Catalog {
    async fn plant() -> Self {
        let app = started(&[]).await;
        let editor = app.client(Role::Editor).await;
        let mut ids = Vec::new();
        let mut write = async |field: &str, key: &'static str, mut input: Value| {
            input["key"] = json!(key);
            ids.push((key, editor.write(field, input).await["id"].clone()));
            ids.last().unwrap().1.clone()
        };
        write("createBusinessDomain", "D", json!({ "name": "Growth", "keyMetricKeys": ["A", "LATER"] })).await;
        let upstream = json!({ "upstreamKeys": ["B", "LATER"] });
        write("createMetric", "A", json!({ "name": "Churn", "domain": "D", "tags": ["loss"], "relationships": upstream })).await;
        write("createMetric", "B", json!({ "name": "Accounts", "tier": "TIER_1" })).await;
        let objective = write("createObjective", "O", json!({ "name": "Stay", "metricKeys": ["A", "LATER"] })).await;
        write("createObjective", "P", json!({ "name": "Grow" })).await;
        let input = json!({ "objectiveId": objective, "name": "Fewer leave", "targetValue": 100, "metricKeys": ["A"] });
        write("createKeyResult", "K", input).await;
        Self { app, editor, ids }
    }

    fn id(&self, key: &str) -> &Value {
        &self.ids.iter().find(|(other, _)| *other == key).unwrap().1
    }

    /// All that is asked here.
    fn questions(&self) -> Vec<(&'static str, Value)> {
        let mut questions = Vec::new();
        for key in ["A", "B", "LATER", "NOBODY"] {
            questions.extend([(ONE, json!({ "key": key })), (LINEAGE, json!({ "key": key }))]);
        }
        for key in ["O", "P", "Q"] {
            questions.push((OBJECTIVE, json!({ "key": key })));
        }
        questions.extend(["A", "B"].map(|key| (ONE_BY_ID, json!({ "id": self.id(key) }))));
        questions.extend(["O", "P"].map(|key| (OBJECTIVE_BY_ID, json!({ "id": self.id(key) }))));
        questions.extend(MENTIONS.iter().chain(LISTS).map(|query| (*query, json!({}))));
        questions.extend(self.groups("loss", "D"));
        questions.extend(self.groups("growth", "NOBODY"));
        questions
    }

    /// Questions about metrics with a tag, and about those of a domain.
    fn groups(&self, tag: &str, domain: &str) -> Vec<(&'static str, Value)> {
        let tags = json!({ "filter": { "tags": { "containsAll": [tag, tag] } } });
        let domains = json!({ "filter": { "domain": { "in": [domain] } } });
        let mut groups =
            vec![(TAGGED, json!({ "tag": tag })), (FOUND, tags), (FOUND, domains), (DOMAIN, json!({ "key": domain }))];
        let known = self.ids.iter().find(|(key, _)| *key == domain);
        groups.extend(known.map(|(_, id)| (DOMAIN_BY_ID, json!({ "id": id }))));
        groups
    }

    /// The answers, with where they come from.
    async fn answers(&self, client: &Client) -> Vec<Answered> {
        let mut answers = Vec::new();
        for (query, variables) in self.questions() {
            let answer = client.send(query, variables.clone()).await;
            answers.push(Answered { of: (query, variables), kept: source(&answer) == "HIT", data: answer.data() });
        }
        answers
    }

    /// Asks until everything is kept. Right after a write an answer may be made twice: before and after Redis has told it back.
    async fn keep(&self, client: &Client) {
        settled(&self.app.app, self.app.tenant.id).await;
        eventually("everything is kept", async || self.answers(client).await.iter().all(|answer| answer.kept).then_some(()))
            .await;
    }
}

struct Answered {
    of: (&'static str, Value),
    kept: bool,
    data: Value,
}

fn data(answers: &[Answered]) -> Vec<(&(&'static str, Value), &Value)> {
    answers.iter().map(|answer| (&answer.of, &answer.data)).collect()
}

/// Field by field of the inputs: whoever adds one adds a line.
fn writes(catalog: &Catalog) -> Vec<(&'static str, Value)> {
    let mut writes = Vec::new();
    let mut update = |field: &'static str, key: &str, changes: Value| {
        for (name, value) in changes.as_object().unwrap() {
            let mut input = json!({ "id": catalog.id(key) });
            input[name] = value.clone();
            writes.push((field, input));
        }
    };
    for key in ["A", "B"] {
        let metric = json!({
            "name": format!("Churn {key}"), "shortName": key, "description": "churn", "category": "KPI", "tier": "TIER_2", "status": "ACTIVE",
            "metricType": "DERIVED", "indicatorKind": "LEADING", "tags": ["growth"], "synonyms": ["loss"], "notes": "n", "extra": { "a": 1 },
            "domain": if key == "A" { Value::Null } else { json!("D") },
            "definition": { "formula": "a / b" }, "governance": { "ownerTeam": "growth" }, "targets": { "targetValue": 0.5 },
            "usage": { "reviewCadence": "weekly" }, "alignment": { "strategicPillar": "Retention", "objectiveKeys": ["P", "Q"] },
            "data": { "updateFrequency": "daily" }, "dimensions": [{ "name": "country" }], "exampleQueries": [{ "query": "SELECT 1" }],
            "visualization": { "defaultChartType": "line" },
            "relationships": { "upstreamKeys": ["LATER"], "downstreamKeys": [if key == "A" { "B" } else { "A" }], "tradeoffs": ["growth"] },
        });
        update("updateMetric", key, metric);
    }
    let objective = json!({ "name": "Remain", "description": "d", "owner": "o", "pillar": "p", "priority": "P0", "status": "ACHIEVED",
        "startsOn": "2020-01-01", "endsOn": "2030-01-01", "domain": "D", "metricKeys": ["B"], "extra": { "a": 1 } });
    update("updateObjective", "O", objective);
    let key_result = json!({ "name": "n", "description": "d", "unit": "u", "direction": "DECREASE", "baselineValue": 200,
        "currentValue": 150, "targetValue": 120, "metricKeys": ["B", "LATER"], "extra": { "a": 1 } });
    update("updateKeyResult", "K", key_result);
    let domain = json!({ "name": "Retention", "description": "d", "keyMetricKeys": ["B", "LATER"], "ownerTeam": "t" });
    update("updateBusinessDomain", "D", domain);
    let later = json!({ "key": "LATER", "name": "Later", "description": "churn", "relationships": { "downstreamKeys": ["B"] } });
    writes.extend([
        ("createMetric", later),
        ("createMetric", json!({ "key": "C", "name": "Nobody knows it" })),
        ("createObjective", json!({ "key": "Q", "name": "Later" })),
        ("createKeyResult", json!({ "objectiveId": catalog.id("P"), "key": "L", "name": "n", "metricKeys": ["A"] })),
        ("archiveKeyResult", json!({ "id": catalog.id("K") })),
        ("archiveMetric", json!({ "id": catalog.id("B") })),
        ("restoreMetric", json!({ "id": catalog.id("B") })),
        ("archiveObjective", json!({ "id": catalog.id("O") })),
        ("archiveBusinessDomain", json!({ "id": catalog.id("D") })),
    ]);
    writes
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_written_no_answer_is_old() {
    let catalog = Catalog::plant().await;
    let (second, second_base) = catalog.app.another_api(&[]).await;
    live(&second).await;
    let (_, truth_base) = catalog.app.another_api(&[("MDL_CACHE_BYTES", "0")]).await;
    let (second, truth) = (catalog.editor.at(&second_base), catalog.editor.at(&truth_base));
    let hearing = Hearing::of(&[&catalog.app.app]).await;
    let (mut kept, mut total) = (0, 0);
    for (field, input) in writes(&catalog) {
        // The other has kept what it said last.
        catalog.keep(&catalog.editor).await;
        let answer = catalog.editor.mutate(field, input.clone(), "").await;
        assert_eq!(answer.user_errors(), [""; 0], "{field} {input}: {}", answer.body);
        let here = catalog.answers(&catalog.editor).await;
        let now = catalog.answers(&truth).await;
        assert_eq!(data(&here), data(&now), "{field} {input}");
        (kept, total) = (kept + here.iter().filter(|answer| answer.kept).count(), total + here.len());
        eventually("the other API knows it", async || (data(&catalog.answers(&second).await) == data(&now)).then_some(())).await;
    }
    assert!(kept * 2 > total || !hearing.held(), "of {total} answers {kept} outlived the writes");
}

/// The questions of which an answer is made anew after a write; `None` when changes were not heard of all the time, so that
/// nothing need have stayed kept.
async fn remade(catalog: &Catalog, field: &str, input: Value) -> Option<Vec<(&'static str, Value)>> {
    let hearing = Hearing::of(&[&catalog.app.app]).await;
    catalog.keep(&catalog.editor).await;
    assert_eq!(catalog.editor.mutate(field, input, "").await.user_errors(), [""; 0]);
    let answers = catalog.answers(&catalog.editor).await;
    hearing.held().then(|| answers.into_iter().filter(|answer| !answer.kept).map(|answer| answer.of).collect())
}

fn assert_remade(remade: Option<Vec<(&'static str, Value)>>, expected: &[(&'static str, Value)]) {
    assert!(remade.as_ref().is_none_or(|remade| *remade == *expected), "{remade:?} instead of {expected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_write_does_not_touch_stays_kept() {
    let catalog = Catalog::plant().await;
    let of_metrics = || LISTS[..4].iter().map(|query| (*query, json!({})));
    let id = |key: &str| catalog.id(key).clone();

    let mut expected =
        vec![(ONE, json!({ "key": "A" })), (LINEAGE, json!({ "key": "A" })), (ONE_BY_ID, json!({ "id": id("A") }))];
    expected.extend(of_metrics().chain(catalog.groups("loss", "D")));
    let described = json!({ "id": id("A"), "description": "Who has left." });
    assert_remade(remade(&catalog, "updateMetric", described).await, &expected);

    let lists = || {
        let objectives = ["O", "P", "Q"].map(|key| (OBJECTIVE, json!({ "key": key })));
        objectives.into_iter().chain(MENTIONS.iter().map(|query| (*query, json!({})))).chain(of_metrics())
    };
    let nobody_knows_it = json!({ "key": "C", "name": "C" });
    assert_remade(remade(&catalog, "createMetric", nobody_knows_it).await, &lists().collect::<Vec<_>>());

    let lineages = ["A", "B", "LATER", "NOBODY"].iter().flat_map(|key| {
        let with_upstream = [ONE, LINEAGE];
        with_upstream.map(|query| (query, json!({ "key": key })))
    });
    // With the neighbours of what it has.
    let expected: Vec<_> =
        lineages.chain(lists()).chain([(TAGGED, json!({ "tag": "loss" })), (TAGGED, json!({ "tag": "growth" }))]).collect();
    assert_remade(remade(&catalog, "createMetric", json!({ "key": "LATER", "name": "L" })).await, &expected);

    let progress = remade(&catalog, "updateKeyResult", json!({ "id": id("K"), "currentValue": 7 })).await;
    let Some(progress) = progress else { return };
    assert!(progress.contains(&(OBJECTIVE, json!({ "key": "O" }))) && progress.contains(&(LISTS[4], json!({}))));
    assert!(progress.contains(&(OBJECTIVE_BY_ID, json!({ "id": id("O") }))));
    for still in [(OBJECTIVE, json!({ "key": "P" })), (OBJECTIVE_BY_ID, json!({ "id": id("P") })), (LISTS[0], json!({}))] {
        assert!(!progress.contains(&still), "{still:?}");
    }
}

/// Somebody names a metric while it is being committed, and neither of the two transactions sees the other's.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_named_while_it_comes_is_found() {
    let catalog = Catalog::plant().await;
    catalog.keep(&catalog.editor).await;
    let held = HeldCommits::of(&catalog.app.database, "INSERT").await;
    let editor = catalog.editor.clone();
    let coming = tokio::spawn(async move { editor.write("createMetric", json!({ "key": "NEW", "name": "New" })).await });
    held.one().await;
    let edge = "INSERT INTO metric_edges (tenant_id, declared_by, upstream_key, downstream_key)
        SELECT tenant_id, id, 'NEW', key FROM metrics WHERE key = 'B'";
    assert_eq!(catalog.app.database.superuser().await.execute(edge, &[]).await.unwrap(), 1);
    held.let_go().await;
    coming.await.unwrap();
    let lineage = catalog.editor.ask(LINEAGE, json!({ "key": "B" })).await;
    assert_eq!(lineage["metric"]["upstream"]["totalCount"], 1);
}

/// The workers look for what dead writers have not told, and leave alone what was told.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_is_not_told_again() {
    let catalog = Catalog::plant().await;
    catalog.app.start_worker();
    let superuser = catalog.app.database.superuser().await;
    let name =
        async || catalog.editor.ask("{ businessDomain(key: \"D\") { name } }", json!({})).await["businessDomain"]["name"].clone();
    let list = async || source(&catalog.editor.send(LISTS[0], json!({})).await) == "HIT";
    let hearing = Hearing::of(&[&catalog.app.app]).await;
    // The worker's first look tells everything that is young.
    for round in ["first", "second"] {
        let input = json!({ "id": catalog.id("A"), "notes": round });
        assert_eq!(catalog.editor.mutate("updateMetric", input, "").await.user_errors(), [""; 0]);
        eventually("the list is kept", async || list().await.then_some(())).await;
        name().await;
        let committed = format!(
            "BEGIN;
             UPDATE business_domains SET name = '{round}' WHERE key = 'D';
             INSERT INTO outbox (tenant_id, id, kind, payload)
                 SELECT tenant_id, '{}', 'domain.updated', '{{}}' FROM business_domains WHERE key = 'D';
             COMMIT",
            uuid::Uuid::now_v7()
        );
        superuser.batch_execute(&committed).await.unwrap();
        eventually("the look is over", async || (name().await == round).then_some(())).await;
    }
    assert!(list().await || !hearing.held(), "the look has seen that change as well");
}
