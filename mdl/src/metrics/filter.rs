//! Which metrics are wanted. A filter is a tree; it becomes one SQL condition.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::Bool;

use super::definition::{IndicatorKind, MetricType, Status, Tier};
use super::search::tagged;
use crate::ids::{DomainId, TenantId};
use crate::schema::{business_domains, metrics};

/// Conditions that must all hold. An empty filter lets everything through.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    pub keys: Option<Vec<String>>,
    pub domains: Option<Vec<DomainId>>,
    pub domain_keys: Option<Vec<String>>,
    /// Metrics that belong to no domain.
    pub without_domain: Option<bool>,
    pub categories: Option<Vec<String>>,
    pub tiers: Option<Vec<Tier>>,
    pub indicator_kinds: Option<Vec<IndicatorKind>>,
    pub metric_types: Option<Vec<MetricType>>,
    pub statuses: Option<Vec<Status>>,
    pub owner_teams: Option<Vec<String>>,
    pub pii_involved: Option<bool>,
    /// Has every one of these tags.
    pub all_tags: Option<Vec<String>>,
    /// Has at least one of these tags.
    pub any_tags: Option<Vec<String>>,
    pub created: DateRange,
    pub updated: DateRange,
    /// `None` lets both through; lists leave out archived metrics unless asked.
    pub archived: Option<bool>,
    pub and: Vec<Filter>,
    /// When not empty, at least one of these must hold.
    pub or: Vec<Filter>,
    pub not: Option<Box<Filter>>,
}

/// From (inclusive) to (exclusive).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DateRange {
    pub from: Option<DateTime<Utc>>,
    pub before: Option<DateTime<Utc>>,
}

/// Is one of some values. A single value is compared by `=`: only then is an index on the column and the key read in the
/// order of the list, and the scan ends with the page however rare the value is.
macro_rules! one_of {
    ($wrap:path, $column:expr, $values:expr) => {{
        let mut values = $values;
        match values.pop() {
            Some(value) if values.is_empty() => Box::new($wrap($column.eq(value))) as Condition,
            last => {
                values.extend(last);
                Box::new($wrap($column.eq_any(values))) as Condition
            }
        }
    }};
    ($column:expr, $values:expr) => {
        one_of!(std::convert::identity, $column, $values)
    };
}

pub(super) type Condition = Box<dyn BoxableExpression<metrics::table, Pg, SqlType = Bool>>;

impl Filter {
    /// Whether this filter, or one inside it, says something about archived metrics.
    pub fn mentions_archived(&self) -> bool {
        self.archived.is_some() || self.and.iter().chain(&self.or).chain(self.not.as_deref()).any(Filter::mentions_archived)
    }

    /// The SQL condition; `None` when everything passes. Never NULL: a column without a value fails "is one of", and passes
    /// its negation.
    pub(super) fn condition(&self, tenant: TenantId) -> Option<Condition> {
        let mut all: Vec<Condition> = Vec::new();
        if let Some(keys) = self.keys.clone() {
            all.push(one_of!(metrics::key, keys));
        }
        if let Some(domains) = self.domains.clone() {
            all.push(one_of!(known, metrics::domain_id, domains));
        }
        if let Some(keys) = self.domain_keys.clone() {
            let known_domains = business_domains::table.filter(business_domains::tenant_id.eq(tenant));
            all.push(match <[String; 1]>::try_from(keys) {
                Ok([key]) => {
                    let wanted = known_domains.filter(business_domains::key.eq(key)).select(business_domains::id);
                    Box::new(known(metrics::domain_id.eq(wanted.single_value())))
                }
                Err(keys) => {
                    let wanted = known_domains.filter(business_domains::key.eq_any(keys)).select(business_domains::id.nullable());
                    Box::new(known(metrics::domain_id.eq_any(wanted)))
                }
            });
        }
        match self.without_domain {
            Some(true) => all.push(Box::new(metrics::domain_id.is_null())),
            Some(false) => all.push(Box::new(metrics::domain_id.is_not_null())),
            None => {}
        }
        if let Some(categories) = self.categories.clone() {
            all.push(one_of!(known, metrics::category, categories));
        }
        if let Some(tiers) = &self.tiers {
            all.push(one_of!(known, metrics::tier, names(tiers, |tier| tier.as_str())));
        }
        if let Some(kinds) = &self.indicator_kinds {
            all.push(one_of!(known, metrics::indicator_kind, names(kinds, |kind| kind.as_str())));
        }
        if let Some(types) = &self.metric_types {
            all.push(one_of!(metrics::metric_type, names(types, |kind| kind.as_str())));
        }
        if let Some(statuses) = &self.statuses {
            all.push(one_of!(metrics::status, names(statuses, |status| status.as_str())));
        }
        if let Some(teams) = self.owner_teams.clone() {
            all.push(one_of!(known, metrics::owner_team, teams));
        }
        if let Some(pii) = self.pii_involved {
            all.push(Box::new(metrics::pii_involved.eq(pii)));
        }
        if self.all_tags.is_some() || self.any_tags.is_some() {
            all.push(tagged(self.all_tags.clone(), self.any_tags.clone()));
        }
        if let Some(from) = self.created.from {
            all.push(Box::new(metrics::created_at.ge(from)));
        }
        if let Some(before) = self.created.before {
            all.push(Box::new(metrics::created_at.lt(before)));
        }
        if let Some(from) = self.updated.from {
            all.push(Box::new(metrics::updated_at.ge(from)));
        }
        if let Some(before) = self.updated.before {
            all.push(Box::new(metrics::updated_at.lt(before)));
        }
        match self.archived {
            Some(true) => all.push(Box::new(metrics::archived_at.is_not_null())),
            Some(false) => all.push(Box::new(metrics::archived_at.is_null())),
            None => {}
        }
        all.extend(self.and.iter().filter_map(|filter| filter.condition(tenant)));
        if !self.or.is_empty() {
            // An empty alternative lets everything through, and so does the whole.
            let alternatives: Option<Vec<Condition>> = self.or.iter().map(|filter| filter.condition(tenant)).collect();
            all.extend(alternatives.and_then(|list| list.into_iter().reduce(|a, b| Box::new(a.or(b)))));
        }
        if let Some(not) = &self.not {
            match not.condition(tenant) {
                Some(condition) => all.push(Box::new(diesel::dsl::not(condition))),
                None => all.push(Box::new(metrics::id.eq_any(Vec::<uuid::Uuid>::new()))),
            }
        }
        all.into_iter().reduce(|a, b| Box::new(a.and(b)))
    }
}

/// `condition IS NOT NULL AND condition`: false, not NULL, for a column without a value, so that `not` means what it says.
fn known<E>(condition: E) -> impl BoxableExpression<metrics::table, Pg, SqlType = Bool>
where
    E: Expression<SqlType = diesel::sql_types::Nullable<Bool>> + Clone,
    diesel::dsl::And<diesel::dsl::IsNotNull<E>, diesel::dsl::AssumeNotNull<E>>:
        BoxableExpression<metrics::table, Pg, SqlType = Bool>,
    E: NullableExpressionMethods + ExpressionMethods,
{
    condition.clone().is_not_null().and(condition.assume_not_null())
}

/// The names of values, as the database has them.
pub(super) fn names<T: Copy>(values: &[T], name: impl Fn(T) -> &'static str) -> Vec<&'static str> {
    values.iter().map(|value| name(*value)).collect()
}
