//! One set of loaders per operation, on its snapshot: what the nested fields of one level ask for goes in one statement.

use std::collections::HashMap;
use std::sync::Arc;

use ::dataloader::BatchFn;
use ::dataloader::cached::Loader;
use mdl::db::Snapshot;
use mdl::domains::{self, Domain};
use mdl::error::Error;
use mdl::ids::{DomainId, UserId};
use mdl::users::{self, Member, User};

/// What a loader answers for a key: the value, that there is none, or why its whole batch failed.
pub type Loaded<V> = Result<Option<V>, Arc<Error>>;

/// Rounds that a loader waits for further keys; measured: fewer split batches, more only cost time.
const YIELDS: usize = 3;

/// The loaders of one operation.
pub struct Loaders {
    pub domains: Loader<DomainId, Loaded<Arc<Domain>>, Domains>,
    /// Users, whether or not they are still members.
    pub users: Loader<UserId, Loaded<Arc<User>>, Users>,
    pub members: Loader<UserId, Loaded<Arc<Member>>, Members>,
}

impl Loaders {
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            domains: Loader::new(Domains(snapshot.clone())).with_yield_count(YIELDS).with_max_batch_size(1_000),
            users: Loader::new(Users(snapshot.clone())).with_yield_count(YIELDS).with_max_batch_size(1_000),
            members: Loader::new(Members(snapshot)).with_yield_count(YIELDS).with_max_batch_size(1_000),
        }
    }
}

pub struct Domains(Arc<Snapshot>);

impl BatchFn<DomainId, Loaded<Arc<Domain>>> for Domains {
    async fn load(&mut self, ids: &[DomainId]) -> HashMap<DomainId, Loaded<Arc<Domain>>> {
        let found = self.0.read(async |conn| domains::store::by_ids(conn, self.0.tenant(), ids).await).await;
        answer(ids, found, |domain| (domain.id, Arc::new(domain)))
    }
}

pub struct Users(Arc<Snapshot>);

impl BatchFn<UserId, Loaded<Arc<User>>> for Users {
    async fn load(&mut self, ids: &[UserId]) -> HashMap<UserId, Loaded<Arc<User>>> {
        let found = self.0.read(async |conn| users::by_ids(conn, self.0.tenant(), ids).await).await;
        answer(ids, found, |user| (user.id, Arc::new(user)))
    }
}

pub struct Members(Arc<Snapshot>);

impl BatchFn<UserId, Loaded<Arc<Member>>> for Members {
    async fn load(&mut self, ids: &[UserId]) -> HashMap<UserId, Loaded<Arc<Member>>> {
        let found = self.0.read(async |conn| users::members(conn, self.0.tenant(), ids).await).await;
        answer(ids, found, |member| (member.user.id, Arc::new(member)))
    }
}

/// Gives every key its answer.
fn answer<K: Copy + Eq + std::hash::Hash, T, V: Clone>(
    keys: &[K],
    found: mdl::Result<Vec<T>>,
    entry: impl Fn(T) -> (K, V),
) -> HashMap<K, Loaded<V>> {
    match found {
        Ok(rows) => {
            let mut answers: HashMap<K, Loaded<V>> = keys.iter().map(|key| (*key, Ok(None))).collect();
            answers.extend(rows.into_iter().map(entry).map(|(key, value)| (key, Ok(Some(value)))));
            answers
        }
        Err(error) => {
            let error = Arc::new(error);
            keys.iter().map(|key| (*key, Err(error.clone()))).collect()
        }
    }
}
