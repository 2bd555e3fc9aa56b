//! `/export/catalog`: the caller's catalog as a file that an import takes back. docs/guide/exports.md is its contract.
//!
//! Each export holds a connection of the pool for as long as its client reads, so there are few at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use futures::stream::{self, Stream, StreamExt};
use mdl::exports::{self, Export, Format, Patience};
use mdl::ids::TenantId;
use mdl::{Error, Result};
use serde::Deserialize;

use super::Server;
use super::caller::{Caller, in_time};
use super::negotiate::Media;
use super::parse::malformed;
use super::refusal::Refusal;

/// How long a client may take, as for an upload.
const PATIENCE: Patience = Patience { piece: Duration::from_secs(30), whole: Duration::from_secs(600) };
/// Exports take at most one of so many connections of the pool.
const SHARE_OF_POOL: u32 = 4;

/// What is asked for, in the address.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    format: Option<String>,
}

/// The whole catalog, in the format that is asked for.
pub async fn catalog(
    State(server): State<Arc<Server>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    request: axum::extract::Request,
) -> Response {
    let (parts, _) = request.into_parts();
    answer(&server, &parts, wanted).await.unwrap_or_else(|refusal| refusal.respond(Media::Json))
}

async fn answer(server: &Arc<Server>, parts: &Parts, wanted: Result<Query<Wanted>, QueryRejection>) -> Result<Response, Refusal> {
    let caller = Caller::identify(server, parts).await?;
    let actor = caller
        .actor
        .as_ref()
        .ok_or_else(|| Refusal::from_error(Error::Unauthenticated("Sign in, or send an API key, to export the catalog")))?;
    let Query(wanted) = wanted.map_err(|rejection| malformed(rejection.body_text()))?;
    let format = wanted.format.map_or(Ok(Format::Ndjson), |name| Format::parse(&name)).map_err(Refusal::from_error)?;
    let running = server.exports.begin(actor.tenant).map_err(Refusal::from_error)?;
    let export = in_time(server, exports::start(&server.app, actor, format, Some(PATIENCE))).await?;
    let content_type = match format {
        Format::Json => "application/json",
        Format::Ndjson => "application/x-ndjson",
        Format::Yaml => "application/yaml",
    };
    let file = format!("attachment; filename=\"catalog-{}.{}\"", Utc::now().format("%Y-%m-%d"), format.as_str());
    let headers = [(header::CONTENT_TYPE, content_type.to_owned()), (header::CONTENT_DISPOSITION, file)];
    Ok((headers, Body::from_stream(until_read(export, running))).into_response())
}

/// The export, which runs no more before its client sees the end. An error breaks the connection, so that nobody takes what has
/// come for the whole.
fn until_read(export: Export, running: Running) -> impl Stream<Item = Result<bytes::Bytes>> {
    stream::unfold((export, Some(running)), async |(mut export, running)| {
        let piece = export.next().await?;
        let running = running.filter(|_| piece.is_ok());
        Some((piece, (export, running)))
    })
}

/// The exports that run, by tenant, of which there are few together.
pub struct Exports {
    together: u32,
    running: Mutex<HashMap<TenantId, u32>>,
}

/// One of the exports that run, until it is dropped.
struct Running {
    exports: Arc<Exports>,
    tenant: TenantId,
}

impl Exports {
    /// With a pool of this size.
    pub fn new(pool_size: u32) -> Arc<Self> {
        Arc::new(Self { together: (pool_size / SHARE_OF_POOL).max(1), running: Mutex::default() })
    }

    /// One more, unless there are too many. Nobody has more than half of what there may be.
    fn begin(self: &Arc<Self>, tenant: TenantId) -> Result<Running> {
        let mut running = self.lock();
        if running.get(&tenant).is_some_and(|of_tenant| *of_tenant >= self.together.div_ceil(2)) {
            return Err(Error::TooMany("exports of one tenant"));
        }
        if running.values().sum::<u32>() >= self.together {
            return Err(Error::TooMany("exports"));
        }
        *running.entry(tenant).or_default() += 1;
        Ok(Running { exports: self.clone(), tenant })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, u32>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.exports.lock();
        if let Some(of_tenant) = running.get_mut(&self.tenant) {
            *of_tenant -= 1;
            if *of_tenant == 0 {
                running.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_keeps_others_from_exporting() {
        let exports = Exports::new(16);
        let [one, two, three] = [TenantId::new(), TenantId::new(), TenantId::new()];
        let held = [exports.begin(one), exports.begin(one), exports.begin(two)].map(Result::unwrap);
        let refused = |tenant| exports.begin(tenant).err().map(|error| error.to_string());
        assert_eq!(refused(one).as_deref(), Some("Too many exports of one tenant at once"));
        let last = exports.begin(two).unwrap();
        assert_eq!(refused(three).as_deref(), Some("Too many exports at once"));
        drop(last);
        assert_eq!(refused(three), None);
        drop(held);
        assert!(exports.lock().is_empty(), "who has left is forgotten");
        assert!(Exports::new(2).begin(one).is_ok());
    }
}
