//! The top level of a JSON or YAML document: lists of metrics, domains and objectives, or one entry by itself.

use super::super::draft;
use super::super::entry::{Issue, Kind, Place, codes, raw};
use super::super::input::Halt;
use super::super::reader::Sink;
use super::super::value::{Map, Value};

/// Fields of a catalog that say nothing about its entries.
const KNOWN: &[&str] = &[
    "$schema",
    "catalog_version",
    "catalog_name",
    "last_updated",
    "owner_team",
    "contacts",
    "version",
    "name",
    "description",
    "metadata",
    "created_at",
    "updated_at",
];

/// The fields of a document's top level that are no lists of entries.
#[derive(Default)]
pub struct Catalog {
    rest: Map,
    has_lists: bool,
}

impl Catalog {
    /// What a list under this name holds. A domain by itself has a list of objectives too, but those are only keys.
    pub fn list(&mut self, name: &str) -> Option<Kind> {
        let kind = match name {
            "metrics" => Kind::Metric,
            "domains" | "business_domains" => Kind::Domain,
            "objectives" if self.rest.contains_key("id") || self.rest.contains_key("domain_id") => return None,
            "objectives" => Kind::Objective,
            _ => return None,
        };
        self.has_lists = true;
        Some(kind)
    }

    /// Keeps a field until the end tells what it is part of. `false` when it is there already.
    pub fn field(&mut self, name: String, value: Value) -> bool {
        self.rest.insert(name, value).is_none()
    }

    /// The end of the document that began on `line`.
    pub fn finish(mut self, line: u64, sink: &mut Sink) -> Result<(), Halt> {
        for (name, kind) in [
            ("metric", Kind::Metric),
            ("domain", Kind::Domain),
            ("business_domain", Kind::Domain),
            ("objective", Kind::Objective),
        ] {
            if matches!(self.rest.get(name), Some(Value::Object(_)))
                && let Some(value) = self.rest.remove(name)
            {
                self.has_lists = true;
                sink.entry(draft::entry(Some(kind), Place { line: Some(line), path: Some(name.to_owned()) }, value))?;
            }
        }
        if self.has_lists {
            for (name, value) in self.rest {
                if !KNOWN.contains(&name.as_str()) {
                    let place = Place { line: None, path: Some(name) };
                    sink.warn(place, codes::UNKNOWN_FIELD, "Not a part of a catalog; it is left out", Some(raw(&value)));
                }
            }
            return Ok(());
        }
        if draft::kind_of(&self.rest).is_some() {
            return sink.entry(draft::entry(None, Place::line(line), Value::Object(self.rest)));
        }
        let message = "Has neither metrics, domains nor objectives";
        Err(Issue::refusal(Place::line(line), codes::UNKNOWN_KIND, message).into())
    }
}
