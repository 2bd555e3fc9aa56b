//! Files, by the GraphQL multipart request specification: `operations`, `map`, then one file, which goes to a temporary file
//! that nobody else can open.
//!
//! A form of another site could send multipart with the visitor's address, though not with headers of its own: so one is asked
//! for, and a credential before anything is read.

use std::collections::BTreeMap;
use std::time::Duration;

use async_graphql::UploadValue;
use axum::body::Body;
use axum::extract::multipart::Field;
use axum::extract::{FromRequest, Multipart};
use axum::http::StatusCode;
use axum::http::request::Parts;
use http_body_util::Limited;
use mdl::{App, Error};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::caller::Caller;
use super::graphql::slow_body;
use super::parse::{self, Asked, malformed};
use super::refusal::Refusal;

/// Any of these, with any value, shows that a script of our own kind sent the request.
const PREFLIGHT_HEADERS: &[&str] = &["graphql-require-preflight", "apollo-require-preflight", "x-requested-with"];
/// Longest `map`: one file, one variable.
const MAX_MAP: usize = 4_096;
/// Longest that an upload may take altogether. Each piece of it has the time of a request.
const MAX_TIME: Duration = Duration::from_secs(600);

/// Reads a multipart request: the request with its file in place, and the file's SHA-256.
pub async fn read(app: &App, caller: &Caller, parts: Parts, body: Body) -> Result<(Asked, [u8; 32]), Refusal> {
    if !PREFLIGHT_HEADERS.iter().any(|name| parts.headers.get(*name).is_some_and(|value| !value.is_empty())) {
        let message = "An upload needs the header GraphQL-Require-Preflight, with any value";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "PREFLIGHT_REQUIRED", message));
    }
    if caller.actor.is_none() {
        return Err(Refusal::from_error(Error::Unauthenticated("Sign in, or send an API key, to upload a file")));
    }
    // Over all parts, with some room for what is between them. The route has switched axum's own limit off.
    let config = &app.config;
    let all = config.imports.max_bytes.saturating_add(config.http.max_body_bytes as u64).saturating_add(MAX_MAP as u64 + 65_536);
    let body = Body::new(Limited::new(body, usize::try_from(all).unwrap_or(usize::MAX)));
    let request = axum::extract::Request::from_parts(parts, body);
    let form = Multipart::from_request(request, &()).await.map_err(|error| malformed(error.body_text()))?;
    tokio::time::timeout(MAX_TIME, read_form(app, form)).await.map_err(|_| slow_body())?
}

async fn read_form(app: &App, form: Multipart) -> Result<(Asked, [u8; 32]), Refusal> {
    let mut form = Form { multipart: form, patience: Duration::from_secs(app.config.http.request_timeout_seconds) };
    let operations = form.text("operations", app.config.http.max_body_bytes).await?;
    let map = form.text("map", MAX_MAP).await?;
    let value = serde_json::from_slice(&operations).map_err(|error| malformed(format!("operations is not JSON: {error}")))?;
    let mut asked = parse::request(value)?;
    let (part, variable) = destination(&map)?;

    let (upload, sha256) = form.file(&part, app.config.imports.max_bytes).await?;
    asked.request.set_upload(&variable, upload);
    if asked.request.uploads.is_empty() {
        return Err(malformed(format!("map names {variable}, which operations does not have: set it to null there")));
    }
    Ok((asked, sha256))
}

/// From `map`: the name of the file's part, and the variable that it is the value of.
fn destination(map: &[u8]) -> Result<(String, String), Refusal> {
    let map: BTreeMap<String, Vec<String>> =
        serde_json::from_slice(map).map_err(|error| malformed(format!("map is not an object of lists of paths: {error}")))?;
    let mut entries = map.into_iter();
    match (entries.next(), entries.next()) {
        (Some((part, paths)), None) => match <[String; 1]>::try_from(paths) {
            Ok([path]) if path.starts_with("variables.") => Ok((part, path)),
            _ => Err(malformed("map must give the file one path, which starts with variables.")),
        },
        _ => Err(malformed("map must name one file")),
    }
}

struct Form {
    multipart: Multipart,
    patience: Duration,
}

impl Form {
    /// The next part, which must have this name.
    async fn part(&mut self, name: &str) -> Result<Field<'_>, Refusal> {
        let next = tokio::time::timeout(self.patience, self.multipart.next_field()).await.map_err(|_| slow_body())?;
        match next.map_err(|error| malformed(error.body_text()))? {
            Some(field) if field.name() == Some(name) => Ok(field),
            Some(field) => {
                Err(malformed(format!("The part {name:?} must come here, not {:?}", field.name().unwrap_or_default())))
            }
            None => Err(malformed(format!("The part {name:?} is missing"))),
        }
    }

    async fn text(&mut self, name: &'static str, limit: usize) -> Result<Vec<u8>, Refusal> {
        let patience = self.patience;
        let mut field = self.part(name).await?;
        let mut text = Vec::new();
        while let Some(chunk) = next_chunk(&mut field, patience).await? {
            if text.len() + chunk.len() > limit {
                return Err(too_long(name, limit as u64));
            }
            text.extend_from_slice(&chunk);
        }
        Ok(text)
    }

    async fn file(&mut self, name: &str, limit: u64) -> Result<(UploadValue, [u8; 32]), Refusal> {
        let patience = self.patience;
        let mut field = self.part(name).await?;
        let filename = field.file_name().unwrap_or("upload").to_owned();
        let content_type = field.content_type().map(str::to_owned);
        let broken = |error: std::io::Error| Refusal::from_error(Error::internal(error));
        let file = tokio::task::spawn_blocking(tempfile::tempfile).await.map_err(std::io::Error::other).and_then(|file| file);
        let mut file = tokio::fs::File::from_std(file.map_err(broken)?);
        let (mut bytes, mut hash) = (0, Sha256::new());
        while let Some(chunk) = next_chunk(&mut field, patience).await? {
            bytes += chunk.len() as u64;
            if bytes > limit {
                return Err(too_long("file", limit));
            }
            hash.update(&chunk);
            file.write_all(&chunk).await.map_err(broken)?;
        }
        drop(field);
        let more = tokio::time::timeout(patience, self.multipart.next_field()).await.map_err(|_| slow_body())?;
        if more.map_err(|error| malformed(error.body_text()))?.is_some() {
            return Err(malformed("One file can be uploaded at once"));
        }
        file.flush().await.map_err(broken)?;
        file.rewind().await.map_err(broken)?;
        Ok((UploadValue { filename, content_type, content: file.into_std().await }, hash.finalize().into()))
    }
}

async fn next_chunk(field: &mut Field<'_>, patience: Duration) -> Result<Option<bytes::Bytes>, Refusal> {
    let chunk = tokio::time::timeout(patience, field.chunk()).await.map_err(|_| slow_body())?;
    chunk.map_err(|error| malformed(format!("The upload broke off: {}", error.body_text())))
}

fn too_long(name: &str, limit: u64) -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LONG", format!("{name} is longer than {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use super::destination;

    #[test]
    fn a_file_has_one_destination() {
        let found = destination(br#"{ "0": ["variables.input.file"] }"#).unwrap();
        assert_eq!(found, ("0".to_owned(), "variables.input.file".to_owned()));
        for bad in [
            r#"{}"#,
            r#"[]"#,
            r#"{ "0": [] }"#,
            r#"{ "0": "variables.file" }"#,
            r#"{ "0": ["query"] }"#,
            r#"{ "0": ["0.variables.file"] }"#,
            r#"{ "0": ["variables.a", "variables.b"] }"#,
            r#"{ "0": ["variables.a"], "1": ["variables.b"] }"#,
        ] {
            assert_eq!(destination(bad.as_bytes()).unwrap_err().code, "BAD_REQUEST", "{bad}");
        }
    }
}
