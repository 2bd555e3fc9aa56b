//! The database that a backup is restored into, from making it to handing it over.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};
use tracing::warn;

use crate::backups::mark::{self, Mark};
use crate::backups::scratch::{LIKE_OURS, drop_database, quote};
use crate::backups::{refused, shell_word};
use crate::db;
use crate::error::{Result, causes};

/// Most bytes of a database's name.
pub const LONGEST_NAME: usize = 63;

/// What a new database is called until it has its mark and lets nobody in but those who fill it: a restore that is killed as it
/// begins leaves nothing under any other name.
const BEGUN: &str = "mdl_restoring_";

/// Makes a database that is marked as unfinished.
pub async fn create(admin: &Client, database: &str, in_use: &str) -> Result<()> {
    if database.is_empty() || database.len() > LONGEST_NAME {
        return Err(refused(format!("A database's name has 1 to {LONGEST_NAME} bytes")));
    }
    if admin.query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&database]).await?.is_some() {
        make_way(admin, database, in_use).await?;
    }
    let begun = format!("{BEGUN}{:08x}", rand::random::<u32>());
    admin.batch_execute(&format!("CREATE DATABASE {begun} {LIKE_OURS}")).await?;
    let closed = async {
        Mark::Unfinished.set(admin, &begun).await?;
        // mdl_owner is to own the schema, for which it must be able to make something in the database.
        let statements = format!(
            "REVOKE ALL ON DATABASE {begun} FROM PUBLIC; GRANT CREATE, CONNECT, TEMPORARY ON DATABASE {begun} TO mdl_owner;
             ALTER DATABASE {begun} RENAME TO {}",
            quote(database)
        );
        Ok(admin.batch_execute(&statements).await?)
    };
    let closed: Result<()> = closed.await;
    if closed.is_err()
        && let Err(error) = drop_database(admin, &begun).await
    {
        warn!(error = causes(&error), database = begun, "Could not drop the database of a restore that failed");
    }
    closed
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
pub async fn prepare(target: &Config) -> Result<()> {
    let client = db::connect_as(target.clone()).await?;
    client.batch_execute("ALTER SCHEMA public OWNER TO mdl_owner; GRANT USAGE, CREATE ON SCHEMA public TO mdl_search").await?;
    Ok(())
}

/// Makes mdl_owner the owner of everything in the database that is not mdl_search's.
pub async fn hand_over_contents(client: &Client) -> Result<()> {
    let statements = "REASSIGN OWNED BY mdl_restore TO mdl_owner; REVOKE CREATE ON SCHEMA public FROM mdl_search; ANALYZE";
    Ok(client.batch_execute(statements).await?)
}

/// Says that the database is restored to its end, makes mdl_owner its owner and lets the programs in, all at once: not before it
/// is what was backed up, and whoever is let in is not in a database that the next restore would drop.
pub async fn hand_over(admin: &Client, database: &str) -> Result<()> {
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
