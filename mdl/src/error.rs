//! The one error of the library. Each kind has a stable code; sources are kept for the log, not for the caller.

use std::fmt;

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller can mend this: one entry for each thing that is wrong.
    #[error("{}", Problem::list(.0))]
    Invalid(Vec<Problem>),
    /// No such thing in the caller's tenant. Says the same whether it never existed or belongs to somebody else.
    #[error("There is no {kind} {}", named(.name))]
    NotFound { kind: &'static str, name: Option<String> },
    /// It is at another revision than the caller has seen.
    #[error("{}", conflict(.kind, .expected, .actual))]
    VersionConflict { kind: &'static str, expected: i32, actual: i32 },
    /// No credential, or one that is not (or no longer) valid.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The caller is known, and may not.
    #[error("This needs the permission {0}")]
    Forbidden(&'static str),
    /// The same idempotency key was used for another request, or the first request still runs.
    #[error("{0}")]
    IdempotencyConflict(&'static str),
    /// Events after this cursor are no longer kept.
    #[error("Events after this cursor are not kept any more: read the catalog again, and go on from there")]
    CursorTooOld,
    /// The caller does not take its events as fast as they happen.
    #[error("You did not take your events in time: go on from your last cursor")]
    TooSlow,
    /// More of something at once than is allowed.
    #[error("Too many {0} at once")]
    TooMany(&'static str),
    /// A server we depend on did not answer; worth trying again.
    #[error("{service} is not available")]
    Unavailable {
        service: &'static str,
        #[source]
        source: BoxError,
    },
    /// Our fault.
    #[error("Internal error")]
    Internal(#[source] BoxError),
}

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One thing that is wrong with an input, said so that the caller can mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the input field, outermost first: `["definition", "unit"]`. Empty when it is about the whole.
    pub field: Vec<String>,
    pub code: Code,
    pub message: String,
}

/// Stable names of what can be wrong with an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Required,
    Invalid,
    TooLong,
    TooMany,
    OutOfRange,
    Taken,
    NotFound,
    VersionConflict,
    WrongCredentials,
    LastAdmin,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Required => "REQUIRED",
            Code::Invalid => "INVALID",
            Code::TooLong => "TOO_LONG",
            Code::TooMany => "TOO_MANY",
            Code::OutOfRange => "OUT_OF_RANGE",
            Code::Taken => "TAKEN",
            Code::NotFound => "NOT_FOUND",
            Code::VersionConflict => "VERSION_CONFLICT",
            Code::WrongCredentials => "WRONG_CREDENTIALS",
            Code::LastAdmin => "LAST_ADMIN",
        }
    }
}

impl Problem {
    /// `field` is a dotted path: `"definition.unit"`.
    pub fn new(field: &str, code: Code, message: impl Into<String>) -> Self {
        let field = field.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        Self { field, code, message: message.into() }
    }

    fn list(problems: &[Problem]) -> String {
        problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.field.join("."), self.message) }
    }
}

fn named(name: &Option<String>) -> String {
    name.as_ref().map_or_else(|| "with this id".to_owned(), |name| format!("{name:?}"))
}

fn conflict(kind: &str, expected: &i32, actual: &i32) -> String {
    if expected > actual {
        format!("There is no revision {expected} of the {kind} yet: it is at {actual}")
    } else if *expected < 1 {
        format!("There is no revision {expected} of the {kind}: it is at {actual}")
    } else {
        format!("The {kind} has changed since revision {expected}: it is at {actual} now. Read it again and repeat your change")
    }
}

/// An error with all its causes, on one line: for the log, and for operators. What only repeats what it wraps is said once.
pub fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.map(ToString::to_string).fold(error.to_string(), |text, cause| {
        if text.contains(&cause) {
            return text;
        }
        // A cause that begins with what the text ends with goes on from there.
        let goes_on = |at: usize| cause.strip_prefix(&text[at..]).is_some_and(|rest| rest.starts_with(':'));
        let mut parts = std::iter::once(0).chain(text.match_indices(": ").map(|(at, colon)| at + colon.len()));
        match parts.find(|at| goes_on(*at)) {
            Some(at) => format!("{}{cause}", &text[..at]),
            None => format!("{text}: {cause}"),
        }
    })
}

impl Error {
    /// One problem with one field (a dotted path).
    pub fn invalid(field: &str, code: Code, message: impl Into<String>) -> Self {
        Error::Invalid(vec![Problem::new(field, code, message)])
    }

    pub fn not_found(kind: &'static str, name: impl fmt::Display) -> Self {
        Error::NotFound { kind, name: Some(name.to_string()) }
    }

    /// That nothing has the id. Callers know other ids than we do, so it is not named.
    pub fn unknown_id(kind: &'static str) -> Self {
        Error::NotFound { kind, name: None }
    }

    pub fn internal(source: impl Into<BoxError>) -> Self {
        Error::Internal(source.into())
    }

    pub fn unavailable(service: &'static str, source: impl Into<BoxError>) -> Self {
        Error::Unavailable { service, source: source.into() }
    }

    /// The stable code that callers match on (`extensions.code` in GraphQL).
    pub fn code(&self) -> &'static str {
        match self {
            Error::Invalid(_) => "BAD_USER_INPUT",
            Error::NotFound { .. } => "NOT_FOUND",
            Error::VersionConflict { .. } => "VERSION_CONFLICT",
            Error::Unauthenticated(_) => "UNAUTHENTICATED",
            Error::Forbidden(_) => "FORBIDDEN",
            Error::IdempotencyConflict(_) => "IDEMPOTENCY_CONFLICT",
            Error::CursorTooOld => "CURSOR_TOO_OLD",
            Error::TooSlow => "SLOW_CONSUMER",
            Error::TooMany(_) => "TOO_MANY",
            Error::Unavailable { .. } => "UNAVAILABLE",
            Error::Internal(_) => "INTERNAL",
        }
    }

    /// The problem that names this broken unique constraint, if that is what happened.
    pub fn on_constraint(self, constraint: &str, problem: impl FnOnce() -> Problem) -> Self {
        match self.constraint() {
            Some(name) if name == constraint => Error::Invalid(vec![problem()]),
            _ => self,
        }
    }

    /// Name of the database constraint that refused the write.
    fn constraint(&self) -> Option<&str> {
        let Error::Internal(source) = self else { return None };
        match source.downcast_ref::<diesel::result::Error>()? {
            diesel::result::Error::DatabaseError(_, info) => info.constraint_name(),
            _ => None,
        }
    }
}

/// How PostgreSQL begins to say that it ends a session, or lets nobody in. Diesel keeps no SQLSTATE of it; `ops/roles.sql` sees to it
/// that our sessions are told it in English.
const SESSION_ENDS: [&str; 2] = ["terminating connection", "the database system is "];

impl From<diesel::result::Error> for Error {
    fn from(error: diesel::result::Error) -> Self {
        use diesel::result::{DatabaseErrorKind, Error as Diesel};
        match error {
            Diesel::DatabaseError(DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand, _) => {
                Error::unavailable("PostgreSQL", error)
            }
            Diesel::DatabaseError(DatabaseErrorKind::Unknown, ref info)
                if SESSION_ENDS.iter().any(|beginning| info.message().starts_with(beginning)) =>
            {
                Error::unavailable("PostgreSQL", error)
            }
            // Whatever its language, the message quotes the byte. Only reads get this far: writes check each of their fields.
            Diesel::DatabaseError(_, info) if info.message().contains("UTF8") && info.message().contains("0x00") => {
                Error::invalid("", Code::Invalid, "Text must not contain the NUL character")
            }
            // Only cursors get this far: they hold dates that nobody has looked at.
            Diesel::DatabaseError(_, info) if ["timestamp out of range", "date out of range"].contains(&info.message()) => {
                Error::invalid("", Code::OutOfRange, "A date is out of range")
            }
            error => Error::internal(error),
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let ended = error.is_closed() || error.code().is_some_and(|state| ends_session(state.code()));
        if ended { Error::unavailable("PostgreSQL", error) } else { Error::internal(error) }
    }
}

/// Whether a SQLSTATE says that the server goes away, starts, is full, or cannot be reached.
fn ends_session(state: &str) -> bool {
    // Of the class 08 not 08P01, which is a fault of the client.
    ["08000", "08001", "08003", "08004", "08006", "57P01", "57P02", "57P03", "53300"].contains(&state)
}

impl From<redis::RedisError> for Error {
    fn from(error: redis::RedisError) -> Self {
        Error::unavailable("Redis", error)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::internal(error)
    }
}

#[cfg(test)]
mod tests {
    use diesel::result::{DatabaseErrorKind, Error as Diesel};

    use super::*;

    #[test]
    fn what_is_not_there_is_named_as_callers_know_it() {
        assert_eq!(Error::unknown_id("metric").to_string(), "There is no metric with this id");
        assert_eq!(Error::not_found("schedule", "nightly").to_string(), "There is no schedule \"nightly\"");
    }

    #[test]
    fn a_conflict_says_whether_the_revision_was_or_is_to_come() {
        let said = |expected| Error::VersionConflict { kind: "metric", expected, actual: 5 }.to_string();
        let changed = "The metric has changed since revision 4: it is at 5 now. Read it again and repeat your change";
        assert_eq!(said(4), changed);
        assert_eq!(said(9), "There is no revision 9 of the metric yet: it is at 5");
        assert_eq!(said(0), "There is no revision 0 of the metric: it is at 5");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    /// Each the cause of the one before.
    fn chain(texts: &[&'static str]) -> Link {
        let mut links = texts.iter().rev().copied();
        let last = Link { text: links.next().unwrap(), source: None };
        links.fold(last, |cause, text| Link { text, source: Some(Box::new(cause)) })
    }

    #[test]
    fn causes_are_said_once() {
        let joined = |texts: &[&'static str]| causes(&chain(texts));
        assert_eq!(joined(&["Cannot write", "no space left"]), "Cannot write: no space left");
        assert_eq!(
            joined(&["Generic error: no copy: no space", "no copy: no space", "no space"]),
            "Generic error: no copy: no space"
        );
        assert_eq!(joined(&["Cannot write: no copy", "no copy: no space"]), "Cannot write: no copy: no space");
        assert_eq!(joined(&["no copy", "no copy: no space"]), "no copy: no space");
        let wrapped = Error::unavailable("the disk", chain(&["no copy: no space", "no space"]));
        assert_eq!(causes(&wrapped), "the disk is not available: no copy: no space");
    }

    #[test]
    fn an_ended_session_is_worth_trying_again() {
        let said = |message: &str| Error::from(Diesel::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message.to_owned())));
        for ended in ["terminating connection due to administrator command", "the database system is shutting down"] {
            assert_eq!(said(ended).code(), "UNAVAILABLE", "{ended}");
        }
        assert_eq!(said("division by zero").code(), "INTERNAL");
        for state in ["57P01", "57P03", "53300", "08006"] {
            assert!(ends_session(state), "{state}");
        }
        assert!(!ends_session("57014"), "a statement that took too long");
    }
}
