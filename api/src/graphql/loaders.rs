//! One set of loaders per operation, on its snapshot: what the nested fields of one level ask for goes in one statement.

mod domains;
mod metrics;
mod objectives;
mod people;

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use ::dataloader::BatchFn;
use ::dataloader::cached::Loader;
use futures::future::BoxFuture;
use mdl::db::Snapshot;
use mdl::error::Error;

pub use domains::DomainLoaders;
pub use metrics::MetricLoaders;
pub use objectives::ObjectiveLoaders;
pub use people::PeopleLoaders;

use super::error::{log, outward};

/// Rounds that a loader waits for further keys. Fewer split the batches of a level whose parents came from a batch themselves;
/// more only cost time.
const YIELDS: usize = 10;
/// Keys in one statement: more than a page of pages asks for, and still a short array for PostgreSQL.
const BATCH: usize = 10_000;

/// The loaders of one operation.
pub struct Loaders {
    pub domains: DomainLoaders,
    pub metrics: MetricLoaders,
    pub objectives: ObjectiveLoaders,
    pub people: PeopleLoaders,
}

impl Loaders {
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            domains: DomainLoaders::new(&snapshot),
            metrics: MetricLoaders::new(&snapshot),
            objectives: ObjectiveLoaders::new(&snapshot),
            people: PeopleLoaders::new(&snapshot),
        }
    }
}

/// What a loader answers for a key: the value, that there is none, or why its whole batch failed.
pub type Loaded<V> = Result<Option<V>, Arc<Error>>;

/// Reads the values of many keys, in any order; what is left out has none.
pub type Fetch<K, V> = fn(Arc<Snapshot>, Vec<K>) -> BoxFuture<'static, mdl::Result<Vec<(K, V)>>>;

/// A loader from keys to values.
pub struct Batched<K: Eq + Hash + Clone, V: Clone>(Loader<K, Loaded<V>, Batch<K, V>>);

impl<K: Eq + Hash + Clone + Debug, V: Clone> Batched<K, V> {
    pub fn new(snapshot: &Arc<Snapshot>, fetch: Fetch<K, V>) -> Self {
        let batch = Batch { snapshot: snapshot.clone(), fetch };
        Self(Loader::new(batch).with_yield_count(YIELDS).with_max_batch_size(BATCH))
    }

    /// The value of a key, if there is one.
    pub async fn get(&self, key: K) -> async_graphql::Result<Option<V>> {
        together(self.0.try_load(key)).await?.map_err(|error| outward(&error))
    }

    /// The values that there are, in the order of the keys.
    pub async fn get_many(&self, keys: Vec<K>) -> async_graphql::Result<Vec<V>> {
        Ok(self.get_each(keys).await?.into_iter().flatten().collect())
    }

    /// For each key its value or that there is none.
    pub async fn get_each(&self, keys: Vec<K>) -> async_graphql::Result<Vec<Option<V>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let found = together(self.0.try_load_many(keys.clone())).await?;
        // A key may be asked for twice.
        let each = keys.iter().map(|key| found.get(key).cloned().unwrap_or(Ok(None)));
        each.map(|value| value.map_err(|error| outward(&error))).collect()
    }
}

/// Those who waited for the same batch take their answers from behind one lock, one after the other. tokio would let a hundred
/// of them through and the rest in the next round: then their own next batch would be split.
async fn together<T>(load: impl Future<Output = T>) -> T {
    tokio::task::unconstrained(load).await
}

pub struct Batch<K, V> {
    snapshot: Arc<Snapshot>,
    fetch: Fetch<K, V>,
}

impl<K: Eq + Hash + Clone, V: Clone> BatchFn<K, Loaded<V>> for Batch<K, V> {
    async fn load(&mut self, keys: &[K]) -> HashMap<K, Loaded<V>> {
        match (self.fetch)(self.snapshot.clone(), keys.to_vec()).await {
            Ok(found) => {
                let mut answers: HashMap<K, Loaded<V>> = keys.iter().map(|key| (key.clone(), Ok(None))).collect();
                answers.extend(found.into_iter().map(|(key, value)| (key, Ok(Some(value)))));
                answers
            }
            Err(error) => {
                log(&error);
                let error = Arc::new(error);
                keys.iter().map(|key| (key.clone(), Err(error.clone()))).collect()
            }
        }
    }
}

/// Keys that differ in their arguments (page, whether details are wanted) cannot share a statement: one list for each.
fn by_arguments<K, A: Eq + Hash>(keys: Vec<(K, A)>) -> HashMap<A, Vec<K>> {
    let mut lists: HashMap<A, Vec<K>> = HashMap::new();
    for (key, arguments) in keys {
        lists.entry(arguments).or_default().push(key);
    }
    lists
}

/// What belongs to each key, together, in the order it came.
fn grouped<K: Eq + Hash + Clone, V>(rows: impl IntoIterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let mut lists: HashMap<K, Vec<V>> = HashMap::new();
    for (key, value) in rows {
        lists.entry(key).or_default().push(value);
    }
    lists.into_iter().collect()
}
