//! Credentials of programs.
//!
//! A key acts for the user it belongs to. It may do what its scopes say, and of that only what the user's role still allows.

use chrono::{DateTime, Utc};
use diesel::dsl::{now, sql};
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{Instrument, warn};

use crate::actor::{Actor, Permission, Permissions, Role, Subject};
use crate::app::App;
use crate::error::{Code, Error, Result, causes};
use crate::events::kinds::API_KEY_EXPIRING;
use crate::events::payloads::ApiKeyPayload;
use crate::ids::{ApiKeyId, TenantId, UserId};
use crate::page::{Page, PageArgs};
use crate::schema::{api_keys, audit_log, memberships};
use crate::text::Problems;
use crate::tokens::ApiKeyText;
use crate::users::{check_own, require_self_or_manage};
use crate::{audit, events, tenants, users};

const REFUSED: Error = Error::Unauthenticated("The API key is not valid, or no longer");

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = api_keys)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub user_id: UserId,
    pub name: String,
    /// The last four characters of the key.
    pub hint: String,
    /// Names of permissions; [`ApiKey::permissions`] reads them.
    pub scopes: Vec<String>,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    /// To the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// What the scopes allow, were the user allowed it. A scope that no longer exists allows nothing.
    pub fn permissions(&self) -> Permissions {
        permissions(&self.scopes)
    }
}

pub struct NewApiKey {
    pub name: String,
    pub scopes: Permissions,
    /// Without it the key works until it is revoked.
    pub expires_at: Option<DateTime<Utc>>,
}

/// The cursor of a list of keys, which is ordered by id: newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ById(pub ApiKeyId);

/// Makes a key of the actor's own. The text is returned here and never again.
///
/// Problems: `name`, `scopes` (none, or more than the actor may do), `expires_at` (in the past).
pub async fn create(app: &App, actor: &Actor, new: NewApiKey) -> Result<(ApiKey, ApiKeyText)> {
    let user = actor.user().ok_or(Error::Unauthenticated("A key belongs to a user; the system is none"))?;
    require_self_or_manage(actor, user)?;
    let name = new.name.trim();
    let mut problems = Problems::default();
    problems.line("name", name, 100);
    if new.scopes.iter().next().is_none() {
        problems.add("scopes", Code::Required, "A key needs at least one scope");
    }
    check_own(&mut problems, "scopes", actor, new.scopes);
    if new.expires_at.is_some_and(|at| at <= Utc::now()) {
        problems.add("expires_at", Code::OutOfRange, "Must be in the future");
    }
    problems.check()?;

    let scopes: Vec<&str> = new.scopes.iter().map(Permission::as_str).collect();
    let text = ApiKeyText::new(actor.tenant, ApiKeyId::new());
    let revealed = text.reveal();
    let hint = &revealed[revealed.len() - 4..];
    let tx = app.db.begin(actor.tenant).await?;
    let mut conn: &AsyncPgConnection = &tx;
    let key = diesel::insert_into(api_keys::table)
        .values((
            api_keys::tenant_id.eq(actor.tenant),
            api_keys::id.eq(text.id),
            api_keys::user_id.eq(user),
            api_keys::name.eq(name),
            api_keys::secret_hash.eq(&text.secret.hash()[..]),
            api_keys::hint.eq(hint),
            api_keys::scopes.eq(&scopes),
            api_keys::expires_at.eq(new.expires_at),
        ))
        .returning(ApiKey::as_returning())
        .get_result(&mut conn)
        .await?;
    let details = json!({ "name": name, "scopes": scopes, "expires_at": new.expires_at });
    audit::record(&tx, actor, "api_key.created", ("api_key", text.id.0), &details).await?;
    tx.commit().await?;
    Ok((key, text))
}

/// Revokes a key: one's own, or with `manage` anybody's. Revoking it again changes nothing. A key that the actor may not revoke is
/// answered like one that does not exist.
pub async fn revoke(app: &App, actor: &Actor, id: ApiKeyId) -> Result<ApiKey> {
    let tx = app.db.begin(actor.tenant).await?;
    let key = by_id(&tx, actor.tenant, id).await?.filter(|key| require_self_or_manage(actor, key.user_id).is_ok());
    let key = key.ok_or_else(|| Error::unknown_id("API key"))?;
    let mut conn: &AsyncPgConnection = &tx;
    let revoked = diesel::update(api_keys::table.find((actor.tenant, id)).filter(api_keys::revoked_at.is_null()))
        .set(api_keys::revoked_at.eq(now))
        .returning(ApiKey::as_returning())
        .get_result(&mut conn)
        .await
        .optional()?;
    if revoked.is_some() {
        audit::record(&tx, actor, "api_key.revoked", ("api_key", id.0), &json!({ "name": key.name })).await?;
    }
    tx.commit().await?;
    Ok(revoked.unwrap_or(key))
}

/// Revokes all keys of a user: one's own, or with `manage` anybody's. Returns how many worked until now.
pub async fn revoke_all(app: &App, actor: &Actor, user: UserId) -> Result<usize> {
    require_self_or_manage(actor, user)?;
    let tx = app.db.begin(actor.tenant).await?;
    users::by_id(&tx, actor.tenant, user).await?.ok_or_else(|| Error::unknown_id("user"))?;
    let count = revoke_of(&tx, actor.tenant, user).await?;
    if count > 0 {
        audit::record(&tx, actor, "user.api_keys_revoked", ("user", user.0), &json!({ "api_keys": count })).await?;
    }
    tx.commit().await?;
    Ok(count)
}

/// Who a key acts for, and what it may do now. One statement; that the key was used is noted once a minute, behind the
/// caller's back.
pub async fn authenticate(app: &App, text: &ApiKeyText) -> Result<Actor> {
    let snapshot = app.db.snapshot(text.tenant);
    let found = snapshot.read(async |conn| usable(conn, text.tenant, text.id).await).await?;
    snapshot.finish().await;
    let key = found.filter(|key| text.secret.matches(&key.secret_hash)).ok_or(REFUSED)?;
    if !key.used_lately {
        note_use(app, text.tenant, text.id);
    }
    Ok(Actor {
        tenant: text.tenant,
        subject: Subject::ApiKey { key: text.id, user: key.user },
        permissions: permissions(&key.scopes).and(key.role.permissions()),
        request_id: None,
        once: None,
    })
}

/// Says once of each key of all tenants that will stop working within a week that it will: in the audit log, and to
/// subscribers by the event `apiKey.expiring`. Answers how many.
pub async fn announce_expiring(app: &App) -> Result<u64> {
    let mut announced = 0;
    for tenant in tenants::all_ids(app).await? {
        let actor = Actor::system(tenant);
        let tx = app.db.begin(tenant).await?;
        let keys = expiring(&tx, tenant).await?;
        for key in &keys {
            let payload = ApiKeyPayload {
                id: key.id.0,
                name: key.name.clone(),
                hint: key.hint.clone(),
                expires_at: key.expires_at,
                user_id: key.user_id.0,
            };
            audit::record(&tx, &actor, EXPIRING, ("api_key", key.id.0), &serde_json::to_value(&payload)?).await?;
            events::push(&tx, &actor, API_KEY_EXPIRING, key.id.0, &payload).await?;
        }
        tx.commit().await?;
        announced += keys.len() as u64;
    }
    Ok(announced)
}

/// What the audit log calls it.
const EXPIRING: &str = "api_key.expiring";

/// The keys that work now, will not in a week, and have not been announced yet.
async fn expiring(mut conn: &AsyncPgConnection, tenant: TenantId) -> Result<Vec<ApiKey>> {
    let announced = audit_log::table
        .filter(audit_log::tenant_id.eq(tenant).and(audit_log::entity_id.eq(api_keys::id.nullable())))
        .filter(audit_log::action.eq(EXPIRING));
    Ok(api_keys::table
        .filter(api_keys::tenant_id.eq(tenant).and(api_keys::revoked_at.is_null()))
        .filter(sql::<Bool>("api_keys.expires_at BETWEEN now() AND now() + interval '7 days'"))
        .filter(diesel::dsl::not(diesel::dsl::exists(announced)))
        .select(ApiKey::as_select())
        .load(&mut conn)
        .await?)
}

pub async fn by_id(mut conn: &AsyncPgConnection, tenant: TenantId, id: ApiKeyId) -> Result<Option<ApiKey>> {
    Ok(api_keys::table.find((tenant, id)).select(ApiKey::as_select()).first(&mut conn).await.optional()?)
}

/// Those of these keys that exist, in no particular order.
pub async fn by_ids(mut conn: &AsyncPgConnection, tenant: TenantId, ids: &[ApiKeyId]) -> Result<Vec<ApiKey>> {
    let query =
        api_keys::table.filter(api_keys::tenant_id.eq(tenant)).filter(api_keys::id.eq_any(ids)).select(ApiKey::as_select());
    Ok(query.load(&mut conn).await?)
}

/// The keys of a user, or of everybody, newest first, with those that work no more. Whoever asks for another's needs
/// `manage`.
pub async fn page(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    user: Option<UserId>,
    args: &PageArgs<ById>,
) -> Result<Page<ApiKey>> {
    let mut query = of(tenant, user).select(ApiKey::as_select()).limit(args.fetch());
    if let Some(ById(id)) = args.after {
        query = query.filter(api_keys::id.lt(id));
    }
    if let Some(ById(id)) = args.before {
        query = query.filter(api_keys::id.gt(id));
    }
    query = if args.backward { query.order(api_keys::id.asc()) } else { query.order(api_keys::id.desc()) };
    Ok(Page::from_rows(query.load(&mut conn).await?, args))
}

/// How many keys [`page`] lists.
pub async fn count(mut conn: &AsyncPgConnection, tenant: TenantId, user: Option<UserId>) -> Result<i64> {
    Ok(of(tenant, user).count().get_result(&mut conn).await?)
}

/// Revokes the keys of a user, in the caller's transaction. Returns how many worked until now.
pub(crate) async fn revoke_of(mut conn: &AsyncPgConnection, tenant: TenantId, user: UserId) -> Result<usize> {
    let keys = api_keys::table
        .filter(api_keys::tenant_id.eq(tenant))
        .filter(api_keys::user_id.eq(user))
        .filter(api_keys::revoked_at.is_null());
    Ok(diesel::update(keys).set(api_keys::revoked_at.eq(now)).execute(&mut conn).await?)
}

fn of<'a>(tenant: TenantId, user: Option<UserId>) -> api_keys::BoxedQuery<'a, diesel::pg::Pg> {
    let query = api_keys::table.filter(api_keys::tenant_id.eq(tenant)).into_boxed();
    match user {
        Some(user) => query.filter(api_keys::user_id.eq(user)),
        None => query,
    }
}

fn permissions(scopes: &[String]) -> Permissions {
    scopes.iter().filter_map(|scope| Permission::parse(scope)).collect()
}

/// A key that works, and the role of its user.
#[derive(Queryable)]
struct Usable {
    user: UserId,
    secret_hash: Vec<u8>,
    scopes: Vec<String>,
    role: Role,
    used_lately: bool,
}

async fn usable(mut conn: &AsyncPgConnection, tenant: TenantId, id: ApiKeyId) -> Result<Option<Usable>> {
    let query = api_keys::table
        .inner_join(
            memberships::table.on(memberships::tenant_id.eq(api_keys::tenant_id).and(memberships::user_id.eq(api_keys::user_id))),
        )
        .filter(api_keys::tenant_id.eq(tenant))
        .filter(api_keys::id.eq(id))
        .filter(api_keys::revoked_at.is_null())
        .filter(api_keys::expires_at.is_null().or(api_keys::expires_at.gt(now)))
        .filter(memberships::suspended_at.is_null())
        .select((
            api_keys::user_id,
            api_keys::secret_hash,
            api_keys::scopes,
            memberships::role,
            sql::<Bool>("coalesce(api_keys.last_used_at > now() - interval '1 minute', false)"),
        ));
    Ok(query.first(&mut conn).await.optional()?)
}

/// What each of these keys may do now, of those that still work.
pub async fn permissions_of(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    keys: &[ApiKeyId],
) -> Result<Vec<(ApiKeyId, Permissions)>> {
    let query = api_keys::table
        .inner_join(
            memberships::table.on(memberships::tenant_id.eq(api_keys::tenant_id).and(memberships::user_id.eq(api_keys::user_id))),
        )
        .filter(api_keys::tenant_id.eq(tenant))
        .filter(api_keys::id.eq_any(keys))
        .filter(api_keys::revoked_at.is_null())
        .filter(api_keys::expires_at.is_null().or(api_keys::expires_at.gt(now)))
        .filter(memberships::suspended_at.is_null())
        .select((api_keys::id, api_keys::scopes, memberships::role));
    let found: Vec<(ApiKeyId, Vec<String>, Role)> = query.load(&mut conn).await?;
    Ok(found.into_iter().map(|(id, scopes, role)| (id, permissions(&scopes).and(role.permissions()))).collect())
}

/// Why these keys do not work, as those are told who still use them. A key that is neither revoked nor past its time is that of a
/// suspended member.
pub async fn why_refused(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    keys: &[ApiKeyId],
) -> Result<Vec<(ApiKeyId, &'static str)>> {
    let query = api_keys::table.filter(api_keys::tenant_id.eq(tenant)).filter(api_keys::id.eq_any(keys)).select((
        api_keys::id,
        api_keys::revoked_at.is_not_null(),
        sql::<Bool>("coalesce(api_keys.expires_at <= now(), false)"),
    ));
    let found: Vec<(ApiKeyId, bool, bool)> = query.load(&mut conn).await?;
    let why = |revoked, expired| match (revoked, expired) {
        (true, _) => "The API key was revoked",
        (false, true) => "The API key has expired",
        (false, false) => "The user of the API key is suspended",
    };
    Ok(found.into_iter().map(|(key, revoked, expired)| (key, why(revoked, expired))).collect())
}

/// Writes `last_used_at` without keeping the request waiting. Of many at once one writes.
fn note_use(app: &App, tenant: TenantId, id: ApiKeyId) {
    let db = app.db.clone();
    let write = async move {
        let tx = db.begin(tenant).await?;
        let mut conn: &AsyncPgConnection = &tx;
        diesel::update(api_keys::table.find((tenant, id)))
            .filter(sql::<Bool>("(last_used_at IS NULL OR last_used_at < now() - interval '1 minute')"))
            .set(api_keys::last_used_at.eq(now))
            .execute(&mut conn)
            .await?;
        tx.commit().await
    };
    let work = async move {
        if let Err(error) = write.await {
            warn!(error = causes(&error), api_key.id = %id, "Could not note that an API key was used");
        }
    };
    tokio::spawn(work.in_current_span());
}
