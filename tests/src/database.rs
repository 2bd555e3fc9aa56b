//! A database for each test, cloned from one that has been migrated.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use tokio_postgres::NoTls;
use url::Url;

use crate::{root, variable};

/// A database of its own, dropped at the end.
pub struct TestDatabase {
    superuser: Url,
    name: String,
}

impl TestDatabase {
    /// A clone of the migrated template.
    pub async fn migrated() -> Self {
        Self::migrated_on(superuser_url()).await
    }

    /// The same on another server, at the address of its superuser.
    pub async fn migrated_on(superuser: Url) -> Self {
        let template = template(&superuser).await;
        Self::clone_of(superuser, &template).await
    }

    /// A database as `ops/roles.sql` prepares it: without a table.
    pub async fn empty() -> Self {
        Self::clone_of(superuser_url(), "mdl").await
    }

    async fn clone_of(superuser: Url, template: &str) -> Self {
        let name = format!("mdl_test_{}", uuid::Uuid::now_v7().simple());
        execute(&superuser, &format!("CREATE DATABASE {name} TEMPLATE {template} OWNER mdl_owner")).await;
        Self { superuser, name }
    }

    /// The address of this database for a role.
    pub fn url(&self, role: &str) -> String {
        url_of(&self.superuser, role, &self.name).into()
    }

    /// The address of the server for a role, with a database that no test uses.
    pub fn server_url(&self, role: &str) -> String {
        url_of(&self.superuser, role, "postgres").into()
    }

    /// The address of this database for the superuser.
    pub fn superuser_url(&self) -> Url {
        url_of(&self.superuser, self.superuser.username(), &self.name)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Drops another database of the server, if it is there.
    pub async fn drop_other(&self, name: &str) {
        execute(&self.superuser, &format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)")).await;
    }

    /// Runs a statement as the superuser, beside this database.
    pub async fn execute_beside(&self, statement: &str) {
        execute(&self.superuser, statement).await;
    }

    /// The databases of the server whose names begin like this.
    pub async fn others(&self, prefix: &str) -> Vec<String> {
        let query = "SELECT datname::text FROM pg_database WHERE starts_with(datname, $1)";
        let rows = connect(&self.superuser).await.query(query, &[&prefix]).await.expect("pg_database");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// A connection that may do anything, for looking behind the scenes.
    pub async fn superuser(&self) -> tokio_postgres::Client {
        connect(&self.superuser_url()).await
    }

    /// Runs statements as the superuser.
    pub async fn execute(&self, statements: &str) {
        self.superuser().await.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// The number that a query of the superuser gives.
    pub async fn number(&self, query: &str) -> i64 {
        self.superuser().await.query_one(query, &[]).await.unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
    }

    /// The text that a query of the superuser gives, if it finds a row.
    pub async fn text(&self, query: &str) -> Option<String> {
        let row = self.superuser().await.query_opt(query, &[]).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
        row.and_then(|row| row.get(0))
    }

    /// Whether anybody may connect; those who are connected are cut off when nobody may.
    pub async fn allow_connections(&self, allow: bool) {
        let server = connect(&self.superuser).await;
        let name = &self.name;
        server.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allow}")).await.expect("ALTER DATABASE");
        if !allow {
            let cut = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
            server.batch_execute(&cut).await.expect("the connections end");
        }
    }

    /// How many rows each table has, and a fingerprint of them: equal when nothing was written.
    pub async fn contents(&self) -> BTreeMap<String, String> {
        let superuser = self.superuser().await;
        let tables = superuser
            .query("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'", &[])
            .await
            .expect("the names of the tables");
        let mut contents = BTreeMap::new();
        for table in tables {
            let table: String = table.get(0);
            let query = format!(
                "SELECT count(*) || ' rows ' || coalesce(md5(string_agg(row::text, '|' ORDER BY row::text)), '') FROM {table} AS row"
            );
            let fingerprint = superuser.query_one(&query, &[]).await.expect("the rows of a table").get(0);
            contents.insert(table, fingerprint);
        }
        contents
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (url, name) = (self.superuser.clone(), self.name.clone());
        // The test's own runtime may be ending; this needs one that is not.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(execute(&url, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
        });
        if dropped.join().is_err() {
            eprintln!("Could not drop {}", self.name);
        }
    }
}

/// The migrated template; the first test that needs it makes it, under a lock. Its name changes with the migrations.
async fn template(superuser: &Url) -> String {
    let name = format!("mdl_template_{}", fingerprint());
    let client = connect(superuser).await;
    // Held by this connection until it is dropped.
    client.batch_execute("SELECT pg_advisory_lock(20261121)").await.expect("the template's lock");
    let there = client.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&name]).await.expect("pg_database");
    if there.is_none() {
        let draft = format!("{name}_draft");
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {draft}")).await.expect("no leftover draft");
        client
            .batch_execute(&format!("CREATE DATABASE {draft} TEMPLATE mdl OWNER mdl_owner"))
            .await
            .expect("a draft of the template");
        mdl::migrations::run(url_of(superuser, "mdl_owner", &draft).as_str()).await.expect("the migrations");
        client.batch_execute(&format!("ALTER DATABASE {draft} RENAME TO {name}")).await.expect("the template's name");
    }
    name
}

/// Of the migrations' text.
fn fingerprint() -> String {
    let mut files: Vec<_> = std::fs::read_dir(root().join("migrations"))
        .expect("migrations/")
        .map(|folder| folder.expect("a migration").path().join("up.sql"))
        .collect();
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        hash.update(std::fs::read(file).expect("up.sql"));
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn superuser_url() -> Url {
    let url = variable("MDL_TEST_DATABASE_URL").expect("MDL_TEST_DATABASE_URL: run the tests with ops/dev test");
    url.parse().expect("MDL_TEST_DATABASE_URL is a URL")
}

fn url_of(superuser: &Url, role: &str, database: &str) -> Url {
    let mut url = superuser.clone();
    url.set_username(role).expect("a role fits into a URL");
    url.set_path(database);
    url
}

async fn connect(url: &Url) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url.as_str(), NoTls).await.expect("PostgreSQL");
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("a connection of the tests ended: {error}");
        }
    });
    client
}

async fn execute(url: &Url, statement: &str) {
    connect(url).await.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
}
