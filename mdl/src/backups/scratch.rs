//! A database to restore into and to look at, which is dropped afterwards.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};
use tracing::warn;

use super::manifest::Manifest;
use super::progress::{Phase, Progress};
use super::refused;
use super::seal::{Identities, Opened};
use super::tools::{Ownership, Restore};
use super::vault::Vault;
use crate::config::{BackupConfig, postgres_address};
use crate::db;
use crate::error::{Error, Result, causes};

const PREFIX: &str = "mdl_scratch_";

/// What the locks of scratch databases begin with: any number that nobody else locks in the database that mdl_scratch connects
/// to.
const LOCK: i32 = 0x6d64_6c73;

/// What a database of MDL is made like, whoever makes it: see ops/roles.sql.
pub const LIKE_OURS: &str = "ENCODING 'UTF8' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'";

/// An empty database of the role mdl_scratch.
pub struct Scratch {
    /// Holds the lock that keeps others from dropping the database, until it is dropped.
    admin: Option<Client>,
    name: String,
    config: Config,
}

impl Scratch {
    /// Makes one. Drops those that runs left which died.
    pub async fn create(config: &BackupConfig) -> Result<Self> {
        let Some(url) = &config.scratch_url else {
            return Err(refused("Set MDL_BACKUP_SCRATCH_URL: backups are restored on trial as the role mdl_scratch"));
        };
        let mut config = postgres_address("MDL_BACKUP_SCRATCH_URL", url)?;
        let admin = db::connect_as(config.clone()).await?;
        let superuser: bool = admin.query_one("SELECT rolsuper FROM pg_roles WHERE rolname = current_user", &[]).await?.get(0);
        if superuser {
            return Err(refused(
                "MDL_BACKUP_SCRATCH_URL must not be a superuser's: a forged backup could run programs on the server",
            ));
        }
        drop_abandoned(&admin).await?;
        let number = rand::random_range(0..i32::MAX);
        let name = format!("{PREFIX}{number:08x}");
        admin.execute("SELECT pg_advisory_lock($1, $2)", &[&LOCK, &number]).await?;
        admin.batch_execute(&format!("CREATE DATABASE {name} {LIKE_OURS}")).await?;
        config.dbname(&name);
        let scratch = Self { admin: Some(admin), name, config };
        // Nobody else is to look into it, or to make anything in it.
        scratch.admin()?.batch_execute(&format!("REVOKE ALL ON DATABASE {} FROM PUBLIC", scratch.name)).await?;
        Ok(scratch)
    }

    /// A connection to it.
    pub async fn connect(&self) -> Result<Client> {
        db::connect_as(self.config.clone()).await
    }

    /// Restores the database of a backup into it, as its owner and without privileges.
    pub async fn fill(
        &self,
        config: &BackupConfig,
        vault: &Vault,
        manifest: &Manifest,
        keys: &Identities,
        progress: &Progress,
    ) -> Result<()> {
        pour(config, vault, manifest, keys, (&self.config, Ownership::Mine), progress).await
    }

    /// Drops it, or warns: whatever it was made for is done.
    pub async fn remove(mut self) {
        if let Some(admin) = self.admin.take() {
            drop_or_warn(&admin, &self.name).await;
        }
    }

    fn admin(&self) -> Result<&Client> {
        self.admin.as_ref().ok_or_else(|| Error::internal("the scratch database is dropped"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(admin) = self.admin.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let name = std::mem::take(&mut self.name);
        runtime.spawn(async move { drop_or_warn(&admin, &name).await });
    }
}

async fn drop_or_warn(admin: &Client, name: &str) {
    if let Err(error) = drop_database(admin, name).await {
        warn!(error = causes(&error), database = name, "Could not drop a scratch database; the next trial restore will");
    }
}

/// Drops a database that nobody needs any more, whoever is connected to it.
pub async fn drop_database(admin: &Client, name: &str) -> Result<()> {
    // By itself PostgreSQL waits some seconds for others to go, and ends its own autovacuum, which force may not be used on.
    match admin.batch_execute(&format!("DROP DATABASE IF EXISTS {}", quote(name))).await {
        Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => {
            Ok(admin.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote(name))).await?)
        }
        dropped => Ok(dropped?),
    }
}

pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn drop_abandoned(admin: &Client) -> Result<()> {
    let query = "SELECT datname::text FROM pg_database WHERE datdba = current_user::regrole AND datname LIKE $1";
    for row in admin.query(query, &[&format!("{}%", PREFIX.replace('_', "\\_"))]).await? {
        let name: String = row.get(0);
        let Some(number) = name.strip_prefix(PREFIX).and_then(|number| i32::from_str_radix(number, 16).ok()) else { continue };
        let free: bool = admin.query_one("SELECT pg_try_advisory_lock($1, $2)", &[&LOCK, &number]).await?.get(0);
        if free {
            drop_database(admin, &name).await?;
            admin.execute("SELECT pg_advisory_unlock($1, $2)", &[&LOCK, &number]).await?;
        }
    }
    Ok(())
}

/// Restores the database of a backup into an empty database.
pub async fn pour(
    config: &BackupConfig,
    vault: &Vault,
    manifest: &Manifest,
    keys: &Identities,
    (target, ownership): (&Config, Ownership),
    progress: &Progress,
) -> Result<()> {
    progress.begin(Phase::Restoring, Some(manifest.database.plain.bytes));
    let mut dump = Opened::new(vault, &manifest.database, &manifest.recipients, keys).await?;
    let mut restore = Restore::start(config, target, ownership)?;
    // To the end even if pg_restore has given up: that the backup is damaged says more than what pg_restore makes of it.
    while let Some(piece) = dump.next().await? {
        restore.write(&piece).await;
        progress.advance(piece.len() as u64);
    }
    restore.finish().await
}
