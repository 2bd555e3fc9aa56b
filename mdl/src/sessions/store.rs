//! Sessions and refresh tokens in PostgreSQL.

use chrono::{DateTime, Utc};
use diesel::dsl::{now, sql};
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::EndReason;
use crate::actor::Role;
use crate::db::Prepare;
use crate::error::Result;
use crate::ids::{SessionId, TenantId, UserId};
use crate::schema::{memberships, refresh_tokens, sessions, users};
use crate::tokens::RefreshTokenText;
use crate::users::User;

/// A refresh token whose session lasts and whose user is an active member.
#[derive(Queryable)]
pub struct Refreshable {
    pub secret_hash: Vec<u8>,
    pub session: SessionId,
    pub expires_at: DateTime<Utc>,
    pub user: User,
    pub role: Role,
}

pub async fn insert(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    id: SessionId,
    user: UserId,
    expires_at: DateTime<Utc>,
    user_agent: Option<&str>,
) -> Result<()> {
    diesel::insert_into(sessions::table)
        .values((
            sessions::tenant_id.eq(tenant),
            sessions::id.eq(id),
            sessions::user_id.eq(user),
            sessions::expires_at.eq(expires_at),
            sessions::user_agent.eq(user_agent),
        ))
        .execute(&mut conn)
        .await?;
    Ok(())
}

pub async fn insert_token(mut conn: &AsyncPgConnection, session: SessionId, token: &RefreshTokenText) -> Result<()> {
    diesel::insert_into(refresh_tokens::table)
        .values((
            refresh_tokens::tenant_id.eq(token.tenant),
            refresh_tokens::id.eq(token.id),
            refresh_tokens::session_id.eq(session),
            refresh_tokens::secret_hash.eq(&token.secret.hash()[..]),
        ))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// A refresh token, used or not, as long as its session lasts and its user is an active member.
pub async fn by_token(mut conn: &AsyncPgConnection, tenant: TenantId, token: Uuid) -> Result<Option<Refreshable>> {
    let query = refresh_tokens::table
        .inner_join(
            sessions::table
                .on(sessions::tenant_id.eq(refresh_tokens::tenant_id).and(sessions::id.eq(refresh_tokens::session_id))),
        )
        .inner_join(users::table.on(users::tenant_id.eq(sessions::tenant_id).and(users::id.eq(sessions::user_id))))
        .inner_join(
            memberships::table.on(memberships::tenant_id.eq(sessions::tenant_id).and(memberships::user_id.eq(sessions::user_id))),
        )
        .filter(refresh_tokens::tenant_id.eq(tenant))
        .filter(refresh_tokens::id.eq(token))
        .filter(sessions::revoked_at.is_null())
        .filter(sessions::expires_at.gt(now))
        .filter(memberships::suspended_at.is_null())
        .select((refresh_tokens::secret_hash, sessions::id, sessions::expires_at, User::as_select(), memberships::role));
    Ok(query.first(&mut conn).await.optional()?)
}

/// Uses a refresh token up. `false` when it was used before; of two at once, one gets `true`.
pub async fn use_token(mut conn: &AsyncPgConnection, tenant: TenantId, token: Uuid) -> Result<bool> {
    let unused = refresh_tokens::table.find((tenant, token)).filter(refresh_tokens::used_at.is_null());
    Ok(diesel::update(unused).set(refresh_tokens::used_at.eq(now)).prepared().execute(&mut conn).await? == 1)
}

pub async fn end(mut conn: &AsyncPgConnection, tenant: TenantId, session: SessionId, reason: EndReason) -> Result<()> {
    diesel::update(sessions::table.find((tenant, session)).filter(sessions::revoked_at.is_null()))
        .set((sessions::revoked_at.eq(now), sessions::revoked_reason.eq(reason.as_str())))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// Ends the sessions of a user that last, except perhaps one. Returns how many.
pub async fn end_all(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    user: UserId,
    reason: EndReason,
    except: Option<SessionId>,
) -> Result<usize> {
    let mut update = diesel::update(sessions::table)
        .filter(sessions::tenant_id.eq(tenant))
        .filter(sessions::user_id.eq(user))
        .filter(sessions::revoked_at.is_null())
        .filter(sessions::expires_at.gt(now))
        .set((sessions::revoked_at.eq(now), sessions::revoked_reason.eq(reason.as_str())))
        .into_boxed();
    if let Some(except) = except {
        update = update.filter(sessions::id.ne(except));
    }
    Ok(update.execute(&mut conn).await?)
}

/// Deletes the user's sessions that ended long ago, with their refresh tokens. Done at sign-in, so that nothing piles up.
pub async fn forget_old(mut conn: &AsyncPgConnection, tenant: TenantId, user: UserId) -> Result<()> {
    diesel::delete(sessions::table)
        .filter(sessions::tenant_id.eq(tenant))
        .filter(sessions::user_id.eq(user))
        .filter(sql::<Bool>("sessions.expires_at < now() - interval '30 days'"))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// Deletes the sessions of everybody that ended long ago, with their refresh tokens.
pub async fn delete_ended(mut conn: &AsyncPgConnection, tenant: TenantId) -> Result<usize> {
    Ok(diesel::delete(sessions::table)
        .filter(sessions::tenant_id.eq(tenant))
        .filter(sql::<Bool>("least(expires_at, revoked_at) < now() - interval '30 days'"))
        .execute(&mut conn)
        .await?)
}

/// The role of a session's user now, if the session lasts and they are an active member.
pub async fn role_of(mut conn: &AsyncPgConnection, tenant: TenantId, session: SessionId, user: UserId) -> Result<Option<Role>> {
    let query = sessions::table
        .inner_join(
            memberships::table.on(memberships::tenant_id.eq(sessions::tenant_id).and(memberships::user_id.eq(sessions::user_id))),
        )
        .filter(sessions::tenant_id.eq(tenant))
        .filter(sessions::id.eq(session))
        .filter(sessions::user_id.eq(user))
        .filter(sessions::revoked_at.is_null())
        .filter(sessions::expires_at.gt(now))
        .filter(memberships::suspended_at.is_null())
        .select(memberships::role);
    Ok(query.first(&mut conn).await.optional()?)
}

/// The role of each of these sessions' users now, of those that [`role_of`] would find one for.
pub async fn roles_of(mut conn: &AsyncPgConnection, tenant: TenantId, sessions: &[SessionId]) -> Result<Vec<(SessionId, Role)>> {
    let query = sessions::table
        .inner_join(
            memberships::table.on(memberships::tenant_id.eq(sessions::tenant_id).and(memberships::user_id.eq(sessions::user_id))),
        )
        .filter(sessions::tenant_id.eq(tenant))
        .filter(sessions::id.eq_any(sessions))
        .filter(sessions::revoked_at.is_null())
        .filter(sessions::expires_at.gt(now))
        .filter(memberships::suspended_at.is_null())
        .select((sessions::id, memberships::role));
    Ok(query.load(&mut conn).await?)
}

/// Why each of these sessions was ended; `None` of those that were not.
pub async fn end_reasons(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    sessions: &[SessionId],
) -> Result<Vec<(SessionId, Option<String>)>> {
    let query = sessions::table
        .filter(sessions::tenant_id.eq(tenant))
        .filter(sessions::id.eq_any(sessions))
        .select((sessions::id, sessions::revoked_reason));
    Ok(query.load(&mut conn).await?)
}
