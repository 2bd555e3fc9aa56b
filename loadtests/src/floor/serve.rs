//! The limit of answers from memory: an axum handler that does nothing but return bytes.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::any;

/// Answers every request at `address` with `body` until the process ends.
pub async fn serve(address: SocketAddr, body: Vec<u8>) -> Result<()> {
    let body = Bytes::from(body);
    let answer = any(async move || ([(CONTENT_TYPE, "application/graphql-response+json; charset=utf-8")], body));
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let router: axum::Router = axum::Router::new().fallback(answer);
    axum::serve(listener, router).await.context("the server ended")
}
