//! Companies that share this deployment and nothing else.
//!
//! Nobody can list them: row-level security shows a tenant to those who act in it, and to those who know its slug.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::json;
use uuid::Uuid;

use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::audit;
use crate::error::{Code, Error, Problem, Result};
use crate::ids::TenantId;
use crate::schema::tenants;
use crate::text::Problems;

#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = tenants)]
pub struct Tenant {
    pub id: TenantId,
    /// Its name in addresses and at sign-in: lower-case letters, digits and hyphens.
    pub slug: String,
    pub name: String,
    pub created_at: DateTime<Utc>,
}

/// The tenant of what belongs to no company: the jobs that look after the deployment, its schedules, its workers. Who is a
/// member of it operates the deployment. Its slug is `mdl-system`; a migration makes it.
pub const SYSTEM: TenantId = TenantId(Uuid::from_u128(1));

/// Fails unless this actor may, in [`SYSTEM`].
pub fn require_system(actor: &Actor, permission: Permission) -> Result<()> {
    actor.require(permission)?;
    if actor.tenant == SYSTEM { Ok(()) } else { Err(Error::Forbidden("operate, of a member of the tenant mdl-system")) }
}

/// Makes a tenant, for the operator at the command line. Its first admin is made by `users::create` with
/// [`Actor::system`].
pub async fn create(app: &App, slug: &str, name: &str) -> Result<Tenant> {
    let (slug, name) = (slug.trim(), name.trim());
    let mut problems = Problems::default();
    if !is_slug(slug) {
        problems.add(
            "slug",
            Code::Invalid,
            "Must be 1 to 63 lower-case letters, digits and hyphens, and neither start nor end with a hyphen",
        );
    }
    problems.line("name", name, 200);
    problems.check()?;

    let id = TenantId::new();
    let actor = Actor::system(id);
    let tx = app.db.begin(id).await?;
    let mut conn: &AsyncPgConnection = &tx;
    let tenant = diesel::insert_into(tenants::table)
        .values((tenants::id.eq(id), tenants::slug.eq(slug), tenants::name.eq(name)))
        .returning(Tenant::as_returning())
        .get_result(&mut conn)
        .await
        .map_err(|e| {
            Error::from(e).on_constraint("tenants_slug_key", || Problem::new("slug", Code::Taken, "This slug is taken"))
        })?;
    audit::record(&tx, &actor, "tenant.created", ("tenant", id.0), &json!({ "slug": slug, "name": name })).await?;
    tx.commit().await?;
    Ok(tenant)
}

/// The tenant with this slug, for those who are not signed in yet.
pub async fn by_slug(app: &App, slug: &str) -> Result<Option<Tenant>> {
    if !is_slug(slug) {
        return Ok(None);
    }
    let tx = app.db.begin_by_slug(slug).await?;
    let mut conn: &AsyncPgConnection = &tx;
    let tenant = tenants::table.filter(tenants::slug.eq(slug)).select(Tenant::as_select()).first(&mut conn).await.optional()?;
    tx.commit().await?;
    Ok(tenant)
}

/// All tenants but [`SYSTEM`], in the order of their ids. Needs a transaction of [`dispatch`](crate::db::Db::dispatch).
pub async fn all(mut conn: &AsyncPgConnection) -> Result<Vec<Tenant>> {
    let query = tenants::table.filter(tenants::id.ne(SYSTEM)).order(tenants::id).select(Tenant::as_select());
    Ok(query.load(&mut conn).await?)
}

/// The ids of all tenants but [`SYSTEM`], for work that sees to each of them.
pub async fn all_ids(app: &App) -> Result<Vec<TenantId>> {
    let tx = app.db.dispatch().await?;
    let tenants = all(&tx).await?;
    tx.commit().await?;
    Ok(tenants.into_iter().map(|tenant| tenant.id).collect())
}

/// The tenant itself, on a connection that acts in it.
pub async fn by_id(mut conn: &AsyncPgConnection, tenant: TenantId) -> Result<Option<Tenant>> {
    Ok(tenants::table.find(tenant).select(Tenant::as_select()).first(&mut conn).await.optional()?)
}

fn is_slug(slug: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=63).contains(&slug.len())
        && slug.bytes().all(|b| inner(b) || b == b'-')
        && !slug.starts_with('-')
        && !slug.ends_with('-')
}

#[cfg(test)]
mod tests {
    #[test]
    fn slugs() {
        for good in ["a", "demo", "a-b", "0", &"x".repeat(63)] {
            assert!(super::is_slug(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "ä", "a b", &"x".repeat(64)] {
            assert!(!super::is_slug(bad), "{bad}");
        }
    }
}
