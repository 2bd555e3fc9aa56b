//! From the bytes of a request to GraphQL requests, with a sentence for everything that can be wrong.

use async_graphql::{Request, Variables};
use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::refusal::Refusal;
use crate::documents::Source;

/// One request, whose document is still to be found: the text in `request` is empty.
#[derive(Debug)]
pub struct Asked {
    pub source: Source,
    /// In a box: it is large, and passed on often.
    pub request: Box<Request>,
}

/// One request, or several sent at once.
#[derive(Debug)]
pub enum Requests {
    Single(Asked),
    Batch(Vec<Asked>),
}

/// A JSON body.
pub fn body(bytes: &[u8], max_batch: usize) -> Result<Requests, Refusal> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Array(entries)) if entries.is_empty() => Err(malformed("The batch is empty")),
        Ok(Value::Array(entries)) if entries.len() > max_batch => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "BATCH_TOO_LONG",
            format!("The batch has {} requests; at most {max_batch} are allowed", entries.len()),
        )),
        Ok(Value::Array(entries)) => entries.into_iter().map(request).collect::<Result<_, _>>().map(Requests::Batch),
        Ok(entry) => request(entry).map(Requests::Single),
        Err(error) => Err(malformed(format!("The body is not JSON: {error}"))),
    }
}

/// The parameters of a GET.
pub fn query_string(query: &str) -> Result<Asked, Refusal> {
    let mut fields = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let value = match &*name {
            "query" | "documentId" | "operationName" => Value::String(value.into_owned()),
            "variables" | "extensions" if value.is_empty() => Value::Null,
            "variables" | "extensions" => {
                serde_json::from_str(&value).map_err(|error| malformed(format!("{name} is not JSON: {error}")))?
            }
            _ => continue,
        };
        if fields.insert(name.clone().into_owned(), value).is_some() {
            return Err(malformed(format!("{name} is given twice")));
        }
    }
    request(Value::Object(fields))
}

/// One request, as JSON.
pub fn request(value: Value) -> Result<Asked, Refusal> {
    let Value::Object(mut fields) = value else { return Err(malformed("A request is a JSON object")) };
    let mut string = |name: &str| match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(malformed(format!("{name} must be a string"))),
    };
    let (query, document_id, operation_name) = (string("query")?, string("documentId")?, string("operationName")?);
    let variables = match fields.remove("variables") {
        None | Some(Value::Null) => Variables::default(),
        Some(variables @ Value::Object(_)) => Variables::from_json(variables),
        Some(_) => return Err(malformed("variables must be an object")),
    };
    let hash = match fields.remove("extensions") {
        None | Some(Value::Null) => None,
        Some(Value::Object(mut extensions)) => match extensions.remove("persistedQuery") {
            None | Some(Value::Null) => None,
            Some(persisted) => Some(persisted_query(persisted)?),
        },
        Some(_) => return Err(malformed("extensions must be an object")),
    };
    let source = match (query, document_id, hash) {
        (None, None, None) => return Err(malformed("query is missing")),
        (None, Some(id), None) => Source::Id(id),
        (_, Some(_), _) => return Err(malformed("documentId is instead of query and of persistedQuery, not beside them")),
        (text, None, Some(hash)) => Source::Hash { hash, text },
        (Some(text), None, None) => Source::Text(text),
    };
    let mut request = Box::new(Request::new(String::new()).variables(variables));
    // Some clients have a field for it, and send it empty.
    request.operation_name = operation_name.filter(|name| !name.is_empty());
    Ok(Asked { source, request })
}

/// The hash of Apollo's protocol, version 1.
fn persisted_query(value: Value) -> Result<String, Refusal> {
    match (value.get("version").and_then(Value::as_u64), value.get("sha256Hash")) {
        (Some(1), Some(Value::String(hash))) => Ok(hash.clone()),
        (Some(1), _) => Err(malformed("extensions.persistedQuery.sha256Hash must be a string")),
        _ => Err(malformed("extensions.persistedQuery must be of version 1")),
    }
}

/// What the specification calls not a well-formed GraphQL-over-HTTP request.
pub fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_one_and_many() {
        let one = json!({ "query": "{ a }", "operationName": null, "variables": { "a": [1] }, "extensions": {}, "id": 7 });
        let Ok(Requests::Single(asked)) = body(one.to_string().as_bytes(), 2) else { panic!("not a request") };
        assert_eq!((&asked.source, &asked.request.operation_name), (&Source::Text("{ a }".to_owned()), &None));
        assert_eq!(serde_json::to_value(&asked.request.variables).unwrap(), json!({ "a": [1] }));
        let two = json!([{ "query": "{ a }" }, { "query": "{ b }", "operationName": "B" }]);
        assert!(matches!(body(two.to_string().as_bytes(), 2), Ok(Requests::Batch(requests)) if requests.len() == 2));
        assert_eq!(body(two.to_string().as_bytes(), 1).unwrap_err().code, "BATCH_TOO_LONG");
        let unnamed = request(json!({ "query": "{ a }", "operationName": "" })).unwrap();
        assert_eq!(unnamed.request.operation_name, None);
    }

    #[test]
    fn says_what_is_wrong() {
        for (bad, wanted) in [
            (json!([]), "The batch is empty"),
            (json!("{ a }"), "A request is a JSON object"),
            (json!({}), "query is missing"),
            (json!({ "query": null }), "query is missing"),
            (json!({ "documentId": 1 }), "documentId must be a string"),
            (
                json!({ "documentId": "a", "query": "{ a }" }),
                "documentId is instead of query and of persistedQuery, not beside them",
            ),
            (
                json!({ "extensions": { "persistedQuery": { "version": 2, "sha256Hash": "a" } } }),
                "extensions.persistedQuery must be of version 1",
            ),
            (
                json!({ "extensions": { "persistedQuery": { "version": 1 } } }),
                "extensions.persistedQuery.sha256Hash must be a string",
            ),
            (json!({ "query": { "a": 1 } }), "query must be a string"),
            (json!({ "query": "{ a }", "operationName": 1 }), "operationName must be a string"),
            (json!({ "query": "{ a }", "variables": [] }), "variables must be an object"),
            (json!({ "query": "{ a }", "variables": "{}" }), "variables must be an object"),
            (json!({ "query": "{ a }", "extensions": true }), "extensions must be an object"),
            (json!([{ "query": "{ a }" }, null]), "A request is a JSON object"),
        ] {
            let refusal = body(bad.to_string().as_bytes(), 10).unwrap_err();
            assert_eq!((refusal.code, &*refusal.message), ("BAD_REQUEST", wanted), "{bad}");
        }
        for bad in [b"".as_slice(), b"{", b"\xff\xfe", b"{} {}"] {
            assert!(body(bad, 10).unwrap_err().message.starts_with("The body is not JSON"), "{bad:?}");
        }
    }

    #[test]
    fn reads_a_query_string() {
        let asked = query_string("query=%7B%20a%20%7D&variables=%7B%22a%22:1%7D&operationName=A&other=1").unwrap();
        assert_eq!((asked.source, asked.request.operation_name.as_deref()), (Source::Text("{ a }".to_owned()), Some("A")));
        assert_eq!(query_string("query={a}&variables=&operationName=").unwrap().request.operation_name, None);
        for bad in [
            "",
            "variables={}",
            "query={a}&query={b}",
            "query={a}&variables={",
            "query={a}&variables=[]",
            "query={a}&extensions=1",
        ] {
            assert_eq!(query_string(bad).unwrap_err().code, "BAD_REQUEST", "{bad}");
        }
    }

    #[test]
    fn reads_names_of_documents() {
        let source = |query: &str| query_string(query).unwrap().source;
        assert_eq!(source("documentId=sha256:ab&variables={}"), Source::Id("sha256:ab".to_owned()));
        let extensions = "extensions={%22persistedQuery%22:{%22version%22:1,%22sha256Hash%22:%22ab%22}}";
        assert_eq!(source(extensions), Source::Hash { hash: "ab".to_owned(), text: None });
        let text = Some("{a}".to_owned());
        assert_eq!(source(&format!("query={{a}}&{extensions}")), Source::Hash { hash: "ab".to_owned(), text });
        assert_eq!(source("query={a}&extensions={%22other%22:1}"), Source::Text("{a}".to_owned()));
    }
}
