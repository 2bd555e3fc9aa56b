//! The text of a catalog, list by list and entry by entry.

use super::Format;
use super::node::Object;
use super::pages::List;
use crate::error::{Error, Result};

/// What has been written of a catalog so far, and not been taken.
pub struct Text {
    format: Format,
    written: String,
    /// The list that is being written, and how many entries it has.
    list: Option<(List, usize)>,
}

impl Text {
    pub fn new(format: Format) -> Self {
        Self { format, written: String::new(), list: None }
    }

    /// Begins a list, unless it has been begun.
    pub fn list(&mut self, list: List) {
        if self.list.is_some_and(|(present, _)| present == list) {
            return;
        }
        let is_first = self.list.is_none();
        self.end_list();
        match self.format {
            Format::Json => {
                self.written += if is_first { "{\n" } else { ",\n" };
                self.written += &format!("\"{}\": [", list.name());
            }
            Format::Yaml => self.written += &format!("{}:", list.name()),
            Format::Ndjson => {}
        }
        self.list = Some((list, 0));
    }

    /// Adds an entry to the list that was begun last.
    pub fn entry(&mut self, entry: &Object) -> Result<()> {
        let is_first = self.list.is_none_or(|(_, count)| count == 0);
        match self.format {
            Format::Json => {
                self.written += if is_first { "\n" } else { ",\n" };
                self.written += &serde_json::to_string(entry)?;
            }
            Format::Ndjson => {
                self.written += &serde_json::to_string(entry)?;
                self.written.push('\n');
            }
            Format::Yaml => {
                if is_first {
                    self.written.push('\n');
                }
                self.written += &yaml(entry)?;
            }
        }
        if let Some((_, count)) = &mut self.list {
            *count += 1;
        }
        Ok(())
    }

    /// Ends the last list, and the text.
    pub fn end(&mut self) {
        self.end_list();
        if self.format == Format::Json {
            self.written += "\n}\n";
        }
    }

    /// How many bytes wait to be taken.
    pub fn waiting(&self) -> usize {
        self.written.len()
    }

    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.written)
    }

    fn end_list(&mut self) {
        match (self.format, self.list.take()) {
            (Format::Json, Some((_, 0))) => self.written.push(']'),
            (Format::Json, Some(_)) => self.written += "\n]",
            (Format::Yaml, Some((_, 0))) => self.written += " []\n",
            (Format::Yaml | Format::Ndjson, _) | (Format::Json, None) => {}
        }
    }
}

/// An entry as the item of a list.
fn yaml(entry: &Object) -> Result<String> {
    serde_saphyr::to_string(&[entry]).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::node::Node;
    use super::*;
    use crate::imports::tests::extra_of_yaml;
    use crate::text::MAX_LEVELS;

    fn catalog(format: Format) -> String {
        let mut text = Text::new(format);
        text.list(List::Domains);
        text.list(List::Metrics);
        text.entry(&Object::default().with("metric_id", "A").with("name", "a: b")).unwrap();
        text.list(List::Metrics);
        text.entry(&Object::default().with("metric_id", "B").with("tags", &["x".to_owned()][..])).unwrap();
        text.list(List::Objectives);
        text.end();
        text.take()
    }

    #[test]
    fn lists_have_their_entries() {
        let json = "{\n\"business_domains\": [],\n\"metrics\": [\n{\"metric_id\":\"A\",\"name\":\"a: b\"},\n\
                    {\"metric_id\":\"B\",\"tags\":[\"x\"]}\n],\n\"objectives\": []\n}\n";
        assert_eq!(catalog(Format::Json), json);
        let ndjson = "{\"metric_id\":\"A\",\"name\":\"a: b\"}\n{\"metric_id\":\"B\",\"tags\":[\"x\"]}\n";
        assert_eq!(catalog(Format::Ndjson), ndjson);
        let yaml = "business_domains: []\nmetrics:\n- metric_id: A\n  name: \"a: b\"\n- metric_id: B\n  tags:\n  - x\n\
                    objectives: []\n";
        assert_eq!(catalog(Format::Yaml), yaml);
    }

    /// What an import reads of a metric with these extra fields.
    fn read(extra: &Value) -> Value {
        let entry = Object::default().with("metric_id", "A").with("name", "a").with("extra", Node::from(extra));
        extra_of_yaml(&format!("metrics:\n{}", yaml(&entry).unwrap()))
    }

    #[test]
    fn every_text_comes_back() {
        let texts = [
            "word",
            "two words",
            "a  b",
            " a",
            "a ",
            "",
            " ",
            "~",
            "null",
            "True",
            "NO",
            "y",
            "1",
            "1.10",
            "0x1F",
            "010",
            ".5",
            "1e3",
            "+1",
            "-",
            "- a",
            "-a",
            "?",
            "? a",
            ": a",
            "a: b",
            "a:b",
            "a:",
            "a #b",
            "#a",
            "&a",
            "*a",
            "!a",
            "!!str a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
            "'a'",
            "\"a\"",
            "{a}",
            "[a]",
            "a, b",
            "\\n",
            "---",
            "...",
            "2026-01-01",
            "Größe",
            "利用率",
            "🙂",
            "<<",
            "=",
            "a\nb",
            "a\nb\n",
            "a\nb\n\n",
            "\na",
            "a\n\nb",
            "a\n b\n  c",
            " a\nb",
            "a\n\tb",
            "a\n \nb",
            "a\r\nb",
            "a\tb",
            "a\n# b\nc",
            "a\n---\nb",
            "a\n- b: c",
            "a \nb",
            "\u{7f}",
            "\u{85}",
            "a\u{2028}b",
            "\u{feff}",
            "\u{8}\u{c}\u{1b}",
        ];
        for text in texts {
            let extra = json!({"text": text, "list": [text, [text]], "object": {"in": {"it": text}}});
            assert_eq!(read(&extra), extra, "{text:?}");
            let named = json!({"x": {(text): 1}});
            assert_eq!(read(&named), named, "{text:?} as a name");
        }
        let long = json!({"x": {("n".repeat(2_000)): {"a": [1]}, ("b".repeat(1_500)): 2}});
        assert_eq!(read(&long), long);
    }

    #[test]
    fn what_is_nested_as_deeply_as_may_be_comes_back() {
        let nested = |wrap: fn(Value) -> Value| (0..MAX_LEVELS).fold(json!(1), |inner, _| wrap(inner));
        for value in [nested(|inner| json!([inner])), nested(|inner| json!({"a": inner}))] {
            let extra = json!({"x": value});
            assert_eq!(read(&extra), extra);
            // The deepest place for it.
            let filter = Object::default().with("field", "f").with("operator", "in").with("value", Node::from(&value));
            let count = Object::default().with("event_name", "e").with("filters", vec![filter]);
            let entry = Object::default().with("metric_id", "A").with("name", "a");
            let entry = entry.with("definition", Object::default().with("numerator", count));
            assert_eq!(extra_of_yaml(&format!("metrics:\n{}", yaml(&entry).unwrap())), json!({}));
        }
    }

    #[test]
    fn every_number_and_nothing_comes_back() {
        let extra = json!({
            "numbers": [0, -1, 1.5, 100.0, 0.1, 0.30000000000000004, 1e-7, 1e29, -2.5e300, i64::MIN, u64::MAX],
            "flags": [true, false], "null": null, "empty": ["", [], {}, null, [[]], [{}]], "nested": [[1, [2]], {"a": []}, [{"b": 1, "c": {}}]],
        });
        assert_eq!(read(&extra), extra);
    }
}
