//! Tokens in Redis: a hash for each tenant, and a channel on which every change of them is told.
//!
//! The hash `PREFIX:versions:TENANT` has a field for each [`Entity`], and one for each document that was purged by hand. A
//! change sets its fields and is published in one transaction, so that whoever has heard of it can read it, and everybody
//! hears changes in the order in which they were set.

use std::collections::HashMap;

use redis::aio::ConnectionLike;
use redis::{RedisResult, pipe};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Entities, Entity};
use crate::documents::{DocumentHash, to_hex};
use crate::ids::TenantId;

/// A version. Random, so that none ever comes back.
pub type Token = Uuid;

/// Documents of one tenant that can be purged apart. One more purges everything instead.
const MAX_DOCUMENTS: usize = 1_000;

/// New tokens for what a write touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub(super) tokens: Vec<(Entity, Token)>,
    pub(super) documents: Vec<(DocumentHash, Token)>,
}

impl Change {
    pub fn of(entities: Entities) -> Self {
        Self { tokens: entities.iter().map(|entity| (entity, Uuid::new_v4())).collect(), documents: Vec::new() }
    }

    /// With a new token for one document, whatever it reads.
    pub fn with_document(mut self, document: DocumentHash) -> Self {
        self.documents.push((document, Uuid::new_v4()));
        self
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.documents.is_empty()
    }

    /// Both changes; the later wins.
    pub fn merge(&mut self, later: Change) {
        self.tokens.retain(|(entity, _)| later.tokens.iter().all(|(other, _)| other != entity));
        self.tokens.extend(later.tokens);
        self.documents.retain(|(document, _)| later.documents.iter().all(|(other, _)| other != document));
        self.documents.extend(later.documents);
    }

    fn fields(&self) -> Vec<(String, String)> {
        let entities = self.tokens.iter().map(|(entity, token)| (entity.as_str().to_owned(), token.to_string()));
        entities.chain(self.documents.iter().map(|(hash, token)| (document_field(hash), token.to_string()))).collect()
    }

    fn from_fields(fields: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut change = Self::default();
        for (field, token) in fields {
            // Fields of a later version of this program are none of ours.
            let Ok(token) = token.parse() else { continue };
            if let Some(entity) = Entity::parse(&field) {
                change.tokens.push((entity, token));
            } else if let Some(document) = parse_document_field(&field) {
                change.documents.push((document, token));
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

fn document_field(hash: &DocumentHash) -> String {
    format!("document:{}", to_hex(hash))
}

fn parse_document_field(field: &str) -> Option<DocumentHash> {
    data_encoding::HEXLOWER.decode(field.strip_prefix("document:")?.as_bytes()).ok()?.try_into().ok()
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
    let mut tokens = Change::from_fields(fields);
    if tokens.documents.len() > MAX_DOCUMENTS {
        let documents: Vec<_> = tokens.documents.drain(..).map(|(hash, _)| document_field(&hash)).collect();
        let everything = Change::of(Entities::ALL);
        let mut pipe = redis::pipe();
        let forget = pipe.atomic().hdel(&key, documents).ignore().hset_multiple(&key, &everything.fields()).ignore();
        let () = forget.publish(channel(prefix), encode(tenant, &everything)).ignore().query_async(conn).await?;
        tokens = everything;
    }
    let line = |text: &str, name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    let server = line(&about, "run_id:") + &line(&replication, "master_replid:");
    // A server that does not say who it is may be another each time.
    let server = if server.is_empty() { Uuid::new_v4().to_string() } else { server };
    Ok(Known { tokens, server })
}

/// Sets new tokens and tells everybody.
pub async fn publish(conn: &mut impl ConnectionLike, prefix: &str, tenant: TenantId, change: &Change) -> RedisResult<()> {
    let (key, message) = (hash_key(prefix, tenant), encode(tenant, change));
    let mut pipe = pipe();
    pipe.atomic().hset_multiple(key, &change.fields()).ignore().publish(channel(prefix), message).ignore();
    pipe.query_async(conn).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_survive_the_wire() {
        let tenant = TenantId::new();
        let mut change = Change::of(Entities::of(&[Entity::Metrics, Entity::People])).with_document([7; 32]);
        change.tokens.sort_by_key(|(entity, _)| *entity as u8);
        let (heard_tenant, mut heard) = decode(&encode(tenant, &change)).unwrap();
        heard.tokens.sort_by_key(|(entity, _)| *entity as u8);
        assert_eq!((heard_tenant, heard), (tenant, change));
        assert!(decode(b"{}").is_err());
    }

    #[test]
    fn of_two_changes_the_later_wins() {
        let mut first = Change::of(Entities::ALL).with_document([1; 32]);
        let later = Change::of(Entities::of(&[Entity::Domains])).with_document([1; 32]);
        first.merge(later.clone());
        assert_eq!((first.tokens.len(), first.documents.len()), (Entity::ALL.len(), 1));
        assert!(first.tokens.contains(&later.tokens[0]) && first.documents == later.documents);
    }
}
