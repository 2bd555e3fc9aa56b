//! What the ledger forgets.

use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Nullable, Uuid as SqlUuid};
use diesel::{OptionalExtension, QueryableByName};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::app::App;
use crate::error::Result;
use crate::ids::{JobId, TenantId};
use crate::tenants::SYSTEM;

/// Jobs that one statement deletes: few enough that nobody waits for it.
const BATCH: i64 = 5_000;

/// Deletes jobs of all tenants that ended more than the settings' days ago (not dead ones), and what is known of workers and
/// schedules from before their time. Answers how many jobs.
pub async fn prune(app: &App) -> Result<u64> {
    let days = i32::try_from(app.config.schedules.jobs_keep_days).unwrap_or(i32::MAX);
    let mut deleted = 0;
    let mut after = (TenantId(Uuid::nil()), JobId(Uuid::nil()));
    loop {
        let tx = app.db.dispatch().await?;
        let batch = delete_after(&tx, after, days).await?;
        tx.commit().await?;
        deleted += u64::try_from(batch.deleted).unwrap_or(0);
        match batch.last_tenant.zip(batch.last) {
            Some(last) => after = last,
            None => break,
        }
    }
    let tx = app.db.begin(SYSTEM).await?;
    // A worker that has written nothing for a day is gone, whatever became of it.
    sql_query("DELETE FROM workers WHERE tenant_id = $1 AND last_seen_at < now() - interval '1 day'")
        .bind::<SqlUuid, _>(SYSTEM)
        .execute(&mut &*tx)
        .await?;
    // The newest time of each stays: it says what has been seen to.
    sql_query(
        "DELETE FROM schedule_slots WHERE tenant_id = $1 AND slot < now() - interval '90 days'
             AND slot < (SELECT max(slot) FROM schedule_slots AS newer
                         WHERE newer.tenant_id = $1 AND newer.schedule = schedule_slots.schedule)",
    )
    .bind::<SqlUuid, _>(SYSTEM)
    .execute(&mut &*tx)
    .await?;
    tx.commit().await?;
    Ok(deleted)
}

#[derive(QueryableByName)]
struct Batch {
    #[diesel(sql_type = BigInt)]
    deleted: i64,
    /// After which job of which tenant the next batch begins; `None` at the end.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    last_tenant: Option<TenantId>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    last: Option<JobId>,
}

/// Looks at the next jobs, tenant by tenant, and deletes those that are done with.
async fn delete_after(mut conn: &AsyncPgConnection, (tenant, after): (TenantId, JobId), days: i32) -> Result<Batch> {
    let batch = sql_query(
        "WITH old AS (
             SELECT tenant_id, id, state, finished_at FROM jobs
             WHERE (tenant_id, id) > ($1, $2) AND created_at < now() - $3 * interval '1 day'
             ORDER BY tenant_id, id LIMIT $4
         ), last AS (
             SELECT tenant_id, id FROM old ORDER BY tenant_id DESC, id DESC LIMIT 1
         ), deleted AS (
             DELETE FROM jobs USING old
             WHERE jobs.tenant_id = old.tenant_id AND jobs.id = old.id AND old.state IN ('succeeded', 'cancelled', 'discarded')
               AND old.finished_at < now() - $3 * interval '1 day' AND jobs.state = old.state
             RETURNING jobs.id
         )
         SELECT (SELECT count(*) FROM deleted) AS deleted, (SELECT tenant_id FROM last) AS last_tenant,
             (SELECT id FROM last) AS last",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<SqlUuid, _>(after)
    .bind::<Integer, _>(days)
    .bind::<BigInt, _>(BATCH)
    .get_result(&mut conn)
    .await
    .optional()?;
    Ok(batch.unwrap_or(Batch { deleted: 0, last_tenant: None, last: None }))
}
