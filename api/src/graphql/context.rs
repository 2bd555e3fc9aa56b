//! What a resolver is given: the operation it is part of.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_graphql::Context;
use mdl::db::Snapshot;
use mdl::{Actor, App, Error};

use super::coalesced::{Coalesced, Reader};
use super::error::{outward, top_level};
use super::executor::Prepared;
use super::loaders::{Batched, Loaders};
use crate::cache::policy_of;

/// One operation: who asks, and the moment of the database that it reads.
pub struct Operation {
    pub app: App,
    /// `None` for a caller without a credential.
    pub actor: Option<Actor>,
    /// Of the HTTP request; sign-in keeps it with the session.
    pub user_agent: Option<String>,
    /// As its document names it.
    name: Option<Arc<str>>,
    /// Whether it may read from the read replica.
    elsewhere: bool,
    /// Whether it reads the row of one metric, and nothing else.
    one_row: bool,
    /// Where a subscription goes on that broke off: the cursor of the last event that the caller has got.
    pub resume_after: Option<String>,
    /// The cursor of the event that a subscription gives next.
    cursor: Mutex<Option<String>>,
    view: RwLock<Option<Arc<View>>>,
}

/// One moment of the database, and the loaders that read it. A query has one; in a mutation each root field, when it has
/// written, begins another, so that it returns what it wrote.
pub struct View {
    pub snapshot: Arc<Snapshot>,
    pub loaders: Loaders,
}

impl Operation {
    /// One without a name, that reads from the primary.
    pub fn new(app: App, actor: Option<Actor>, user_agent: Option<String>) -> Arc<Self> {
        Arc::new(Self::reading_here(app, actor, user_agent))
    }

    /// The one that is about to be executed. Where its answer would be kept, and so is made of what has versions, it reads from
    /// the read replica, if there is one and it is up to date; and may do no more than all who would be given the same answer.
    pub fn of(prepared: &Prepared, app: App, actor: Option<Actor>, user_agent: Option<String>) -> Arc<Self> {
        let name = prepared.operation().name.as_deref().map(Arc::from);
        let policy = policy_of(prepared);
        let elsewhere = app.db.has_replica() && policy.is_some();
        let one_row = policy.is_some_and(|policy| policy.one_row);
        let actor = match (actor, policy) {
            (Some(actor), Some(policy)) => Some(Actor { permissions: policy.permissions(actor.permissions), ..actor }),
            (actor, _) => actor,
        };
        Arc::new(Self { name, elsewhere, one_row, ..Self::reading_here(app, actor, user_agent) })
    }

    /// A subscription.
    pub fn listening(app: App, actor: Option<Actor>, resume_after: Option<String>) -> Arc<Self> {
        Arc::new(Self { resume_after, ..Self::reading_here(app, actor, None) })
    }

    fn reading_here(app: App, actor: Option<Actor>, user_agent: Option<String>) -> Self {
        Self {
            app,
            actor,
            user_agent,
            name: None,
            elsewhere: false,
            one_row: false,
            resume_after: None,
            cursor: Mutex::default(),
            view: RwLock::new(None),
        }
    }

    /// Notes the cursor of the event that is given next.
    pub fn note_cursor(&self, cursor: String) {
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = Some(cursor);
    }

    /// The cursor of the event that was given.
    pub fn take_cursor(&self) -> Option<String> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The view of this moment; made when it is first asked for.
    pub fn view(&self) -> mdl::Result<Arc<View>> {
        debug_assert!(!self.one_row, "it reads more than the row that its policy says it is made of");
        let tenant = self.actor()?.tenant;
        if let Some(view) = &*self.view.read().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            return Ok(view.clone());
        }
        let mut slot = self.view.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let view = slot.get_or_insert_with(|| {
            let db = &self.app.db;
            let snapshot = if self.elsewhere { db.snapshot_elsewhere(tenant) } else { db.snapshot(tenant) };
            let snapshot = Arc::new(snapshot.named(self.name.clone()));
            Arc::new(View { loaders: Loaders::new(snapshot.clone()), snapshot })
        });
        Ok(view.clone())
    }

    /// The value of a key: from a read that others share, if this operation reads nothing else; or else from its own view.
    pub async fn one<K, V>(
        &self,
        coalesced: &Coalesced<K, V>,
        loader: fn(&Loaders) -> &Batched<K, V>,
        key: K,
    ) -> async_graphql::Result<Option<V>>
    where
        K: Eq + Hash + Clone + Debug + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        if !self.one_row {
            return loader(&self.view().map_err(top_level)?.loaders).get(key).await;
        }
        let reader = Reader { tenant: self.actor().map_err(top_level)?.tenant, elsewhere: self.elsewhere };
        coalesced.get(&self.app.db, reader, key, self.name.clone()).await.map_err(|error| outward(&error))
    }

    /// Forgets the view: the next read sees the database as it is then. Dropping a snapshot ends it.
    pub fn renew_view(&self) {
        *self.view.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
    }

    pub fn actor(&self) -> mdl::Result<&Actor> {
        self.actor.as_ref().ok_or(Error::Unauthenticated("Sign in, or send an API key"))
    }

    /// Ends the view when the operation is done, and returns its connection.
    pub async fn finish(self: Arc<Self>) {
        let view = self.view.write().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(view) = view.and_then(Arc::into_inner) {
            drop(view.loaders);
            if let Some(snapshot) = Arc::into_inner(view.snapshot) {
                snapshot.finish().await;
            }
        }
    }
}

/// Shorthands for resolvers. Each operation's request carries its [`Operation`] as data.
pub trait ContextExt {
    fn operation(&self) -> &Arc<Operation>;

    fn app(&self) -> &App {
        &self.operation().app
    }

    fn actor(&self) -> mdl::Result<&Actor> {
        self.operation().actor()
    }

    fn view(&self) -> mdl::Result<Arc<View>> {
        self.operation().view()
    }

    /// The view, or the error as the caller is told of it.
    fn reading(&self) -> async_graphql::Result<Arc<View>> {
        self.view().map_err(top_level)
    }
}

impl ContextExt for Context<'_> {
    fn operation(&self) -> &Arc<Operation> {
        self.data_unchecked::<Arc<Operation>>()
    }
}
