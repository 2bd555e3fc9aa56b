//! Full-text and trigram search. The candidates come from `find_metrics`, which may use the indexes that row-level security
//! hides from ordinary statements; the first page by relevance is ranked there, too. What is given
//! out is ranked on the rows that the caller may see.

use diesel::dsl::array;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Float, Text};

use self::sql::find_metrics;
use super::filter::{Condition, Filter, names};
use crate::schema::metrics;
use crate::schema::sql_types::Tsvector;

/// Longest search text, in characters.
pub const MAX_QUERY: usize = 200;

/// Of more metrics that match, so many are ranked.
const MOST_RANKED: i64 = 5000;

#[expect(clippy::too_many_arguments, reason = "one for each condition")]
mod sql {
    use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text};

    diesel::define_sql_function! {
        /// Ids of the tenant's metrics that match all that is not NULL: of the first `most`, the `best`.
        fn find_metrics(
            query: Nullable<Text>,
            every_tag: Nullable<Array<Text>>,
            any_tag: Nullable<Array<Text>>,
            categories: Nullable<Array<Text>>,
            tiers: Nullable<Array<Text>>,
            statuses: Nullable<Array<Text>>,
            owner_teams: Nullable<Array<Text>>,
            archived: Nullable<Bool>,
            most: Nullable<BigInt>,
            best: Nullable<BigInt>,
        ) -> Uuid;
    }
}

diesel::define_sql_function! {
    fn metric_rank(document: Tsvector, name: Text, query: Text) -> Float;
}

/// What `find_metrics` finds of a search, a filter or both; `None` when there is nothing to find by text or tag. It takes out of
/// the filter what it has looked at. Where no more than the `best` matches are wanted, it ranks for itself, and spares the caller to
/// read the rest.
pub(super) fn found(search: Option<&str>, filter: &mut Filter, best: Option<i64>) -> Option<Condition> {
    if search.is_none() && filter.all_tags.is_none() && filter.any_tags.is_none() {
        return None;
    }
    let (all_tags, any_tags, categories) = (filter.all_tags.take(), filter.any_tags.take(), filter.categories.take());
    let tiers = filter.tiers.take().map(|tiers| names(&tiers, |tier| tier.as_str()));
    let statuses = filter.statuses.take().map(|statuses| names(&statuses, |status| status.as_str()));
    let (owner_teams, archived) = (filter.owner_teams.take(), filter.archived.take());
    // Nothing may be cut off before the rest of the filter has looked at it.
    let most = (search.is_some() && *filter == Filter::default()).then_some(MOST_RANKED);
    let best = best.filter(|_| most.is_some());
    let query = search.map(str::to_owned);
    let ids = find_metrics(query, all_tags, any_tags, categories, tiers, statuses, owner_teams, archived, most, best);
    // As an array, it is found once. As a table, PostgreSQL may join it to each metric anew.
    Some(Box::new(metrics::id.eq_any(array(diesel::select(ids)))))
}

/// Metrics with every, or any, of the tags, whatever else is asked for.
pub(super) fn tagged(every: Option<Vec<String>>, any: Option<Vec<String>>) -> Condition {
    let (text, texts, number) = (None::<String>, None::<Vec<String>>, None::<i64>);
    let ids = find_metrics(text, every, any, texts.clone(), texts.clone(), texts.clone(), texts, None::<bool>, number, number);
    Box::new(metrics::id.eq_any(diesel::select(ids)))
}

pub(super) type Rank = Box<dyn BoxableExpression<metrics::table, Pg, SqlType = Float>>;

/// How well a metric matches; greater is better.
pub(super) fn rank(query: &str) -> Rank {
    Box::new(metric_rank(metrics::search, metrics::name, query.to_owned()))
}
