//! How a kept answer is sent: compressed as the caller likes best, and not at all when the caller has it already.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use mdl::documents::Caching;

use super::negotiate::Media;
use crate::cache::Source;
use crate::cache::entry::{Coding, Entry};
use crate::cache::policy::Policy;

/// `HIT`, `MISS`, or `BYPASS` for what is never kept.
pub const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
pub const BYPASS: HeaderValue = HeaderValue::from_static("BYPASS");

/// What an answer at this address depends on besides the address.
const VARY: HeaderValue = HeaderValue::from_static("accept, accept-encoding, authorization, x-api-key");
/// Browsers may keep it for the caller, and have to ask whether it is still so.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("private, no-cache");

/// Headers that an answer gets, here and by those around: room for all of them at once.
const HEADERS: usize = 20;

/// Who else may keep an answer to a GET request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// The caller's browser, which has to ask whether it is still so.
    Private,
    /// Every cache on the way, for so long without asking. [`VARY`] keeps callers apart there, too.
    Public(Duration),
}

impl Sharing {
    /// As whoever published the document says; but never what differs from person to person, and nothing past the day that it
    /// depends on.
    pub fn of(caching: Caching, policy: &Policy) -> Self {
        if !caching.public || policy.personal {
            return Self::Private;
        }
        Self::Public(if policy.daily { policy.ttl.min(left_of_the_day()) } else { policy.ttl })
    }

    fn cache_control(self) -> HeaderValue {
        match self {
            Sharing::Private => ASK_AGAIN,
            Sharing::Public(ttl) => {
                HeaderValue::try_from(format!("public, max-age={}", ttl.as_secs())).expect("digits can stand in a header")
            }
        }
    }
}

/// Days are those of UTC.
fn left_of_the_day() -> Duration {
    const DAY: u64 = 24 * 60 * 60;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    Duration::from_secs(DAY - now % DAY)
}

/// What a request says about how it wants to be answered.
#[derive(Debug, Clone)]
pub struct Wishes {
    coding: Coding,
    /// Of a GET; a POST's answer is not kept by anybody between us and the caller, so it asks for nothing.
    get: Option<Conditions>,
}

#[derive(Debug, Clone)]
struct Conditions {
    if_none_match: Vec<HeaderValue>,
}

impl Wishes {
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        let get = (*method != Method::POST)
            .then(|| Conditions { if_none_match: headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect() });
        Self { coding: coding(headers), get }
    }
}

/// The response with a kept answer.
pub async fn respond(entry: &Arc<Entry>, source: Source, sharing: Sharing, media: Media, wishes: &Wishes) -> Response {
    let has_it = wishes.get.as_ref().is_some_and(|get| get.if_none_match.iter().any(|tags| names(tags, &entry.etag)));
    let mut headers = HeaderMap::with_capacity(HEADERS);
    let mut response = if has_it {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let (bytes, coding) = entry.encoded(wishes.coding).await;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media.content_type()));
        if let Some(name) = coding.name() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        Response::new(Body::from(bytes))
    };
    headers.insert(header::ETAG, entry.etag.clone());
    headers.insert(header::VARY, VARY);
    if wishes.get.is_some() {
        headers.insert(header::CACHE_CONTROL, sharing.cache_control());
    }
    if source == Source::Made {
        headers.insert(X_CACHE, HeaderValue::from_static("MISS"));
    } else {
        headers.insert(X_CACHE, HeaderValue::from_static("HIT"));
        headers.insert(header::AGE, HeaderValue::from(entry.age().as_secs()));
    }
    *response.headers_mut() = headers;
    response
}

/// Whether an `If-None-Match` names this entity tag, by the weak comparison of RFC 9110.
fn names(tags: &HeaderValue, etag: &HeaderValue) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    match (tags.to_str(), etag.to_str()) {
        (Ok(tags), Ok(etag)) => tags.trim() == "*" || tags.split(',').any(|tag| opaque(tag) == opaque(etag)),
        _ => false,
    }
}

/// The coding of ours that the caller likes best; of those liked equally the smaller.
fn coding(headers: &HeaderMap) -> Coding {
    // For each, how it is liked: by its name, or else by what is said of all others.
    let (mut brotli, mut gzip, mut others, mut identity) = (None, None, None, None);
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q="))).map_or(1000, thousandths);
        match name.as_str() {
            "br" => brotli = Some(quality),
            "gzip" | "x-gzip" => gzip = Some(quality),
            "identity" => identity = Some(quality),
            "*" => others = Some(quality),
            _ => {}
        }
    }
    let brotli = brotli.or(others).unwrap_or(0);
    let gzip = gzip.or(others).unwrap_or(0);
    // Whoever does not speak of it does not mind it, and likes what they name better.
    let identity = identity.unwrap_or(0);
    match brotli.max(gzip) {
        0 => Coding::Identity,
        best if identity > best => Coding::Identity,
        _ if brotli >= gzip => Coding::Brotli,
        _ => Coding::Gzip,
    }
}

/// `0.8` as 800; 0 for what is no quality.
fn thousandths(quality: &str) -> u32 {
    quality.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q)).map_or(0, |q| (q * 1000.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compresses_as_the_caller_likes_best() {
        let coding =
            |value: &'static str| coding(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]));
        for (accepted, best) in [
            ("gzip, deflate, br, zstd", Coding::Brotli),
            ("gzip, deflate", Coding::Gzip),
            ("br;q=0.5, gzip;q=0.8", Coding::Gzip),
            ("br;q=0, gzip", Coding::Gzip),
            ("BR", Coding::Brotli),
            ("*", Coding::Brotli),
            ("*;q=0.5, br;q=0", Coding::Gzip),
            ("br;q=0.001, identity;q=0.5", Coding::Identity),
            ("identity", Coding::Identity),
            ("gzip;q=0", Coding::Identity),
            ("gzip;q=nonsense", Coding::Identity),
            ("zstd", Coding::Identity),
            ("", Coding::Identity),
        ] {
            assert_eq!(coding(accepted), best, "{accepted}");
        }
        assert_eq!(super::coding(&HeaderMap::new()), Coding::Identity);
    }

    #[test]
    fn entity_tags_are_compared_weakly() {
        let names = |tags: &'static str| names(&HeaderValue::from_static(tags), &HeaderValue::from_static("W/\"a\""));
        for same in ["W/\"a\"", "\"a\"", "\"b\", W/\"a\"", "*"] {
            assert!(names(same), "{same}");
        }
        for other in ["\"b\"", "a", "", "W/\"A\""] {
            assert!(!names(other), "{other}");
        }
    }
}
