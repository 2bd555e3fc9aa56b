//! What operators are told of backups: rows to look at, instruments to alarm by, events (`backup.…`) to be sent on.
//!
//! The events are those of the tenant [`SYSTEM`], whose members operate the deployment.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::manifest::{Manifest, Proof};
use super::store;
use super::vault::Vault;
use crate::actor::Actor;
use crate::app::App;
use crate::db::Transaction;
use crate::error::{Error, Result, causes};
use crate::events::payloads::BackupPayload;
use crate::events::{self, Kind, kinds};
use crate::ids::{BackupId, DrillId};
use crate::instruments;
use crate::schema::outbox;
use crate::tenants::SYSTEM;

/// Backups whose sizes a new one is held against.
const COMPARED: i64 = 5;

/// A backup is published.
pub async fn published(app: &App, manifest: &Manifest, places: &[String]) -> Result<()> {
    let tx = app.db.begin(SYSTEM).await?;
    store::published(&tx, manifest, places, None).await?;
    let sizes = store::sizes_before(&tx, manifest.id, COMPARED).await?;
    let size = manifest.database.stored.bytes;
    if let Some(deviation) = deviation(size, &sizes)
        && deviation.abs() * 100.0 > f64::from(app.config.backup.size_deviation_percent)
    {
        warn!(backup.id = %manifest.id, "The size of a backup differs by {:+.0} % from that of the last ones", deviation * 100.0);
        let payload = BackupPayload { deviation: Some(deviation), ..about(manifest) };
        push(&tx, kinds::BACKUP_SIZE_DEVIATED, &payload).await?;
    }
    tx.commit().await?;
    info!(backup.id = %manifest.id, "Published a backup of {} rows in {size} bytes", manifest.rows());
    Ok(())
}

/// By what share a size differs from the average of those before.
fn deviation(size: u64, before: &[i64]) -> Option<f64> {
    let average = before.iter().sum::<i64>() as f64 / before.len() as f64;
    (average > 0.0).then(|| size as f64 / average - 1.0)
}

/// No backup was made. Without an id it is the uploaded files that were not stored.
///
/// Whatever went wrong may have taken the database with it: what cannot be recorded there is in the log and in the instrument.
pub async fn backup_failed(app: &App, id: Option<BackupId>, why: &Error) {
    let why = sentence(why);
    error!(backup.id = id.map(tracing::field::display), error = why, "A backup failed");
    metrics::counter!(instruments::BACKUPS, "outcome" => "failed").increment(1);
    let recorded = async {
        let tx = app.db.begin(SYSTEM).await?;
        if let Some(id) = id {
            store::failed(&tx, id, !app.config.backup.recipients.is_empty(), &why).await?;
        }
        push(&tx, kinds::BACKUP_FAILED, &failure(id, why)).await?;
        tx.commit().await
    };
    if let Err(unrecorded) = recorded.await {
        warn!(error = causes(&unrecorded), "Could not record that a backup failed");
    }
}

pub async fn copy_failed(app: &App, id: BackupId, place: &Vault, why: &Error) -> Result<()> {
    let why = sentence(why);
    error!(backup.id = %id, place = place.name(), error = why, "A backup could not be copied to the second place");
    metrics::counter!(instruments::BACKUPS, "outcome" => "copy_failed").increment(1);
    let tx = app.db.begin(SYSTEM).await?;
    push(&tx, kinds::BACKUP_COPY_FAILED, &BackupPayload { place: Some(place.name().to_owned()), ..failure(Some(id), why) })
        .await?;
    tx.commit().await
}

/// A backup was restored on trial and is good.
pub async fn verified(app: &App, drill: DrillId, manifest: &Manifest, proof: &Proof) -> Result<()> {
    let tx = app.db.begin(SYSTEM).await?;
    store::drill_succeeded(&tx, drill, manifest, proof).await?;
    let payload = BackupPayload { verified_at: Some(proof.verified_at), ..about(manifest) };
    push(&tx, kinds::BACKUP_COMPLETED, &payload).await?;
    tx.commit().await?;
    overdue(app).await
}

/// A backup did not pass its trial restore; `is_bad` if that is for what is in it.
pub async fn verify_failed(
    app: &App,
    drill: DrillId,
    id: BackupId,
    why: &Error,
    differences: &[String],
    is_bad: bool,
) -> Result<()> {
    let why = sentence(why);
    error!(backup.id = %id, error = why, "A backup did not pass its trial restore");
    let tx = app.db.begin(SYSTEM).await?;
    store::drill_failed(&tx, drill, id, &why, differences, is_bad).await?;
    push(&tx, kinds::BACKUP_VERIFICATION_FAILED, &failure(Some(id), why)).await?;
    tx.commit().await
}

/// What is in a place could not be restored on trial, or is damaged, and there is no row of a trial restore that would say so.
pub async fn not_verified(app: &App, id: Option<BackupId>, place: Option<&str>, why: &Error) {
    let why = sentence(why);
    error!(backup.id = id.map(tracing::field::display), place, error = why, "A backup did not pass, or could not be looked at");
    metrics::counter!(instruments::BACKUPS, "outcome" => "verify_failed").increment(1);
    let payload = BackupPayload { place: place.map(str::to_owned), ..failure(id, why) };
    let recorded = async {
        let tx = app.db.begin(SYSTEM).await?;
        push(&tx, kinds::BACKUP_VERIFICATION_FAILED, &payload).await?;
        tx.commit().await
    };
    if let Err(unrecorded) = recorded.await {
        warn!(error = causes(&unrecorded), "Could not record that a backup did not pass");
    }
}

/// Looks how old the newest verified backup is, and which were asked for and will not be made. Says so by instruments, and once by an
/// event when it is too old.
pub async fn overdue(app: &App) -> Result<()> {
    let tx = app.db.begin(SYSTEM).await?;
    let newest = store::newest_verified(&tx, SYSTEM).await?.map(|backup| backup.started_at);
    store::abandon_queued(&tx, None).await?;
    let is_overdue = show_age(app, newest);
    // Where backups are not set up, it is for the instrument to say so.
    if is_overdue && app.config.backup.database_url.is_some() {
        let mut conn: &AsyncPgConnection = &tx;
        let mut told =
            outbox::table.filter(outbox::tenant_id.eq(SYSTEM).and(outbox::kind.eq(kinds::BACKUP_OVERDUE.name))).into_boxed();
        if let Some(made) = newest {
            told = told.filter(outbox::created_at.gt(made));
        }
        let told: i64 = told.count().get_result(&mut conn).await?;
        if told == 0 {
            let newest = newest.map(|made| made.to_rfc3339());
            warn!(newest, "No backup was verified for more than {} h", app.config.backup.max_age_hours);
            push(&tx, kinds::BACKUP_OVERDUE, &BackupPayload::default()).await?;
        }
    }
    tx.commit().await
}

/// Shows by instruments when the newest verified backup was made; whether that is too long ago.
fn show_age(app: &App, newest: Option<DateTime<Utc>>) -> bool {
    let allowed = TimeDelta::hours(i64::from(app.config.backup.max_age_hours));
    let is_overdue = newest.is_none_or(|made| Utc::now() - made > allowed);
    metrics::gauge!(instruments::BACKUP_VERIFIED_AT).set(newest.map_or(0.0, |made| made.timestamp() as f64));
    metrics::gauge!(instruments::BACKUP_OVERDUE).set(f64::from(u8::from(is_overdue)));
    is_overdue
}

/// Shows by instruments what the database knows of the newest backups: the same in each worker, whichever has made them.
pub async fn show(app: &App) -> Result<()> {
    let tx = app.db.begin(SYSTEM).await?;
    let newest = store::newest_verified(&tx, SYSTEM).await?.map(|backup| backup.started_at);
    let sizes = store::sizes_before(&tx, BackupId(Uuid::max()), COMPARED + 1).await?;
    tx.commit().await?;
    show_age(app, newest);
    if let Some((&size, before)) = sizes.split_first() {
        metrics::gauge!(instruments::BACKUP_BYTES).set(size as f64);
        if let Some(deviation) = deviation(u64::try_from(size).unwrap_or(0), before) {
            metrics::gauge!(instruments::BACKUP_DEVIATION).set(deviation);
        }
    }
    Ok(())
}

async fn push(tx: &Transaction, kind: Kind<BackupPayload>, payload: &BackupPayload) -> Result<()> {
    events::push(tx, &Actor::system(SYSTEM), kind, payload.id.unwrap_or_default(), payload).await
}

fn about(manifest: &Manifest) -> BackupPayload {
    BackupPayload {
        id: Some(manifest.id.0),
        stored_bytes: Some(manifest.database.stored.bytes),
        rows: Some(manifest.rows()),
        files: Some(manifest.files.count),
        ..BackupPayload::default()
    }
}

fn failure(id: Option<BackupId>, why: String) -> BackupPayload {
    BackupPayload { id: id.map(|id| id.0), error: Some(why), ..BackupPayload::default() }
}

/// An error with what it keeps from callers: operators look at backups.
pub fn sentence(error: &Error) -> String {
    match error {
        Error::Internal(source) => causes(source.as_ref()),
        _ => causes(error),
    }
}

#[cfg(test)]
mod tests {
    use super::deviation;

    #[test]
    fn sizes_are_held_against_those_before() {
        assert_eq!(deviation(100, &[]), None);
        assert_eq!(deviation(150, &[100, 100]), Some(0.5));
        assert_eq!(deviation(50, &[150, 50]), Some(-0.5));
    }
}
