//! Whether documents fit the schema, without executing them.
//!
//! async-graphql validates at the beginning of an execution and at no other time. So this asks a schema of the same types
//! to execute, in which an extension ends every execution before its first field.

use std::sync::{Arc, OnceLock};

use async_graphql::extensions::{Extension, ExtensionContext, ExtensionFactory, NextExecute, NextPrepareRequest};
use async_graphql::parser::types::{BaseType, VariableDefinition};
use async_graphql::registry::Registry;
use async_graphql::{Request, Response, SchemaEnv, ServerError, ServerResult, Value, Variables};
use mdl::config::GraphqlConfig;
use mdl::documents::sha256;

use super::parsed::ParsedDocument;
use crate::graphql::schema::{Schema, strict};

/// Validates strictly: by every rule of the specification.
pub struct Validator {
    schema: Schema,
    /// Known from the first validation on.
    env: Arc<OnceLock<SchemaEnv>>,
    limits: GraphqlConfig,
}

impl Validator {
    pub fn new(limits: &GraphqlConfig) -> Self {
        let env = Arc::<OnceLock<SchemaEnv>>::default();
        Self { schema: strict(limits, StopBeforeExecution(env.clone())), env, limits: limits.clone() }
    }

    /// The types of the schema; `None` before anything was validated.
    pub fn registry(&self) -> Option<&Registry> {
        self.env.get().map(|env| &env.registry)
    }

    /// What is wrong with an operation of a document and its variables; empty when it can be executed. `operation` is its
    /// name as the request has it.
    pub async fn validate(&self, document: &ParsedDocument, operation: Option<&str>, variables: Variables) -> Vec<ServerError> {
        let mut request = Request::new(String::new()).variables(variables);
        request.operation_name = operation.map(str::to_owned);
        request.set_parsed_query(document.document.clone());
        let errors = self.schema.execute(request).await.errors;
        let broken = || self.registry().map_or_else(Vec::new, |registry| document.broken(registry).to_vec());
        if errors.is_empty() { broken() } else { errors }
    }

    /// Parses a text and validates each of its operations, as if for publishing: of the variables only their types are known,
    /// and pages cost what pages of one entry do.
    pub async fn check(&self, text: &str) -> Result<ParsedDocument, Vec<ServerError>> {
        let document = ParsedDocument::read(text, sha256(text), &self.limits)?;
        let mut errors: Vec<ServerError> = Vec::new();
        for (place, operation) in document.operations().iter().enumerate() {
            let variables = placeholders(&document, operation.name.as_deref());
            let mut found = self.validate(&document, operation.name.as_deref(), variables).await;
            if found.is_empty()
                && let Some(registry) = self.registry()
            {
                found = document.validated(place, &Variables::default(), registry);
            }
            for error in found {
                if !errors.contains(&error) {
                    errors.push(error);
                }
            }
        }
        // The placeholders of such variables do not fit either, which is not worth telling.
        let misplaced = self.registry().map_or_else(Vec::new, |registry| document.misplaced(registry));
        if !misplaced.is_empty() {
            return Err(misplaced);
        }
        if errors.is_empty() { Ok(document) } else { Err(errors) }
    }
}

/// Values of the variables that costs are computed from: numbers of entries, and lists of ids. The costs of the other
/// operations are computed, too, and their variables come after those of the operation that is asked for.
fn placeholders(document: &ParsedDocument, operation: Option<&str>) -> Variables {
    let mut operations: Vec<_> = document.document.operations.iter().collect();
    operations.sort_by_key(|(name, _)| name.map(|name| name.as_str()) != operation);
    let mut variables = Variables::default();
    for definition in operations.into_iter().flat_map(|(_, operation)| &operation.node.variable_definitions) {
        if let Some(value) = placeholder(&definition.node) {
            variables.entry(definition.node.name.node.clone()).or_insert(value);
        }
    }
    variables
}

fn placeholder(definition: &VariableDefinition) -> Option<Value> {
    match &definition.var_type.node.base {
        _ if definition.default_value.is_some() => None,
        BaseType::Named(name) if name == "Int" => Some(Value::from(1)),
        BaseType::List(_) => Some(Value::List(Vec::new())),
        BaseType::Named(_) => None,
    }
}

/// Answers nothing where the first field would be resolved, and keeps what it is told of the schema.
struct StopBeforeExecution(Arc<OnceLock<SchemaEnv>>);

impl ExtensionFactory for StopBeforeExecution {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(StopBeforeExecution(self.0.clone()))
    }
}

#[async_graphql::async_trait::async_trait]
impl Extension for StopBeforeExecution {
    async fn prepare_request(
        &self,
        ctx: &ExtensionContext<'_>,
        request: Request,
        next: NextPrepareRequest<'_>,
    ) -> ServerResult<Request> {
        self.0.get_or_init(|| ctx.schema_env.clone());
        next.run(ctx, request).await
    }

    async fn execute(&self, _ctx: &ExtensionContext<'_>, _operation: Option<&str>, _next: NextExecute<'_>) -> Response {
        Response::default()
    }
}
