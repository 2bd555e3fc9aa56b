//! Connections that stay open: how many there may be, whether who opened them still may, and how they end.
//!
//! A websocket and an event stream are each one connection, of one credential. Every two seconds one statement for each tenant asks
//! PostgreSQL whether the credentials of all open connections still hold, and what they allow; a connection whose answer has
//! changed is closed with a reason, and its client comes back with what it may now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use mdl::actor::{Permissions, Subject};
use mdl::config::LiveConfig;
use mdl::error::causes;
use mdl::ids::TenantId;
use mdl::{Actor, App, Error, Result, api_keys, instruments, sessions};
use metrics::gauge;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;
use uuid::Uuid;

/// How often credentials are looked at again.
const RECHECK: Duration = Duration::from_secs(2);

/// Of a credential that is not there any more.
const GONE: &str = "Your credential is not valid any more";

/// What a credential allows, or why it allows nothing any more.
type Standing = Result<Permissions, &'static str>;

/// The open connections of this process. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct LiveConnections(Arc<Inner>);

struct Inner {
    app: App,
    /// Fires when all are to end, since the program stops.
    stop: CancellationToken,
    sockets: TaskTracker,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    of_tenants: HashMap<TenantId, u32>,
    of_actors: HashMap<(TenantId, Uuid), u32>,
    /// Of the credentials of open connections.
    standings: HashMap<(TenantId, Subject), watch::Sender<Standing>>,
    watched: bool,
}

/// One open connection. Dropped, it is closed.
pub struct LiveConnection {
    connections: LiveConnections,
    tenant: TenantId,
    actor: Uuid,
    transport: &'static str,
    began_with: Permissions,
    standing: watch::Receiver<Standing>,
}

impl LiveConnections {
    /// All end when `stop` fires.
    pub fn new(app: App, stop: CancellationToken) -> Self {
        Self(Arc::new(Inner { app, stop, sockets: TaskTracker::new(), open: Mutex::default() }))
    }

    /// Opens one for this caller, unless they or their tenant have too many.
    pub fn open(&self, actor: &Actor, transport: &'static str) -> Result<LiveConnection> {
        let limits: &LiveConfig = &self.0.app.config.live;
        let mut open = self.0.lock();
        let of_actor = open.of_actors.entry((actor.tenant, actor.id())).or_default();
        if *of_actor >= limits.connections_per_user {
            return Err(Error::TooMany("connections of one user or API key"));
        }
        *of_actor += 1;
        let of_tenant = open.of_tenants.entry(actor.tenant).or_default();
        let too_many = *of_tenant >= limits.connections_per_tenant;
        *of_tenant += 1;
        let sender =
            open.standings.entry((actor.tenant, actor.subject)).or_insert_with(|| watch::Sender::new(Ok(actor.permissions)));
        // An entry that nobody has looked at for a while may be of before a change.
        if sender.receiver_count() == 0 {
            let _before = sender.send_replace(Ok(actor.permissions));
        }
        let standing = sender.subscribe();
        if !std::mem::replace(&mut open.watched, true) {
            tokio::spawn(recheck(Arc::downgrade(&self.0)));
        }
        drop(open);
        gauge!(instruments::LIVE_CONNECTIONS, "transport" => transport).increment(1);
        let connection = LiveConnection {
            connections: self.clone(),
            tenant: actor.tenant,
            actor: actor.id(),
            transport,
            began_with: actor.permissions,
            standing,
        };
        if too_many { Err(Error::TooMany("connections of one tenant")) } else { Ok(connection) }
    }

    /// Fires when all connections are to end.
    pub fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Keeps account of a websocket's task, which the server's own shutdown does not know.
    pub fn track<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        self.0.sockets.track_future(task)
    }

    /// Returns when all websockets have ended, once they are to.
    pub async fn ended(&self) {
        self.0.stop.cancelled().await;
        self.0.sockets.close();
        self.0.sockets.wait().await;
    }
}

impl LiveConnection {
    /// Waits until the caller may no longer do what they might when they came, or may do more; and says why that ends the connection.
    pub async fn changed(&mut self) -> &'static str {
        let began_with = Ok(self.began_with);
        match self.standing.wait_for(|now| *now != began_with).await.map(|now| *now) {
            Ok(Ok(_)) => "What you may do has changed; connect again",
            Ok(Err(reason)) => reason,
            // The sender lives as long as this.
            Err(_) => GONE,
        }
    }
}

impl Drop for LiveConnection {
    fn drop(&mut self) {
        let mut open = self.connections.0.lock();
        let open = &mut *open;
        release(&mut open.of_actors, (self.tenant, self.actor));
        release(&mut open.of_tenants, self.tenant);
        gauge!(instruments::LIVE_CONNECTIONS, "transport" => self.transport).decrement(1);
    }
}

fn release<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, u32>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the credentials again and again, for as long as there is a server.
async fn recheck(inner: Weak<Inner>) {
    let mut ticks = tokio::time::interval(RECHECK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let mut tenants: HashMap<TenantId, Vec<Subject>> = HashMap::new();
        {
            let mut open = inner.lock();
            open.standings.retain(|_, sender| sender.receiver_count() > 0);
            for (tenant, subject) in open.standings.keys() {
                tenants.entry(*tenant).or_default().push(*subject);
            }
        }
        for (tenant, subjects) in tenants {
            match standings(&inner.app, tenant, &subjects).await {
                Ok(now) => {
                    failing = false;
                    let open = inner.lock();
                    for subject in subjects {
                        if let Some(sender) = open.standings.get(&(tenant, subject)) {
                            let now = now.get(&subject_id(subject)).copied().unwrap_or(Err(GONE));
                            sender.send_if_modified(|was| std::mem::replace(was, now) != now);
                        }
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(error = causes(&error), "Could not look at the credentials of open connections again");
                    }
                }
            }
        }
    }
}

/// Of those of these credentials that are there.
async fn standings(app: &App, tenant: TenantId, subjects: &[Subject]) -> Result<HashMap<Uuid, Standing>> {
    let (mut of_sessions, mut of_keys) = (Vec::new(), Vec::new());
    let mut found = HashMap::new();
    for subject in subjects {
        match subject {
            Subject::User { session, .. } => of_sessions.push(*session),
            Subject::ApiKey { key, .. } => of_keys.push(*key),
            Subject::System => {
                found.insert(subject_id(*subject), Ok(Permissions::all()));
            }
        }
    }
    let snapshot = app.db.snapshot(tenant);
    let roles = snapshot.read(async |conn| sessions::roles_of(conn, tenant, &of_sessions).await).await?;
    let keys = snapshot.read(async |conn| api_keys::permissions_of(conn, tenant, &of_keys).await).await?;
    found.extend(roles.into_iter().map(|(session, role)| (session.0, Ok(role.permissions()))));
    found.extend(keys.into_iter().map(|(key, permissions)| (key.0, Ok(permissions))));
    of_sessions.retain(|session| !found.contains_key(&session.0));
    of_keys.retain(|key| !found.contains_key(&key.0));
    // Seldom: their connections end.
    if !of_sessions.is_empty() {
        let ended = snapshot.read(async |conn| sessions::why_ended(conn, tenant, &of_sessions).await).await?;
        found.extend(ended.into_iter().map(|(session, reason)| (session.0, Err(reason))));
    }
    if !of_keys.is_empty() {
        let refused = snapshot.read(async |conn| api_keys::why_refused(conn, tenant, &of_keys).await).await?;
        found.extend(refused.into_iter().map(|(key, reason)| (key.0, Err(reason))));
    }
    snapshot.finish().await;
    Ok(found)
}

fn subject_id(subject: Subject) -> Uuid {
    match subject {
        Subject::User { session, .. } => session.0,
        Subject::ApiKey { key, .. } => key.0,
        Subject::System => Uuid::nil(),
    }
}
