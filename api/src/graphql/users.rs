//! People, and who they are to the tenant.

use async_graphql::{Context, Enum, ID, InputObject, Object, Result, SimpleObject};
use chrono::{DateTime, Utc};
use mdl::actor;
use mdl::ids::UserId;
use mdl::page::{ByText, Page, PageArgs};
use mdl::users::{self, Member};
use uuid::Uuid;

use super::connection::{Connection, connection};
use super::context::ContextExt;
use super::eager::Plain;
use super::error::{UserError, split, top_level};
use super::global_id::{self, Kind};
use super::guard::{Needs, SignedIn};
use super::limits::page_cost;

/// What a membership lets a user do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::actor::Role")]
pub enum Role {
    /// Reads the catalog.
    Viewer,
    /// Changes the catalog, and imports files into it.
    Editor,
    /// Also manages users, API keys and queues.
    Admin,
}

/// One thing that may be allowed. API keys carry these as scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "mdl::actor::Permission")]
pub enum Permission {
    /// Read the catalog: domains, metrics, versions, lineage, objectives.
    CatalogRead,
    /// Create, change and archive catalog entries.
    CatalogWrite,
    /// Import files, and see imports.
    CatalogImport,
    /// See and manage users, memberships and everybody's API keys.
    Manage,
    /// See and steer the queues.
    Operate,
    /// Send documents of one's own where published ones are preferred.
    Explore,
    /// See, publish and withdraw documents.
    PublishDocuments,
    /// See and manage webhook endpoints, and what they were sent.
    Webhooks,
}

/// The permissions of a set, as the schema names them.
pub fn permissions(set: actor::Permissions) -> Vec<Permission> {
    set.iter().map(Permission::from).collect()
}

/// A person. Users are kept when they leave, so that history can name them.
pub struct User {
    row: users::User,
    /// Known when the user was read as a member; otherwise it is loaded when it is asked for.
    membership: Option<Membership>,
    /// Whether they have just signed in by the same request, which so says nothing else of who asks.
    signed_in: bool,
}

#[derive(Clone, Copy)]
struct Membership {
    role: actor::Role,
    suspended_at: Option<DateTime<Utc>>,
}

impl From<Member> for User {
    fn from(member: Member) -> Self {
        let membership = Some(Membership { role: member.role, suspended_at: member.suspended_at });
        Self { membership, row: member.user, signed_in: false }
    }
}

impl From<users::User> for User {
    fn from(row: users::User) -> Self {
        Self { row, membership: None, signed_in: false }
    }
}

/// Whoever did something, for a field that is null when it was no person.
pub async fn by_id(ctx: &Context<'_>, id: Option<Uuid>) -> Option<Result<User>> {
    let id = UserId(id?);
    let found = async { ctx.reading()?.loaders.people.users.get(id).await }.await;
    found.map(|user| user.map(|user| users::User::clone(&user).into())).transpose()
}

/// Everybody sees themselves; those who manage users see all. Fails for those who are not known.
pub fn may_see(ctx: &Context<'_>, id: UserId) -> mdl::Result<bool> {
    let actor = ctx.actor()?;
    Ok(actor.user() == Some(id) || actor.permissions.contains(actor::Permission::Manage))
}

impl User {
    /// Somebody who has just signed in.
    pub fn signed_in(row: users::User, role: actor::Role) -> Self {
        Self { row, membership: Some(Membership { role, suspended_at: None }), signed_in: true }
    }

    /// Whether the caller may see more of them than who they are. A field that asks this has a line in the cache's policy.
    fn is_open_to(&self, ctx: &Context<'_>) -> bool {
        self.signed_in || may_see(ctx, self.row.id).unwrap_or(false)
    }

    /// As far as the caller may see it.
    async fn membership(&self, ctx: &Context<'_>) -> Result<Option<Membership>> {
        if !self.is_open_to(ctx) {
            return Ok(None);
        }
        if self.membership.is_some() {
            return Ok(self.membership);
        }
        let member = ctx.reading()?.loaders.people.members.get(self.row.id).await?;
        Ok(member.map(|member| Membership { role: member.role, suspended_at: member.suspended_at }))
    }
}

impl Plain for User {}

/// A person. Users are kept when they leave, so that history can name them.
#[Object]
impl User {
    /// Opaque, and unique over all types.
    pub async fn id(&self) -> ID {
        global_id::encode(Kind::User, self.row.id.0)
    }

    /// The address they sign in with, in lower case; null unless it is one's own or one holds the permission MANAGE.
    async fn email(&self, ctx: &Context<'_>) -> Option<String> {
        self.is_open_to(ctx).then(|| self.row.email.clone())
    }

    /// Their name, as people write it.
    fn name(&self) -> &str {
        &self.row.name
    }

    /// What they may do; null when they are no longer a member, and unless it is oneself or one holds the permission MANAGE.
    async fn role(&self, ctx: &Context<'_>) -> Option<Result<Role>> {
        self.membership(ctx).await.map(|found| found.map(|membership| membership.role.into())).transpose()
    }

    /// Since when they may neither sign in nor use their API keys; null when they may, and unless one holds the permission MANAGE.
    async fn suspended_at(&self, ctx: &Context<'_>) -> Option<Result<DateTime<Utc>>> {
        self.membership(ctx).await.map(|found| found.and_then(|membership| membership.suspended_at)).transpose()
    }

    /// When they were added.
    fn created_at(&self) -> DateTime<Utc> {
        self.row.created_at
    }

    /// When their name or password changed last.
    fn updated_at(&self) -> DateTime<Utc> {
        self.row.updated_at
    }

    /// When they signed in last; null when they never did, and unless it is oneself or one holds the permission MANAGE.
    async fn last_signed_in_at(&self, ctx: &Context<'_>) -> Option<DateTime<Utc>> {
        self.row.last_signed_in_at.filter(|_| self.is_open_to(ctx))
    }
}

/// How many users there are.
pub struct UserTotal;

#[Object]
impl UserTotal {
    /// How many members there are, the suspended ones included. Counted only when it is asked for.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let view = ctx.view().map_err(top_level)?;
        let tenant = view.snapshot.tenant();
        view.snapshot.read(async |conn| users::count(conn, tenant).await).await.map_err(top_level)
    }
}

#[derive(Default)]
pub struct UserQueries;

#[Object]
impl UserQueries {
    /// The members, by e-mail address. Needs the permission MANAGE.
    #[graphql(guard = "Needs(actor::Permission::Manage)", complexity = "page_cost(first, last, child_complexity)")]
    async fn users(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many entries; 20 when neither first nor last is given, at most 100.")] first: Option<i32>,
        #[graphql(desc = "Only entries after this cursor.")] after: Option<String>,
        #[graphql(desc = "The last so many entries, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Only entries before this cursor.")] before: Option<String>,
    ) -> Result<Connection<User, UserTotal>> {
        let args: PageArgs<ByText> = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        let view = ctx.view().map_err(top_level)?;
        let tenant = view.snapshot.tenant();
        let page = view.snapshot.read(async |conn| users::page(conn, tenant, &args).await).await.map_err(top_level)?;
        let Page { items, has_previous, has_next } = page;
        let items = items.into_iter().map(|member| (ByText(member.user.email.clone()), member)).map(|(at, member)| (member, at));
        Ok(connection(ctx, Page { items: items.collect(), has_previous, has_next }, UserTotal, User::from))
    }
}

/// A person to add.
#[derive(InputObject)]
pub struct CreateUserInput {
    /// The address they sign in with.
    pub email: String,
    /// Their name, as people write it.
    pub name: String,
    /// 12 to 200 characters.
    #[graphql(secret)]
    pub password: String,
    /// What they may do.
    pub role: Role,
}

/// A change of a person's name.
#[derive(InputObject)]
pub struct UpdateUserInput {
    /// Whose.
    pub id: ID,
    /// The new name.
    pub name: String,
}

/// A change of what somebody may do.
#[derive(InputObject)]
pub struct SetRoleInput {
    /// Whose.
    pub id: ID,
    /// The new role.
    pub role: Role,
}

/// Names a user.
#[derive(InputObject)]
pub struct UserInput {
    /// The user.
    pub id: ID,
}

/// A password for somebody else.
#[derive(InputObject)]
pub struct ResetPasswordInput {
    /// Whose.
    pub id: ID,
    /// The new password: 12 to 200 characters.
    #[graphql(secret)]
    pub password: String,
}

/// The user after the change, or what was wrong with the input.
#[derive(SimpleObject)]
pub struct UserPayload {
    /// The user as they are now; null when nothing was changed.
    pub user: Option<User>,
    /// What was wrong; empty when it worked.
    pub user_errors: Vec<UserError>,
}

impl UserPayload {
    fn of<T: Into<User>>(result: mdl::Result<T>) -> Result<Self> {
        let (user, user_errors) = split(result)?;
        Ok(Self { user: user.map(Into::into), user_errors })
    }
}

/// Whether it worked.
#[derive(SimpleObject)]
pub struct DonePayload {
    /// What was wrong; empty when it worked.
    pub user_errors: Vec<UserError>,
}

impl DonePayload {
    pub fn of<T>(result: mdl::Result<T>) -> Result<Self> {
        let (_, user_errors) = split(result)?;
        Ok(Self { user_errors })
    }
}

/// The user that an argument names.
pub fn user_id(field: &str, id: &ID) -> mdl::Result<UserId> {
    global_id::expect(field, Kind::User, id).map(UserId)
}

#[derive(Default)]
pub struct UserMutations;

#[Object]
impl UserMutations {
    /// Adds a person. Somebody who was removed before comes back as the same user. Needs the permission MANAGE.
    #[graphql(guard = "Needs(actor::Permission::Manage)")]
    async fn create_user(&self, ctx: &Context<'_>, input: CreateUserInput) -> Result<UserPayload> {
        let CreateUserInput { email, name, password, role } = input;
        let new = users::NewUser { email, name, password, role: role.into() };
        UserPayload::of(users::create(ctx.app(), ctx.actor().map_err(top_level)?, new).await)
    }

    /// Changes a person's name: one's own, or with the permission MANAGE anybody's.
    #[graphql(guard = "SignedIn")]
    async fn update_user(&self, ctx: &Context<'_>, input: UpdateUserInput) -> Result<UserPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let work = async { users::update(ctx.app(), actor, user_id("id", &input.id)?, &input.name).await };
        UserPayload::of(work.await)
    }

    /// Gives a member another role, which counts for their next request. Needs the permission MANAGE.
    #[graphql(guard = "Needs(actor::Permission::Manage)")]
    async fn set_role(&self, ctx: &Context<'_>, input: SetRoleInput) -> Result<UserPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let work = async { users::set_role(ctx.app(), actor, user_id("id", &input.id)?, input.role.into()).await };
        UserPayload::of(work.await)
    }

    /// Keeps a member out until `resumeUser`: ends their sessions, and stops their API keys. Needs the permission MANAGE.
    #[graphql(guard = "Needs(actor::Permission::Manage)")]
    async fn suspend_user(&self, ctx: &Context<'_>, input: UserInput) -> Result<UserPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        UserPayload::of(async { users::suspend(ctx.app(), actor, user_id("id", &input.id)?).await }.await)
    }

    /// Lets a suspended member in again. They sign in anew; their API keys work at once. Needs the permission MANAGE.
    #[graphql(guard = "Needs(actor::Permission::Manage)")]
    async fn resume_user(&self, ctx: &Context<'_>, input: UserInput) -> Result<UserPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        UserPayload::of(async { users::resume(ctx.app(), actor, user_id("id", &input.id)?).await }.await)
    }

    /// Sets somebody's password for them, and ends all their sessions. Needs the permission MANAGE.
    #[graphql(guard = "Needs(actor::Permission::Manage)")]
    async fn reset_password(&self, ctx: &Context<'_>, input: ResetPasswordInput) -> Result<DonePayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let work = async { users::reset_password(ctx.app(), actor, user_id("id", &input.id)?, &input.password).await };
        DonePayload::of(work.await)
    }

    /// Takes a person's membership away: ends their sessions and revokes their API keys. The user stays, for history to name.
    /// Needs the permission MANAGE.
    #[graphql(guard = "Needs(actor::Permission::Manage)")]
    async fn remove_membership(&self, ctx: &Context<'_>, input: UserInput) -> Result<UserPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        UserPayload::of(async { users::remove_membership(ctx.app(), actor, user_id("id", &input.id)?).await }.await)
    }
}
