//! A value of a file. As JSON has them, but a number or truth value also has the text that it is written as, where the parser tells:
//! `version: 1.10` is text, and only the field that it is read into knows.

use std::collections::BTreeMap;

use serde_json::{Number, Value as Json};

/// From here on, some whole numbers cannot be told from their neighbours as floats, and fit into no integer.
const LONG: f64 = 9_223_372_036_854_775_808.0;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Plain(Plain),
    String(String),
    Array(Vec<Value>),
    Object(Map),
}

pub type Map = BTreeMap<String, Value>;

/// A number or a truth value.
#[derive(Debug, Clone, PartialEq)]
pub struct Plain {
    pub json: Json,
    /// As the file writes it, where the parser tells.
    pub text: Option<String>,
}

/// What became of a number that is too long for JSON's.
#[derive(Debug, PartialEq)]
pub struct Long {
    /// As it is written, or as much of it as is known.
    pub text: String,
    pub message: &'static str,
}

impl Value {
    /// A number or truth value of which only the meaning is known.
    pub fn plain(json: impl Into<Json>) -> Self {
        Value::Plain(Plain { json: json.into(), text: None })
    }

    /// A number or truth value that is written so.
    pub fn written(json: impl Into<Json>, text: impl Into<String>) -> Self {
        Value::Plain(Plain { json: json.into(), text: Some(text.into()) })
    }

    /// Text as it is; numbers and truth values as they are written or, where that is not known, in their usual form.
    pub fn text(&self) -> Option<String> {
        match self {
            Value::String(text) | Value::Plain(Plain { text: Some(text), .. }) => Some(text.clone()),
            Value::Plain(plain) => Some(plain.json.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Whether it may be written otherwise than [`Value::text`] says: `1.10` and `1e3` of JSON come as 1.1 and 1000.0.
    pub fn is_reworded(&self) -> bool {
        matches!(self, Value::Plain(Plain { json: Json::Number(number), text: None }) if number.is_f64())
    }

    /// Whether it says no more than an absent field.
    pub fn is_empty(&self) -> bool {
        match self {
            Value::Null => true,
            Value::String(text) => text.trim().is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Plain(_) => false,
        }
    }

    /// As JSON. Tells of the first number in it that JSON's numbers are too short for.
    pub fn into_json(self, long: &mut Option<Long>) -> Json {
        match self {
            Value::Null => Json::Null,
            Value::Plain(plain) => plain.into_json(long),
            Value::String(text) => Json::String(text),
            Value::Array(items) => Json::Array(items.into_iter().map(|item| item.into_json(long)).collect()),
            Value::Object(map) => Json::Object(map.into_iter().map(|(name, value)| (name, value.into_json(long))).collect()),
        }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::String(text)
    }
}

impl Plain {
    fn into_json(self, long: &mut Option<Long>) -> Json {
        let Some(float) = self.json.as_f64().filter(|_| self.json.is_f64()) else { return self.json };
        match self.text {
            Some(text) if is_whole(&text) => {
                let message = "A whole number of more digits than numbers keep; it is kept as text";
                long.get_or_insert(Long { text: text.clone(), message });
                Json::String(text)
            }
            None if float.abs() >= LONG => {
                let message =
                    "A number of this length is kept as the nearest one of 17 digits; quote it to keep all of its digits";
                long.get_or_insert(Long { text: self.json.to_string(), message });
                self.json
            }
            // PostgreSQL gives such floats back as integers: what is stored is to equal what was meant.
            _ if float.fract() == 0.0 && (1e16..9.2e18).contains(&float.abs()) => Json::Number(Number::from(float as i64)),
            _ => self.json,
        }
    }
}

/// Whether this is a whole number in plain digits.
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_have_the_text_that_they_are_written_as() {
        assert_eq!(Value::written(1.1, "1.10").text().as_deref(), Some("1.10"));
        assert_eq!(Value::plain(1.1).text().as_deref(), Some("1.1"));
        assert!(Value::plain(1.1).is_reworded() && !Value::written(1.1, "1.10").is_reworded() && !Value::plain(1).is_reworded());
        assert_eq!(Value::Array(Vec::new()).text(), None);
    }

    #[test]
    fn numbers_that_are_too_long_are_told_of() {
        let kept = |value: Value| {
            let mut long = None;
            let json = Value::Array(vec![value]).into_json(&mut long)[0].take();
            (json, long.map(|long| long.text))
        };
        let digits = "123456789012345678901234567890";
        assert_eq!(kept(Value::written(1.2345678901234568e29, digits)), (json!(digits), Some(digits.to_owned())));
        assert_eq!(kept(Value::plain(1e29)), (json!(1e29), Some(json!(1e29).to_string())));
        assert_eq!(kept(Value::written(1e29, "1e29")), (json!(1e29), None));
        assert_eq!(kept(Value::written(1e17, "1e17")), (json!(100_000_000_000_000_000_i64), None));
        assert_eq!(kept(Value::plain(u64::MAX)), (json!(u64::MAX), None));
        assert_eq!(kept(Value::written(1.5, "1.50")), (json!(1.5), None));
    }
}
