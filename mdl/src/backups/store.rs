//! What the database knows of backups and of their trial restores, for people to look at.
//!
//! The rows belong to no company, and so to the tenant [`SYSTEM`]: every function here works in its transactions.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::dsl;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::{Deserialize, Serialize};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::manifest::{Manifest, Proof};
use super::progress::{Progress, Step};
use super::vault::Vault;
use super::{Backup, BackupState, DrillState, RestoreDrill};
use crate::app::App;
use crate::error::Result;
use crate::ids::{BackupId, DrillId, TenantId};
use crate::page::{Page, PageArgs};
use crate::schema::{backups, restore_drills};
use crate::tenants::SYSTEM;

/// How often the database is told how far it is.
const TELL: Duration = Duration::from_secs(1);

/// The cursor of both lists, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ById(pub Uuid);

/// Notes that a backup begins. Returns the size of the last dump, which this one may come to as well.
pub async fn start(app: &App, id: BackupId, requested_by: Option<Uuid>, encrypted: bool) -> Result<Option<u64>> {
    let tx = app.db.begin(SYSTEM).await?;
    let mut conn: &AsyncPgConnection = &tx;
    let last: Option<Option<i64>> = backups::table
        .select(backups::plain_bytes)
        .filter(backups::tenant_id.eq(SYSTEM).and(backups::plain_bytes.is_not_null()))
        .order(backups::id.desc())
        .first(&mut conn)
        .await
        .optional()?;
    let expected = last.flatten();
    diesel::insert_into(backups::table)
        .values((
            backups::tenant_id.eq(SYSTEM),
            backups::id.eq(id),
            backups::requested_by.eq(requested_by),
            backups::encrypted.eq(encrypted),
            backups::expected_bytes.eq(expected),
            backups::program_version.eq(env!("CARGO_PKG_VERSION")),
        ))
        // Attempted again by the same job.
        .on_conflict((backups::tenant_id, backups::id))
        .do_update()
        .set((
            backups::state.eq(BackupState::Running),
            backups::started_at.eq(dsl::now),
            backups::error.eq(None::<String>),
            backups::finished_at.eq(None::<DateTime<Utc>>),
        ))
        .execute(&mut conn)
        .await?;
    tx.commit().await?;
    Ok(expected.and_then(|bytes| u64::try_from(bytes).ok()))
}

/// Notes that somebody asked for a backup, which the worker will make.
pub async fn requested(
    mut conn: &AsyncPgConnection,
    id: BackupId,
    requested_by: Option<Uuid>,
    encrypted: bool,
) -> Result<Backup> {
    Ok(diesel::insert_into(backups::table)
        .values((
            backups::tenant_id.eq(SYSTEM),
            backups::id.eq(id),
            backups::state.eq(BackupState::Queued),
            backups::requested_by.eq(requested_by),
            backups::encrypted.eq(encrypted),
            backups::program_version.eq(env!("CARGO_PKG_VERSION")),
        ))
        .returning(Backup::as_returning())
        .get_result(&mut conn)
        .await?)
}

/// Marks the backups failed whose makers died, or that nobody will make any more: called by the one that holds the lock, who may
/// be making one.
pub async fn abandon(app: &App, but: Option<BackupId>) -> Result<()> {
    let id = but.unwrap_or(BackupId(Uuid::nil()));
    let tx = app.db.begin(SYSTEM).await?;
    let mut conn: &AsyncPgConnection = &tx;
    diesel::update(
        backups::table.filter(backups::tenant_id.eq(SYSTEM).and(backups::state.eq(BackupState::Running)).and(backups::id.ne(id))),
    )
    .set(failure("The program that made it ended before it was done"))
    .execute(&mut conn)
    .await?;
    abandon_queued(&tx, but).await?;
    tx.commit().await
}

/// Marks the backups failed that somebody asked for and that nobody will make any more.
pub async fn abandon_queued(mut conn: &AsyncPgConnection, but: Option<BackupId>) -> Result<()> {
    let id = but.unwrap_or(BackupId(Uuid::nil()));
    let will_be_made = "EXISTS (SELECT FROM jobs WHERE jobs.tenant_id = backups.tenant_id AND jobs.kind = 'back_up'
        AND jobs.payload ->> 'id' = backups.id::text AND jobs.state IN ('held', 'waiting', 'dispatched', 'running'))";
    diesel::update(
        backups::table
            .filter(backups::tenant_id.eq(SYSTEM).and(backups::state.eq(BackupState::Queued)).and(backups::id.ne(id)))
            .filter(dsl::not(dsl::sql::<diesel::sql_types::Bool>(will_be_made))),
    )
    .set(failure("Its job ended before it was begun"))
    .execute(&mut conn)
    .await?;
    Ok(())
}

/// Notes that a backup, also one that has not begun, or a trial restore failed, if it is not done.
pub async fn give_up(app: &App, of: Of, why: &str) -> Result<()> {
    let tx = app.db.begin(SYSTEM).await?;
    let mut conn: &AsyncPgConnection = &tx;
    match of {
        Of::Backup(id) => {
            let unfinished = backups::state.eq_any([BackupState::Queued, BackupState::Running]);
            diesel::update(backups::table.find((SYSTEM, id)).filter(unfinished)).set(failure(why)).execute(&mut conn).await?
        }
        Of::Drill(id) => {
            let unfinished = restore_drills::state.eq(DrillState::Running);
            diesel::update(restore_drills::table.find((SYSTEM, id)).filter(unfinished))
                .set((
                    restore_drills::state.eq(DrillState::Failed),
                    restore_drills::finished_at.eq(dsl::now),
                    restore_drills::error.eq(why),
                ))
                .execute(&mut conn)
                .await?
        }
    };
    tx.commit().await
}

/// That a backup failed just now, and why.
type Failure<'a> =
    (dsl::Eq<backups::state, BackupState>, dsl::Eq<backups::finished_at, dsl::now>, dsl::Eq<backups::error, &'a str>);

fn failure(error: &str) -> Failure<'_> {
    (backups::state.eq(BackupState::Failed), backups::finished_at.eq(dsl::now), backups::error.eq(error))
}

/// Notes a published backup, also one that the database did not know of (it may be older than the backup).
pub async fn published(
    mut conn: &AsyncPgConnection,
    manifest: &Manifest,
    places: &[String],
    proof: Option<&Proof>,
) -> Result<()> {
    let state = if proof.is_some() { BackupState::Verified } else { BackupState::Published };
    let facts = (
        backups::state.eq(state),
        backups::phase.eq("finished"),
        backups::started_at.eq(manifest.started_at),
        backups::updated_at.eq(dsl::now),
        backups::finished_at.eq(manifest.finished_at),
        backups::verified_at.eq(proof.map(|proof| proof.verified_at)),
        backups::done_bytes.eq(count(manifest.database.plain.bytes)),
        backups::expected_bytes.eq(count(manifest.database.plain.bytes)),
        backups::plain_bytes.eq(count(manifest.database.plain.bytes)),
        backups::stored_bytes.eq(count(manifest.database.stored.bytes)),
        backups::table_count.eq(i32::try_from(manifest.inventory.tables.len()).unwrap_or(i32::MAX)),
        backups::row_count.eq(count(manifest.rows())),
        backups::file_count.eq(count(manifest.files.count)),
        backups::file_bytes.eq(count(manifest.files.bytes)),
        backups::dump_seconds.eq(manifest.dump_seconds),
        backups::schema_version.eq(manifest.schema_version()),
        backups::server_version.eq(&manifest.server_version),
        backups::places.eq(places),
        backups::error.eq(None::<String>),
    );
    diesel::insert_into(backups::table)
        .values((
            backups::tenant_id.eq(SYSTEM),
            backups::id.eq(manifest.id),
            backups::encrypted.eq(!manifest.recipients.is_empty()),
            backups::program_version.eq(&manifest.program_version),
            facts.clone(),
        ))
        .on_conflict((backups::tenant_id, backups::id))
        .do_update()
        .set(facts)
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// Notes that a backup failed, also one that failed before it was noted that it begins.
pub async fn failed(mut conn: &AsyncPgConnection, id: BackupId, encrypted: bool, error: &str) -> Result<()> {
    diesel::insert_into(backups::table)
        .values((
            backups::tenant_id.eq(SYSTEM),
            backups::id.eq(id),
            backups::encrypted.eq(encrypted),
            backups::program_version.eq(env!("CARGO_PKG_VERSION")),
            failure(error),
        ))
        .on_conflict((backups::tenant_id, backups::id))
        .do_update()
        .set(failure(error))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// Notes that a trial restore begins.
pub async fn start_drill(
    app: &App,
    drill: DrillId,
    manifest: &Manifest,
    vault: &Vault,
    requested_by: Option<Uuid>,
) -> Result<()> {
    let tx = app.db.begin(SYSTEM).await?;
    let mut conn: &AsyncPgConnection = &tx;
    let known: i64 = backups::table.find((SYSTEM, manifest.id)).count().get_result(&mut conn).await?;
    if known == 0 {
        published(&tx, manifest, &[vault.name().to_owned()], None).await?;
    }
    diesel::insert_into(restore_drills::table)
        .values((
            restore_drills::tenant_id.eq(SYSTEM),
            restore_drills::id.eq(drill),
            restore_drills::backup_id.eq(manifest.id),
            restore_drills::place.eq(vault.name()),
            restore_drills::requested_by.eq(requested_by),
            restore_drills::expected_bytes.eq(i64::try_from(manifest.database.plain.bytes).ok()),
        ))
        .execute(&mut conn)
        .await?;
    tx.commit().await
}

/// A number as the database counts.
fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Notes that a backup was restored on trial and is good.
pub async fn drill_succeeded(mut conn: &AsyncPgConnection, drill: DrillId, manifest: &Manifest, proof: &Proof) -> Result<()> {
    diesel::update(restore_drills::table.find((SYSTEM, drill)))
        .set((
            restore_drills::state.eq(DrillState::Succeeded),
            restore_drills::phase.eq("finished"),
            restore_drills::done_bytes.eq(count(manifest.database.plain.bytes)),
            restore_drills::expected_bytes.eq(count(manifest.database.plain.bytes)),
            restore_drills::finished_at.eq(dsl::now),
            restore_drills::restore_seconds.eq(proof.restore_seconds),
        ))
        .execute(&mut conn)
        .await?;
    diesel::update(backups::table.find((SYSTEM, manifest.id)))
        .set((
            backups::state.eq(BackupState::Verified),
            backups::verified_at.eq(proof.verified_at),
            backups::error.eq(None::<String>),
        ))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// Notes that a trial restore failed. The backup is no longer good if it differed or was damaged.
pub async fn drill_failed(
    mut conn: &AsyncPgConnection,
    drill: DrillId,
    backup: BackupId,
    error: &str,
    differences: &[String],
    is_bad: bool,
) -> Result<()> {
    diesel::update(restore_drills::table.find((SYSTEM, drill)))
        .set((
            restore_drills::state.eq(DrillState::Failed),
            restore_drills::finished_at.eq(dsl::now),
            restore_drills::error.eq(error),
            restore_drills::differences.eq(differences),
        ))
        .execute(&mut conn)
        .await?;
    if is_bad {
        diesel::update(backups::table.find((SYSTEM, backup)))
            .set((
                backups::state.eq(BackupState::Failed),
                backups::verified_at.eq(None::<DateTime<Utc>>),
                backups::error.eq(error),
            ))
            .execute(&mut conn)
            .await?;
    } else {
        diesel::update(backups::table.find((SYSTEM, backup))).set(backups::error.eq(error)).execute(&mut conn).await?;
    }
    Ok(())
}

/// Notes that a backup is removed from a place.
pub async fn pruned(mut conn: &AsyncPgConnection, id: BackupId, left: &[String]) -> Result<()> {
    diesel::update(backups::table.find((SYSTEM, id))).set(backups::places.eq(left)).execute(&mut conn).await?;
    if left.is_empty() {
        diesel::update(backups::table.find((SYSTEM, id))).set(backups::pruned_at.eq(dsl::now)).execute(&mut conn).await?;
    }
    Ok(())
}

/// What is known of these backups.
pub async fn by_ids(mut conn: &AsyncPgConnection, ids: &[BackupId]) -> Result<Vec<Backup>> {
    let query = backups::table.filter(backups::tenant_id.eq(SYSTEM).and(backups::id.eq_any(ids))).select(Backup::as_select());
    Ok(query.load(&mut conn).await?)
}

/// The sizes, as stored, of the backups before this one, newest first.
pub async fn sizes_before(mut conn: &AsyncPgConnection, id: BackupId, limit: i64) -> Result<Vec<i64>> {
    let sizes: Vec<Option<i64>> = backups::table
        .select(backups::stored_bytes)
        .filter(backups::tenant_id.eq(SYSTEM).and(backups::id.lt(id)).and(backups::stored_bytes.is_not_null()))
        .order(backups::id.desc())
        .limit(limit)
        .load(&mut conn)
        .await?;
    Ok(sizes.into_iter().flatten().collect())
}

/// Whether a backup was ever published, be it removed since.
pub async fn any_published(mut conn: &AsyncPgConnection) -> Result<bool> {
    let published = backups::table.filter(backups::tenant_id.eq(SYSTEM).and(backups::stored_bytes.is_not_null()));
    Ok(diesel::select(dsl::exists(published)).get_result(&mut conn).await?)
}

/// When the newest of the verified backups that are still there was made.
pub async fn newest_verified(mut conn: &AsyncPgConnection, tenant: TenantId) -> Result<Option<Backup>> {
    Ok(backups::table
        .select(Backup::as_select())
        .filter(backups::tenant_id.eq(tenant).and(backups::verified_at.is_not_null()).and(backups::pruned_at.is_null()))
        .order(backups::started_at.desc())
        .first(&mut conn)
        .await
        .optional()?)
}

/// Backups, newest first. Those who are not members of [`SYSTEM`] have none.
pub async fn page(mut conn: &AsyncPgConnection, tenant: TenantId, args: &PageArgs<ById>) -> Result<Page<Backup>> {
    let mut query =
        backups::table.filter(backups::tenant_id.eq(tenant)).select(Backup::as_select()).limit(args.fetch()).into_boxed();
    if let Some(ById(after)) = args.after {
        query = query.filter(backups::id.lt(BackupId(after)));
    }
    if let Some(ById(before)) = args.before {
        query = query.filter(backups::id.gt(BackupId(before)));
    }
    let query = if args.backward { query.order(backups::id.asc()) } else { query.order(backups::id.desc()) };
    Ok(Page::from_rows(query.load(&mut conn).await?, args))
}

/// Trial restores, newest first; of one backup, or of all.
pub async fn drills(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    backup: Option<BackupId>,
    args: &PageArgs<ById>,
) -> Result<Page<RestoreDrill>> {
    let mut query = restore_drills::table
        .filter(restore_drills::tenant_id.eq(tenant))
        .select(RestoreDrill::as_select())
        .limit(args.fetch())
        .into_boxed();
    if let Some(backup) = backup {
        query = query.filter(restore_drills::backup_id.eq(backup));
    }
    if let Some(ById(after)) = args.after {
        query = query.filter(restore_drills::id.lt(DrillId(after)));
    }
    if let Some(ById(before)) = args.before {
        query = query.filter(restore_drills::id.gt(DrillId(before)));
    }
    let query = if args.backward { query.order(restore_drills::id.asc()) } else { query.order(restore_drills::id.desc()) };
    Ok(Page::from_rows(query.load(&mut conn).await?, args))
}

/// Whose progress it is.
#[derive(Debug, Clone, Copy)]
pub enum Of {
    Backup(BackupId),
    Drill(DrillId),
}

/// Tells the database how far it is, until the handle is dropped.
pub fn tell(app: &App, of: Of, progress: &Progress) -> AbortOnDropHandle<()> {
    progress.shown_by(of);
    let (app, mut steps) = (app.clone(), progress.follow());
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(TELL).await;
            if steps.changed().await.is_err() {
                return;
            }
            let step = *steps.borrow_and_update();
            if let Err(error) = note(&app, of, step).await {
                // The next second tells more.
                tracing::debug!(%error, "Could not tell how far a backup is");
            }
        }
    }))
}

async fn note(app: &App, of: Of, step: Step) -> Result<()> {
    let tx = app.db.begin(SYSTEM).await?;
    let mut conn: &AsyncPgConnection = &tx;
    match of {
        Of::Backup(id) => {
            diesel::update(backups::table.find((SYSTEM, id)).filter(backups::state.eq(BackupState::Running)))
                .set((
                    backups::phase.eq(step.phase),
                    backups::done_bytes.eq(count(step.done)),
                    backups::expected_bytes.eq(step.expected.map(count)),
                    backups::updated_at.eq(dsl::now),
                ))
                .execute(&mut conn)
                .await?
        }
        Of::Drill(id) => {
            diesel::update(restore_drills::table.find((SYSTEM, id)).filter(restore_drills::state.eq(DrillState::Running)))
                .set((
                    restore_drills::phase.eq(step.phase),
                    restore_drills::done_bytes.eq(count(step.done)),
                    restore_drills::expected_bytes.eq(step.expected.map(count)),
                    restore_drills::updated_at.eq(dsl::now),
                ))
                .execute(&mut conn)
                .await?
        }
    };
    tx.commit().await
}
