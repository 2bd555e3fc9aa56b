//! Operations without HTTP, for counting the statements that they send.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::{Request, Response, Variables};
use mdl::actor::{Actor, Role, Subject};
use mdl::ids::{SessionId, UserId};
use mdl::tokens::Keys;
use mdl_api::documents::ParsedDocuments;
use mdl_api::graphql::context::Operation;
use mdl_api::graphql::eager::answer_json;
use mdl_api::graphql::executor::{Answer, Executor};
use mdl_api::graphql::schema::schema;
use serde_json::Value;

use crate::TestApp;

/// What executes operations, without the server around it.
pub struct Direct<'a> {
    app: &'a TestApp,
    executor: Arc<Executor>,
    documents: ParsedDocuments,
}

/// What came back, and how many statements it took: with those that open and end the snapshot, if there was one.
#[derive(Debug)]
pub struct Counted {
    pub data: Value,
    pub errors: Vec<Value>,
    pub statements: u64,
}

impl<'a> Direct<'a> {
    pub fn new(app: &'a TestApp) -> Self {
        let keys = Arc::new(Keys::load(&app.app.config.auth).expect("signing keys"));
        let limits = &app.app.config.graphql;
        let executor = Executor::new(schema(limits, keys, Arc::default()), limits.clone(), Duration::from_secs(30));
        let documents = ParsedDocuments::new(limits.clone(), &app.app.config.documents);
        Self { app, executor: Arc::new(executor), documents }
    }

    /// Runs an operation as somebody of the first tenant with this role.
    pub async fn run(&self, role: Role, query: &str, variables: Value) -> Counted {
        let subject = Subject::User { user: UserId::new(), session: SessionId::new() };
        let actor = Actor { tenant: self.app.tenant.id, subject, permissions: role.permissions(), request_id: None, once: None };
        self.run_as(actor, query, variables).await
    }

    pub async fn run_as(&self, actor: Actor, query: &str, variables: Value) -> Counted {
        let before = self.app.app.db.statements_sent();
        let operation = Operation::new(self.app.app.clone(), Some(actor), None);
        let request = Request::new("").variables(Variables::from_json(variables));
        let document = self.documents.parse(query);
        let json = match document.and_then(|document| self.executor.prepare(Box::new(request), document, true)) {
            Ok(prepared) => {
                // As a task of the runtime, which is how the server runs it: the loaders' batches depend on how tasks yield.
                let executor = self.executor.clone();
                let execution = tokio::spawn(async move { executor.execute(prepared, operation).await });
                match execution.await.expect("the execution does not panic") {
                    Answer::Executed(executed) => executed.to_json(),
                    Answer::Rejected(errors) => answer_json(&Response::from_errors(errors)),
                    Answer::TimedOut => panic!("took too long: {query}"),
                }
            }
            Err(errors) => answer_json(&Response::from_errors(errors)),
        };
        let statements = self.app.app.db.statements_sent() - before;
        let body: Value = serde_json::from_str(&json).expect("a response is JSON");
        let errors = body["errors"].as_array().cloned().unwrap_or_default();
        Counted { data: body["data"].clone(), errors, statements }
    }

    /// As a viewer; fails on errors.
    pub async fn query(&self, query: &str, variables: Value) -> Counted {
        let answer = self.run(Role::Viewer, query, variables).await;
        assert_eq!(answer.errors, Vec::<Value>::new(), "{query}");
        answer
    }

    /// As an editor; fails on top-level errors.
    pub async fn mutate(&self, mutation: &str, variables: Value) -> Value {
        let answer = self.run(Role::Editor, mutation, variables).await;
        assert_eq!(answer.errors, Vec::<Value>::new(), "{mutation}");
        answer.data
    }
}
