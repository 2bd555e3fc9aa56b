//! The migrations, embedded in both programs.

use diesel_async::{AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::error::{BoxError, Error, Result, causes};

pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations");

/// Any number that nobody else locks: two programs that start at once must not migrate at once.
const LOCK: i64 = 0x6d64_6c00;

/// Brings the database to this program's schema, as the owner. Returns the names of what it applied.
///
/// Blocks its thread between statements, and so needs a multi-thread runtime.
pub async fn run(owner_url: &str) -> Result<Vec<String>> {
    let mut conn = connect(owner_url).await?;
    conn.batch_execute(&format!("SELECT pg_advisory_lock({LOCK})")).await?;
    let mut harness = AsyncMigrationHarness::new(conn);
    let applied = harness.run_pending_migrations(MIGRATIONS).map_err(Error::internal)?.iter().map(ToString::to_string).collect();
    // The lock goes with the connection.
    Ok(applied)
}

/// Takes every migration back, newest first. Only tests ask for it.
pub async fn revert_all(owner_url: &str) -> Result<()> {
    let mut harness = AsyncMigrationHarness::new(connect(owner_url).await?);
    harness.revert_all_migrations(MIGRATIONS).map_err(Error::internal)?;
    Ok(())
}

/// Whether the database lacks a migration that this program needs.
pub async fn pending(db: &crate::db::Db) -> Result<bool> {
    use diesel::migration::MigrationSource;
    use diesel_async::RunQueryDsl;

    #[derive(diesel::QueryableByName)]
    struct Applied {
        #[diesel(sql_type = diesel::sql_types::Text)]
        version: String,
    }
    // Migrations cannot be kept across an await: they may not move between threads.
    let known: Vec<String> = {
        let migrations: Vec<Box<dyn diesel::migration::Migration<diesel::pg::Pg>>> =
            MIGRATIONS.migrations().map_err(|e: BoxError| Error::internal(e))?;
        migrations.iter().map(|migration| migration.name().version().to_string()).collect()
    };
    let tx = db.dispatch().await?;
    let mut conn: &AsyncPgConnection = &tx;
    let applied: Vec<Applied> = diesel::sql_query("SELECT version FROM __diesel_schema_migrations").load(&mut conn).await?;
    Ok(known.iter().any(|version| !applied.iter().any(|applied| applied.version == *version)))
}

/// What the database lacks for this program, and what to do about it; `None` when it lacks nothing.
pub async fn lacking(db: &crate::db::Db) -> Result<Option<&'static str>> {
    match pending(db).await {
        Ok(false) => Ok(None),
        Ok(true) => Ok(Some("the database lacks migrations of this version; run `mdl-api migrate`")),
        // Before the first migration there is no table that says which were applied.
        Err(error) if causes(&error).contains("__diesel_schema_migrations") => {
            Ok(Some("the database is empty; run `mdl-api migrate`"))
        }
        Err(error) => Err(error),
    }
}

/// What the database lacks, when a command has failed because a table is not there.
pub async fn lacking_after(db: &crate::db::Db, failure: &str) -> Option<&'static str> {
    if failure.contains("relation \"") { lacking(db).await.ok().flatten() } else { None }
}

async fn connect(owner_url: &str) -> Result<AsyncPgConnection> {
    AsyncPgConnection::establish(owner_url).await.map_err(|e| Error::unavailable("PostgreSQL", e))
}
