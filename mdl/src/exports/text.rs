//! The text of a catalog, list by list and entry by entry.

use super::Format;
use super::node::Object;
use super::pages::List;
use super::yaml;
use crate::error::Result;

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
                self.written += if is_first { "\n  - " } else { "  - " };
                yaml::write_object(&mut self.written, entry, 4);
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let yaml = "business_domains: []\nmetrics:\n  - metric_id: A\n    name: \"a: b\"\n  - metric_id: B\n    tags:\n      - x\n\
                    objectives: []\n";
        assert_eq!(catalog(Format::Yaml), yaml);
    }
}
