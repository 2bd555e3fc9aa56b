//! Credentials of programs.

use async_graphql::{Context, ID, InputObject, Object, Result, SimpleObject};
use chrono::{DateTime, Utc};
use mdl::actor::{self, Actor, Subject};
use mdl::api_keys::{self, ById, NewApiKey};
use mdl::ids::{ApiKeyId, UserId};
use mdl::page::{Page, PageArgs};
use mdl::{Error, users};

use super::connection::{Connection, connection};
use super::context::ContextExt;
use super::eager::Plain;
use super::error::{UserError, split, top_level};
use super::global_id::{self, Kind};
use super::guard::SignedIn;
use super::limits::page_cost;
use super::users::{Permission, User, permissions, user_id};

/// A credential of a program. It may do what its scopes say, and of that only what its user's role still allows.
pub struct ApiKey(pub api_keys::ApiKey);

impl Plain for ApiKey {}

/// A credential of a program. It may do what its scopes say, and of that only what its user's role still allows.
#[Object]
impl ApiKey {
    /// Opaque, and unique over all types.
    fn id(&self) -> ID {
        global_id::encode(Kind::ApiKey, self.0.id.0)
    }

    /// What it is for.
    fn name(&self) -> &str {
        &self.0.name
    }

    /// The last four characters of the key, to tell keys apart.
    fn hint(&self) -> &str {
        &self.0.hint
    }

    /// What it may do.
    fn scopes(&self) -> Vec<Permission> {
        permissions(self.0.permissions())
    }

    /// Whom it acts for.
    async fn user(&self, ctx: &Context<'_>) -> Result<User> {
        match ctx.reading()?.loaders.people.users.get(self.0.user_id).await? {
            Some(user) => Ok(users::User::clone(&user).into()),
            None => Err(top_level(Error::unknown_id("user"))),
        }
    }

    /// When it was made.
    fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }

    /// When it stops working; null when it works until it is revoked.
    fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.0.expires_at
    }

    /// When it was used last, to the minute; null when it never was.
    fn last_used_at(&self) -> Option<DateTime<Utc>> {
        self.0.last_used_at
    }

    /// When it was revoked; null when it was not.
    fn revoked_at(&self) -> Option<DateTime<Utc>> {
        self.0.revoked_at
    }
}

/// How many keys there are.
pub struct ApiKeyTotal(Option<UserId>);

#[Object]
impl ApiKeyTotal {
    /// How many keys the list has on all its pages. Counted only when it is asked for.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let view = ctx.view().map_err(top_level)?;
        let tenant = view.snapshot.tenant();
        view.snapshot.read(async |conn| api_keys::count(conn, tenant, self.0).await).await.map_err(top_level)
    }
}

#[derive(Default)]
pub struct ApiKeyQueries;

#[Object]
impl ApiKeyQueries {
    /// API keys, newest first, with those that work no more: one's own, or with the permission MANAGE another user's, or
    /// everybody's.
    #[graphql(guard = "SignedIn", complexity = "page_cost(first, last, child_complexity)")]
    #[expect(clippy::too_many_arguments, reason = "a connection has four of its own")]
    async fn api_keys(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Whose; one's own when it is null.")] user_id: Option<ID>,
        #[graphql(desc = "Everybody's.", default = false)] everybody: bool,
        #[graphql(desc = "The first so many entries; 20 when neither first nor last is given, at most 100.")] first: Option<i32>,
        #[graphql(desc = "Only entries after this cursor.")] after: Option<String>,
        #[graphql(desc = "The last so many entries, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Only entries before this cursor.")] before: Option<String>,
    ) -> Result<Connection<ApiKey, ApiKeyTotal>> {
        let whose = whose(ctx.actor().map_err(top_level)?, user_id.as_ref(), everybody).map_err(top_level)?;
        let args: PageArgs<ById> = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        let view = ctx.view().map_err(top_level)?;
        let tenant = view.snapshot.tenant();
        let page = view.snapshot.read(async |conn| api_keys::page(conn, tenant, whose, &args).await).await.map_err(top_level)?;
        let items = page.items.into_iter().map(|key| (ById(key.id), key)).map(|(at, key)| (key, at)).collect();
        let page = Page { items, has_previous: page.has_previous, has_next: page.has_next };
        Ok(connection(ctx, page, ApiKeyTotal(whose), ApiKey))
    }
}

/// Whose keys the actor may list; `None` is everybody's. An API key does not list its user's other keys by itself.
fn whose(actor: &Actor, wanted: Option<&ID>, everybody: bool) -> mdl::Result<Option<UserId>> {
    if everybody {
        actor.require(actor::Permission::Manage)?;
        return Ok(None);
    }
    let user = match wanted {
        Some(id) => user_id("userId", id)?,
        None => actor.user().ok_or(Error::Unauthenticated("Sign in"))?,
    };
    match actor.subject {
        Subject::User { user: own, .. } if own == user => {}
        _ => actor.require(actor::Permission::Manage)?,
    }
    Ok(Some(user))
}

/// A key to make.
#[derive(InputObject)]
pub struct CreateApiKeyInput {
    /// What it is for.
    name: String,
    /// What it may do: at least one, and nothing that one may not do oneself.
    scopes: Vec<Permission>,
    /// When it stops working; never when it is null.
    expires_at: Option<DateTime<Utc>>,
}

/// Names a key.
#[derive(InputObject)]
pub struct RevokeApiKeyInput {
    /// The key's `id`, which is not the key itself.
    id: ID,
}

/// Names whose keys.
#[derive(InputObject)]
pub struct RevokeAllApiKeysInput {
    /// Whose; one's own when it is null.
    user_id: Option<ID>,
}

/// A new key, or what was wrong with the input.
#[derive(SimpleObject)]
pub struct CreateApiKeyPayload {
    /// The key's row; null when none was made.
    api_key: Option<ApiKey>,
    /// The key itself. It is shown here and never again.
    key: Option<String>,
    /// What was wrong; empty when it worked.
    user_errors: Vec<UserError>,
}

/// A key that works no more, or why it was not revoked.
#[derive(SimpleObject)]
pub struct RevokeApiKeyPayload {
    /// The key as it is now.
    api_key: Option<ApiKey>,
    /// What was wrong; empty when it worked.
    user_errors: Vec<UserError>,
}

/// How many keys work no more.
#[derive(SimpleObject)]
pub struct RevokeAllApiKeysPayload {
    /// How many keys worked until now; null when none was looked at.
    revoked_count: Option<usize>,
    /// What was wrong; empty when it worked.
    user_errors: Vec<UserError>,
}

#[derive(Default)]
pub struct ApiKeyMutations;

#[Object]
impl ApiKeyMutations {
    /// Makes a key of one's own.
    #[graphql(guard = "SignedIn")]
    async fn create_api_key(&self, ctx: &Context<'_>, input: CreateApiKeyInput) -> Result<CreateApiKeyPayload> {
        let scopes = input.scopes.into_iter().map(actor::Permission::from).collect();
        let new = NewApiKey { name: input.name, scopes, expires_at: input.expires_at };
        let (made, user_errors) = split(api_keys::create(ctx.app(), ctx.actor().map_err(top_level)?, new).await)?;
        let (api_key, key) = made.map(|(row, text)| (ApiKey(row), text.reveal())).unzip();
        Ok(CreateApiKeyPayload { api_key, key, user_errors })
    }

    /// Revokes a key: one's own, or with the permission MANAGE anybody's. It stops working within a second.
    #[graphql(guard = "SignedIn")]
    async fn revoke_api_key(&self, ctx: &Context<'_>, input: RevokeApiKeyInput) -> Result<RevokeApiKeyPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let work = async {
            let id = global_id::expect("id", Kind::ApiKey, &input.id).map(ApiKeyId)?;
            api_keys::revoke(ctx.app(), actor, id).await
        };
        let (key, user_errors) = split(work.await)?;
        Ok(RevokeApiKeyPayload { api_key: key.map(ApiKey), user_errors })
    }

    /// Revokes all keys of a user: one's own, or with the permission MANAGE anybody's.
    #[graphql(guard = "SignedIn")]
    async fn revoke_all_api_keys(&self, ctx: &Context<'_>, input: RevokeAllApiKeysInput) -> Result<RevokeAllApiKeysPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let work = async {
            let user = match &input.user_id {
                Some(id) => user_id("userId", id)?,
                None => actor.user().ok_or(Error::Unauthenticated("Sign in"))?,
            };
            api_keys::revoke_all(ctx.app(), actor, user).await
        };
        let (revoked_count, user_errors) = split(work.await)?;
        Ok(RevokeAllApiKeysPayload { revoked_count, user_errors })
    }
}
