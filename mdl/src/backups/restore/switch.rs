//! Putting a restored database in the place of the one in use: one transaction that renames both.

use std::time::Duration;

use chrono::Utc;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};
use tracing::{info, warn};

use super::database::LONGEST_NAME;
use super::{in_use, restore_url};
use crate::app::App;
use crate::backups::mark::{self, Mark};
use crate::backups::scratch::quote;
use crate::backups::{list, refused, shell_word, store};
use crate::db;
use crate::error::{Error, Result, causes};
use crate::ids::TenantId;
use crate::tenants::SYSTEM;
use crate::versions::{Change, Entities};

/// What a [`switch`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switched {
    /// The restored database is in use now; what was before, if there was one, has this name.
    Now { kept: Option<String> },
    /// It was in use already.
    Before,
}

/// Puts a restored database in the place of the one that DATABASE_URL names, which stays under another name. Ends the connections
/// to both; the programs connect again by themselves. If DATABASE_URL names the restored one already, nothing is renamed. Refuses
/// a database that is neither marked as restored to its end nor as one that was in use before. What operators have said of a
/// database in its comment stays with it. Then every kept answer of every tenant is forgotten.
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

/// Opens those of these databases that let nobody connect: an operator closed them, or a switch of an older version, which was
/// interrupted.
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
/// Whoever connects while a database is renamed waits for a lock, which PostgreSQL lets go of by itself when the transaction
/// ends, or its connection: however this ends, nobody is shut out.
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
    if let Some(ours) = server.get_dbname().filter(|ours| [in_use, restored].contains(ours)) {
        return Err(refused(format!(
            "MDL_RESTORE_DATABASE_URL names the database {ours}, which nobody can rename who is connected to it: name another of the server, like \
             postgres"
        )));
    }
    let mut renames = vec![(restored, in_use)];
    let mut aside = None;
    if in_use_is_there {
        renames.insert(0, (in_use, kept));
        // What an interrupted restore left under that name was never in use.
        aside = (Mark::of(admin, in_use).await? != Some(Mark::Unfinished)).then_some(kept);
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

/// In one transaction, with the marks of what is in use then and of what was in use before. The connection is to be dropped if it
/// fails.
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
