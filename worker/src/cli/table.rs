//! Tables and times as a terminal shows them.

use chrono::{DateTime, TimeDelta, Utc};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;
use terminal_size::{Width, terminal_size};

/// The width where none is known, as in a pipe.
const WIDTH: u16 = 120;

/// A table with these headings that fits the terminal.
pub fn table(headings: &[&str]) -> Table {
    let width = terminal_size().map_or(WIDTH, |(Width(width), _)| width);
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(width).set_header(headings.to_vec());
    table
}

/// Prints a value as JSON, for programs.
pub fn print_json(value: &Value) {
    println!("{value:#}");
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
    fn times_and_texts_are_short() {
        let now = Utc::now();
        assert_eq!(ago(Some(now - TimeDelta::minutes(5))), "5 min");
        assert_eq!(ago(Some(now + TimeDelta::hours(3) + TimeDelta::seconds(5))), "in 3 h");
        assert_eq!(ago(None), "");
        assert_eq!([seconds(Some(0.0042)), seconds(Some(1.23)), seconds(Some(600.0))], ["4 ms", "1.2 s", "10 min"]);
        assert_eq!(short("an  error\nof two lines", 8), "an error…");
    }
}
