//! Documents are validated once, and their variables always: both ways of looking at them must say the same.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::extensions::{Extension, ExtensionFactory};
use async_graphql::{Request, Variables};
use mdl::actor::{Actor, Role, Subject};
use mdl::ids::{SessionId, UserId};
use mdl::tokens::Keys;
use mdl_api::documents::{ParsedDocument, ParsedDocuments};
use mdl_api::graphql::context::Operation;
use mdl_api::graphql::executor::{Answer, Executor};
use mdl_api::graphql::schema::{Schema, schema, strict};
use mdl_tests::TestApp;
use serde_json::{Value, json};

/// A document, variables that fit it, and variables of all kinds.
struct Case {
    document: &'static str,
    good: Value,
    others: Vec<Value>,
}

fn cases() -> Vec<Case> {
    let case = |document, good, others| Case { document, good, others };
    vec![
        case(
            "query($key: String!) { metric(key: $key) { key } }",
            json!({ "key": "M" }),
            vec![
                json!({}),
                json!({ "key": null }),
                json!({ "key": 5 }),
                json!({ "key": true }),
                json!({ "key": ["M"] }),
                json!({ "key": { "a": 1 } }),
                json!({ "key": "other", "unknown": 1 }),
            ],
        ),
        case(
            "query($first: Int!) { metrics(first: $first) { nodes { key } } }",
            json!({ "first": 5 }),
            vec![
                json!({}),
                json!({ "first": null }),
                json!({ "first": "5" }),
                json!({ "first": 2.5 }),
                json!({ "first": 3_000_000_000_i64 }),
                json!({ "first": -1 }),
                json!({ "first": 101 }),
                json!({ "first": 0 }),
            ],
        ),
        case(
            "query($first: Int = 3) { metrics(first: $first) { nodes { key } } }",
            json!({ "first": 1 }),
            vec![json!({}), json!({ "first": null }), json!({ "first": "x" })],
        ),
        case(
            "query($id: ID, $ids: [ID!]!) { metric(id: $id) { key } nodes(ids: $ids) { id } }",
            json!({ "id": "none", "ids": [] }),
            vec![
                json!({}),
                json!({ "ids": null }),
                json!({ "ids": [null] }),
                json!({ "ids": "one" }),
                json!({ "ids": [1, 2] }),
                json!({ "ids": [[]] }),
                json!({ "id": 1.5, "ids": [] }),
            ],
        ),
        case(
            "query($filter: MetricFilter) { metrics(filter: $filter) { totalCount } }",
            json!({ "filter": { "status": { "in": ["DRAFT"] }, "key": { "in": "M" } } }),
            vec![
                json!({}),
                json!({ "filter": null }),
                json!({ "filter": {} }),
                json!({ "filter": { "status": { "in": ["NONE"] } } }),
                json!({ "filter": { "status": { "in": 1 } } }),
                json!({ "filter": { "status": {} } }),
                json!({ "filter": { "status": { "in": ["DRAFT", "NONE"] } } }),
                json!({ "filter": { "status": { "in": ["DRAFT", null] } } }),
                json!({ "filter": { "unknown": 1 } }),
                json!({ "filter": { "key": { "in": [1] } } }),
                json!({ "filter": { "and": [{ "key": { "unknown": "M" } }] } }),
                json!({ "filter": { "and": [null] } }),
                json!({ "filter": "text" }),
                json!({ "filter": [] }),
                json!({ "filter": { "archived": "true" } }),
            ],
        ),
        case(
            "query($key: String!, $more: [MetricFilter!]) { metrics(filter: { key: { in: [$key] }, and: $more }) { totalCount } }",
            json!({ "key": "M", "more": [] }),
            vec![
                json!({}),
                json!({ "key": null, "more": null }),
                json!({ "key": 1, "more": [] }),
                json!({ "key": "M" }),
                json!({ "key": "M", "more": [{ "archived": 1 }] }),
                json!({ "key": "M", "more": { "archived": true } }),
            ],
        ),
        case(
            "query($yes: Boolean!) { me { role @include(if: $yes) tenant { slug } } }",
            json!({ "yes": true }),
            vec![json!({}), json!({ "yes": null }), json!({ "yes": "true" }), json!({ "yes": 1 }), json!({ "yes": false })],
        ),
        case(
            "mutation($input: CreateMetricInput!) { createMetric(input: $input) { metric { key } userErrors { field code message } } }",
            json!({ "input": { "key": " ", "name": "M", "metricType": "SIMPLE" } }),
            vec![
                json!({}),
                json!({ "input": null }),
                json!({ "input": {} }),
                json!({ "input": { "key": " " } }),
                json!({ "input": { "key": " ", "name": null } }),
                json!({ "input": { "key": " ", "name": 5 } }),
                json!({ "input": { "key": " ", "name": "M", "metricType": "NONE" } }),
                json!({ "input": { "key": " ", "name": "M", "extra": { "any": ["thing"] } } }),
                json!({ "input": { "key": " ", "name": "M", "tags": "one" } }),
                json!({ "input": { "key": " ", "name": "M", "tags": [null] } }),
                json!({ "input": { "key": " ", "name": "M", "wrong": 1 } }),
                json!({ "input": { "key": " ", "name": "M", "definition": { "unit": 1 } } }),
                json!({ "input": "text" }),
                json!({ "input": [{ "key": " ", "name": "M" }] }),
            ],
        ),
        case(
            "query A($first: Int!) { metrics(first: $first) { ...F } } query B($key: String!) { metric(key: $key) { key } }
             fragment F on MetricConnection { totalCount }",
            json!({ "first": 1 }),
            vec![json!({}), json!({ "first": "x" }), json!({ "first": 1, "key": null }), json!({ "first": 1, "key": 5 })],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn both_paths_give_the_same_answers() {
    let app = TestApp::start().await;
    let paths = Paths::new(&app);
    let mut compared = 0;
    for case in cases() {
        let warm = paths.parse(case.document);
        assert!(!paths.fits(&warm, &case.good));
        let first = paths.run(&warm, &case.good).await;
        assert!(paths.fits(&warm, &case.good), "{} is still validated: {first}", case.document);
        for variables in case.others.iter().chain([&case.good]) {
            let fast = paths.run(&warm, variables).await;
            // A document that was never seen goes the slow way.
            let slow = paths.run(&paths.parse(case.document), variables).await;
            assert_eq!(fast, slow, "{} {variables}", case.document);
            let stock = paths.run_stock(case.document, variables).await;
            // What async-graphql says of several operations depends on the order of a hash map; and of variables that must
            // have a value, it says nothing.
            if !case.document.contains("query B") && !lacks_a_variable(&fast) {
                assert_eq!(fast["data"], stock["data"], "{} {variables}", case.document);
                assert_eq!(messages(&fast), messages(&stock), "{} {variables}", case.document);
            }
            compared += 1;
        }
    }
    assert!(compared > 60, "{compared}");
    assert_eq!(app.database.number("SELECT count(*) FROM metrics").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_that_must_have_a_value_have_one() {
    let app = TestApp::start().await;
    let paths = Paths::new(&app);
    for (text, variables, message) in [
        (
            "query($f: MetricFilter!) { metrics(filter: $f) { totalCount } }",
            json!({}),
            r#"Variable "$f" of required type "MetricFilter!" was not provided."#,
        ),
        (
            "query($f: MetricFilter!) { metrics(filter: $f) { totalCount } }",
            json!({ "f": null }),
            r#"Variable "$f" of non-null type "MetricFilter!" must not be null."#,
        ),
        (
            "query($keys: [String!]!) { metrics(filter: { key: { in: $keys } }) { totalCount } }",
            json!({ "key": ["M"] }),
            r#"Variable "$keys" of required type "[String!]!" was not provided."#,
        ),
        (
            "mutation($u: ID!) { revokeAllApiKeys(input: { userId: $u }) { revokedCount } }",
            json!({}),
            r#"Variable "$u" of required type "ID!" was not provided."#,
        ),
    ] {
        let document = paths.parse(text);
        for _ in 0..2 {
            let answer = paths.run(&document, &variables).await;
            assert_eq!(answer["errors"][0]["message"], message);
            assert_eq!(answer["errors"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED");
            assert_eq!(answer["data"], Value::Null);
        }
    }
    let with_default = paths.parse("query($first: Int! = 3) { metrics(first: $first) { totalCount } }");
    assert!(paths.run(&with_default, &json!({})).await["errors"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn costs_are_counted_at_every_request() {
    let app = TestApp::start_with(&[("MDL_GRAPHQL_MAX_COMPLEXITY", "100")]).await;
    let paths = Paths::new(&app);
    let document = paths.parse("query($first: Int) { metrics(first: $first) { nodes { key name } } }");
    for first in [10, 20] {
        assert!(paths.run(&document, &json!({ "first": first })).await["errors"].is_null());
    }
    let refused = paths.run(&document, &json!({ "first": 90 })).await;
    assert!(paths.fits(&document, &json!({ "first": 90 })));
    assert_eq!(refused["errors"][0]["extensions"]["code"], "TOO_COMPLEX", "{refused}");
    assert!(paths.run(&document, &json!({ "first": 10 })).await["errors"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_never_counts_as_validated() {
    let app = TestApp::start().await;
    let paths = Paths::new(&app);
    // The unknown field stands beside a variable: without the variable, the validation does not look there.
    let document = paths.parse("query($key: String!) { metrics(filter: { key: { in: [$key], wrong: 1 } }) { totalCount } }");
    for _ in 0..2 {
        paths.run(&document, &json!({})).await;
        assert!(!paths.fits(&document, &json!({ "key": "M" })));
        let answer = paths.run(&document, &json!({ "key": "M" })).await;
        assert!(answer["errors"][0]["message"].as_str().unwrap().contains("unknown field"), "{answer}");
    }
    // Variables of other types than their places, which async-graphql does not see before they have values.
    for (text, variables) in [
        ("query($yes: String) { me { role @include(if: $yes) } }", json!({ "yes": "text" })),
        ("query($key: Int) { metric(key: $key) { key } }", json!({ "key": 5 })),
        (
            "query($first: String) { metrics(filter: { and: [{ key: { in: [$first] } }] }) { totalCount } }",
            json!({ "first": null }),
        ),
        ("query($x: Int) { ...F } fragment F on Query { metric(key: $x) { key } }", json!({ "x": 5 })),
    ] {
        let document = paths.parse(text);
        paths.run(&document, &json!({})).await;
        assert!(!paths.fits(&document, &variables), "{text}");
        let answer = paths.run(&document, &variables).await;
        assert_eq!(messages(&answer), messages(&paths.run_stock(text, &variables).await), "{text}");
        assert_eq!(answer["errors"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED", "{text}: {answer}");
    }
}

/// The ways from a document to its answer.
struct Paths<'a> {
    app: &'a TestApp,
    executor: Executor,
    stock: Schema,
}

impl<'a> Paths<'a> {
    fn new(app: &'a TestApp) -> Self {
        let keys = Arc::new(Keys::load(&app.app.config.auth).unwrap());
        let limits = &app.app.config.graphql;
        let executor = Executor::new(schema(limits, keys, Arc::default()), limits.clone(), Duration::from_secs(30));
        Self { app, executor, stock: strict(limits, Nothing) }
    }

    fn parse(&self, text: &str) -> Arc<ParsedDocument> {
        let config = &self.app.app.config;
        ParsedDocuments::new(config.graphql.clone(), &config.documents).parse(text).unwrap()
    }

    async fn run(&self, document: &Arc<ParsedDocument>, variables: &Value) -> Value {
        let prepared = self
            .executor
            .prepare(Box::new(request(document.operations().len(), variables)), document.clone(), true)
            .ok()
            .unwrap();
        match self.executor.execute(prepared, self.operation()).await {
            Answer::Executed(executed) => serde_json::from_str(&executed.to_json()).unwrap(),
            Answer::Rejected(errors) => json!({ "errors": errors }),
            Answer::TimedOut => panic!("timed out"),
        }
    }

    /// As async-graphql does it: validated strictly at each request, on the schema that executes.
    async fn run_stock(&self, text: &str, variables: &Value) -> Value {
        let mut request = request(text.matches("query ").count(), variables).data(self.operation());
        request.query = text.to_owned();
        serde_json::to_value(self.stock.execute(request).await).unwrap()
    }

    fn fits(&self, document: &ParsedDocument, variables: &Value) -> bool {
        let place = document.select((document.operations().len() > 1).then_some("A")).ok().unwrap();
        self.executor.fits(document, place, &Variables::from_json(variables.clone()))
    }

    fn operation(&self) -> Arc<Operation> {
        let subject = Subject::User { user: UserId::new(), session: SessionId::new() };
        let permissions = Role::Editor.permissions();
        let actor = Actor { tenant: self.app.tenant.id, subject, permissions, request_id: None, once: None };
        Operation::new(self.app.app.clone(), Some(actor), None)
    }
}

fn request(operations: usize, variables: &Value) -> Request {
    let request = Request::new("").variables(Variables::from_json(variables.clone()));
    if operations > 1 { request.operation_name("A") } else { request }
}

/// Message, place and path of each error. Codes are ours.
fn messages(answer: &Value) -> Vec<Value> {
    let errors = answer["errors"].as_array().into_iter().flatten();
    errors.map(|error| json!([error["message"], error["locations"], error["path"]])).collect()
}

fn lacks_a_variable(answer: &Value) -> bool {
    answer["errors"][0]["message"].as_str().is_some_and(|message| message.starts_with("Variable \"$"))
}

struct Nothing;

impl ExtensionFactory for Nothing {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(Nothing)
    }
}

impl Extension for Nothing {}
