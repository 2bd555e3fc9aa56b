//! YAML as people write it, of which every reader makes the same values: text that could be taken for anything else is quoted.
//!
//! The parser of imports does not write. What its sibling writes of large numbers comes back as text.

use serde_json::Value;

use super::node::{Node, Object};

/// Words that YAML 1.1 or 1.2 takes for truth values or nothing.
const WORDS: &[&str] = &["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
/// Longer names of fields need a mark before them.
const LONG_NAME: usize = 1_000;

/// Writes the fields of an object, one below the other. The first one goes where the text ends, the others are indented.
pub fn write_object(text: &mut String, object: &Object, indent: usize) {
    if object.0.is_empty() {
        *text += "{}\n";
    }
    for (i, (name, value)) in object.0.iter().enumerate() {
        if i > 0 {
            pad(text, indent);
        }
        let name = scalar(name);
        if name.len() > LONG_NAME {
            *text += &format!("? {name}\n");
            pad(text, indent);
        } else {
            *text += &name;
        }
        text.push(':');
        if has_lines_of_its_own(value) {
            text.push('\n');
            pad(text, indent + 2);
        } else {
            text.push(' ');
        }
        write(text, value, indent + 2);
    }
}

/// Writes a value where the text ends, and ends its last line.
fn write(text: &mut String, value: &Node, indent: usize) {
    match value {
        Node::Object(object) => write_object(text, object, indent),
        Node::List(items) if items.is_empty() => *text += "[]\n",
        Node::List(items) => {
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    pad(text, indent);
                }
                *text += "- ";
                write(text, item, indent + 2);
            }
        }
        Node::Scalar(Value::String(lines)) if is_block(lines) => write_block(text, lines, indent),
        Node::Scalar(Value::String(line)) => {
            *text += &scalar(line);
            text.push('\n');
        }
        Node::Scalar(other) => *text += &format!("{other}\n"),
    }
}

fn has_lines_of_its_own(value: &Node) -> bool {
    match value {
        Node::Object(object) => !object.0.is_empty(),
        Node::List(items) => !items.is_empty(),
        Node::Scalar(_) => false,
    }
}

/// Several lines as they are.
fn write_block(text: &mut String, lines: &str, indent: usize) {
    *text += if lines.ends_with('\n') { "|\n" } else { "|-\n" };
    for line in lines.lines() {
        if !line.is_empty() {
            pad(text, indent);
            *text += line;
        }
        text.push('\n');
    }
}

/// Whether text of several lines means the same without quotes and escapes.
fn is_block(text: &str) -> bool {
    let odd_line = |line: &str| line.starts_with('\t') || (!line.is_empty() && line.trim().is_empty());
    text.contains('\n')
        && !text.starts_with(char::is_whitespace)
        && !text.ends_with("\n\n")
        && !text.chars().any(|c| is_unprintable(c) && !matches!(c, '\n' | '\t'))
        && !text.split('\n').any(odd_line)
}

fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

/// Whether text means itself without quotes: it begins like a word, and nothing in it means anything to YAML.
fn is_plain(text: &str) -> bool {
    text.starts_with(char::is_alphabetic)
        && !text.ends_with(' ')
        && !text.contains("  ")
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, ' ' | '_' | '-' | '.' | '/' | '(' | ')' | '+' | '%'))
        && !WORDS.contains(&text.to_lowercase().as_str())
}

/// In double quotes, with the escapes of JSON, which YAML has too.
fn quoted(text: &str) -> String {
    // Text as JSON: that cannot fail.
    let json = Value::from(text).to_string();
    if !json.chars().any(is_unprintable) {
        return json;
    }
    let escaped = |c: char| if is_unprintable(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    json.chars().map(escaped).collect()
}

/// What YAML has no room for as it is, or may take for the end of a line. All of them have four digits.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn pad(text: &mut String, indent: usize) {
    text.extend(std::iter::repeat_n(' ', indent));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::imports::tests::extra_of_yaml;

    /// What an import reads of a metric with these extra fields.
    fn read(extra: &Value) -> Value {
        let entry = Object::default().with("metric_id", "A").with("name", "a").with("extra", Node::from(extra));
        let mut text = "metrics:\n  - ".to_owned();
        write_object(&mut text, &entry, 4);
        extra_of_yaml(&text)
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
            if text != "<<" {
                let named = json!({"x": {(text): 1}});
                assert_eq!(read(&named), named, "{text:?} as a name");
            }
        }
        let long = json!({"x": {("n".repeat(2_000)): {"a": [1]}, ("b".repeat(1_500)): 2}});
        assert_eq!(read(&long), long);
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
