//! Parsed documents, kept by the SHA-256 of their text. Whose text it was does not matter: a caller who sends a text, or has
//! shown that it may ask for it by name, gets no more than parsing it again would give.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use async_graphql::parser::parse_query;
use async_graphql::parser::types::{
    ExecutableDocument, OperationDefinition, OperationType, Selection, SelectionSet, VariableDefinition,
};
use async_graphql::registry::Registry;
use async_graphql::{Name, Pos, Positioned, ServerError, Variables};
use async_graphql_value::ConstValue;
use mdl::config::{DocumentsConfig, GraphqlConfig};
use mdl::{documents::sha256, instruments};
use metrics::counter;
use moka::sync::Cache;

use super::misplaced::misplaced;
use super::repeats::repeats;
use super::rules::broken;
use super::variables::Places;
use crate::cache::policy::Policy;
use crate::graphql::error::coded;
use crate::graphql::limits::{self, Violation};

/// Fields that check a password: a caller could try many in one request.
const PASSWORD_CHECKS: &[&str] = &["signIn", "changePassword"];
/// Fields whose answer is a credential, which is shown once and stored nowhere.
const SECRETS: &[&str] = &["signIn", "refreshSession", "createApiKey", "createWebhookEndpoint", "rotateWebhookSecret"];
/// Fields that begin and end a session.
const SESSIONS: &[&str] = &["signIn", "refreshSession", "signOut"];
/// Bytes of memory that a parsed document takes for each byte of its text, roughly; and for its place.
const BYTES_PER_BYTE: usize = 25;
const BYTES_PER_DOCUMENT: usize = 1_000;

/// A document that was parsed and keeps to the limits.
pub struct ParsedDocument {
    pub document: ExecutableDocument,
    /// As it was sent.
    pub text: Box<str>,
    /// SHA-256 of its text.
    pub hash: [u8; 32],
    /// Whether it asks for the schema.
    pub introspects: bool,
    /// Whether answers have to be merged from parts.
    pub repeats: bool,
    /// Never empty.
    operations: Vec<ParsedOperation>,
    /// Where its variables stand; looked for at the first validation, and `None` when something about it is doubtful.
    places: OnceLock<Option<Places>>,
    /// What it breaks of the rules that async-graphql does not apply; known from the first validation on.
    broken: OnceLock<Vec<ServerError>>,
    bytes: usize,
}

/// One operation of a document, and what its root fields say of it.
pub struct ParsedOperation {
    pub name: Option<String>,
    pub kind: OperationType,
    /// How many passwords it checks.
    pub password_checks: usize,
    /// Whether its answer holds a credential.
    pub secret: bool,
    /// How many fields its root has.
    pub root_fields: usize,
    /// Whether it does no more than begin, renew or end a session.
    pub only_sessions: bool,
    /// Variables that must have a value.
    required: Vec<Required>,
    /// It fits the schema, but for the values of its variables.
    validated: AtomicBool,
    /// How its answers are kept, if they are: known from the first time that the response cache is asked.
    pub policy: OnceLock<Option<Policy>>,
}

/// A variable that is never null.
struct Required {
    name: Name,
    ty: String,
    at: Pos,
    /// Which stands in for it where it is not given.
    has_default: bool,
}

impl ParsedDocument {
    /// Parses a text and holds it against the limits.
    pub fn read(text: &str, hash: [u8; 32], limits: &GraphqlConfig) -> Result<Self, Vec<ServerError>> {
        limits::check_text(text, limits).map_err(violation)?;
        let document = parse_query(text).map_err(|error| vec![syntax(error.into())])?;
        let size = limits::check(&document, limits).map_err(violation)?;
        let operations = document.operations.iter();
        let operations = operations.map(|(name, operation)| ParsedOperation::read(&document, name, &operation.node)).collect();
        Ok(Self {
            text: text.into(),
            hash,
            introspects: size.introspects,
            repeats: repeats(&document),
            operations,
            places: OnceLock::new(),
            broken: OnceLock::new(),
            bytes: BYTES_PER_DOCUMENT + text.len() * BYTES_PER_BYTE,
            document,
        })
    }

    pub fn operations(&self) -> &[ParsedOperation] {
        &self.operations
    }

    /// The place of the operation that is asked for.
    pub fn select(&self, wanted: Option<&str>) -> Result<usize, Vec<ServerError>> {
        let failed = |message: String| Err(vec![coded(ServerError::new(message, None), "OPERATION_RESOLUTION_FAILURE")]);
        match (&self.operations[..], wanted) {
            ([_], None) => Ok(0),
            (_, None) => failed("The document has several operations: name one of them".to_owned()),
            (operations, Some(name)) => match operations.iter().position(|known| known.name.as_deref() == Some(name)) {
                Some(place) => Ok(place),
                None => failed(format!("The document has no operation \"{name}\"")),
            },
        }
    }

    /// The definition of the operation at this place.
    pub fn definition(&self, place: usize) -> Option<&OperationDefinition> {
        let wanted = self.operations[place].name.as_deref();
        let found = self.document.operations.iter().find(|(name, _)| name.map(Name::as_str) == wanted);
        found.map(|(_, operation)| &operation.node)
    }

    /// What it breaks of the rules that async-graphql does not apply.
    pub fn broken(&self, registry: &Registry) -> &[ServerError] {
        self.broken.get_or_init(|| {
            let misplaced = self.misplaced(registry);
            if misplaced.is_empty() { broken(&self.text) } else { misplaced }
        })
    }

    /// The variables that stand where they may not; none where names are not in the schema.
    pub fn misplaced(&self, registry: &Registry) -> Vec<ServerError> {
        self.places(registry).map_or_else(Vec::new, |places| misplaced(&self.document, places, registry))
    }

    fn places(&self, registry: &Registry) -> Option<&Places> {
        self.places.get_or_init(|| Places::find(&self.document, registry)).as_ref()
    }

    /// Notes that an operation passed the strict validation, and says which of its dates are none.
    pub fn validated(&self, place: usize, variables: &Variables, registry: &Registry) -> Vec<ServerError> {
        self.operations[place].validated.store(true, Ordering::Release);
        self.places(registry).map_or_else(Vec::new, |places| places.wrong_dates(place, variables, registry))
    }

    /// Whether the strict validation would find nothing wrong with this operation and these variables. When in doubt, no.
    pub fn fits(&self, place: usize, variables: &Variables, registry: &Registry) -> bool {
        let places = || self.places.get().and_then(Option::as_ref);
        self.operations[place].validated.load(Ordering::Acquire)
            && places().is_some_and(|places| places.accept(place, variables, registry))
    }

    /// The variables of an operation that must have a value and have none. async-graphql leaves out arguments that stand for
    /// them, as if nobody had asked for anything there.
    pub fn missing(&self, place: usize, variables: &Variables) -> Vec<ServerError> {
        let missing = self.operations[place].required.iter().filter_map(|Required { name, ty, at, has_default }| {
            let message = match variables.get(name) {
                None if *has_default => return None,
                None => format!("Variable \"${name}\" of required type \"{ty}\" was not provided."),
                Some(ConstValue::Null) => format!("Variable \"${name}\" of non-null type \"{ty}\" must not be null."),
                Some(_) => return None,
            };
            Some(ServerError::new(message, Some(*at)))
        });
        missing.collect()
    }
}

impl ParsedOperation {
    fn read(document: &ExecutableDocument, name: Option<&Name>, operation: &OperationDefinition) -> Self {
        let mut fields = Vec::new();
        root_fields(document, &operation.selection_set.node, &mut HashSet::new(), &mut fields);
        let count = |names: &[&str]| fields.iter().filter(|field| names.contains(field)).count();
        let mutates = operation.ty == OperationType::Mutation;
        Self {
            name: name.map(ToString::to_string),
            kind: operation.ty,
            password_checks: if mutates { count(PASSWORD_CHECKS) } else { 0 },
            secret: mutates && count(SECRETS) > 0,
            root_fields: fields.len(),
            only_sessions: mutates && count(SESSIONS) == fields.len(),
            required: operation.variable_definitions.iter().filter_map(required).collect(),
            validated: AtomicBool::new(false),
            policy: OnceLock::new(),
        }
    }
}

/// The documents of this process.
pub struct ParsedDocuments {
    cache: Cache<[u8; 32], Arc<ParsedDocument>>,
    limits: GraphqlConfig,
}

impl ParsedDocuments {
    pub fn new(limits: GraphqlConfig, config: &DocumentsConfig) -> Self {
        let weight = |_: &[u8; 32], document: &Arc<ParsedDocument>| u32::try_from(document.bytes).unwrap_or(u32::MAX);
        Self { cache: Cache::builder().max_capacity(config.cache_bytes).weigher(weight).build(), limits }
    }

    /// The document with this hash, if it is kept.
    pub fn get(&self, hash: &[u8; 32]) -> Option<Arc<ParsedDocument>> {
        self.cache.get(hash)
    }

    /// The document of this text. What cannot be parsed is not kept.
    pub fn parse(&self, text: &str) -> Result<Arc<ParsedDocument>, Vec<ServerError>> {
        self.parse_hashed(sha256(text), text)
    }

    /// As [`ParsedDocuments::parse`], where the hash is known.
    pub fn parse_hashed(&self, hash: [u8; 32], text: &str) -> Result<Arc<ParsedDocument>, Vec<ServerError>> {
        if let Some(document) = self.cache.get(&hash) {
            return Ok(document);
        }
        counter!(instruments::DOCUMENT_PARSES).increment(1);
        let document = Arc::new(ParsedDocument::read(text, hash, &self.limits)?);
        self.cache.insert(hash, document.clone());
        Ok(document)
    }
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

fn required(definition: &Positioned<VariableDefinition>) -> Option<Required> {
    let VariableDefinition { name, var_type, default_value, .. } = &definition.node;
    let (name, has_default) = (&name.node, default_value.is_some());
    (!var_type.node.nullable).then(|| Required {
        name: name.clone(),
        ty: var_type.node.to_string(),
        at: definition.pos,
        has_default,
    })
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
    use std::collections::HashMap;

    use async_graphql::parser::types::{FieldDefinition, TypeKind, TypeSystemDefinition};
    use mdl::config::Config;

    use super::*;

    fn documents(arguments: &[&str]) -> ParsedDocuments {
        let config = Config::from_arguments(["test"].iter().chain(arguments)).unwrap();
        ParsedDocuments::new(config.graphql, &config.documents)
    }

    fn code(errors: Vec<ServerError>) -> String {
        let code = errors[0].extensions.as_ref().and_then(|extensions| extensions.get("code")).cloned();
        code.unwrap().into_json().unwrap().as_str().unwrap().to_owned()
    }

    #[test]
    fn counts_password_checks_wherever_they_stand() {
        let documents = documents(&[]);
        let facts = |text: &str| {
            let document = documents.parse(text).ok().unwrap();
            let operation = &document.operations()[0];
            (operation.password_checks, operation.root_fields, operation.secret, operation.name.clone(), operation.kind)
        };
        let many = "mutation M { a: signIn { x } ...F ...F ... on Mutation { changePassword { x } } signOut { x } }
             fragment F on Mutation { b: signIn { x } ...G } fragment G on Mutation { c: signIn { x } }";
        assert_eq!(facts(many), (6, 7, true, Some("M".to_owned()), OperationType::Mutation));
        assert_eq!(facts("mutation { setRole { x } }"), (0, 1, false, None, OperationType::Mutation));
        assert!(facts("mutation { createApiKey { key } }").2);
        assert_eq!(facts("{ signIn }").0, 0);
    }

    /// Whatever a mutation gives that is shown once must not be stored under an idempotency key.
    #[test]
    fn knows_all_that_give_a_secret() {
        let sdl = async_graphql::parser::parse_schema(crate::graphql::schema::sdl()).unwrap();
        let types: HashMap<_, _> = sdl.definitions.into_iter().filter_map(object).collect();
        let secret = |name: &str| ["secret", "key", "accessToken", "refreshToken"].contains(&name);
        let named = |field: &FieldDefinition| field.ty.node.to_string().replace(['[', ']', '!'], "");
        let gives = |field: &FieldDefinition| {
            let payload = types.get(&named(field)).into_iter().flatten();
            // A session is in its payload; entities further in have keys that everybody may see.
            payload.clone().any(|field| secret(&field.name.node) || named(field) == "Session")
        };
        let mut found: Vec<_> =
            types["Mutation"].iter().filter(|field| gives(field)).map(|field| field.name.node.as_str()).collect();
        let mut listed = SECRETS.to_vec();
        found.sort_unstable();
        listed.sort_unstable();
        assert_eq!(found, listed);
    }

    fn object(definition: TypeSystemDefinition) -> Option<(String, Vec<FieldDefinition>)> {
        let TypeSystemDefinition::Type(definition) = definition else { return None };
        let TypeKind::Object(object) = definition.node.kind else { return None };
        Some((definition.node.name.node.to_string(), object.fields.into_iter().map(|field| field.node).collect()))
    }

    #[test]
    fn knows_what_only_concerns_sessions() {
        let documents = documents(&[]);
        let only = |text: &str| documents.parse(text).ok().unwrap().operations()[0].only_sessions;
        assert!(only("mutation { signIn { x } ... on Mutation { signOut { x } } }"));
        assert!(!only("mutation { signIn { x } createMetric { x } }"));
        assert!(!only("{ signIn }"));
    }

    #[test]
    fn picks_the_operation_that_is_asked_for() {
        let documents = documents(&[]);
        let select = |name: Option<&str>, text: &str| {
            let document = documents.parse(text).ok().unwrap();
            document.select(name).map(|place| document.operations()[place].kind).map_err(code)
        };
        let two = "query A { a } mutation B { b }";
        assert_eq!(select(Some("B"), two), Ok(OperationType::Mutation));
        assert_eq!(select(None, "query A { a }"), Ok(OperationType::Query));
        for (name, text) in [(None, two), (Some("C"), two), (Some(""), two), (Some("A"), "{ a }")] {
            assert_eq!(select(name, text), Err("OPERATION_RESOLUTION_FAILURE".to_owned()));
        }
    }

    #[test]
    fn keeps_what_it_could_parse() {
        let documents = documents(&[]);
        for broken in ["{ a", ""] {
            assert_eq!(code(documents.parse(broken).err().unwrap()), "GRAPHQL_PARSE_FAILED");
            assert!(documents.get(&sha256(broken)).is_none());
        }
        let first = documents.parse("{ a }").ok().unwrap();
        assert!(Arc::ptr_eq(&first, &documents.parse("{ a }").ok().unwrap()));
        assert!(documents.get(&sha256("{ a }")).is_some() && documents.get(&sha256("{ b }")).is_none());
    }

    #[test]
    fn its_memory_is_bounded() {
        let documents = documents(&["--document-cache-bytes", "200000"]);
        for i in 0..1_000 {
            documents.parse(&format!("{{ a{i} }}")).ok().unwrap();
        }
        documents.cache.run_pending_tasks();
        assert!((10..=170).contains(&documents.cache.entry_count()), "{}", documents.cache.entry_count());
    }

    #[test]
    fn syntax_errors_do_not_repeat_the_document() {
        let long = format!("{{ {} {{{{ }}", "secret ".repeat(100));
        let message = documents(&[]).parse(&long).err().unwrap().remove(0).message;
        assert!(message.starts_with("Syntax error: expected") && !message.contains("secret"), "{message}");
    }
}
