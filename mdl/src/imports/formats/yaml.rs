//! YAML documents, built entry by entry out of the parser's events, with bounds on nesting and on what aliases repeat.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::super::draft;
use super::super::entry::{Issue, Kind, Place, codes, cut};
use super::super::input::Halt;
use super::super::reader::Sink;
use super::super::value::{Map, Value};
use super::catalog::Catalog;

/// Deepest nesting of lists and mappings.
const MAX_DEPTH: usize = 64;
/// Values that all aliases of a file together may stand for, and that anchors may keep.
const MAX_REPEATED: usize = 100_000;

/// Reads all documents of a file.
pub fn read(text: &str, sink: &mut Sink) -> Result<(), Halt> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), kept: 0, repeated: 0 };
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(()),
            Event::DocumentStart(_) => {
                reader.anchors.clear();
                reader.kept = 0;
            }
            Event::MappingStart(..) => reader.catalog(line(&span), sink)?,
            Event::SequenceStart(..) => reader.list(None, "", sink)?,
            // A document of nothing but comments.
            Event::Scalar(text, ScalarStyle::Plain, ..) if text.is_empty() || text == "~" || text == "null" => {}
            Event::Scalar(text, ..) => {
                let issue = Issue::refusal(
                    place(&span),
                    codes::SYNTAX,
                    "Expected a catalog, a list of entries or one entry, found plain text",
                );
                return Err(Box::new(Issue { raw_value: Some(cut(&text)), ..*issue }).into());
            }
            Event::Nothing
            | Event::StreamStart
            | Event::DocumentEnd
            | Event::Alias(_)
            | Event::SequenceEnd
            | Event::MappingEnd => {}
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Values with an anchor, and how many values each is made of.
    anchors: HashMap<usize, (Value, usize)>,
    kept: usize,
    repeated: usize,
}

/// The key of a mapping.
enum Name {
    Of(String),
    /// `<<` without quotes: the value is a mapping whose fields this one gets.
    Merge,
}

impl Name {
    fn text(self) -> String {
        match self {
            Name::Of(text) => text,
            Name::Merge => "<<".to_owned(),
        }
    }
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Box<Issue>> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// The mapping at the top of a document.
    fn catalog(&mut self, line: u64, sink: &mut Sink) -> Result<(), Halt> {
        let mut catalog = Catalog::default();
        while let Some((name, at)) = self.key()? {
            let name = name.text();
            match catalog.list(&name) {
                Some(kind) => {
                    let (event, span) = self.next()?;
                    match event {
                        Event::SequenceStart(..) => self.list(Some(kind), &name, sink)?,
                        Event::Scalar(text, ScalarStyle::Plain, ..) if text.is_empty() || text == "~" || text == "null" => {}
                        _ => return Err(Issue::refusal(place(&span), codes::SYNTAX, format!("Expected a list of {name}")).into()),
                    }
                }
                None => {
                    let (value, _) = self.value(1)?;
                    if !catalog.field(name.clone(), value) {
                        return Err(twice(&name, &at).into());
                    }
                }
            }
        }
        catalog.finish(line, sink)
    }

    fn list(&mut self, kind: Option<Kind>, name: &str, sink: &mut Sink) -> Result<(), Halt> {
        for index in 0.. {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            let place = Place { line: Some(line(&span)), path: Some(format!("{name}[{index}]")) };
            let (value, _) = self.value_of(event, &span, 1)?;
            sink.entry(draft::entry(kind, place, value))?;
        }
        Ok(())
    }

    /// The next key of a mapping; `None` at its end.
    fn key(&mut self) -> Result<Option<(Name, Span)>, Box<Issue>> {
        let (event, span) = self.next()?;
        match event {
            Event::MappingEnd => Ok(None),
            Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<" => Ok(Some((Name::Merge, span))),
            Event::Scalar(text, ..) => Ok(Some((Name::Of(text.into_owned()), span))),
            Event::Alias(id) => match self.anchors.get(&id) {
                Some((Value::String(text), _)) => Ok(Some((Name::Of(text.clone()), span))),
                _ => Err(Issue::refusal(place(&span), codes::SYNTAX, "The name of a field must be text")),
            },
            _ => Err(Issue::refusal(place(&span), codes::SYNTAX, "The name of a field must be text")),
        }
    }

    fn value(&mut self, depth: usize) -> Result<(Value, usize), Box<Issue>> {
        let (event, span) = self.next()?;
        self.value_of(event, &span, depth)
    }

    /// The value that begins with this event, and how many values it is made of.
    fn value_of(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<(Value, usize), Box<Issue>> {
        if depth > MAX_DEPTH {
            return Err(Issue::refusal(place(span), codes::TOO_COMPLEX, format!("Nested deeper than {MAX_DEPTH} levels")));
        }
        let (value, size, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(text.into_owned(), style, tag.as_deref()), 1, anchor),
            Event::Alias(id) => return self.alias(id, span),
            Event::SequenceStart(anchor, _) => {
                let (mut items, mut size) = (Vec::new(), 1);
                loop {
                    let (event, span) = self.next()?;
                    if matches!(event, Event::SequenceEnd) {
                        break;
                    }
                    let (item, item_size) = self.value_of(event, &span, depth + 1)?;
                    items.push(item);
                    size += item_size;
                }
                (Value::Array(items), size, anchor)
            }
            Event::MappingStart(anchor, _) => {
                let (mut map, mut merged, mut size) = (Map::new(), Vec::new(), 1);
                while let Some((name, at)) = self.key()? {
                    let (value, value_size) = self.value(depth + 1)?;
                    size += value_size;
                    match name {
                        Name::Merge => merged.push(value),
                        Name::Of(name) if map.contains_key(&name) => return Err(twice(&name, &at)),
                        Name::Of(name) => {
                            map.insert(name, value);
                        }
                    }
                }
                merge(&mut map, merged);
                (Value::Object(map), size, anchor)
            }
            _ => return Err(Issue::refusal(place(span), codes::SYNTAX, "Expected a value")),
        };
        if anchor > 0 {
            self.kept += size;
            if self.kept > MAX_REPEATED {
                return Err(Issue::refusal(
                    place(span),
                    codes::TOO_COMPLEX,
                    format!("The anchors of the file hold more than {MAX_REPEATED} values"),
                ));
            }
            self.anchors.insert(anchor, (value.clone(), size));
        }
        Ok((value, size))
    }

    fn alias(&mut self, id: usize, span: &Span) -> Result<(Value, usize), Box<Issue>> {
        let Some((value, size)) = self.anchors.get(&id) else {
            return Err(Issue::refusal(place(span), codes::SYNTAX, "The alias stands for something that it is part of"));
        };
        self.repeated += size;
        if self.repeated > MAX_REPEATED {
            let message = format!("The aliases of the file stand for more than {MAX_REPEATED} values");
            return Err(Issue::refusal(place(span), codes::TOO_COMPLEX, message));
        }
        Ok((value.clone(), *size))
    }
}

/// `<<: *defaults` gives a mapping the fields that it does not have itself.
fn merge(map: &mut Map, merged: Vec<Value>) {
    for value in merged {
        match value {
            Value::Object(defaults) => {
                for (name, value) in defaults {
                    map.entry(name).or_insert(value);
                }
            }
            Value::Array(several) => merge(map, several),
            _ => {}
        }
    }
}

/// By YAML 1.2's core schema. Days and times stay text, as do infinity and not-a-number, which JSON has no numbers for. Numbers and
/// truth values keep the text that they are written as.
fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    if style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str") {
        return Value::String(text);
    }
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::written(true, text),
        "false" | "False" | "FALSE" => return Value::written(false, text),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(&text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Value::String(text);
    }
    let whole = match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(hex), _) => i64::from_str_radix(hex, 16).ok(),
        (_, Some(octal)) => i64::from_str_radix(octal, 8).ok(),
        _ => text.strip_prefix('+').unwrap_or(&text).parse::<i64>().ok(),
    };
    if let Some(whole) = whole {
        return Value::written(whole, text);
    }
    if let Ok(whole) = text.strip_prefix('+').unwrap_or(&text).parse::<u64>() {
        return Value::written(whole, text);
    }
    let numeric = digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    match text.parse::<f64>().ok().filter(|number| numeric && number.is_finite()) {
        Some(number) => Value::written(number, text),
        None => Value::String(text),
    }
}

fn twice(name: &str, at: &Span) -> Box<Issue> {
    Issue::refusal(place(at), codes::SYNTAX, format!("The field {name:?} appears twice"))
}

fn line(span: &Span) -> u64 {
    span.start.line() as u64
}

fn place(span: &Span) -> Place {
    Place::line(line(span))
}

fn syntax(error: &ScanError) -> Box<Issue> {
    let (line, column) = (error.marker().line() as u64, error.marker().col() + 1);
    let code = if error.info().contains("recursion") {
        codes::TOO_COMPLEX
    } else if error.info().contains("end of stream") || error.info().contains("EOF") {
        codes::TRUNCATED
    } else {
        codes::SYNTAX
    };
    Issue::refusal(Place::line(line), code, format!("Cannot be read as YAML: {}, line {line} column {column}", error.info()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::*;
    use crate::imports::entry::Draft;

    #[test]
    fn entries_have_their_line_and_values_their_types() {
        let text = "# c\ncatalog_version: 1\nmetrics:\n  - metric_id: A\n    name: 2026\n    pii: yes\n    definition: {unit: '7', example_calculation: {a: 0x1F, b: 1.50, c: 2026-01-01, d: ~, e: -3}}\n  - &b\n    metric_id: B\n    name: b\n---\n- objective_id: O\n  title: o\n";
        let entries = parse("x.yaml", text).unwrap();
        let lines: Vec<_> = entries.iter().map(|entry| entry.place.line).collect();
        assert_eq!(lines, [Some(4), Some(9), Some(12)]);
        let Some(Draft::Metric(metric)) = &entries[0].draft else { panic!("{:?}", entries[0].issues) };
        assert_eq!(metric.definition.summary.name, "2026");
        assert_eq!(metric.definition.summary.unit.as_deref(), Some("7"));
        assert_eq!(
            serde_json::Value::Object(metric.definition.details.calculation.example.clone()),
            serde_json::json!({"a": 31, "b": 1.5, "c": "2026-01-01", "d": null, "e": -3})
        );
        assert_eq!(metric.definition.details.extra.0["pii"], "yes");
    }

    #[test]
    fn text_is_what_is_written_and_numbers_what_it_means() {
        let text = "metrics:\n  - metric_id: A\n    name: 010\n    category: &v 1.10\n    description: 012\n    short_name: *v\n    synonyms: TRUE\n    tags: [0x10, 1e3, 010, .5]\n    governance: {version: *v}\n    targets_and_alerts: {target_value: 1.50}\n    cost: 1.50\n    big: 123456789012345678901234567890\n    large: 18446744073709551615\n";
        let entries = parse("x.yaml", text).unwrap();
        let Some(Draft::Metric(metric)) = &entries[0].draft else { panic!("{:?}", entries[0].issues) };
        let summary = &metric.definition.summary;
        assert_eq!(
            (summary.name.as_str(), summary.category.as_deref(), summary.description.as_str()),
            ("010", Some("1.10"), "012")
        );
        assert_eq!(summary.short_name.as_deref(), Some("1.10"));
        assert_eq!(
            (&summary.tags[..], &summary.synonyms[..]),
            (&["0x10", "1e3", "010", ".5"].map(str::to_owned)[..], &["TRUE".to_owned()][..])
        );
        assert_eq!(metric.version.unwrap().1.to_string(), "1.10.0");
        assert_eq!(metric.definition.details.targets.target_value, Some(1.5));
        assert_eq!(
            serde_json::Value::Object(metric.definition.details.extra.0.clone()),
            serde_json::json!({"cost": 1.5, "big": "123456789012345678901234567890", "large": 18_446_744_073_709_551_615_u64})
        );
        let found: Vec<_> = entries[0].issues.iter().map(|issue| (issue.code, issue.field.as_deref())).collect();
        assert_eq!(found, [(codes::CHANGED, Some("big"))]);
    }

    #[test]
    fn anchors_and_merges_work() {
        let text =
            "defaults: &d {category: KPI, tier: T1}\nmetrics:\n  - <<: *d\n    metric_id: A\n    name: a\n    tier: tier 2\n";
        let entries = parse("x.yaml", text).unwrap();
        let Some(Draft::Metric(metric)) = &entries[0].draft else { panic!("{:?}", entries[0].issues) };
        assert_eq!(metric.definition.summary.category.as_deref(), Some("KPI"));
        assert_eq!(metric.definition.summary.tier, Some(crate::metrics::definition::Tier::Tier2));
    }

    #[test]
    fn bombs_and_broken_files_are_refused_with_the_place() {
        let refused = |text: &str| parse("x.yaml", text).map(|e| e.len()).map_err(|issue| (issue.code, issue.place.line));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..20 {
            bomb += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", "));
        }
        assert_eq!(refused(&bomb).unwrap_err().0, codes::TOO_COMPLEX);
        assert_eq!(refused("metrics:\n  - &a [*a]\n"), Err((codes::SYNTAX, Some(2))));
        assert_eq!(
            refused(&format!("metrics:\n  - {}{}\n", "[".repeat(100), "]".repeat(100))),
            Err((codes::TOO_COMPLEX, Some(2)))
        );
        assert_eq!(refused(&format!("metrics:\n  - {}\n", "[".repeat(5000))), Err((codes::TOO_COMPLEX, Some(2))));
        assert_eq!(refused("metrics:\n  - metric_id: A\n    metric_id: B\n"), Err((codes::SYNTAX, Some(3))));
        assert_eq!(refused("metrics:\n  - {metric_id: A, name: \"a\n"), Err((codes::TRUNCATED, Some(2))));
        assert_eq!(refused("metrics:\n\t- x\n").unwrap_err().0, codes::SYNTAX);
        assert_eq!(refused("metrics: {}\n"), Err((codes::SYNTAX, Some(1))));
    }
}
