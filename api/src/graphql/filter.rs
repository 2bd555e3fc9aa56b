//! Conditions that several lists share.

use async_graphql::{Enum, InputObject, InputType, Value};
use chrono::{DateTime, Utc};
use mdl::error::{Code, Error};
use mdl::metrics::filter::DateRange;

use super::imports::enums::ImportState;
use super::metrics::enums::{IndicatorKind, MetricStatus, MetricType, Tier};
use super::objectives::enums::ObjectiveStatus;
use super::queues::JobState;
use super::webhooks::enums::WebhookDeliveryState;

/// Is one of some values.
#[derive(Debug, InputObject)]
#[graphql(concrete(name = "StringFilter", params(String)))]
#[graphql(concrete(name = "TierFilter", params(Tier)))]
#[graphql(concrete(name = "IndicatorKindFilter", params(IndicatorKind)))]
#[graphql(concrete(name = "MetricTypeFilter", params(MetricType)))]
#[graphql(concrete(name = "MetricStatusFilter", params(MetricStatus)))]
#[graphql(concrete(name = "ObjectiveStatusFilter", params(ObjectiveStatus)))]
#[graphql(concrete(name = "ImportStateFilter", params(ImportState)))]
#[graphql(concrete(name = "JobStateFilter", params(JobState)))]
#[graphql(concrete(name = "WebhookDeliveryStateFilter", params(WebhookDeliveryState)))]
pub struct OneOf<T: InputType> {
    /// The values; none of them lets nothing through.
    pub r#in: Vec<T>,
}

/// Conditions on the business domain that something belongs to.
#[derive(Debug, Default, InputObject)]
#[graphql(name = "DomainReferenceFilter")]
pub struct IsDomain {
    /// Belongs to one of the domains with these keys.
    pub r#in: Option<Vec<String>>,
    /// `true`: belongs to no domain; `false`: belongs to some.
    pub is_null: Option<bool>,
}

/// A span of time.
#[derive(Debug, InputObject)]
pub struct DateTimeRange {
    /// At this moment or later.
    pub from: Option<DateTime<Utc>>,
    /// Before this moment.
    pub before: Option<DateTime<Utc>>,
}

impl From<DateTimeRange> for DateRange {
    fn from(range: DateTimeRange) -> Self {
        Self { from: range.from, before: range.before }
    }
}

/// Which way a list is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum OrderDirection {
    /// Smallest, earliest or first in the alphabet first.
    Asc,
    /// Greatest, latest or last in the alphabet first.
    Desc,
}

/// What the argument `field` was given has no text with the NUL character, which PostgreSQL cannot be asked for.
pub fn check_texts<T: InputType>(field: &str, given: &T) -> mdl::Result<()> {
    match place_of_nul(&given.to_value()) {
        Some(place) => Err(Error::invalid(&format!("{field}{place}"), Code::Invalid, "Must not contain the NUL character")),
        None => Ok(()),
    }
}

/// Where in a value: `.key.in.0`.
fn place_of_nul(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::List(values) => {
            values.iter().enumerate().find_map(|(i, value)| place_of_nul(value).map(|place| format!(".{i}{place}")))
        }
        Value::Object(fields) => {
            fields.iter().find_map(|(name, value)| place_of_nul(value).map(|place| format!(".{name}{place}")))
        }
        _ => None,
    }
}

/// The values of a condition as the library knows them.
pub fn converted<T: InputType + Into<U>, U>(condition: OneOf<T>) -> Vec<U> {
    condition.r#in.into_iter().map(Into::into).collect()
}
