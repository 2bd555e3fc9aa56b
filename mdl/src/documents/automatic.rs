//! Automatic persisted queries: texts that clients registered under their SHA-256, kept in Redis.
//!
//! A tenant sees what its own callers registered. Each use renews a text's time. The tenant's texts are counted in a sorted
//! set by the end of their time, so that the one that was not used for longest makes room: a client that registers much takes
//! the time of others, who register again, and never their right to.

use std::sync::LazyLock;

use chrono::Utc;
use redis::Script;

use super::{DocumentHash, to_hex};
use crate::app::App;
use crate::error::{Error, Result};
use crate::ids::TenantId;

/// KEYS: the set, the text. ARGV: hash, text, now, ttl (seconds), most texts, what keys of texts start with.
///
/// The keys of the texts that go are not among KEYS: all keys of a tenant are in one slot of a cluster.
static REGISTER: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[4])
         redis.call('ZADD', KEYS[1], ARGV[3] + ARGV[4], ARGV[1])
         redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
         redis.call('EXPIRE', KEYS[1], ARGV[4])
         local excess = redis.call('ZCARD', KEYS[1]) - ARGV[5]
         if excess > 0 then
             local oldest = redis.call('ZPOPMIN', KEYS[1], excess)
             for i = 1, #oldest, 2 do redis.call('DEL', ARGV[6] .. oldest[i]) end
         end",
    )
});

/// Keeps a text under its hash.
pub async fn register(app: &App, tenant: TenantId, hash: &DocumentHash, text: &str) -> Result<()> {
    let config = &app.config.documents;
    let mut conn = app.redis.get().await.map_err(|error| Error::unavailable("Redis", error))?;
    let hash = to_hex(hash);
    let _nothing: () = REGISTER
        .key(set_key(app, tenant))
        .key(text_key(app, tenant, &hash))
        .arg(&hash)
        .arg(text)
        .arg(Utc::now().timestamp())
        .arg(config.apq_ttl_seconds)
        .arg(config.apq_max_documents)
        .arg(text_key(app, tenant, ""))
        .invoke_async(&mut *conn)
        .await?;
    Ok(())
}

/// The text that the tenant registered under this hash, whose time begins anew.
pub async fn find(app: &App, tenant: TenantId, hash: &DocumentHash) -> Result<Option<String>> {
    let ttl = app.config.documents.apq_ttl_seconds;
    let mut conn = app.redis.get().await.map_err(|error| Error::unavailable("Redis", error))?;
    let hash = to_hex(hash);
    let ends = Utc::now().timestamp().saturating_add_unsigned(ttl);
    let (text,): (Option<String>,) = redis::pipe()
        .cmd("GET")
        .arg(text_key(app, tenant, &hash))
        .cmd("EXPIRE")
        .arg(text_key(app, tenant, &hash))
        .arg(ttl)
        .ignore()
        // Only where it is counted already.
        .cmd("ZADD")
        .arg(set_key(app, tenant))
        .arg("XX")
        .arg(ends)
        .arg(&hash)
        .ignore()
        .cmd("EXPIRE")
        .arg(set_key(app, tenant))
        .arg(ttl)
        .ignore()
        .query_async(&mut *conn)
        .await?;
    Ok(text)
}

/// The braces make a Redis cluster keep a tenant's keys together.
fn set_key(app: &App, tenant: TenantId) -> String {
    app.redis_key(&format!("apq:{{{tenant}}}"))
}

fn text_key(app: &App, tenant: TenantId, hash: &str) -> String {
    app.redis_key(&format!("apq:{{{tenant}}}:{hash}"))
}
