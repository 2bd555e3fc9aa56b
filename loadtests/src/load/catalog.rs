//! What a run finds out about the tenants before it starts: who asks, and what there is to ask for.

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

/// Metrics of each tenant that are asked for by key; also how many are read to know tags and words.
const METRICS: usize = 1000;
const PAGE: usize = 100;
/// Requests at once, before the run.
pub const AT_ONCE: usize = 8;
/// Of this many users one is an editor, who writes; the others only read.
pub const USERS_PER_EDITOR: usize = 10;

/// A running API and how to get into it.
pub struct Target {
    /// `http://127.0.0.1:8080`
    pub url: String,
    /// Slugs.
    pub tenants: Vec<String>,
    /// Of somebody who may write in each of the tenants.
    pub email: String,
    pub password: String,
}

/// A tenant's entries, the most popular first.
pub struct Catalog {
    pub metric_keys: Vec<String>,
    pub metric_ids: Vec<String>,
    pub tags: Vec<String>,
    /// Words of the metrics' names.
    pub words: Vec<String>,
    pub domain_keys: Vec<String>,
    pub key_result_ids: Vec<String>,
}

/// Who a user is.
pub struct Account {
    /// The index of its tenant.
    pub tenant: usize,
    pub api_key: String,
    pub is_editor: bool,
}

/// Reads the catalogs, and makes an API key for each of `users`, who take turns with the tenants. The keys end with `expires_at`.
pub async fn prepare(target: &Target, users: usize, expires_at: &str) -> Result<(Vec<Catalog>, Vec<Account>)> {
    let http = reqwest::Client::builder().no_proxy().timeout(super::users::TIMEOUT).build().context("no HTTP client")?;
    let (mut catalogs, mut clients) = (Vec::new(), Vec::new());
    for tenant in &target.tenants {
        let client = sign_in(&http, target, tenant).await.with_context(|| format!("tenant {tenant}"))?;
        catalogs.push(read(&client).await.with_context(|| format!("the catalog of {tenant}"))?);
        clients.push(client);
    }
    let accounts = stream::iter(0..users)
        .map(|user| {
            // Editors of every tenant, whatever the number of tenants.
            let (tenant, is_editor) = (user % clients.len(), user / clients.len() % USERS_PER_EDITOR == 0);
            let client = &clients[tenant];
            async move { Ok(Account { tenant, api_key: client.api_key(user, is_editor, expires_at).await?, is_editor }) }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
        .map_err(|error: anyhow::Error| error.context("cannot make an API key"))?;
    Ok((catalogs, accounts))
}

struct Client {
    http: reqwest::Client,
    url: String,
    credential: Option<String>,
}

impl Client {
    /// Sends an operation, which must succeed, and gives its data.
    async fn ask(&self, query: &str, variables: Value) -> Result<Value> {
        let mut request =
            self.http.post(format!("{}/graphql", self.url)).json(&json!({ "query": query, "variables": variables }));
        if let Some(credential) = &self.credential {
            request = request.bearer_auth(credential);
        }
        let response = request.send().await.context("the API does not answer")?;
        let status = response.status();
        let mut body: Value = response.json().await.with_context(|| format!("an answer with status {status} that is no JSON"))?;
        ensure!(body.get("errors").is_none(), "{status}: {}", body["errors"]);
        Ok(body["data"].take())
    }

    async fn api_key(&self, user: usize, is_editor: bool, expires_at: &str) -> Result<String> {
        let scopes: &[&str] = if is_editor { &["CATALOG_READ", "CATALOG_WRITE"] } else { &["CATALOG_READ"] };
        let query = "mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) { key userErrors { message } } }";
        let input = json!({ "name": format!("load test, user {user}"), "scopes": scopes, "expiresAt": expires_at });
        let payload = self.ask(query, json!({ "input": input })).await?["createApiKey"].take();
        Ok(payload["key"].as_str().with_context(|| payload["userErrors"].to_string())?.to_owned())
    }
}

async fn sign_in(http: &reqwest::Client, target: &Target, tenant: &str) -> Result<Client> {
    let stranger = Client { http: http.clone(), url: target.url.clone(), credential: None };
    let query = "mutation($input: SignInInput!) { signIn(input: $input) { session { accessToken } userErrors { message } } }";
    let input = json!({ "tenant": tenant, "email": target.email, "password": target.password });
    let data = stranger.ask(query, json!({ "input": input })).await?;
    let token = data["signIn"]["session"]["accessToken"].as_str().context("the sign-in was refused")?;
    Ok(Client { credential: Some(token.to_owned()), ..stranger })
}

async fn read(client: &Client) -> Result<Catalog> {
    let metrics = "query($after: String) { metrics(first: 100, after: $after) {
        nodes { id key name tags } pageInfo { hasNextPage endCursor } } }";
    let (mut metric_keys, mut metric_ids, mut tags, mut words) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut after = Value::Null;
    for _ in 0..METRICS / PAGE {
        let page = client.ask(metrics, json!({ "after": after })).await?["metrics"].take();
        for node in list(&page["nodes"]) {
            metric_keys.push(text(&node["key"]));
            metric_ids.push(text(&node["id"]));
            list(&node["tags"]).for_each(|tag| add_new(&mut tags, text(tag)));
            let name = text(&node["name"]);
            name.split_whitespace().filter(|word| word.len() > 3).for_each(|word| add_new(&mut words, word.to_lowercase()));
        }
        after = page["pageInfo"]["endCursor"].clone();
        if page["pageInfo"]["hasNextPage"] != true {
            break;
        }
    }
    let others = "{ businessDomains(first: 100) { nodes { key } }
        objectives(first: 100) { nodes { keyResults { id } } } }";
    let others = client.ask(others, json!({})).await?;
    let domain_keys: Vec<String> = list(&others["businessDomains"]["nodes"]).map(|domain| text(&domain["key"])).collect();
    let objectives = list(&others["objectives"]["nodes"]);
    let key_result_ids: Vec<String> =
        objectives.flat_map(|objective| list(&objective["keyResults"])).map(|result| text(&result["id"])).collect();
    let counts = [metric_keys.len(), tags.len(), words.len(), domain_keys.len(), key_result_ids.len()];
    ensure!(
        counts.iter().all(|count| *count > 0),
        "there must be metrics with tags, domains, and objectives with key results to ask for"
    );
    Ok(Catalog { metric_keys, metric_ids, tags, words, domain_keys, key_result_ids })
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn add_new(all: &mut Vec<String>, one: String) {
    if !all.contains(&one) {
        all.push(one);
    }
}
