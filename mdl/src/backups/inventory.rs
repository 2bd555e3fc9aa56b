//! What a database has, said in the same words before it is dumped and after it is restored.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::error::{Error, Result};

/// Of one database, in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// By name with schema.
    pub tables: BTreeMap<String, Contents>,
    /// Columns, constraints, indexes, policies, functions and the like: a line for each.
    pub structure: BTreeSet<String>,
}

/// Of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    pub rows: u64,
    /// The sum of the 64-bit hashes of all rows as text, in decimal: the same for the same rows in whatever order. Generated
    /// columns are left out.
    pub hash: String,
}

/// Differences that are told; whoever has more has lost more than a table.
const MOST_DIFFERENCES: usize = 50;

/// Text of values and definitions must not depend on who asks.
const SETTINGS: &str = "SET search_path = pg_catalog; SET timezone = 'UTC'; SET datestyle = 'ISO, YMD';
    SET intervalstyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 1; SET row_security = off";

/// Tables with what their rows are hashed of. Those of extensions are the extensions' own.
const TABLES: &str = "
    SELECT format('%I.%I', n.nspname, c.relname),
           coalesce((SELECT string_agg(format('t.%I', a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
                     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''), '')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY pg_relation_size(c.oid) DESC";

/// Everything else that a restored database must have.
const STRUCTURE: &str = "
    WITH own AS (
        SELECT c.oid, c.relkind, format('%I.%I', n.nspname, c.relname) AS name, c.relrowsecurity, c.relforcerowsecurity
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    )
    SELECT format('column %s.%I: %s%s%s%s', own.name, a.attname, format_type(a.atttypid, a.atttypmod),
               CASE WHEN a.attnotnull THEN ' not null' ELSE '' END,
               CASE WHEN a.attgenerated = '' THEN ' default ' ELSE ' generated ' END, coalesce(pg_get_expr(d.adbin, d.adrelid), 'none'))
        FROM own JOIN pg_attribute a ON a.attrelid = own.oid LEFT JOIN pg_attrdef d ON d.adrelid = own.oid AND d.adnum = a.attnum
        WHERE own.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT format('row security of %s: %s', own.name,
               CASE WHEN own.relforcerowsecurity THEN 'forced' WHEN own.relrowsecurity THEN 'enabled' ELSE 'none' END)
        FROM own WHERE own.relkind IN ('r', 'p')
    UNION ALL SELECT format('constraint %I of %s: %s%s', x.conname, own.name, pg_get_constraintdef(x.oid),
               CASE WHEN x.convalidated THEN '' ELSE ' (not valid)' END)
        FROM own JOIN pg_constraint x ON x.conrelid = own.oid
    UNION ALL SELECT format('index %s%s', pg_get_indexdef(i.indexrelid), CASE WHEN i.indisvalid THEN '' ELSE ' (not valid)' END)
        FROM own JOIN pg_index i ON i.indrelid = own.oid WHERE own.relkind IN ('r', 'p', 'm')
    UNION ALL SELECT format('policy %I of %s: %s %s to %s using %s with check %s', p.polname, own.name,
               CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END, p.polcmd,
               (SELECT string_agg(CASE WHEN r = 0 THEN 'public' ELSE pg_get_userbyid(r)::text END, ', ' ORDER BY r) FROM unnest(p.polroles) AS r),
               coalesce(pg_get_expr(p.polqual, p.polrelid), 'nothing'), coalesce(pg_get_expr(p.polwithcheck, p.polrelid), 'the same'))
        FROM own JOIN pg_policy p ON p.polrelid = own.oid
    UNION ALL SELECT 'trigger ' || pg_get_triggerdef(g.oid) FROM own JOIN pg_trigger g ON g.tgrelid = own.oid WHERE NOT g.tgisinternal
    UNION ALL SELECT format('view %s: %s', own.name, pg_get_viewdef(own.oid)) FROM own WHERE own.relkind IN ('v', 'm')
    UNION ALL SELECT format('sequence %s', own.name) FROM own WHERE own.relkind = 'S'
    UNION ALL SELECT format('function %s: %s', f.oid::regprocedure, md5(pg_get_functiondef(f.oid)))
        FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
        WHERE f.prokind IN ('f', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.deptype = 'e')
    UNION ALL SELECT format('extension %I', extname) FROM pg_extension WHERE extname <> 'plpgsql'";

/// Takes the inventory of the database that the client is connected to, in its transaction if it has one open. The role must see
/// all rows: it is an error if a policy hides some.
pub async fn take(client: &Client) -> Result<Inventory> {
    client.batch_execute(SETTINGS).await?;
    let structure = client.query(STRUCTURE, &[]).await?.iter().map(|row| row.get(0)).collect();
    let mut tables = BTreeMap::new();
    for row in client.query(TABLES, &[]).await? {
        let (table, columns): (String, String) = (row.get(0), row.get(1));
        let query =
            format!("SELECT count(*), coalesce(sum(hashtextextended(ROW({columns})::text, 0)), 0)::text FROM ONLY {table} AS t");
        let contents = client.query_one(&query, &[]).await?;
        let rows = u64::try_from(contents.get::<_, i64>(0)).map_err(Error::internal)?;
        tables.insert(table, Contents { rows, hash: contents.get(1) });
    }
    Ok(Inventory { tables, structure })
}

impl Inventory {
    /// What `found`, taken of a restored database, has otherwise: a sentence for each.
    pub fn differences(&self, found: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (table, wanted) in &self.tables {
            match found.tables.get(table) {
                None => differences.push(format!("The table {table} is missing")),
                Some(there) if there.rows != wanted.rows => {
                    differences.push(format!("The table {table} has {} rows instead of {}", there.rows, wanted.rows));
                }
                Some(there) if there.hash != wanted.hash => {
                    differences.push(format!("The {} rows of {table} are not the same", wanted.rows));
                }
                Some(_) => {}
            }
        }
        let unknown = found.tables.keys().filter(|table| !self.tables.contains_key(*table));
        differences.extend(unknown.map(|table| format!("There is a table {table} that was not backed up")));
        differences.extend(self.structure.difference(&found.structure).map(|line| format!("Missing: {line}")));
        differences.extend(found.structure.difference(&self.structure).map(|line| format!("Not backed up: {line}")));
        differences.truncate(MOST_DIFFERENCES);
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named() {
        let contents = |rows, hash: &str| Contents { rows, hash: hash.to_owned() };
        let inventory = |tables: &[(&str, Contents)], structure: &[&str]| Inventory {
            tables: tables.iter().map(|(name, contents)| ((*name).to_owned(), contents.clone())).collect(),
            structure: structure.iter().map(|line| (*line).to_owned()).collect(),
        };
        let wanted =
            inventory(&[("a", contents(2, "1")), ("b", contents(2, "1")), ("c", contents(2, "1"))], &["index i", "policy p"]);
        let found = inventory(&[("a", contents(2, "2")), ("b", contents(1, "1")), ("d", contents(0, "0"))], &["index i"]);
        assert_eq!(
            wanted.differences(&found),
            [
                "The 2 rows of a are not the same",
                "The table b has 1 rows instead of 2",
                "The table c is missing",
                "There is a table d that was not backed up",
                "Missing: policy p",
            ]
        );
        assert_eq!(wanted.differences(&wanted), [""; 0]);
    }
}
