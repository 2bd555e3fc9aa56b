//! What jobs have become, as the ledger says.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::{NoContext, Timestamp, Uuid};

use super::MOST;
use crate::db::Db;
use crate::error::Result;
use crate::ids::{JobId, TenantId};
use crate::jobs::{JobRow, JobState};

/// How far a look goes back behind the one before: for transactions that took so long, and clocks that differ so much.
const OVERLAP: Duration = Duration::from_secs(10);

/// What of a job is told when it changes.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub(super) struct Mark {
    #[diesel(sql_type = Text)]
    pub state: JobState,
    #[diesel(sql_type = Integer)]
    pub attempt: i32,
    #[diesel(sql_type = Timestamptz)]
    run_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub started_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    cancel_requested_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<BigInt>)]
    progress_done: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    progress_total: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    progress_message: Option<String>,
}

impl Mark {
    pub fn of(job: &JobRow) -> Self {
        Self {
            state: job.state,
            attempt: job.attempt,
            run_at: job.run_at,
            started_at: job.started_at,
            cancel_requested_at: job.cancel_requested_at,
            progress_done: job.progress_done,
            progress_total: job.progress_total,
            progress_message: job.progress_message.clone(),
        }
    }

    /// Whether it soon changes without anybody's doing.
    pub fn is_under_way(&self) -> bool {
        matches!(self.state, JobState::Dispatched | JobState::Running)
    }
}

#[derive(QueryableByName)]
struct Marked {
    #[diesel(sql_type = SqlUuid)]
    id: JobId,
    #[diesel(embed)]
    mark: Mark,
}

/// The jobs of a tenant that are under way, these, and those that were enqueued or ended in the last while: one more than [`MOST`]
/// of them at most.
pub(super) async fn marks(db: &Db, tenant: TenantId, these: &[JobId], last: Duration) -> Result<HashMap<JobId, Mark>> {
    let last = last + OVERLAP;
    // Ids are made in the order of time.
    let now = Timestamp::now(NoContext).to_unix().0;
    let made_after = Uuid::new_v7(Timestamp::from_unix(NoContext, now.saturating_sub(last.as_secs()), 0));
    // Each from its own index: nothing reads what is done with, or waits for its time.
    const SELECT: &str = "SELECT id, state, attempt, run_at, started_at, cancel_requested_at, progress_done, progress_total, \
         progress_message FROM jobs WHERE tenant_id = $1";
    let statement = format!(
        "{SELECT} AND state IN ('dispatched', 'running')
         UNION ALL {SELECT} AND id = ANY($2)
         UNION ALL {SELECT} AND id > $3
         UNION ALL {SELECT} AND finished_at > now() - $4 * interval '1 second'
         LIMIT $5"
    );
    let snapshot = db.snapshot(tenant);
    let query = async |mut conn: &diesel_async::AsyncPgConnection| {
        let query = sql_query(statement)
            .bind::<SqlUuid, _>(tenant)
            .bind::<Array<SqlUuid>, _>(these)
            .bind::<SqlUuid, _>(made_after)
            .bind::<Double, _>(last.as_secs_f64())
            .bind::<BigInt, _>(MOST as i64 + 1);
        Ok(query.load::<Marked>(&mut conn).await?)
    };
    let found = snapshot.read(query).await?;
    snapshot.finish().await;
    Ok(found.into_iter().map(|Marked { id, mark }| (id, mark)).collect())
}
