//! NDJSON: one entry on each line. A line that cannot be read fails by itself; the others are imported.

use std::io::{BufRead, Read};

use super::super::draft;
use super::super::entry::{Entry, Issue, Place, codes, cut};
use super::super::input::{Halt, Text};
use super::super::reader::Sink;
use super::json::{MAX_ENTRY, syntax, what};
use super::strict::Strict;

/// Reads the lines. A last line that breaks off means that the file did.
pub fn read(mut text: Text, sink: &mut Sink) -> Result<(), Halt> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if let Err(error) = (&mut text).take(MAX_ENTRY + 1).read_until(b'\n', &mut line) {
            return Err(text.halt().unwrap_or(Halt::Storage(error)));
        }
        if line.is_empty() {
            break;
        }
        if line.len() as u64 > MAX_ENTRY {
            return Err(Issue::refusal(
                Place::line(number),
                codes::TOO_LONG,
                format!("Line {number} is longer than {MAX_ENTRY} bytes"),
            )
            .into());
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let place = Place::line(number);
        match serde_json::from_slice::<Strict>(line.trim_ascii_end()) {
            Ok(Strict(value)) => sink.entry(draft::entry(None, place, value))?,
            Err(error) if error.is_eof() && !line.ends_with(b"\n") => return Err(syntax(&error, number).into()),
            Err(error) => {
                let (code, message) = if error.is_eof() {
                    (codes::SYNTAX, format!("The line ends too early: {}", what(&error, number)))
                } else {
                    let issue = syntax(&error, number);
                    (issue.code, issue.message)
                };
                sink.entry(Entry::unreadable(place, code, message, Some(cut(&String::from_utf8_lossy(&line)))))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::*;
    use crate::imports::entry::Kind;

    #[test]
    fn kinds_are_told_by_their_keys() {
        let text = "{\"metric_id\":\"A\",\"name\":\"a\"}\n\n{\"objective\":{\"objective_id\":\"O\",\"name\":\"o\"}}\r\n{\"id\":\"D\",\"name\":\"d\"}\n{\"x\":1}\n[]";
        let entries = parse("x.ndjson", text).unwrap();
        let kinds: Vec<_> = entries.iter().map(|entry| (entry.kind, entry.place.line)).collect();
        assert_eq!(
            kinds,
            [
                (Some(Kind::Metric), Some(1)),
                (Some(Kind::Objective), Some(3)),
                (Some(Kind::Domain), Some(4)),
                (None, Some(5)),
                (None, Some(6))
            ]
        );
        assert_eq!((entries[3].issues[0].code, entries[4].issues[0].code), (codes::UNKNOWN_KIND, "INVALID"));
    }

    #[test]
    fn a_broken_line_fails_alone_and_a_broken_end_refuses_the_file() {
        let entries = parse("x.ndjson", "{\"metric_id\":\"A\",\n{\"metric_id\":\"B\",\"name\":\"b\"}\n").unwrap();
        assert_eq!((entries[0].issues[0].code, entries[0].place.line), (codes::SYNTAX, Some(1)));
        let message = &entries[0].issues[0].message;
        assert!(message.starts_with("The line ends too early: ") && message.contains(", line 1 column 1"), "{message}");
        assert!(entries[1].draft.is_some());
        let issue = parse("x.ndjson", "{\"metric_id\":\"B\",\"name\":\"b\"}\n{\"metric_id\":\"A\",").unwrap_err();
        assert_eq!((issue.code, issue.place.line), (codes::TRUNCATED, Some(2)));
    }
}
