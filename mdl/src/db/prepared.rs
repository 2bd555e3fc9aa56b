//! Statements that PostgreSQL prepares once for each connection.
//!
//! Diesel finds a prepared statement again when it can tell from the statement's type that the text is the same. Of SQL that is given as
//! text, of every UPDATE, and of an INSERT that may leave a column to its default it cannot, and prepares them anew each time:
//! one more round trip, and PostgreSQL reads the text again. An INSERT need not be marked where all structs that it takes say
//! `treat_none_as_default_value = false`, also one without an `Option`.
//!
//! A boxed query is found again by its text, and callers decide what that is: each combination of the conditions of a filter is a
//! text of its own. So a connection that has prepared too many statements forgets them all before it is used again.

use diesel::connection::CacheSize;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel_async::{AsyncConnection, AsyncPgConnection};

use super::timing::OfConnection;

/// How many statements a connection has prepared when it forgets them all: it keeps no more than these and those of one operation. Too
/// low: what is asked all the time is prepared again and again; too high: each takes memory of PostgreSQL and of this process, in
/// every connection.
pub const MAX_PREPARED: usize = 500;

/// Statements that are prepared once, although Diesel would not.
pub trait Prepare: QueryFragment<Pg> + Sized {
    /// Says that the text of this statement is always the same, or one of few: it is found again by its text. No value may
    /// be part of it, or the [`MAX_PREPARED`] that a connection keeps are soon full of it.
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

/// Forgets all statements that this connection keeps prepared, if they are too many. For a connection that nobody uses yet.
pub fn forget_too_many(conn: &mut AsyncPgConnection) {
    match conn.instrumentation().downcast_mut::<OfConnection>() {
        Some(seen) if seen.prepared >= MAX_PREPARED => seen.prepared = 0,
        _ => return,
    }
    // A cache of another size begins empty. What is dropped with the old one the driver tells PostgreSQL to close, ahead of
    // what is sent next.
    conn.set_prepared_statement_cache_size(CacheSize::Disabled);
    conn.set_prepared_statement_cache_size(CacheSize::Unbounded);
}
