//! A client of the GraphQL API, as a frontend would write it.

use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde_json::{Value, json};

/// Sends operations, with or without a credential.
#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    /// `http://127.0.0.1:port`
    pub base: String,
    pub credential: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Client {
    pub fn anonymous(base: &str) -> Self {
        Self { http: http(), base: base.to_owned(), credential: None }
    }

    /// The same with another credential: an access token or an API key.
    pub fn with(&self, credential: impl Into<String>) -> Self {
        Self { credential: Some(credential.into()), ..self.clone() }
    }

    /// The same at the address of another API.
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// Signs in; fails if it is refused.
    pub async fn sign_in(&self, tenant: &str, email: &str, password: &str) -> Self {
        let input = json!({ "input": { "tenant": tenant, "email": email, "password": password } });
        let answer = self
            .send(
                "mutation($input: SignInInput!) { signIn(input: $input) { session { accessToken } userErrors { message } } }",
                input,
            )
            .await;
        let token = answer.data()["signIn"]["session"]["accessToken"].as_str().expect("an access token").to_owned();
        self.with(token)
    }

    /// Sends an operation.
    pub async fn send(&self, query: &str, variables: Value) -> Answer {
        self.send_with(query, variables, &[]).await
    }

    /// Sends an operation with further headers.
    pub async fn send_with(&self, query: &str, variables: Value, headers: &[(&str, &str)]) -> Answer {
        let mut request =
            self.http.post(format!("{}/graphql", self.base)).json(&json!({ "query": query, "variables": variables }));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.receive(request).await
    }

    /// POSTs any JSON to the API: a request of any form, or a batch.
    pub async fn post(&self, body: &Value) -> Answer {
        self.receive(self.http.post(format!("{}/graphql", self.base)).json(body)).await
    }

    /// Runs a mutation of one field that takes an `input`, and asks for `selection` beside the user errors.
    pub async fn mutate(&self, field: &str, input: Value, selection: &str) -> Answer {
        let input_type = match field {
            "suspendUser" | "resumeUser" | "removeMembership" => "UserInput".to_owned(),
            "enableWebhookEndpoint" | "disableWebhookEndpoint" | "deleteWebhookEndpoint" => "WebhookEndpointInput".to_owned(),
            _ => format!("{}{}Input", field[..1].to_uppercase(), &field[1..]),
        };
        let query = format!(
            "mutation($input: {input_type}!) {{ {field}(input: $input) {{ {selection} userErrors {{ field code message }} }} }}"
        );
        self.send(&query, json!({ "input": input })).await
    }

    /// Creates, updates or archives a catalog entry, which must succeed, and gives its `id`, `key` and `revision`.
    pub async fn write(&self, field: &str, input: Value) -> Value {
        let verb = field.find(char::is_uppercase).expect("a field such as createMetric");
        let entry = format!("{}{}", field[verb..=verb].to_lowercase(), &field[verb + 1..]);
        let answer = self.mutate(field, input, &format!("{entry} {{ id key revision }}")).await;
        assert_eq!(answer.user_errors(), [""; 0], "{}", answer.body);
        answer.payload()[&entry].clone()
    }

    /// A GET of a path, with this client's credential.
    pub async fn get(&self, path: &str) -> Answer {
        self.receive(self.http.get(format!("{}{path}", self.base))).await
    }

    /// Sends any request with this client's credential.
    pub async fn receive(&self, request: reqwest::RequestBuilder) -> Answer {
        let request = match &self.credential {
            Some(credential) => request.header(AUTHORIZATION, format!("Bearer {credential}")),
            None => request,
        };
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.expect("the whole answer");
        Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
    }

    /// Sends an operation that must succeed, and gives its data.
    pub async fn ask(&self, query: &str, variables: Value) -> Value {
        self.send(query, variables).await.data()
    }
}

/// A client of the tests' own servers.
pub(crate) fn http() -> reqwest::Client {
    // Err means that another client of this process did it first.
    let _first = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

impl Answer {
    /// The data of an answer without errors.
    pub fn data(&self) -> Value {
        assert!(self.body.get("errors").is_none(), "{}", self.body);
        self.body["data"].clone()
    }

    /// The code of the first error, if there is one.
    pub fn error_code(&self) -> Option<&str> {
        self.body["errors"][0]["extensions"]["code"].as_str()
    }

    /// What the only field of the root gave.
    pub fn payload(&self) -> Value {
        let data = self.data();
        data.as_object().and_then(|fields| fields.values().next()).expect("a field").clone()
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header in ASCII"))
    }

    /// The user errors of a mutation's only field, as `field: CODE`.
    pub fn user_errors(&self) -> Vec<String> {
        let payload = self.payload();
        let errors = payload["userErrors"].as_array().expect("userErrors were selected");
        errors
            .iter()
            .map(|error| {
                let field: Vec<_> = error["field"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                format!("{}: {}", field.join("."), error["code"].as_str().unwrap_or_default())
            })
            .collect()
    }
}
