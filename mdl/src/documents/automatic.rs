//! Automatic persisted queries: texts that clients registered under their SHA-256, kept in Redis.
//!
//! A tenant sees what its own callers registered. Each use renews a text's time. The tenant's texts are counted in a sorted
//! set by the end of their time, and their bytes in a hash, so that the one that was not used for longest makes room: a client
//! that registers much takes the time of others, who register again, and never their right to.

use std::sync::LazyLock;

use chrono::Utc;
use redis::Script;

use super::{DocumentHash, to_hex};
use crate::app::App;
use crate::error::{Error, Result};
use crate::ids::TenantId;

/// KEYS: the set, the text, the bytes. ARGV: hash, text, now, ttl (seconds), most texts, most bytes, what keys of texts start
/// with.
///
/// The keys of the texts that go are not among KEYS: all keys of a tenant are in one slot of a cluster. The bytes of a text
/// stand under its hash, those of all under `all`. Without a set they are of texts that nobody counts any more.
static REGISTER: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local function forget(hash)
             local bytes = tonumber(redis.call('HGET', KEYS[3], hash) or 0)
             redis.call('DEL', ARGV[7] .. hash)
             redis.call('ZREM', KEYS[1], hash)
             redis.call('HDEL', KEYS[3], hash)
             return redis.call('HINCRBY', KEYS[3], 'all', 0 - bytes)
         end
         if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[3]) end
         for _, hash in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])) do forget(hash) end
         redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[4])
         redis.call('ZADD', KEYS[1], ARGV[3] + ARGV[4], ARGV[1])
         if redis.call('HSETNX', KEYS[3], ARGV[1], #ARGV[2]) == 1 then
             redis.call('HINCRBY', KEYS[3], 'all', #ARGV[2])
         end
         redis.call('EXPIRE', KEYS[1], ARGV[4])
         redis.call('EXPIRE', KEYS[3], ARGV[4])
         local texts = redis.call('ZCARD', KEYS[1])
         local bytes = tonumber(redis.call('HGET', KEYS[3], 'all') or 0)
         while texts > 0 and (texts > tonumber(ARGV[5]) or bytes > tonumber(ARGV[6])) do
             bytes = forget(redis.call('ZRANGE', KEYS[1], 0, 0)[1])
             texts = texts - 1
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
        .key(bytes_key(app, tenant))
        .arg(&hash)
        .arg(text)
        .arg(Utc::now().timestamp())
        .arg(config.apq_ttl_seconds)
        .arg(config.apq_max_documents)
        .arg(config.apq_max_tenant_bytes)
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
        .cmd("EXPIRE")
        .arg(bytes_key(app, tenant))
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

fn bytes_key(app: &App, tenant: TenantId) -> String {
    app.redis_key(&format!("apq:{{{tenant}}}:bytes"))
}

fn text_key(app: &App, tenant: TenantId, hash: &str) -> String {
    app.redis_key(&format!("apq:{{{tenant}}}:{hash}"))
}
