//! Takes typed fields out of an object of a file. What is taken wrongly is an issue; what is not taken at all is kept.
//!
//! An empty string, list or object, and null, are all the same as an absent field: templates are full of them.

use std::collections::HashSet;

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime};
use serde_json::Value as Json;

use super::super::Severity;
use super::super::entry::{DomainLabel, codes, raw};
use super::super::value::{Map, Value};
use crate::extra::Extra;

/// What reading an entry leaves behind besides its content.
#[derive(Debug, Default)]
pub struct Report {
    pub issues: Vec<FieldIssue>,
    /// Fields nobody asked for, under dotted names.
    pub extra: serde_json::Map<String, Json>,
    /// Fields of an object `extra`, under their own names.
    pub given: serde_json::Map<String, Json>,
    /// Fields whose value could not be taken, by the first of their names. The checks would call them missing.
    pub refused: HashSet<String>,
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
    /// The same with the first of each field's names, as the checks call it.
    first_prefix: String,
    map: Map,
    report: &'a mut Report,
}

impl<'a> Fields<'a> {
    pub fn new(map: Map, report: &'a mut Report) -> Self {
        Self { prefix: String::new(), first_prefix: String::new(), map, report }
    }

    /// One line of text, without the spaces around it. Each field may have several names: the first one present counts.
    pub fn line(&mut self, names: &[&str]) -> Option<String> {
        self.text(names).map(|text| text.trim().to_owned())
    }

    /// Text as it is written; numbers and truth values, too.
    pub fn text(&mut self, names: &[&str]) -> Option<String> {
        let (name, value) = self.take(names)?;
        let text = self.words(&name, &value);
        if text.is_none() {
            self.refuse(names, &name, "INVALID", "Must be text", &value);
        }
        text
    }

    /// The business domain: text, which is its key or name, or an object with its name.
    pub fn domain(&mut self) -> Option<DomainLabel> {
        const NAMES: &[&str] = &["business_domain", "domain"];
        let first = NAMES.iter().find_map(|name| self.map.get(*name).filter(|value| !value.is_empty()))?;
        if !matches!(first, Value::Object(_)) {
            return self.line(NAMES).map(DomainLabel::KeyOrName);
        }
        Some(DomainLabel::Name(self.section(NAMES, |fields| fields.line(&["name"])).unwrap_or_default()))
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
            let at = format!("{name}.{i}");
            match self.words(&at, &item) {
                Some(line) => lines.push(line.trim().to_owned()),
                None => self.wrong(&at, "INVALID", "Must be text", &item),
            }
        }
        lines.retain(|line| !line.is_empty());
        lines
    }

    /// A number, or text that is one.
    pub fn number(&mut self, names: &[&str]) -> Option<f64> {
        let (name, value) = self.take(names)?;
        let number = match &value {
            Value::Plain(plain) => plain.json.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        if number.is_none() {
            self.refuse(names, &name, "INVALID", "Must be a number", &value);
        }
        number
    }

    /// True or false, yes or no.
    pub fn flag(&mut self, names: &[&str]) -> Option<bool> {
        let (name, value) = self.take(names)?;
        let flag = match value.text().map(|text| text.trim().to_lowercase()).as_deref() {
            Some("true" | "yes" | "1") => Some(true),
            Some("false" | "no" | "0") => Some(false),
            _ => None,
        };
        if flag.is_none() {
            self.refuse(names, &name, "INVALID", "Must be true or false", &value);
        }
        flag
    }

    /// A day, or the day of a point in time, which is then kept as it is.
    pub fn day(&mut self, names: &[&str]) -> Option<NaiveDate> {
        let (name, value) = self.take(names)?;
        let text = value.text().unwrap_or_default();
        let (day, time) = match DateTime::parse_from_rfc3339(text.trim()) {
            Ok(at) => (Some(at.date_naive()), at.time()),
            Err(_) => (text.trim().parse::<NaiveDate>().ok(), NaiveTime::MIN),
        };
        let Some(day) = day else {
            self.refuse(names, &name, "INVALID", "Must be a day like 2026-03-31", &value);
            return None;
        };
        if !(1..=9999).contains(&day.year()) {
            self.refuse(names, &name, "OUT_OF_RANGE", "A date is between 0001-01-01 and 9999-12-31", &value);
            return None;
        }
        if time != NaiveTime::MIN {
            let message = format!("Only the day is taken, {day}; the time is kept among the extra fields");
            self.warn(&name, codes::CHANGED, &message, &value);
            self.keep(&name, value);
        }
        Some(day)
    }

    /// One of a few words. Upper case, spaces and dashes do not matter; an unknown word does.
    pub fn word<T: Copy>(&mut self, names: &[&str], words: &[(&str, T)]) -> Option<T> {
        let (name, value) = self.take(names)?;
        let word = value.text().map(|text| fold(&text));
        let found = word.and_then(|word| words.iter().find(|(text, _)| *text == word).map(|(_, value)| *value));
        if found.is_none() {
            let allowed: Vec<&str> = words.iter().map(|(text, _)| *text).collect();
            self.refuse(names, &name, "INVALID", &format!("Must be one of {}", allowed.join(", ")), &value);
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
        let mut inner = Fields {
            prefix: format!("{}{name}.", self.prefix),
            first_prefix: format!("{}{}.", self.first_prefix, names[0]),
            map,
            report: &mut *self.report,
        };
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
            let at = format!("{name}.{i}");
            let map = match item {
                Value::Object(map) => map,
                other if other.is_empty() => continue,
                other => {
                    let text = if short.is_empty() { None } else { self.words(&at, &other) };
                    let Some(text) = text else {
                        self.wrong(&at, "INVALID", "Must be an object with fields", &other);
                        continue;
                    };
                    Map::from([(short.to_owned(), Value::String(text))])
                }
            };
            // A flag says nothing by itself.
            let says_nothing = |value: &Value| match value {
                Value::Plain(plain) => plain.json.as_bool() == Some(false),
                other => other.is_empty(),
            };
            if map.values().all(says_nothing) {
                continue;
            }
            let mut inner = Fields {
                prefix: format!("{}{at}.", self.prefix),
                first_prefix: format!("{}{}.{}.", self.first_prefix, names[0], items.len()),
                map,
                report: &mut *self.report,
            };
            items.push(read(&mut inner));
            inner.finish();
        }
        items
    }

    /// An object as it is.
    pub fn object(&mut self, names: &[&str]) -> serde_json::Map<String, Json> {
        match self.take(names) {
            Some((name, value @ Value::Object(_))) => match self.json(&name, value) {
                Json::Object(map) => map,
                _ => serde_json::Map::new(),
            },
            Some((name, other)) => {
                self.wrong(&name, "INVALID", "Must be an object with fields", &other);
                serde_json::Map::new()
            }
            None => serde_json::Map::new(),
        }
    }

    /// Takes the object `extra`, in which exports have the extra fields: any name is free there. Anything else of this name is a
    /// field like others.
    pub fn extra(&mut self) {
        self.report.given = self.given();
    }

    /// What was not read, under its own names, for content that keeps such fields itself.
    pub fn rest(&mut self) -> Extra {
        let given = self.given();
        let rest = std::mem::take(&mut self.map).into_iter().filter(|(_, value)| !value.is_empty());
        let rest = rest.map(|(name, value)| {
            let json = self.json(&name, value);
            (name, json)
        });
        together(rest.collect(), given)
    }

    fn given(&mut self) -> serde_json::Map<String, Json> {
        match self.map.get("extra") {
            Some(Value::Object(_)) => self.object(&["extra"]),
            _ => serde_json::Map::new(),
        }
    }

    /// A value as it is.
    pub fn value(&mut self, names: &[&str]) -> Option<Json> {
        let (name, value) = self.take(names)?;
        Some(self.json(&name, value))
    }

    /// Keeps a value under a name of its own.
    pub fn keep(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        if !value.is_empty() {
            let value = self.json(name, value);
            self.report.extra.insert(format!("{}{name}", self.prefix), value);
        }
    }

    pub fn warn(&mut self, name: &str, code: &'static str, message: &str, value: &Value) {
        self.issue(Severity::Warning, name, code, message, value);
    }

    pub fn wrong(&mut self, name: &str, code: &'static str, message: &str, value: &Value) {
        self.issue(Severity::Error, name, code, message, value);
    }

    /// As [`Fields::wrong`], for a field that is then missing.
    fn refuse(&mut self, names: &[&str], name: &str, code: &'static str, message: &str, value: &Value) {
        self.wrong(name, code, message, value);
        self.report.refused.insert(format!("{}{}", self.first_prefix, names[0]));
    }

    /// What a text, number or truth value says as text.
    fn words(&mut self, name: &str, value: &Value) -> Option<String> {
        let text = value.text()?;
        if value.is_reworded() {
            self.warn(
                name,
                codes::CHANGED,
                &format!("A number in the place of text, read as {text:?}; quote it to keep its form"),
                value,
            );
        }
        Some(text)
    }

    /// A value as JSON, with a warning where that cannot say the same.
    fn json(&mut self, name: &str, value: Value) -> Json {
        let mut long = None;
        let json = value.into_json(&mut long);
        if let Some(long) = long {
            self.warn(name, codes::CHANGED, long.message, &Value::String(long.text));
        }
        json
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

    fn take(&mut self, names: &[&str]) -> Option<(String, Value)> {
        for name in names {
            if let Some((name, value)) = self.map.remove_entry(*name)
                && !value.is_empty()
            {
                return Some((name, value));
            }
        }
        None
    }
}

/// Extra fields from outside and inside of an object `extra`. Of two that have the same name, the inner one gets another.
pub fn together(mut extra: serde_json::Map<String, Json>, given: serde_json::Map<String, Json>) -> Extra {
    for (name, value) in given {
        let name = if extra.contains_key(&name) { format!("extra.{name}") } else { name };
        extra.insert(name, value);
    }
    Extra(extra)
}

/// `In Review`, `in-review` and `IN_REVIEW` are the same word.
pub fn fold(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c == '-' || c == '_').filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("_")
}
