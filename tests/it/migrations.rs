//! The migrations go up, down and up again, and leave what `mdl/src/schema.rs` says.

use std::collections::BTreeMap;

use mdl::migrations;
use mdl_tests::{TestDatabase, root};

#[tokio::test(flavor = "multi_thread")]
async fn they_go_up_down_and_up_again() {
    let database = TestDatabase::empty().await;
    let owner = database.url("mdl_owner");
    let applied = migrations::run(&owner).await.unwrap();
    assert_eq!(applied.len(), std::fs::read_dir(root().join("migrations")).unwrap().count());
    let before = catalog(&database).await;

    assert!(migrations::run(&owner).await.unwrap().is_empty(), "a second run has nothing to do");

    migrations::revert_all(&owner).await.unwrap();
    let left: BTreeMap<_, _> = catalog(&database).await.into_iter().filter(|(table, _)| !table.starts_with("__diesel")).collect();
    assert_eq!(left, BTreeMap::new(), "the way down leaves nothing");
    let functions: i64 = database
        .superuser()
        .await
        .query_one(
            "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proowner <> (SELECT oid FROM pg_roles WHERE rolname = 'postgres')
             AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(functions, 0, "functions are taken back too");

    migrations::run(&owner).await.unwrap();
    assert_eq!(catalog(&database).await, before);
}

/// A database that is behind by one migration gets that alone, in a session in which none of the others was.
#[tokio::test(flavor = "multi_thread")]
async fn each_goes_up_and_down_in_a_session_of_its_own() {
    let database = TestDatabase::empty().await;
    let mut folders: Vec<_> =
        std::fs::read_dir(root().join("migrations")).unwrap().map(|folder| folder.unwrap().path()).collect();
    folders.sort();
    let run = async |folder: &std::path::Path, direction: &str| {
        let statements = std::fs::read_to_string(folder.join(direction)).unwrap();
        let (owner, connection) = tokio_postgres::connect(&database.url("mdl_owner"), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let done = owner.batch_execute(&format!("BEGIN; {statements}; COMMIT")).await;
        done.unwrap_or_else(|error| panic!("{}/{direction}: {error:?}", folder.display()));
    };
    let mut before = Vec::new();
    for folder in &folders {
        before.push(catalog(&database).await);
        run(folder, "up.sql").await;
    }
    let migrated = catalog(&TestDatabase::migrated().await).await;
    let mut all = catalog(&database).await;
    all.extend(migrated.iter().filter(|(table, _)| table.starts_with("__diesel")).map(|(k, v)| (k.clone(), v.clone())));
    assert_eq!(all, migrated);
    for (folder, before) in folders.iter().zip(before).rev() {
        run(folder, "down.sql").await;
        assert_eq!(catalog(&database).await, before, "after the way back of {}", folder.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_programs_that_migrate_at_once_do_it_once() {
    let database = TestDatabase::empty().await;
    let owner = database.url("mdl_owner");
    let runs = (0..3).map(|_| {
        let owner = owner.clone();
        tokio::spawn(async move { migrations::run(&owner).await.unwrap().len() })
    });
    let mut applied = Vec::new();
    for run in runs.collect::<Vec<_>>() {
        applied.push(run.await.unwrap());
    }
    applied.sort_unstable();
    assert_eq!(applied[..2], [0, 0]);
    assert!(applied[2] > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_rs_says_what_the_database_has() {
    let database = TestDatabase::migrated().await;
    let tables: BTreeMap<_, _> =
        catalog(&database).await.into_iter().filter(|(table, _)| !table.starts_with("__diesel")).collect();
    assert_eq!(declared(), tables);
}

type Columns = Vec<(String, String)>;

/// The tables of the database, each with its columns and their Diesel types.
async fn catalog(database: &TestDatabase) -> BTreeMap<String, Columns> {
    let rows = database
        .superuser()
        .await
        .query(
            "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, -1), a.attnotnull
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
             WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
             ORDER BY c.relname, a.attnum",
            &[],
        )
        .await
        .unwrap();
    let mut tables: BTreeMap<String, Columns> = BTreeMap::new();
    for row in rows {
        let (table, column, kind, not_null): (String, String, String, bool) = (row.get(0), row.get(1), row.get(2), row.get(3));
        let kind = diesel_type(&kind);
        let kind = if not_null { kind.to_owned() } else { format!("Nullable<{kind}>") };
        tables.entry(table).or_default().push((column, kind));
    }
    tables
}

fn diesel_type(name: &str) -> &'static str {
    match name {
        "uuid" => "Uuid",
        "text" => "Text",
        "character varying" => "Varchar",
        "timestamp with time zone" => "Timestamptz",
        "timestamp without time zone" => "Timestamp",
        "jsonb" => "Jsonb",
        "bytea" => "Bytea",
        "smallint" => "Int2",
        "integer" => "Int4",
        "bigint" => "Int8",
        "boolean" => "Bool",
        "double precision" => "Float8",
        "date" => "Date",
        "text[]" => "Array<Text>",
        "tsvector" => "Tsvector",
        other => panic!("this test does not know the type {other}"),
    }
}

/// The tables as `schema.rs` declares them.
fn declared() -> BTreeMap<String, Columns> {
    let source = std::fs::read_to_string(root().join("mdl/src/schema.rs")).unwrap();
    let mut tables: BTreeMap<String, Columns> = BTreeMap::new();
    let mut table = None;
    for line in source.lines().map(str::trim) {
        if let Some((column, kind)) = line.split_once(" -> ") {
            let columns = tables.get_mut(table.as_ref().expect("a column is in a table")).expect("the table was seen");
            columns.push((column.to_owned(), kind.trim_end_matches(',').to_owned()));
        } else if line.ends_with(") {") {
            let name = line.split(' ').next().expect("a name").to_owned();
            tables.insert(name.clone(), Vec::new());
            table = Some(name);
        }
    }
    tables
}
