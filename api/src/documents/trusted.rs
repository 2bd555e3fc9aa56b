//! Published documents, as this process knows them.
//!
//! PostgreSQL is asked for a document at most once a second, also for one that is not there: so a publication and a
//! withdrawal reach every instance within a second.

use std::sync::Arc;
use std::time::Duration;

use mdl::documents::{Caching, Document, sha256, store};
use mdl::ids::{DocumentId, TenantId};
use mdl::{App, Error, Result};
use moka::future::Cache;

use super::usage::Usage;

/// How long an answer of PostgreSQL is believed. With the time the question takes, below a second.
const RECHECK_AFTER: Duration = Duration::from_millis(800);
/// Bytes of text that are kept at most, and what a place takes.
const MAX_BYTES: u64 = 16 << 20;
const BYTES_PER_ENTRY: usize = 300;
/// Longest name that is looked for; none that was published is longer.
const MAX_NAME_BYTES: usize = 800;

/// A published document.
pub struct Trusted {
    pub sha256: [u8; 32],
    pub text: String,
    pub caching: Caching,
    id: DocumentId,
    /// Whose it is, perhaps all tenants'.
    owner: TenantId,
}

/// What is published under a name, as it was found.
#[derive(Clone)]
pub struct Finding {
    /// `None` when nothing is.
    pub document: Option<Arc<Trusted>>,
    /// Who asked, and for which name.
    asked: Arc<Name>,
}

type Name = (TenantId, String);

pub struct TrustedDocuments {
    app: App,
    found: Cache<Name, Option<Arc<Trusted>>>,
    usage: Arc<Usage>,
}

impl TrustedDocuments {
    pub fn new(app: App) -> Self {
        let weight = |(_, name): &Name, found: &Option<Arc<Trusted>>| {
            let text = found.as_ref().map_or(0, |found| found.text.len());
            u32::try_from(BYTES_PER_ENTRY + name.len() + text).unwrap_or(u32::MAX)
        };
        let found = Cache::builder().max_capacity(MAX_BYTES).weigher(weight).time_to_live(RECHECK_AFTER).build();
        Self { found, usage: Usage::start(app.db.clone()), app }
    }

    /// The document that this tenant may run under a name: an id, or a hash.
    pub async fn find(&self, tenant: TenantId, name: &str) -> Result<Finding> {
        let asked = (tenant, name.to_owned());
        if name.len() > MAX_NAME_BYTES || name.contains('\0') {
            return Ok(Finding { document: None, asked: Arc::new(asked) });
        }
        let ask = async {
            let snapshot = self.app.db.snapshot(tenant);
            let row = snapshot.read(async |conn| store::runnable(conn, tenant, name).await).await?;
            snapshot.finish().await;
            Ok(row.map(|row| Arc::new(Trusted::from(row))))
        };
        let document = self.found.try_get_with_by_ref(&asked, ask).await.map_err(shared)?;
        Ok(Finding { document, asked: Arc::new(asked) })
    }

    /// Whether what PostgreSQL said last, less than a second ago, is this.
    pub async fn is_newest(&self, finding: &Finding) -> bool {
        match (self.found.get(&*finding.asked).await, &finding.document) {
            (Some(Some(newest)), Some(document)) => Arc::ptr_eq(&newest, document),
            (Some(None), None) => true,
            _ => false,
        }
    }

    /// Remembers that a document was used; it is written later.
    pub fn count_use(&self, document: &Trusted) {
        self.usage.count(document.owner, document.id);
    }
}

impl From<Document> for Trusted {
    fn from(row: Document) -> Self {
        Self { sha256: sha256(&row.text), text: row.text, caching: row.caching, id: row.id, owner: row.tenant_id }
    }
}

/// An error of one's own from one that several requests got at once.
fn shared(error: Arc<Error>) -> Error {
    match &*error {
        Error::Unavailable { service, .. } => Error::unavailable(service, error),
        _ => Error::internal(error),
    }
}
