//! Documents: the GraphQL operations that clients have.
//!
//! A *published* (trusted) document is stored in PostgreSQL, for one tenant or for all, and is asked for by its id or by the
//! SHA-256 of its text; [`manifest`] reads what clients' build tools write. Whoever publishes has made sure that it fits the
//! schema: this library knows none. A document that a client registered by its hash alone ([`automatic`]) is only a text
//! that Redis holds for a while.

pub mod automatic;
pub mod manifest;
pub mod store;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tracing::info;
use uuid::Uuid;

use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::audit;
use crate::db::Transaction;
use crate::error::{Code, Error, Problem, Result};
use crate::ids::{DocumentId, TenantId, UserId};
use crate::schema::documents;

/// Stands for every tenant: whoever acts as this one publishes for all of them. No credential does; the command line may.
pub const ALL_TENANTS: TenantId = TenantId(Uuid::nil());
/// Most documents that are published at once.
const MAX_PUBLISHED: usize = 10_000;
/// Longest id and longest name, in characters.
pub const MAX_NAME: usize = 200;

/// A published document.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = documents)]
pub struct Document {
    /// Whose it is; [`ALL_TENANTS`] for everybody's.
    pub tenant_id: TenantId,
    pub id: DocumentId,
    /// What clients send.
    pub document_id: String,
    /// Of the text.
    pub sha256: Vec<u8>,
    pub name: String,
    /// Grows when the name is published with another text.
    pub version: i32,
    pub text: String,
    /// `None` for the command line.
    pub published_by: Option<UserId>,
    pub published_at: DateTime<Utc>,
    /// It is not run any more, and keeps its id.
    pub withdrawn_at: Option<DateTime<Utc>>,
    /// Some seconds behind.
    pub use_count: i64,
    pub last_used_at: Option<DateTime<Utc>>,
    #[diesel(embed)]
    pub caching: Caching,
}

impl Document {
    pub fn is_for_all_tenants(&self) -> bool {
        self.tenant_id == ALL_TENANTS
    }
}

/// How answers to a document are kept, as whoever published it says. By default as all answers of their kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Queryable, Selectable, AsChangeset)]
#[diesel(table_name = documents, treat_none_as_null = true)]
pub struct Caching {
    /// Seconds that an answer is kept at most; 0 for never.
    #[diesel(column_name = cache_seconds)]
    pub seconds: Option<i32>,
    /// Whether caches between us and the caller may keep answers to GET requests.
    pub public: bool,
}

impl Caching {
    /// Most seconds that may be given: a day.
    pub const MAX_SECONDS: i32 = 86_400;

    fn check(&self) -> Result<()> {
        match self.seconds {
            Some(seconds) if !(0..=Self::MAX_SECONDS).contains(&seconds) => {
                let message = format!("Must be from 0 to {} seconds", Self::MAX_SECONDS);
                Err(Error::invalid("caching.cache_seconds", Code::OutOfRange, message))
            }
            _ => Ok(()),
        }
    }
}

/// A document to publish, of which the caller knows that it fits the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDocument {
    pub document_id: String,
    pub name: String,
    pub text: String,
}

/// The cursor of a list of documents, which is ordered by id: newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ById(pub DocumentId);

/// SHA-256 of a document's text.
pub type DocumentHash = [u8; 32];

pub fn sha256(text: &str) -> DocumentHash {
    Sha256::digest(text).into()
}

/// A hash as clients send it.
pub fn to_hex(hash: &DocumentHash) -> String {
    HEXLOWER.encode(hash)
}

/// A hash from hexadecimal digits, large or small.
pub fn from_hex(text: &str) -> Option<DocumentHash> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// Publishes all of these, or none. What is published already stays as it is, but for `caching` where that is given; what was
/// withdrawn is published again. Returns them as they are now, in the order given.
///
/// Problems, all of the field `manifest`: an id that stands for another text, an id or a name that is blank or too long, too
/// many at once. Of the field `caching.cache_seconds`: out of range.
pub async fn publish(app: &App, actor: &Actor, new: &[NewDocument], caching: Option<Caching>) -> Result<Vec<Document>> {
    actor.require(Permission::PublishDocuments)?;
    check(new)?;
    if let Some(caching) = caching {
        caching.check()?;
    }
    let tx = app.db.begin(actor.tenant).await?;
    // Versions are counted: one publication after the other.
    let mut conn: &AsyncPgConnection = &tx;
    diesel::sql_query("SELECT pg_advisory_xact_lock(hashtextextended('documents:' || current_tenant(), 0))")
        .execute(&mut conn)
        .await?;
    let ids: Vec<&str> = new.iter().map(|document| document.document_id.as_str()).collect();
    let known = store::by_document_ids(&tx, actor.tenant, &ids).await?;
    let mut unknown: HashMap<&str, &NewDocument> = new.iter().map(|new| (new.document_id.as_str(), new)).collect();
    let mut problems = Vec::new();
    for known in &known {
        let same = unknown.remove(known.document_id.as_str()).is_some_and(|new| sha256(&new.text)[..] == known.sha256);
        if !same {
            problems.push(other_text(&known.document_id, &known.name));
        }
    }
    if !problems.is_empty() {
        return Err(Error::Invalid(problems));
    }
    let withdrawn: Vec<_> = known.iter().filter(|known| known.withdrawn_at.is_some()).map(|known| known.id).collect();
    store::publish_again(&tx, actor, &withdrawn).await?;
    // In the order of the manifest, which decides on versions.
    let unknown: Vec<&NewDocument> = new.iter().filter(|new| unknown.remove(new.document_id.as_str()).is_some()).collect();
    store::insert(&tx, actor, &unknown).await?;
    if !withdrawn.is_empty() || !unknown.is_empty() {
        let again = known.iter().filter(|known| known.withdrawn_at.is_some()).map(|known| known.document_id.as_str());
        let changed: Vec<&str> = again.chain(unknown.iter().map(|document| document.document_id.as_str())).collect();
        record(&tx, actor, "documents.published", actor.tenant.0, &json!({ "document_ids": changed })).await?;
    }
    if let Some(caching) = caching {
        let changed = store::set_caching(&tx, actor.tenant, &ids, caching).await?;
        if !changed.is_empty() {
            let details = json!({ "document_ids": changed, "cache_seconds": caching.seconds, "public": caching.public });
            record(&tx, actor, "documents.caching_changed", actor.tenant.0, &details).await?;
        }
    }
    let mut published = store::by_document_ids(&tx, actor.tenant, &ids).await?;
    tx.commit().await?;
    let positions: HashMap<&str, usize> = ids.iter().enumerate().rev().map(|(position, id)| (*id, position)).collect();
    published.sort_by_key(|document| positions.get(document.document_id.as_str()).copied());
    Ok(published)
}

fn other_text(id: &str, name: &str) -> Problem {
    Problem::new("manifest", Code::Taken, format!("The id {id:?} stands for another text, named {name}"))
}

/// Withdraws a document of the actor's tenant: it is not run any more. Again changes nothing.
///
/// Problem of the field `id`: the document is for all tenants.
pub async fn withdraw(app: &App, actor: &Actor, id: DocumentId) -> Result<Document> {
    actor.require(Permission::PublishDocuments)?;
    let tx = app.db.begin(actor.tenant).await?;
    let Some(document) = store::by_id(&tx, actor.tenant, id).await? else {
        return Err(match store::by_id(&tx, ALL_TENANTS, id).await? {
            Some(_) => Error::invalid("id", Code::Invalid, "The document is for all tenants: only the operator withdraws it"),
            None => Error::unknown_id("document"),
        });
    };
    let withdrawn = store::withdraw(&tx, actor.tenant, id).await?;
    if withdrawn.is_some() {
        let details = json!({ "document_id": document.document_id, "name": document.name, "version": document.version });
        record(&tx, actor, "document.withdrawn", id.0, &details).await?;
    }
    tx.commit().await?;
    Ok(withdrawn.unwrap_or(document))
}

/// Into the audit log of the tenant. What concerns all has none: their rows say who and when, and the log of the program.
async fn record(tx: &Transaction, actor: &Actor, action: &str, entity: Uuid, details: &serde_json::Value) -> Result<()> {
    if actor.tenant == ALL_TENANTS {
        info!(action, details = %details, "Changed the documents of all tenants");
        return Ok(());
    }
    audit::record(tx, actor, action, ("document", entity), details).await
}

/// What is wrong with publishing so many documents at once, if something is.
pub fn too_many(count: usize) -> Option<Problem> {
    let message = || format!("Has {count} documents; at most {MAX_PUBLISHED} are published at once");
    (count > MAX_PUBLISHED).then(|| Problem::new("manifest", Code::TooMany, message()))
}

fn check(new: &[NewDocument]) -> Result<()> {
    let mut problems = Vec::new();
    if new.is_empty() {
        problems.push(Problem::new("manifest", Code::Required, "There is no document in it"));
    }
    problems.extend(too_many(new.len()));
    let mut texts = HashMap::new();
    for document in new {
        if *texts.entry(&document.document_id).or_insert(&document.text) != &document.text {
            problems.push(other_text(&document.document_id, &document.name));
        }
    }
    let mut add = |code, message: String| problems.push(Problem::new("manifest", code, message));
    for document in new {
        for (what, text) in [("id", &document.document_id), ("name", &document.name)] {
            if text.trim().is_empty() || text.chars().any(char::is_control) {
                add(Code::Invalid, format!("The {what} {text:?} must be one line, and not blank"));
            }
            if text.chars().count() > MAX_NAME {
                add(Code::TooLong, format!("The {what} {text:?} is longer than {MAX_NAME} characters"));
            }
        }
        if document.text.contains('\0') {
            add(Code::Invalid, format!("{} contains the NUL character", document.name));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems)) }
}
