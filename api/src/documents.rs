//! The document of a request: by its text, by its hash (automatic persisted queries), or by the id under which it was
//! published. docs/api/documents.md is the contract.
//!
//! What a request asks for with a name is looked for among the published documents of its tenant and of all, and then, where
//! the caller may send documents of their own, among those that the tenant's callers registered. The parsed form comes from
//! [`ParsedDocuments`], which all tenants share: a name that is not the tenant's never gets that far.

mod dates;
mod misplaced;
mod parsed;
pub mod publish;
mod repeats;
mod rules;
mod trusted;
mod usage;
mod validate;
mod variables;

use std::sync::Arc;
use std::time::Duration;

use async_graphql::ServerError;
use mdl::actor::{Permission, Subject};
use mdl::config::DocumentsMode;
use mdl::documents::{ALL_TENANTS, Caching, automatic, from_hex, sha256, to_hex};
use mdl::error::causes;
use mdl::ids::TenantId;
use mdl::{Actor, App, Error, instruments};
use metrics::{Counter, counter};
use moka::sync::Cache;
use tracing::warn;

use crate::graphql::error::coded;
use trusted::{Finding, Trusted, TrustedDocuments};

pub use parsed::{ParsedDocument, ParsedDocuments, ParsedOperation};
pub use repeats::repeats;
pub use validate::Validator;

/// What Redis may take before a request goes on without it.
const REDIS_PATIENCE: Duration = Duration::from_millis(250);
/// Registered hashes that a process remembers, of all tenants; each takes some 150 bytes.
const MAX_KNOWN: u64 = 50_000;
/// How long a process remembers that a hash is registered before Redis is asked again, which renews the text's time.
const KNOWN_FOR: Duration = Duration::from_secs(600);

/// The code that makes clients send the text.
pub const NOT_FOUND_BY_HASH: &str = "PERSISTED_QUERY_NOT_FOUND";

/// How a request names its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `query`.
    Text(String),
    /// `extensions.persistedQuery.sha256Hash`, and `query` where it was sent, too.
    Hash { hash: String, text: Option<String> },
    /// `documentId`.
    Id(String),
}

/// A parsed document and by what right the caller runs it, or what the caller is told instead.
pub type Found = Result<(Arc<ParsedDocument>, Right), Vec<ServerError>>;

/// By what right a caller runs a document.
#[derive(Clone, Default)]
pub struct Right {
    named_by: NamedBy,
    /// What is published under its name; `None` where nobody looked, since the caller may run any text and sent this one.
    finding: Option<Finding>,
}

impl Right {
    /// How answers to the document are kept.
    pub fn caching(&self) -> Caching {
        self.publication().map_or_else(Caching::default, |document| document.caching)
    }

    /// `None` when the caller may run it without anybody's having published it.
    fn publication(&self) -> Option<&Trusted> {
        self.finding.as_ref()?.document.as_deref()
    }
}

/// What a request names its document by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum NamedBy {
    #[default]
    Text,
    Hash,
    Id,
}

impl NamedBy {
    fn counter(self, outcome: &'static str) -> Counter {
        let source = match self {
            Self::Text => "inline",
            Self::Hash => "automatic",
            Self::Id => "trusted",
        };
        counter!(instruments::DOCUMENTS, "source" => source, "outcome" => outcome)
    }
}

/// A document on its way to the caller, and what is published under its name, where that was looked for.
type Named = (Arc<ParsedDocument>, Option<Finding>);

/// Why there is no document.
enum NoDocument {
    Refused(Vec<ServerError>),
    /// PostgreSQL could not be asked.
    Failed(Error),
}

/// Finds documents. It lives as long as the server; its counts of uses are written for as long.
pub struct Documents {
    app: App,
    parsed: ParsedDocuments,
    trusted: TrustedDocuments,
    /// Registered by hash, as this process has seen.
    known: Cache<(TenantId, [u8; 32]), ()>,
    /// Instruments of those that are found, by how they are named. Looked up once, not each time.
    found: [Counter; 3],
}

impl Documents {
    pub fn new(app: App) -> Self {
        let config = &app.config.documents;
        let known_for = KNOWN_FOR.min(Duration::from_secs(config.apq_ttl_seconds / 2));
        Self {
            parsed: ParsedDocuments::new(app.config.graphql.clone(), config),
            trusted: TrustedDocuments::new(app.clone()),
            known: Cache::builder().max_capacity(MAX_KNOWN).time_to_live(known_for).build(),
            found: [NamedBy::Text, NamedBy::Hash, NamedBy::Id].map(|named_by| named_by.counter("found")),
            app,
        }
    }

    /// The document that a caller asks for.
    pub async fn find(&self, actor: Option<&Actor>, source: Source) -> mdl::Result<Found> {
        let named_by = match &source {
            Source::Text(_) => NamedBy::Text,
            Source::Hash { .. } => NamedBy::Hash,
            Source::Id(_) => NamedBy::Id,
        };
        let found = match self.at_hand(actor, &source) {
            Some(found) => found,
            // In a box: most requests do without it.
            None => Box::pin(self.look_up(actor, source)).await,
        };
        let found = match found {
            Ok((document, finding)) => Ok((document, Right { named_by, finding })),
            Err(NoDocument::Refused(errors)) => Err(errors),
            Err(NoDocument::Failed(error)) => return Err(error),
        };
        match &found {
            Ok(_) => self.found[named_by as usize].increment(1),
            Err(errors) if asks_for_text(errors) || has_code(errors, "DOCUMENT_NOT_FOUND") => {
                named_by.counter("missing").increment(1);
            }
            Err(_) => named_by.counter("refused").increment(1),
        }
        Ok(found)
    }

    /// Whether a caller who may do the same as before still has this right, and no other: where nothing was published under
    /// the name, something may be now.
    pub async fn still_stands(&self, right: &Right) -> bool {
        match &right.finding {
            Some(finding) => self.trusted.is_newest(finding).await,
            None => true,
        }
    }

    /// Counts a document that was found by a right that still stands.
    pub fn count_found(&self, right: &Right) {
        self.found[right.named_by as usize].increment(1);
        if let Some(document) = right.publication() {
            self.trusted.count_use(document);
        }
    }

    /// What neither PostgreSQL nor Redis need be asked for: the text of somebody who may send any. Whether it is published,
    /// too, is not looked for: that would take a statement for each new text.
    fn at_hand(&self, actor: Option<&Actor>, source: &Source) -> Option<Result<Named, NoDocument>> {
        match source {
            Source::Text(text) if self.may_explore(actor) => {
                Some(self.parse(sha256(text), text).map(|document| (document, None)))
            }
            _ => None,
        }
    }

    async fn look_up(&self, actor: Option<&Actor>, source: Source) -> Result<Named, NoDocument> {
        match source {
            Source::Id(id) => {
                let (document, finding) = self.by_name(actor, &id).await?;
                let not_found = || refusal("DOCUMENT_NOT_FOUND", "No document is published under this documentId");
                Ok((document.ok_or_else(not_found)?, Some(finding)))
            }
            Source::Text(text) => self.by_text(actor, &text).await,
            Source::Hash { hash, text: Some(text) } => self.by_hash_and_text(actor, &hash, &text).await,
            Source::Hash { hash, text: None } => self.by_hash(actor, &hash).await,
        }
    }

    async fn by_text(&self, actor: Option<&Actor>, text: &str) -> Result<Named, NoDocument> {
        let hash = sha256(text);
        // The text of a published document is as good as its name.
        let (published, finding) = self.by_name(actor, &to_hex(&hash)).await?;
        if let Some(document) = published {
            return Ok((document, Some(finding)));
        }
        if self.app.config.documents.mode == DocumentsMode::TrustedOnly {
            return Err(not_trusted());
        }
        let document = self.parse(hash, text)?;
        // Whoever may explore has to sign in first.
        let only_sessions = || document.operations().iter().all(|operation| operation.only_sessions);
        if self.may_explore(actor) || only_sessions() { Ok((document, Some(finding))) } else { Err(not_trusted()) }
    }

    async fn by_hash_and_text(&self, actor: Option<&Actor>, hash: &str, text: &str) -> Result<Named, NoDocument> {
        let computed = sha256(text);
        if !hash.eq_ignore_ascii_case(&to_hex(&computed)) {
            return Err(refusal("PERSISTED_QUERY_HASH_MISMATCH", "sha256Hash is not the SHA-256 of the query"));
        }
        let named = self.by_text(actor, text).await?;
        let config = &self.app.config.documents;
        if let Some(actor) = actor
            && self.may_explore(Some(actor))
            && text.len() <= config.apq_max_bytes.min(config.apq_max_tenant_bytes)
            && !self.known.contains_key(&(actor.tenant, computed))
        {
            // Without Redis this process knows it all the same, or every request would wait for Redis in vain.
            let _registered = within_patience(automatic::register(&self.app, actor.tenant, &computed, text)).await;
            self.known.insert((actor.tenant, computed), ());
        }
        Ok(named)
    }

    async fn by_hash(&self, actor: Option<&Actor>, name: &str) -> Result<Named, NoDocument> {
        // Also where the hash is registered: it may have been published since.
        let (published, finding) = self.by_name(actor, name).await?;
        if let Some(document) = published {
            return Ok((document, Some(finding)));
        }
        if self.app.config.documents.mode == DocumentsMode::TrustedOnly {
            return Err(not_trusted());
        }
        // Who may not explore is asked for the text all the same: it may be one that everybody may send.
        if let (Some(hash), Some(actor)) = (from_hex(name), actor)
            && self.may_explore(Some(actor))
            && let Some(document) = self.registered(actor.tenant, hash).await?
        {
            return Ok((document, Some(finding)));
        }
        Err(refusal(NOT_FOUND_BY_HASH, "PersistedQueryNotFound"))
    }

    /// The document that the tenant registered under a hash, as far as this process has it or Redis gives it in time.
    async fn registered(&self, tenant: TenantId, hash: [u8; 32]) -> Result<Option<Arc<ParsedDocument>>, NoDocument> {
        if self.known.contains_key(&(tenant, hash))
            && let Some(document) = self.parsed.get(&hash)
        {
            return Ok(Some(document));
        }
        let Some(text) = within_patience(automatic::find(&self.app, tenant, &hash)).await.flatten() else { return Ok(None) };
        let document = self.parse(hash, &text)?;
        self.known.insert((tenant, hash), ());
        Ok(Some(document))
    }

    /// The document that is published under a name, if one is. Its use is counted, unless it is the system that asks.
    async fn by_name(&self, actor: Option<&Actor>, name: &str) -> Result<(Option<Arc<ParsedDocument>>, Finding), NoDocument> {
        let finding = self.trusted.find(audience(actor), name).await.map_err(NoDocument::Failed)?;
        let Some(published) = &finding.document else { return Ok((None, finding)) };
        let document = self.parse(published.sha256, &published.text)?;
        if actor.is_none_or(|actor| actor.subject != Subject::System) {
            self.trusted.count_use(published);
        }
        Ok((Some(document), finding))
    }

    fn parse(&self, hash: [u8; 32], text: &str) -> Result<Arc<ParsedDocument>, NoDocument> {
        self.parsed.parse_hashed(hash, text).map_err(NoDocument::Refused)
    }

    /// Whether a caller may send documents of their own.
    fn may_explore(&self, actor: Option<&Actor>) -> bool {
        match self.app.config.documents.mode {
            DocumentsMode::Open => true,
            DocumentsMode::PreferTrusted => actor.is_some_and(|actor| actor.permissions.contains(Permission::Explore)),
            DocumentsMode::TrustedOnly => false,
        }
    }
}

/// Whose documents a caller may run besides those of all.
fn audience(actor: Option<&Actor>) -> TenantId {
    actor.map_or(ALL_TENANTS, |actor| actor.tenant)
}

/// Whether these are the one error that makes a client send the text; it is no failure.
pub fn asks_for_text(errors: &[ServerError]) -> bool {
    has_code(errors, NOT_FOUND_BY_HASH)
}

fn has_code(errors: &[ServerError], code: &str) -> bool {
    let code = async_graphql::Value::from(code);
    errors.iter().any(|error| error.extensions.as_ref().is_some_and(|extensions| extensions.get("code") == Some(&code)))
}

fn not_trusted() -> NoDocument {
    let message = "This server runs published documents; this is none, and you may not send your own";
    refusal("DOCUMENT_NOT_TRUSTED", message)
}

fn refusal(code: &str, message: &str) -> NoDocument {
    NoDocument::Refused(vec![coded(ServerError::new(message, None), code)])
}

/// What Redis said, if it did in time. Without it a hash is not known, and the client sends its text.
async fn within_patience<T>(work: impl Future<Output = mdl::Result<T>>) -> Option<T> {
    match tokio::time::timeout(REDIS_PATIENCE, work).await {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            warn!(error = causes(&error), "Could not ask Redis for a registered document");
            None
        }
        Err(_) => {
            warn!("Redis took too long to tell of a registered document");
            None
        }
    }
}
