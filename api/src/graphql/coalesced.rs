//! Reads of single things that several operations of a tenant share. Each waits for a read that begins after it asked, so
//! it sees at least what it would have seen alone; and how many share a read follows from how many ask while the last one takes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mdl::Error;
use mdl::db::{Db, Snapshot};
use mdl::ids::TenantId;
use tokio::sync::oneshot;
use tracing::Instrument;

use super::error::log;
use super::loaders::{Fetch, Loaded};

/// Reads of one tenant at a time. With one, those who come wait for the whole of it; each more is a connection more.
const READS: usize = 2;
/// After this long a read counts no more: it may be stuck, and nobody else waits for it.
const PATIENCE: Duration = Duration::from_millis(100);
/// Keys in one read.
const BATCH: usize = 200;

/// Whose reads can be one: those of a tenant, on the same server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reader {
    pub tenant: TenantId,
    /// Whether they may be on the read replica.
    pub elsewhere: bool,
}

/// Values by their keys, for operations that read nothing else.
pub struct Coalesced<K, V> {
    fetch: Fetch<K, V>,
    lines: Arc<Mutex<Lines<K, V>>>,
}

type Lines<K, V> = HashMap<Reader, Line<K, V>>;

/// Who waits for the next read, and what is being read.
struct Line<K, V> {
    waiting: Vec<Asked<K, V>>,
    reads: usize,
    latest: Instant,
}

struct Asked<K, V> {
    key: K,
    /// As its document names the operation.
    operation: Option<Arc<str>>,
    answer: oneshot::Sender<Loaded<V>>,
}

impl<K, V> Coalesced<K, V>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub fn new(fetch: Fetch<K, V>) -> Self {
        Self { fetch, lines: Arc::default() }
    }

    /// The value of a key, if there is one.
    pub async fn get(&self, db: &Db, reader: Reader, key: K, operation: Option<Arc<str>>) -> Loaded<V> {
        let (answer, answered) = oneshot::channel();
        let begins = {
            let mut lines = locked(&self.lines);
            let line = lines.entry(reader).or_insert_with(|| Line { waiting: Vec::new(), reads: 0, latest: Instant::now() });
            line.waiting.push(Asked { key, operation, answer });
            let begins = line.reads < READS || line.latest.elapsed() > PATIENCE;
            if begins {
                line.reads += 1;
                line.latest = Instant::now();
            }
            begins
        };
        if begins {
            // As a task of its own: whoever began it may go away, and the others have not.
            let reading = Reading { lines: self.lines.clone(), reader, ended: false };
            tokio::spawn(reading.run(self.fetch, db.clone()).in_current_span());
        }
        answered.await.unwrap_or_else(|_| Err(Arc::new(Error::internal("A shared read has ended without an answer"))))
    }
}

/// A place among the reads of a tenant.
struct Reading<K, V> {
    lines: Arc<Mutex<Lines<K, V>>>,
    reader: Reader,
    ended: bool,
}

impl<K, V> Reading<K, V>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Reads until nobody waits.
    async fn run(mut self, fetch: Fetch<K, V>, db: Db) {
        while let Some(asked) = self.next() {
            let keys = asked.iter().map(|asked| asked.key.clone()).collect();
            let read = self.read(fetch, &db, keys, asked[0].operation.clone()).await;
            let found = match read {
                Ok(found) => Ok(found.into_iter().collect::<HashMap<K, V>>()),
                Err(error) => {
                    log(&error);
                    Err(Arc::new(error))
                }
            };
            for Asked { key, answer, .. } in asked {
                let value = match &found {
                    Ok(found) => Ok(found.get(&key).cloned()),
                    Err(error) => Err(error.clone()),
                };
                // Whoever asked may have gone away.
                let _gone = answer.send(value);
            }
        }
    }

    async fn read(&self, fetch: Fetch<K, V>, db: &Db, keys: Vec<K>, operation: Option<Arc<str>>) -> mdl::Result<Vec<(K, V)>> {
        let Reader { tenant, elsewhere } = self.reader;
        let snapshot: Snapshot = if elsewhere { db.snapshot_elsewhere(tenant) } else { db.snapshot(tenant) };
        let snapshot = Arc::new(snapshot.named(operation));
        let found = fetch(snapshot.clone(), keys).await;
        if let Some(snapshot) = Arc::into_inner(snapshot) {
            snapshot.finish().await;
        }
        found
    }

    /// Who is read for next. When nobody is, the place is given up in the same moment: who comes then begins anew.
    fn next(&mut self) -> Option<Vec<Asked<K, V>>> {
        let mut lines = locked(&self.lines);
        let line = lines.get_mut(&self.reader)?;
        if line.waiting.is_empty() {
            self.ended = true;
            line.reads -= 1;
            if line.reads == 0 {
                lines.remove(&self.reader);
            }
            return None;
        }
        line.latest = Instant::now();
        let rest = line.waiting.split_off(line.waiting.len().min(BATCH));
        Some(std::mem::replace(&mut line.waiting, rest))
    }
}

impl<K, V> Drop for Reading<K, V> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // It has panicked, or the runtime ends. Those who wait, if nobody else reads for them, are told by the end of their channels.
        let mut lines = locked(&self.lines);
        if let Some(line) = lines.get_mut(&self.reader) {
            line.reads -= 1;
            if line.reads == 0 {
                lines.remove(&self.reader);
            }
        }
    }
}

fn locked<K, V>(lines: &Mutex<Lines<K, V>>) -> MutexGuard<'_, Lines<K, V>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
