//! CSV: one metric on each row. The columns are the fields of a metric under their dotted names.

mod columns;
mod quotes;

use std::cell::RefCell;
use std::io::BufRead;
use std::rc::Rc;

use csv::{ByteRecord, ReaderBuilder, Trim};

use super::super::draft;
use super::super::entry::{Entry, Issue, Kind, Place, codes, cut};
use super::super::input::{Halt, Text};
use super::super::reader::Sink;
use super::super::value::{Map, Value};
use columns::columns;
use quotes::{Guarded, Quotes};

pub use columns::csv_template;

/// Whether this line could be the header of a CSV file.
pub fn is_header(line: &str) -> bool {
    let separator = separator(line) as char;
    line.split(separator).any(|name| matches!(name.trim().trim_matches('"').to_lowercase().as_str(), "metric_id" | "key"))
}

fn separator(header: &str) -> u8 {
    *b",;\t"
        .iter()
        .max_by_key(|separator| (header.bytes().filter(|byte| byte == *separator).count(), **separator == b','))
        .unwrap_or(&b',')
}

/// Reads the rows. A row that cannot be understood fails by itself.
pub fn read(mut text: Text, sink: &mut Sink) -> Result<(), Halt> {
    let header = match text.fill_buf() {
        Ok(head) => String::from_utf8_lossy(head.split(|byte| *byte == b'\n').next().unwrap_or_default()).into_owned(),
        Err(error) => return Err(text.halt().unwrap_or(Halt::Storage(error))),
    };
    let quotes = Rc::new(Quotes::default());
    let text = Rc::new(RefCell::new(text));
    let guarded = Guarded { text: text.clone(), quotes: quotes.clone() };
    let mut reader = ReaderBuilder::new().delimiter(separator(&header)).flexible(true).trim(Trim::Headers).from_reader(guarded);
    let stopped = |error: csv::Error| match text.borrow().halt() {
        Some(halt) => halt,
        None => Issue::refusal(Place::default(), codes::SYNTAX, format!("Cannot be read as CSV: {error}")).into(),
    };
    let columns = columns(reader.byte_headers().map_err(&stopped)?)?;

    let mut record = ByteRecord::new();
    let mut last_short = None;
    loop {
        // The reader is ahead of the record it returns, so the quotes are only known to match at the end.
        if !reader.read_byte_record(&mut record).map_err(&stopped)? {
            break;
        }
        let line = quotes.line_at(record.position().map_or(0, csv::Position::byte));
        if record.iter().all(|cell| cell.iter().all(u8::is_ascii_whitespace)) {
            continue;
        }
        let place = Place::line(line);
        last_short = (record.len() < columns.len()).then_some(line);
        if record.len() != columns.len() {
            let message = format!("Has {} cells, but the header has {}", record.len(), columns.len());
            let raw = record.iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join(",");
            let mut entry = Entry::unreadable(place, codes::SYNTAX, message, Some(cut(&raw)));
            entry.kind = Some(Kind::Metric);
            sink.entry(entry)?;
            continue;
        }
        let mut row = Map::new();
        let mut bad = Vec::new();
        for (column, cell) in columns.iter().zip(record.iter()) {
            let cell = String::from_utf8_lossy(cell);
            if cell.trim().is_empty() {
                continue;
            }
            match column.cells.value(&cell) {
                Ok(value) => column.put(&mut row, value),
                Err(message) => bad.push((column, message, cut(&cell))),
            }
        }
        let mut entry = draft::entry(Some(Kind::Metric), place, Value::Object(row));
        for (column, message, raw) in bad {
            let issue = Issue {
                raw_value: Some(raw),
                ..entry.issue(super::super::Severity::Error, &column.path.join("."), "INVALID", message)
            };
            entry.issues.push(issue);
            entry.draft = None;
        }
        sink.entry(entry)?;
    }
    if quotes.open.get() {
        let line = quotes.line.get();
        return Err(Issue::refusal(
            Place::line(line),
            codes::TRUNCATED,
            format!("The quoted cell that begins on line {line} never ends"),
        )
        .into());
    }
    match last_short {
        Some(line) if quotes.last.get() != b'\n' => Err(Issue::refusal(
            Place::line(line),
            codes::TRUNCATED,
            format!("The file ends in the middle of the row on line {line}"),
        )
        .into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::columns::COLUMNS;
    use super::*;
    use crate::imports::entry::{DomainLabel, Draft, MetricDraft};

    fn metric(entry: &Entry) -> &MetricDraft {
        match &entry.draft {
            Some(Draft::Metric(metric)) => metric,
            other => panic!("{other:?}: {:?}", entry.issues),
        }
    }

    #[test]
    fn the_template_imports() {
        let entries = parse("x.csv", &csv_template()).unwrap();
        let metric = metric(&entries[0]);
        assert_eq!(metric.definition.summary.tags, ["authentication", "security"]);
        assert_eq!(metric.definition.details.data.primary_sources[0].table_or_stream.as_deref(), Some("events_logins"));
        assert_eq!(metric.domain.as_ref().map(DomainLabel::text), Some("Digital Experience"));
    }

    #[test]
    fn cells_have_their_lines_and_columns() {
        let text = "metric_id;name;targets_and_alerts.target_value;extra.cost_centre;tags\r\nA;\"a\nb\";1,5;77;x\r\n\r\nB;b;2.5;78;\"x;y\"\r\nC;c;1\r\n;;;;\r\n";
        let entries = parse("x.csv", text).unwrap();
        let issues: Vec<_> = entries
            .iter()
            .flat_map(|entry| &entry.issues)
            .map(|issue| (issue.place.line, issue.field.as_deref(), issue.code))
            .collect();
        assert_eq!(
            issues,
            [
                (Some(2), Some("targets_and_alerts.target_value"), "INVALID"),
                (Some(2), Some("name"), "INVALID"),
                (Some(6), None, codes::SYNTAX)
            ]
        );
        let metric = metric(&entries[1]);
        assert_eq!(metric.definition.details.extra.0["cost_centre"], "78");
        assert_eq!(metric.definition.summary.tags, ["x", "y"]);
    }

    #[test]
    fn headers_are_checked_with_a_suggestion() {
        let refused = |text: &str| parse("x.csv", text).unwrap_err();
        let issue = refused("metric_id,name,formula\n");
        assert_eq!(issue.code, codes::UNKNOWN_FIELD);
        assert!(issue.message.contains("did you mean \"definition.formula\"?"), "{}", issue.message);
        assert!(refused("metric_id,nmae\n").message.contains("\"name\""));
        assert_eq!(refused("name,tier\n").code, "REQUIRED");
        assert_eq!(refused("metric_id,name,Name\n").code, codes::DUPLICATE);
    }

    #[test]
    fn the_guide_lists_every_column_and_code() {
        let guide = include_str!("../../../../docs/guide/imports.md");
        for (name, ..) in COLUMNS {
            assert!(guide.contains(&format!("| `{name}` |")), "{name}");
        }
        for code in codes::ALL {
            assert!(guide.contains(&format!("`{code}`")), "{code}");
        }
    }

    #[test]
    fn truncated_files_are_refused() {
        let refused = |text: &str| parse("x.csv", text).map(|e| e.len()).map_err(|issue| (issue.code, issue.place.line));
        assert_eq!(refused("metric_id,name,tier\nA,a,tier_1\nB,b"), Err((codes::TRUNCATED, Some(3))));
        assert_eq!(refused("metric_id,name,tier\nA,\"a,tier_1\nB,b,tier_1\n"), Err((codes::TRUNCATED, Some(2))));
        let swallowed = format!("metric_id,name\nA,\"a\n{}", "B,b\n".repeat(600_000));
        assert_eq!(refused(&swallowed), Err((codes::TOO_LONG, Some(2))));
        assert_eq!(refused("metric_id,name,tier\nA,a,tier_1"), Ok(1));
    }
}
