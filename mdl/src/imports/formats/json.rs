//! JSON documents, read as a stream: each entry is handed over as soon as it has been read.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::super::draft;
use super::super::entry::{Issue, Kind, Place, codes};
use super::super::input::{Halt, Text};
use super::super::reader::Sink;
use super::super::value::Value;
use super::catalog::Catalog;
use super::strict::Strict;

/// Longest entry, in bytes: what is held in memory at once.
pub const MAX_ENTRY: u64 = 4 * 1024 * 1024;

/// Reads a document: an object with lists, a list of entries, or one entry.
pub fn read(mut text: Text, sink: &mut Sink) -> Result<(), Halt> {
    let position = Rc::new(Position { line: Cell::new(1), left: Cell::new(MAX_ENTRY) });
    let mut state = State { sink, position: position.clone(), halt: None };
    let mut json = serde_json::Deserializer::from_reader(Counted { text: &mut text, position });
    let result = Document(&mut state).deserialize(&mut json).and_then(|()| json.end());
    let halt = state.halt.take();
    drop(json);
    match (result, halt.or_else(|| text.halt())) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(halt)) => Err(halt),
        (Err(error), None) => Err(syntax(&error, error.line() as u64).into()),
    }
}

/// A syntax error of a document or line, as an issue.
pub fn syntax(error: &serde_json::Error, line: u64) -> Box<Issue> {
    if error.is_eof() {
        let message = format!("The file ends too early: {}", what(error, line));
        return Issue::refusal(Place::line(line), codes::TRUNCATED, message);
    }
    let code = if error.to_string().contains("recursion limit") { codes::TOO_COMPLEX } else { codes::SYNTAX };
    Issue::refusal(Place::line(line), code, format!("Cannot be read as JSON: {}", what(error, line)))
}

/// What is wrong, and where. Just behind a line's end there is no column.
pub fn what(error: &serde_json::Error, line: u64) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    match error.column() {
        0 => format!("{what}, line {line}"),
        column => format!("{what}, line {line} column {column}"),
    }
}

/// How far the parser has come, and how much longer the present entry may be.
struct Position {
    line: Cell<u64>,
    left: Cell<u64>,
}

/// Counts lines as the parser takes bytes, which it does one by one.
struct Counted<'a> {
    text: &'a mut Text,
    position: Rc<Position>,
}

impl Read for Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.text.fill_buf()?;
        let count = available.len().min(out.len());
        out[..count].copy_from_slice(&available[..count]);
        let lines = out[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
        self.text.consume(count);
        if lines > 0 {
            self.position.line.set(self.position.line.get() + lines);
        }
        match self.position.left.get().checked_sub(count as u64) {
            Some(left) => self.position.left.set(left),
            None => {
                let message = format!("An entry is longer than {MAX_ENTRY} bytes");
                return Err(self.text.refuse(Issue::refusal(Place::line(self.position.line.get()), codes::TOO_LONG, message)));
            }
        }
        Ok(count)
    }
}

struct State<'a> {
    sink: &'a mut Sink,
    position: Rc<Position>,
    halt: Option<Halt>,
}

impl State<'_> {
    /// A new entry, or a part that is none, begins here.
    fn begin(&self) -> u64 {
        self.position.left.set(MAX_ENTRY);
        self.position.line.get()
    }

    fn entry<E: de::Error>(&mut self, kind: Option<Kind>, place: Place, value: Value) -> Result<(), E> {
        let result = self.sink.entry(draft::entry(kind, place, value));
        self.keep(result)
    }

    fn keep<E: de::Error>(&mut self, result: Result<(), Halt>) -> Result<(), E> {
        result.map_err(|halt| {
            self.halt = Some(halt);
            E::custom("stopped")
        })
    }
}

struct Document<'a, 'b>(&'a mut State<'b>);

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a catalog, a list of entries or one entry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let state = self.0;
        let line = state.begin();
        let mut catalog = Catalog::default();
        while let Some(name) = map.next_key::<String>()? {
            match catalog.list(&name) {
                Some(kind) => map.next_value_seed(List { state: &mut *state, kind: Some(kind), name: &name })?,
                None => {
                    state.begin();
                    let Strict(value) = map.next_value()?;
                    if !catalog.field(name.clone(), value) {
                        return Err(de::Error::custom(format!("the field {name:?} appears twice")));
                    }
                }
            }
        }
        let result = catalog.finish(line, state.sink);
        state.keep(result)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        List { state: self.0, kind: None, name: "" }.visit_seq(seq)
    }
}

/// The entries of one list.
struct List<'a, 'b> {
    state: &'a mut State<'b>,
    kind: Option<Kind>,
    name: &'a str,
}

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", self.name)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0;
        self.state.begin();
        while let Some((line, value)) = seq.next_element_seed(Element(self.state))? {
            let place = Place { line: Some(line), path: Some(format!("{}[{index}]", self.name)) };
            self.state.entry(self.kind, place, value)?;
            self.state.begin();
            index += 1;
        }
        Ok(())
    }
}

/// One value, and the line that it begins on.
struct Element<'a, 'b>(&'a State<'b>);

impl<'de> DeserializeSeed<'de> for Element<'_, '_> {
    type Value = (u64, Value);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(u64, Value), D::Error> {
        let line = self.0.begin();
        let Strict(value) = de::Deserialize::deserialize(deserializer)?;
        Ok((line, value))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{parse, parse_bytes};
    use super::*;
    use crate::imports::entry::Draft;

    #[test]
    fn entries_have_their_line_and_path() {
        let entries = parse("x.json", "{\"catalog_version\": 1, \"domains\": [],\n\"metrics\": [\n{\"metric_id\": \"A\", \"name\": \"a\"},\n\n {\"metric_id\": \"\", \"definition\": {\"expected_direction\": \"up\"}}]}").unwrap();
        assert_eq!(entries[0].place, Place { line: Some(3), path: Some("metrics[0]".to_owned()) });
        assert!(matches!(&entries[0].draft, Some(Draft::Metric(metric)) if metric.key == "A"));
        let issues: Vec<_> =
            entries[1].issues.iter().map(|issue| (issue.place.to_string(), issue.code, issue.raw_value.as_deref())).collect();
        assert_eq!(
            issues,
            [
                ("metrics[1].definition.expected_direction (line 5)".to_owned(), "INVALID", Some("up")),
                ("metrics[1].metric_id (line 5)".to_owned(), "REQUIRED", None),
                ("metrics[1].name (line 5)".to_owned(), "REQUIRED", None),
            ]
        );
    }

    #[test]
    fn a_list_or_one_entry_alone_is_a_catalog_too() {
        assert_eq!(
            parse("x.json", "[{\"metric_id\": \"A\", \"name\": \"a\"}, {\"id\": \"D\", \"name\": \"d\"}]").unwrap().len(),
            2
        );
        let domain = parse("x.json", "{\"id\": \"D\", \"name\": \"d\", \"objectives\": [\"O-1\"]}").unwrap();
        assert!(matches!(&domain[0].draft, Some(Draft::Domain(domain)) if domain.content.objective_keys == ["O-1"]));
        assert_eq!(parse("x.json", "{\"metric\": {\"metric_id\": \"A\", \"name\": \"a\"}}").unwrap()[0].kind, Some(Kind::Metric));
    }

    #[test]
    fn unknown_fields_of_the_catalog_are_warned_of() {
        let chunks = parse_bytes("x.json", b"{\"metrics\": [], \"catalog_name\": \"x\", \"measures\": 3}").unwrap();
        assert_eq!(chunks[0].warnings.len(), 1);
        assert_eq!(chunks[0].warnings[0].place.path.as_deref(), Some("measures"));
    }

    #[test]
    fn broken_documents_are_refused_with_the_place() {
        let refused =
            |text: &str| parse("x.json", text).map(|entries| entries.len()).map_err(|issue| (issue.code, issue.place.line));
        assert_eq!(refused("{\"metrics\": [\n{\"metric_id\": \"A\""), Err((codes::TRUNCATED, Some(2))));
        assert_eq!(refused("{\"metrics\": [\n{\"metric_id\": \"A\",, }]}"), Err((codes::SYNTAX, Some(2))));
        assert_eq!(refused("{\"metrics\": []} x"), Err((codes::SYNTAX, Some(1))));
        assert_eq!(refused("{\"metrics\": [{\"metric_id\": \"A\", \"metric_id\": \"B\"}]}"), Err((codes::SYNTAX, Some(1))));
        assert_eq!(refused("{\"metrics\": {}}"), Err((codes::SYNTAX, Some(1))));
        assert_eq!(refused(&format!("{{\"metrics\": [{}", "[".repeat(500))), Err((codes::TOO_COMPLEX, Some(1))));
        assert_eq!(refused("{\"hello\": 1}"), Err((codes::UNKNOWN_KIND, Some(1))));
        assert_eq!(refused(&format!("[\"{}\"]", "x".repeat(5 << 20))), Err((codes::TOO_LONG, Some(1))));
    }
}
