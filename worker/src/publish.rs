//! From the outbox to those who listen. One of all workers leads; the others wait for its place.
//!
//! The leader numbers the committed events of each tenant, creates the webhook deliveries that they owe in the same transaction,
//! and after its commit tells Redis, for those who listen live. Leading is a session's advisory lock, and everything is done on
//! that session's connection: whoever has lost the lock cannot write any more. PostgreSQL ends the session of a leader that is
//! silent ([`SILENCE`]), so a program that hangs is replaced as well as one that was killed.
//!
//! Wherever the leader dies, its successor goes on: what was not committed is numbered again, and what was committed and not
//! told is found by the listeners, who go by the sequence and ask PostgreSQL for what they miss.
//!
//! It looks ten times a second. `NOTIFY` would be sooner, but its senders commit one after the other, over all tenants.

use std::time::{Duration, Instant};

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use mdl::events::{self, Stamped, history, stamping};
use mdl::ids::TenantId;
use mdl::{instruments, webhooks};
use metrics::{counter, gauge};
use tracing::info;

use crate::Shared;
use crate::link::{Link, Outage};

/// Between two looks of the leader when there was nothing.
const LOOK: Duration = Duration::from_millis(100);
/// Between two attempts of the others to lead.
const ATTEMPT: Duration = Duration::from_secs(1);
/// After so long without a sign of life PostgreSQL takes the lead away. With an attempt and what it takes to connect, a leader
/// is replaced within 10 seconds.
const SILENCE: Duration = Duration::from_secs(6);
/// Most events of one tenant in one transaction: a large import is not to keep others waiting.
const BATCH: i64 = 500;
/// How long Redis may take to be told.
const REDIS_PATIENCE: Duration = Duration::from_millis(500);
/// How often the backlog is measured.
const MEASURE: Duration = Duration::from_secs(5);
/// How often old events are removed, while there are any to remove.
const PRUNE: Duration = Duration::from_secs(60);
/// Most events of one tenant that are removed at once.
const PRUNE_BATCH: i64 = 5_000;

/// Leads, or waits to, until told to stop.
pub fn publish(shared: Shared) -> redis::RedisResult<impl Future<Output = ()> + Send> {
    let redis = Link::new(&shared.app.config.redis, REDIS_PATIENCE)?;
    Ok(keep_publishing(shared, redis))
}

async fn keep_publishing(shared: Shared, redis: Link) {
    let mut outage = Outage::of("publish events");
    let mut publisher = Publisher { shared, redis, redis_outage: Outage::of("tell Redis of events") };
    let stop = publisher.shared.stop.clone();
    loop {
        let Some(ended) = stop.run_until_cancelled(publisher.connected(&mut outage)).await else { return };
        gauge!(instruments::EVENTS_LEADER).set(0);
        if let Err(error) = ended {
            outage.failed(&error);
        }
        let _stopped = stop.run_until_cancelled(tokio::time::sleep(ATTEMPT)).await;
    }
}

struct Publisher {
    shared: Shared,
    redis: Link,
    redis_outage: Outage,
}

impl Publisher {
    /// Waits for the lead and then publishes, on one connection, until that breaks.
    async fn connected(&mut self, outage: &mut Outage) -> mdl::Result<()> {
        let conn = self.shared.db.alone().await?;
        stamping::prepare(&conn, SILENCE).await?;
        while !stamping::lead(&conn).await? {
            outage.over();
            tokio::time::sleep(ATTEMPT).await;
        }
        info!("Publishes the events of all tenants from now on");
        gauge!(instruments::EVENTS_LEADER).set(1);
        let (mut measured, mut pruned) = (None::<Instant>, None::<Instant>);
        loop {
            let busy = stamping::is_due(&conn).await? && self.round(&conn).await?;
            outage.over();
            if measured.is_none_or(|at| at.elapsed() >= MEASURE) {
                let backlog = stamping::backlog(&conn).await?;
                gauge!(instruments::OUTBOX_EVENTS).set(backlog.count as f64);
                gauge!(instruments::OUTBOX_OLDEST_SECONDS).set(backlog.oldest_seconds);
                measured = Some(Instant::now());
            }
            if pruned.is_none_or(|at| at.elapsed() >= PRUNE) && !self.prune(&conn).await? {
                pruned = Some(Instant::now());
            }
            if !busy {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Publishes the next events. Whether there were any.
    async fn round(&mut self, mut conn: &AsyncPgConnection) -> mdl::Result<bool> {
        conn.batch_execute("BEGIN").await?;
        let stamped = events::stamp(conn, BATCH).await?;
        webhooks::owe(conn, &stamped).await?;
        let tenants: Vec<TenantId> = by_tenant(&stamped).map(|(tenant, _)| tenant).collect();
        stamping::forget_commits(conn, &tenants).await?;
        conn.batch_execute("COMMIT").await?;
        counter!(instruments::EVENTS_PUBLISHED).increment(stamped.len() as u64);
        self.tell(&stamped).await;
        Ok(!stamped.is_empty())
    }

    /// Tells Redis. What it does not get, the listeners find by themselves.
    async fn tell(&mut self, stamped: &[Stamped]) {
        let channel = events::live::channel(&self.shared.app.config.redis.prefix);
        for (tenant, events) in by_tenant(stamped) {
            let message = events::live::encode(tenant, events);
            match self.redis.query::<i64>(redis::cmd("PUBLISH").arg(&channel).arg(message)).await {
                Ok(_) => self.redis_outage.over(),
                Err(error) => return self.redis_outage.failed(&error),
            }
        }
    }

    /// Removes events that are older than they are kept. Whether there may be more.
    async fn prune(&self, mut conn: &AsyncPgConnection) -> mdl::Result<bool> {
        let days = self.shared.app.config.events.retention_days;
        conn.batch_execute("BEGIN").await?;
        let removed = history::prune(conn, days, PRUNE_BATCH).await?;
        conn.batch_execute("COMMIT").await?;
        if removed > 0 {
            info!("Removed {removed} events older than {days} days");
        }
        Ok(removed as i64 >= PRUNE_BATCH)
    }
}

/// The events of each tenant, together. They are sorted by tenant.
fn by_tenant(stamped: &[Stamped]) -> impl Iterator<Item = (TenantId, &[Stamped])> {
    stamped.chunk_by(|one, other| one.tenant == other.tenant).map(|events| (events[0].tenant, events))
}
