//! What was asked lately, of each tenant, in Redis: a sorted set of ids by [`Score`], and a hash with what each id stands for.
//!
//! Variables can hold what somebody searched for. So these are bounded: the operations of a tenant in number, each of them in
//! size, and all in time; and the api collects them only where somebody warms.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use chrono::Utc;
use data_encoding::HEXLOWER;
use redis::Script;
use tracing::{debug, warn};

use super::{Asked, Score};
use crate::app::App;
use crate::error::{Error, Result};
use crate::ids::TenantId;

/// Longest JSON of an [`Asked`] that is collected, in bytes; longer operations are not warmed.
pub const MAX_BYTES: usize = 16 << 10;
/// Operations of one tenant; the one that is used least makes room.
const MAX_OPERATIONS: u32 = 500;
/// From the last use on. One that was used very often stays some days longer, if its tenant comes back.
const FORGET_AFTER: Duration = Duration::from_secs(2 * 86_400);

/// Names an operation with its variables and permissions within a tenant.
pub type UseId = [u8; 16];

/// How much one operation was used since Redis was last told.
#[derive(Debug, Clone)]
pub struct Use<'a> {
    pub id: UseId,
    pub score: Score,
    /// The JSON of its [`Asked`]; `None` when Redis was told before.
    pub asked: Option<&'a str>,
}

/// KEYS: scores, what they stand for, tenants. ARGV: tenant, now and ttl (seconds), least score, most operations, then id,
/// score and JSON (or nothing) of each use. Answers with whether there was nothing before, and the ids whose JSON is missing.
static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local missing = {}
         local new = redis.call('EXISTS', KEYS[1]) == 0
         for i = 6, #ARGV, 3 do
             local id, score, what = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
             if what ~= '' then redis.call('HSET', KEYS[2], id, what) end
             if what == '' and redis.call('HEXISTS', KEYS[2], id) == 0 then
                 missing[#missing + 1] = id
             else
                 local before = tonumber(redis.call('ZSCORE', KEYS[1], id) or -math.huge)
                 local most, least = math.max(before, score), math.min(before, score)
                 score = most + math.log(1 + 2 ^ (least - most)) / math.log(2)
                 redis.call('ZADD', KEYS[1], string.format('%.17g', score), id)
             end
         end
         local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[4])
         local excess = redis.call('ZCARD', KEYS[1]) - #gone - ARGV[5]
         if excess > 0 then
             gone = redis.call('ZRANGE', KEYS[1], 0, #gone + excess - 1)
         end
         for _, id in ipairs(gone) do
             redis.call('ZREM', KEYS[1], id)
             redis.call('HDEL', KEYS[2], id)
         end
         for i = 1, 2 do redis.call('EXPIRE', KEYS[i], ARGV[3]) end
         redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
         redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ARGV[2] - ARGV[3])
         redis.call('EXPIRE', KEYS[3], ARGV[3])
         return { new and 1 or 0, missing }",
    )
});

/// What Redis lacks after [`add`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// It knew nothing of the tenant.
    pub everything: bool,
    /// It does not know what these stand for, and has not counted them.
    pub ids: Vec<UseId>,
}

/// Adds uses of a tenant.
pub async fn add(app: &App, tenant: TenantId, uses: &[Use<'_>]) -> Result<Lacking> {
    let now = SystemTime::now();
    let mut add = ADD.prepare_invoke();
    add.key(scores_key(app, tenant)).key(asked_key(app, tenant)).key(tenants_key(app));
    add.arg(tenant.to_string()).arg(Utc::now().timestamp()).arg(FORGET_AFTER.as_secs());
    add.arg(Score::of(1, now - FORGET_AFTER).value()).arg(MAX_OPERATIONS);
    for used in uses {
        add.arg(HEXLOWER.encode(&used.id)).arg(used.score.value()).arg(used.asked.unwrap_or_default());
    }
    let mut conn = app.redis.get().await.map_err(|error| Error::unavailable("Redis", error))?;
    let (everything, missing): (bool, Vec<String>) = add.invoke_async(&mut *conn).await?;
    let count = missing.len();
    let ids: Vec<UseId> = missing.into_iter().filter_map(parse_id).collect();
    if ids.len() < count && !SAID.swap(true, Ordering::Relaxed) {
        warn!("Ignoring what is not the id of a use in Redis");
    }
    Ok(Lacking { everything, ids })
}

/// Whether it was said that Redis holds what is no id. Once is enough.
static SAID: AtomicBool = AtomicBool::new(false);

fn parse_id(id: String) -> Option<UseId> {
    HEXLOWER.decode(id.as_bytes()).ok()?.try_into().ok()
}

/// The operations that the tenant used most lately, the most used first.
pub async fn top(app: &App, tenant: TenantId, count: u32) -> Result<Vec<Asked>> {
    let mut conn = app.redis.get().await.map_err(|error| Error::unavailable("Redis", error))?;
    let last = i64::from(count) - 1;
    let ids: Vec<String> = redis::cmd("ZREVRANGE").arg(scores_key(app, tenant)).arg(0).arg(last).query_async(&mut *conn).await?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let texts: Vec<Option<String>> = redis::cmd("HMGET").arg(asked_key(app, tenant)).arg(ids).query_async(&mut *conn).await?;
    let read = |text: String| {
        let asked = serde_json::from_str(&text);
        // Another version of this program may know other permissions.
        asked.inspect_err(|error| debug!(%error, "Could not read what was asked")).ok()
    };
    Ok(texts.into_iter().flatten().filter_map(read).collect())
}

/// Tenants of which something was used lately.
pub async fn tenants(app: &App) -> Result<Vec<TenantId>> {
    let mut conn = app.redis.get().await.map_err(|error| Error::unavailable("Redis", error))?;
    let since = Utc::now().timestamp().saturating_sub_unsigned(FORGET_AFTER.as_secs());
    let ids: Vec<String> =
        redis::cmd("ZRANGEBYSCORE").arg(tenants_key(app)).arg(since).arg("+inf").query_async(&mut *conn).await?;
    Ok(ids.into_iter().filter_map(|id| id.parse().ok().map(TenantId)).collect())
}

fn scores_key(app: &App, tenant: TenantId) -> String {
    app.redis_key(&format!("used:{{{tenant}}}"))
}

fn asked_key(app: &App, tenant: TenantId) -> String {
    app.redis_key(&format!("used:{{{tenant}}}:asked"))
}

fn tenants_key(app: &App) -> String {
    app.redis_key("used")
}
