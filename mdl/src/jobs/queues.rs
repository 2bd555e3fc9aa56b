//! Queues as operators see and set them.
//!
//! A tenant's settings are for its own jobs in a queue. Those of [`SYSTEM`] are for the whole queue: its members, and the command
//! line, pause and limit everybody.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::json;
use uuid::Uuid;

use super::dispatch::SETTINGS_LOCK;
use super::{CHANNEL, Job, notify};
use crate::actor::{Actor, Permission, Subject};
use crate::app::App;
use crate::audit;
use crate::backups::BackUp;
use crate::db::Transaction;
use crate::error::{Code, Error, Result};
use crate::ids::TenantId;
use crate::imports::ImportCatalog;
use crate::maintenance;
use crate::schema::queue_settings;
use crate::tenants::SYSTEM;

/// The queues of MDL's kinds of jobs, whether a worker serves them now or not.
pub const QUEUES: [&str; 3] = [BackUp::QUEUE, ImportCatalog::QUEUE, maintenance::QUEUE];

/// The greatest limit that may be set.
pub const MAX_CONCURRENCY: i32 = 10_000;

/// The greatest weight of a tenant.
pub const MAX_WEIGHT: i32 = 100;

/// What operators have set for a queue.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = queue_settings)]
pub struct Settings {
    pub queue: String,
    pub paused_at: Option<DateTime<Utc>>,
    /// Jobs under way at once, on all workers together.
    pub concurrency: Option<i32>,
    /// Jobs of the tenant that go for one of a tenant of weight 1, while both have a backlog.
    pub weight: i32,
}

/// How a queue stands, and how it did in the last while.
#[derive(Debug, Clone, QueryableByName)]
pub struct Queue {
    #[diesel(sql_type = Text)]
    pub name: String,
    /// Jobs that wait for a batch.
    #[diesel(sql_type = BigInt)]
    pub held: i64,
    /// Jobs whose time has not come.
    #[diesel(sql_type = BigInt)]
    pub scheduled: i64,
    /// Jobs that are due and wait for room.
    #[diesel(sql_type = BigInt)]
    pub due: i64,
    /// Jobs that the next free worker takes.
    #[diesel(sql_type = BigInt)]
    pub dispatched: i64,
    #[diesel(sql_type = BigInt)]
    pub running: i64,
    #[diesel(sql_type = BigInt)]
    pub dead: i64,
    /// Since when the job has been due that has waited longest and does not run.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub oldest_due_at: Option<DateTime<Utc>>,
    /// Jobs that succeeded in the last while.
    #[diesel(sql_type = BigInt)]
    pub succeeded: i64,
    /// Jobs that died in the last while.
    #[diesel(sql_type = BigInt)]
    pub died: i64,
    /// Of jobs that succeeded in the last while: seconds from when they were due to the start of the attempt that succeeded.
    #[diesel(sql_type = Nullable<Double>)]
    pub wait_p50: Option<f64>,
    #[diesel(sql_type = Nullable<Double>)]
    pub wait_p95: Option<f64>,
    /// Of these: seconds of that attempt.
    #[diesel(sql_type = Nullable<Double>)]
    pub run_p50: Option<f64>,
    #[diesel(sql_type = Nullable<Double>)]
    pub run_p95: Option<f64>,
    /// Workers that serve it now.
    #[diesel(sql_type = BigInt)]
    pub workers: i64,
}

impl Queue {
    /// The share of the jobs that ended in the last while that died: 0 to 1. `None` when none ended.
    pub fn failure_rate(&self) -> Option<f64> {
        let ended = self.succeeded + self.died;
        (ended > 0).then(|| self.died as f64 / ended as f64)
    }
}

/// Every queue that a worker serves or that has jobs, by name: as it stands for the jobs of these tenants, and how it did in the
/// last `minutes`.
pub async fn overview(mut conn: &AsyncPgConnection, tenants: &[TenantId], minutes: i32) -> Result<Vec<Queue>> {
    // State by state, so that each is counted in its own small index and nothing reads the jobs that are done with.
    let rows = sql_query(
        "WITH unfinished AS (
             SELECT queue, 'held' AS state, run_at FROM jobs WHERE tenant_id = ANY($1) AND state = 'held'
             UNION ALL SELECT queue, CASE WHEN run_at <= now() THEN 'due' ELSE 'scheduled' END, run_at
                 FROM jobs WHERE tenant_id = ANY($1) AND state = 'waiting'
             UNION ALL SELECT queue, state, run_at FROM jobs WHERE tenant_id = ANY($1) AND state IN ('dispatched', 'running')
             UNION ALL SELECT queue, 'dead', run_at FROM jobs WHERE tenant_id = ANY($1) AND state = 'dead'
         ), now_counts AS (
             SELECT queue,
                 count(*) FILTER (WHERE state = 'held') AS held,
                 count(*) FILTER (WHERE state = 'scheduled') AS scheduled,
                 count(*) FILTER (WHERE state = 'due') AS due,
                 count(*) FILTER (WHERE state = 'dispatched') AS dispatched,
                 count(*) FILTER (WHERE state = 'running') AS running,
                 count(*) FILTER (WHERE state = 'dead') AS dead,
                 min(run_at) FILTER (WHERE state IN ('due', 'dispatched')) AS oldest_due_at
             FROM unfinished GROUP BY queue
         ), lately AS (
             SELECT queue,
                 count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
                 count(*) FILTER (WHERE state IN ('dead', 'discarded')) AS died,
                 percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY greatest(extract(epoch FROM started_at - run_at), 0)::float8)
                     FILTER (WHERE state = 'succeeded') AS wait,
                 percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - started_at)::float8)
                     FILTER (WHERE state = 'succeeded') AS run
             FROM jobs WHERE tenant_id = ANY($1) AND finished_at > now() - $2 * interval '1 minute' GROUP BY queue
         ), served AS (
             SELECT queue, count(*) AS workers FROM workers, unnest(queues) AS queue
             WHERE stopped_at IS NULL AND last_seen_at > now() - interval '1 minute' GROUP BY queue
         )
         SELECT name, coalesce(held, 0) AS held, coalesce(scheduled, 0) AS scheduled, coalesce(due, 0) AS due,
             coalesce(dispatched, 0) AS dispatched, coalesce(running, 0) AS running, coalesce(dead, 0) AS dead, oldest_due_at,
             coalesce(succeeded, 0) AS succeeded, coalesce(died, 0) AS died,
             wait[1] AS wait_p50, wait[2] AS wait_p95, run[1] AS run_p50, run[2] AS run_p95, coalesce(workers, 0) AS workers
         FROM (SELECT queue AS name FROM now_counts UNION SELECT queue FROM lately UNION SELECT queue FROM served
               UNION SELECT queue FROM queue_settings WHERE tenant_id = ANY($1)) AS names
             LEFT JOIN now_counts ON now_counts.queue = name
             LEFT JOIN lately ON lately.queue = name
             LEFT JOIN served ON served.queue = name
         ORDER BY name",
    )
    .bind::<Array<SqlUuid>, _>(tenants)
    .bind::<Integer, _>(minutes)
    .load(&mut conn)
    .await?;
    Ok(rows)
}

/// What is set for the jobs of these tenants, and for whole queues.
pub async fn settings(mut conn: &AsyncPgConnection, tenants: &[TenantId]) -> Result<Vec<(TenantId, Settings)>> {
    let whose = tenants.iter().copied().chain([SYSTEM]);
    Ok(queue_settings::table
        .filter(queue_settings::tenant_id.eq_any(whose))
        .order((queue_settings::queue, queue_settings::tenant_id))
        .select((queue_settings::tenant_id, Settings::as_select()))
        .load(&mut conn)
        .await?)
}

/// Takes no more of the actor's tenant's jobs of a queue; what a worker has claimed goes on. Of a member of [`SYSTEM`], all tenants'.
///
/// Problem: `queue` (there is none of this name).
pub async fn pause(app: &App, actor: &Actor, queue: &str) -> Result<Settings> {
    let tx = begin(app, actor, queue).await?;
    let settings = set(&tx, actor, queue, Change::Pause(true)).await?;
    recall(&tx, actor.tenant, queue).await?;
    finish(tx, actor, "queue.paused", &settings).await
}

/// Lets the jobs of a queue begin again. As [`pause`].
pub async fn resume(app: &App, actor: &Actor, queue: &str) -> Result<Settings> {
    let tx = begin(app, actor, queue).await?;
    let settings = set(&tx, actor, queue, Change::Pause(false)).await?;
    finish(tx, actor, "queue.resumed", &settings).await
}

/// Sets how many jobs of the actor's tenant may be under way at once in a queue, on all workers together; `None` is as many as
/// the workers take. Those that run go on. Of a member of [`SYSTEM`], of all tenants together.
///
/// Problems: `queue` (there is none of this name), `concurrency` (not from 1 to [`MAX_CONCURRENCY`]).
pub async fn set_concurrency(app: &App, actor: &Actor, queue: &str, concurrency: Option<i32>) -> Result<Settings> {
    if concurrency.is_some_and(|limit| !(1..=MAX_CONCURRENCY).contains(&limit)) {
        let message = format!("Must be from 1 to {MAX_CONCURRENCY}; pause the queue to let nothing begin");
        return Err(Error::invalid("concurrency", Code::OutOfRange, message));
    }
    let tx = begin(app, actor, queue).await?;
    let settings = set(&tx, actor, queue, Change::Concurrency(concurrency)).await?;
    recall(&tx, actor.tenant, queue).await?;
    finish(tx, actor, "queue.concurrency_set", &settings).await
}

/// Sets how many jobs of the actor's tenant go for one of a tenant of weight 1, while both have a backlog in a queue. For the command
/// line alone: each tenant's own operators would want the most.
///
/// Problems: `queue` (there is none of this name), `weight` (not from 1 to [`MAX_WEIGHT`]).
pub async fn set_weight(app: &App, actor: &Actor, queue: &str, weight: i32) -> Result<Settings> {
    if actor.subject != Subject::System {
        return Err(Error::Forbidden(Permission::Operate.as_str()));
    }
    if !(1..=MAX_WEIGHT).contains(&weight) {
        return Err(Error::invalid("weight", Code::OutOfRange, format!("Must be from 1 to {MAX_WEIGHT}")));
    }
    let tx = begin(app, actor, queue).await?;
    let settings = set(&tx, actor, queue, Change::Weight(weight)).await?;
    finish(tx, actor, "queue.weight_set", &settings).await
}

/// Waits until the relays that are at it have committed, and keeps the others from beginning until this has.
async fn begin(app: &App, actor: &Actor, queue: &str) -> Result<Transaction> {
    actor.require(Permission::Operate)?;
    let tx = app.db.begin(actor.tenant).await?;
    // Before the relays have to wait.
    check(&tx, actor.tenant, queue).await?;
    sql_query("SELECT pg_advisory_xact_lock($1)").bind::<BigInt, _>(SETTINGS_LOCK).execute(&mut &*tx).await?;
    Ok(tx)
}

#[derive(QueryableByName)]
struct Named {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Refuses what is no queue: with settings it would be listed as one. Those of workers of another version are known by their workers,
/// settings and jobs.
async fn check(mut conn: &AsyncPgConnection, tenant: TenantId, queue: &str) -> Result<()> {
    if QUEUES.contains(&queue) {
        return Ok(());
    }
    let others: Vec<Named> = sql_query(
        "SELECT queue AS name FROM workers, unnest(queues) AS queue
         WHERE stopped_at IS NULL AND last_seen_at > now() - interval '1 minute'
         UNION SELECT queue FROM queue_settings WHERE tenant_id = ANY($1)",
    )
    .bind::<Array<SqlUuid>, _>(vec![tenant, SYSTEM])
    .load(&mut conn)
    .await?;
    let known: BTreeSet<&str> = QUEUES.into_iter().chain(others.iter().map(|other| other.name.as_str())).collect();
    if known.contains(queue) || has_jobs(conn, tenant, queue).await? {
        return Ok(());
    }
    let known = known.into_iter().collect::<Vec<_>>().join(", ");
    Err(Error::invalid("queue", Code::NotFound, format!("There is no queue of this name; there are {known}")))
}

/// Whether the tenant has jobs in a queue; of [`SYSTEM`], whether anybody has.
async fn has_jobs(mut conn: &AsyncPgConnection, tenant: TenantId, queue: &str) -> Result<bool> {
    let jobs = |whose: &str| format!("SELECT queue AS name FROM jobs WHERE queue = $1 {whose} LIMIT 1");
    let found = if tenant == SYSTEM {
        // The setting ends with the transaction.
        sql_query("SELECT set_config('app.dispatcher', 'on', true)").execute(&mut conn).await?;
        let found: Vec<Named> = sql_query(jobs("")).bind::<Text, _>(queue).load(&mut conn).await?;
        sql_query("SELECT set_config('app.dispatcher', '', true)").execute(&mut conn).await?;
        found
    } else {
        let jobs = sql_query(jobs("AND tenant_id = $2"));
        jobs.bind::<Text, _>(queue).bind::<SqlUuid, _>(tenant).load(&mut conn).await?
    };
    Ok(!found.is_empty())
}

enum Change {
    Pause(bool),
    Concurrency(Option<i32>),
    Weight(i32),
}

async fn set(mut conn: &AsyncPgConnection, actor: &Actor, queue: &str, change: Change) -> Result<Settings> {
    let (paused_at, concurrency, weight) = match change {
        Change::Pause(paused) => (paused.then(Utc::now), None, 1),
        Change::Concurrency(limit) => (None, limit, 1),
        Change::Weight(weight) => (None, None, weight),
    };
    let insert = diesel::insert_into(queue_settings::table)
        .values((
            queue_settings::tenant_id.eq(actor.tenant),
            queue_settings::queue.eq(queue),
            queue_settings::paused_at.eq(paused_at),
            queue_settings::concurrency.eq(concurrency),
            queue_settings::weight.eq(weight),
        ))
        .on_conflict((queue_settings::tenant_id, queue_settings::queue))
        .do_update();
    let updated_at = queue_settings::updated_at.eq(diesel::dsl::now);
    let row = match change {
        Change::Pause(_) => {
            let insert = insert.set((queue_settings::paused_at.eq(paused_at), updated_at));
            insert.returning(Settings::as_returning()).get_result(&mut conn).await?
        }
        Change::Concurrency(_) => {
            let insert = insert.set((queue_settings::concurrency.eq(concurrency), updated_at));
            insert.returning(Settings::as_returning()).get_result(&mut conn).await?
        }
        Change::Weight(_) => {
            let insert = insert.set((queue_settings::weight.eq(weight), updated_at));
            insert.returning(Settings::as_returning()).get_result(&mut conn).await?
        }
    };
    Ok(row)
}

/// Takes jobs back that are on their way to a worker; the relay sends on what may still go. Ids that are left in Redis say
/// nothing: a worker claims what the ledger calls dispatched.
async fn recall(mut conn: &AsyncPgConnection, tenant: TenantId, queue: &str) -> Result<()> {
    let recall = |whose: &str| {
        format!(
            "UPDATE jobs SET state = 'waiting'
             FROM (SELECT tenant_id, id FROM jobs WHERE queue = $1 AND state = 'dispatched' {whose}
                   ORDER BY id FOR UPDATE) AS sent
             WHERE jobs.tenant_id = sent.tenant_id AND jobs.id = sent.id"
        )
    };
    if tenant == SYSTEM {
        // The one thing that an operator does to jobs of all tenants at once; the setting ends with the transaction.
        sql_query("SELECT set_config('app.dispatcher', 'on', true)").execute(&mut conn).await?;
        sql_query(recall("")).bind::<Text, _>(queue).execute(&mut conn).await?;
        sql_query("SELECT set_config('app.dispatcher', '', true)").execute(&mut conn).await?;
    } else {
        let recall = sql_query(recall("AND tenant_id = $2"));
        recall.bind::<Text, _>(queue).bind::<SqlUuid, _>(tenant).execute(&mut conn).await?;
    }
    Ok(())
}

async fn finish(tx: Transaction, actor: &Actor, action: &str, settings: &Settings) -> Result<Settings> {
    let Settings { queue, paused_at, concurrency, weight } = settings;
    let details = json!({ "queue": queue, "pausedAt": paused_at, "concurrency": concurrency, "weight": weight });
    audit::record(&tx, actor, action, ("queue", Uuid::nil()), &details).await?;
    notify(&tx, CHANNEL, queue).await?;
    tx.commit().await?;
    Ok(settings.clone())
}
