//! Signing in and out, and who one is.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object, Result, SimpleObject};
use chrono::{DateTime, Utc};
use mdl::actor::Subject;
use mdl::tokens::{Keys, RefreshTokenText};
use mdl::{Error, sessions, tenants, users};

use super::context::ContextExt;
use super::error::{UserError, split, top_level};
use super::guard::{Anybody, SignedIn};
use super::users::{DonePayload, Permission, Role, User, permissions};

/// Who asks.
pub struct Me;

/// Who asks.
#[Object]
impl Me {
    /// The person behind the credential.
    async fn user(&self, ctx: &Context<'_>) -> Result<User> {
        Ok(member(ctx).await?.into())
    }

    /// What their membership lets them do.
    async fn role(&self, ctx: &Context<'_>) -> Result<Role> {
        Ok(member(ctx).await?.role.into())
    }

    /// What this credential may do: all that the role allows, or of that what the API key's scopes say.
    async fn permissions(&self, ctx: &Context<'_>) -> Result<Vec<Permission>> {
        Ok(permissions(ctx.actor().map_err(top_level)?.permissions))
    }

    /// Whether the credential is an API key, and not a sign-in.
    async fn is_api_key(&self, ctx: &Context<'_>) -> Result<bool> {
        Ok(matches!(ctx.actor().map_err(top_level)?.subject, Subject::ApiKey { .. }))
    }

    /// The company whose catalog this is.
    async fn tenant(&self, ctx: &Context<'_>) -> Result<Tenant> {
        let view = ctx.view().map_err(top_level)?;
        let id = view.snapshot.tenant();
        let found = view.snapshot.read(async |conn| tenants::by_id(conn, id).await).await.map_err(top_level)?;
        let tenant = found.ok_or_else(|| top_level(Error::unknown_id("tenant")))?;
        Ok(Tenant { slug: tenant.slug, name: tenant.name })
    }
}

/// A company that shares this deployment with others, and nothing else.
#[derive(SimpleObject)]
pub struct Tenant {
    /// Its name at sign-in.
    slug: String,
    /// Its name for people.
    name: String,
}

async fn member(ctx: &Context<'_>) -> Result<users::Member> {
    let user = ctx.actor().map_err(top_level)?.user().ok_or_else(|| top_level(Error::Unauthenticated("Sign in")))?;
    let view = ctx.view().map_err(top_level)?;
    let tenant = view.snapshot.tenant();
    let found = view.snapshot.read(async |conn| users::member(conn, tenant, user).await).await.map_err(top_level)?;
    // Removed since the credential was checked.
    found.ok_or_else(|| top_level(Error::Unauthenticated("Sign in")))
}

#[derive(Default)]
pub struct SessionQueries;

#[Object]
impl SessionQueries {
    /// Who asks, and what they may.
    #[graphql(guard = "SignedIn")]
    fn me(&self) -> Me {
        Me
    }
}

/// What somebody types to sign in.
#[derive(InputObject)]
pub struct SignInInput {
    /// The tenant's slug; the server's default tenant when it is null.
    tenant: Option<String>,
    /// The user's address.
    email: String,
    /// The user's password.
    #[graphql(secret)]
    password: String,
}

/// A refresh token to use up.
#[derive(InputObject)]
pub struct RefreshSessionInput {
    /// As `signIn` or the last `refreshSession` gave it.
    #[graphql(secret)]
    refresh_token: String,
}

/// The session to end.
#[derive(InputObject)]
pub struct SignOutInput {
    /// Its last refresh token.
    #[graphql(secret)]
    refresh_token: String,
}

/// A new password of one's own.
#[derive(InputObject)]
pub struct ChangePasswordInput {
    /// The password until now.
    #[graphql(secret)]
    current_password: String,
    /// 12 to 200 characters.
    #[graphql(secret)]
    new_password: String,
}

/// The credentials of a sign-in. All three are secrets.
#[derive(SimpleObject)]
pub struct Session {
    /// To be sent as `Authorization: Bearer …` with each request.
    access_token: String,
    /// When the access token ends; refresh before.
    access_token_expires_at: DateTime<Utc>,
    /// Works once, for the next pair. One that is used twice ends the session.
    refresh_token: String,
    /// When the session ends, however often it is refreshed.
    expires_at: DateTime<Utc>,
}

/// A session, or why there is none.
#[derive(SimpleObject)]
pub struct SessionPayload {
    /// The credentials; null when nobody was signed in.
    session: Option<Session>,
    /// Who was signed in.
    user: Option<User>,
    /// What was wrong; empty when it worked. `WRONG_CREDENTIALS` whatever of tenant, address and password is wrong.
    user_errors: Vec<UserError>,
}

impl SessionPayload {
    fn of(result: mdl::Result<sessions::SignedIn>) -> Result<Self> {
        let (signed_in, user_errors) = split(result)?;
        let Some(sessions::SignedIn { user, role, tokens, .. }) = signed_in else {
            return Ok(Self { session: None, user: None, user_errors });
        };
        let session = Session {
            access_token: tokens.access_token,
            access_token_expires_at: tokens.access_expires_at,
            refresh_token: tokens.refresh_token.reveal(),
            expires_at: tokens.session_expires_at,
        };
        Ok(Self { session: Some(session), user: Some(User::signed_in(user, role)), user_errors })
    }
}

#[derive(Default)]
pub struct SessionMutations;

#[Object]
impl SessionMutations {
    /// Starts a session. Needs no credential.
    #[graphql(guard = "Anybody")]
    async fn sign_in(&self, ctx: &Context<'_>, input: SignInInput) -> Result<SessionPayload> {
        let SignInInput { tenant, email, password } = input;
        let user_agent = ctx.operation().user_agent.clone();
        let input = sessions::SignIn { tenant, email, password, user_agent };
        SessionPayload::of(sessions::sign_in(ctx.app(), keys(ctx), input).await)
    }

    /// Gives the next pair of tokens for a refresh token, which works no more. Needs no credential but that. Refused with the
    /// code `UNAUTHENTICATED` when the session has ended, or the token was used before, which ends it.
    #[graphql(guard = "Anybody")]
    async fn refresh_session(&self, ctx: &Context<'_>, input: RefreshSessionInput) -> Result<SessionPayload> {
        let refused = Error::Unauthenticated("The refresh token is not valid, or no longer; sign in again");
        let token: RefreshTokenText = input.refresh_token.trim().parse().map_err(|_| top_level(refused))?;
        SessionPayload::of(sessions::refresh(ctx.app(), keys(ctx), &token).await)
    }

    /// Ends the session that a refresh token belongs to. Needs no credential but that. A token that is unknown is no error: its
    /// holder is signed out already.
    #[graphql(guard = "Anybody")]
    async fn sign_out(&self, ctx: &Context<'_>, input: SignOutInput) -> Result<DonePayload> {
        match input.refresh_token.trim().parse::<RefreshTokenText>() {
            Ok(token) => DonePayload::of(sessions::sign_out(ctx.app(), &token).await),
            Err(_) => Ok(DonePayload { user_errors: Vec::new() }),
        }
    }

    /// Changes one's own password, and ends one's other sessions. An API key cannot.
    #[graphql(guard = "SignedIn")]
    async fn change_password(&self, ctx: &Context<'_>, input: ChangePasswordInput) -> Result<DonePayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let changed = sessions::change_password(ctx.app(), actor, &input.current_password, &input.new_password);
        DonePayload::of(changed.await)
    }
}

fn keys<'a>(ctx: &Context<'a>) -> &'a Keys {
    ctx.data_unchecked::<Arc<Keys>>()
}
