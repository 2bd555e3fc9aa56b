//! What a document may ask for. Everything is counted before anything is validated or executed, and each fragment once: a
//! chain of fragments that each name the next twice is two to the power of its length when it is written out.
//!
//! The cost of an operation (fields times page sizes) needs the schema; async-graphql counts it after this.

use std::collections::HashMap;
use std::convert::Infallible;

use async_graphql::parser::types::{ExecutableDocument, Field, Selection, SelectionSet};
use async_graphql::{Pos, Value};
use mdl::config::GraphqlConfig;

/// Most brackets open at one place of a document: the parser calls itself for each.
const MAX_BRACKETS: usize = 100;
/// Most selection sets within each other, with those of fragments: validation calls itself for each.
pub const MAX_SELECTION_SETS: usize = 64;
/// Lists of the schema within each other in an introspection query. Tools need one; each more multiplies the answer.
const MAX_INTROSPECTION_LISTS: usize = 2;
/// Deepest nesting of an introspection query: tools ask for types of types of types.
const MAX_INTROSPECTION_DEPTH: usize = 25;
/// Where async-graphql puts the number of an uploaded file. A caller who writes it himself names a file that is not there.
const UPLOAD_PLACEHOLDER: &str = "#__graphql_file__:";

/// Why a document is not even validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub code: &'static str,
    pub message: String,
    pub at: Option<Pos>,
}

impl Violation {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), at: None }
    }
}

/// Counts the tokens of a document without parsing it, and the brackets that are open at once.
pub fn check_text(document: &str, limits: &GraphqlConfig) -> Result<(), Violation> {
    let bytes = document.as_bytes();
    let (mut tokens, mut open, mut at) = (0usize, 0usize, 0usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' | b',' => {
                at += 1;
                continue;
            }
            b'#' => {
                at += bytes[at..].iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(bytes.len() - at);
                continue;
            }
            b'"' => at = end_of_string(bytes, at),
            b'.' => at += bytes[at..].iter().take(3).take_while(|b| **b == b'.').count(),
            b'{' | b'[' | b'(' => {
                open += 1;
                at += 1;
            }
            b'}' | b']' | b')' => {
                open = open.saturating_sub(1);
                at += 1;
            }
            _ if is_word(byte) => at += bytes[at..].iter().take_while(|b| is_word(**b)).count(),
            _ => at += 1,
        }
        tokens += 1;
        if tokens > limits.max_tokens {
            return Err(Violation::new("DOCUMENT_TOO_LONG", format!("The document has more than {} tokens", limits.max_tokens)));
        }
        if open > MAX_BRACKETS {
            return Err(Violation::new("TOO_DEEP", format!("The document nests more than {MAX_BRACKETS} brackets")));
        }
    }
    Ok(())
}

/// Names and numbers; also what is no ASCII, so that broken text counts as one token and the parser complains of it.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+') || !byte.is_ascii()
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let block = bytes[start..].starts_with(br#"""""#);
    let mut at = start + if block { 3 } else { 1 };
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if block && bytes[at..].starts_with(br#"\""""#) => at += 4,
            b'\\' if !block => at += 2,
            b'"' if !block => return at + 1,
            b'"' if bytes[at..].starts_with(br#"""""#) => return at + 3,
            b'\n' | b'\r' if !block => return at,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// What a parsed document asks for, with its fragments written out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Fields within fields, without introspection.
    pub depth: usize,
    pub fields: usize,
    pub aliases: usize,
    /// Whether it asks for the schema (`__schema`, `__type`).
    pub introspects: bool,
    selection_sets: usize,
    any_depth: usize,
    lists: usize,
}

impl Size {
    fn add(&mut self, other: Size) {
        self.depth = self.depth.max(other.depth);
        self.any_depth = self.any_depth.max(other.any_depth);
        self.selection_sets = self.selection_sets.max(other.selection_sets);
        self.lists = self.lists.max(other.lists);
        self.fields = self.fields.saturating_add(other.fields);
        self.aliases = self.aliases.saturating_add(other.aliases);
        self.introspects |= other.introspects;
    }
}

/// Measures a document against the limits. All its operations count, also those that are not asked for.
pub fn check(document: &ExecutableDocument, limits: &GraphqlConfig) -> Result<Size, Violation> {
    let mut ruler = Ruler { document, fragments: HashMap::new() };
    let mut size = Size::default();
    for (_, operation) in document.operations.iter() {
        for variable in &operation.node.variable_definitions {
            if variable.node.default_value.as_ref().is_some_and(|value| names_upload(&value.node, 0)) {
                return Err(forged_upload(variable.pos));
            }
        }
        size.add(ruler.selection_set(&operation.node.selection_set.node, 1)?);
    }
    if size.depth > limits.max_depth {
        return Err(Violation::new("TOO_DEEP", format!("The operation nests deeper than {} fields", limits.max_depth)));
    }
    if size.aliases > limits.max_aliases {
        return Err(Violation::new("TOO_MANY_ALIASES", format!("The operation has more than {} aliases", limits.max_aliases)));
    }
    if size.fields > limits.max_complexity {
        return Err(Violation::new("TOO_COMPLEX", format!("The operation costs more than {}", limits.max_complexity)));
    }
    Ok(size)
}

struct Ruler<'a> {
    document: &'a ExecutableDocument,
    /// Sizes of fragments; `None` while one is being measured.
    fragments: HashMap<&'a str, Option<Size>>,
}

impl<'a> Ruler<'a> {
    fn selection_set(&mut self, set: &'a SelectionSet, level: usize) -> Result<Size, Violation> {
        let too_deep = || Violation::new("TOO_DEEP", format!("The operation nests more than {MAX_SELECTION_SETS} selections"));
        if level > MAX_SELECTION_SETS {
            return Err(too_deep());
        }
        let mut size = Size::default();
        for selection in &set.items {
            size.add(match &selection.node {
                Selection::Field(field) => self.field(&field.node, field.pos, level)?,
                Selection::InlineFragment(inline) => self.selection_set(&inline.node.selection_set.node, level + 1)?,
                Selection::FragmentSpread(spread) => self.fragment(&spread.node.fragment_name.node, spread.pos, level + 1)?,
            });
        }
        size.selection_sets += 1;
        // A fragment that was measured elsewhere may be too much here.
        if level + size.selection_sets - 1 > MAX_SELECTION_SETS { Err(too_deep()) } else { Ok(size) }
    }

    fn field(&mut self, field: &'a Field, at: Pos, level: usize) -> Result<Size, Violation> {
        for (_, value) in &field.arguments {
            // Variables are looked at with the request.
            let literal = value.node.clone().into_const_with(|_| Ok::<_, Infallible>(Value::Null));
            if literal.is_ok_and(|value| names_upload(&value, 0)) {
                return Err(forged_upload(at));
            }
        }
        let mut size = match field.selection_set.node.items.is_empty() {
            true => Size::default(),
            false => self.selection_set(&field.selection_set.node, level + 1)?,
        };
        size.fields = size.fields.saturating_add(1);
        size.aliases = size.aliases.saturating_add(usize::from(field.alias.is_some()));
        size.any_depth += 1;
        size.depth += 1;
        match field.name.node.as_str() {
            "fields" | "interfaces" | "possibleTypes" | "inputFields" => size.lists += 1,
            "__schema" | "__type" => {
                if size.lists > MAX_INTROSPECTION_LISTS || size.any_depth > MAX_INTROSPECTION_DEPTH {
                    let message = "The introspection nests deeper than any tool needs";
                    return Err(Violation { code: "TOO_DEEP", message: message.to_owned(), at: Some(at) });
                }
                size.depth = 0;
                size.introspects = true;
            }
            _ => {}
        }
        Ok(size)
    }

    fn fragment(&mut self, name: &'a str, at: Pos, level: usize) -> Result<Size, Violation> {
        match self.fragments.get(name) {
            Some(Some(size)) => return Ok(*size),
            Some(None) => {
                let message = format!("The fragment \"{name}\" contains itself");
                return Err(Violation { code: "GRAPHQL_VALIDATION_FAILED", message, at: Some(at) });
            }
            None => {}
        }
        let Some(fragment) = self.document.fragments.get(name) else {
            let message = format!("There is no fragment \"{name}\"");
            return Err(Violation { code: "GRAPHQL_VALIDATION_FAILED", message, at: Some(at) });
        };
        self.fragments.insert(name, None);
        let size = self.selection_set(&fragment.node.selection_set.node, level)?;
        self.fragments.insert(name, Some(size));
        Ok(size)
    }
}

/// Whether a value names an uploaded file other than the `uploads` that came with the request.
pub fn names_upload(value: &Value, uploads: usize) -> bool {
    match value {
        Value::String(text) => {
            let number = text.strip_prefix(UPLOAD_PLACEHOLDER).map(|number| number.parse::<usize>());
            number.is_some_and(|number| number.map_or(true, |number| number >= uploads))
        }
        Value::List(values) => values.iter().any(|value| names_upload(value, uploads)),
        Value::Object(fields) => fields.values().any(|value| names_upload(value, uploads)),
        _ => false,
    }
}

fn forged_upload(at: Pos) -> Violation {
    Violation { code: "BAD_REQUEST", message: "An uploaded file can only be a variable".to_owned(), at: Some(at) }
}

/// The cost of a connection: what one entry costs, times the entries asked for. For `#[graphql(complexity = …)]`.
pub fn page_cost(first: Option<i32>, last: Option<i32>, entry: usize) -> usize {
    let count = first.or(last).and_then(|count| usize::try_from(count).ok()).unwrap_or(mdl::page::DEFAULT_PAGE);
    count.saturating_mul(entry).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;

    fn limits(arguments: &[&str]) -> GraphqlConfig {
        mdl::config::Config::from_arguments(["test"].iter().chain(arguments)).unwrap().graphql
    }

    fn code(document: &str) -> Result<Size, &'static str> {
        let limits = limits(&[]);
        check_text(document, &limits).and_then(|()| check(&parse_query(document).unwrap(), &limits)).map_err(|v| v.code)
    }

    #[test]
    fn counts_tokens() {
        let count = |document: &str| {
            let fits = |max: usize| check_text(document, &limits(&["--graphql-max-tokens", &max.to_string()])).is_ok();
            (0..100).find(|max| fits(*max)).unwrap()
        };
        assert_eq!(count(""), 0);
        assert_eq!(count("{ a }"), 3);
        assert_eq!(count("# a comment { a\n{a,,b}"), 4);
        assert_eq!(count("query Q($a: [Int!]! = [1, -2.5e3]) { a(x: $a) ...F }"), 30);
        assert_eq!(count(r#"{ a(s: "b { c \" d") }"#), 8);
        assert_eq!(count(r#"{ a(s: """b " { \""" c""") }"#), 8);
        assert_eq!(count("{ a(s: \"open"), 6);
    }

    #[test]
    fn refuses_what_is_too_deep_for_the_parser() {
        assert_eq!(code(&"[".repeat(101)).unwrap_err(), "TOO_DEEP");
        assert_eq!(code(&"{a".repeat(3_000)).unwrap_err(), "TOO_DEEP");
    }

    #[test]
    fn measures_fields_aliases_and_depth() {
        let size = code("{ a { b: c { d } ...F } } fragment F on T { x: y { z } }").unwrap();
        assert_eq!((size.depth, size.fields, size.aliases, size.introspects), (3, 5, 2, false));
        let nested = |depth: usize| format!("{}x{}", "{ a ".repeat(depth - 1) + "{ ", " }".repeat(depth));
        assert!(code(&nested(15)).is_ok());
        assert_eq!(code(&nested(16)), Err("TOO_DEEP"));
        let aliases = |count: usize| format!("{{ {} }}", (0..count).map(|i| format!("a{i}: b ")).collect::<String>());
        assert!(code(&aliases(30)).is_ok());
        assert_eq!(code(&aliases(31)), Err("TOO_MANY_ALIASES"));
    }

    #[test]
    fn fragments_that_double_are_counted_and_not_written_out() {
        let chain: String = (0..40).map(|i| format!("fragment F{i} on Q {{ ...F{} ...F{} }} ", i + 1, i + 1)).collect();
        assert_eq!(code(&format!("{{ ...F0 }} {chain} fragment F40 on Q {{ a }}")), Err("TOO_COMPLEX"));
        assert_eq!(code("{ ...A } fragment A on Q { ...B } fragment B on Q { ...A }"), Err("GRAPHQL_VALIDATION_FAILED"));
        let long: String = (0..70).map(|i| format!("fragment F{i} on Q {{ ...F{} }} ", i + 1)).collect();
        assert_eq!(code(&format!("{{ ...F0 }} {long} fragment F70 on Q {{ a }}")), Err("TOO_DEEP"));
    }

    #[test]
    fn introspection_has_its_own_limits() {
        let types = |depth: usize| {
            format!("{{ __schema {{ types {}name{} }} }}", "{ ofType ".repeat(depth) + "{ ", " }".repeat(depth + 1))
        };
        assert!(code(&types(15)).unwrap().introspects);
        assert_eq!(code(&types(15)).unwrap().depth, 0);
        assert_eq!(code(&types(30)), Err("TOO_DEEP"));
        let lists = |depth: usize| {
            format!("{{ __schema {{ types {}name{} }} }}", "{ fields { type ".repeat(depth) + "{ ", " } }".repeat(depth) + " }")
        };
        assert!(code(&lists(2)).is_ok());
        assert_eq!(code(&lists(3)), Err("TOO_DEEP"));
    }

    #[test]
    fn uploads_cannot_be_made_up() {
        assert_eq!(code(r##"mutation { a(file: "#__graphql_file__:0") }"##), Err("BAD_REQUEST"));
        assert_eq!(code(r##"mutation { a(input: { f: ["\u0023__graphql_file__:0"] }) }"##), Err("BAD_REQUEST"));
        assert_eq!(code(r##"mutation ($f: Upload = "#__graphql_file__:0") { a(file: $f) }"##), Err("BAD_REQUEST"));
    }

    #[test]
    fn pages_multiply() {
        assert_eq!(page_cost(Some(50), None, 3), 151);
        assert_eq!(page_cost(None, None, 1), 21);
        assert_eq!(page_cost(Some(-1), None, 1), 21);
        assert_eq!(page_cost(None, Some(i32::MAX), usize::MAX), usize::MAX);
    }
}
