//! Imports that nobody will go on with.

use diesel::dsl::{not, sql};
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::run::remove_file;
use super::{GivenUp, Import, ImportState, give_up};
use crate::app::App;
use crate::error::Result;
use crate::ids::{ImportId, TenantId};
use crate::jobs::JobState;
use crate::schema::{imports, jobs};
use crate::tenants;

/// Ends the imports of all tenants whose job ended an hour ago and left them unfinished: it lost its worker at its last attempt,
/// or an operator cancelled or discarded it. Within the hour an operator may still retry the job; after it the file goes. Answers how
/// many have ended.
pub async fn tidy(app: &App) -> Result<u64> {
    let mut ended = 0;
    for tenant in tenants::all_ids(app).await? {
        let tx = app.db.begin(tenant).await?;
        let abandoned = abandoned(&tx, tenant).await?;
        tx.commit().await?;
        ended += abandoned.len() as u64;
        for (import, error) in abandoned {
            let why = error.unwrap_or_else(|| "its job was stopped".to_owned());
            give_up(app, tenant, import, &format!("It could not be finished: {why}")).await?;
        }
        let tx = app.db.begin(tenant).await?;
        let closed = close(&tx, tenant).await?;
        tx.commit().await?;
        for import in closed {
            remove_file(app, &import).await;
        }
    }
    Ok(ended)
}

async fn abandoned(mut conn: &AsyncPgConnection, tenant: TenantId) -> Result<Vec<(ImportId, Option<String>)>> {
    Ok(imports::table
        .inner_join(jobs::table.on(jobs::tenant_id.eq(imports::tenant_id).and(jobs::id.nullable().eq(imports::job_id))))
        .filter(imports::tenant_id.eq(tenant).and(imports::state.eq_any([ImportState::Queued, ImportState::Running])))
        .filter(jobs::state.ne_all(JobState::UNFINISHED))
        .filter(sql::<Bool>("jobs.finished_at < now() - interval '1 hour'"))
        .select((imports::id, jobs::last_error))
        .load(&mut conn)
        .await?)
}

/// Lets the imports be that were given up and whose job nobody has retried within the hour: from now on they cannot be opened again.
async fn close(mut conn: &AsyncPgConnection, tenant: TenantId) -> Result<Vec<Import>> {
    let given_up = imports::table.filter(imports::tenant_id.eq(tenant).and(imports::given_up.eq(GivenUp::ForNow)));
    let may_be_retried = "EXISTS (SELECT FROM jobs WHERE jobs.tenant_id = imports.tenant_id AND jobs.id = imports.job_id
                       AND (jobs.finished_at IS NULL OR jobs.finished_at > now() - interval '1 hour'))";
    Ok(diesel::update(given_up.filter(not(sql::<Bool>(may_be_retried))))
        .set(imports::given_up.eq(GivenUp::ForGood))
        .returning(Import::as_returning())
        .load(&mut conn)
        .await?)
}
