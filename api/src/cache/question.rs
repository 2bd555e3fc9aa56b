//! What is asked, as the key under which its answer is kept.

use std::time::Duration;

use async_graphql::{Value, Variables};
use chrono::Utc;
use mdl::Actor;
use mdl::documents::{Caching, DocumentHash};
use mdl::ids::TenantId;
use mdl::versions::{Part, Stamp, Touched};
use mdl::warming::used::UseId;
use sha2::{Digest, Sha256};

use super::policy::Policy;

/// SHA-256 over everything that an answer depends on.
pub type Key = [u8; 32];

/// An operation whose answer may be kept.
pub struct Question {
    pub tenant: TenantId,
    pub document: DocumentHash,
    pub policy: Policy,
    /// What its answer is made of.
    pub made_of: Touched,
    /// All of the key but the versions: names the question, whatever its answer is made of.
    pub name: Key,
}

impl Question {
    /// `schema` stands for this version of the program: another one may answer the same otherwise.
    pub fn new(
        schema: &[u8; 32],
        actor: &Actor,
        document: DocumentHash,
        operation: Option<&str>,
        variables: &Variables,
        policy: Policy,
    ) -> Self {
        let mut asked = Sha256::new();
        asked.update(schema);
        asked.update(actor.tenant.0);
        permissions(&mut asked, actor, &policy);
        if policy.personal
            && let Some(user) = actor.user()
        {
            asked.update(user.0);
        }
        asked.update(b";");
        if policy.daily {
            asked.update(Utc::now().date_naive().to_string());
        }
        asked.update(b";");
        asked.update(document);
        part(&mut asked, operation.unwrap_or_default().as_bytes());
        canonical_map(&mut asked, variables.iter().map(|(name, value)| (name.as_str(), value)).collect());
        let mut made_of = Touched { entities: policy.reads, ..Touched::document(document) };
        for one in policy.ones.iter() {
            match one.things(variables) {
                none if none.is_empty() => made_of.entities = made_of.entities.and(one.entities()),
                things => made_of.parts.extend(things.into_iter().map(Part::Thing)),
            }
        }
        Self { tenant: actor.tenant, document, policy, made_of, name: asked.finalize().into() }
    }

    /// The same, kept as whoever published the document says. `None` when nothing is to be kept.
    ///
    /// It is another question: what was kept for those who asked the same text otherwise may be older.
    pub fn within(mut self, caching: Caching) -> Option<Self> {
        if let Some(seconds) = caching.seconds {
            let seconds = u64::try_from(seconds).unwrap_or(0);
            self.name = Sha256::new_with_prefix(self.name).chain_update(seconds.to_be_bytes()).finalize().into();
            self.policy.ttl = self.policy.ttl.min(Duration::from_secs(seconds));
        }
        (!self.policy.ttl.is_zero()).then_some(self)
    }

    /// The key of the answer that is made of these versions.
    pub fn key(&self, stamp: &Stamp) -> Key {
        Sha256::new_with_prefix(self.name).chain_update(stamp.bytes).finalize().into()
    }
}

/// Names what was asked within a tenant, whatever the day and the version of this program: by it is counted how often it is.
pub fn use_id(actor: &Actor, question: &Question, operation: Option<&str>, variables: &Variables) -> UseId {
    let mut asked = Sha256::new();
    permissions(&mut asked, actor, &question.policy);
    asked.update(question.document);
    part(&mut asked, operation.unwrap_or_default().as_bytes());
    canonical_map(&mut asked, variables.iter().map(|(name, value)| (name.as_str(), value)).collect());
    let hash: [u8; 32] = asked.finalize().into();
    std::array::from_fn(|at| hash[at])
}

/// Those of the caller that make a difference.
fn permissions(hash: &mut Sha256, actor: &Actor, policy: &Policy) {
    for permission in policy.permissions(actor.permissions).iter() {
        part(hash, permission.as_str().as_bytes());
    }
    hash.update(b";");
}

/// A value so that equal ones are hashed alike: the order of an object's fields means nothing.
fn canonical(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Null => hash.update(b"n"),
        Value::Boolean(value) => hash.update(if *value { b"t" } else { b"f" }),
        Value::Number(number) => tagged(hash, b"#", number.to_string().as_bytes()),
        Value::String(text) => tagged(hash, b"s", text.as_bytes()),
        Value::Enum(name) => tagged(hash, b"e", name.as_bytes()),
        Value::Binary(bytes) => tagged(hash, b"b", bytes),
        Value::List(items) => {
            hash.update(b"[");
            hash.update((items.len() as u64).to_be_bytes());
            items.iter().for_each(|item| canonical(hash, item));
        }
        Value::Object(fields) => {
            canonical_map(hash, fields.iter().map(|(name, value)| (name.as_str(), value)).collect());
        }
    }
}

fn canonical_map(hash: &mut Sha256, mut fields: Vec<(&str, &Value)>) {
    fields.sort_unstable_by_key(|(name, _)| *name);
    hash.update(b"{");
    hash.update((fields.len() as u64).to_be_bytes());
    for (name, value) in fields {
        part(hash, name.as_bytes());
        canonical(hash, value);
    }
}

fn tagged(hash: &mut Sha256, tag: &[u8], bytes: &[u8]) {
    hash.update(tag);
    part(hash, bytes);
}

/// With its length, so that two parts are never taken for two others.
fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mdl::actor::{Permission, Subject};
    use mdl::ids::{SessionId, UserId};
    use mdl::versions::Entities;
    use serde_json::json;

    use super::*;

    fn actor(tenant: TenantId, user: UserId, permissions: &[Permission]) -> Actor {
        let subject = Subject::User { user, session: SessionId::new() };
        Actor { tenant, subject, permissions: permissions.iter().copied().collect(), request_id: None, once: None }
    }

    fn key(actor: &Actor, personal: bool, operation: Option<&str>, variables: serde_json::Value, stamp: u8) -> Key {
        key_guarded(true, actor, personal, operation, variables, stamp)
    }

    fn key_guarded(
        guarded: bool,
        actor: &Actor,
        personal: bool,
        operation: Option<&str>,
        variables: serde_json::Value,
        stamp: u8,
    ) -> Key {
        let ttl = Duration::from_secs(1);
        let policy = Policy { reads: Entities::ALL, ones: [].into(), ttl, personal, daily: false, guarded, one_row: false };
        let variables = Variables::from_json(variables);
        let question = Question::new(&[0; 32], actor, [1; 32], operation, &variables, policy);
        question.key(&Stamp { bytes: [stamp; 32], shared: true, at: 0 })
    }

    #[test]
    fn equal_questions_have_one_key_and_others_another() {
        let (tenant, user) = (TenantId::new(), UserId::new());
        let viewer = actor(tenant, user, &[Permission::CatalogRead]);
        let asked = key(&viewer, false, None, json!({ "a": { "b": 1, "c": [2, "3"] }, "d": null }), 0);
        assert_eq!(asked, key(&viewer, false, None, json!({ "d": null, "a": { "c": [2, "3"], "b": 1 } }), 0));
        let colleague = actor(tenant, UserId::new(), &[Permission::CatalogRead]);
        assert_eq!(key(&viewer, false, None, json!({}), 0), key(&colleague, false, None, json!({}), 0));
        let editor = actor(tenant, user, &[Permission::CatalogRead, Permission::CatalogWrite]);
        let of_catalog = |actor: &Actor| key_guarded(false, actor, false, None, json!({}), 0);
        assert_eq!(of_catalog(&viewer), of_catalog(&editor));
        assert_ne!(of_catalog(&viewer), of_catalog(&actor(tenant, user, &[Permission::CatalogWrite])));
        let keys = [
            asked,
            key(&viewer, false, None, json!({ "a": { "b": 1, "c": [2, 3] }, "d": null }), 0),
            key(&viewer, false, None, json!({ "a": { "b": 1, "c": ["3", 2] }, "d": null }), 0),
            key(&viewer, false, None, json!({ "a": { "b": 1, "c": [2, "3"] } }), 0),
            key(&viewer, false, None, json!({}), 0),
            key(&viewer, false, None, json!({}), 1),
            key(&viewer, false, Some("A"), json!({}), 0),
            key(&viewer, true, None, json!({}), 0),
            key(&colleague, true, None, json!({}), 0),
            key(&actor(tenant, user, &[Permission::CatalogRead, Permission::Manage]), false, None, json!({}), 0),
            key(&actor(TenantId::new(), user, &[Permission::CatalogRead]), false, None, json!({}), 0),
        ];
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
    }
}
