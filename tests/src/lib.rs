//! What the integration tests share: a [`TestApp`] with a database, Redis names and files of its own, and clients of its API.
//!
//! The servers are real. `ops/dev test` starts them and says where they are (`MDL_TEST_DATABASE_URL`, `MDL_TEST_REDIS_URL`).

pub mod app;
pub mod backups;
pub mod browser;
mod client;
pub mod clients;
pub mod database;
mod direct;
pub mod postgres;
pub mod receiver;
pub mod servers;
pub mod socket;

pub use app::{PASSWORD, TestApp, email};
pub use client::{Answer, Client};
pub use database::TestDatabase;
pub use direct::{Counted, Direct};
pub use receiver::{Received, Receiver};

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Much longer than anything takes that a test waits for, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until `condition` gives a value, and fails with `what` when it never does.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, condition: impl FnMut() -> F) -> T {
    eventually_within(PATIENCE, what, condition).await
}

/// The same for what takes longer still.
pub async fn eventually_within<T, F: Future<Output = Option<T>>>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < limit, "did not happen within {} s: {what}", limit.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The project's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the project").to_owned()
}

/// A folder of the real catalogs beside the project, if they are there.
pub fn real_catalog(name: &str) -> Option<PathBuf> {
    let folder = root().join("../shared/data").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {} is not there (real catalogs are not part of the project)", folder.display());
    None
}

/// A variable that `ops/dev test` sets.
#[expect(clippy::disallowed_methods, reason = "these are not settings of the product")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
