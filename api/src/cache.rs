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
use mdl::versions::{SLICE, Stamp, Versions};
use mdl::{Actor, App, instruments};
use metrics::{Counter, counter, gauge};
use moka::Expiry;
use moka::future::Cache;
use moka::ops::compute::Op;
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
    /// By the names of the questions: a new answer takes the place of the old one.
    kept: Cache<Key, Kept>,
    /// Answers that are being made. Nothing stays here.
    making: Cache<Key, Arc<Entry>>,
    shared: Arc<Shared>,
    _following: AbortOnDropHandle<()>,
}

/// An answer, and what it was made of.
#[derive(Clone)]
struct Kept {
    stamp: Stamp,
    entry: Arc<Entry>,
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
    name: Key,
    key: Key,
    stamp: Stamp,
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
            .weigher(|_, kept: &Kept| kept.entry.weight())
            .expire_after(UntilExpired)
            .build();
        Some(Self {
            versions: app.versions.clone(),
            max_ttl: Duration::from_secs(config.ttl_seconds),
            kept,
            making: Cache::new(0),
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
        let missing = || Missing { name: question.name, key: question.key(&stamp), stamp, ttl: question.policy.ttl };
        self.kept_under(&question.name, &stamp).await.ok_or_else(missing)
    }

    /// The answer that was missing: another process has put it into Redis, or `execute` makes it. Of many that ask the same at
    /// once, one executes.
    pub async fn make<'a>(
        &self,
        missing: Missing,
        execute: impl FnOnce() -> BoxFuture<'a, Answer> + Send,
    ) -> (Result<Arc<Entry>, Arc<Unkept>>, Source) {
        let Missing { name, key, stamp, ttl } = missing;
        let shared = stamp.shared;
        let source = OnceLock::new();
        let make = async {
            // It may have been made since it was found missing.
            if let Some(entry) = self.kept_under(&name, &stamp).await {
                return Ok(entry);
            }
            let told = if shared { self.shared.get(&key).await } else { None };
            let _first = source.set(if told.is_some() { Source::Redis } else { Source::Made });
            let entry = match told {
                Some(entry) => Arc::new(entry),
                None => {
                    let made = Arc::new(keepable(execute().await, if shared { ttl } else { ttl.min(2 * SLICE) })?);
                    if shared {
                        self.shared.put(key, made.clone());
                    }
                    made
                }
            };
            // Before it is not being made any more, so that nobody begins again in between.
            self.keep(name, stamp, entry.clone()).await;
            Ok(entry)
        };
        let found = self.making.try_get_with(key, Box::pin(make)).await;
        let source = source.into_inner().unwrap_or(Source::Shared);
        if source != Source::Shared {
            gauge!(instruments::CACHE_BYTES).set(self.kept.weighted_size() as f64);
        }
        (found, source)
    }

    async fn kept_under(&self, name: &Key, stamp: &Stamp) -> Option<Arc<Entry>> {
        self.kept.get(name).await.filter(|kept| kept.stamp.bytes == stamp.bytes).map(|kept| kept.entry)
    }

    /// Keeps an answer, unless a later one is there: nobody who has seen that may see an older one.
    async fn keep(&self, name: Key, stamp: Stamp, entry: Arc<Entry>) {
        let kept = Kept { stamp, entry };
        let replace = async |there: Option<moka::Entry<Key, Kept>>| match there {
            Some(there) if there.value().stamp.at > stamp.at => Op::Nop,
            _ => Op::Put(kept),
        };
        self.kept.entry(name).and_compute_with(replace).await;
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

impl Expiry<Key, Kept> for UntilExpired {
    fn expire_after_create(&self, _: &Key, kept: &Kept, now: Instant) -> Option<Duration> {
        Some(kept.entry.expires.saturating_duration_since(now))
    }

    fn expire_after_update(&self, _: &Key, kept: &Kept, now: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(kept.entry.expires.saturating_duration_since(now))
    }
}
