//! One parser per format, and how a file's format is told.

mod catalog;
pub mod csv;
mod json;
mod metric_hub;
mod ndjson;
mod strict;
mod yaml;

use std::io::BufRead;

use super::Format;
use super::entry::{Issue, Place, codes};
use super::input::{Halt, Text};
use super::reader::Sink;

/// What is known of a file besides its content.
#[derive(Debug, Default)]
pub struct Hints {
    pub format: Option<Format>,
    pub file_name: Option<String>,
    pub namespace: Option<String>,
    /// Longest text of the formats that are read whole.
    pub max_document_bytes: u64,
}

/// The format that a text is in: the one that is named, or what its name and beginning tell.
pub fn tell(text: &mut Text, hints: &Hints) -> Result<Format, Halt> {
    let head = match text.fill_buf() {
        Ok(head) => head,
        Err(error) => return Err(text.halt().unwrap_or(Halt::Storage(error))),
    };
    if head.iter().all(u8::is_ascii_whitespace) && head.len() < 1024 {
        return Err(Issue::refusal(Place::default(), codes::EMPTY_FILE, "The file is empty").into());
    }
    Ok(match hints.format {
        Some(format) => format,
        None => detect(hints.file_name.as_deref(), &String::from_utf8_lossy(head))?,
    })
}

/// Parses the whole text into the sink.
pub fn read(text: Text, format: Format, hints: &Hints, sink: &mut Sink) -> Result<(), Halt> {
    match format {
        Format::Json => json::read(text, sink),
        Format::Ndjson => ndjson::read(text, sink),
        Format::Csv => csv::read(text, sink),
        Format::Yaml => yaml::read(&text.into_string(hints.max_document_bytes)?, sink),
        Format::MetricHub => {
            let namespace = hints.namespace.clone().or_else(|| hints.file_name.as_deref().and_then(file_stem));
            metric_hub::read(&text.into_string(hints.max_document_bytes)?, namespace.as_deref(), sink)
        }
    }
}

/// The format that a file's name tells.
pub fn by_name(file_name: &str) -> Option<Format> {
    let name = file_name.to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit_once('.')?.1 {
        "json" => Some(Format::Json),
        "ndjson" | "jsonl" => Some(Format::Ndjson),
        "yaml" | "yml" => Some(Format::Yaml),
        "csv" | "tsv" => Some(Format::Csv),
        "toml" => Some(Format::MetricHub),
        _ => None,
    }
}

/// `klar_ios` for `some/where/klar_ios.toml.gz`.
pub fn file_stem(file_name: &str) -> Option<String> {
    let name = file_name.rsplit(['/', '\\']).next()?;
    let stem = name.split('.').next()?;
    (!stem.is_empty()).then(|| stem.to_owned())
}

fn detect(file_name: Option<&str>, head: &str) -> Result<Format, Box<Issue>> {
    match file_name.and_then(by_name) {
        // Programs that write lines call them .json too.
        Some(Format::Json) | None => {}
        Some(format) => return Ok(format),
    }
    let lines = || head.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines().next().unwrap_or_default();
    let is_object = |line: &str| line.starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok();
    if first.starts_with('{') {
        // The second line may be cut off by the end of the head.
        let another = lines().nth(1).is_some_and(|line| line.starts_with('{'));
        return Ok(if is_object(first) && another { Format::Ndjson } else { Format::Json });
    }
    let table = first.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    if table.is_some_and(|(name, _)| name.starts_with(|c: char| c.is_ascii_alphabetic()) && !name.contains(['"', ',', '{'])) {
        return Ok(Format::MetricHub);
    }
    if first.starts_with('[') {
        return Ok(Format::Json);
    }
    if csv::is_header(first) {
        return Ok(Format::Csv);
    }
    let starts_yaml = first == "---"
        || first.starts_with("- ")
        || first.starts_with('%')
        || first.split_once(':').is_some_and(|(name, _)| !name.contains(' '));
    if starts_yaml {
        return Ok(Format::Yaml);
    }
    let message = "Neither the file's name nor its beginning tells the format: name it (json, yaml, ndjson, csv or metric_hub)";
    Err(Box::new(Issue {
        raw_value: Some(super::entry::cut(first)),
        ..*Issue::refusal(Place::line(1), codes::UNKNOWN_FORMAT, message)
    }))
}

#[cfg(test)]
pub mod tests {
    use std::sync::Arc;

    use clap::Parser;
    use tokio::sync::mpsc;

    use super::*;
    use crate::imports::entry::Entry;
    use crate::imports::reader::Chunk;

    #[derive(Parser)]
    struct Limits {
        #[command(flatten)]
        imports: crate::config::ImportConfig,
    }

    /// What a file of these bytes becomes.
    pub fn parse_bytes(file_name: &str, bytes: &[u8]) -> Result<Vec<Chunk>, Box<Issue>> {
        let limits = Limits::parse_from(["test", "--import-max-rows", "1000", "--import-max-inflate-ratio", "20"]).imports;
        let (sender, mut chunks) = mpsc::channel(1000);
        let mut sink = Sink::new(sender, limits.max_rows);
        let mut text = Text::open(std::io::Cursor::new(bytes.to_vec()), Arc::default(), &limits).unwrap();
        let hints = Hints { file_name: Some(file_name.to_owned()), max_document_bytes: 1 << 20, ..Hints::default() };
        let read = tell(&mut text, &hints).and_then(|format| read(text, format, &hints, &mut sink));
        let result = read.and_then(|()| sink.flush());
        let mut found = Vec::new();
        while let Ok(chunk) = chunks.try_recv() {
            found.push(chunk);
        }
        match result {
            Ok(()) => Ok(found),
            Err(Halt::Refused(issue)) => Err(issue),
            Err(other) => panic!("{other:?}"),
        }
    }

    pub fn parse(file_name: &str, text: &str) -> Result<Vec<Entry>, Box<Issue>> {
        Ok(parse_bytes(file_name, text.as_bytes())?.into_iter().flat_map(|chunk| chunk.entries).collect())
    }

    fn gzip(text: &str) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    const LINE: &str = "{\"metric_id\":\"A\",\"name\":\"Ä\"}\n";

    #[test]
    fn a_format_is_told_by_name_or_content() {
        let told = |name, head| detect(name, head).map_err(|issue| issue.code);
        assert_eq!(told(Some("x.yml"), ""), Ok(Format::Yaml));
        assert_eq!(told(Some("x.csv.gz"), ""), Ok(Format::Csv));
        assert_eq!(told(Some("x.json"), "{\"a\":1}\n{\"a\":2}\n"), Ok(Format::Ndjson));
        assert_eq!(told(None, "{\n \"metrics\": []}"), Ok(Format::Json));
        assert_eq!(told(None, "[{\"metric_id\": 1}]"), Ok(Format::Json));
        assert_eq!(told(None, "# c\n[metrics.dau]\nx = 1"), Ok(Format::MetricHub));
        assert_eq!(told(None, "metric_id,name\nA,B"), Ok(Format::Csv));
        assert_eq!(told(None, "# c\nmetrics:\n  - metric_id: A"), Ok(Format::Yaml));
        assert_eq!(told(None, "Dear all, these are our metrics"), Err(codes::UNKNOWN_FORMAT));
    }

    #[test]
    fn a_byte_order_mark_of_utf8_is_skipped() {
        let chunks = parse_bytes("x.ndjson", format!("\u{feff}{LINE}").as_bytes()).unwrap();
        assert_eq!(chunks[0].entries[0].key.as_deref(), Some("A"));
    }

    #[test]
    fn other_encodings_are_refused_by_name() {
        let utf16: Vec<u8> = LINE.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let issue = parse_bytes("x.ndjson", &utf16).unwrap_err();
        assert_eq!((issue.code, issue.message.as_str()), (codes::ENCODING, "The file is UTF-16; save it as UTF-8"));
        let marked: Vec<u8> = [0xfe, 0xff].into_iter().chain(LINE.encode_utf16().flat_map(u16::to_be_bytes)).collect();
        assert!(parse_bytes("x.csv", &marked).unwrap_err().message.contains("UTF-16"));
        let utf32: Vec<u8> = LINE.chars().flat_map(|c| (c as u32).to_le_bytes()).collect();
        assert!(parse_bytes("x.yaml", &utf32).unwrap_err().message.contains("UTF-32"));
    }

    #[test]
    fn bad_utf8_has_a_line_and_a_byte() {
        let mut bytes = LINE.repeat(3).into_bytes();
        let at = 2 * LINE.len() + 15;
        bytes[at] = 0xff;
        let issue = parse_bytes("x.ndjson", &bytes).unwrap_err();
        assert_eq!((issue.code, issue.place.line), (codes::ENCODING, Some(3)));
        assert!(issue.message.contains(&format!("byte {at} ")), "{}", issue.message);
        let cut = parse_bytes("x.csv", "metric_id,name\nA,\u{e4}".as_bytes().split_last().unwrap().1).unwrap_err();
        assert_eq!((cut.code, cut.place.line), (codes::TRUNCATED, Some(2)));
    }

    #[test]
    fn gzip_is_read_and_bounded() {
        let mut bytes = gzip(LINE);
        bytes.extend(gzip("{\"metric_id\":\"B\",\"name\":\"b\"}"));
        assert_eq!(parse_bytes("x.ndjson.gz", &bytes).unwrap()[0].entries.len(), 2);
        let issue = parse_bytes("x.ndjson", &bytes[..bytes.len() - 9]).unwrap_err();
        assert_eq!(issue.code, codes::TRUNCATED);
        bytes[20] ^= 0xff;
        assert_eq!(parse_bytes("x.ndjson", &bytes).unwrap_err().code, codes::CORRUPT_GZIP);
        let bomb = gzip(&" ".repeat(4 << 20));
        assert_eq!(parse_bytes("x.ndjson", &bomb).unwrap_err().code, codes::INFLATE_RATIO);
    }

    #[test]
    fn rows_are_bounded_and_empty_files_refused() {
        let many: String = (0..1001).map(|i| format!("{{\"metric_id\":\"M{i}\",\"name\":\"b\"}}\n")).collect();
        assert_eq!(parse("x.ndjson", &many).unwrap_err().code, codes::TOO_MANY);
        assert_eq!(parse("x.yaml", " \n").unwrap_err().code, codes::EMPTY_FILE);
    }

    #[test]
    fn the_second_of_two_equal_keys_is_an_error() {
        let entries = parse("x.ndjson", &LINE.repeat(2)).unwrap();
        assert!(entries[0].draft.is_some() && entries[1].draft.is_none());
        assert_eq!(entries[1].issues[0].code, codes::DUPLICATE);
        assert!(entries[1].issues[0].message.ends_with("at line 1"));
    }
}
