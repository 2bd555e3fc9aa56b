//! Which media types a request sends and accepts, by the GraphQL-over-HTTP specification.

use axum::http::{HeaderMap, header};

/// How an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// `application/graphql-response+json`: a request that was not executed has a status of its own.
    GraphqlResponse,
    /// `application/json`: whatever is said about the document is said with status 200.
    Json,
}

impl Media {
    pub fn content_type(self) -> &'static str {
        match self {
            Media::GraphqlResponse => "application/graphql-response+json; charset=utf-8",
            Media::Json => "application/json; charset=utf-8",
        }
    }
}

/// How a request's body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    Json,
    Multipart,
}

/// The media type to answer with; `None` when the caller accepts neither.
pub fn accepted(headers: &HeaderMap) -> Option<Media> {
    if !headers.contains_key(header::ACCEPT) {
        return Some(Media::Json);
    }
    // For each of the two, the quality of the most specific range that covers it.
    let (mut graphql, mut json) = ((0, 0), (0, 0));
    for (range, quality) in ranges(headers) {
        match range {
            Range::Graphql => graphql = graphql.max((3, quality)),
            Range::Json => json = json.max((3, quality)),
            Range::Application => (graphql, json) = (graphql.max((2, quality)), json.max((2, quality))),
            Range::Everything => (graphql, json) = (graphql.max((1, quality)), json.max((1, quality))),
            Range::EventStream => {}
        }
    }
    match (graphql, json) {
        ((_, 0), (_, 0)) => None,
        // Who does not name the newer type may not know it.
        ((3, g), (_, j)) if g >= j && g > 0 => Some(Media::GraphqlResponse),
        ((_, g), (_, j)) if j >= g => Some(Media::Json),
        _ => Some(Media::GraphqlResponse),
    }
}

/// Whether the answer is to be an event stream: it is accepted by name, and JSON is not, or less. Clients that can read both
/// (urql) send one list for all their queries and mutations.
pub fn prefers_event_stream(headers: &HeaderMap) -> bool {
    let (mut stream, mut json) = (0, 0);
    for (range, quality) in ranges(headers) {
        match range {
            Range::EventStream => stream = stream.max(quality),
            Range::Graphql | Range::Json => json = json.max(quality),
            Range::Application | Range::Everything => {}
        }
    }
    stream > json
}

/// A media range that says something about how we can answer.
#[derive(Clone, Copy)]
enum Range {
    Graphql,
    Json,
    EventStream,
    Application,
    Everything,
}

const RANGES: [(&str, Range); 5] = [
    ("application/graphql-response+json", Range::Graphql),
    ("application/json", Range::Json),
    ("text/event-stream", Range::EventStream),
    ("application/*", Range::Application),
    ("*/*", Range::Everything),
];

/// Those of the accepted ranges that we know, each with its quality in thousandths.
fn ranges(headers: &HeaderMap) -> impl Iterator<Item = (Range, u32)> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let (_, range) = RANGES.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q="))).map_or(1000, thousandths);
        Some((range, quality))
    })
}

/// `None` when it is neither, or not UTF-8.
pub fn body_kind(headers: &HeaderMap) -> Option<BodyKind> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let value = values.next()?.to_str().ok()?;
    let encoded = headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    if values.next().is_some() || encoded {
        return None;
    }
    let mut parts = value.split(';').map(str::trim);
    match parts.next()?.to_ascii_lowercase().as_str() {
        "application/json" => {
            let mut charsets =
                parts.filter_map(|part| part.split_once('=')).filter(|(name, _)| name.eq_ignore_ascii_case("charset"));
            let utf8 = charsets.all(|(_, charset)| charset.trim_matches('"').eq_ignore_ascii_case("utf-8"));
            utf8.then_some(BodyKind::Json)
        }
        "multipart/form-data" => Some(BodyKind::Multipart),
        _ => None,
    }
}

/// `0.8` as 800. What is no number counts as 1000, as if it were not there.
fn thousandths(quality: &str) -> u32 {
    quality.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q)).map_or(1000, |q| (q * 1000.0) as u32)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: header::HeaderName, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn answers_with_what_is_accepted() {
        let accepted = |values: &[&'static str]| accepted(&headers(header::ACCEPT, values));
        for json in [
            &[] as &[&'static str],
            &["*/*"],
            &["application/*"],
            &["application/json"],
            &["application/json; charset=utf-8"],
            &["text/html,application/xhtml+xml,*/*;q=0.8"],
            &["application/graphql-response+json;q=0.5, application/json"],
            &["application/graphql-response+json;q=0, */*"],
        ] {
            assert_eq!(accepted(json), Some(Media::Json), "{json:?}");
        }
        for graphql in [
            &["application/graphql-response+json"] as &[&'static str],
            &["application/graphql-response+json; charset=utf-8"],
            &["application/graphql-response+json, application/json;q=0.9"],
            &["application/json", "application/graphql-response+json"],
            &["APPLICATION/GraphQL-Response+JSON, */*"],
            &["application/json;q=0, */*"],
        ] {
            assert_eq!(accepted(graphql), Some(Media::GraphqlResponse), "{graphql:?}");
        }
        for neither in [&["text/html"] as &[&'static str], &["application/json;q=0"], &["application/xml, text/*"], &[""]] {
            assert_eq!(accepted(neither), None, "{neither:?}");
        }
    }

    #[test]
    fn answers_with_an_event_stream_who_wants_nothing_else() {
        let prefers = |values: &[&'static str]| prefers_event_stream(&headers(header::ACCEPT, values));
        for stream in [
            &["text/event-stream"] as &[&'static str],
            &["text/event-stream, multipart/mixed"],
            &["Text/Event-Stream;q=0.5, */*;q=0.8"],
            &["application/json;q=0.9, text/event-stream"],
        ] {
            assert!(prefers(stream), "{stream:?}");
        }
        for json in [
            &[] as &[&'static str],
            &["*/*"],
            // As urql sends it.
            &[
                "application/graphql-response+json, application/graphql+json, application/json, text/event-stream, multipart/mixed",
            ],
            &["text/event-stream;q=0"],
        ] {
            assert!(!prefers(json), "{json:?}");
        }
    }

    #[test]
    fn reads_json_in_utf8_and_multipart_only() {
        let kind = |values: &[&'static str]| body_kind(&headers(header::CONTENT_TYPE, values));
        assert_eq!(kind(&["application/json"]), Some(BodyKind::Json));
        assert_eq!(kind(&["Application/JSON; Charset=\"UTF-8\""]), Some(BodyKind::Json));
        assert_eq!(kind(&["multipart/form-data; boundary=x"]), Some(BodyKind::Multipart));
        for other in
            ["text/plain", "application/json; charset=utf-16", "application/graphql", "application/x-www-form-urlencoded", ""]
        {
            assert_eq!(kind(&[other]), None, "{other}");
        }
        assert_eq!(kind(&[]), None);
        assert_eq!(kind(&["application/json", "text/plain"]), None);
        let mut packed = headers(header::CONTENT_TYPE, &["application/json"]);
        packed.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(body_kind(&packed), None);
    }
}
