//! From the bytes of a request to GraphQL requests, with a sentence for everything that can be wrong.

use async_graphql::{Request, Variables};
use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// One request, or several sent at once.
#[derive(Debug)]
pub enum Requests {
    Single(Box<Request>),
    Batch(Vec<Request>),
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
        Ok(entry) => request(entry).map(|request| Requests::Single(Box::new(request))),
        Err(error) => Err(malformed(format!("The body is not JSON: {error}"))),
    }
}

/// The parameters of a GET.
pub fn query_string(query: &str) -> Result<Request, Refusal> {
    let mut fields = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let value = match &*name {
            "query" | "operationName" => Value::String(value.into_owned()),
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
pub fn request(value: Value) -> Result<Request, Refusal> {
    let Value::Object(mut fields) = value else { return Err(malformed("A request is a JSON object")) };
    let query = match fields.remove("query") {
        Some(Value::String(query)) => query,
        None | Some(Value::Null) => return Err(malformed("query is missing")),
        Some(_) => return Err(malformed("query must be a string")),
    };
    let operation_name = match fields.remove("operationName") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name),
        Some(_) => return Err(malformed("operationName must be a string")),
    };
    let variables = match fields.remove("variables") {
        None | Some(Value::Null) => Variables::default(),
        Some(variables @ Value::Object(_)) => Variables::from_json(variables),
        Some(_) => return Err(malformed("variables must be an object")),
    };
    match fields.remove("extensions") {
        // None is known here; a client may send them all the same.
        None | Some(Value::Null | Value::Object(_)) => {}
        Some(_) => return Err(malformed("extensions must be an object")),
    }
    let mut request = Request::new(query).variables(variables);
    request.operation_name = operation_name;
    Ok(request)
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
        let Ok(Requests::Single(request)) = body(one.to_string().as_bytes(), 2) else { panic!("not a request") };
        assert_eq!((request.query.as_str(), &request.operation_name), ("{ a }", &None));
        assert_eq!(serde_json::to_value(&request.variables).unwrap(), json!({ "a": [1] }));
        let two = json!([{ "query": "{ a }" }, { "query": "{ b }", "operationName": "B" }]);
        assert!(matches!(body(two.to_string().as_bytes(), 2), Ok(Requests::Batch(requests)) if requests.len() == 2));
        assert_eq!(body(two.to_string().as_bytes(), 1).unwrap_err().code, "BATCH_TOO_LONG");
    }

    #[test]
    fn says_what_is_wrong() {
        for (bad, wanted) in [
            (json!([]), "The batch is empty"),
            (json!("{ a }"), "A request is a JSON object"),
            (json!({}), "query is missing"),
            (json!({ "query": null }), "query is missing"),
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
        let request = query_string("query=%7B%20a%20%7D&variables=%7B%22a%22:1%7D&operationName=A&other=1").unwrap();
        assert_eq!((request.query.as_str(), request.operation_name.as_deref()), ("{ a }", Some("A")));
        assert!(query_string("query={a}&variables=").is_ok());
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
}
