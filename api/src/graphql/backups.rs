//! Backups and their trial restores, for those who operate the deployment: members of the tenant mdl-system. Others have none.

use async_graphql::connection::EmptyFields;
use async_graphql::{Context, Enum, ID, Object, ObjectType, Result};
use chrono::{DateTime, Utc};
use mdl::actor::Permission;
use mdl::backups::store::{self, ById};
use mdl::backups::{self, BackupState, DrillState};
use mdl::ids::BackupId;
use mdl::page::{Page, PageArgs};
use uuid::Uuid;

use super::connection::{Connection, connection};
use super::context::ContextExt;
use super::eager::Plain;
use super::error::top_level;
use super::global_id::{self, Kind};
use super::guard::Needs;
use super::limits::page_cost;
use super::payload::payloads;
use super::users::{self, User};

/// How far a backup has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(name = "BackupState")]
pub enum BackupStateName {
    /// It waits for the worker.
    Queued,
    /// It is being made.
    Running,
    /// It is complete, and was never restored yet.
    Published,
    /// It was restored on trial, and found to be the same.
    Verified,
    /// It was not made, or is not good: `error` says why.
    Failed,
}

impl From<BackupState> for BackupStateName {
    fn from(state: BackupState) -> Self {
        match state {
            BackupState::Queued => Self::Queued,
            BackupState::Running => Self::Running,
            BackupState::Published => Self::Published,
            BackupState::Verified => Self::Verified,
            BackupState::Failed => Self::Failed,
        }
    }
}

/// How far a trial restore has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(name = "RestoreDrillState")]
pub enum DrillStateName {
    /// It runs.
    Running,
    /// The backup restores to what was backed up.
    Succeeded,
    /// It does not, or it could not be tried: `error` says why.
    Failed,
}

impl From<DrillState> for DrillStateName {
    fn from(state: DrillState) -> Self {
        match state {
            DrillState::Running => Self::Running,
            DrillState::Succeeded => Self::Succeeded,
            DrillState::Failed => Self::Failed,
        }
    }
}

/// One run of a backup, and what became of it.
pub struct Backup(pub backups::Backup);

impl Plain for Backup {}

/// One run of a backup, and what became of it. Sizes are in bytes.
#[Object]
impl Backup {
    /// Opaque, and unique over all types.
    fn id(&self) -> ID {
        global_id::encode(Kind::Backup, self.0.id.0)
    }

    /// What `mdl-worker backup` calls it.
    fn backup_id(&self) -> String {
        self.0.id.to_string()
    }

    /// How far it has come.
    fn state(&self) -> BackupStateName {
        self.0.state.into()
    }

    /// What is being done while it runs: `dumping`, `storing_files`, `copying`.
    fn phase(&self) -> &str {
        &self.0.phase
    }

    /// How much of the phase is done.
    fn done_bytes(&self) -> i64 {
        self.0.done_bytes
    }

    /// How much the phase will come to, as far as that is known.
    fn expected_bytes(&self) -> Option<i64> {
        self.0.expected_bytes
    }

    /// Who asked for it; null when it was the schedule or the command line.
    async fn requested_by(&self, ctx: &Context<'_>) -> Option<Result<User>> {
        users::by_id(ctx, self.0.requested_by).await
    }

    /// When it began: it has what was committed before.
    fn started_at(&self) -> DateTime<Utc> {
        self.0.started_at
    }

    /// When it was complete, or failed.
    fn finished_at(&self) -> Option<DateTime<Utc>> {
        self.0.finished_at
    }

    /// When it was last restored on trial and found to be the same.
    fn verified_at(&self) -> Option<DateTime<Utc>> {
        self.0.verified_at
    }

    /// When it was removed, because it was old.
    fn pruned_at(&self) -> Option<DateTime<Utc>> {
        self.0.pruned_at
    }

    /// Size of the dump.
    fn plain_bytes(&self) -> Option<i64> {
        self.0.plain_bytes
    }

    /// Size of the dump as it is stored.
    fn stored_bytes(&self) -> Option<i64> {
        self.0.stored_bytes
    }

    /// How many tables it has.
    fn table_count(&self) -> Option<i32> {
        self.0.table_count
    }

    /// How many rows all tables have together.
    fn row_count(&self) -> Option<i64> {
        self.0.row_count
    }

    /// How many uploaded files it has.
    fn file_count(&self) -> Option<i64> {
        self.0.file_count
    }

    /// Size of these files.
    fn file_bytes(&self) -> Option<i64> {
        self.0.file_bytes
    }

    /// Whether it can be read with a private key only.
    fn encrypted(&self) -> bool {
        self.0.encrypted
    }

    /// How long dumping took, in seconds.
    fn dump_seconds(&self) -> Option<f64> {
        self.0.dump_seconds
    }

    /// The newest migration of the database.
    fn schema_version(&self) -> Option<&str> {
        self.0.schema_version.as_deref()
    }

    /// Version of PostgreSQL.
    fn server_version(&self) -> Option<&str> {
        self.0.server_version.as_deref()
    }

    /// Version of MDL.
    fn program_version(&self) -> &str {
        &self.0.program_version
    }

    /// Addresses of the places that have it.
    fn places(&self) -> &[String] {
        &self.0.places
    }

    /// Why it failed, or what was wrong when it was restored on trial.
    fn error(&self) -> Option<&str> {
        self.0.error.as_deref()
    }
}

/// One trial restore of a backup into a scratch database.
pub struct RestoreDrill(pub backups::RestoreDrill);

impl Plain for RestoreDrill {}

/// One trial restore of a backup into a scratch database.
#[Object]
impl RestoreDrill {
    /// Opaque, and unique over all types.
    fn id(&self) -> ID {
        global_id::encode(Kind::RestoreDrill, self.0.id.0)
    }

    /// `backupId` of the backup.
    fn backup_id(&self) -> String {
        self.0.backup_id.to_string()
    }

    /// Address of the place that it was read from.
    fn place(&self) -> &str {
        &self.0.place
    }

    /// How far it has come.
    fn state(&self) -> DrillStateName {
        self.0.state.into()
    }

    /// What is being done while it runs: `restoring`, `comparing`, `checking`.
    fn phase(&self) -> &str {
        &self.0.phase
    }

    /// How many bytes of the phase are done.
    fn done_bytes(&self) -> i64 {
        self.0.done_bytes
    }

    /// How many bytes the phase will come to, as far as that is known.
    fn expected_bytes(&self) -> Option<i64> {
        self.0.expected_bytes
    }

    /// Who asked for it; null when it was the schedule or the command line.
    async fn requested_by(&self, ctx: &Context<'_>) -> Option<Result<User>> {
        users::by_id(ctx, self.0.requested_by).await
    }

    /// When it began.
    fn started_at(&self) -> DateTime<Utc> {
        self.0.started_at
    }

    /// When it ended.
    fn finished_at(&self) -> Option<DateTime<Utc>> {
        self.0.finished_at
    }

    /// How long it took, in seconds.
    fn restore_seconds(&self) -> Option<f64> {
        self.0.restore_seconds
    }

    /// What the restored database had otherwise than was backed up.
    fn differences(&self) -> &[String] {
        &self.0.differences
    }

    /// Why it failed.
    fn error(&self) -> Option<&str> {
        self.0.error.as_deref()
    }
}

/// Backups have no total: those that were removed are listed too.
#[derive(Default)]
pub struct BackupFields;

#[Object]
impl BackupFields {
    /// The newest backup that was verified and is still there.
    async fn newest_verified(&self, ctx: &Context<'_>) -> Result<Option<Backup>> {
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let newest = view.snapshot.read(async |conn| store::newest_verified(conn, tenant).await).await.map_err(top_level)?;
        Ok(newest.map(Backup))
    }
}

payloads! {
    /// What became of asking for a backup.
    BackUpNowPayload {
        /// The backup, which the worker will make; null if one that was asked for before is not done.
        backup: Backup
    }
}

#[derive(Default)]
pub struct BackupQueries;

#[Object]
impl BackupQueries {
    /// The backups of the deployment, newest first, with those that failed and those that were removed. Members of the tenant mdl-system see
    /// them; for others there are none. Needs the permission OPERATE.
    #[graphql(guard = "Needs(Permission::Operate)", complexity = "page_cost(first, last, child_complexity)")]
    async fn backups(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Result<Connection<Backup, BackupFields>> {
        let args: PageArgs<ById> = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let page = view.snapshot.read(async |conn| store::page(conn, tenant, &args).await).await.map_err(top_level)?;
        Ok(newest_first(ctx, page, |backup| backup.id.0, BackupFields, Backup))
    }

    /// The trial restores of backups, newest first; of one backup if its `backupId` is given. As `backups`.
    #[graphql(guard = "Needs(Permission::Operate)", complexity = "page_cost(first, last, child_complexity)")]
    async fn restore_drills(
        &self,
        ctx: &Context<'_>,
        backup_id: Option<String>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Result<Connection<RestoreDrill, EmptyFields>> {
        let args: PageArgs<ById> = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        let backup = backup_id.map(|id| global_id::expect("backup_id", Kind::Backup, &ID(id)).map(BackupId));
        let backup = backup.transpose().map_err(top_level)?;
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let page = view.snapshot.read(async |conn| store::drills(conn, tenant, backup, &args).await).await.map_err(top_level)?;
        Ok(newest_first(ctx, page, |drill| drill.id.0, EmptyFields, RestoreDrill))
    }
}

/// A connection whose cursors are ids, which are made in the order of time.
fn newest_first<T, Node, Fields: ObjectType>(
    ctx: &Context<'_>,
    page: Page<T>,
    id: impl Fn(&T) -> Uuid,
    fields: Fields,
    wrap: impl Fn(T) -> Node,
) -> Connection<Node, Fields> {
    let page = page.map(|row| {
        let position = ById(id(&row));
        (row, position)
    });
    connection(ctx, page, fields, wrap)
}

#[derive(Default)]
pub struct BackupMutations;

#[Object]
impl BackupMutations {
    /// Makes a backup in the background, and restores it on trial. Members of the tenant mdl-system may. Needs the permission OPERATE.
    #[graphql(guard = "Needs(Permission::Operate)")]
    async fn back_up_now(&self, ctx: &Context<'_>) -> Result<BackUpNowPayload> {
        let requested = async { backups::request(ctx.app(), ctx.actor()?).await };
        BackUpNowPayload::answer(requested.await, Backup)
    }
}
