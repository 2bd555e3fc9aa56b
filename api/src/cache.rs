//! The response cache: whole answers, kept under what was asked, by whom it may be seen, and the versions of what they are
//! made of. A write makes new versions, and nobody asks for the old answers again: see `mdl::versions`, and ADR 7.
//!
//! | part | does |
//! |---|---|
//! | [`policy`] | which operations are kept, and what they are made of: from the document alone |
//! | [`question`] | what is asked, as the key of its answer |
//! | [`entry`] | an answer as bytes, and compressed |
//! | [`shared`] | the answers that all processes share, in Redis |
//! | [`used`] | what is asked often, for those who make its answers before somebody asks again |
//!
//! The versions are read before the data is: an answer can be newer than its key says, and never older.

pub mod entry;
pub mod policy;
pub mod question;
mod shared;
pub mod used;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_graphql::ServerError;
use async_graphql::parser::types::OperationType;
use futures::future::BoxFuture;
use mdl::versions::{SLICE, Versions};
use mdl::{Actor, App, instruments};
use metrics::{Counter, counter, gauge};
use moka::Expiry;
use moka::future::Cache;
use tokio_util::task::AbortOnDropHandle;

use crate::graphql::executor::{Answer, Prepared};
use entry::Entry;
use policy::Policy;
use question::{Key, Question};
use shared::Shared;

/// Longer answers are not kept: they would push many others out.
const MAX_BYTES: usize = 2 << 20;

/// The answers that this process keeps, and the way to those that all share.
pub struct ResponseCache {
    versions: Versions,
    max_ttl: Duration,
    kept: Cache<Key, Arc<Entry>>,
    shared: Arc<Shared>,
    _following: AbortOnDropHandle<()>,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Of this process's memory.
    Memory,
    /// Of Redis, where another process has put it.
    Redis,
    /// Another request was asking the same at the same time.
    Shared,
    /// It was made for this request.
    Made,
}

/// An answer that is not in this process's memory.
pub struct Missing {
    key: Key,
    /// Whether other processes have the same key for it.
    shared: bool,
    /// How long it may be kept.
    ttl: Duration,
}

/// An answer that cannot be kept. Whoever waited for it gets it, too.
#[derive(Debug, Clone)]
pub enum Unkept {
    TooLong(String),
    /// With errors.
    Failed(String),
    Rejected(Vec<ServerError>),
    TimedOut,
}

impl ResponseCache {
    /// `None` when it is turned off. Follows the changes of all processes, so it needs a runtime.
    pub fn start(app: &App) -> Option<Self> {
        let config = &app.config.cache;
        if config.bytes == 0 {
            return None;
        }
        let kept = Cache::builder()
            .max_capacity(config.bytes)
            .weigher(|_, entry: &Arc<Entry>| entry.weight())
            .expire_after(UntilExpired)
            .build();
        Some(Self {
            versions: app.versions.clone(),
            max_ttl: Duration::from_secs(config.ttl_seconds),
            kept,
            shared: Arc::new(Shared::new(&app.config.redis)?),
            _following: app.versions.follow(),
        })
    }

    /// What is asked, if its answer may be kept. `None` otherwise.
    pub fn question(&self, actor: &Actor, prepared: &Prepared) -> Option<Question> {
        let policy = policy_of(prepared)?;
        let policy = Policy { ttl: policy.ttl.min(self.max_ttl), ..policy.clone() };
        let (document, name) = (prepared.document_hash(), prepared.operation().name.as_deref());
        Some(Question::new(policy::schema_fingerprint(), actor, document, name, prepared.variables(), policy))
    }

    /// The answer that is in this process's memory, or what it takes to make one.
    pub async fn find(&self, question: &Question) -> Result<Arc<Entry>, Missing> {
        let stamp = self.versions.stamp(question.tenant, &question.made_of).await;
        let missing = Missing { key: question.key(&stamp), shared: stamp.shared, ttl: question.policy.ttl };
        self.kept.get(&missing.key).await.ok_or(missing)
    }

    /// The answer that was missing: another process has put it into Redis, or `execute` makes it. Of many that ask the same at
    /// once, one executes.
    pub async fn make<'a>(
        &self,
        missing: Missing,
        execute: impl FnOnce() -> BoxFuture<'a, Answer> + Send,
    ) -> (Result<Arc<Entry>, Arc<Unkept>>, Source) {
        let Missing { key, shared, ttl } = missing;
        let source = OnceLock::new();
        let make = async {
            if shared && let Some(entry) = self.shared.get(&key).await {
                let _first = source.set(Source::Redis);
                return Ok(Arc::new(entry));
            }
            let _first = source.set(Source::Made);
            let entry = keepable(execute().await, if shared { ttl } else { ttl.min(2 * SLICE) })?;
            let entry = Arc::new(entry);
            if shared {
                self.shared.put(key, entry.clone());
            }
            Ok(entry)
        };
        let found = self.kept.try_get_with(key, Box::pin(make)).await;
        let source = source.into_inner().unwrap_or(Source::Shared);
        if source != Source::Shared {
            gauge!(instruments::CACHE_BYTES).set(self.kept.weighted_size() as f64);
        }
        (found, source)
    }
}

/// How the answer to an operation is kept. `None` when it is not.
pub fn policy_of(prepared: &Prepared) -> Option<&Policy> {
    let operation = prepared.operation();
    if operation.kind != OperationType::Query {
        return None;
    }
    operation.policy.get_or_init(|| policy::of(&prepared.document.document, prepared.definition()?)).as_ref()
}

impl Source {
    /// Counts requests that were answered from here.
    pub fn counter(self) -> Counter {
        let name = match self {
            Source::Memory => "memory",
            Source::Redis => "redis",
            Source::Shared => "shared",
            Source::Made => "miss",
        };
        counter!(instruments::CACHE_REQUESTS, "source" => name)
    }
}

/// Only what was executed without errors is kept.
fn keepable(answer: Answer, ttl: Duration) -> Result<Entry, Unkept> {
    let (kept, outcome) = match answer {
        Answer::Executed(executed) => {
            let body = executed.to_json();
            match (executed.failed(), body.len() <= MAX_BYTES) {
                (false, true) => (Ok(Entry::new(body.into(), ttl)), "kept"),
                (false, false) => (Err(Unkept::TooLong(body)), "too_large"),
                (true, _) => (Err(Unkept::Failed(body)), "errors"),
            }
        }
        Answer::Rejected(errors) => (Err(Unkept::Rejected(errors)), "errors"),
        Answer::TimedOut => (Err(Unkept::TimedOut), "errors"),
    };
    counter!(instruments::CACHE_FILLS, "outcome" => outcome).increment(1);
    kept
}

/// Each entry says for itself how long it keeps.
struct UntilExpired;

impl Expiry<Key, Arc<Entry>> for UntilExpired {
    fn expire_after_create(&self, _: &Key, entry: &Arc<Entry>, now: Instant) -> Option<Duration> {
        Some(entry.expires.saturating_duration_since(now))
    }
}
