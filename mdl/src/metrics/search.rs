//! Full-text and trigram search. The candidates come from `search_metrics` or, among metrics with some tags, from
//! `search_tagged_metrics`. These may use the indexes that row-level security hides from ordinary statements; the rank is computed
//! on the rows that the caller may see.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Array, Bool, Float, Text, Uuid as SqlUuid};

use super::filter::{Condition, Filter};
use crate::schema::metrics;
use crate::schema::sql_types::Tsvector;

/// Longest search text, in characters.
pub const MAX_QUERY: usize = 200;

diesel::define_sql_function! {
    /// Ids of the tenant's metrics that match.
    fn search_metrics(query: Text) -> SqlUuid;
}

diesel::define_sql_function! {
    /// Ids of the tenant's metrics that match and have every, or any, of the tags.
    fn search_tagged_metrics(query: Text, wanted: Array<Text>, every: Bool) -> SqlUuid;
}

diesel::define_sql_function! {
    fn metric_rank(document: Tsvector, name: Text, query: Text) -> Float;
}

/// What a search finds. It looks at the tags that the filter wants, and takes them out of it.
pub(super) fn found(query: &str, filter: &mut Filter) -> Condition {
    let query = query.to_owned();
    if let Some(tags) = filter.all_tags.take() {
        return Box::new(metrics::id.eq_any(diesel::select(search_tagged_metrics(query, tags, true))));
    }
    if let Some(tags) = filter.any_tags.take() {
        return Box::new(metrics::id.eq_any(diesel::select(search_tagged_metrics(query, tags, false))));
    }
    Box::new(metrics::id.eq_any(diesel::select(search_metrics(query))))
}

pub(super) type Rank = Box<dyn BoxableExpression<metrics::table, Pg, SqlType = Float>>;

/// How well a metric matches; greater is better.
pub(super) fn rank(query: &str) -> Rank {
    Box::new(metric_rank(metrics::search, metrics::name, query.to_owned()))
}
