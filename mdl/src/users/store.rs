//! Users and memberships in PostgreSQL.

use diesel::dsl::{exists, not, now};
use diesel::prelude::*;
use diesel::query_dsl::methods;
use diesel::upsert::excluded;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{Member, User};
use crate::actor::Role;
use crate::error::{Error, Result};
use crate::ids::{TenantId, UserId};
use crate::page::{ByText, Page, PageArgs};
use crate::schema::{memberships, users};

/// Users with their membership.
#[diesel::dsl::auto_type]
fn of_members() -> _ {
    memberships::table
        .inner_join(users::table.on(users::tenant_id.eq(memberships::tenant_id).and(users::id.eq(memberships::user_id))))
}

/// A user, whether or not they are still a member.
pub async fn by_id(mut conn: &AsyncPgConnection, tenant: TenantId, id: UserId) -> Result<Option<User>> {
    let query = users::table.find((tenant, id)).select(User::as_select());
    Ok(query.first(&mut conn).await.optional()?)
}

/// Those of these users who exist, in no particular order, whether or not they are still members.
pub async fn by_ids(mut conn: &AsyncPgConnection, tenant: TenantId, ids: &[UserId]) -> Result<Vec<User>> {
    let query = users::table.filter(users::tenant_id.eq(tenant)).filter(users::id.eq_any(ids)).select(User::as_select());
    Ok(query.load(&mut conn).await?)
}

/// A member, suspended or not.
pub async fn member(mut conn: &AsyncPgConnection, tenant: TenantId, user: UserId) -> Result<Option<Member>> {
    let query =
        of_members().filter(memberships::tenant_id.eq(tenant)).filter(memberships::user_id.eq(user)).select(Member::as_select());
    Ok(query.first(&mut conn).await.optional()?)
}

/// Those of these users who are members, in no particular order.
pub async fn members(mut conn: &AsyncPgConnection, tenant: TenantId, ids: &[UserId]) -> Result<Vec<Member>> {
    let query = of_members()
        .filter(memberships::tenant_id.eq(tenant))
        .filter(memberships::user_id.eq_any(ids))
        .select(Member::as_select());
    Ok(query.load(&mut conn).await?)
}

/// The members, by e-mail address. Whoever asks needs `manage`.
pub async fn page(mut conn: &AsyncPgConnection, tenant: TenantId, args: &PageArgs<ByText>) -> Result<Page<Member>> {
    let mut query = of_members().filter(users::tenant_id.eq(tenant)).select(Member::as_select()).limit(args.fetch()).into_boxed();
    if let Some(ByText(email)) = &args.after {
        query = query.filter(users::email.gt(email));
    }
    if let Some(ByText(email)) = &args.before {
        query = query.filter(users::email.lt(email));
    }
    query = if args.backward { query.order(users::email.desc()) } else { query.order(users::email.asc()) };
    Ok(Page::from_rows(query.load(&mut conn).await?, args))
}

/// How many members there are, the suspended ones included.
pub async fn count(mut conn: &AsyncPgConnection, tenant: TenantId) -> Result<i64> {
    Ok(memberships::table.filter(memberships::tenant_id.eq(tenant)).count().get_result(&mut conn).await?)
}

/// Adds a user and their membership; a user without a membership is taken back. `None` when the address is a member's.
pub async fn insert(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    email: &str,
    name: &str,
    password_hash: &str,
    role: Role,
) -> Result<Option<UserId>> {
    let membership = memberships::table
        .filter(memberships::tenant_id.eq(users::tenant_id))
        .filter(memberships::user_id.eq(users::id))
        .select(memberships::user_id);
    let insert = diesel::insert_into(users::table)
        .values((
            users::tenant_id.eq(tenant),
            users::id.eq(UserId::new()),
            users::email.eq(email),
            users::name.eq(name),
            users::password_hash.eq(password_hash),
        ))
        .on_conflict((users::tenant_id, users::email))
        .do_update()
        .set((
            users::name.eq(excluded(users::name)),
            users::password_hash.eq(excluded(users::password_hash)),
            users::updated_at.eq(now),
        ));
    let user: Option<UserId> = methods::FilterDsl::filter(insert, not(exists(membership)))
        .returning(users::id)
        .get_result(&mut conn)
        .await
        .optional()?;
    let Some(user) = user else { return Ok(None) };
    let values = (memberships::tenant_id.eq(tenant), memberships::user_id.eq(user), memberships::role.eq(role));
    // Nothing inserted: somebody else took the same former member back meanwhile.
    let inserted = diesel::insert_into(memberships::table).values(values).on_conflict_do_nothing().execute(&mut conn).await?;
    Ok((inserted == 1).then_some(user))
}

pub async fn set_name(mut conn: &AsyncPgConnection, tenant: TenantId, id: UserId, name: &str) -> Result<User> {
    diesel::update(users::table.find((tenant, id)))
        .set((users::name.eq(name), users::updated_at.eq(now)))
        .returning(User::as_returning())
        .get_result(&mut conn)
        .await
        .map_err(Error::from)
}

/// The active member with this address, and their password hash.
pub async fn for_sign_in(mut conn: &AsyncPgConnection, tenant: TenantId, email: &str) -> Result<Option<(User, Role, String)>> {
    let query = of_members()
        .filter(users::tenant_id.eq(tenant))
        .filter(users::email.eq(email))
        .filter(memberships::suspended_at.is_null())
        .select((User::as_select(), memberships::role, users::password_hash));
    Ok(query.first(&mut conn).await.optional()?)
}

/// A user's address and password hash.
pub async fn password_hash(mut conn: &AsyncPgConnection, tenant: TenantId, id: UserId) -> Result<Option<(String, String)>> {
    let query = users::table.find((tenant, id)).select((users::email, users::password_hash));
    Ok(query.first(&mut conn).await.optional()?)
}

/// Stores a password hash; with `old`, only in its place. Whether it was stored.
pub async fn set_password_hash(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    id: UserId,
    old: Option<&str>,
    new: &str,
) -> Result<bool> {
    let mut update = diesel::update(users::table.find((tenant, id)))
        .set((users::password_hash.eq(new), users::updated_at.eq(now)))
        .into_boxed();
    if let Some(old) = old {
        update = update.filter(users::password_hash.eq(old));
    }
    Ok(update.execute(&mut conn).await? == 1)
}

/// Notes a sign-in with the password of this hash, and stores `rehashed` in its place. `None` when it is no longer the
/// password; locks the user until the end of the transaction.
pub async fn signed_in(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    id: UserId,
    hash: &str,
    rehashed: Option<&str>,
) -> Result<Option<User>> {
    let user = diesel::update(users::table.find((tenant, id)).filter(users::password_hash.eq(hash)))
        .set((users::last_signed_in_at.eq(now), users::password_hash.eq(rehashed.unwrap_or(hash))))
        .returning(User::as_returning())
        .get_result(&mut conn)
        .await
        .optional()?;
    Ok(user)
}

/// The active admins, locked in the order of their ids until the end of the transaction: of two transactions that each
/// take one of them away, the second sees what the first left.
pub async fn lock_active_admins(mut conn: &AsyncPgConnection, tenant: TenantId) -> Result<Vec<UserId>> {
    let query = memberships::table
        .filter(memberships::tenant_id.eq(tenant))
        .filter(memberships::role.eq(Role::Admin))
        .filter(memberships::suspended_at.is_null())
        .order(memberships::user_id)
        .select(memberships::user_id)
        .for_update();
    Ok(query.load(&mut conn).await?)
}

pub async fn set_role(mut conn: &AsyncPgConnection, tenant: TenantId, user: UserId, role: Role) -> Result<()> {
    diesel::update(memberships::table.find((tenant, user)))
        .set((memberships::role.eq(role), memberships::updated_at.eq(now)))
        .execute(&mut conn)
        .await?;
    Ok(())
}

pub async fn set_suspended(mut conn: &AsyncPgConnection, tenant: TenantId, user: UserId, suspended: bool) -> Result<()> {
    let membership = diesel::update(memberships::table.find((tenant, user)));
    if suspended {
        membership.set((memberships::suspended_at.eq(now), memberships::updated_at.eq(now))).execute(&mut conn).await?;
    } else {
        let never = None::<chrono::DateTime<chrono::Utc>>;
        membership.set((memberships::suspended_at.eq(never), memberships::updated_at.eq(now))).execute(&mut conn).await?;
    }
    Ok(())
}

pub async fn delete_membership(mut conn: &AsyncPgConnection, tenant: TenantId, user: UserId) -> Result<()> {
    diesel::delete(memberships::table.find((tenant, user))).execute(&mut conn).await?;
    Ok(())
}
