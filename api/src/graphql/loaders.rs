//! One set of loaders per operation, on its snapshot: what the nested fields of one level ask for goes in one statement.

mod domains;
mod metrics;
mod objectives;
mod people;
mod webhooks;

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ::dataloader::BatchFn;
use ::dataloader::cached::Loader;
use futures::future::BoxFuture;
use mdl::db::Snapshot;
use mdl::error::Error;
use mdl::metrics::Columns;
use tokio::sync::Notify;

pub use domains::DomainLoaders;
pub use metrics::{MetricLoaders, SingleMetrics};
pub use objectives::ObjectiveLoaders;
pub use people::PeopleLoaders;
pub use webhooks::WebhookLoaders;

use super::context::View;
use super::error::{log, outward};
use super::turns::give_turn;

/// Rounds that the first who asks waits for others to ask. Fewer split the batches of a level whose parents came from a batch
/// themselves; more only cost time.
const ROUNDS: usize = 10;
/// Keys in one statement: more than a page of pages asks for, and still a short array for PostgreSQL.
const BATCH: usize = 10_000;

/// The loaders of one operation.
pub struct Loaders {
    pub domains: DomainLoaders,
    pub metrics: MetricLoaders,
    pub objectives: ObjectiveLoaders,
    pub people: PeopleLoaders,
    pub webhooks: WebhookLoaders,
}

impl Loaders {
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            domains: DomainLoaders::new(&snapshot),
            metrics: MetricLoaders::new(&snapshot),
            objectives: ObjectiveLoaders::new(&snapshot),
            people: PeopleLoaders::new(&snapshot),
            webhooks: WebhookLoaders::new(&snapshot),
        }
    }
}

/// Loads the values of many keys for fields that ask for them one by one right after. Why one could not be loaded, its field says.
pub fn ahead<K, V>(view: Arc<View>, loader: fn(&Loaders) -> &Batched<K, V>, keys: Vec<K>) -> BoxFuture<'static, ()>
where
    K: Eq + Hash + Clone + Debug + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Box::pin(async move {
        let _in_the_loader = loader(&view.loaders).get_each(keys).await;
    })
}

/// What a loader answers for a key: the value, that there is none, or why its whole batch failed.
pub type Loaded<V> = Result<Option<V>, Arc<Error>>;

/// Reads the values of many keys, in any order; what is left out has none.
pub type Fetch<K, V> = fn(Arc<Snapshot>, Vec<K>) -> BoxFuture<'static, mdl::Result<Vec<(K, V)>>>;

/// A loader from keys to values.
///
/// The first who asks for a key waits a few rounds for others to ask, and loads for all. (The crate's loader would have each of
/// them wait those rounds: with a page of fifty that is five hundred turns of the whole operation.)
pub struct Batched<K: Eq + Hash + Clone, V: Clone> {
    snapshot: Arc<Snapshot>,
    fetch: Fetch<K, V>,
    /// Made when it is first asked: an operation uses few of its loaders.
    loader: OnceLock<Loader<K, Loaded<V>, Batch<K, V>>>,
    answers: Answers<K, V>,
    gathering: Mutex<Option<Gathering<K>>>,
}

/// Keys that are being collected, and who waits for them.
struct Gathering<K> {
    keys: Vec<K>,
    loaded: Arc<Notify>,
}

impl<K: Eq + Hash + Clone + Debug, V: Clone> Batched<K, V> {
    pub fn new(snapshot: &Arc<Snapshot>, fetch: Fetch<K, V>) -> Self {
        Self {
            snapshot: snapshot.clone(),
            fetch,
            loader: OnceLock::new(),
            answers: Answers::default(),
            gathering: Mutex::default(),
        }
    }

    fn loader(&self) -> &Loader<K, Loaded<V>, Batch<K, V>> {
        self.loader.get_or_init(|| {
            let batch = Batch { snapshot: self.snapshot.clone(), fetch: self.fetch, answers: self.answers.clone() };
            Loader::new(batch).with_yield_count(0).with_max_batch_size(BATCH)
        })
    }

    /// The value of a key, if there is one.
    pub async fn get(&self, key: K) -> async_graphql::Result<Option<V>> {
        if let Some(answer) = self.at_hand(&key) {
            return answer.map_err(|error| outward(&error));
        }
        // Boxed, or the future of every field of every object would have room for this.
        Box::pin(async move {
            self.gather(std::slice::from_ref(&key)).await;
            together(self.loader().try_load(key)).await?.map_err(|error| outward(&error))
        })
        .await
    }

    /// Returns when the keys have been loaded together with those that others ask for now. Whatever goes wrong, or is dropped,
    /// on the way is left to the load that follows.
    async fn gather(&self, keys: &[K]) {
        let waiting = {
            let mut gathering = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *gathering {
                Some(others) => {
                    others.keys.extend_from_slice(keys);
                    Some(others.loaded.clone().notified_owned())
                }
                None => {
                    *gathering = Some(Gathering { keys: keys.to_vec(), loaded: Arc::default() });
                    None
                }
            }
        };
        if let Some(waiting) = waiting {
            return together(waiting).await;
        }
        let lead = Lead(Some(self));
        for _ in 0..ROUNDS {
            give_turn().await;
        }
        if let Some(Gathering { keys, loaded }) = lead.finish() {
            let _wake = NotifyOnDrop(loaded);
            // Its values and its failure are in the loader now, for everybody who asked.
            if let Err(error) = together(self.loader().try_load_many(keys)).await {
                tracing::debug!(%error, "A batch did not answer all of its keys");
            }
        }
    }

    /// What is known of a key already.
    pub fn at_hand(&self, key: &K) -> Option<Loaded<V>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn take(&self) -> Option<Gathering<K>> {
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner).take()
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
        if let Some(each) = keys.iter().map(|key| self.at_hand(key)).collect::<Option<Vec<_>>>() {
            return each.into_iter().map(|value| value.map_err(|error| outward(&error))).collect();
        }
        Box::pin(async move {
            self.gather(&keys).await;
            let found = together(self.loader().try_load_many(keys.clone())).await?;
            // A key may be asked for twice.
            let each = keys.iter().map(|key| found.get(key).cloned().unwrap_or(Ok(None)));
            each.map(|value| value.map_err(|error| outward(&error))).collect()
        })
        .await
    }
}

/// Who collects keys. Dropped while it does, it sends those who wait to load for themselves.
struct Lead<'a, K: Eq + Hash + Clone + Debug, V: Clone>(Option<&'a Batched<K, V>>);

impl<K: Eq + Hash + Clone + Debug, V: Clone> Lead<'_, K, V> {
    /// What was collected. Who asks from now on collects anew.
    fn finish(mut self) -> Option<Gathering<K>> {
        self.0.take()?.take()
    }
}

impl<K: Eq + Hash + Clone + Debug, V: Clone> Drop for Lead<'_, K, V> {
    fn drop(&mut self) {
        if let Some(left) = self.0.take().and_then(Batched::take) {
            left.loaded.notify_waiters();
        }
    }
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

/// Those who waited for the same batch take their answers from behind one lock, one after the other. tokio would let a hundred
/// of them through and the rest in the next round: then their own next batch would be split.
async fn together<T>(load: impl Future<Output = T>) -> T {
    tokio::task::unconstrained(load).await
}

/// What a loader knows already; the crate's loader has the same behind a lock that must be awaited.
type Answers<K, V> = Arc<Mutex<HashMap<K, Loaded<V>>>>;

pub struct Batch<K, V> {
    snapshot: Arc<Snapshot>,
    fetch: Fetch<K, V>,
    answers: Answers<K, V>,
}

impl<K: Eq + Hash + Clone, V: Clone> BatchFn<K, Loaded<V>> for Batch<K, V> {
    async fn load(&mut self, keys: &[K]) -> HashMap<K, Loaded<V>> {
        let answers: HashMap<K, Loaded<V>> = match (self.fetch)(self.snapshot.clone(), keys.to_vec()).await {
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
        };
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).extend(answers.clone());
        answers
    }
}

/// Keys that differ in their arguments (a page, a revision) cannot share a statement: one list for each.
fn by_arguments<K, A: Eq + Hash>(keys: Vec<(K, A)>) -> HashMap<A, Vec<K>> {
    let mut lists: HashMap<A, Vec<K>> = HashMap::new();
    for (key, arguments) in keys {
        lists.entry(arguments).or_default().push(key);
    }
    lists
}

/// Things that one statement reads, with all columns that are wanted of any of them.
struct Share<K> {
    columns: Columns,
    wanted: HashMap<K, Vec<Columns>>,
}

/// Wanted metrics, in as few statements as may be: details are large, so whoever wants none does without those of others.
fn shares<K: Eq + Hash>(keys: Vec<(K, Columns)>) -> Vec<Share<K>> {
    let (with, without): (Vec<_>, Vec<_>) = keys.into_iter().partition(|(_, columns)| columns.has(Columns::DETAILS));
    let share = |keys: Vec<(K, Columns)>| {
        let columns = keys.iter().fold(Columns::NONE, |all, (_, columns)| all.and(*columns));
        let mut wanted: HashMap<K, Vec<Columns>> = HashMap::new();
        for (key, columns) in keys {
            wanted.entry(key).or_default().push(columns);
        }
        Share { columns, wanted }
    };
    [with, without].into_iter().filter(|keys| !keys.is_empty()).map(share).collect()
}

impl<K: Eq + Hash + Clone> Share<K> {
    fn keys(&self) -> Vec<K> {
        self.wanted.keys().cloned().collect()
    }

    /// What was found of a key, for each who wants it.
    fn answers<V: Clone>(&self, key: K, found: V) -> Vec<((K, Columns), V)> {
        let wanted = self.wanted.get(&key).map_or(&[][..], Vec::as_slice);
        wanted.iter().map(|columns| ((key.clone(), *columns), found.clone())).collect()
    }
}

/// What belongs to each key, together, in the order it came.
fn grouped<K: Eq + Hash + Clone, V>(rows: impl IntoIterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let mut lists: HashMap<K, Vec<V>> = HashMap::new();
    for (key, value) in rows {
        lists.entry(key).or_default().push(value);
    }
    lists.into_iter().collect()
}
