//! Bringing a backup back: into a database of its own first, whole and compared, and then, if that is wanted, in the place of the one
//! in use. Until the last step nothing that is in use is touched; and that step is one transaction which renames two databases.

use std::time::Duration;

use chrono::Utc;
use diesel::migration::{Migration, MigrationSource};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};
use tracing::{info, warn};

use super::files::{self, Brought};
use super::inventory;
use super::manifest::Manifest;
use super::mark::{self, Mark};
use super::progress::{Phase, Progress};
use super::scratch::{LIKE_OURS, drop_database, pour, quote};
use super::seal::{Identities, Opened};
use super::tools::Ownership;
use super::verify::find;
use super::{list, refused, shell_word, store};
use crate::app::App;
use crate::config::{BackupConfig, postgres_address};
use crate::db;
use crate::error::{BoxError, Error, Result, causes};
use crate::ids::{BackupId, TenantId};
use crate::migrations::MIGRATIONS;
use crate::tenants::SYSTEM;
use crate::versions::{Change, Entities};

/// A backup that is a database again.
#[derive(Debug, Clone)]
pub struct Restored {
    pub manifest: Manifest,
    /// The name of the database.
    pub database: String,
    /// Migrations of this program that it lacks: `mdl-api migrate` adds them once it is in use.
    pub lacks_migrations: bool,
    /// The uploaded files.
    pub files: Brought,
}

/// Places in a stream of events that stay empty after a restore: more than a tenant can have used since the backup.
const STREAM_GAP: u64 = 1_000_000_000;

/// What a [`switch`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switched {
    /// The restored database is in use now; what was before, if there was one, has this name.
    Now { kept: Option<String> },
    /// It was in use already.
    Before,
}

/// The advisory lock of a restore, in the database that MDL_RESTORE_DATABASE_URL names.
const LOCK: i64 = 0x6d64_6c5f_7265_7374;

/// Most bytes of a database's name.
const LONGEST_NAME: usize = 63;

/// Restores a backup into a new database, as mdl_restore, with the owners and privileges that it had; compares it with the manifest,
/// and makes its jobs and sessions fit for use again. Brings back the uploaded files that are missing, as far as the backup has them whole.
/// What is in use is not touched.
///
/// `database` is the name of the new one; without it the name tells of the backup. Nothing is left when it fails. What is left when it is
/// interrupted is marked as unfinished: it cannot be switched to, and the next restore of that name drops it. In the moment between making and
/// marking it has no mark: then it cannot be switched to either, and the next restore of that name says so and leaves it.
pub async fn restore(
    app: &App,
    id: BackupId,
    place: Option<&str>,
    database: Option<&str>,
    progress: &Progress,
) -> Result<Restored> {
    let config = &app.config.backup;
    let mut target = restore_url(config)?;
    let (vault, manifest) = find(app, id, place).await?;
    let lacks_migrations = check_schema(&manifest)?;
    let keys = Identities::load(config.identity_file.as_deref())?;
    // Read once for nothing, so that a damaged backup or a missing key is known before anything is made.
    progress.begin(Phase::Checking, Some(manifest.database.plain.bytes));
    let opened = Opened::new(&vault, &manifest.database, &manifest.recipients, &keys).await?;
    opened.check(|bytes| progress.advance(bytes as u64)).await?;
    let plan = files::plan(app, &vault, &manifest, |_| true).await?;

    let database = match database {
        Some(name) => name.to_owned(),
        None => format!("mdl_restored_{}_{:06x}", manifest.started_at.format("%Y%m%d_%H%M%S"), id.0.as_u128() & 0xff_ffff),
    };
    let admin = db::connect_as(target.clone()).await?;
    // One after the other, until this connection ends: handing a database over gives away what mdl_restore owns in others, too.
    admin.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    create(&admin, &database, &in_use(app)?).await?;
    target.dbname(&database);
    let filled = async {
        close(&admin, &database).await?;
        prepare(&target).await?;
        pour(config, &vault, &manifest, &keys, (&target, Ownership::AsDumped), progress).await?;
        progress.begin(Phase::Comparing, None);
        let client = db::connect_as(target.clone()).await?;
        hand_over_contents(&client).await?;
        let differences = manifest.inventory.differences(&inventory::take(&client).await?);
        if !differences.is_empty() {
            return Err(refused(format!("The backup {id} does not restore to what was backed up: {}", differences.join("; "))));
        }
        settle(&client).await?;
        hand_over(&admin, &database).await
    };
    if let Err(error) = filled.await {
        if let Err(error) = drop_database(&admin, &database).await {
            warn!(error = causes(&error), database, "Could not drop the database of a restore that failed");
        }
        return Err(error);
    }
    drop(admin);
    // From now on the programs may be in it.
    let files = files::restore(app, &vault, plan, &keys, progress).await;
    info!(backup.id = %id, database, "Restored a backup");
    progress.begin(Phase::Finished, None);
    Ok(Restored { manifest, database, lacks_migrations, files })
}

/// Puts a restored database in the place of the one that DATABASE_URL names, which stays under another name. Ends the connections to both;
/// the programs connect again by themselves. If DATABASE_URL names the restored one already, nothing is renamed. Refuses a database that is
/// neither marked as restored to its end nor as one that was in use before. What operators have said of a database in its comment stays with it.
/// Then every kept answer of every tenant is forgotten.
///
/// When it is interrupted, both are renamed or neither is, and it can be run again.
pub async fn switch(app: &App, restored: &str) -> Result<Switched> {
    let config = &app.config.backup;
    let target = restore_url(config)?;
    let in_use = in_use(app)?;
    let admin = db::connect_as(target.clone()).await?;
    open(&admin, &[in_use.as_str(), restored]).await?;
    let kept = if in_use == restored {
        match Mark::of(&admin, restored).await? {
            Some(Mark::Unfinished) => return Err(unfinished(restored)),
            Some(Mark::Restored | Mark::Kept) => mark::clear(&admin, restored).await?,
            None if mark::is_half_made(&admin, restored).await? => check_whole(&admin, restored).await?,
            None => {}
        }
        Switched::Before
    } else {
        let time = format!("_before_{}", Utc::now().format("%Y%m%d%H%M%S%3f"));
        let kept: String = in_use.chars().take(LONGEST_NAME - time.len()).chain(time.chars()).collect();
        let was_there = swap(&admin, &target, &in_use, restored, &kept).await?;
        Switched::Now { kept: was_there.then_some(kept) }
    };
    let mut now = target;
    now.dbname(&in_use);
    let client = db::connect_as(now).await?;
    for row in client.query("SELECT id FROM public.tenants", &[]).await? {
        app.versions.bump(TenantId(row.get(0)), Change::of(Entities::ALL)).await;
    }
    drop(client);
    if let Err(error) = adopt(app).await {
        // Of an older schema, perhaps; the vaults know them.
        warn!(error = causes(&error), "The restored database could not be told of the backups that there are");
    }
    Ok(kept)
}

/// The name of the database that the programs use.
fn in_use(app: &App) -> Result<String> {
    let url = postgres_address("DATABASE_URL", &app.config.database.url)?;
    Ok(url.get_dbname().ok_or_else(|| refused("DATABASE_URL names no database"))?.to_owned())
}

fn restore_url(config: &BackupConfig) -> Result<Config> {
    let url = config.restore_url.as_deref();
    let url = url.ok_or_else(|| refused("Set MDL_RESTORE_DATABASE_URL: backups are brought back as the role mdl_restore"))?;
    postgres_address("MDL_RESTORE_DATABASE_URL", url)
}

/// Whether the backup lacks migrations that this program has. An error if it has some that this program does not know.
pub fn check_schema(manifest: &Manifest) -> Result<bool> {
    let known: Vec<Box<dyn Migration<diesel::pg::Pg>>> =
        MIGRATIONS.migrations().map_err(|error: BoxError| Error::internal(error))?;
    let known: Vec<String> = known.iter().map(|migration| migration.name().version().to_string()).collect();
    if let Some(newer) = manifest.migrations.iter().find(|version| !known.contains(version)) {
        return Err(refused(format!(
            "The backup {} has a newer schema than this program (migration {newer}, of MDL {}): restore it with that version",
            manifest.id, manifest.program_version
        )));
    }
    Ok(known.iter().any(|version| !manifest.migrations.contains(version)))
}

async fn create(admin: &Client, database: &str, in_use: &str) -> Result<()> {
    if database.is_empty() || database.len() > LONGEST_NAME {
        return Err(refused(format!("A database's name has 1 to {LONGEST_NAME} bytes")));
    }
    let statement = format!("CREATE DATABASE {} {LIKE_OURS}", quote(database));
    match admin.batch_execute(&statement).await {
        Err(error) if error.code() == Some(&SqlState::DUPLICATE_DATABASE) => {
            make_way(admin, database, in_use).await?;
            admin.batch_execute(&statement).await?;
        }
        created => created?,
    }
    Ok(())
}

/// Marks a new database, and lets nobody in but those who fill it.
async fn close(admin: &Client, database: &str) -> Result<()> {
    Mark::Unfinished.set(admin, database).await?;
    let name = quote(database);
    // mdl_owner is to own the schema, for which it must be able to make something in the database.
    let statements =
        format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CREATE, CONNECT, TEMPORARY ON DATABASE {name} TO mdl_owner");
    Ok(admin.batch_execute(&statements).await?)
}

/// Drops what an interrupted restore left under this name. Nothing else is dropped, nor is one that somebody is connected to.
async fn make_way(admin: &Client, database: &str, in_use: &str) -> Result<()> {
    match Mark::of(admin, database).await? {
        Some(Mark::Unfinished) => {}
        Some(Mark::Restored | Mark::Kept) if database != in_use => {
            return Err(refused(format!(
                "There is a database {database} already: switch to it with mdl-worker backup switch {}, drop it, or name another \
                 with --into",
                shell_word(database)
            )));
        }
        None if mark::is_half_made(admin, database).await? => {
            return Err(refused(format!(
                "There is a database {database} already, of mdl_restore and without a mark: a restore was killed that had just made it, or somebody \
                 made it by hand. Look into it and, if nobody needs it, DROP DATABASE {}; or name another with --into",
                quote(database)
            )));
        }
        _ => return Err(refused(format!("There is a database {database} already; name another with --into"))),
    }
    match admin.batch_execute(&format!("DROP DATABASE IF EXISTS {}", quote(database))).await {
        // PostgreSQL has waited for 5 seconds.
        Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => Err(refused(format!(
            "An interrupted restore has left the database {database}, and somebody is connected to it: try again when nobody is"
        ))),
        dropped => {
            dropped?;
            warn!(database, "Dropped the database that an interrupted restore had left");
            Ok(())
        }
    }
}

/// As ops/roles.sql leaves a database for the migrations.
async fn prepare(target: &Config) -> Result<()> {
    let client = db::connect_as(target.clone()).await?;
    client.batch_execute("ALTER SCHEMA public OWNER TO mdl_owner; GRANT USAGE, CREATE ON SCHEMA public TO mdl_search").await?;
    Ok(())
}

/// Makes mdl_owner the owner of everything in the database that is not mdl_search's.
async fn hand_over_contents(client: &Client) -> Result<()> {
    let statements = "REASSIGN OWNED BY mdl_restore TO mdl_owner; REVOKE CREATE ON SCHEMA public FROM mdl_search; ANALYZE";
    Ok(client.batch_execute(statements).await?)
}

/// Says that the database is restored to its end, makes mdl_owner its owner and lets the programs in, all at once: not before it is what
/// was backed up, and whoever is let in is not in a database that the next restore would drop.
async fn hand_over(admin: &Client, database: &str) -> Result<()> {
    let name = quote(database);
    let mark = mark::statement(admin, database, Some(Mark::Restored)).await?;
    let statements = format!(
        "{mark};
         ALTER DATABASE {name} OWNER TO mdl_owner;
         SET ROLE mdl_owner;
         GRANT CONNECT, TEMPORARY ON DATABASE {name} TO mdl_app;
         GRANT CONNECT ON DATABASE {name} TO mdl_backup;
         RESET ROLE"
    );
    admin.batch_execute(&statements).await?;
    Ok(())
}

/// What was under way when the backup was made is under way no more.
///
/// - Nobody holds a lease, and Redis knows no id: jobs wait for their turn again, with their attempts as they were.
/// - Events are forgotten: those that had no place in their stream yet got one a moment after the backup, and were told. Each stream
///   goes on far beyond what it can have come to since, and whoever followed it is told that its cursor is too old.
/// - Deliveries of webhooks that were due are not sent, since they were sent after the backup; they can be sent again by hand.
async fn settle(client: &Client) -> Result<()> {
    client
        .batch_execute(&format!(
            "BEGIN;
             UPDATE public.jobs SET state = 'waiting', lease_until = NULL, worker = NULL, dispatched_at = NULL, lease_token = lease_token + 1
                 WHERE state IN ('dispatched', 'running');
             DELETE FROM public.outbox;
             DELETE FROM public.outbox_commits;
             UPDATE public.event_streams SET last_sequence = last_sequence + {STREAM_GAP}, kept_from = last_sequence + {STREAM_GAP} + 1;
             DO $$ BEGIN
                 IF to_regclass('public.webhook_deliveries') IS NOT NULL THEN
                     UPDATE public.webhook_deliveries SET state = 'discarded', finished_at = now() WHERE state = 'pending';
                 END IF;
             END $$;
             UPDATE public.backups SET state = 'failed', finished_at = now(), error = 'The database was restored from this backup'
                 WHERE state = 'running';
             UPDATE public.restore_drills SET state = 'failed', finished_at = now(), error = 'The database was restored meanwhile'
                 WHERE state = 'running';
             COMMIT"
        ))
        .await?;
    Ok(())
}

/// Tells the database of the backups that there are: it knows no more than it did when it was backed up itself.
async fn adopt(app: &App) -> Result<()> {
    let tx = app.db.begin(SYSTEM).await?;
    for backup in list(app).await?.0.into_values() {
        if let Some(manifest) = &backup.manifest {
            store::published(&tx, manifest, &backup.places, backup.proof.as_ref()).await?;
        }
    }
    tx.commit().await
}

/// Opens those of these databases that let nobody connect: an operator closed them, or a switch of an older version, which was interrupted.
async fn open(admin: &Client, databases: &[&str]) -> Result<()> {
    let closed = "SELECT datname::text FROM pg_database WHERE datname = ANY ($1) AND NOT datallowconn";
    for row in admin.query(closed, &[&databases]).await? {
        let name: String = row.get(0);
        admin.batch_execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", quote(&name))).await?;
        info!(database = name, "Opened a database that let nobody connect");
    }
    Ok(())
}

/// An error unless this database was restored to its end, or was in use before.
async fn check_whole(admin: &Client, database: &str) -> Result<()> {
    match Mark::of(admin, database).await? {
        Some(Mark::Restored | Mark::Kept) => Ok(()),
        Some(Mark::Unfinished) => Err(unfinished(database)),
        None => Err(refused(format!(
            "The database {database} was neither restored to its end nor in use before: restore the backup into another or, if you know that it \
             is whole, say so with {}",
            mark::statement(admin, database, Some(Mark::Restored)).await?
        ))),
    }
}

fn unfinished(database: &str) -> Error {
    refused(format!(
        "The restore into the database {database} was interrupted: run it again, with --into {}, and it begins anew",
        shell_word(database)
    ))
}

/// Renames both databases at once, after it has ended the connections to them. Returns whether the one in use was there.
///
/// Whoever connects while a database is renamed waits for a lock, which PostgreSQL lets go of by itself when the transaction ends, or its
/// connection: however this ends, nobody is shut out.
async fn swap(admin: &Client, server: &Config, in_use: &str, restored: &str, kept: &str) -> Result<bool> {
    let there = "SELECT datname::text FROM pg_database WHERE datname = ANY ($1)";
    let there: Vec<String> = admin.query(there, &[&vec![in_use, restored]]).await?.iter().map(|row| row.get(0)).collect();
    let in_use_is_there = there.iter().any(|name| name == in_use);
    if !there.iter().any(|name| name == restored) {
        let hint = format!(
            "; if a switch put it into use and was interrupted then, go on with mdl-worker backup switch {}",
            shell_word(in_use)
        );
        return Err(refused(format!("There is no database {restored}{}", if in_use_is_there { hint.as_str() } else { "" })));
    }
    check_whole(admin, restored).await?;
    let mut renames = vec![(restored, in_use)];
    let mut aside = None;
    if in_use_is_there {
        renames.insert(0, (in_use, kept));
        // What a killed restore left under that name was never in use.
        let half = Mark::of(admin, in_use).await? == Some(Mark::Unfinished) || mark::is_half_made(admin, in_use).await?;
        aside = (!half).then_some(kept);
    }
    let beside = db::connect_as(server.clone()).await?;
    end_connections(&beside, &there).await?;
    tokio::select! {
        renamed = rename(admin, &renames, in_use, aside) => renamed?,
        // Those that had come back when the lock was taken.
        error = keep_ending(&beside, &there) => return Err(error),
    }
    Ok(in_use_is_there)
}

/// In one transaction, with the marks of what is in use then and of what was in use before. The connection is to be dropped if it fails.
async fn rename(admin: &Client, renames: &[(&str, &str)], in_use: &str, kept: Option<&str>) -> Result<()> {
    // One statement after the other: what is sent at once is done to its end, also when this program has been interrupted.
    admin.batch_execute("BEGIN").await?;
    for (from, to) in renames {
        let renamed = admin.batch_execute(&format!("ALTER DATABASE {} RENAME TO {}", quote(from), quote(to))).await;
        renamed.map_err(|error| match error.code() {
            // PostgreSQL has waited for 5 seconds.
            Some(&SqlState::OBJECT_IN_USE) => {
                refused("The connections to the database do not end: stop the programs that use it, and try again")
            }
            _ => Error::from(error),
        })?;
    }
    mark::clear(admin, in_use).await?;
    if let Some(kept) = kept {
        Mark::Kept.set(admin, kept).await?;
    }
    Ok(admin.batch_execute("COMMIT").await?)
}

/// Ends the connections to these databases; those of a superuser have to end by themselves.
async fn end_connections(beside: &Client, databases: &[String]) -> Result<()> {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity JOIN pg_roles ON pg_roles.oid = usesysid
               WHERE datname = ANY ($1) AND NOT rolsuper AND pid <> pg_backend_pid()";
    beside.execute(end, &[&databases]).await?;
    Ok(())
}

/// Ends all that come, until that fails.
async fn keep_ending(beside: &Client, databases: &[String]) -> Error {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Err(error) = end_connections(beside, databases).await {
            return error;
        }
    }
}
