//! Enums that are stored as text, and checks on text that comes from outside.

use std::fmt::Display;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Code, Problem};

/// Levels of lists and objects that a value of any shape may have. Exports write it up to six levels down in an entry, and imports read
/// 64 levels of YAML.
pub(crate) const MAX_LEVELS: usize = 50;

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

    /// Content of at most `max` bytes as JSON. `what` begins the sentence: "The definition takes".
    pub fn json(&mut self, field: &str, what: &str, content: &impl Serialize, max: usize) {
        match serde_json::to_string(content) {
            Ok(json) if json.len() > max => {
                self.add(field, Code::TooLong, format!("{what} {} bytes as JSON; at most {max} are allowed", json.len()));
            }
            // PostgreSQL cannot store it. Behind another backslash it is text.
            Ok(json) if json.contains("\\u0000") && json.replace("\\\\", "").contains("\\u0000") => {
                self.add(field, Code::Invalid, "Must not contain the NUL character")
            }
            Ok(_) => {}
            Err(error) => self.add(field, Code::Invalid, format!("Cannot be written as JSON: {error}")),
        }
    }

    /// A value of any shape, nested no deeper than imports read. `what` begins the sentence: "The example is".
    pub fn levels(&mut self, field: &str, what: impl Display, value: &Value) {
        let levels = levels(value);
        if levels > MAX_LEVELS {
            self.add(field, Code::TooMany, format!("{what} nested {levels} levels deep; at most {MAX_LEVELS} are allowed"));
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

fn levels(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(levels).max().unwrap_or(0),
        _ => 0,
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
    fn levels_are_lists_and_objects() {
        for (json, wanted) in [("1", 0), ("[]", 1), (r#"{"a": 1, "b": {}}"#, 2), (r#"[[1], {"a": [[]]}, 2]"#, 4)] {
            assert_eq!(levels(&serde_json::from_str(json).unwrap()), wanted, "{json}");
        }
    }

    #[test]
    fn content_has_no_nul_and_may_speak_of_it() {
        for (text, codes) in [
            ("a\0", &[Code::Invalid][..]),
            ("\\\0", &[Code::Invalid]),
            ("\\u0000", &[]),
            ("\"\\\\u0000", &[]),
            ("four", &[Code::TooLong]),
        ] {
            let mut problems = Problems::default();
            problems.json("extra", "It takes", &text, if text == "four" { 5 } else { 20 });
            assert_eq!(problems.into_vec().into_iter().map(|problem| problem.code).collect::<Vec<_>>(), codes, "{text:?}");
        }
    }

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
