//! CSV: one metric on each row. The columns are the fields of a metric under their dotted names.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use csv::{ByteRecord, ReaderBuilder, Trim};
use serde_json::{Map, Value, json};

use super::super::draft;
use super::super::entry::{Entry, Issue, Kind, Place, codes, cut};
use super::super::input::{Halt, Text};
use super::super::reader::Sink;

/// What a cell holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cells {
    Text,
    Number,
    /// `true` or `false`.
    Flag,
    /// Items separated by `;`, or a JSON array.
    List,
    /// A list whose items are `system:table`.
    Sources,
    /// JSON.
    Json,
}

/// The columns that a file may have, in the order of the template: name, content, meaning. Only `metric_id` must be there.
pub const COLUMNS: &[(&str, Cells, &str)] = &[
    ("metric_id", Cells::Text, "The key"),
    ("name", Cells::Text, "What people call it"),
    ("short_name", Cells::Text, "As a program would call it"),
    ("description", Cells::Text, "What it says, in prose"),
    ("category", Cells::Text, "KPI, Finance, Retention, …"),
    ("tier", Cells::Text, "tier_1, tier_2 or tier_3"),
    ("business_domain", Cells::Text, "Key or name of its domain"),
    ("indicator_kind", Cells::Text, "leading, lagging or operational"),
    ("metric_type", Cells::Text, "simple, ratio, derived, cumulative or conversion"),
    ("tags", Cells::List, "Words to find it by"),
    ("synonyms", Cells::List, "Other names"),
    ("alignment.strategic_pillar", Cells::Text, "The strategy it serves"),
    ("alignment.primary_objective_ids", Cells::List, "Keys of objectives"),
    ("alignment.related_okr_ids", Cells::List, "Key results as OBJECTIVE:KEY-RESULT"),
    ("alignment.why_it_matters", Cells::Text, "Why the company keeps it"),
    ("definition.formula", Cells::Text, "How it is computed"),
    ("definition.formula_detail", Cells::Text, "The computation in prose"),
    ("definition.numerator.event_name", Cells::Text, "What is counted"),
    ("definition.numerator.filters", Cells::Json, "[{\"field\", \"operator\", \"value\"}]"),
    ("definition.denominator.event_name", Cells::Text, "What it is divided by"),
    ("definition.denominator.filters", Cells::Json, "[{\"field\", \"operator\", \"value\"}]"),
    ("definition.unit", Cells::Text, "percentage, USD, seconds, …"),
    ("definition.expected_direction", Cells::Text, "increase, decrease or stable"),
    ("definition.example_calculation", Cells::Json, "{\"input\": 1, \"result\": 1}"),
    ("data.primary_sources", Cells::Sources, "system:table"),
    ("data.secondary_sources", Cells::Sources, "system:table"),
    ("data.data_freshness", Cells::Text, "How old the data may be"),
    ("data.update_frequency", Cells::Text, "How often it is loaded"),
    ("data.time_grain", Cells::List, "hour, day, week, …"),
    ("data.data_retention", Cells::Text, "How long it is kept"),
    ("governance.data_classification", Cells::Text, "internal, confidential, …"),
    ("governance.pii_involved", Cells::Flag, "Whether personal data goes in"),
    ("governance.regulatory_constraints", Cells::List, "sox, gdpr, …"),
    ("governance.owner_team", Cells::Text, "Who answers for it"),
    ("governance.technical_owner", Cells::Text, "Who builds it"),
    ("governance.business_owner", Cells::Text, "Who decides on it"),
    ("governance.version", Cells::Text, "First version of a new metric, such as 1.4.0"),
    ("governance.status", Cells::Text, "draft, in_review, active, deprecated or removed"),
    ("dimensions", Cells::List, "Names, or JSON objects with name, description, allowed_values, required"),
    ("targets_and_alerts.target_value", Cells::Number, "What it should be"),
    ("targets_and_alerts.warning_threshold", Cells::Number, ""),
    ("targets_and_alerts.critical_threshold", Cells::Number, ""),
    ("targets_and_alerts.comparison_baseline", Cells::Text, "What it is compared with"),
    ("targets_and_alerts.alert_rules", Cells::Json, "[{\"rule_id\", \"condition\", \"severity\", \"notify_channels\"}]"),
    ("visualization.default_chart_type", Cells::Text, "line, bar, …"),
    ("visualization.default_time_range", Cells::Text, "last_30_days, …"),
    ("visualization.dashboard_locations", Cells::Json, "[{\"tool\", \"url\"}]"),
    ("visualization.drilldowns", Cells::List, "Dimensions that charts break down by"),
    ("relationships.upstream_metric_ids", Cells::List, "What it is computed from"),
    ("relationships.downstream_metric_ids", Cells::List, "What is computed from it"),
    ("relationships.tradeoffs", Cells::List, "What suffers when it improves"),
    ("operational_usage.decision_use_cases", Cells::List, "What is decided with it"),
    ("operational_usage.review_cadence", Cells::Text, "daily, weekly, …"),
    ("operational_usage.linked_playbooks", Cells::Json, "[{\"name\", \"url\"}]"),
    ("metadata.notes", Cells::Text, "Anything else"),
    ("metadata.example_queries", Cells::Json, "[{\"language\", \"query\"}]"),
];

/// Columns under this prefix are kept with the metric as they are.
const EXTRA: &str = "extra.";
/// Longest quoted cell, in bytes.
const MAX_CELL: u64 = 1024 * 1024;

/// A file with all columns and one example row, to start from.
pub fn csv_template() -> String {
    let header: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
    let example = |name: &str| match name {
        "metric_id" => "METRIC-LOGIN-SUCCESS-RATE",
        "name" => "Login Success Rate",
        "description" => "Share of login attempts that succeed",
        "tier" => "tier_1",
        "business_domain" => "Digital Experience",
        "metric_type" => "ratio",
        "tags" => "authentication;security",
        "definition.formula" => "successful_logins / login_attempts",
        "definition.unit" => "ratio",
        "definition.expected_direction" => "increase",
        "data.primary_sources" => "warehouse:events_logins",
        "data.time_grain" => "hour;day;week",
        "governance.status" => "active",
        _ => "",
    };
    let row: Vec<&str> = header.iter().map(|name| example(name)).collect();
    format!("{}\n{}\n", header.join(","), row.join(","))
}

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

/// A column of the file at hand.
struct Column {
    path: Vec<String>,
    cells: Cells,
}

impl Column {
    /// Puts a value where the column's dotted name says.
    fn put(&self, row: &mut Map<String, Value>, value: Value) {
        let Some((last, parents)) = self.path.split_last() else { return };
        let mut map = row;
        for name in parents {
            let inner = map.entry(name.as_str()).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(inner) = inner else { return };
            map = inner;
        }
        map.insert(last.clone(), value);
    }
}

impl Cells {
    fn value(self, cell: &str) -> Result<Value, &'static str> {
        let text = cell.trim();
        match self {
            Cells::Text | Cells::Number | Cells::Flag => Ok(Value::String(cell.to_owned())),
            Cells::Json => serde_json::from_str(text).map_err(|_| "Must be JSON"),
            Cells::List | Cells::Sources if text.starts_with('[') => {
                serde_json::from_str(text).map_err(|_| "Begins like a JSON list but is none")
            }
            Cells::List => Ok(items(text).map(Value::from).collect()),
            Cells::Sources => Ok(items(text)
                .map(|item| match item.split_once(':') {
                    Some((system, table)) => json!({ "system": system, "table_or_stream": table }),
                    None => json!({ "system": item }),
                })
                .collect()),
        }
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').map(str::trim).filter(|item| !item.is_empty())
}

fn columns(header: &ByteRecord) -> Result<Vec<Column>, Issue> {
    let refuse = |code, message| Err(Issue::refusal(Place::line(1), code, message));
    let mut columns = Vec::new();
    let mut has_key = false;
    for name in header {
        let shown = String::from_utf8_lossy(name).into_owned();
        let name = shown.to_lowercase().replace(' ', "_");
        let name = if name == "key" { "metric_id".to_owned() } else { name };
        has_key |= name == "metric_id";
        let cells = match COLUMNS.iter().find(|(known, ..)| *known == name) {
            Some((_, cells, _)) => *cells,
            // Under its own name in the extra fields: no column of ours begins so.
            None if name.starts_with(EXTRA) && name.len() > EXTRA.len() => Cells::Text,
            None => {
                let hint = match nearest(&name) {
                    Some(known) => format!("did you mean {known:?}? "),
                    None => String::new(),
                };
                return refuse(
                    codes::UNKNOWN_FIELD,
                    format!(
                        "There is no column {shown:?}: {hint}The template lists the columns; begin the name with {EXTRA:?} to keep it as it is"
                    ),
                );
            }
        };
        let path: Vec<String> = match name.strip_prefix(EXTRA) {
            Some(own) => vec![own.to_owned()],
            None => name.split('.').map(str::to_owned).collect(),
        };
        if columns.iter().any(|column: &Column| column.path == path) {
            return refuse(codes::DUPLICATE, format!("The column {shown:?} is there twice"));
        }
        columns.push(Column { path, cells });
    }
    if !has_key {
        return refuse("REQUIRED", "There is no column metric_id; the first line must name the columns".to_owned());
    }
    Ok(columns)
}

/// The column that somebody meant who left out its section, or misspelt it a little.
fn nearest(name: &str) -> Option<&'static str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    COLUMNS.iter().map(|(known, ..)| *known).find(|known| last(known) == last(name)).or_else(|| {
        COLUMNS
            .iter()
            .map(|(known, ..)| *known)
            .filter(|known| distance(known, name) <= 2)
            .min_by_key(|known| distance(known, name))
    })
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

/// What is known of the quotes so far: a cell whose closing quote is missing would swallow the rest of the file.
#[derive(Default)]
struct Quotes {
    open: Cell<bool>,
    /// On which the open quote is.
    line: Cell<u64>,
    length: Cell<u64>,
    lines: Cell<u64>,
    last: Cell<u8>,
    /// Bytes so far.
    offset: Cell<u64>,
    /// Ends of lines that the reader has not come to, by offset, and whether that line is empty.
    ends: RefCell<VecDeque<(u64, bool)>>,
    /// Where the last line ended.
    newline: Cell<Option<u64>>,
    /// Lines that the reader has left behind.
    left: Cell<u64>,
}

impl Quotes {
    /// The line on which the record begins whose position is given: its first that is not empty. (The reader itself counts
    /// from before the line feed of a CRLF.)
    fn line_at(&self, offset: u64) -> u64 {
        let mut ends = self.ends.borrow_mut();
        while ends.front().is_some_and(|(end, empty)| *end <= offset || *empty) {
            ends.pop_front();
            self.left.set(self.left.get() + 1);
        }
        self.left.get() + 1
    }

    fn line_ends(&self, at: u64) {
        let before = self.newline.replace(Some(at));
        let start = before.map_or(0, |before| before + 1);
        let empty = start == at || (start + 1 == at && self.last.get() == b'\r');
        self.ends.borrow_mut().push_back((at, empty));
        self.lines.set(self.lines.get() + 1);
    }
}

struct Guarded {
    text: Rc<RefCell<Text>>,
    quotes: Rc<Quotes>,
}

impl Read for Guarded {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut text = self.text.borrow_mut();
        let count = text.read(out)?;
        let quotes = &*self.quotes;
        for byte in &out[..count] {
            match byte {
                b'"' => {
                    quotes.open.set(!quotes.open.get());
                    quotes.line.set(quotes.lines.get() + 1);
                    quotes.length.set(0);
                }
                b'\n' => quotes.line_ends(quotes.offset.get()),
                _ => {}
            }
            quotes.length.set(quotes.length.get() + 1);
            quotes.offset.set(quotes.offset.get() + 1);
            quotes.last.set(*byte);
        }
        if quotes.open.get() && quotes.length.get() > MAX_CELL {
            let line = quotes.line.get();
            let message = format!(
                "The quoted cell that begins on line {line} is longer than {MAX_CELL} bytes: its closing quote may be missing"
            );
            return Err(text.refuse(Issue::refusal(Place::line(line), codes::TOO_LONG, message)));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::*;
    use crate::imports::entry::{Draft, MetricDraft};

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
        assert_eq!(metric.domain.as_deref(), Some("Digital Experience"));
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
    fn truncated_files_are_refused() {
        let refused = |text: &str| parse("x.csv", text).map(|e| e.len()).map_err(|issue| (issue.code, issue.place.line));
        assert_eq!(refused("metric_id,name,tier\nA,a,tier_1\nB,b"), Err((codes::TRUNCATED, Some(3))));
        assert_eq!(refused("metric_id,name,tier\nA,\"a,tier_1\nB,b,tier_1\n"), Err((codes::TRUNCATED, Some(2))));
        let swallowed = format!("metric_id,name\nA,\"a\n{}", "B,b\n".repeat(600_000));
        assert_eq!(refused(&swallowed), Err((codes::TOO_LONG, Some(2))));
        assert_eq!(refused("metric_id,name,tier\nA,a,tier_1"), Ok(1));
    }
}
