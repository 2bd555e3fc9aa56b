//! From the text of a request to its answer, without HTTP: [`Executor::prepare`] understands it, [`Executor::execute`] runs it.
//!
//! A cache of parsed documents goes into `prepare`, and a cache of answers between the two.

use std::collections::HashSet;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use async_graphql::parser::parse_query;
use async_graphql::parser::types::{
    BaseType, DocumentOperations, ExecutableDocument, OperationDefinition, OperationType, Selection, SelectionSet,
};
use async_graphql::{ErrorExtensionValues, Name, Request, Response, ServerError, Value, Variables};
use mdl::config::GraphqlConfig;
use mdl::instruments;
use metrics::{counter, histogram};

use super::context::Operation;
use super::limits::{self, Violation};
use super::schema::Schema;

/// Names of operations that get instruments of their own; the others share one, however many names callers make up.
const MAX_NAMES: usize = 200;
const MAX_NAME_LENGTH: usize = 100;
/// Most errors told of one document: nobody reads more.
const MAX_ERRORS: usize = 20;

/// Fields that check a password: a caller could try many in one request.
const PASSWORD_CHECKS: &[&str] = &["signIn", "changePassword"];
/// Fields whose answer is a credential, which is shown once and stored nowhere.
const SECRETS: &[&str] = &["signIn", "refreshSession", "createApiKey"];

/// Runs operations against the schema.
pub struct Executor {
    schema: Schema,
    limits: GraphqlConfig,
    timeout: Duration,
    names: RwLock<HashSet<Arc<str>>>,
}

/// An operation that was parsed and keeps to the limits. It may still turn out not to fit the schema.
pub struct Prepared {
    request: Request,
    pub kind: OperationType,
    /// Its name in the document.
    pub name: Option<String>,
    /// How many passwords it checks.
    pub password_checks: usize,
    /// Whether its answer holds a credential.
    pub secret: bool,
    /// How many fields its root has.
    pub root_fields: usize,
}

impl Prepared {
    /// Its document as it was sent.
    pub fn text(&self) -> &str {
        &self.request.query
    }

    /// Its document as it was parsed.
    pub fn document(&mut self) -> Option<&ExecutableDocument> {
        self.request.parsed_query().ok()
    }

    pub fn variables(&self) -> &Variables {
        &self.request.variables
    }
}

/// How an operation ended.
pub enum Answer {
    /// It ran, perhaps with errors.
    Executed(Response),
    /// Nothing was executed: the document, its operation's name or its variables are wrong.
    Rejected(Vec<ServerError>),
    /// It took longer than a request may.
    TimedOut,
}

impl Executor {
    /// `timeout` is for one operation.
    pub fn new(schema: Schema, limits: GraphqlConfig, timeout: Duration) -> Self {
        Self { schema, limits, timeout, names: RwLock::default() }
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Parses a request and holds it against the limits. The unknown may not ask for the schema, unless everybody may.
    pub fn prepare(&self, mut request: Request, signed_in: bool) -> Result<Prepared, Vec<ServerError>> {
        let prepared = self.parse(&request, signed_in);
        if prepared.is_err() {
            self.count("none", None, "rejected");
        }
        let (document, summary) = prepared?;
        define_counts(&document, &mut request);
        request.set_parsed_query(document);
        Ok(Prepared { request, ..summary })
    }

    fn parse(&self, request: &Request, signed_in: bool) -> Result<(ExecutableDocument, Prepared), Vec<ServerError>> {
        limits::check_text(&request.query, &self.limits).map_err(violation)?;
        let document = parse_query(&request.query).map_err(|error| vec![syntax(error.into())])?;
        let size = limits::check(&document, &self.limits).map_err(violation)?;
        if size.introspects && !signed_in && !self.limits.public_introspection {
            return Err(vec![coded(ServerError::new("Sign in to see the schema", None), "UNAUTHENTICATED")]);
        }
        let uploads = request.uploads.len();
        if request.variables.values().any(|value| limits::names_upload(value, uploads)) {
            let error = ServerError::new("A file is uploaded with a multipart request", None);
            return Err(vec![coded(error, "BAD_REQUEST")]);
        }
        let (name, operation) = select(&document, request.operation_name.as_deref())?;
        let mut fields = Vec::new();
        root_fields(&document, &operation.selection_set.node, &mut HashSet::new(), &mut fields);
        let count = |names: &[&str]| fields.iter().filter(|field| names.contains(field)).count();
        let mutates = operation.ty == OperationType::Mutation;
        let prepared = Prepared {
            request: Request::new(String::new()),
            kind: operation.ty,
            name,
            password_checks: if mutates { count(PASSWORD_CHECKS) } else { 0 },
            secret: mutates && count(SECRETS) > 0,
            root_fields: fields.len(),
        };
        Ok((document, prepared))
    }

    /// Validates a prepared operation against the schema and executes it. When the caller goes away, this is dropped and
    /// with it every transaction that is not committed.
    pub async fn execute(&self, prepared: Prepared, operation: Arc<Operation>) -> Answer {
        let (kind, signed_in) = (prepared.kind, operation.actor.is_some());
        let start = Instant::now();
        let request = prepared.request.data(operation.clone());
        let Ok(mut response) = tokio::time::timeout(self.timeout, self.schema.execute(request)).await else {
            // Not finished: its connection may be waiting for a long statement. Dropping rolls it back elsewhere.
            self.count(&self.known_name(prepared.name), Some(kind), "error");
            return Answer::TimedOut;
        };
        operation.finish().await;
        // An error that has a path happened in a resolver; without data and without one, nothing was executed.
        let executed = response.data != Value::Null || response.errors.iter().any(|error| !error.path.is_empty());
        if !executed {
            self.count("none", Some(kind), "rejected");
            response.errors.truncate(MAX_ERRORS);
            return Answer::Rejected(response.errors.into_iter().map(|error| rejection(error, signed_in)).collect());
        }
        // What our resolvers did not name, async-graphql found wrong with an argument.
        response.errors = response.errors.into_iter().map(|error| coded(error, "BAD_USER_INPUT")).collect();
        let name = self.known_name(prepared.name);
        self.count(&name, Some(kind), if response.errors.is_empty() { "ok" } else { "error" });
        histogram!(instruments::GRAPHQL_OPERATION_SECONDS, "operation" => name).record(start.elapsed().as_secs_f64());
        Answer::Executed(response)
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

/// An error with this code, unless it has one.
pub fn coded(mut error: ServerError, code: &str) -> ServerError {
    let extensions = error.extensions.get_or_insert_with(ErrorExtensionValues::default);
    if extensions.get("code").is_none() {
        extensions.set("code", code);
    }
    error
}

fn violation(violation: Violation) -> Vec<ServerError> {
    vec![coded(ServerError::new(violation.message, violation.at), violation.code)]
}

/// What the parser said, without the piece of the document that it repeats.
fn syntax(mut error: ServerError) -> ServerError {
    if let Some((_, expectation)) = error.message.rsplit_once("\n  = ") {
        error.message = format!("Syntax error: {expectation}");
    }
    coded(error, "GRAPHQL_PARSE_FAILED")
}

/// What validation said. It suggests names of the schema, which is not for everybody.
fn rejection(mut error: ServerError, signed_in: bool) -> ServerError {
    if !signed_in && let Some(end) = error.message.find(" Did you mean") {
        error.message.truncate(end);
    }
    let code = if error.message == "Query is too complex." { "TOO_COMPLEX" } else { "GRAPHQL_VALIDATION_FAILED" };
    coded(error, code)
}

/// The operation that is asked for.
fn select<'a>(
    document: &'a ExecutableDocument,
    wanted: Option<&str>,
) -> Result<(Option<String>, &'a OperationDefinition), Vec<ServerError>> {
    let failed = |message: String| vec![coded(ServerError::new(message, None), "OPERATION_RESOLUTION_FAILURE")];
    match (&document.operations, wanted) {
        (DocumentOperations::Single(operation), None) => Ok((None, &operation.node)),
        (DocumentOperations::Multiple(operations), None) if operations.len() == 1 => {
            let only = operations.iter().next().map(|(name, operation)| (Some(name.to_string()), &operation.node));
            only.ok_or_else(|| failed("The document has no operation".to_owned()))
        }
        (DocumentOperations::Multiple(_), None) => {
            Err(failed("The document has several operations: name one of them".to_owned()))
        }
        (DocumentOperations::Multiple(operations), Some(name)) if operations.contains_key(name) => {
            Ok((Some(name.to_owned()), &operations[name].node))
        }
        (_, Some(name)) => Err(failed(format!("The document has no operation \"{name}\""))),
    }
}

/// Gives variables of type `Int` that the caller left out the value null, which is what they mean as `first` or `last`. The
/// cost of a page is computed from these, and async-graphql refuses to compute with a variable that is not there. It counts
/// every operation of the document: the variables of those that are not asked for become null or empty.
fn define_counts(document: &ExecutableDocument, request: &mut Request) {
    let Ok((_, wanted)) = select(document, request.operation_name.as_deref()) else { return };
    for definition in &wanted.variable_definitions {
        let definition = &definition.node;
        let int = matches!(&definition.var_type.node.base, BaseType::Named(name) if name == "Int");
        if int && definition.var_type.node.nullable && definition.default_value.is_none() {
            request.variables.entry(definition.name.node.clone()).or_default();
        }
    }
    let is_wanted = |name: &Name| wanted.variable_definitions.iter().any(|definition| definition.node.name.node == *name);
    for definition in document.operations.iter().flat_map(|(_, operation)| &operation.node.variable_definitions) {
        let definition = &definition.node;
        if !is_wanted(&definition.name.node) && definition.default_value.is_none() {
            let list = matches!(definition.var_type.node.base, BaseType::List(_));
            let nothing = if list { Value::List(Vec::new()) } else { Value::Null };
            request.variables.entry(definition.name.node.clone()).or_insert(nothing);
        }
    }
}

/// The fields of the root, with those in fragments. A fragment counts as often as it is named, up to a limit that no honest
/// operation comes near.
fn root_fields<'a>(
    document: &'a ExecutableDocument,
    set: &'a SelectionSet,
    open: &mut HashSet<&'a str>,
    found: &mut Vec<&'a str>,
) {
    for selection in &set.items {
        if found.len() >= 10_000 {
            return;
        }
        match &selection.node {
            Selection::Field(field) => found.push(&field.node.name.node),
            Selection::InlineFragment(inline) => root_fields(document, &inline.node.selection_set.node, open, found),
            Selection::FragmentSpread(spread) => {
                let name = spread.node.fragment_name.node.as_str();
                if let Some(fragment) = document.fragments.get(name)
                    && open.insert(name)
                {
                    root_fields(document, &fragment.node.selection_set.node, open, found);
                    open.remove(name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mdl::config::Config;
    use mdl::tokens::Keys;

    use super::*;
    use crate::graphql::schema::schema;

    fn executor(arguments: &[&str]) -> Executor {
        let config = Config::from_arguments(["test"].iter().chain(arguments)).unwrap();
        let keys = Arc::new(Keys::load(&config.auth).unwrap());
        Executor::new(schema(&config.graphql, keys), config.graphql, Duration::from_secs(1))
    }

    fn code(result: Result<Prepared, Vec<ServerError>>) -> String {
        let errors = result.err().unwrap();
        let code = errors[0].extensions.as_ref().and_then(|extensions| extensions.get("code")).cloned();
        code.unwrap().into_json().unwrap().as_str().unwrap().to_owned()
    }

    #[test]
    fn counts_password_checks_wherever_they_stand() {
        let executor = executor(&[]);
        let prepare = |document: &str| executor.prepare(Request::new(document), true).ok().unwrap();
        let prepared = prepare(
            "mutation M { a: signIn { x } ...F ...F ... on Mutation { changePassword { x } } signOut { x } }
             fragment F on Mutation { b: signIn { x } ...G } fragment G on Mutation { c: signIn { x } }",
        );
        assert_eq!((prepared.password_checks, prepared.root_fields, prepared.secret), (6, 7, true));
        assert_eq!((prepared.kind, prepared.name.as_deref()), (OperationType::Mutation, Some("M")));
        let prepared = prepare("mutation { setRole { x } }");
        assert_eq!((prepared.password_checks, prepared.root_fields, prepared.secret, prepared.name), (0, 1, false, None));
        assert!(prepare("mutation { createApiKey { key } }").secret);
        assert_eq!(prepare("{ signIn }").password_checks, 0);
    }

    #[test]
    fn picks_the_operation_that_is_asked_for() {
        let executor = executor(&[]);
        let prepare = |name: Option<&str>, document: &str| {
            let mut request = Request::new(document);
            request.operation_name = name.map(str::to_owned);
            executor.prepare(request, true)
        };
        let two = "query A { a } mutation B { b }";
        assert_eq!(prepare(Some("B"), two).ok().unwrap().kind, OperationType::Mutation);
        assert_eq!(prepare(None, "query A { a }").ok().unwrap().name.as_deref(), Some("A"));
        for (name, document) in [(None, two), (Some("C"), two), (Some(""), two), (Some("A"), "{ a }")] {
            assert_eq!(code(prepare(name, document)), "OPERATION_RESOLUTION_FAILURE");
        }
        assert_eq!(code(prepare(None, "{ a")), "GRAPHQL_PARSE_FAILED");
        assert_eq!(code(prepare(None, "")), "GRAPHQL_PARSE_FAILED");
    }

    #[test]
    fn the_schema_is_for_the_signed_in() {
        let ask = |executor: &Executor, signed_in: bool| {
            executor.prepare(Request::new("{ ...F } fragment F on Query { s: __schema { types { name } } }"), signed_in)
        };
        assert_eq!(code(ask(&executor(&[]), false)), "UNAUTHENTICATED");
        assert!(ask(&executor(&[]), true).is_ok());
        assert!(ask(&executor(&["--graphql-public-introspection", "true"]), false).is_ok());
        assert!(executor(&[]).prepare(Request::new("{ __typename }"), false).is_ok());
    }

    #[test]
    fn syntax_errors_do_not_repeat_the_document() {
        let long = format!("{{ {} {{{{ }}", "secret ".repeat(100));
        let message = executor(&[]).prepare(Request::new(long), true).err().unwrap().remove(0).message;
        assert!(message.starts_with("Syntax error: expected") && !message.contains("secret"), "{message}");
    }

    #[test]
    fn names_are_bounded() {
        let executor = executor(&[]);
        for i in 0..MAX_NAMES {
            assert_eq!(executor.known_name(Some(format!("Q{i}"))), format!("Q{i}"));
        }
        assert_eq!(executor.known_name(Some("Q0".to_owned())), "Q0");
        assert_eq!(executor.known_name(Some("Late".to_owned())), "other");
        assert_eq!(executor.known_name(None), "anonymous");
    }

    #[test]
    fn the_unknown_get_no_suggestions() {
        let error =
            |signed_in| rejection(ServerError::new("Unknown field \"usrs\". Did you mean \"users\"?", None), signed_in).message;
        assert_eq!(error(false), "Unknown field \"usrs\".");
        assert!(error(true).ends_with("\"users\"?"));
    }
}
