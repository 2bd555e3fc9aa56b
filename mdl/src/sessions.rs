//! Sign-in, and the refresh tokens that descend from it.
//!
//! A session is one sign-in. It carries an access token of some minutes and a refresh token that works once: using it gives
//! the next pair. A refresh token that is used twice was copied, by a thief or from one: the whole session ends, and whoever
//! holds its latest tokens is signed out with it. So does the loser of two refreshes that run at once: clients must
//! refresh one at a time. A session ends for good some days after the sign-in, however often it was refreshed.
//!
//! Sign-in says the same and takes as long for a tenant, a user or a password that is wrong: it always does the same reads and
//! one password check.

mod store;

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use diesel_async::AsyncPgConnection;
use metrics::counter;
use serde_json::json;
use tracing::{info, warn};
use uuid::Uuid;

use crate::actor::{Actor, Role, Subject};
use crate::app::App;
use crate::db::Transaction;
use crate::error::{Code, Error, Result};
use crate::ids::{SessionId, TenantId, UserId};
use crate::passwords::{self, Check};
use crate::text::{Problems, text_enum};
use crate::tokens::{Claims, Keys, RefreshTokenText};
use crate::users::User;
use crate::{audit, instruments, tenants, users};

pub(crate) use store::end_all;
pub use store::roles_of;

/// Deletes the sessions of all tenants that ended more than thirty days ago, with their refresh tokens. Answers how many.
pub async fn prune(app: &App) -> Result<u64> {
    let mut deleted = 0;
    for tenant in tenants::all_ids(app).await? {
        let tx = app.db.begin(tenant).await?;
        deleted += store::delete_ended(&tx, tenant).await? as u64;
        tx.commit().await?;
    }
    Ok(deleted)
}

const EXPIRED: &str = "The session has expired; sign in again";
const ENDED: Error = Error::Unauthenticated("The session has ended; sign in again");
const REFRESH_REFUSED: Error = Error::Unauthenticated("The refresh token is not valid, or no longer; sign in again");

/// What somebody types to sign in.
pub struct SignIn {
    /// Slug of the tenant; without one it is the default tenant of the settings.
    pub tenant: Option<String>,
    pub email: String,
    pub password: String,
    /// What the client calls itself, for the list of sessions.
    pub user_agent: Option<String>,
}

/// The credentials of a session. The tokens' texts are secrets.
pub struct Tokens {
    pub access_token: String,
    pub access_expires_at: DateTime<Utc>,
    /// Works once, for the next pair.
    pub refresh_token: RefreshTokenText,
    pub session: SessionId,
    /// The session ends then, however often it is refreshed.
    pub session_expires_at: DateTime<Utc>,
}

impl Tokens {
    fn new(keys: &Keys, user: UserId, session: SessionId, ends: DateTime<Utc>, refresh_token: RefreshTokenText) -> Result<Self> {
        let access = keys.issue(refresh_token.tenant, user, session, ends)?;
        Ok(Self {
            access_token: access.text,
            access_expires_at: access.expires_at,
            refresh_token,
            session,
            session_expires_at: ends,
        })
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Somebody who has just proved who they are.
#[derive(Debug)]
pub struct SignedIn {
    pub tenant: TenantId,
    pub user: User,
    pub role: Role,
    pub tokens: Tokens,
}

/// Why a session ended before its time, as the audit log and `sessions.revoked_reason` call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    SignedOut,
    /// Its user, or an admin, ended all sessions of the user.
    Revoked,
    RefreshTokenReused,
    PasswordChanged,
    PasswordReset,
    Suspended,
    Removed,
}

text_enum!(EndReason {
    SignedOut = "signed_out",
    Revoked = "revoked",
    RefreshTokenReused = "refresh_token_reused",
    PasswordChanged = "password_changed",
    PasswordReset = "password_reset",
    Suspended = "suspended",
    Removed = "removed",
});

impl EndReason {
    /// As those are told who still use the session.
    fn told(self) -> &'static str {
        match self {
            Self::SignedOut => "You signed out",
            Self::Revoked => "All your sessions were ended; sign in again",
            Self::RefreshTokenReused => "A refresh token of this session was used twice; sign in again",
            Self::PasswordChanged => "Your password was changed; sign in again",
            Self::PasswordReset => "Your password was reset; sign in again",
            Self::Suspended => "You are suspended",
            Self::Removed => "You are no longer a member",
        }
    }
}

/// Why these sessions have ended, as those are told who still use them. One that was not ended is past its time.
pub async fn why_ended(
    conn: &AsyncPgConnection,
    tenant: TenantId,
    sessions: &[SessionId],
) -> Result<Vec<(SessionId, &'static str)>> {
    let reasons = store::end_reasons(conn, tenant, sessions).await?;
    let told = |reason: Option<String>| reason.and_then(|reason| EndReason::parse(&reason)).map_or(EXPIRED, EndReason::told);
    Ok(reasons.into_iter().map(|(session, reason)| (session, told(reason))).collect())
}

/// Starts a session. `WRONG_CREDENTIALS`, without a field, whatever of tenant, address and password is wrong, and for
/// members who are suspended.
pub async fn sign_in(app: &App, keys: &Keys, input: SignIn) -> Result<SignedIn> {
    let result = start(app, keys, input).await;
    match &result {
        Ok(_) => counter!(instruments::SIGN_INS, "outcome" => "ok").increment(1),
        Err(Error::Invalid(_)) => counter!(instruments::SIGN_INS, "outcome" => "refused").increment(1),
        Err(_) => {}
    }
    result
}

async fn start(app: &App, keys: &Keys, input: SignIn) -> Result<SignedIn> {
    let wrong = || Error::invalid("", Code::WrongCredentials, "Wrong tenant, e-mail address or password");
    let slug = input.tenant.as_deref().map(str::trim).filter(|slug| !slug.is_empty());
    let tenant = tenants::by_slug(app, slug.unwrap_or(&app.config.auth.default_tenant)).await?;
    // The nil tenant has no users: looking there takes as long.
    let tenant = tenant.map_or(TenantId(Uuid::nil()), |tenant| tenant.id);
    // PostgreSQL cannot be asked for text with NUL; nobody has the empty address.
    let email = Some(users::normalise_email(&input.email)).filter(|email| !email.contains('\0')).unwrap_or_default();
    let tx = app.db.begin(tenant).await?;
    let found = users::for_sign_in(&tx, tenant, &email).await?;
    tx.commit().await?;

    let check = app.passwords.check(&input.password, found.as_ref().map(|(.., hash)| hash.as_str())).await?;
    let Some((user, role, hash)) = found else { return Err(wrong()) };
    let rehashed = match check {
        Check::Wrong => return Err(wrong()),
        Check::Right => None,
        Check::RightButOutdated => Some(app.passwords.hash(&input.password).await?),
    };

    let tx = app.db.begin(tenant).await?;
    // Locks the user, so that a change of the password is either seen here or sees the session made below.
    let user = users::signed_in(&tx, tenant, user.id, &hash, rehashed.as_deref()).await?.ok_or_else(wrong)?;
    let session = SessionId::new();
    let expires_at = Utc::now() + TimeDelta::days(app.config.auth.session_days);
    let refresh_token = RefreshTokenText::new(tenant);
    store::insert(&tx, tenant, session, user.id, expires_at, input.user_agent.as_deref().map(printable).as_deref()).await?;
    store::insert_token(&tx, session, &refresh_token).await?;
    store::forget_old(&tx, tenant, user.id).await?;
    let actor = signed_in_actor(tenant, user.id, session, role);
    audit::record(&tx, &actor, "session.started", ("session", session.0), &json!({})).await?;
    tx.commit().await?;

    let tokens = Tokens::new(keys, user.id, session, expires_at, refresh_token)?;
    Ok(SignedIn { tenant, user, role, tokens })
}

/// Gives the next pair of tokens for a refresh token, which works no more.
///
/// A token that was used before ends its session. Of two calls with the same token at once one wins; the other counts as a
/// second use.
pub async fn refresh(app: &App, keys: &Keys, token: &RefreshTokenText) -> Result<SignedIn> {
    let tenant = token.tenant;
    let tx = app.db.begin(tenant).await?;
    let found = store::by_token(&tx, tenant, token.id).await?.filter(|found| token.secret.matches(&found.secret_hash));
    let Some(store::Refreshable { session, expires_at, user, role, .. }) = found else { return Err(REFRESH_REFUSED) };
    if !store::use_token(&tx, tenant, token.id).await? {
        warn!(session.id = %session, user.id = %user.id, "Ended a session whose refresh token was used twice");
        store::end(&tx, tenant, session, EndReason::RefreshTokenReused).await?;
        let actor = signed_in_actor(tenant, user.id, session, role);
        record_end(&tx, &actor, session, EndReason::RefreshTokenReused).await?;
        tx.commit().await?;
        return Err(REFRESH_REFUSED);
    }
    let refresh_token = RefreshTokenText::new(tenant);
    store::insert_token(&tx, session, &refresh_token).await?;
    tx.commit().await?;

    let tokens = Tokens::new(keys, user.id, session, expires_at, refresh_token)?;
    Ok(SignedIn { tenant, user, role, tokens })
}

/// Ends the session that a refresh token belongs to. A token that is unknown, or whose session has ended, is no error:
/// its holder is signed out already.
pub async fn sign_out(app: &App, token: &RefreshTokenText) -> Result<()> {
    let tx = app.db.begin(token.tenant).await?;
    let found = store::by_token(&tx, token.tenant, token.id).await?.filter(|found| token.secret.matches(&found.secret_hash));
    if let Some(found) = found {
        let actor = signed_in_actor(token.tenant, found.user.id, found.session, found.role);
        store::end(&tx, token.tenant, found.session, EndReason::SignedOut).await?;
        record_end(&tx, &actor, found.session, EndReason::SignedOut).await?;
    }
    tx.commit().await
}

/// Ends every session of a user: one's own, or with `manage` anybody's. Returns how many there were.
pub async fn revoke_all(app: &App, actor: &Actor, user: UserId) -> Result<usize> {
    users::require_self_or_manage(actor, user)?;
    let tx = app.db.begin(actor.tenant).await?;
    users::by_id(&tx, actor.tenant, user).await?.ok_or_else(|| Error::unknown_id("user"))?;
    let count = store::end_all(&tx, actor.tenant, user, EndReason::Revoked, None).await?;
    if count > 0 {
        let details = json!({ "reason": EndReason::Revoked.as_str(), "sessions": count });
        audit::record(&tx, actor, "user.sessions_revoked", ("user", user.0), &details).await?;
    }
    tx.commit().await?;
    Ok(count)
}

/// Changes one's own password, which takes a session and the current password, and ends one's other sessions.
///
/// Problems: `current_password` (`WRONG_CREDENTIALS`), `new_password`. Whoever calls this limits how often, as for sign-in.
pub async fn change_password(app: &App, actor: &Actor, current: &str, new: &str) -> Result<()> {
    let Subject::User { user, session } = actor.subject else {
        return Err(Error::Unauthenticated("Sign in to change your password; an API key cannot"));
    };
    let wrong = || Error::invalid("current_password", Code::WrongCredentials, "This is not your current password");
    let tx = app.db.begin(actor.tenant).await?;
    let (email, old) = users::password_hash(&tx, actor.tenant, user).await?.ok_or_else(|| Error::unknown_id("user"))?;
    tx.commit().await?;
    let mut problems = Problems::default();
    passwords::check_policy(&mut problems, "new_password", new, &email);
    problems.check()?;
    if app.passwords.check(current, Some(&old)).await? == Check::Wrong {
        return Err(wrong());
    }

    let hash = app.passwords.hash(new).await?;
    let tx = app.db.begin(actor.tenant).await?;
    // The password before the sessions: a sign-in with the old one that runs now is then either refused or ended here.
    if !users::set_password_hash(&tx, actor.tenant, user, Some(&old), &hash).await? {
        return Err(wrong());
    }
    let ended = store::end_all(&tx, actor.tenant, user, EndReason::PasswordChanged, Some(session)).await?;
    audit::record(&tx, actor, "user.password_changed", ("user", user.0), &json!({ "sessions_ended": ended })).await?;
    tx.commit().await?;
    info!(user.id = %user, "Changed a password");
    Ok(())
}

/// Who holds a verified access token, as long as the session lasts and its user is an active member. One statement.
pub async fn actor(app: &App, claims: &Claims) -> Result<Actor> {
    let snapshot = app.db.snapshot(claims.tid);
    let role = snapshot.read(async |conn| store::role_of(conn, claims.tid, claims.sid, claims.sub).await).await?;
    snapshot.finish().await;
    Ok(signed_in_actor(claims.tid, claims.sub, claims.sid, role.ok_or(ENDED)?))
}

fn signed_in_actor(tenant: TenantId, user: UserId, session: SessionId, role: Role) -> Actor {
    Actor { tenant, subject: Subject::User { user, session }, permissions: role.permissions(), request_id: None, once: None }
}

async fn record_end(tx: &Transaction, actor: &Actor, session: SessionId, reason: EndReason) -> Result<()> {
    audit::record(tx, actor, "session.revoked", ("session", session.0), &json!({ "reason": reason.as_str() })).await
}

/// What a client calls itself, cut to what is worth keeping.
fn printable(user_agent: &str) -> String {
    user_agent.chars().filter(|c| !c.is_control()).take(300).collect()
}
