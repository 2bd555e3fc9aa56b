//! Statements that PostgreSQL prepares once for each connection.
//!
//! Diesel finds a prepared statement again when it can tell from the statement's type that the text is the same. Of SQL that is given as
//! text, of every UPDATE, and of an INSERT that may leave a column to its default it cannot, and prepares them anew each time:
//! one more round trip, and PostgreSQL reads the text again. An INSERT need not be marked where all structs that it takes say
//! `treat_none_as_default_value = false`, also one without an `Option`.

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;

/// Statements that are prepared once, although Diesel would not.
pub trait Prepare: QueryFragment<Pg> + Sized {
    /// Says that the text of this statement is always the same, or one of few: it is found again by its text. Nothing forgets it but the
    /// end of the connection, so no value may be part of it.
    fn prepared(self) -> Prepared<Self> {
        Prepared(self)
    }
}

impl<Q: QueryFragment<Pg>> Prepare for Q {}

/// A statement that is prepared once for each connection.
pub struct Prepared<Q>(Q);

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for Prepared<Q> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.0.walk_ast(out)
    }

    fn is_safe_to_cache_prepared(&self, _: &Pg) -> QueryResult<bool> {
        Ok(true)
    }
}

impl<Q> QueryId for Prepared<Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: Query> Query for Prepared<Q> {
    type SqlType = Q::SqlType;
}
