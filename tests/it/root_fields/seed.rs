//! What a tenant has when root fields are called, the calls, and whether they have changed anything.

use mdl::actor::Role;
use mdl_tests::app::PASSWORD;
use mdl_tests::{Answer, Client, TestApp};
use serde_json::{Value, json};

use super::RootField;

/// What a tenant has for these calls, every text of it marked with [`MARK`].
pub struct Seed {
    pub user: String,
    pub api_key: String,
    pub domain: String,
    pub metric: String,
    pub objective: String,
    pub key_result: String,
    pub import: String,
    pub document: String,
    pub job: String,
    pub webhook: String,
    pub delivery: String,
}

/// In every name and text of the seed.
pub const MARK: &str = "XYZZY";

impl Seed {
    /// Makes it in the first tenant.
    pub async fn plant(app: &TestApp) -> Self {
        let admin = app.client(Role::Admin).await;
        let id = async |operation: &str, input: Value| -> String {
            let data = admin.ask(operation, json!({ "input": input })).await;
            let payload = data.as_object().and_then(|data| data.values().next()).expect("one field");
            let entity = payload.as_object().and_then(|payload| payload.values().next()).expect("one entity");
            entity["id"].as_str().unwrap_or_else(|| panic!("no id in {payload}")).to_owned()
        };
        let user = id(
            "mutation($input: CreateUserInput!) { createUser(input: $input) { user { id } userErrors { message } } }",
            json!({ "email": "xyzzy@example.com", "name": MARK, "password": PASSWORD, "role": "EDITOR" }),
        )
        .await;
        let api_key = id(
            "mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) { apiKey { id } userErrors { message } } }",
            json!({ "name": MARK, "scopes": ["CATALOG_READ"] }),
        )
        .await;
        let domain = id(
            "mutation($input: CreateBusinessDomainInput!) { createBusinessDomain(input: $input) { businessDomain { id } userErrors { message } } }",
            json!({ "key": "DOMAIN-XYZZY", "name": MARK, "description": MARK }),
        )
        .await;
        let metric = id(
            "mutation($input: CreateMetricInput!) { createMetric(input: $input) { metric { id } userErrors { message } } }",
            json!({ "key": "METRIC-XYZZY", "name": MARK, "description": MARK, "domain": "DOMAIN-XYZZY", "tags": [MARK], "notes": MARK }),
        )
        .await;
        let objective = id(
            "mutation($input: CreateObjectiveInput!) { createObjective(input: $input) { objective { id } userErrors { message } } }",
            json!({ "key": "OBJ-XYZZY", "name": MARK, "domain": "DOMAIN-XYZZY", "metricKeys": ["METRIC-XYZZY"] }),
        )
        .await;
        let key_result = id(
            "mutation($input: CreateKeyResultInput!) { createKeyResult(input: $input) { keyResult { id } userErrors { message } } }",
            json!({ "objectiveId": objective, "key": "KR-XYZZY", "name": MARK, "metricKeys": ["METRIC-XYZZY"] }),
        )
        .await;
        let import = id(
            "mutation($input: ImportCatalogInput!) { importCatalog(input: $input) { import { id } userErrors { message } } }",
            json!({ "text": "{\"metrics\": [{\"metric_id\": \"METRIC-XYZZY-2\", \"name\": \"XYZZY\"}]}", "fileName": "xyzzy.json" }),
        )
        .await;
        let published = admin
            .ask(
                "mutation($input: PublishDocumentsInput!) { publishDocuments(input: $input) { documents { id } userErrors { message } } }",
                json!({ "input": { "manifest": "query XYZZY { me { role } }" } }),
            )
            .await;
        let document = published["publishDocuments"]["documents"][0]["id"].as_str().expect("a document").to_owned();
        let job = mdl::ids::JobId::new();
        let dead = format!(
            "INSERT INTO jobs (tenant_id, id, queue, kind, payload, max_attempts, attempt, state, last_error, finished_at)
             SELECT id, '{job}', 'xyzzy', 'xyzzy', '{{\"note\": \"XYZZY\"}}', 3, 3, 'dead', 'XYZZY', now() FROM tenants WHERE slug = 'acme'"
        );
        app.database.execute(&dead).await;
        let job = mdl_api::graphql::global_id::encode(mdl_api::graphql::global_id::Kind::Job, job.0).to_string();
        let webhook = id(
            "mutation($input: CreateWebhookEndpointInput!) { createWebhookEndpoint(input: $input) { endpoint { id } userErrors { message } } }",
            json!({ "url": "https://xyzzy.example/", "description": MARK }),
        )
        .await;
        let delivery = id(
            "mutation($input: TestWebhookInput!) { testWebhook(input: $input) { delivery { id } userErrors { message } } }",
            json!({ "id": webhook, "kind": "metric.created" }),
        )
        .await;
        Self { user, api_key, domain, metric, objective, key_result, import, document, job, webhook, delivery }
    }
}

/// Sends a root field's operation.
pub async fn call(client: &Client, field: &RootField, seed: &Seed) -> Answer {
    client.send(field.operation, (field.variables)(seed)).await
}

/// How many rows each table has, and the newest change of each: equal when nothing was written in between.
pub async fn fingerprint(app: &TestApp) -> Vec<(String, String)> {
    let superuser = app.database.superuser().await;
    let tables = superuser
        .query("SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1", &[])
        .await
        .expect("the tables");
    let mut fingerprint = Vec::new();
    for row in tables {
        let table: String = row.get(0);
        // Signing in writes sessions; a key's last use is written behind the request.
        if ["sessions", "refresh_tokens", "api_keys"].contains(&table.as_str()) {
            continue;
        }
        let state: String = superuser
            .query_one(&format!("SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), 'empty') FROM {table} t"), &[])
            .await
            .expect("its rows")
            .get(0);
        fingerprint.push((table, state));
    }
    fingerprint
}
