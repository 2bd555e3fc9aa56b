//! No tenant sees another's data: what the database itself promises. What the API promises is in `two_tenants`.

use mdl_tests::TestDatabase;

/// Every table but these belongs to a tenant. The list may only shrink.
const WITHOUT_TENANT: &[&str] = &["__diesel_schema_migrations"];

#[tokio::test(flavor = "multi_thread")]
async fn every_tenant_table_forces_row_level_security() {
    let database = TestDatabase::migrated().await;
    let tables = database
        .superuser()
        .await
        .query(
            "SELECT c.relname::text, c.relrowsecurity AND c.relforcerowsecurity,
                    EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND a.attnotnull) OR c.relname = 'tenants',
                    EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND pg_get_expr(p.polqual, p.polrelid) LIKE '%current_tenant()%'),
                    coalesce((SELECT bool_and(a.attname = 'tenant_id') FROM pg_index i JOIN pg_attribute a
                              ON a.attrelid = c.oid AND a.attnum = i.indkey[0] WHERE i.indrelid = c.oid AND i.indisprimary), false) OR c.relname = 'tenants'
             FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace",
            &[],
        )
        .await
        .unwrap();
    assert!(tables.len() > 15, "the query finds the tables");
    for row in tables {
        let name: &str = row.get(0);
        if WITHOUT_TENANT.contains(&name) {
            continue;
        }
        assert!(row.get::<_, bool>(1), "{name} does not force row-level security");
        assert!(row.get::<_, bool>(2), "{name} has no tenant_id");
        assert!(row.get::<_, bool>(3), "{name} has no policy on current_tenant()");
        assert!(row.get::<_, bool>(4), "the primary key of {name} does not begin with tenant_id");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_look_with_the_eyes_of_their_reader() {
    let database = TestDatabase::migrated().await;
    let views = database
        .superuser()
        .await
        .query(
            "SELECT relname::text FROM pg_class WHERE relkind = 'v' AND relnamespace = 'public'::regnamespace
             AND NOT coalesce('security_invoker=true' = ANY (reloptions), false)
             AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')",
            &[],
        )
        .await
        .unwrap();
    assert!(views.is_empty(), "views must be security_invoker");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_tenant_nothing_is_seen() {
    let database = TestDatabase::migrated().await;
    let superuser = database.superuser().await;
    superuser
        .batch_execute("INSERT INTO tenants (id, slug, name) VALUES (gen_random_uuid(), 'acme', 'Acme');
                        INSERT INTO business_domains (tenant_id, id, key, name) SELECT id, gen_random_uuid(), 'D', 'D' FROM tenants WHERE slug = 'acme'")
        .await
        .unwrap();
    let (app, connection) = tokio_postgres::connect(&database.url("mdl_app"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let count = async |setting: &str| -> i64 {
        app.batch_execute(&format!("BEGIN; {setting}")).await.unwrap();
        let count = app.query_one("SELECT count(*) FROM business_domains", &[]).await.unwrap().get(0);
        app.batch_execute("COMMIT").await.unwrap();
        count
    };
    assert_eq!(count("").await, 0, "never set");
    let tenant: uuid::Uuid = superuser.query_one("SELECT id FROM tenants WHERE slug = 'acme'", &[]).await.unwrap().get(0);
    assert_eq!(count(&format!("SET LOCAL app.tenant_id = '{tenant}'")).await, 1);
    assert_eq!(count("").await, 0, "empty after a transaction that set it");
    assert_eq!(count("SET LOCAL app.dispatcher = 'on'").await, 0, "the dispatcher sees jobs, not catalogs");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_role_owns_nothing_and_rewrites_no_history() {
    let database = TestDatabase::migrated().await;
    let superuser = database.superuser().await;
    let owned: i64 =
        superuser.query_one("SELECT count(*) FROM pg_class WHERE relowner = 'mdl_app'::regrole", &[]).await.unwrap().get(0);
    assert_eq!(owned, 0);
    for table in ["audit_log", "metric_versions"] {
        for privilege in ["UPDATE", "DELETE", "TRUNCATE"] {
            let may: bool =
                superuser.query_one("SELECT has_table_privilege('mdl_app', $1, $2)", &[&table, &privilege]).await.unwrap().get(0);
            assert!(!may, "mdl_app may {privilege} {table}");
        }
    }
}
