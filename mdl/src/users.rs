//! People, and what their membership lets them do.
//!
//! A user is a row that stays for good, so that history can name them; a membership is what makes them able to sign in.
//! A tenant always keeps one admin who can: taking the last one away is refused, also when two admins try at the same moment.
//! Nobody decides about a member who may do more than they may themselves. (To end sessions and to revoke API keys lets nobody in: that
//! takes `manage` alone.)

mod store;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::AsyncPgConnection;
use serde_json::{Value, json};

use crate::actor::{Actor, Permission, Permissions, Role, Subject};
use crate::app::App;
use crate::db::Transaction;
use crate::error::{Code, Error, Problem, Result};
use crate::ids::{TenantId, UserId};
use crate::schema::{memberships, users};
use crate::sessions::EndReason;
use crate::text::Problems;
use crate::{api_keys, audit, passwords, sessions};

pub use store::{by_id, by_ids, count, member, members, page};
pub(crate) use store::{for_sign_in, password_hash, set_password_hash, signed_in};

/// A person. The password hash is not part of it, so that it cannot get out by accident.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = users)]
pub struct User {
    pub id: UserId,
    /// In lower case.
    pub email: String,
    pub name: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub last_signed_in_at: Option<DateTime<Utc>>,
}

/// A user who belongs to the tenant now.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = memberships)]
pub struct Member {
    #[diesel(embed)]
    pub user: User,
    pub role: Role,
    /// When they joined.
    #[diesel(column_name = created_at)]
    pub since: DateTime<Utc>,
    /// Set while they may neither sign in nor use their API keys.
    pub suspended_at: Option<DateTime<Utc>>,
}

#[derive(Clone)]
pub struct NewUser {
    pub email: String,
    pub name: String,
    pub password: String,
    pub role: Role,
}

/// Adds a person. Somebody who was removed before comes back as the same user, with the new name, password and role.
///
/// Problems: `email`, `name`, `password`, `role` (more than the actor may do); `TAKEN` when the address belongs to a member.
pub async fn create(app: &App, actor: &Actor, new: NewUser) -> Result<Member> {
    actor.require(Permission::Manage)?;
    let (email, name) = (normalise_email(&new.email), new.name.trim());
    let mut problems = Problems::default();
    check_email(&mut problems, &email);
    problems.line("name", name, 200);
    passwords::check_policy(&mut problems, "password", &new.password, &email);
    check_own(&mut problems, "role", actor, new.role.permissions());
    problems.check()?;

    let hash = app.passwords.hash(&new.password).await?;
    let tx = app.db.begin(actor.tenant).await?;
    let user = store::insert(&tx, actor.tenant, &email, name, &hash, new.role)
        .await?
        .ok_or_else(|| Error::invalid("email", Code::Taken, "There is a user with this e-mail address"))?;
    record(&tx, actor, "user.created", user, json!({ "email": email, "name": name, "role": new.role })).await?;
    let member = existing(&tx, actor.tenant, user).await?;
    tx.commit().await?;
    Ok(member)
}

/// Changes a person's name: one's own, or with `manage` anybody's.
pub async fn update(app: &App, actor: &Actor, user: UserId, name: &str) -> Result<User> {
    require_self_or_manage(actor, user)?;
    let name = name.trim();
    let mut problems = Problems::default();
    problems.line("name", name, 200);
    problems.check()?;

    let tx = app.db.begin(actor.tenant).await?;
    let mut member = existing(&tx, actor.tenant, user).await?;
    if member.user.name != name {
        member.user = store::set_name(&tx, actor.tenant, user, name).await?;
        record(&tx, actor, "user.updated", user, json!({ "name": name })).await?;
    }
    tx.commit().await?;
    Ok(member.user)
}

/// Gives a member another role. It counts for their next request.
///
/// Problems: `role` and `id`, when the new or the old role is more than the actor may do.
pub async fn set_role(app: &App, actor: &Actor, user: UserId, role: Role) -> Result<Member> {
    actor.require(Permission::Manage)?;
    let mut problems = Problems::default();
    check_own(&mut problems, "role", actor, role.permissions());
    problems.check()?;
    let tx = app.db.begin(actor.tenant).await?;
    if role != Role::Admin {
        keep_an_admin(&tx, actor.tenant, user).await?;
    }
    let before = manageable(&tx, actor, user).await?;
    if before.role == role {
        tx.commit().await?;
        return Ok(before);
    }
    store::set_role(&tx, actor.tenant, user, role).await?;
    record(&tx, actor, "user.role_changed", user, json!({ "from": before.role, "to": role })).await?;
    tx.commit().await?;
    Ok(Member { role, ..before })
}

/// Keeps a member out until [`resume`]: ends their sessions, and their API keys do not work meanwhile.
pub async fn suspend(app: &App, actor: &Actor, user: UserId) -> Result<Member> {
    actor.require(Permission::Manage)?;
    let tx = app.db.begin(actor.tenant).await?;
    keep_an_admin(&tx, actor.tenant, user).await?;
    let before = manageable(&tx, actor, user).await?;
    if before.suspended_at.is_some() {
        tx.commit().await?;
        return Ok(before);
    }
    store::set_suspended(&tx, actor.tenant, user, true).await?;
    sessions::end_all(&tx, actor.tenant, user, EndReason::Suspended, None).await?;
    record(&tx, actor, "user.suspended", user, json!({})).await?;
    let member = existing(&tx, actor.tenant, user).await?;
    tx.commit().await?;
    Ok(member)
}

/// Lets a suspended member in again. They sign in anew; their API keys work at once.
pub async fn resume(app: &App, actor: &Actor, user: UserId) -> Result<Member> {
    actor.require(Permission::Manage)?;
    let tx = app.db.begin(actor.tenant).await?;
    let before = manageable(&tx, actor, user).await?;
    if before.suspended_at.is_some() {
        store::set_suspended(&tx, actor.tenant, user, false).await?;
        record(&tx, actor, "user.resumed", user, json!({})).await?;
    }
    tx.commit().await?;
    Ok(Member { suspended_at: None, ..before })
}

/// Takes a person's membership away: ends their sessions and revokes their API keys. The user stays, for history to name.
pub async fn remove_membership(app: &App, actor: &Actor, user: UserId) -> Result<User> {
    actor.require(Permission::Manage)?;
    let tx = app.db.begin(actor.tenant).await?;
    keep_an_admin(&tx, actor.tenant, user).await?;
    let member = manageable(&tx, actor, user).await?;
    store::delete_membership(&tx, actor.tenant, user).await?;
    sessions::end_all(&tx, actor.tenant, user, EndReason::Removed, None).await?;
    api_keys::revoke_of(&tx, actor.tenant, user).await?;
    record(&tx, actor, "user.removed", user, json!({ "role": member.role })).await?;
    tx.commit().await?;
    Ok(member.user)
}

/// Sets a member's password for them, and ends all their sessions.
pub async fn reset_password(app: &App, actor: &Actor, user: UserId, password: &str) -> Result<()> {
    actor.require(Permission::Manage)?;
    let tx = app.db.begin(actor.tenant).await?;
    let member = manageable(&tx, actor, user).await?;
    tx.commit().await?;
    let mut problems = Problems::default();
    passwords::check_policy(&mut problems, "password", password, &member.user.email);
    problems.check()?;

    let hash = app.passwords.hash(password).await?;
    let tx = app.db.begin(actor.tenant).await?;
    // Their role may be another one by now.
    manageable(&tx, actor, user).await?;
    // The password before the sessions: a sign-in with the old one that runs now is then either refused or ended here.
    store::set_password_hash(&tx, actor.tenant, user, None, &hash).await?;
    sessions::end_all(&tx, actor.tenant, user, EndReason::PasswordReset, None).await?;
    record(&tx, actor, "user.password_reset", user, json!({})).await?;
    tx.commit().await
}

/// An e-mail address as it is stored and looked up.
///
/// ```
/// assert_eq!(mdl::users::normalise_email(" Ada@Example.COM "), "ada@example.com");
/// ```
pub fn normalise_email(email: &str) -> String {
    email.trim().to_lowercase()
}

/// Fails unless the actor is this person, signed in, or may manage everybody. An API key of theirs is not enough: what it may
/// do is in its scopes.
pub(crate) fn require_self_or_manage(actor: &Actor, user: UserId) -> Result<()> {
    match actor.subject {
        Subject::User { user: own, .. } if own == user => Ok(()),
        _ => actor.require(Permission::Manage),
    }
}

/// Nobody gives or takes over what they may not do themselves: an API key with the scope `manage` alone makes no admins.
pub(crate) fn check_own(problems: &mut Problems, field: &str, actor: &Actor, permissions: Permissions) {
    for permission in permissions.iter().filter(|permission| !actor.permissions.contains(*permission)) {
        problems.add(field, Code::Invalid, format!("You may not do {} yourself", permission.as_str()));
    }
}

fn check_email(problems: &mut Problems, email: &str) {
    problems.line("email", email, 254);
    let whole =
        matches!(email.split_once('@'), Some((name, host)) if !name.is_empty() && !host.is_empty() && !host.contains('@'));
    if !email.is_empty() && (!whole || email.contains(char::is_whitespace)) {
        problems.add("email", Code::Invalid, "Must be an e-mail address");
    }
}

/// Locks the active admins, and fails when this user is the only one.
async fn keep_an_admin(conn: &AsyncPgConnection, tenant: TenantId, user: UserId) -> Result<()> {
    if store::lock_active_admins(conn, tenant).await? == [user] {
        let message = "This is the last active admin; make somebody else an admin first";
        return Err(Error::Invalid(vec![Problem::new("", Code::LastAdmin, message)]));
    }
    Ok(())
}

/// A member about whom the actor may decide: one who may do nothing that the actor may not.
async fn manageable(conn: &AsyncPgConnection, actor: &Actor, user: UserId) -> Result<Member> {
    let member = existing(conn, actor.tenant, user).await?;
    let mut problems = Problems::default();
    check_own(&mut problems, "id", actor, member.role.permissions());
    problems.check()?;
    Ok(member)
}

async fn existing(conn: &AsyncPgConnection, tenant: TenantId, user: UserId) -> Result<Member> {
    store::member(conn, tenant, user).await?.ok_or_else(|| Error::unknown_id("user"))
}

async fn record(tx: &Transaction, actor: &Actor, action: &str, user: UserId, details: Value) -> Result<()> {
    audit::record(tx, actor, action, ("user", user.0), &details).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn email_addresses() {
        let problems = |email: &str| {
            let mut problems = Problems::default();
            check_email(&mut problems, email);
            problems.into_vec().into_iter().map(|p| p.code).collect::<Vec<_>>()
        };
        for good in ["a@b", "ada.lovelace+mdl@example.com", "ä@exämple.org"] {
            assert!(problems(good).is_empty(), "{good}");
        }
        for bad in ["ada", "@example.com", "ada@", "a b@c", "a@b@c", "a@b\u{a0}c"] {
            assert_eq!(problems(bad), [Code::Invalid], "{bad}");
        }
        assert_eq!(problems(""), [Code::Required]);
        assert_eq!(problems(&format!("{}@b", "a".repeat(300))), [Code::TooLong]);
        assert!(problems("a\0@b").contains(&Code::Invalid));
    }
}
