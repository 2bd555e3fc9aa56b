//! How our errors leave the house: what the caller can mend as `userErrors`, the rest as top-level errors with
//! `extensions.code`. Internal detail is logged here, and never returned.

use async_graphql::{ErrorExtensionValues, ErrorExtensions, ServerError, SimpleObject};
use mdl::Error;
use mdl::error::{Code, Problem, causes};
use tracing::error;

/// Something in the input that the caller can mend.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
pub struct UserError {
    /// Path of the input field that is wrong, outermost first; empty when it is about the whole.
    pub field: Vec<String>,
    /// What is wrong, as a stable name: `REQUIRED`, `INVALID`, `TOO_LONG`, `TOO_MANY`, `OUT_OF_RANGE`, `TAKEN`, `NOT_FOUND`,
    /// `VERSION_CONFLICT`, `WRONG_CREDENTIALS`, `LAST_ADMIN`.
    pub code: String,
    /// What is wrong, as a sentence.
    pub message: String,
}

/// Parts a mutation's result: the value, or what the caller can mend. Other errors go on as top-level errors.
pub fn split<T>(result: mdl::Result<T>) -> async_graphql::Result<(Option<T>, Vec<UserError>)> {
    let user_error = |field: &str, code: Code, message: String| UserError {
        field: field.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        code: code.as_str().to_owned(),
        message,
    };
    match result {
        Ok(value) => Ok((Some(value), Vec::new())),
        Err(Error::Invalid(problems)) => {
            let errors = problems.into_iter().map(|problem| {
                let Problem { field, code, message } = spelled(problem);
                UserError { field, code: code.as_str().to_owned(), message }
            });
            Ok((None, errors.collect()))
        }
        Err(error @ Error::NotFound { .. }) => Ok((None, vec![user_error("id", Code::NotFound, error.to_string())])),
        Err(error @ Error::VersionConflict { .. }) => {
            Ok((None, vec![user_error("expectedVersion", Code::VersionConflict, error.to_string())]))
        }
        Err(error) => Err(top_level(error)),
    }
}

/// A top-level error with its code. Detail of faults is logged, not returned.
pub fn top_level(error: Error) -> async_graphql::Error {
    log(&error);
    outward(&error)
}

/// What the caller is told of an error that has been logged: many fields may share one.
pub fn outward(error: &Error) -> async_graphql::Error {
    let code = error.code();
    async_graphql::Error::new(message(error)).extend_with(|_, extensions| extensions.set("code", code))
}

/// The error as a sentence, with fields as the schema spells them.
pub fn message(error: &Error) -> String {
    match error {
        Error::Invalid(problems) => Error::Invalid(problems.iter().cloned().map(spelled).collect()).to_string(),
        error => error.to_string(),
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

/// Logs what is not the caller's doing.
pub fn log(error: &Error) {
    match error {
        Error::Internal(source) => error!(error = causes(source.as_ref()), "A request failed"),
        Error::Unavailable { service, source } => error!(service, error = causes(source.as_ref()), "A server did not answer"),
        _ => {}
    }
}

fn spelled(problem: Problem) -> Problem {
    Problem { field: problem.field.iter().map(|part| camel_case(part)).collect(), ..problem }
}

/// `expected_direction` becomes `expectedDirection`, as the schema spells it.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_are_spelled_as_in_the_schema() {
        assert_eq!(super::camel_case("expected_direction"), "expectedDirection");
        assert_eq!(super::camel_case("name"), "name");
        let error = super::Error::invalid("filter.order_by.containsAny", super::Code::Invalid, "Is wrong");
        assert_eq!(super::message(&error), "filter.orderBy.containsAny: Is wrong");
    }
}
