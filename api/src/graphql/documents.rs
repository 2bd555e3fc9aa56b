//! Published documents: what clients may run by id.

use std::sync::Arc;

use async_graphql::{Context, ID, InputObject, Object, Result, SimpleObject};
use chrono::{DateTime, Utc};
use data_encoding::HEXLOWER;
use mdl::actor::Permission;
use mdl::documents::{self, ById, Caching, store};
use mdl::ids::DocumentId;
use mdl::page::{Page, PageArgs};

use super::connection::{Connection, connection};
use super::context::ContextExt;
use super::eager::Plain;
use super::error::{UserError, split, top_level};
use super::global_id::{self, Kind};
use super::guard::Needs;
use super::limits::page_cost;
use super::users::{self, User};
use crate::documents::{Validator, publish};

/// A document that clients may run by its id.
pub struct PublishedDocument(pub documents::Document);

impl Plain for PublishedDocument {}

/// A document that clients may run by its id.
#[Object]
impl PublishedDocument {
    /// Opaque, and unique over all types.
    fn id(&self) -> ID {
        global_id::encode(Kind::Document, self.0.id.0)
    }

    /// What clients send as `documentId`.
    fn document_id(&self) -> &str {
        &self.0.document_id
    }

    /// SHA-256 of the text in hex, which clients may send as well.
    fn sha256(&self) -> String {
        HEXLOWER.encode(&self.0.sha256)
    }

    /// After its operation, unless its manifest said otherwise.
    fn name(&self) -> &str {
        &self.0.name
    }

    /// Grows when the name is published with another text.
    fn version(&self) -> i32 {
        self.0.version
    }

    /// The document itself.
    fn text(&self) -> &str {
        &self.0.text
    }

    /// Whether it is everybody's: the operator published it, and only the operator withdraws it.
    fn for_all_tenants(&self) -> bool {
        self.0.is_for_all_tenants()
    }

    /// Who published it; null when it was the operator.
    async fn published_by(&self, ctx: &Context<'_>) -> Option<Result<User>> {
        users::by_id(ctx, self.0.published_by.map(|id| id.0)).await
    }

    /// When it was published last.
    fn published_at(&self) -> DateTime<Utc> {
        self.0.published_at
    }

    /// When it was withdrawn; null when it is in use.
    fn withdrawn_at(&self) -> Option<DateTime<Utc>> {
        self.0.withdrawn_at
    }

    /// Seconds that an answer is kept at most, 0 for never; null where whoever published it did not say.
    fn cache_seconds(&self) -> Option<i32> {
        self.0.caching.seconds
    }

    /// Whether caches between the API and its callers may keep answers to GET requests.
    fn public(&self) -> bool {
        self.0.caching.public
    }

    /// How often it was run, some seconds behind; null when it is everybody's.
    fn use_count(&self) -> Option<i64> {
        (!self.0.is_for_all_tenants()).then_some(self.0.use_count)
    }

    /// When it was run last; null when it never was, or is everybody's.
    fn last_used_at(&self) -> Option<DateTime<Utc>> {
        self.0.last_used_at.filter(|_| !self.0.is_for_all_tenants())
    }
}

/// How many documents there are.
pub struct DocumentTotal;

#[Object]
impl DocumentTotal {
    /// How many documents the list has on all its pages. Counted only when it is asked for.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        view.snapshot.read(async |conn| store::count(conn, tenant).await).await.map_err(top_level)
    }
}

#[derive(Default)]
pub struct DocumentQueries;

#[Object]
impl DocumentQueries {
    /// The published documents of the tenant and of all tenants, newest first, with those that were withdrawn.
    #[graphql(guard = "Needs(Permission::PublishDocuments)", complexity = "page_cost(first, last, child_complexity)")]
    async fn documents(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many entries; 20 when neither first nor last is given, at most 100.")] first: Option<i32>,
        #[graphql(desc = "Only entries after this cursor.")] after: Option<String>,
        #[graphql(desc = "The last so many entries, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Only entries before this cursor.")] before: Option<String>,
    ) -> Result<Connection<PublishedDocument, DocumentTotal>> {
        let args: PageArgs<ById> = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let page = view.snapshot.read(async |conn| store::page(conn, tenant, &args).await).await.map_err(top_level)?;
        let page: Page<_> = page.map(|document| {
            let at = ById(document.id);
            (document, at)
        });
        Ok(connection(ctx, page, DocumentTotal, PublishedDocument))
    }
}

/// Documents to publish.
#[derive(InputObject)]
pub struct PublishDocumentsInput {
    /// What a client's build tool wrote: `persisted-documents.json` of graphql-codegen, Apollo's persisted query manifest,
    /// Relay's persist file; or the text of one document.
    manifest: String,
    /// How answers to these documents are kept; as before if not given, and for new documents as all answers of their kind.
    caching: Option<DocumentCachingInput>,
}

/// How answers to documents are kept. Changes are noticed at once whatever stands here.
#[derive(InputObject)]
pub struct DocumentCachingInput {
    /// Seconds that an answer is kept at most, up to 86400; 0 for never. As all answers of their kind if not given.
    cache_seconds: Option<i32>,
    /// Whether caches between the API and its callers may keep answers to GET requests, each caller's for that caller, and
    /// answer from them for as long without asking. Otherwise only browsers may, and have to ask each time.
    #[graphql(default)]
    public: bool,
}

/// Names a document.
#[derive(InputObject)]
pub struct WithdrawDocumentInput {
    /// The document's `id`, which is not its `documentId`.
    id: ID,
}

/// A published document that does not fit the schema any more.
pub struct OutdatedDocument(publish::Outdated);

/// A published document that does not fit the schema any more.
#[Object]
impl OutdatedDocument {
    /// The document. It is still run, and answered with these errors.
    fn document(&self) -> PublishedDocument {
        PublishedDocument(self.0.document.clone())
    }

    /// What is wrong with it, with line and column.
    fn errors(&self) -> Vec<String> {
        self.0.errors.iter().map(|error| publish::sentence(error).trim_start_matches([',', ':', ' ']).to_owned()).collect()
    }
}

/// Documents that were published, or why none was.
#[derive(SimpleObject)]
pub struct PublishDocumentsPayload {
    /// All documents of the manifest, also those that were published before; null when none was published.
    documents: Option<Vec<PublishedDocument>>,
    /// Documents of the tenant that do not fit the schema any more, from earlier publications.
    outdated: Vec<OutdatedDocument>,
    /// What was wrong: for each document that the schema refuses, its name, line and column; empty when it worked.
    user_errors: Vec<UserError>,
}

/// A document that is run no more, or why it was not withdrawn.
#[derive(SimpleObject)]
pub struct WithdrawDocumentPayload {
    /// The document as it is now.
    document: Option<PublishedDocument>,
    /// What was wrong; empty when it worked.
    user_errors: Vec<UserError>,
}

#[derive(Default)]
pub struct DocumentMutations;

#[Object]
impl DocumentMutations {
    /// Publishes the documents of a manifest: all, or none when the schema refuses one. An id keeps its text for ever.
    #[graphql(guard = "Needs(Permission::PublishDocuments)")]
    async fn publish_documents(&self, ctx: &Context<'_>, input: PublishDocumentsInput) -> Result<PublishDocumentsPayload> {
        let (app, actor) = (ctx.app(), ctx.actor().map_err(top_level)?);
        let validator = ctx.data_unchecked::<Arc<Validator>>();
        let caching = input.caching.map(|given| Caching { seconds: given.cache_seconds, public: given.public });
        let (published, user_errors) = split(publish::publish(app, actor, validator, &input.manifest, caching).await)?;
        let outdated = match ctx.look_ahead().field("outdated").exists() {
            true => publish::outdated_of(app, actor, validator).await.map_err(top_level)?,
            false => Vec::new(),
        };
        Ok(PublishDocumentsPayload {
            documents: published.map(|documents| documents.into_iter().map(PublishedDocument).collect()),
            outdated: outdated.into_iter().map(OutdatedDocument).collect(),
            user_errors,
        })
    }

    /// Withdraws a document: within a second it is run no more. Publishing it again takes it back into use.
    #[graphql(guard = "Needs(Permission::PublishDocuments)")]
    async fn withdraw_document(&self, ctx: &Context<'_>, input: WithdrawDocumentInput) -> Result<WithdrawDocumentPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let work = async {
            let id = global_id::expect("id", Kind::Document, &input.id).map(DocumentId)?;
            documents::withdraw(ctx.app(), actor, id).await
        };
        let (document, user_errors) = split(work.await)?;
        Ok(WithdrawDocumentPayload { document: document.map(PublishedDocument), user_errors })
    }
}
