//! What clients' build tools write, recognised by its shape:
//!
//! - `persisted-documents.json` of graphql-codegen's client preset, and Relay's persist file: `{"id": "text"}`;
//! - the persisted-query manifest of `@apollo/generate-persisted-query-manifest`:
//!   `{"format": "apollo-persisted-query-manifest", "version": 1, "operations": [{"id", "name", "type", "body"}]}`;
//! - a `.graphql` file, which is one document. Its id is the SHA-256 of its text, in hex.

use std::fmt;

use data_encoding::HEXLOWER;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::sha256;
use crate::error::{Code, Error, Result};

/// A document of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: String,
    /// Where the manifest has one.
    pub name: Option<String>,
    pub text: String,
}

/// The documents of a manifest, in its order; an id that stands there twice, twice. Problems are of the field `manifest`.
pub fn read(manifest: &str) -> Result<Vec<Entry>> {
    match serde_json::from_str(manifest) {
        Ok(Value::Object(fields)) if fields.contains_key("format") && fields.contains_key("operations") => {
            apollo(&fields["format"], fields.get("version"), &fields["operations"])
        }
        Ok(Value::Object(_)) => texts_by_id(manifest),
        Ok(_) => Err(invalid("Is neither a manifest, which is a JSON object, nor GraphQL")),
        Err(error) if looks_like_json(manifest) => Err(invalid(format!("Is not JSON: {error}"))),
        Err(_) if manifest.trim().is_empty() => Err(invalid("Is empty")),
        Err(_) => Ok(vec![Entry { id: HEXLOWER.encode(&sha256(manifest)), name: None, text: manifest.to_owned() }]),
    }
}

fn texts_by_id(manifest: &str) -> Result<Vec<Entry>> {
    let Fields(fields) = serde_json::from_str(manifest).map_err(|error| invalid(format!("Is not JSON: {error}")))?;
    let entries = fields.into_iter().map(|(id, text)| match text {
        Value::String(text) => Ok(Entry { id, name: None, text }),
        _ => Err(invalid(format!("{id:?} must be the text of a document"))),
    });
    entries.collect()
}

/// The fields of an object as they stand there. A [`Value`] keeps only the last of each name.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Fields(fields))
    }
}

fn apollo(format: &Value, version: Option<&Value>, operations: &Value) -> Result<Vec<Entry>> {
    if format != "apollo-persisted-query-manifest" || version != Some(&Value::from(1)) {
        return Err(invalid("Only version 1 of \"apollo-persisted-query-manifest\" is known"));
    }
    let operations = operations.as_array().ok_or_else(|| invalid("operations must be a list"))?;
    let entries = operations.iter().enumerate().map(|(position, operation)| {
        let text = |field: &str| operation[field].as_str().map(str::to_owned);
        match (text("id"), text("body")) {
            (Some(id), Some(body)) => Ok(Entry { id, name: text("name"), text: body }),
            _ => Err(invalid(format!("operations[{position}] must have an id and a body, which are text"))),
        }
    });
    entries.collect()
}

/// Both may begin with a brace; in JSON a key or the end comes next.
fn looks_like_json(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with('[') || text.strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with(['"', '}']))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::invalid("manifest", Code::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, name: Option<&str>, text: &str) -> Entry {
        Entry { id: id.to_owned(), name: name.map(str::to_owned), text: text.to_owned() }
    }

    #[test]
    fn knows_the_tools_by_their_shape() {
        let map = r#"{ "b": "query B { b }", "a": "query A { a }" }"#;
        assert_eq!(read(map).unwrap(), [entry("b", None, "query B { b }"), entry("a", None, "query A { a }")]);
        let twice = r#"{ "a": "query A { a }", "a": "query B { b }" }"#;
        assert_eq!(read(twice).unwrap(), [entry("a", None, "query A { a }"), entry("a", None, "query B { b }")]);
        let apollo = r#"{ "format": "apollo-persisted-query-manifest", "version": 1,
            "operations": [{ "id": "x", "name": "A", "type": "query", "body": "query A { a }" }] }"#;
        assert_eq!(read(apollo).unwrap(), [entry("x", Some("A"), "query A { a }")]);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(read("abc").unwrap(), [entry(abc, None, "abc")]);
        assert_eq!(read("{ me { role } }").unwrap()[0].text, "{ me { role } }");
        assert_eq!(read("{}").unwrap(), []);
    }

    #[test]
    fn says_what_it_cannot_read() {
        for (bad, wanted) in [
            ("", "manifest: Is empty"),
            ("[]", "manifest: Is neither a manifest, which is a JSON object, nor GraphQL"),
            (r#"{ "a": 1 }"#, "manifest: \"a\" must be the text of a document"),
            (r#"{ "format": "apollo-persisted-query-manifest", "version": 2, "operations": [] }"#, "manifest: Only version 1 of"),
            (
                r#"{ "format": "apollo-persisted-query-manifest", "version": 1, "operations": [{ "id": "a" }] }"#,
                "manifest: operations[0] must have",
            ),
            (r#"{ "a": "#, "manifest: Is not JSON"),
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{bad}: {error}");
        }
    }
}
