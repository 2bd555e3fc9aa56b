//! Reads of the ledger for people: lists, counts, one job with its attempts.
//!
//! Whose jobs is said by a list of tenants. The API gives the caller's; the command line may give several, in a transaction of
//! [`dispatch`](crate::db::Db::dispatch).

use chrono::{DateTime, Utc};
use diesel::dsl::count_star;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::{Deserialize, Serialize};

use super::{JobRow, JobState};
use crate::error::{Code, Error, Result};
use crate::ids::{BatchId, JobId, TenantId};
use crate::page::{Page, PageArgs};
use crate::schema::{job_attempts, jobs};
use crate::text::text_enum;

/// Which jobs are wanted: those for which everything given holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Filter {
    pub ids: Option<Vec<JobId>>,
    pub queues: Option<Vec<String>>,
    pub kinds: Option<Vec<String>>,
    #[serde(serialize_with = "names")]
    pub states: Option<Vec<JobState>>,
    /// The last error has this in it, in capitals or not.
    pub error: Option<String>,
    pub batch: Option<BatchId>,
    pub created_from: Option<DateTime<Utc>>,
    pub created_before: Option<DateTime<Utc>>,
    pub finished_from: Option<DateTime<Utc>>,
    pub finished_before: Option<DateTime<Utc>>,
}

impl Filter {
    /// Whether it lets everything through.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it lets this job through.
    pub fn lets_through(&self, job: &JobRow) -> bool {
        fn any<T: PartialEq<U>, U: ?Sized>(wanted: &Option<Vec<T>>, is: &U) -> bool {
            wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|wanted| wanted == is))
        }
        let within = |time: Option<DateTime<Utc>>, from: Option<DateTime<Utc>>, before: Option<DateTime<Utc>>| {
            from.is_none_or(|from| time.is_some_and(|time| time >= from))
                && before.is_none_or(|before| time.is_some_and(|time| time < before))
        };
        let Self { ids, queues, kinds, states, error, batch, created_from, created_before, finished_from, finished_before } =
            self;
        any(ids, &job.id)
            && any(queues, job.queue.as_str())
            && any(kinds, job.kind.as_str())
            && any(states, &job.state)
            && error.as_ref().is_none_or(|text| {
                let error = job.last_error.as_deref().unwrap_or_default();
                error.to_lowercase().contains(&text.to_lowercase())
            })
            && batch.is_none_or(|batch| job.batch_id == Some(batch) || job.waits_for == Some(batch))
            && within(Some(job.created_at), *created_from, *created_before)
            && within(job.finished_at, *finished_from, *finished_before)
    }
}

fn names<S: serde::Serializer>(states: &Option<Vec<JobState>>, serializer: S) -> Result<S::Ok, S::Error> {
    states.as_ref().map(|states| states.iter().map(|state| state.as_str()).collect::<Vec<_>>()).serialize(serializer)
}

/// What a list of jobs is ordered by. Ids follow within the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// When they were enqueued, newest first.
    #[default]
    Newest,
    Oldest,
    /// When they are or were due, soonest first.
    DueFirst,
    DueLast,
}

/// Where a job stands in such a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position(pub DateTime<Utc>, pub JobId);

impl Order {
    /// Where a job stands in a list of this order.
    pub fn position(self, job: &JobRow) -> Position {
        match self {
            Order::Newest | Order::Oldest => Position(job.created_at, job.id),
            Order::DueFirst | Order::DueLast => Position(job.run_at, job.id),
        }
    }
}

/// An attempt that did not succeed.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = job_attempts)]
pub struct Attempt {
    pub job_id: JobId,
    /// From 1. After a returned attempt, and after an operator's retry, numbers repeat.
    pub number: i32,
    pub worker: Option<String>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: DateTime<Utc>,
    pub outcome: AttemptOutcome,
    pub error: Option<String>,
}

/// How an attempt ended that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// To be tried again.
    Failed,
    /// Not to be tried again.
    Dead,
    Cancelled,
    /// Its worker stopped; it did not count.
    Returned,
    /// Its worker gave no sign of life.
    Lost,
}
text_enum!(AttemptOutcome {
    Failed = "failed",
    Dead = "dead",
    Cancelled = "cancelled",
    Returned = "returned",
    Lost = "lost",
});

/// One page.
pub async fn page(
    mut conn: &AsyncPgConnection,
    tenants: &[TenantId],
    filter: &Filter,
    order: Order,
    args: &PageArgs<Position>,
) -> Result<Page<JobRow>> {
    let mut query = matching(tenants, filter).select(JobRow::as_select()).limit(args.fetch());
    // Rows of one time are told apart by id, in the direction of the list.
    macro_rules! ordered {
        ($time:path, $ascending:expr) => {{
            let ascending = $ascending;
            let after = |Position(time, id): Position| $time.gt(time).or($time.eq(time).and(jobs::id.gt(id)));
            let before = |Position(time, id): Position| $time.lt(time).or($time.eq(time).and(jobs::id.lt(id)));
            if let Some(position) = if ascending { args.after } else { args.before } {
                query = query.filter(after(position));
            }
            if let Some(position) = if ascending { args.before } else { args.after } {
                query = query.filter(before(position));
            }
            if ascending != args.backward {
                query.order(($time.asc(), jobs::id.asc()))
            } else {
                query.order(($time.desc(), jobs::id.desc()))
            }
        }};
    }
    let query = match order {
        Order::Newest => ordered!(jobs::created_at, false),
        Order::Oldest => ordered!(jobs::created_at, true),
        Order::DueFirst => ordered!(jobs::run_at, true),
        Order::DueLast => ordered!(jobs::run_at, false),
    };
    Ok(Page::from_rows(query.load(&mut conn).await?, args))
}

/// How many jobs there are.
pub async fn count(mut conn: &AsyncPgConnection, tenants: &[TenantId], filter: &Filter) -> Result<i64> {
    Ok(matching(tenants, filter).select(count_star()).first(&mut conn).await?)
}

/// How many jobs of each tenant there are; tenants without are left out.
pub async fn count_by_tenant(
    mut conn: &AsyncPgConnection,
    tenants: &[TenantId],
    filter: &Filter,
) -> Result<Vec<(TenantId, i64)>> {
    let ids = matching(tenants, filter).select(jobs::id);
    Ok(jobs::table
        .filter(jobs::tenant_id.eq_any(tenants).and(jobs::id.eq_any(ids)))
        .group_by(jobs::tenant_id)
        .select((jobs::tenant_id, count_star()))
        .order(jobs::tenant_id)
        .load(&mut conn)
        .await?)
}

/// The jobs with these ids, in no order.
pub async fn by_ids(mut conn: &AsyncPgConnection, tenants: &[TenantId], ids: &[JobId]) -> Result<Vec<JobRow>> {
    let filter = Filter { ids: Some(ids.to_vec()), ..Filter::default() };
    Ok(matching(tenants, &filter).select(JobRow::as_select()).load(&mut conn).await?)
}

/// The attempts of a job that did not succeed, in the order they began.
pub async fn attempts(mut conn: &AsyncPgConnection, tenant: TenantId, job: JobId) -> Result<Vec<Attempt>> {
    Ok(job_attempts::table
        .filter(job_attempts::tenant_id.eq(tenant).and(job_attempts::job_id.eq(job)))
        .order(job_attempts::lease_token)
        .select(Attempt::as_select())
        .load(&mut conn)
        .await?)
}

/// The query for what a filter lets through.
pub(super) fn matching<'a>(tenants: &[TenantId], filter: &Filter) -> jobs::BoxedQuery<'a, Pg> {
    let Filter { ids, queues, kinds, states, error, batch, created_from, created_before, finished_from, finished_before } =
        filter.clone();
    let mut query = jobs::table.filter(jobs::tenant_id.eq_any(tenants.to_vec())).into_boxed();
    if let Some(ids) = ids {
        query = query.filter(jobs::id.eq_any(ids));
    }
    if let Some(queues) = queues {
        query = query.filter(jobs::queue.eq_any(queues));
    }
    if let Some(kinds) = kinds {
        query = query.filter(jobs::kind.eq_any(kinds));
    }
    if let Some(states) = states {
        query = query.filter(jobs::state.eq_any(states));
    }
    if let Some(error) = error {
        query = query.filter(jobs::last_error.ilike(format!("%{}%", literally(&error))));
    }
    if let Some(batch) = batch {
        query = query.filter(jobs::batch_id.eq(batch).or(jobs::waits_for.eq(batch)));
    }
    if let Some(from) = created_from {
        query = query.filter(jobs::created_at.ge(from));
    }
    if let Some(before) = created_before {
        query = query.filter(jobs::created_at.lt(before));
    }
    if let Some(from) = finished_from {
        query = query.filter(jobs::finished_at.ge(from));
    }
    if let Some(before) = finished_before {
        query = query.filter(jobs::finished_at.lt(before));
    }
    query
}

/// A text to find errors by. Every error has the empty one in it, which is never meant.
///
/// Problem: `error` (empty).
pub fn error_text(text: &str) -> Result<String> {
    if text.trim().is_empty() {
        return Err(Error::invalid("error", Code::Required, "Say what the error has in it; an empty text is in every error"));
    }
    Ok(text.to_owned())
}

/// Text as a LIKE pattern that matches nothing else.
fn literally(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_text_is_no_condition() {
        assert!(error_text("").is_err() && error_text(" \n").is_err());
        assert_eq!(error_text("no answer").unwrap(), "no answer");
    }

    #[test]
    fn patterns_mean_themselves() {
        assert_eq!(literally(r"50% of a_b\c"), r"50\% of a\_b\\c");
    }
}
