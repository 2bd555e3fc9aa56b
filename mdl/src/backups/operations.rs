//! What people ask for, and what the schedule does: the jobs' payloads and their work.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::warn;
use uuid::Uuid;

use super::manifest::{self, Manifest, Proof};
use super::progress::Progress;
use super::seal::{Identities, is_hindrance};
use super::vault::Vault;
use super::watch::sentence;
use super::{Backup, Verified, back_up, files, refused, store, verify, watch};
use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::audit;
use crate::error::{Error, Result, causes};
use crate::ids::BackupId;
use crate::jobs::{self, Enqueue, Job};
use crate::tenants::{SYSTEM, require_system};

/// The queue of these jobs: a backup that takes hours must not keep shorter work waiting.
const QUEUE: &str = "backups";

/// How long these jobs wait after a failed attempt: 5 minutes, then 20, then an hour. A server or a place that is away comes back
/// in minutes rather than seconds, and all attempts in one outage would be none.
fn wait_after(attempt: i32) -> Duration {
    let times = 4u64.saturating_pow(u32::try_from(attempt - 1).unwrap_or(0));
    Duration::from_secs(60 * times.saturating_mul(5).min(60))
}

/// Makes a backup and restores it on trial.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BackUp {
    /// The backup's, if somebody waits for it; otherwise a new one for each attempt.
    pub id: Option<BackupId>,
    pub requested_by: Option<Uuid>,
}

impl Job for BackUp {
    const KIND: &'static str = "back_up";
    const QUEUE: &'static str = QUEUE;
    const MAX_ATTEMPTS: i32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(12 * 3_600);

    fn backoff(attempt: i32) -> Duration {
        wait_after(attempt)
    }
}

/// Stores the uploaded files that no backup has yet.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BackUpFiles {}

impl Job for BackUpFiles {
    const KIND: &'static str = "back_up_files";
    const QUEUE: &'static str = QUEUE;
    const MAX_ATTEMPTS: i32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(12 * 3_600);

    fn backoff(attempt: i32) -> Duration {
        wait_after(attempt)
    }
}

/// Restores the newest backup of each place on trial, with all its files. One place that fails does not keep the others from
/// being looked at.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RestoreDrillJob {}

impl Job for RestoreDrillJob {
    const KIND: &'static str = "restore_drill";
    const QUEUE: &'static str = QUEUE;
    const MAX_ATTEMPTS: i32 = 2;
    const TIMEOUT: Duration = Duration::from_secs(12 * 3_600);

    fn backoff(attempt: i32) -> Duration {
        wait_after(attempt)
    }
}

/// Removes old backups.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PruneBackups {}

impl Job for PruneBackups {
    const KIND: &'static str = "prune_backups";
    const QUEUE: &'static str = QUEUE;
    const MAX_ATTEMPTS: i32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(3_600);

    fn backoff(attempt: i32) -> Duration {
        wait_after(attempt)
    }
}

/// Looks how old the newest verified backup is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WatchBackups {}

impl Job for WatchBackups {
    const KIND: &'static str = "watch_backups";
    const QUEUE: &'static str = crate::maintenance::QUEUE;
    const MAX_ATTEMPTS: i32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(60);
}

/// Whether backups are set up. Where they are not, the schedule's jobs have nothing to do; the instrument `mdl_backup_overdue`
/// says so.
pub fn are_set_up(app: &App) -> bool {
    let set_up = app.config.backup.database_url.is_some();
    if !set_up {
        warn!("There are no backups: MDL_BACKUP_DATABASE_URL is not set");
    }
    set_up
}

/// The work of [`BackUp`].
pub async fn back_up_and_verify(app: &App, job: &BackUp, progress: &Progress) -> Result<()> {
    let made = match job.id {
        Some(id) => is_made(app, id).await?,
        None if are_set_up(app) => false,
        None => return Ok(()),
    };
    let id = job.id.unwrap_or_else(BackupId::new);
    if !made {
        back_up(app, id, job.requested_by, progress).await?;
    }
    unattended(app, id, None, verify(app, id, None, false, job.requested_by, progress).await).await
}

/// What became of a trial restore for a job: operators are told of what hindered it, too, as nobody looks on.
async fn unattended(app: &App, id: BackupId, place: Option<&str>, verified: Result<Verified>) -> Result<()> {
    if let Err(error) = &verified
        && is_hindrance(error)
    {
        watch::not_verified(app, Some(id), place, error).await;
    }
    verified.map(drop)
}

/// What somebody asked for, or what its progress says is under way, was cancelled, and its work has stopped.
pub async fn cancelled(app: &App, asked_for: Option<BackupId>, progress: &Progress) {
    for row in asked_for.map(store::Of::Backup).into_iter().chain(progress.row()) {
        if let Err(error) = store::give_up(app, row, "Its job was cancelled before it was done").await {
            warn!(error = causes(&error), "Could not record that a backup or a trial restore was cancelled");
        }
    }
}

/// Whether an attempt before this one has come as far as making the backup. Operators are told if no place says.
async fn is_made(app: &App, id: BackupId) -> Result<bool> {
    let made = is_published(app, id).await;
    if let Err(error) = &made {
        watch::backup_failed(app, Some(id), error).await;
    }
    made
}

/// Whether a place has this backup. An error if none says.
async fn is_published(app: &App, id: BackupId) -> Result<bool> {
    let (mut answered, mut first) = (false, None);
    for vault in Vault::all(&app.config.backup)? {
        match vault.folders().await {
            Ok(folders) if folders.iter().any(|folder| folder.id == id && folder.published) => return Ok(true),
            Ok(_) => answered = true,
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if !answered => Err(error),
        _ => Ok(false),
    }
}

/// The work of [`RestoreDrillJob`].
pub async fn drill(app: &App, progress: &Progress) -> Result<()> {
    if !are_set_up(app) {
        return Ok(());
    }
    let vaults = Vault::found(&app.config.backup);
    if none_was_made(app, &vaults).await {
        warn!("There is no backup yet to restore on trial");
        return Ok(());
    }
    let mut failed = None;
    for (place, vault) in vaults {
        let drilled = match told(app, Some(&place), vault).await {
            Ok(vault) => drill_in(app, &vault, progress).await,
            Err(error) => Err(error),
        };
        match drilled {
            // One that may pass is worth another attempt, whatever else there is.
            Err(error) if failed.is_none() || matches!(error, Error::Unavailable { .. }) => failed = Some(error),
            _ => {}
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Whether no backup was ever made, as in the first days: the trial restore has nothing to do then, and [`watch::overdue`] tells
/// of it when it lasts; the first backup makes its folder. A place that does not answer, or that has lost what the database knows
/// of, is for the trial restore to tell of.
async fn none_was_made(app: &App, vaults: &[(String, Result<Vault>)]) -> bool {
    let none = async {
        let tx = app.db.begin(SYSTEM).await?;
        let known = store::any_published(&tx).await?;
        tx.commit().await?;
        if known {
            return Ok(false);
        }
        for vault in vaults.iter().filter_map(|(_, vault)| vault.as_ref().ok()) {
            if vault.folders().await?.iter().any(|folder| folder.published) {
                return Ok(false);
            }
        }
        Ok::<_, Error>(true)
    };
    none.await.unwrap_or(false)
}

/// Restores the newest backup of one place on trial, and reads the files that were stored after it.
async fn drill_in(app: &App, vault: &Vault, progress: &Progress) -> Result<()> {
    let place = Some(vault.name());
    let newest = async {
        let newest = vault.folders().await?.into_iter().rev().find(|folder| folder.published);
        newest.ok_or_else(|| refused(format!("There is no backup in {} to restore on trial", vault.name())))
    };
    let newest = told(app, place, newest.await).await?;
    unattended(app, newest.id, place, verify(app, newest.id, place, true, None, progress).await).await?;
    let later = async {
        let keys = Identities::load(app.config.backup.identity_file.as_deref())?;
        files::check(app, vault, &files::latest(vault).await?, &keys, progress).await
    };
    told(app, place, later.await).await
}

/// The same, after operators are told of it if it is an error.
async fn told<T>(app: &App, place: Option<&str>, result: Result<T>) -> Result<T> {
    if let Err(error) = &result {
        watch::not_verified(app, None, place, error).await;
    }
    result
}

/// Asks for a backup, to be made by the worker. Only for members of [`SYSTEM`] who may operate.
///
/// Problem: one that was asked for before is not done.
pub async fn request(app: &App, actor: &Actor) -> Result<Backup> {
    require_system(actor, Permission::Operate)?;
    let id = BackupId::new();
    let requested_by = Some(actor.id()).filter(|id| !id.is_nil());
    let tx = app.db.begin(SYSTEM).await?;
    let how = Enqueue { unique_key: Some("requested".to_owned()), ..Enqueue::default() };
    if jobs::enqueue(&tx, actor, &BackUp { id: Some(id), requested_by }, &how).await?.is_none() {
        return Err(refused("A backup that was asked for before is not done yet"));
    }
    let backup = store::requested(&tx, id, requested_by, !app.config.backup.recipients.is_empty()).await?;
    audit::record(&tx, actor, "backup.requested", ("backup", id.0), &json!({})).await?;
    tx.commit().await?;
    Ok(backup)
}

/// A backup as the vaults know it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Nothing if it is damaged, or missing, in all places.
    pub manifest: Option<Manifest>,
    /// That it was restored on trial, the last time.
    pub proof: Option<Proof>,
    /// The places that have it, with a manifest.
    pub places: Vec<String>,
    /// What is wrong with it, if something is.
    pub damage: Option<String>,
}

/// The backups of all places that answer, oldest first, and what is wrong with those that do not. Needs no database. If no place
/// answers, it is the error of the first.
pub async fn list(app: &App) -> Result<(BTreeMap<BackupId, Listed>, Vec<String>)> {
    let (mut listed, mut silent, mut answered, mut first) = (BTreeMap::new(), Vec::new(), false, None);
    for (place, vault) in Vault::found(&app.config.backup) {
        let added = match vault {
            Ok(vault) => add(&vault, &mut listed).await,
            Err(error) => Err(error),
        };
        match added {
            Ok(()) => answered = true,
            Err(error) => {
                silent.push(format!("{place}: {}", sentence(&error)));
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if !answered => Err(error),
        _ => Ok((listed, silent)),
    }
}

async fn add(vault: &Vault, listed: &mut BTreeMap<BackupId, Listed>) -> Result<()> {
    for (id, found) in manifest::all(vault).await? {
        let proof = Proof::read(vault, id).await?;
        let backup = listed.entry(id).or_insert(Listed { manifest: None, proof: None, places: Vec::new(), damage: None });
        backup.places.push(vault.name().to_owned());
        match found {
            Ok(manifest) => {
                backup.manifest.get_or_insert(manifest);
                backup.proof = backup.proof.take().or(proof);
            }
            Err(error) => backup.damage = Some(error.to_string()),
        }
    }
    // Of one without files nothing can be made any more: a run that died left it, or it has just begun.
    for folder in vault.folders().await?.into_iter().filter(|folder| !folder.published && folder.has_files) {
        let backup = listed.entry(folder.id).or_insert(Listed { manifest: None, proof: None, places: Vec::new(), damage: None });
        backup.damage.get_or_insert(format!("without a manifest in {}", vault.name()));
    }
    Ok(())
}
