//! Requests that are turned away before GraphQL, or instead of it: a status, and errors in the shape that GraphQL clients read.

use async_graphql::ServerError;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mdl::Error;
use mdl::error::causes;
use serde::Serialize;
use tracing::error;

use super::negotiate::Media;
use crate::graphql::error::{coded, message};
use crate::rate_limit::Limited;

/// Why a request is not answered.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    pub code: &'static str,
    pub message: String,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), header: None }
    }

    /// As told by `mdl`. What is wrong with one of our servers is logged here.
    pub fn from_error(error: Error) -> Self {
        let status = match &error {
            Error::Invalid(_) => StatusCode::BAD_REQUEST,
            Error::NotFound { .. } => StatusCode::NOT_FOUND,
            Error::VersionConflict { .. } | Error::IdempotencyConflict(_) => StatusCode::CONFLICT,
            Error::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Error::Forbidden(_) => StatusCode::FORBIDDEN,
            Error::CursorTooOld => StatusCode::GONE,
            Error::TooSlow | Error::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Error::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if let Error::Unavailable { source, .. } | Error::Internal(source) = &error {
            error!(error = causes(source.as_ref()), "Could not answer: {error}");
        }
        let header = match &error {
            Error::Unauthenticated(_) => {
                Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"mdl\", error=\"invalid_token\"")))
            }
            Error::Unavailable { .. } => Some((header::RETRY_AFTER, HeaderValue::from_static("1"))),
            Error::TooMany(_) | Error::TooSlow => Some((header::RETRY_AFTER, HeaderValue::from_static("5"))),
            _ => None,
        };
        Self { status, code: error.code(), message: message(&error), header: header.map(Box::new) }
    }

    pub fn rate_limited(limited: Limited, of_what: &str) -> Self {
        let seconds = limited.retry_after_seconds();
        Self {
            header: Some(Box::new((header::RETRY_AFTER, HeaderValue::from(seconds)))),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", format!("Too many {of_what}; try again in {seconds} s"))
        }
    }

    pub fn timed_out(seconds: u64) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "TIMEOUT", format!("The operation took longer than {seconds} s and was given up"))
    }

    pub fn with_header(self, name: HeaderName, value: &'static str) -> Self {
        Self { header: Some(Box::new((name, HeaderValue::from_static(value)))), ..self }
    }

    /// The errors as GraphQL says them, for an answer of its own or for one place in a batch.
    pub fn to_json(&self) -> String {
        errors_json(&self.errors())
    }

    /// The errors as GraphQL has them.
    pub fn errors(&self) -> Vec<ServerError> {
        vec![coded(ServerError::new(&self.message, None), self.code)]
    }

    pub fn respond(self, media: Media) -> Response {
        let mut response = (self.status, [(header::CONTENT_TYPE, media.content_type())], self.to_json()).into_response();
        if let Some((name, value)) = self.header.map(|header| *header) {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// The answer of a request of which nothing was executed: it has no `data`.
pub fn errors_json(errors: &[ServerError]) -> String {
    #[derive(Serialize)]
    struct Errors<'a> {
        errors: &'a [ServerError],
    }
    to_json(&Errors { errors })
}

/// An answer as text.
pub fn to_json(value: &impl Serialize) -> String {
    // Answers are maps with text keys, finite numbers, and text: what JSON can hold.
    serde_json::to_string(value).expect("an answer is plain data")
}
