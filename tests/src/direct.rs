//! Operations without HTTP, for counting the statements that they send.

use std::sync::Arc;

use mdl::actor::{Actor, Role, Subject};
use mdl::ids::{SessionId, UserId};
use mdl::tokens::Keys;
use mdl_api::graphql::context::Operation;
use mdl_api::graphql::schema::{Schema, schema};
use serde_json::Value;

use crate::TestApp;

/// The schema, without the server around it.
pub struct Direct<'a> {
    app: &'a TestApp,
    schema: Schema,
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
        Self { app, schema: schema(&app.app.config.graphql, keys) }
    }

    /// Runs an operation as somebody of the first tenant with this role.
    pub async fn run(&self, role: Role, query: &str, variables: Value) -> Counted {
        let subject = Subject::User { user: UserId::new(), session: SessionId::new() };
        let actor = Actor { tenant: self.app.tenant.id, subject, permissions: role.permissions(), request_id: None };
        self.run_as(actor, query, variables).await
    }

    pub async fn run_as(&self, actor: Actor, query: &str, variables: Value) -> Counted {
        let before = self.app.app.db.statements_sent();
        let operation = Operation::new(self.app.app.clone(), Some(actor), None);
        let request = async_graphql::Request::new(query)
            .variables(async_graphql::Variables::from_json(variables))
            .data(operation.clone());
        let response = self.schema.execute(request).await;
        operation.finish().await;
        let statements = self.app.app.db.statements_sent() - before;
        let body = serde_json::to_value(response).expect("a response is JSON");
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
