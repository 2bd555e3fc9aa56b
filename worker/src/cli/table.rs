//! Tables and times as a terminal shows them.

use std::io::IsTerminal;

use chrono::{DateTime, TimeDelta, Utc};
use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table};
use mdl::output;
use serde_json::Value;
use terminal_size::{Width, terminal_size};

/// Narrowest last column that is worth wrapping; with less room for it, its texts are cut.
const NARROWEST: u16 = 20;

/// A table with these headings.
pub fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(headings.to_vec());
    table
}

/// A table as the terminal shows it: the texts of its last column take the room that the others leave. Those hold ids, names and
/// numbers, and stay whole; where there is no terminal, everything does.
pub fn fit(table: Table) -> String {
    let width = if std::io::stdout().is_terminal() { terminal_size() } else { None };
    fit_width(table, width.map(|(Width(width), _)| width))
}

fn fit_width(mut table: Table, width: Option<u16>) -> String {
    let widths = table.column_max_content_widths();
    if let (Some(width), Some((last, others))) = (width, widths.split_last()) {
        // A space on each side of a column.
        let taken = others.iter().fold(0u16, |taken, content| taken.saturating_add(content.saturating_add(2)));
        let room = width.saturating_sub(taken);
        if last.saturating_add(2) > room {
            if let Some(column) = table.column_mut(others.len()) {
                let room = comfy_table::Width::Fixed(room.max(NARROWEST).min(last.saturating_add(2)));
                column.set_constraint(ColumnConstraint::Absolute(room));
            }
            if room < NARROWEST {
                table.row_iter_mut().for_each(|row| {
                    row.max_height(1);
                });
            }
        }
    }
    table.trim_fmt()
}

/// Prints a value as JSON, for programs.
pub fn print_json(value: &Value) {
    output::line(format_args!("{value:#}"));
}

/// How long ago, or in how long: `12 s`, `5 min`, `in 3 h`, `9 d`.
pub fn ago(time: Option<DateTime<Utc>>) -> String {
    let Some(time) = time else { return String::new() };
    let passed = Utc::now() - time;
    if passed < TimeDelta::zero() { format!("in {}", span(-passed)) } else { span(passed) }
}

/// A number of seconds: `4 ms`, `1.2 s`, `3 min`.
pub fn seconds(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) if seconds < 120.0 => format!("{seconds:.1} s"),
        Some(seconds) => span(TimeDelta::seconds(seconds as i64)),
    }
}

/// Zero is nothing to look at.
pub fn count(number: i64) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

/// Text cut to a number of characters, on one line.
pub fn short(text: &str, most: usize) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn span(span: TimeDelta) -> String {
    match span.num_seconds() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_column_gives_way() {
        let id = "019a0000-0000-7000-8000-000000000000";
        let lines = |width| {
            let mut table = table(&["id", "state", "error"]);
            table.add_row([id, "waiting", "no answer ".repeat(20).as_str()]);
            let text = fit_width(table, width);
            assert!(text.contains(id) && text.contains("waiting"), "{text}");
            text.lines().map(|line| line.chars().count()).collect::<Vec<_>>()
        };
        assert_eq!(lines(None).len(), 2, "nothing is wrapped in a pipe");
        assert!(lines(Some(80)).len() > 2 && lines(Some(80)).iter().all(|width| *width <= 80));
        assert_eq!(lines(Some(50)).len(), 2, "cut");
    }

    #[test]
    fn times_and_texts_are_short() {
        let now = Utc::now();
        assert_eq!(ago(Some(now - TimeDelta::minutes(5))), "5 min");
        assert_eq!(ago(Some(now + TimeDelta::hours(3) + TimeDelta::seconds(5))), "in 3 h");
        assert_eq!(ago(None), "");
        assert_eq!([seconds(Some(0.0042)), seconds(Some(1.23)), seconds(Some(600.0))], ["4 ms", "1.2 s", "10 min"]);
        assert_eq!(short("an  error\nof two lines", 8), "an error…");
    }
}
