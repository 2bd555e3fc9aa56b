//! Which metrics a list has, and in which order.

use async_graphql::{Enum, InputObject};
use mdl::error::{Code, Error};
use mdl::metrics::Columns;
use mdl::metrics::filter::{DateRange as Range, Filter};
use mdl::metrics::store::{Listing, Order};

use super::enums::{IndicatorKind, MetricStatus, MetricType, Tier};
use crate::graphql::filter::{DateTimeRange, IsDomain, OneOf, OrderDirection, check_texts, converted};

/// Most conditions in a filter, counted through `and`, `or` and `not`.
const MAX_CONDITIONS: usize = 100;
/// Deepest nesting of `and`, `or` and `not`.
const MAX_DEPTH: usize = 10;

/// Conditions that must all hold. A metric without a value fails every `in`, and passes its negation.
#[derive(Debug, Default, InputObject)]
pub struct MetricFilter {
    /// Its key.
    key: Option<OneOf<String>>,
    /// The business domain it belongs to.
    domain: Option<IsDomain>,
    /// Its category.
    category: Option<OneOf<String>>,
    /// Its tier.
    tier: Option<OneOf<Tier>>,
    /// Whether it is leading, lagging or operational.
    indicator_kind: Option<OneOf<IndicatorKind>>,
    /// How it is computed.
    metric_type: Option<OneOf<MetricType>>,
    /// Where its definition stands.
    status: Option<OneOf<MetricStatus>>,
    /// The team that answers for it.
    owner_team: Option<OneOf<String>>,
    /// Whether it is computed from data about persons.
    pii_involved: Option<bool>,
    /// Its tags.
    tags: Option<TagFilter>,
    /// When it was added.
    created_at: Option<DateTimeRange>,
    /// When it last changed.
    updated_at: Option<DateTimeRange>,
    /// `true` for archived metrics, `false` for the others. A list whose filter says nothing about it leaves archived
    /// metrics out.
    archived: Option<bool>,
    /// All of these must hold as well.
    and: Option<Vec<MetricFilter>>,
    /// At least one of these must hold as well.
    or: Option<Vec<MetricFilter>>,
    /// This must not hold.
    not: Option<Box<MetricFilter>>,
}

/// Conditions on tags; both must hold if both are given.
#[derive(Debug, Default, InputObject)]
pub struct TagFilter {
    /// Has every one of these.
    contains_all: Option<Vec<String>>,
    /// Has at least one of these.
    contains_any: Option<Vec<String>>,
}

/// What a list of metrics is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::metrics::store::Order")]
pub enum MetricOrderField {
    /// The key.
    Key,
    /// The name, as people sort words.
    Name,
    /// When it was added.
    CreatedAt,
    /// When it last changed.
    UpdatedAt,
    /// How well it matches the search, best first. Only with `search`.
    Relevance,
}

/// The order of a list of metrics.
#[derive(Debug, InputObject)]
pub struct MetricOrder {
    /// What it is ordered by; between equals the id decides.
    field: MetricOrderField,
    /// Which way; ascending if not given, and best match first for `RELEVANCE`.
    direction: Option<OrderDirection>,
}

/// The list that the arguments describe: by key, or by relevance if something is searched for.
pub fn listing(
    filter: Option<MetricFilter>,
    search: Option<String>,
    order: Option<MetricOrder>,
    columns: Columns,
) -> mdl::Result<Listing> {
    let filter = filter.unwrap_or_default();
    filter.check()?;
    let search = search.filter(|search| !search.trim().is_empty());
    let default = if search.is_some() { Order::Relevance } else { Order::Key };
    let (field, direction) = order.map_or((default, None), |order| (Order::from(order.field), order.direction));
    let descending = direction.map_or(field == Order::Relevance, |direction| direction == OrderDirection::Desc);
    Ok(Listing { filter: filter.into(), search, order: field, descending, columns })
}

impl MetricFilter {
    fn check(&self) -> mdl::Result<()> {
        let (conditions, depth) = self.measure();
        if depth > MAX_DEPTH {
            return Err(Error::invalid(
                "filter",
                Code::TooMany,
                format!("Is {depth} levels deep; at most {MAX_DEPTH} are allowed"),
            ));
        }
        if conditions > MAX_CONDITIONS {
            let message = format!("Has {conditions} parts; at most {MAX_CONDITIONS} are allowed");
            return Err(Error::invalid("filter", Code::TooMany, message));
        }
        check_texts("filter", self)
    }

    /// How many filters it is made of, and how deep they are nested.
    fn measure(&self) -> (usize, usize) {
        let inner = self.and.iter().flatten().chain(self.or.iter().flatten()).chain(self.not.as_deref());
        let (count, depth) =
            inner.map(MetricFilter::measure).fold((0, 0), |(count, deepest), (n, depth)| (count + n, deepest.max(depth)));
        (count + 1, depth + 1)
    }
}

impl From<MetricFilter> for Filter {
    fn from(filter: MetricFilter) -> Self {
        let (domain_keys, without_domain) = filter.domain.map_or((None, None), |domain| (domain.r#in, domain.is_null));
        let tags = filter.tags.unwrap_or_default();
        let nested = |filters: Option<Vec<MetricFilter>>| filters.into_iter().flatten().map(Filter::from).collect();
        Self {
            keys: filter.key.map(|key| key.r#in),
            domains: None,
            domain_keys,
            without_domain,
            categories: filter.category.map(|category| category.r#in),
            tiers: filter.tier.map(converted),
            indicator_kinds: filter.indicator_kind.map(converted),
            metric_types: filter.metric_type.map(converted),
            statuses: filter.status.map(converted),
            owner_teams: filter.owner_team.map(|team| team.r#in),
            pii_involved: filter.pii_involved,
            all_tags: tags.contains_all,
            any_tags: tags.contains_any,
            created: filter.created_at.map_or_else(Range::default, Range::from),
            updated: filter.updated_at.map_or_else(Range::default, Range::from),
            archived: filter.archived,
            and: nested(filter.and),
            or: nested(filter.or),
            not: filter.not.map(|not| Box::new(Filter::from(*not))),
        }
    }
}
