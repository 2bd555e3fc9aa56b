//! Reads of single things that several operations of a tenant share. Each waits for a read that begins after it asked, so
//! it sees at least what it would have seen alone; and how many share a read follows from how many ask while the last one takes.

use std::collections::HashMap;
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mdl::Error;
use mdl::db::Db;
use mdl::ids::TenantId;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{Instrument, Span};

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
    lines: Arc<Lines<K, V>>,
}

type Lines<K, V> = Mutex<HashMap<Reader, Line<K, V>>>;

/// Who waits for the next read, and how many are under way.
struct Line<K, V> {
    waiting: Vec<Asked<K, V>>,
    reads: usize,
}

struct Asked<K, V> {
    key: K,
    /// As its document names the operation.
    operation: Option<Arc<str>>,
    span: Span,
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
        {
            let mut lines = locked(&self.lines);
            let line = lines.entry(reader).or_insert_with(|| Line { waiting: Vec::new(), reads: 0 });
            line.waiting.push(Asked { key, operation, span: Span::current(), answer });
            if line.reads < READS {
                Reading { lines: self.lines.clone(), reader, db: db.clone(), fetch: self.fetch, counts: true }.begin(line);
            }
        }
        answered.await.unwrap_or_else(|_| Err(Arc::new(Error::internal("A shared read has ended without an answer"))))
    }
}

/// A place among the reads of a tenant.
struct Reading<K, V> {
    lines: Arc<Lines<K, V>>,
    reader: Reader,
    db: Db,
    fetch: Fetch<K, V>,
    /// Whether it still has its place.
    counts: bool,
}

impl<K, V> Reading<K, V>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Takes its place, and reads as a task of its own: whoever asked first may go away, and the others have not.
    fn begin(self, line: &mut Line<K, V>) {
        line.reads += 1;
        tokio::spawn(self.run());
    }

    /// Reads until nobody waits.
    async fn run(mut self) {
        while let Some(asked) = self.next() {
            let span = asked.first().map_or_else(Span::none, |first| first.span.clone());
            let mut answering = pin!(answer(self.db.clone(), self.reader, self.fetch, asked).instrument(span));
            if timeout(PATIENCE, &mut answering).await.is_err() {
                self.step_aside();
                return answering.await;
            }
        }
    }

    /// Who is read for next. When nobody is, the place is given up in the same moment: who comes then begins anew.
    fn next(&mut self) -> Option<Vec<Asked<K, V>>> {
        let mut lines = locked(&self.lines);
        let line = lines.get_mut(&self.reader)?;
        line.waiting.retain(|asked| !asked.answer.is_closed());
        if line.waiting.is_empty() {
            self.counts = false;
            leave(&mut lines, self.reader);
            return None;
        }
        let rest = line.waiting.split_off(line.waiting.len().min(BATCH));
        Some(std::mem::replace(&mut line.waiting, rest))
    }

    /// Gives the place to another, who reads for those who wait.
    fn step_aside(&mut self) {
        self.counts = false;
        let mut lines = locked(&self.lines);
        let Some(line) = lines.get_mut(&self.reader) else { return };
        if line.waiting.is_empty() {
            return leave(&mut lines, self.reader);
        }
        line.reads -= 1;
        Reading { lines: self.lines.clone(), db: self.db.clone(), counts: true, ..*self }.begin(line);
    }
}

impl<K, V> Drop for Reading<K, V> {
    fn drop(&mut self) {
        if self.counts {
            // It has panicked, or the runtime ends. Those who wait, if nobody else reads for them, are told by the end of their channels.
            leave(&mut locked(&self.lines), self.reader);
        }
    }
}

/// Reads for all who asked, and tells them.
async fn answer<K, V>(db: Db, reader: Reader, fetch: Fetch<K, V>, asked: Vec<Asked<K, V>>)
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    let Reader { tenant, elsewhere } = reader;
    let snapshot = if elsewhere { db.snapshot_elsewhere(tenant) } else { db.snapshot(tenant) };
    let snapshot = Arc::new(snapshot.named(asked.first().and_then(|first| first.operation.clone())));
    let keys = asked.iter().map(|asked| asked.key.clone()).collect();
    let found = match fetch(snapshot.clone(), keys).await {
        Ok(found) => Ok(found.into_iter().collect::<HashMap<K, V>>()),
        Err(error) => {
            log(&error);
            Err(Arc::new(error))
        }
    };
    for Asked { key, answer, .. } in asked {
        // Whoever asked may have gone away.
        let _gone = answer.send(found.as_ref().map(|found| found.get(&key).cloned()).map_err(Arc::clone));
    }
    if let Some(snapshot) = Arc::into_inner(snapshot) {
        snapshot.finish().await;
    }
}

/// Gives up a place.
fn leave<K, V>(lines: &mut HashMap<Reader, Line<K, V>>, reader: Reader) {
    if let Some(line) = lines.get_mut(&reader) {
        line.reads -= 1;
        if line.reads == 0 {
            lines.remove(&reader);
        }
    }
}

fn locked<K, V>(lines: &Lines<K, V>) -> MutexGuard<'_, HashMap<Reader, Line<K, V>>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::{BoxFuture, join_all};
    use mdl::config::Config;
    use mdl::db::Snapshot;
    use mdl::versions::Versions;
    use tokio::sync::Semaphore;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use super::*;

    /// A key that knows of the test that it belongs to.
    #[derive(Clone)]
    struct Key {
        number: u32,
        test: Arc<Test>,
    }

    struct Test {
        reads: UnboundedSender<Vec<u32>>,
        /// Reads of keys below 100 wait for it.
        open: Semaphore,
    }

    impl PartialEq for Key {
        fn eq(&self, other: &Self) -> bool {
            self.number == other.number
        }
    }

    impl Eq for Key {}

    impl Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.number.hash(state);
        }
    }

    /// Every key has a value but those from 900 on; those from 1,000 on cannot be read.
    fn fetch(_: Arc<Snapshot>, keys: Vec<Key>) -> BoxFuture<'static, mdl::Result<Vec<(Key, u32)>>> {
        async move {
            let test = keys[0].test.clone();
            test.reads.send(keys.iter().map(|key| key.number).collect()).unwrap();
            if keys[0].number < 100 {
                test.open.acquire().await.unwrap().forget();
            }
            if keys.iter().any(|key| key.number >= 1_000) {
                return Err(Error::internal("it cannot be read"));
            }
            Ok(keys.into_iter().filter(|key| key.number < 900).map(|key| (key.clone(), key.number)).collect())
        }
        .boxed()
    }

    struct Asking {
        coalesced: Arc<Coalesced<Key, u32>>,
        db: Db,
        reader: Reader,
        test: Arc<Test>,
        reads: UnboundedReceiver<Vec<u32>>,
    }

    impl Asking {
        fn new() -> Self {
            let config = Config::from_arguments(["test"]).unwrap();
            let db = Db::new(&config.database, Versions::new(&config.redis).unwrap());
            let (sender, reads) = unbounded_channel();
            let reader = Reader { tenant: TenantId::new(), elsewhere: false };
            let test = Arc::new(Test { reads: sender, open: Semaphore::new(0) });
            Self { coalesced: Arc::new(Coalesced::new(fetch)), db, reader, test, reads }
        }

        fn ask(&self, number: u32) -> impl Future<Output = Loaded<u32>> + Send + use<> {
            let (coalesced, db, reader) = (self.coalesced.clone(), self.db.clone(), self.reader);
            let key = Key { number, test: self.test.clone() };
            async move { coalesced.get(&db, reader, key, None).await }
        }

        /// Asks for a key that is read at once, on its own, and not answered yet.
        async fn stuck(&mut self, number: u32) -> tokio::task::JoinHandle<Loaded<u32>> {
            let asked = tokio::spawn(self.ask(number));
            assert_eq!(self.reads.recv().await.unwrap(), [number]);
            asked
        }

        async fn is_left(&self) {
            while !locked(&self.coalesced.lines).is_empty() {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn those_who_ask_meanwhile_share_the_next_read() {
        let mut asking = Asking::new();
        let first = [asking.stuck(0).await, asking.stuck(1).await];
        let mut others = Box::pin(join_all((800..1_000).map(|number| asking.ask(number))));
        assert!(others.as_mut().now_or_never().is_none(), "they wait");
        asking.test.open.add_permits(2);
        for (number, answer) in (800..).zip(others.await) {
            assert_eq!(answer.unwrap(), (number < 900).then_some(number));
        }
        assert_eq!(asking.reads.recv().await.unwrap().len(), 200);
        for (number, first) in (0..).zip(first) {
            assert_eq!(first.await.unwrap().unwrap(), Some(number));
        }
        asking.is_left().await;
        assert!(asking.reads.try_recv().is_err(), "nothing was read twice");
    }

    #[tokio::test]
    async fn a_failure_is_told_to_those_who_share_it_and_to_nobody_after() {
        let mut asking = Asking::new();
        let _first = [asking.stuck(0).await, asking.stuck(1).await];
        let mut others = Box::pin(join_all([500, 1_000].map(|number| asking.ask(number))));
        assert!(others.as_mut().now_or_never().is_none());
        asking.test.open.add_permits(1);
        assert!(others.await.iter().all(Result::is_err));
        assert_eq!(asking.ask(500).await.unwrap(), Some(500));
    }

    #[tokio::test]
    async fn nobody_waits_for_what_is_stuck_nor_for_who_has_gone() {
        let mut asking = Asking::new();
        let first = [asking.stuck(0).await, asking.stuck(1).await];
        assert!(asking.ask(500).now_or_never().is_none(), "this one goes away");
        assert_eq!(asking.ask(501).await.unwrap(), Some(501));
        assert_eq!(asking.reads.recv().await.unwrap(), [501]);
        // Who asked first goes away, and what they asked for is read to its end.
        first.iter().for_each(|first| first.abort());
        asking.test.open.add_permits(2);
        asking.is_left().await;
        while asking.test.open.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_read_that_panics_is_told_of_and_leaves_its_place() {
        fn panics(_: Arc<Snapshot>, _: Vec<Key>) -> BoxFuture<'static, mdl::Result<Vec<(Key, u32)>>> {
            async { panic!("it is meant to") }.boxed()
        }
        let asking = Asking { coalesced: Arc::new(Coalesced::new(panics)), ..Asking::new() };
        for number in 0..5 {
            assert!(asking.ask(number).await.is_err());
        }
        asking.is_left().await;
    }
}
