//! The rules of the specification that async-graphql 8.0.0-rc.5 lacks, or does not apply: that fields of one name can be merged
//! however deep they stand, that variables suit the places where they stand, that no field of an input is given twice, that an
//! enum is no string. apollo-compiler has them all.

use std::sync::OnceLock;

use apollo_compiler::validation::Valid;
use apollo_compiler::{ExecutableDocument, Schema};
use async_graphql::{Pos, ServerError};

use crate::graphql::schema::sdl;

/// What a text breaks of the rules for documents, whatever the values of its variables.
pub fn broken(text: &str) -> Vec<ServerError> {
    static SCHEMA: OnceLock<Valid<Schema>> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| {
        Schema::parse_and_validate(sdl(), "schema.graphql").expect("async-graphql has written a schema that is valid")
    });
    let Err(found) = ExecutableDocument::parse_and_validate(schema, text, "document") else { return Vec::new() };
    let errors = found.errors.iter().map(|diagnostic| {
        let error = diagnostic.to_json();
        let mut locations = error.locations.iter().map(|at| Pos { line: at.line, column: at.column });
        let mut told = ServerError::new(error.message, locations.next());
        told.locations.extend(locations);
        told
    });
    errors.collect()
}
