//! What runs by the clock, for operators.

use async_graphql::{Context, Enum, ID, InputObject, Object, Result, SimpleObject};
use chrono::{DateTime, Utc};
use mdl::actor::Permission;
use mdl::error::{Code, Error};
use mdl::schedules;

use super::context::ContextExt;
use super::error::top_level;
use super::global_id::{Kind, encode};
use super::guard::Needs;
use super::payload::payloads;

/// What happens at a time when the job before still waits or runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::schedules::Overlap")]
pub enum ScheduleOverlap {
    /// The time is skipped.
    Skip,
    /// Another job waits its turn.
    Queue,
}

/// What happens when nobody was there at one or several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::schedules::CatchUp")]
pub enum ScheduleCatchUp {
    /// It runs once, as soon as somebody is there.
    Once,
    /// It runs at its next time.
    Never,
}

/// What became of one time of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::schedules::Outcome")]
pub enum ScheduleOutcome {
    /// Its job was enqueued.
    Fired,
    /// Its job was enqueued because an operator asked for it.
    Requested,
    /// The job before still waited or ran.
    Skipped,
    /// Nobody was there, and it is not made up for.
    Missed,
}

/// Something that runs by the clock, for the whole deployment.
pub struct Schedule(schedules::Schedule);

/// Something that runs by the clock, for the whole deployment.
#[Object]
impl Schedule {
    /// Its name, which is also its identity.
    fn name(&self) -> &str {
        &self.0.name
    }

    /// What it does, in a sentence.
    fn description(&self) -> &str {
        &self.0.description
    }

    /// Its times, as cron says them.
    fn expression(&self) -> &str {
        &self.0.expression
    }

    /// The time zone of its times.
    fn time_zone(&self) -> &str {
        &self.0.time_zone
    }

    /// The kind of its jobs.
    fn kind(&self) -> &str {
        &self.0.kind
    }

    /// What happens at a time when the job before still waits or runs.
    fn overlap(&self) -> ScheduleOverlap {
        self.0.overlap.into()
    }

    /// What happens when nobody was there at one or several times.
    fn catch_up(&self) -> ScheduleCatchUp {
        self.0.catch_up.into()
    }

    /// `false` if the settings have switched it off.
    fn enabled(&self) -> bool {
        self.0.enabled
    }

    /// When it was paused; null if it is not.
    fn paused_at(&self) -> Option<DateTime<Utc>> {
        self.0.paused_at
    }

    /// Its next times; none if it is off or paused.
    async fn next_runs(&self, #[graphql(desc = "How many: 1 to 20.", default = 3)] count: i32) -> Result<Vec<DateTime<Utc>>> {
        self.0.upcoming(checked(count)?).map_err(top_level)
    }

    /// Its last times, newest first.
    #[graphql(complexity = "20 * child_complexity + 1")]
    async fn last_runs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many: 1 to 20.", default = 3)] count: i32,
    ) -> Result<Vec<ScheduleRun>> {
        let (view, count) = (ctx.reading()?, checked(count)? as i64);
        let read = view.snapshot.read(async |conn| schedules::slots(conn, &self.0.name, count).await);
        Ok(read.await.map_err(top_level)?.into_iter().map(ScheduleRun::from).collect())
    }
}

fn checked(count: i32) -> Result<usize> {
    let count = usize::try_from(count).ok().filter(|count| (1..=20).contains(count));
    count.ok_or_else(|| top_level(Error::invalid("count", Code::OutOfRange, "Must be from 1 to 20")))
}

/// One time of a schedule, and what became of it.
#[derive(SimpleObject)]
pub struct ScheduleRun {
    /// The time.
    time: DateTime<Utc>,
    /// What became of it.
    outcome: ScheduleOutcome,
    /// When that was.
    fired_at: DateTime<Utc>,
    /// Its job, which members of mdl-system can look at; null if there was none.
    job_id: Option<ID>,
}

impl From<schedules::Slot> for ScheduleRun {
    fn from(slot: schedules::Slot) -> Self {
        let job_id = slot.job_id.map(|id| encode(Kind::Job, id.0));
        Self { time: slot.slot, outcome: slot.outcome.into(), fired_at: slot.fired_at, job_id }
    }
}

#[derive(Default)]
pub struct ScheduleQueries;

#[Object]
impl ScheduleQueries {
    /// What runs by the clock, by name.
    #[graphql(guard = "Needs(Permission::Operate)", complexity = "20 * child_complexity + 1")]
    async fn schedules(&self, ctx: &Context<'_>) -> Result<Vec<Schedule>> {
        let found = ctx.reading()?.snapshot.read(async |conn| schedules::all(conn).await).await.map_err(top_level)?;
        Ok(found.into_iter().map(Schedule).collect())
    }
}

/// Which schedule.
#[derive(InputObject)]
pub struct ScheduleInput {
    /// Its name.
    name: String,
}

payloads! {
    /// The time that was made for the request.
    RunScheduleNowPayload {
        /// The time, with its job.
        run: ScheduleRun
    }
    /// The schedule that was changed.
    SchedulePayload {
        /// As it is now.
        schedule: Schedule
    }
}

#[derive(Default)]
pub struct ScheduleMutations;

#[Object]
impl ScheduleMutations {
    /// Enqueues the job of a schedule now, besides its times. Only for members of mdl-system.
    #[graphql(guard = "Needs(Permission::Operate)")]
    async fn run_schedule_now(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which schedule.")] input: ScheduleInput,
    ) -> Result<RunScheduleNowPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        RunScheduleNowPayload::answer(schedules::run_now(ctx.app(), actor, &input.name).await, ScheduleRun::from)
    }

    /// Lets the times of a schedule pass without a job, until it is resumed. Only for members of mdl-system.
    #[graphql(guard = "Needs(Permission::Operate)")]
    async fn pause_schedule(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which schedule.")] input: ScheduleInput,
    ) -> Result<SchedulePayload> {
        let actor = ctx.actor().map_err(top_level)?;
        SchedulePayload::answer(schedules::pause(ctx.app(), actor, &input.name).await, Schedule)
    }

    /// Lets the times of a schedule count again; those that passed are not made up for. Only for members of mdl-system.
    #[graphql(guard = "Needs(Permission::Operate)")]
    async fn resume_schedule(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which schedule.")] input: ScheduleInput,
    ) -> Result<SchedulePayload> {
        let actor = ctx.actor().map_err(top_level)?;
        SchedulePayload::answer(schedules::resume(ctx.app(), actor, &input.name).await, Schedule)
    }
}
