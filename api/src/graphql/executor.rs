//! From a parsed document to its answer, without HTTP: [`Executor::prepare`] holds it against the caller, [`Executor::execute`]
//! validates and runs it. A cache of answers goes between the two.
//!
//! An operation is validated strictly once. After that, only what depends on its variables is looked at again: their types
//! (by [`ParsedDocument::fits`]; in doubt the strict validation is asked again) and the cost of the operation (by the
//! schema that executes).

use std::collections::HashSet;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use async_graphql::parser::types::{BaseType, OperationDefinition, OperationType};
use async_graphql::{Name, Request, Response, ServerError, Value, Variables};
use futures::stream::{BoxStream, StreamExt};
use mdl::config::GraphqlConfig;
use mdl::instruments;
use metrics::{counter, histogram};

use super::context::Operation;
use super::eager::{AsJson, answer_json};
use super::error::coded;
use super::limits;
use super::schema::Schema;
use super::turns::in_place;
use crate::documents::{ParsedDocument, ParsedOperation, Right, Validator};

/// Names of operations that get instruments of their own; the others share one, however many names callers make up.
const MAX_NAMES: usize = 200;
const MAX_NAME_LENGTH: usize = 100;
/// Most errors told of one document: nobody reads more.
pub const MAX_ERRORS: usize = 20;

/// Runs operations against the schema.
pub struct Executor {
    schema: Schema,
    validator: Arc<Validator>,
    limits: GraphqlConfig,
    timeout: Duration,
    names: RwLock<HashSet<Arc<str>>>,
}

/// An operation that this caller may send. It may still turn out not to fit the schema.
pub struct Prepared {
    request: Box<Request>,
    pub document: Arc<ParsedDocument>,
    /// Its place in the document.
    place: usize,
    /// By what right its document is run.
    pub right: Right,
}

/// An operation and its variables: all that says what is asked.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub document: &'a ParsedDocument,
    /// The operation's place in the document.
    pub place: usize,
    /// As they were sent.
    pub variables: &'a Variables,
}

impl<'a> Wanted<'a> {
    /// What its root fields say of it.
    pub fn operation(self) -> &'a ParsedOperation {
        &self.document.operations()[self.place]
    }
}

impl Prepared {
    pub fn wanted(&self) -> Wanted<'_> {
        Wanted { document: &self.document, place: self.place, variables: &self.request.variables }
    }

    /// Of what was asked only its variables.
    pub fn into_variables(self) -> Variables {
        self.request.variables
    }

    /// What its root fields say of it.
    pub fn operation(&self) -> &ParsedOperation {
        self.wanted().operation()
    }

    /// The place of its operation in the document.
    pub fn place(&self) -> usize {
        self.place
    }

    /// What is asked for.
    pub fn definition(&self) -> Option<&OperationDefinition> {
        self.document.definition(self.place)
    }

    /// SHA-256 of the document's text. With the operation's name and the variables, it says what is asked for.
    pub fn document_hash(&self) -> [u8; 32] {
        self.document.hash
    }

    /// As the request has it.
    pub fn operation_name(&self) -> Option<&str> {
        self.request.operation_name.as_deref()
    }

    /// As they were sent.
    pub fn variables(&self) -> &Variables {
        &self.request.variables
    }
}

/// How an operation ended.
pub enum Answer {
    /// It ran, perhaps with errors.
    Executed(Executed),
    /// Nothing was executed: the document, its operation's name or its variables are wrong.
    Rejected(Vec<ServerError>),
    /// It took longer than a request may.
    TimedOut,
}

/// The answer of an operation that ran.
pub struct Executed(Response);

impl Executed {
    /// Whether some of it failed.
    pub fn failed(&self) -> bool {
        !self.0.errors.is_empty()
    }

    /// Whether nothing of it came to anything: each field of the root failed.
    pub fn came_to_nothing(&self) -> bool {
        match &self.0.data {
            Value::Null => true,
            Value::Object(fields) => fields.values().all(|value| *value == Value::Null),
            _ => false,
        }
    }

    /// As the caller gets it: `data`, `errors`.
    pub fn to_json(&self) -> String {
        answer_json(&self.0)
    }
}

impl Executor {
    /// `schema` is one that [`schema`](super::schema::schema) made; `timeout` is for one operation.
    pub fn new(schema: Schema, limits: GraphqlConfig, timeout: Duration) -> Self {
        let validator = schema.data::<Arc<Validator>>().expect("the schema has its validator").clone();
        Self { schema, validator, limits, timeout, names: RwLock::default() }
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Picks the operation that a request asks for. The unknown may not ask for the schema, unless everybody may.
    pub fn prepare(
        &self,
        request: Box<Request>,
        document: Arc<ParsedDocument>,
        signed_in: bool,
    ) -> Result<Prepared, Vec<ServerError>> {
        let place = self.admit(&request, &document, signed_in);
        if place.is_err() {
            self.count_rejected();
        }
        place.map(|place| Prepared { request, document, place, right: Right::default() })
    }

    fn admit(&self, request: &Request, document: &ParsedDocument, signed_in: bool) -> Result<usize, Vec<ServerError>> {
        if document.introspects && !signed_in && !self.limits.public_introspection {
            return Err(vec![coded(ServerError::new("Sign in to see the schema", None), "UNAUTHENTICATED")]);
        }
        let uploads = request.uploads.len();
        if request.variables.values().any(|value| limits::names_upload(value, uploads)) {
            let error = ServerError::new("A file is uploaded with a multipart request", None);
            return Err(vec![coded(error, "BAD_REQUEST")]);
        }
        document.select(request.operation_name.as_deref())
    }

    /// Counts an operation that never came to [`Executor::execute`].
    pub fn count_rejected(&self) {
        self.count("none", None, "rejected");
    }

    /// Validates a prepared operation against the schema and executes it. When the caller goes away, this is dropped and
    /// with it every transaction that is not committed.
    pub async fn execute(&self, prepared: Prepared, operation: Arc<Operation>) -> Answer {
        let (kind, name) = (prepared.operation().kind, prepared.operation().name.clone());
        let signed_in = operation.actor.is_some();
        let start = Instant::now();
        let request = match self.validate(prepared).await {
            Ok(request) => request.data(operation.clone()),
            Err(errors) => return self.rejected(kind, errors, signed_in),
        };
        let Ok(mut response) = tokio::time::timeout(self.timeout, in_place(self.schema.execute(request))).await else {
            // Not finished: its connection may be waiting for a long statement. Dropping rolls it back elsewhere.
            self.count(&self.known_name(name), Some(kind), "error");
            return Answer::TimedOut;
        };
        operation.finish().await;
        // An error that has a path happened in a resolver; without data and without one, nothing was executed.
        let executed = response.data != Value::Null || response.errors.iter().any(|error| !error.path.is_empty());
        if !executed {
            return self.rejected(kind, response.errors, signed_in);
        }
        // What our resolvers did not name, async-graphql found wrong with an argument.
        response.errors = response.errors.into_iter().map(|error| coded(error, "BAD_USER_INPUT")).collect();
        let name = self.known_name(name);
        self.count(&name, Some(kind), if response.errors.is_empty() { "ok" } else { "error" });
        histogram!(instruments::GRAPHQL_OPERATION_SECONDS, "operation" => name).record(start.elapsed().as_secs_f64());
        Answer::Executed(Executed(response))
    }

    /// Validates a prepared subscription and begins it. An answer without data at the beginning means that it could not begin.
    pub async fn subscribe(
        &self,
        prepared: Prepared,
        operation: Arc<Operation>,
    ) -> Result<BoxStream<'static, Response>, Vec<ServerError>> {
        let (kind, name) = (prepared.operation().kind, prepared.operation().name.clone());
        let signed_in = operation.actor.is_some();
        let rejected = |mut errors: Vec<ServerError>| {
            self.count("none", Some(kind), "rejected");
            errors.truncate(MAX_ERRORS);
            errors.into_iter().map(|error| rejection(error, signed_in, self.limits.max_complexity)).collect()
        };
        if prepared.operation().root_fields != 1 {
            return Err(rejected(vec![ServerError::new("A subscription has one root field", None)]));
        }
        let request = self.validate(prepared).await.map_err(rejected)?.data(operation);
        self.count(&self.known_name(name), Some(kind), "ok");
        let responses = self.schema.execute_stream(request).map(|mut response| {
            response.errors = response.errors.into_iter().map(|error| coded(error, "BAD_USER_INPUT")).collect();
            response
        });
        Ok(responses.boxed())
    }

    /// The request to execute, if the operation and its variables fit the schema.
    async fn validate(&self, prepared: Prepared) -> Result<Request, Vec<ServerError>> {
        let Prepared { request, document, place, .. } = prepared;
        let mut request = *request;
        let missing = document.missing(place, &request.variables);
        if !missing.is_empty() {
            return Err(missing);
        }
        define_counts(&document, place, &mut request.variables);
        if !self.fits(&document, place, &request.variables) {
            let name = request.operation_name.as_deref();
            let errors = self.validator.validate(&document, name, request.variables.clone()).await;
            if !errors.is_empty() {
                return Err(errors);
            }
            if let Some(types) = self.validator.registry() {
                let wrong = document.validated(place, &request.variables, types);
                if !wrong.is_empty() {
                    return Err(wrong);
                }
            }
        }
        request.set_parsed_query(document.document.clone());
        Ok(if document.repeats { request } else { request.data(AsJson) })
    }

    /// Whether an operation with these variables is executed without asking the validation again.
    pub fn fits(&self, document: &ParsedDocument, place: usize, variables: &Variables) -> bool {
        self.validator.registry().is_some_and(|types| document.fits(place, variables, types))
    }

    fn rejected(&self, kind: OperationType, mut errors: Vec<ServerError>, signed_in: bool) -> Answer {
        self.count("none", Some(kind), "rejected");
        errors.truncate(MAX_ERRORS);
        let most = self.limits.max_complexity;
        Answer::Rejected(errors.into_iter().map(|error| rejection(error, signed_in, most)).collect())
    }

    fn count(&self, name: &str, kind: Option<OperationType>, outcome: &'static str) {
        let kind = kind.map_or_else(|| "none".to_owned(), |kind| kind.to_string());
        counter!(instruments::GRAPHQL_OPERATIONS, "operation" => name.to_owned(), "type" => kind, "outcome" => outcome)
            .increment(1);
    }

    /// The name under which an operation is counted.
    fn known_name(&self, name: Option<String>) -> String {
        let Some(name) = name else { return "anonymous".to_owned() };
        if self.names.read().unwrap_or_else(|poisoned| poisoned.into_inner()).contains(name.as_str()) {
            return name;
        }
        let mut names = self.names.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if name.len() > MAX_NAME_LENGTH || names.len() >= MAX_NAMES {
            return "other".to_owned();
        }
        names.insert(name.as_str().into());
        name
    }
}

/// What validation said. It suggests names of the schema, which is not for everybody.
fn rejection(mut error: ServerError, signed_in: bool, most: usize) -> ServerError {
    if !signed_in && let Some(end) = error.message.find(" Did you mean") {
        error.message.truncate(end);
    }
    if error.message == "Query is too complex." {
        error.message = format!("The operation costs more than {most}: ask for smaller pages, or for less of each entry");
        return coded(error, "TOO_COMPLEX");
    }
    coded(error, "GRAPHQL_VALIDATION_FAILED")
}

/// Gives variables of type `Int` that the caller left out the value null, which is what they mean as `first` or `last`. The
/// cost of a page is computed from these, and async-graphql refuses to compute with a variable that is not there. It counts
/// every operation of the document: the variables of those that are not asked for become null or empty.
fn define_counts(document: &ParsedDocument, place: usize, variables: &mut Variables) {
    let Some(wanted) = document.definition(place) else { return };
    for definition in &wanted.variable_definitions {
        let definition = &definition.node;
        let int = matches!(&definition.var_type.node.base, BaseType::Named(name) if name == "Int");
        if int && definition.var_type.node.nullable && definition.default_value.is_none() {
            variables.entry(definition.name.node.clone()).or_default();
        }
    }
    if document.operations().len() == 1 {
        return;
    }
    let is_wanted = |name: &Name| wanted.variable_definitions.iter().any(|definition| definition.node.name.node == *name);
    for definition in document.document.operations.iter().flat_map(|(_, operation)| &operation.node.variable_definitions) {
        let definition = &definition.node;
        if !is_wanted(&definition.name.node) && definition.default_value.is_none() {
            let list = matches!(definition.var_type.node.base, BaseType::List(_));
            let nothing = if list { Value::List(Vec::new()) } else { Value::Null };
            variables.entry(definition.name.node.clone()).or_insert(nothing);
        }
    }
}

#[cfg(test)]
mod tests {
    use mdl::config::Config;
    use mdl::tokens::Keys;

    use super::*;
    use crate::documents::ParsedDocuments;
    use crate::graphql::schema::schema;

    fn executor(arguments: &[&str]) -> (Executor, ParsedDocuments) {
        let config = Config::from_arguments(["test"].iter().chain(arguments)).unwrap();
        let keys = Arc::new(Keys::load(&config.auth).unwrap());
        let documents = ParsedDocuments::new(config.graphql.clone(), &config.documents);
        (Executor::new(schema(&config.graphql, keys, Arc::default()), config.graphql, Duration::from_secs(1)), documents)
    }

    #[test]
    fn the_schema_is_for_the_signed_in() {
        let refused = |arguments: &[&str], text: &str, signed_in: bool| {
            let (executor, documents) = executor(arguments);
            let document = documents.parse(text).ok().unwrap();
            executor.prepare(Box::new(Request::new("")), document, signed_in).err().map(|errors| errors[0].message.clone())
        };
        let schema = "{ ...F } fragment F on Query { s: __schema { types { name } } }";
        assert_eq!(refused(&[], schema, false).as_deref(), Some("Sign in to see the schema"));
        assert_eq!(refused(&[], schema, true), None);
        assert_eq!(refused(&["--graphql-public-introspection", "true"], schema, false), None);
        assert_eq!(refused(&[], "{ __typename }", false), None);
    }

    #[test]
    fn names_are_bounded() {
        let (executor, _) = executor(&[]);
        for i in 0..MAX_NAMES {
            assert_eq!(executor.known_name(Some(format!("Q{i}"))), format!("Q{i}"));
        }
        assert_eq!(executor.known_name(Some("Q0".to_owned())), "Q0");
        assert_eq!(executor.known_name(Some("Late".to_owned())), "other");
        assert_eq!(executor.known_name(None), "anonymous");
    }

    #[test]
    fn the_unknown_get_no_suggestions() {
        let error = |signed_in| {
            rejection(ServerError::new("Unknown field \"usrs\". Did you mean \"users\"?", None), signed_in, 1).message
        };
        assert_eq!(error(false), "Unknown field \"usrs\".");
        assert!(error(true).ends_with("\"users\"?"));
    }
}
