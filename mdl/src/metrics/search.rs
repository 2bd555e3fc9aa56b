//! Full-text and trigram search. The candidates come from `search_metrics`, which may use the indexes that row-level
//! security hides from ordinary statements; the rank is computed on the rows that the caller may see.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Float, Text, Uuid as SqlUuid};

use crate::schema::metrics;
use crate::schema::sql_types::Tsvector;

/// Longest search text, in characters.
pub const MAX_QUERY: usize = 200;

diesel::define_sql_function! {
    /// Ids of the tenant's metrics that match.
    fn search_metrics(query: Text) -> SqlUuid;
}

diesel::define_sql_function! {
    fn metric_rank(document: Tsvector, name: Text, query: Text) -> Float;
}

pub(super) type Rank = Box<dyn BoxableExpression<metrics::table, Pg, SqlType = Float>>;

/// How well a metric matches; greater is better.
pub(super) fn rank(query: &str) -> Rank {
    Box::new(metric_rank(metrics::search, metrics::name, query.to_owned()))
}
