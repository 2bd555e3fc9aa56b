//! Jobs that belong together, and one that runs when all of them have ended.

use diesel::sql_query;
use diesel::sql_types::{Array, Nullable, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::{CHANNEL, Enqueue, Job, JobId, enqueue_many, insert, notify, raw};
use crate::actor::Actor;
use crate::error::{Error, Result};
use crate::ids::BatchId;

/// Adds jobs to the ledger, and one that is held until all of them have succeeded or were given up: a cancelled or discarded
/// job counts as ended, a dead one waits for somebody to retry or discard it. All in the caller's transaction. Answers with the
/// id of the one that comes after.
pub async fn enqueue_batch<J: Job, Then: Job>(conn: &AsyncPgConnection, actor: &Actor, jobs: &[J], then: &Then) -> Result<JobId> {
    let batch = BatchId(Uuid::now_v7());
    enqueue_many(conn, actor, jobs, 0, Some(batch)).await?;
    let held = insert(conn, actor, raw(then)?, &Enqueue::default(), Some(batch)).await?;
    held.ok_or_else(|| Error::internal("a job without a unique key was in conflict with another"))
}

/// Lets those held jobs go whose batch has ended; of these batches only, if they are given. Needs a transaction of
/// [`dispatch`](crate::db::Db::dispatch) that began after the last of the batch had ended. Answers how many went.
pub async fn release(mut conn: &AsyncPgConnection, batches: Option<&[BatchId]>) -> Result<usize> {
    let released = sql_query(
        "UPDATE jobs SET state = 'waiting', run_at = now()
         FROM (SELECT tenant_id, id FROM jobs AS held
               WHERE state = 'held' AND ($1 IS NULL OR waits_for = ANY($1))
                 AND NOT EXISTS (SELECT FROM jobs AS member
                                 WHERE member.tenant_id = held.tenant_id AND member.batch_id = held.waits_for
                                   AND member.state NOT IN ('succeeded', 'cancelled', 'discarded'))
               ORDER BY id FOR UPDATE SKIP LOCKED) AS ready
         WHERE jobs.tenant_id = ready.tenant_id AND jobs.id = ready.id",
    )
    .bind::<Nullable<Array<SqlUuid>>, _>(batches)
    .execute(&mut conn)
    .await?;
    if released > 0 {
        notify(conn, CHANNEL, "").await?;
    }
    Ok(released)
}
