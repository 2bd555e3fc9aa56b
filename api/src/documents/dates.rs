//! Whether dates are dates. async-graphql looks when a field is resolved: by then another field of the mutation has written.

use async_graphql::registry::{MetaType, MetaTypeName, Registry};
use async_graphql_value::ConstValue;
use chrono::{DateTime, Datelike, NaiveDate, Utc};

/// Of others PostgreSQL and JavaScript know nothing.
const YEARS: std::ops::RangeInclusive<i32> = 1..=9999;

/// Characters of a value that are told.
const SHOWN: usize = 100;

/// What is wrong with a value of a scalar that is a date, if it is one.
fn wrong_date(scalar: &str, value: &ConstValue) -> Option<&'static str> {
    let year = |text: &str| match scalar {
        "DateTime" => text.parse::<DateTime<Utc>>().ok().map(|at| at.year()),
        _ => NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|day| day.year()),
    };
    let expected = match scalar {
        "DateTime" => "is not a time of the years 1 to 9999 such as 2026-01-31T12:00:00Z",
        "NaiveDate" => "is not a day of the years 1 to 9999 such as 2026-01-31",
        _ => return None,
    };
    let right = matches!(value, ConstValue::String(text) if year(text).is_some_and(|year| YEARS.contains(&year)));
    (!right).then_some(expected)
}

/// Says which date in a value of this type, which is spelled as in the registry, is none. `name` is that of the argument or the
/// variable.
pub fn wrong(registry: &Registry, name: &str, ty: &str, value: &ConstValue) -> Option<String> {
    if *value == ConstValue::Null {
        return None;
    }
    match MetaTypeName::create(ty) {
        MetaTypeName::NonNull(ty) => wrong(registry, name, ty, value),
        MetaTypeName::List(entry) => match value {
            ConstValue::List(values) => {
                values.iter().enumerate().find_map(|(place, value)| wrong(registry, &format!("{name}.{place}"), entry, value))
            }
            value => wrong(registry, name, entry, value),
        },
        MetaTypeName::Named(ty) => match (registry.types.get(ty)?, value) {
            (MetaType::Scalar { .. }, value) => {
                let why = wrong_date(ty, value)?;
                let shown: String = value.to_string().chars().take(SHOWN).collect();
                Some(format!("\"{name}\": {shown} {why}"))
            }
            (MetaType::InputObject { input_fields, .. }, ConstValue::Object(values)) => values
                .iter()
                .find_map(|(key, value)| wrong(registry, &format!("{name}.{key}"), &input_fields.get(key.as_str())?.ty, value)),
            _ => None,
        },
    }
}

/// Whether a value of this scalar is surely none that is wrong.
pub fn is_right(scalar: &str, value: &ConstValue) -> bool {
    wrong_date(scalar, value).is_none()
}
