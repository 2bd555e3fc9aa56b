//! Takes typed fields out of an object of a file. What is taken wrongly is an issue; what is not taken at all is kept.
//!
//! An empty string, list or object, and null, are all the same as an absent field: templates are full of them.

use serde_json::{Map, Number, Value};

use super::super::Severity;
use super::super::entry::raw;

/// What reading an entry leaves behind besides its content.
#[derive(Debug, Default)]
pub struct Report {
    pub issues: Vec<FieldIssue>,
    /// Fields nobody asked for, under dotted names.
    pub extra: Map<String, Value>,
}

/// Something wrong with a field of an entry.
#[derive(Debug)]
pub struct FieldIssue {
    pub severity: Severity,
    /// Dotted, as the file names it.
    pub field: String,
    pub code: &'static str,
    pub message: String,
    pub raw_value: Option<String>,
}

/// The fields of an object that are still to be read.
pub struct Fields<'a> {
    /// Dotted name of the object with a dot behind it; empty for the entry itself.
    prefix: String,
    map: Map<String, Value>,
    report: &'a mut Report,
}

impl<'a> Fields<'a> {
    pub fn new(map: Map<String, Value>, report: &'a mut Report) -> Self {
        Self { prefix: String::new(), map, report }
    }

    /// One line of text, without the spaces around it. Each field may have several names: the first one present counts.
    pub fn line(&mut self, names: &[&str]) -> Option<String> {
        self.text(names).map(|text| text.trim().to_owned())
    }

    /// Text as it is written; numbers and truth values in their usual form.
    pub fn text(&mut self, names: &[&str]) -> Option<String> {
        let (name, value) = self.take(names)?;
        match scalar(&value) {
            Some(text) => Some(text),
            None => {
                self.wrong(&name, "INVALID", "Must be text", &value);
                None
            }
        }
    }

    /// A list of lines; one line alone is a list of one.
    pub fn lines(&mut self, names: &[&str]) -> Vec<String> {
        let Some((name, value)) = self.take(names) else { return Vec::new() };
        let items = match value {
            Value::Array(items) => items,
            other => vec![other],
        };
        let mut lines = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            match scalar(&item) {
                Some(line) => lines.push(line.trim().to_owned()),
                None => self.wrong(&format!("{name}.{i}"), "INVALID", "Must be text", &item),
            }
        }
        lines.retain(|line| !line.is_empty());
        lines
    }

    /// A number, or text that is one.
    pub fn number(&mut self, names: &[&str]) -> Option<f64> {
        let (name, value) = self.take(names)?;
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        if number.is_none() {
            self.wrong(&name, "INVALID", "Must be a number", &value);
        }
        number
    }

    /// True or false, yes or no.
    pub fn flag(&mut self, names: &[&str]) -> Option<bool> {
        let (name, value) = self.take(names)?;
        let flag = match scalar(&value).map(|text| text.trim().to_lowercase()).as_deref() {
            Some("true" | "yes" | "1") => Some(true),
            Some("false" | "no" | "0") => Some(false),
            _ => None,
        };
        if flag.is_none() {
            self.wrong(&name, "INVALID", "Must be true or false", &value);
        }
        flag
    }

    /// One of a few words. Upper case, spaces and dashes do not matter; an unknown word does.
    pub fn word<T: Copy>(&mut self, names: &[&str], words: &[(&str, T)]) -> Option<T> {
        let (name, value) = self.take(names)?;
        let word = scalar(&value).map(|text| fold(&text));
        let found = word.and_then(|word| words.iter().find(|(text, _)| *text == word).map(|(_, value)| *value));
        if found.is_none() {
            let allowed: Vec<&str> = words.iter().map(|(text, _)| *text).collect();
            self.wrong(&name, "INVALID", &format!("Must be one of {}", allowed.join(", ")), &value);
        }
        found
    }

    /// The fields of an object inside. `read` is also called when there is none.
    pub fn section<T>(&mut self, names: &[&str], read: impl FnOnce(&mut Fields<'_>) -> T) -> T {
        let (name, map) = match self.take(names) {
            Some((name, Value::Object(map))) => (name, map),
            Some((name, other)) => {
                self.wrong(&name, "INVALID", "Must be an object with fields", &other);
                (name, Map::new())
            }
            None => (names[0].to_owned(), Map::new()),
        };
        let mut inner = Fields { prefix: format!("{}{name}.", self.prefix), map, report: &mut *self.report };
        let read = read(&mut inner);
        inner.finish();
        read
    }

    /// A list of objects. Plain text in their place is the field `short`; an object of nothing but empty fields is left out.
    pub fn items<T>(&mut self, names: &[&str], short: &str, mut read: impl FnMut(&mut Fields<'_>) -> T) -> Vec<T> {
        let Some((name, value)) = self.take(names) else { return Vec::new() };
        let list = match value {
            Value::Array(list) => list,
            other => vec![other],
        };
        let mut items = Vec::with_capacity(list.len());
        for (i, item) in list.into_iter().enumerate() {
            let map = match item {
                Value::Object(map) => map,
                other if is_empty(&other) => continue,
                other => match scalar(&other) {
                    Some(text) if !short.is_empty() => Map::from_iter([(short.to_owned(), Value::String(text))]),
                    _ => {
                        self.wrong(&format!("{name}.{i}"), "INVALID", "Must be an object with fields", &other);
                        continue;
                    }
                },
            };
            // A flag says nothing by itself.
            if map.values().all(|value| is_empty(value) || matches!(value, Value::Bool(false))) {
                continue;
            }
            let mut inner = Fields { prefix: format!("{}{name}.{i}.", self.prefix), map, report: &mut *self.report };
            items.push(read(&mut inner));
            inner.finish();
        }
        items
    }

    /// An object as it is.
    pub fn object(&mut self, names: &[&str]) -> Map<String, Value> {
        match self.take(names) {
            Some((_, Value::Object(map))) => map.into_iter().map(|(name, value)| (name, canonical(value))).collect(),
            Some((name, other)) => {
                self.wrong(&name, "INVALID", "Must be an object with fields", &other);
                Map::new()
            }
            None => Map::new(),
        }
    }

    /// A value as it is.
    pub fn value(&mut self, names: &[&str]) -> Option<Value> {
        self.take(names).map(|(_, value)| canonical(value))
    }

    /// Keeps a value under a name of its own.
    pub fn keep(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        if !is_empty(&value) {
            self.report.extra.insert(format!("{}{name}", self.prefix), canonical(value));
        }
    }

    pub fn warn(&mut self, name: &str, code: &'static str, message: &str, value: &Value) {
        self.issue(Severity::Warning, name, code, message, value);
    }

    pub fn wrong(&mut self, name: &str, code: &'static str, message: &str, value: &Value) {
        self.issue(Severity::Error, name, code, message, value);
    }

    fn issue(&mut self, severity: Severity, name: &str, code: &'static str, message: &str, value: &Value) {
        self.report.issues.push(FieldIssue {
            severity,
            field: format!("{}{name}", self.prefix),
            code,
            message: message.to_owned(),
            raw_value: Some(raw(value)),
        });
    }

    /// Keeps what was not read.
    pub fn finish(&mut self) {
        for (name, value) in std::mem::take(&mut self.map) {
            self.keep(&name, value);
        }
    }

    /// What was not read, under its own names, for content that keeps such fields itself.
    pub fn rest(&mut self) -> Map<String, Value> {
        let rest = std::mem::take(&mut self.map).into_iter();
        rest.filter(|(_, value)| !is_empty(value)).map(|(name, value)| (name, canonical(value))).collect()
    }

    fn take(&mut self, names: &[&str]) -> Option<(String, Value)> {
        for name in names {
            if let Some((name, value)) = self.map.remove_entry(*name)
                && !is_empty(&value)
            {
                return Some((name, value));
            }
        }
        None
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// `In Review`, `in-review` and `IN_REVIEW` are the same word.
pub fn fold(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c == '-' || c == '_').filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("_")
}

/// Whole numbers that are written as floats and that PostgreSQL gives back as integers are made integers at once, so that
/// what is stored equals what was meant.
fn canonical(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && (1e16..9.2e18).contains(&float.abs()) => {
                Value::Number(Number::from(float as i64))
            }
            _ => Value::Number(number),
        },
        Value::Array(items) => Value::Array(items.into_iter().map(canonical).collect()),
        Value::Object(map) => Value::Object(map.into_iter().map(|(name, value)| (name, canonical(value))).collect()),
        other => other,
    }
}
