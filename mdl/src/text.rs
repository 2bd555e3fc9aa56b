//! Enums that are stored as text, and checks on text that comes from outside.

use crate::error::{Code, Problem};

/// Gives an enum its stored names: `as_str`, `parse`, `ALL`, and the Diesel conversions from and to `Text`.
macro_rules! text_enum {
    ($name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl diesel::deserialize::FromSql<diesel::sql_types::Text, diesel::pg::Pg> for $name {
            fn from_sql(value: diesel::pg::PgValue<'_>) -> diesel::deserialize::Result<Self> {
                let text = std::str::from_utf8(value.as_bytes())?;
                Self::parse(text).ok_or_else(|| format!("unknown {}: {text:?}", stringify!($name)).into())
            }
        }

        impl diesel::serialize::ToSql<diesel::sql_types::Text, diesel::pg::Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut diesel::serialize::Output<'b, '_, diesel::pg::Pg>) -> diesel::serialize::Result {
                <str as diesel::serialize::ToSql<diesel::sql_types::Text, diesel::pg::Pg>>::to_sql(self.as_str(), out)
            }
        }

        $crate::text::text_enum!(@expression $name, diesel::sql_types::Text);
        $crate::text::text_enum!(@expression $name, diesel::sql_types::Nullable<diesel::sql_types::Text>);

        impl diesel::serialize::ToSql<diesel::sql_types::Nullable<diesel::sql_types::Text>, diesel::pg::Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut diesel::serialize::Output<'b, '_, diesel::pg::Pg>) -> diesel::serialize::Result {
                <Self as diesel::serialize::ToSql<diesel::sql_types::Text, diesel::pg::Pg>>::to_sql(self, out)
            }
        }

        impl diesel::Queryable<diesel::sql_types::Text, diesel::pg::Pg> for $name {
            type Row = Self;
            fn build(row: Self) -> diesel::deserialize::Result<Self> {
                Ok(row)
            }
        }
    };
    (@expression $name:ident, $sql_type:ty) => {
        impl diesel::expression::AsExpression<$sql_type> for $name {
            type Expression = diesel::internal::derives::as_expression::Bound<$sql_type, Self>;
            fn as_expression(self) -> Self::Expression {
                diesel::internal::derives::as_expression::Bound::new(self)
            }
        }

        impl<'expr> diesel::expression::AsExpression<$sql_type> for &'expr $name {
            type Expression = diesel::internal::derives::as_expression::Bound<$sql_type, Self>;
            fn as_expression(self) -> Self::Expression {
                diesel::internal::derives::as_expression::Bound::new(self)
            }
        }
    };
}
pub(crate) use text_enum;

/// Collects everything that is wrong with an input, so that the caller hears of it at once.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn add(&mut self, field: &str, code: Code, message: impl Into<String>) {
        self.0.push(Problem::new(field, code, message));
    }

    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// A name or key: not blank, at most `max` characters, no control characters.
    pub fn line(&mut self, field: &str, text: &str, max: usize) {
        if self.required(field, text) {
            self.optional_line(field, text, max);
        }
    }

    /// Not blank. Returns whether it is so.
    pub fn required(&mut self, field: &str, text: &str) -> bool {
        let blank = text.trim().is_empty();
        if blank {
            self.add(field, Code::Required, "Must not be blank");
        }
        !blank
    }

    /// As [`Problems::line`], but may be blank.
    pub fn optional_line(&mut self, field: &str, text: &str, max: usize) {
        self.length(field, text, max);
        if text.chars().any(char::is_control) {
            self.add(field, Code::Invalid, "Must be one line without control characters");
        }
    }

    /// Text of several lines, at most `max` characters. PostgreSQL cannot store the NUL character.
    pub fn text(&mut self, field: &str, text: &str, max: usize) {
        self.length(field, text, max);
        if text.contains('\0') {
            self.add(field, Code::Invalid, "Must not contain the NUL character");
        }
    }

    pub fn count(&mut self, field: &str, count: usize, max: usize) {
        if count > max {
            self.add(field, Code::TooMany, format!("Has {count} entries; at most {max} are allowed"));
        }
    }

    fn length(&mut self, field: &str, text: &str, max: usize) {
        // Bytes first: counting characters is only needed for what might be too long.
        if text.len() > max && text.chars().count() > max {
            self.add(field, Code::TooLong, format!("Is {} characters long; at most {max} are allowed", text.chars().count()));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_vec(self) -> Vec<Problem> {
        self.0
    }

    /// `Err` with all problems, if there are any.
    pub fn check(self) -> crate::Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(crate::Error::Invalid(self.0)) }
    }
}

/// Stores a serde type as `jsonb`.
macro_rules! jsonb {
    ($name:ty) => {
        impl diesel::deserialize::FromSql<diesel::sql_types::Jsonb, diesel::pg::Pg> for $name {
            fn from_sql(value: diesel::pg::PgValue<'_>) -> diesel::deserialize::Result<Self> {
                // The binary form of jsonb is a version byte, 1, and the text.
                match value.as_bytes().split_first() {
                    Some((1, json)) => Ok(serde_json::from_slice(json)?),
                    _ => Err("unsupported jsonb encoding".into()),
                }
            }
        }

        impl diesel::serialize::ToSql<diesel::sql_types::Jsonb, diesel::pg::Pg> for $name {
            fn to_sql<'b>(&'b self, out: &mut diesel::serialize::Output<'b, '_, diesel::pg::Pg>) -> diesel::serialize::Result {
                std::io::Write::write_all(out, &[1])?;
                serde_json::to_writer(out, self)?;
                Ok(diesel::serialize::IsNull::No)
            }
        }
    };
}
pub(crate) use jsonb;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::definition::check_key;

    #[test]
    fn what_is_blank_has_one_problem() {
        for blank in ["", " ", "\t", "\n "] {
            let mut problems = Problems::default();
            problems.line("name", blank, 10);
            check_key(&mut problems, "key", blank);
            let codes: Vec<_> = problems.into_vec().into_iter().map(|problem| problem.code).collect();
            assert_eq!(codes, [Code::Required, Code::Required], "{blank:?}");
        }
    }
}
