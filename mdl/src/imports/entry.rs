//! What the parsers hand over: the entries of a file, each with its place, its content, and what is wrong with it.

use super::Severity;
use super::value::Value;
use crate::domains;
use crate::error::Problem;
use crate::metrics::{Definition, Semver};
use crate::objectives::{self, KeyResultContent};

/// One metric, domain or objective of a file.
#[derive(Debug)]
pub struct Entry {
    pub place: Place,
    /// `None` when nothing says what it is.
    pub kind: Option<Kind>,
    pub key: Option<String>,
    /// `None` when an issue keeps the entry out.
    pub draft: Option<Draft>,
    pub issues: Vec<Issue>,
}

/// Which part of the catalog an entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Metric,
    Domain,
    Objective,
}

impl Kind {
    /// As the audit log and events call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Metric => "metric",
            Kind::Domain => "business_domain",
            Kind::Objective => "objective",
        }
    }
}

/// The content of an entry, in the terms of the catalog.
#[derive(Debug)]
pub enum Draft {
    Metric(Box<MetricDraft>),
    Domain(DomainDraft),
    Objective(ObjectiveDraft),
}

/// How an entry says which business domain it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainLabel {
    /// `business_domain: DOMAIN-SALES`, or `business_domain: Sales`.
    KeyOrName(String),
    /// `business_domain: {name: COVID-19}`, which is no key, whatever it looks like.
    Name(String),
}

impl DomainLabel {
    pub fn text(&self) -> &str {
        match self {
            DomainLabel::KeyOrName(text) | DomainLabel::Name(text) => text,
        }
    }

    /// The field that has the text.
    pub fn field(&self) -> &'static str {
        match self {
            DomainLabel::KeyOrName(_) => "business_domain",
            DomainLabel::Name(_) => "business_domain.name",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct MetricDraft {
    pub key: String,
    pub domain: Option<DomainLabel>,
    /// Its `domain_id` is not yet set.
    pub definition: Definition,
    /// The version that the file gives it, and the field that does. A new metric starts with it, or with 1.0.0.
    pub version: Option<(&'static str, Semver)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DomainDraft {
    pub key: String,
    pub content: domains::Content,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ObjectiveDraft {
    pub key: String,
    pub domain: Option<DomainLabel>,
    /// Its `domain_id` is not yet set.
    pub content: objectives::Content,
    pub key_results: Vec<KeyResultDraft>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct KeyResultDraft {
    pub key: String,
    pub content: KeyResultContent,
    pub metric_keys: Vec<String>,
}

/// Where in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: Option<u64>,
    /// As in `metrics[3]`.
    pub path: Option<String>,
}

impl Place {
    pub fn line(line: u64) -> Self {
        Self { line: Some(line), path: None }
    }

    /// A field of the entry that is at this place.
    fn field(&self, field: &str) -> Self {
        let path = match &self.path {
            Some(path) if field.is_empty() => Some(path.clone()),
            Some(path) => Some(format!("{path}.{field}")),
            None => Some(field.to_owned()).filter(|field| !field.is_empty()),
        };
        Self { line: self.line, path }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.path, self.line) {
            (Some(path), Some(line)) => write!(f, "{path} (line {line})"),
            (Some(path), None) => f.write_str(path),
            (None, Some(line)) => write!(f, "line {line}"),
            (None, None) => f.write_str("the file"),
        }
    }
}

/// Something wrong with an entry or with the whole file.
#[derive(Debug, Clone, PartialEq)]
pub struct Issue {
    pub severity: Severity,
    pub place: Place,
    pub kind: Option<Kind>,
    pub key: Option<String>,
    /// Dotted, within the entry.
    pub field: Option<String>,
    pub code: &'static str,
    pub message: String,
    pub raw_value: Option<String>,
}

/// Codes of problems that only files have; [`crate::error::Code`] has those they share with other input.
pub mod codes {
    /// The same key twice in one file.
    pub const DUPLICATE: &str = "DUPLICATE";
    /// A field or column that the format does not know.
    pub const UNKNOWN_FIELD: &str = "UNKNOWN_FIELD";
    /// Nothing says whether an entry is a metric, a domain or an objective.
    pub const UNKNOWN_KIND: &str = "UNKNOWN_KIND";
    /// A domain was named that does not exist; it is made, or the name is kept.
    pub const UNKNOWN_DOMAIN: &str = "UNKNOWN_DOMAIN";
    /// The format could not be told from the name or the content.
    pub const UNKNOWN_FORMAT: &str = "UNKNOWN_FORMAT";
    pub const EMPTY_FILE: &str = "EMPTY_FILE";
    /// The file ends in the middle of something.
    pub const TRUNCATED: &str = "TRUNCATED";
    /// Not in the format's grammar.
    pub const SYNTAX: &str = "SYNTAX";
    /// Not UTF-8.
    pub const ENCODING: &str = "ENCODING";
    /// Damaged compression.
    pub const CORRUPT_GZIP: &str = "CORRUPT_GZIP";
    /// Decompression makes it longer than is believable.
    pub const INFLATE_RATIO: &str = "INFLATE_RATIO";
    /// Nested or repeated (YAML aliases) beyond what is read.
    pub const TOO_COMPLEX: &str = "TOO_COMPLEX";
    /// A value is taken otherwise than it is written.
    pub const CHANGED: &str = "CHANGED";
    /// The database refused it.
    pub const REFUSED: &str = "REFUSED";
    /// Stands for the problems that are not kept.
    pub const MORE: &str = "MORE";
    pub const TOO_LONG: &str = "TOO_LONG";
    pub const TOO_MANY: &str = "TOO_MANY";

    /// What docs/guide/imports.md has to explain.
    #[cfg(test)]
    pub const ALL: &[&str] = &[
        DUPLICATE,
        UNKNOWN_FIELD,
        UNKNOWN_KIND,
        UNKNOWN_DOMAIN,
        UNKNOWN_FORMAT,
        EMPTY_FILE,
        TRUNCATED,
        SYNTAX,
        ENCODING,
        CORRUPT_GZIP,
        INFLATE_RATIO,
        TOO_COMPLEX,
        CHANGED,
        REFUSED,
        MORE,
        TOO_LONG,
        TOO_MANY,
    ];
}

impl Issue {
    /// About the file as a whole, or a place in it that belongs to no entry.
    pub fn file(severity: Severity, place: Place, code: &'static str, message: impl Into<String>) -> Self {
        Self { severity, place, kind: None, key: None, field: None, code, message: message.into(), raw_value: None }
    }

    /// What keeps the whole file from being read.
    pub fn refusal(place: Place, code: &'static str, message: impl Into<String>) -> Box<Self> {
        Box::new(Self::file(Severity::Error, place, code, message))
    }
}

impl Entry {
    /// An entry that is no object, or not to be understood.
    pub fn unreadable(place: Place, code: &'static str, message: impl Into<String>, raw: Option<String>) -> Self {
        let issue = Issue { raw_value: raw, ..*Issue::refusal(place.clone(), code, message) };
        Self { place, kind: None, key: None, draft: None, issues: vec![issue] }
    }

    /// An issue with a field of this entry.
    pub fn issue(&self, severity: Severity, field: &str, code: &'static str, message: impl Into<String>) -> Issue {
        Issue {
            severity,
            place: self.place.field(field),
            kind: self.kind,
            key: self.key.clone(),
            field: Some(field.to_owned()).filter(|field| !field.is_empty()),
            code,
            message: message.into(),
            raw_value: None,
        }
    }

    /// An issue from the checks that all input goes through. `file_path` is the field's name in files.
    pub fn problem(&self, problem: &Problem, file_path: &str) -> Issue {
        Issue {
            place: self.place.field(file_path),
            ..self.issue(Severity::Error, &problem.field.join("."), problem.code.as_str(), &*problem.message)
        }
    }
}

/// A value as a person would recognise it in their file, cut to 200 characters.
pub fn raw(value: &Value) -> String {
    cut(&value.text().unwrap_or_else(|| value.clone().into_json(&mut None).to_string()))
}

/// The first 200 characters. NUL, which PostgreSQL does not store, is shown as its symbol.
pub fn cut(text: &str) -> String {
    text.chars().take(200).map(|c| if c == '\0' { '␀' } else { c }).collect()
}
