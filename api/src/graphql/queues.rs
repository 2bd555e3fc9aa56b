//! Queues, jobs and workers, for operators. `job` is the type, `steering` what is done to them, `changes` tells of them live.

mod changes;
mod job;
pub mod steering;

use async_graphql::{Context, ID, InputObject, Object, Result};
use chrono::{DateTime, Utc};
use mdl::actor::Permission;
use mdl::error::{Code, Error};
use mdl::ids::{JobId, TenantId};
use mdl::jobs::queues::{self, Settings};
use mdl::jobs::store::{self, Order};
use mdl::jobs::workers;
use mdl::page::PageArgs;
use mdl::tenants::SYSTEM;

pub use self::changes::JobSubscriptions;
pub use self::job::{Job, JobState};
pub use self::steering::QueueMutations;
use super::connection::{Connection, connection};
use super::context::ContextExt;
use super::error::top_level;
use super::filter::{DateTimeRange, OneOf, OrderDirection, check_texts, converted};
use super::global_id::{Kind, expect};
use super::guard::Needs;
use super::limits::page_cost;

/// Conditions on jobs; all that are given must hold.
#[derive(Debug, Default, InputObject)]
pub struct JobFilter {
    /// Is one of these.
    ids: Option<Vec<ID>>,
    /// The queue.
    queue: Option<OneOf<String>>,
    /// The kind: `import_catalog`, …
    kind: Option<OneOf<String>>,
    /// Where it stands.
    state: Option<OneOf<JobState>>,
    /// The last error has this in it, in capitals or not.
    error: Option<String>,
    /// When it was enqueued.
    created: Option<DateTimeRange>,
    /// When it ended.
    finished: Option<DateTimeRange>,
}

impl JobFilter {
    fn parse(self) -> mdl::Result<store::Filter> {
        check_texts("filter", &self)?;
        let (created, finished) = (self.created, self.finished);
        Ok(store::Filter {
            ids: self.ids.map(|ids| job_ids("ids", &ids)).transpose()?,
            queues: self.queue.map(converted),
            kinds: self.kind.map(converted),
            states: self.state.map(converted),
            error: self.error.as_deref().map(store::error_text).transpose()?,
            batch: None,
            created_from: created.as_ref().and_then(|range| range.from),
            created_before: created.and_then(|range| range.before),
            finished_from: finished.as_ref().and_then(|range| range.from),
            finished_before: finished.and_then(|range| range.before),
        })
    }
}

/// The ids of jobs, given as the argument `field`.
fn job_ids(field: &str, ids: &[ID]) -> mdl::Result<Vec<JobId>> {
    ids.iter().map(|id| expect(field, Kind::Job, id).map(JobId)).collect()
}

/// What jobs can be ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, async_graphql::Enum)]
pub enum JobOrderField {
    /// When it was enqueued.
    CreatedAt,
    /// When it is or was due.
    RunAt,
}

/// How a list of jobs is ordered.
#[derive(Debug, InputObject)]
pub struct JobOrder {
    /// By what.
    field: JobOrderField,
    /// Which way.
    direction: OrderDirection,
}

impl From<JobOrder> for Order {
    fn from(order: JobOrder) -> Self {
        match (order.field, order.direction) {
            (JobOrderField::CreatedAt, OrderDirection::Asc) => Order::Oldest,
            (JobOrderField::CreatedAt, OrderDirection::Desc) => Order::Newest,
            (JobOrderField::RunAt, OrderDirection::Asc) => Order::DueFirst,
            (JobOrderField::RunAt, OrderDirection::Desc) => Order::DueLast,
        }
    }
}

/// A queue, as it stands for the jobs of the caller's tenant.
pub struct Queue {
    state: queues::Queue,
    own: Option<Settings>,
    of_all: Option<Settings>,
}

/// A queue, as it stands for the jobs of the caller's tenant.
#[Object]
impl Queue {
    /// Its name, which is also its identity.
    fn name(&self) -> &str {
        &self.state.name
    }

    /// Jobs that wait for others of a batch to end.
    fn held(&self) -> i64 {
        self.state.held
    }

    /// Jobs whose time has not come: enqueued for later, or failed and to be tried again.
    fn scheduled(&self) -> i64 {
        self.state.scheduled
    }

    /// Jobs that are due and wait for room.
    fn due(&self) -> i64 {
        self.state.due
    }

    /// Jobs that the next free worker takes.
    fn dispatched(&self) -> i64 {
        self.state.dispatched
    }

    /// Jobs that run.
    fn running(&self) -> i64 {
        self.state.running
    }

    /// Jobs that have failed for good and wait for somebody to retry or discard them.
    fn dead(&self) -> i64 {
        self.state.dead
    }

    /// Since when the job has been due that has waited longest; null if none waits.
    fn oldest_due_at(&self) -> Option<DateTime<Utc>> {
        self.state.oldest_due_at
    }

    /// Jobs that succeeded in the last `minutes`.
    fn succeeded(&self) -> i64 {
        self.state.succeeded
    }

    /// Jobs that died in the last `minutes`.
    fn died(&self) -> i64 {
        self.state.died
    }

    /// The share of the jobs that ended in the last `minutes` that died, from 0 to 1; null if none ended.
    fn failure_rate(&self) -> Option<f64> {
        self.state.failure_rate()
    }

    /// Seconds from due to started, of half of the jobs that succeeded in the last `minutes` at most this.
    #[graphql(name = "waitSecondsP50")]
    async fn wait_p50(&self) -> Option<f64> {
        self.state.wait_p50
    }

    /// As `waitSecondsP50`, of 95 in a hundred.
    #[graphql(name = "waitSecondsP95")]
    async fn wait_p95(&self) -> Option<f64> {
        self.state.wait_p95
    }

    /// Seconds from started to finished, of half of the jobs that succeeded in the last `minutes` at most this.
    #[graphql(name = "runSecondsP50")]
    async fn run_p50(&self) -> Option<f64> {
        self.state.run_p50
    }

    /// As `runSecondsP50`, of 95 in a hundred.
    #[graphql(name = "runSecondsP95")]
    async fn run_p95(&self) -> Option<f64> {
        self.state.run_p95
    }

    /// Workers that serve it now.
    fn workers(&self) -> i64 {
        self.state.workers
    }

    /// When the tenant's operator paused the tenant's jobs in it; null if they are not paused.
    fn paused_at(&self) -> Option<DateTime<Utc>> {
        self.own.as_ref()?.paused_at
    }

    /// Jobs of the tenant that may be under way at once, on all workers together; null for as many as the workers take.
    fn concurrency(&self) -> Option<i32> {
        self.own.as_ref()?.concurrency
    }

    /// Jobs of the tenant that go for one of a tenant of weight 1, while both have a backlog; operators of the deployment set it.
    fn weight(&self) -> i32 {
        self.own.as_ref().map_or(1, |own| own.weight)
    }

    /// When an operator of the deployment paused it for everybody; null if it is not.
    fn paused_for_all_at(&self) -> Option<DateTime<Utc>> {
        self.of_all.as_ref()?.paused_at
    }

    /// Jobs of all tenants that may be under way at once; null for as many as the workers take.
    fn concurrency_for_all(&self) -> Option<i32> {
        self.of_all.as_ref()?.concurrency
    }
}

/// A process that does jobs.
pub struct Worker(workers::Worker);

/// A process that does jobs.
#[Object]
impl Worker {
    /// Its name, which is also its identity: host, process and a few letters.
    fn name(&self) -> &str {
        &self.0.name
    }

    /// The machine it runs on.
    fn host(&self) -> &str {
        &self.0.host
    }

    /// Its process there.
    fn pid(&self) -> i64 {
        self.0.pid
    }

    /// The program's version.
    fn version(&self) -> &str {
        &self.0.version
    }

    /// The queues it serves.
    fn queues(&self) -> &[String] {
        &self.0.queues
    }

    /// Jobs that it runs, of all tenants.
    fn running_jobs(&self) -> i32 {
        self.0.running
    }

    /// Its memory; null where its system does not say.
    fn memory_bytes(&self) -> Option<i64> {
        self.0.memory_bytes
    }

    /// When it started.
    fn started_at(&self) -> DateTime<Utc> {
        self.0.started_at
    }

    /// When it last gave a sign of life.
    fn last_seen_at(&self) -> DateTime<Utc> {
        self.0.last_seen_at
    }

    /// When it stopped, having been told to; null if it was not, or died.
    fn stopped_at(&self) -> Option<DateTime<Utc>> {
        self.0.stopped_at
    }

    /// Whether it has neither stopped nor been silent for half a minute.
    fn alive(&self) -> bool {
        self.0.is_alive()
    }
}

/// What a list of jobs is counted by, if somebody asks.
pub struct JobTotals(store::Filter);

#[Object]
impl JobTotals {
    /// How many jobs the whole list has. Counted only when selected.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        view.snapshot.read(async |conn| store::count(conn, &[tenant], &self.0).await).await.map_err(top_level)
    }
}

#[derive(Default)]
pub struct QueueQueries;

#[Object]
impl QueueQueries {
    /// Every queue that a worker serves or that has jobs of the tenant, by name.
    #[graphql(guard = "Needs(Permission::Operate)", complexity = "50 * child_complexity + 1")]
    async fn queues(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What the last while is for counts and times of jobs that ended: 1 to 1440.", default = 60)]
        minutes: i32,
    ) -> Result<Vec<Queue>> {
        if !(1..=1440).contains(&minutes) {
            return Err(top_level(Error::invalid("minutes", Code::OutOfRange, "Must be from 1 to 1440")));
        }
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let read = view.snapshot.read(async |conn| {
            let whose = [tenant];
            futures::try_join!(queues::overview(conn, &whose, minutes), queues::settings(conn, &whose))
        });
        let (states, settings) = read.await.map_err(top_level)?;
        let of = |whose: TenantId, queue: &str| {
            let found = settings.iter().find(|(tenant, settings)| *tenant == whose && settings.queue == queue);
            found.map(|(_, settings)| settings.clone())
        };
        let queue = |state: queues::Queue| Queue { own: of(tenant, &state.name), of_all: of(SYSTEM, &state.name), state };
        Ok(states.into_iter().map(queue).collect())
    }

    /// The jobs of the tenant that match.
    #[graphql(guard = "Needs(Permission::Operate)", complexity = "page_cost(first, last, child_complexity)")]
    #[expect(clippy::too_many_arguments, reason = "a connection has four of its own")]
    async fn jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which jobs; all if not given.")] filter: Option<JobFilter>,
        #[graphql(desc = "How they are ordered; newest first if not given.")] order_by: Option<JobOrder>,
        #[graphql(
            desc = "How many, from the start of the list or after `after`; at most 100, 20 if neither this nor `last` is given."
        )]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes after it.")] after: Option<String>,
        #[graphql(desc = "How many, from the end of the list or before `before`; at most 100.")] last: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes before it.")] before: Option<String>,
    ) -> Result<Connection<Job, JobTotals>> {
        let args = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        let filter = filter.unwrap_or_default().parse().map_err(top_level)?;
        let order = order_by.map_or_else(Order::default, Into::into);
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let read = view.snapshot.read(async |conn| store::page(conn, &[tenant], &filter, order, &args).await);
        let page = read.await.map_err(top_level)?.map(|job| {
            let position = order.position(&job);
            (job, position)
        });
        Ok(connection(ctx, page, JobTotals(filter), Job::from))
    }

    /// One job of the tenant, by its id.
    #[graphql(guard = "Needs(Permission::Operate)")]
    async fn job(&self, ctx: &Context<'_>, #[graphql(desc = "The id, as `jobs` gave it.")] id: ID) -> Option<Result<Job>> {
        find(ctx, &id).await.transpose()
    }

    /// The processes that do jobs, of the last day; those that started last first.
    #[graphql(guard = "Needs(Permission::Operate)", complexity = "50 * child_complexity + 1")]
    async fn workers(&self, ctx: &Context<'_>) -> Result<Vec<Worker>> {
        let found = ctx.reading()?.snapshot.read(async |conn| workers::all(conn).await).await.map_err(top_level)?;
        Ok(found.into_iter().map(Worker).collect())
    }
}

/// The job with this id.
pub async fn find(ctx: &Context<'_>, id: &ID) -> Result<Option<Job>> {
    let id = JobId(expect("id", Kind::Job, id).map_err(top_level)?);
    let view = ctx.reading()?;
    let tenant = view.snapshot.tenant();
    let found = view.snapshot.read(async |conn| mdl::jobs::by_id(conn, tenant, id).await).await.map_err(top_level)?;
    Ok(found.map(Job::from))
}
