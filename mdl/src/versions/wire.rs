//! Tokens in Redis: a hash for each tenant, and a channel on which every change of them is told.
//!
//! The hash `PREFIX:versions:TENANT` has a field for each [`Entity`], and one for each [`Part`] that was changed by itself. A
//! change sets its fields and is published in one transaction, so that whoever has heard of it can read it, and everybody
//! hears changes in the order in which they were set. `PREFIX:versions:told:EVENT` says for a while that the write which that
//! event tells of was told.

use std::collections::HashMap;

use redis::aio::ConnectionLike;
use redis::{RedisResult, pipe};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Entities, Entity, Part, Touched};
use crate::ids::{EventId, TenantId};

/// A version. Random, so that none ever comes back.
pub type Token = Uuid;

/// Fields of a tenant. One more, and everything gets a new version instead of each part one of its own.
const MAX_FIELDS: usize = 2_000;
/// How long it is known that a change was told, in seconds: longer than whoever looks for untold ones needs.
const TOLD_SECONDS: u64 = 120;

/// Events that Redis is asked about at once.
const EVENTS_AT_ONCE: usize = 1_000;

/// New tokens for what a write touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub(super) entities: Vec<(Entity, Token)>,
    pub(super) parts: Vec<(Part, Token)>,
    /// Events of the same write. Whoever finds one, and that it was told, need not tell it again.
    pub(super) events: Vec<EventId>,
}

impl Change {
    pub fn of(touched: impl Into<Touched>) -> Self {
        let Touched { entities, parts } = touched.into();
        Self {
            entities: entities.iter().map(|entity| (entity, Uuid::new_v4())).collect(),
            parts: parts.into_iter().map(|part| (part, Uuid::new_v4())).collect(),
            events: Vec::new(),
        }
    }

    /// Of the write that these events tell of.
    pub fn with_events(self, events: Vec<EventId>) -> Self {
        Self { events, ..self }
    }

    /// The same with other tokens. For another attempt: the last one may have been taken all the same, and later changes told since, which
    /// would be undone by a token that comes again.
    pub(super) fn renew(&mut self) {
        self.entities.iter_mut().for_each(|(_, token)| *token = Uuid::new_v4());
        self.parts.iter_mut().for_each(|(_, token)| *token = Uuid::new_v4());
    }

    /// Whether it leaves nothing as it was.
    pub(super) fn is_everything(&self) -> bool {
        self.entities.len() == Entity::ALL.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entities.is_empty() && self.parts.is_empty()
    }

    /// Both changes; the later wins.
    pub fn merge(&mut self, later: Change) {
        fn replace<T: PartialEq>(tokens: &mut Vec<(T, Token)>, later: Vec<(T, Token)>) {
            tokens.retain(|(what, _)| later.iter().all(|(other, _)| other != what));
            tokens.extend(later);
        }
        replace(&mut self.entities, later.entities);
        replace(&mut self.parts, later.parts);
        self.events.extend(later.events);
        if self.parts.len().max(self.events.len()) > MAX_FIELDS {
            // Without the events: they are told once more.
            *self = Self::of(Entities::ALL);
        }
    }

    fn fields(&self) -> Vec<(String, String)> {
        let entities = self.entities.iter().map(|(entity, token)| (entity.as_str().to_owned(), token.to_string()));
        entities.chain(self.parts.iter().map(|(part, token)| (part.to_field(), token.to_string()))).collect()
    }

    fn from_fields(fields: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut change = Self::default();
        for (field, token) in fields {
            // Fields of a later version of this program are none of ours.
            let Ok(token) = token.parse() else { continue };
            if let Some(entity) = Entity::parse(&field) {
                change.entities.push((entity, token));
            } else if let Some(part) = Part::parse(&field) {
                change.parts.push((part, token));
            }
        }
        change
    }
}

/// A change as it is told.
#[derive(Serialize, Deserialize)]
struct Message {
    tenant: TenantId,
    tokens: HashMap<String, String>,
}

/// What is published for a change.
pub fn encode(tenant: TenantId, change: &Change) -> Vec<u8> {
    let message = Message { tenant, tokens: change.fields().into_iter().collect() };
    serde_json::to_vec(&message).expect("a map of text is JSON")
}

pub fn decode(message: &[u8]) -> Result<(TenantId, Change), serde_json::Error> {
    let message: Message = serde_json::from_slice(message)?;
    Ok((message.tenant, Change::from_fields(message.tokens)))
}

/// The channel of all changes.
pub fn channel(prefix: &str) -> String {
    format!("{prefix}:versions")
}

fn hash_key(prefix: &str, tenant: TenantId) -> String {
    format!("{prefix}:versions:{tenant}")
}

fn told_key(prefix: &str, event: EventId) -> String {
    format!("{prefix}:versions:told:{event}")
}

/// What Redis knows of a tenant.
#[derive(Debug, Clone)]
pub struct Known {
    pub tokens: Change,
    /// Which run of which server said so. One that begins anew from an old file, or takes over from another without its last
    /// writes, has old tokens again: answers that were kept under them before are not to be found after.
    pub server: String,
}

/// The tokens of a tenant. What has none gets one.
pub async fn load(conn: &mut impl ConnectionLike, prefix: &str, tenant: TenantId) -> RedisResult<Known> {
    let key = hash_key(prefix, tenant);
    let mut pipe = pipe();
    pipe.atomic();
    for (field, token) in Change::of(Entities::ALL).fields() {
        pipe.hset_nx(&key, field, token).ignore();
    }
    pipe.hgetall(&key).cmd("INFO").arg("server").cmd("INFO").arg("replication");
    let (fields, about, replication): (HashMap<String, String>, String, String) = pipe.query_async(conn).await?;
    let line = |text: &str, name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    let server = line(&about, "run_id:") + &line(&replication, "master_replid:");
    // A server that does not say who it is may be another each time.
    let server = if server.is_empty() { Uuid::new_v4().to_string() } else { server };
    Ok(Known { tokens: Change::from_fields(fields), server })
}

/// Sets new tokens and tells everybody.
pub async fn publish(conn: &mut impl ConnectionLike, prefix: &str, tenant: TenantId, change: &Change) -> RedisResult<()> {
    let key = hash_key(prefix, tenant);
    let mut pipe = pipe();
    pipe.atomic().hset_multiple(&key, &change.fields()).ignore();
    for event in &change.events {
        pipe.set_ex(told_key(prefix, *event), 1, TOLD_SECONDS).ignore();
    }
    pipe.publish(channel(prefix), encode(tenant, change)).ignore().hlen(&key);
    let (fields,): (usize,) = pipe.query_async(conn).await?;
    if fields > MAX_FIELDS { forget_parts(conn, prefix, tenant).await } else { Ok(()) }
}

/// Gives everything a new version. No part needs one of its own then.
async fn forget_parts(conn: &mut impl ConnectionLike, prefix: &str, tenant: TenantId) -> RedisResult<()> {
    let (key, everything) = (hash_key(prefix, tenant), Change::of(Entities::ALL));
    let fields: Vec<String> = redis::cmd("HKEYS").arg(&key).query_async(conn).await?;
    let parts: Vec<_> = fields.into_iter().filter(|field| Part::parse(field).is_some()).collect();
    let mut pipe = pipe();
    pipe.atomic();
    if !parts.is_empty() {
        pipe.hdel(&key, parts).ignore();
    }
    pipe.hset_multiple(&key, &everything.fields()).ignore().publish(channel(prefix), encode(tenant, &everything)).ignore();
    pipe.query_async(conn).await
}

/// Those of these events whose writers have not told what they changed, as far as is known.
pub async fn untold(conn: &mut impl ConnectionLike, prefix: &str, events: Vec<EventId>) -> RedisResult<Vec<EventId>> {
    let mut untold = Vec::new();
    for some in events.chunks(EVENTS_AT_ONCE) {
        let keys: Vec<_> = some.iter().map(|event| told_key(prefix, *event)).collect();
        let told: Vec<Option<u8>> = redis::cmd("MGET").arg(keys).query_async(conn).await?;
        untold.extend(some.iter().zip(told).filter(|(_, told)| told.is_none()).map(|(event, _)| *event));
    }
    Ok(untold)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versions::Thing;

    #[test]
    fn changes_survive_the_wire() {
        let tenant = TenantId::new();
        let entities = Entities::of(&[Entity::Metrics, Entity::People]);
        let change = Change::of(Touched::things(entities, [Thing::metric("M"), Thing::metric_by_id(Uuid::nil())]));
        let (heard_tenant, mut heard) = decode(&encode(tenant, &change)).unwrap();
        heard.entities.sort_by_key(|(entity, _)| *entity as u8);
        heard.parts.sort_by_key(|(part, _)| change.parts[0].0 != *part);
        assert_eq!((heard_tenant, heard), (tenant, change));
        assert!(decode(b"{}").is_err());
    }

    #[test]
    fn of_two_changes_the_later_wins() {
        let document = || Touched::document([1; 32]);
        let mut first = Change::of(Touched { entities: Entities::ALL, ..document() });
        let later = Change::of(Touched { entities: Entities::of(&[Entity::Domains]), ..document() });
        first.merge(later.clone());
        assert_eq!((first.entities.len(), first.parts.len()), (Entity::ALL.len(), 1));
        assert!(first.entities.contains(&later.entities[0]) && first.parts == later.parts);
    }

    #[test]
    fn another_attempt_has_other_tokens() {
        let first = Change::of(Touched::things(Entities::ALL, [Thing::metric("M"), Thing::objective("O")]));
        let mut second = first.clone();
        second.renew();
        assert!(first.entities.iter().zip(&second.entities).all(|(one, other)| one.0 == other.0 && one.1 != other.1));
        assert!(first.parts.iter().zip(&second.parts).all(|(one, other)| one.0 == other.0 && one.1 != other.1));
    }

    #[test]
    fn what_is_owed_does_not_grow_for_ever() {
        let mut owed = Change::default();
        for number in 0..=MAX_FIELDS {
            let thing = Thing::metric(&number.to_string());
            owed.merge(Change::of(Touched { entities: Entities::NONE, parts: vec![Part::Thing(thing)] }));
        }
        assert!(owed.is_everything() && owed.parts.is_empty());
    }
}
