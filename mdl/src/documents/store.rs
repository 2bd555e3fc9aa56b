//! The rows of published documents.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use data_encoding::HEXLOWER_PERMISSIVE;
use diesel::dsl::now;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{ALL_TENANTS, ById, Caching, Document, NewDocument, sha256};
use crate::actor::Actor;
use crate::error::Result;
use crate::ids::{DocumentId, TenantId, UserId};
use crate::page::{Page, PageArgs};
use crate::schema::documents;

/// Rows of one INSERT: PostgreSQL takes 65,535 values.
const INSERT_ROWS: usize = 1_000;

#[derive(Insertable)]
#[diesel(table_name = documents)]
struct Row<'a> {
    tenant_id: TenantId,
    id: DocumentId,
    document_id: &'a str,
    sha256: Vec<u8>,
    name: &'a str,
    version: i32,
    text: &'a str,
    published_by: Option<UserId>,
}

/// What clients may run under this name: a document of the tenant, or else of all tenants, by its id, or else by the SHA-256
/// of its text (in hex, after `sha256:` or not).
pub async fn runnable(mut conn: &AsyncPgConnection, tenant: TenantId, key: &str) -> Result<Option<Document>> {
    let hash = HEXLOWER_PERMISSIVE.decode(key.strip_prefix("sha256:").unwrap_or(key).as_bytes()).unwrap_or_default();
    let query = documents::table
        .filter(documents::tenant_id.eq_any([tenant, ALL_TENANTS]))
        .filter(documents::withdrawn_at.is_null())
        .filter(documents::document_id.eq(key).or(documents::sha256.eq(&hash)))
        .order((documents::tenant_id.eq(tenant).desc(), documents::document_id.eq(key).desc(), documents::id.asc()))
        .select(Document::as_select());
    Ok(query.first(&mut conn).await.optional()?)
}

/// One of the tenant's own.
pub async fn by_id(mut conn: &AsyncPgConnection, tenant: TenantId, id: DocumentId) -> Result<Option<Document>> {
    Ok(documents::table.find((tenant, id)).select(Document::as_select()).first(&mut conn).await.optional()?)
}

/// Those of the tenant's own that have these ids, withdrawn or not, in no particular order.
pub async fn by_document_ids(mut conn: &AsyncPgConnection, tenant: TenantId, ids: &[&str]) -> Result<Vec<Document>> {
    let query = documents::table
        .filter(documents::tenant_id.eq(tenant))
        .filter(documents::document_id.eq_any(ids))
        .select(Document::as_select());
    Ok(query.load(&mut conn).await?)
}

/// What the tenant may run or has withdrawn, newest first, with the documents of all tenants.
pub async fn page(mut conn: &AsyncPgConnection, tenant: TenantId, args: &PageArgs<ById>) -> Result<Page<Document>> {
    let mut query = documents::table
        .filter(documents::tenant_id.eq_any([tenant, ALL_TENANTS]))
        .select(Document::as_select())
        .limit(args.fetch())
        .into_boxed();
    if let Some(ById(id)) = args.after {
        query = query.filter(documents::id.lt(id));
    }
    if let Some(ById(id)) = args.before {
        query = query.filter(documents::id.gt(id));
    }
    query = if args.backward { query.order(documents::id.asc()) } else { query.order(documents::id.desc()) };
    Ok(Page::from_rows(query.load(&mut conn).await?, args))
}

/// How many documents [`page`] lists.
pub async fn count(mut conn: &AsyncPgConnection, tenant: TenantId) -> Result<i64> {
    let query = documents::table.filter(documents::tenant_id.eq_any([tenant, ALL_TENANTS]));
    Ok(query.count().get_result(&mut conn).await?)
}

/// Every document that this connection sees and that is not withdrawn, by name and version. For the command line.
pub async fn all_runnable(mut conn: &AsyncPgConnection) -> Result<Vec<Document>> {
    let query = documents::table
        .filter(documents::withdrawn_at.is_null())
        .order((documents::tenant_id, documents::name, documents::version, documents::id))
        .select(Document::as_select());
    Ok(query.load(&mut conn).await?)
}

/// Writes new rows, each with the next version of its name, or that of the same text.
pub(super) async fn insert(mut conn: &AsyncPgConnection, actor: &Actor, new: &[&NewDocument]) -> Result<()> {
    let names: Vec<&str> = new.iter().map(|document| document.name.as_str()).collect();
    let known: Vec<(String, Vec<u8>, i32)> = documents::table
        .filter(documents::tenant_id.eq(actor.tenant))
        .filter(documents::name.eq_any(&names))
        .select((documents::name, documents::sha256, documents::version))
        .load(&mut conn)
        .await?;
    let mut versions: HashMap<&str, HashMap<Vec<u8>, i32>> = HashMap::new();
    for (name, hash, version) in &known {
        versions.entry(name).or_default().insert(hash.clone(), *version);
    }
    let rows: Vec<_> = new
        .iter()
        .map(|document| {
            let hash = sha256(&document.text).to_vec();
            let of_name = versions.entry(&document.name).or_default();
            let next = of_name.values().max().map_or(1, |latest| latest + 1);
            let version = *of_name.entry(hash.clone()).or_insert(next);
            Row {
                tenant_id: actor.tenant,
                id: DocumentId::new(),
                document_id: &document.document_id,
                sha256: hash,
                name: &document.name,
                version,
                text: &document.text,
                published_by: actor.user(),
            }
        })
        .collect();
    for rows in rows.chunks(INSERT_ROWS) {
        diesel::insert_into(documents::table).values(rows).execute(&mut conn).await?;
    }
    Ok(())
}

/// Takes withdrawn documents back into use.
pub(super) async fn publish_again(mut conn: &AsyncPgConnection, actor: &Actor, ids: &[DocumentId]) -> Result<()> {
    diesel::update(documents::table.filter(documents::tenant_id.eq(actor.tenant)).filter(documents::id.eq_any(ids)))
        .set((
            documents::withdrawn_at.eq(None::<DateTime<Utc>>),
            documents::published_at.eq(now),
            documents::published_by.eq(actor.user()),
        ))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// Changes how answers to these are kept. Returns the ids of those for which it was otherwise.
pub(super) async fn set_caching(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    ids: &[&str],
    caching: Caching,
) -> Result<Vec<String>> {
    let others = documents::cache_seconds.is_distinct_from(caching.seconds).or(documents::public.ne(caching.public));
    let these = documents::table.filter(documents::tenant_id.eq(tenant)).filter(documents::document_id.eq_any(ids));
    let update = diesel::update(these.filter(others)).set(caching).returning(documents::document_id);
    Ok(update.get_results(&mut conn).await?)
}

/// `None` when it was withdrawn before.
pub(super) async fn withdraw(mut conn: &AsyncPgConnection, tenant: TenantId, id: DocumentId) -> Result<Option<Document>> {
    let update = diesel::update(documents::table.find((tenant, id)).filter(documents::withdrawn_at.is_null()))
        .set(documents::withdrawn_at.eq(now))
        .returning(Document::as_returning());
    Ok(update.get_result(&mut conn).await.optional()?)
}

/// How often a document was used lately, and when last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    pub document: DocumentId,
    pub count: i64,
    pub last: DateTime<Utc>,
}

/// Adds uses of a tenant's own documents (or, for [`ALL_TENANTS`], of everybody's) in one statement.
pub async fn add_uses(mut conn: &AsyncPgConnection, tenant: TenantId, uses: &[Use]) -> Result<()> {
    let ids: Vec<DocumentId> = uses.iter().map(|used| used.document).collect();
    let counts: Vec<i64> = uses.iter().map(|used| used.count).collect();
    let lasts: Vec<DateTime<Utc>> = uses.iter().map(|used| used.last).collect();
    diesel::sql_query(
        "UPDATE documents SET use_count = use_count + used.count, last_used_at = greatest(last_used_at, used.last)
           FROM unnest($2, $3, $4) AS used (id, count, last)
          WHERE documents.tenant_id = $1 AND documents.id = used.id",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<Array<BigInt>, _>(counts)
    .bind::<Array<Timestamptz>, _>(lasts)
    .execute(&mut conn)
    .await?;
    Ok(())
}
