//! The rules of the specification that async-graphql 8.0.0-rc.5 lacks: that fields of one name can be merged however deep they
//! stand, that an enum is no string, and more. apollo-compiler has them, but for one: that no field of an input is given twice.

use std::collections::HashSet;
use std::sync::OnceLock;

use apollo_compiler::ast::{Definition, Document, Selection, Value};
use apollo_compiler::validation::{DiagnosticList, Valid};
use apollo_compiler::{Name, Node, Schema};
use async_graphql::{Pos, ServerError};

use crate::graphql::executor::MAX_ERRORS;
use crate::graphql::schema::sdl;

/// What a text breaks of these rules. The values of its variables do not matter.
pub fn broken(text: &str) -> Vec<ServerError> {
    static SCHEMA: OnceLock<Valid<Schema>> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| {
        Schema::parse_and_validate(sdl(), "schema.graphql").expect("async-graphql has written a schema that is valid")
    });
    let document = match Document::parse(text, "document") {
        Ok(document) => document,
        // async-graphql's parser takes what the grammar has not: `query Q() { … }`.
        Err(found) => return told(&found.errors),
    };
    let mut errors: Vec<_> = twice(&document).into_iter().map(|message| ServerError::new(message, None)).collect();
    if let Err(found) = document.to_executable_validate(schema) {
        errors.extend(told(&found.errors));
    }
    errors.truncate(MAX_ERRORS);
    errors
}

fn told(found: &DiagnosticList) -> Vec<ServerError> {
    let errors = found.iter().take(MAX_ERRORS).map(|diagnostic| {
        let error = diagnostic.to_json();
        let mut locations = error.locations.iter().map(|at| Pos { line: at.line, column: at.column });
        let mut told = ServerError::new(error.message, locations.next());
        told.locations.extend(locations);
        told
    });
    errors.collect()
}

/// The fields of inputs that are given twice.
fn twice(document: &Document) -> Vec<String> {
    let mut found = Vec::new();
    for definition in &document.definitions {
        match definition {
            Definition::OperationDefinition(operation) => {
                let defaults = operation.variables.iter().filter_map(|variable| variable.default_value.as_ref());
                defaults.for_each(|value| twice_in_value(value, &mut found));
                twice_in_selections(&operation.selection_set, &mut found);
            }
            Definition::FragmentDefinition(fragment) => twice_in_selections(&fragment.selection_set, &mut found),
            _ => {}
        }
    }
    found
}

fn twice_in_selections(selections: &[Selection], found: &mut Vec<String>) {
    for selection in selections {
        match selection {
            Selection::Field(field) => {
                field.arguments.iter().for_each(|argument| twice_in_value(&argument.value, found));
                twice_in_selections(&field.selection_set, found);
            }
            Selection::InlineFragment(inline) => twice_in_selections(&inline.selection_set, found),
            Selection::FragmentSpread(_) => {}
        }
    }
}

fn twice_in_value(value: &Node<Value>, found: &mut Vec<String>) {
    match &**value {
        Value::List(values) => values.iter().for_each(|value| twice_in_value(value, found)),
        Value::Object(fields) => {
            let mut names: HashSet<&Name> = HashSet::new();
            for (name, value) in fields {
                if !names.insert(name) {
                    found.push(format!("There can be only one input field named \"{name}\"."));
                }
                twice_in_value(value, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graphql::limits::MAX_SELECTION_SETS;

    #[test]
    fn what_is_short_is_looked_at_soon() {
        // Written out, it would be two to the power of sixty.
        let chain = |last: &str| {
            let fragments = (0..MAX_SELECTION_SETS - 4).map(|n| format!("fragment F{n} on Metric {{ ...F{0} ...F{0} }} ", n + 1));
            let last = format!("fragment F{} on Metric {{ {last} }}", MAX_SELECTION_SETS - 4);
            format!("{{ metric(key: \"M\") {{ ...F0 }} }} {}{last}", fragments.collect::<String>())
        };
        assert_eq!(broken(&chain("key")), []);
        assert_eq!(broken(&chain("a: key a: name")).len(), 1);
        let wide = format!("{{ metrics {{ nodes {{ {} }} }} }}", "domain { key metrics { nodes { key } } } ".repeat(200));
        assert_eq!(broken(&wide), []);
        assert_eq!(broken("query Q() { __typename }").len(), 1, "what only one of the parsers takes");
    }
}
