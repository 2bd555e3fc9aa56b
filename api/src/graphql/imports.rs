//! Imports: queries and mutations. `object` is the type, with its issues and changes.

pub mod enums;
mod object;
mod progress;

use async_graphql::{Context, ID, InputObject, Object, Result, Upload};
use mdl::actor::Permission;
use mdl::error::{Code, Error};
use mdl::ids::ImportId;
use mdl::imports::{self, Mode, store};
use mdl::page::PageArgs;
use tokio_util::io::ReaderStream;

use self::enums::{ImportFormat, ImportMode, ImportState};
pub use self::object::Import;
pub use self::progress::ImportProgress;
use super::connection::{Connection, connection};
use super::context::ContextExt;
use super::error::top_level;
use super::filter::{OneOf, converted};
use super::global_id::{Kind, expect};
use super::guard::Needs;
use super::limits::page_cost;
use super::payload::payloads;

/// Conditions on imports.
#[derive(Debug, Default, InputObject)]
pub struct ImportFilter {
    /// Where it stands.
    state: Option<OneOf<ImportState>>,
}

/// A file to be imported, given as an upload or as text.
#[derive(InputObject)]
pub struct ImportCatalogInput {
    /// The file, sent as multipart/form-data by the GraphQL multipart request specification; gzip is recognised.
    file: Option<Upload>,
    /// The content itself, at most 512 KiB; what is longer is given as `file`.
    text: Option<String>,
    /// Name of the file, from which the format may be told; that of the upload if not given.
    file_name: Option<String>,
    /// What it is written in; told from the name and the content if not given.
    format: Option<ImportFormat>,
    /// What happens to the good entries of a file that has bad ones; `ALL_OR_NOTHING` if not given.
    mode: Option<ImportMode>,
    /// Find out what would change, and change nothing; `false` if not given.
    dry_run: Option<bool>,
    /// For metric-hub files, what the keys of their metrics start with; the file's name without its ending if not given.
    namespace: Option<String>,
    /// Why, for the history of the metrics.
    message: Option<String>,
}

/// An import to be stopped.
#[derive(InputObject)]
pub struct CancelImportInput {
    /// Which import.
    id: ID,
}

pub type ImportConnection = Connection<Import, ImportTotals>;

/// What a list of imports is counted by, if somebody asks.
pub struct ImportTotals(store::Filter);

#[Object]
impl ImportTotals {
    /// How many imports the whole list has. Counted only when selected.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        view.snapshot.read(async |conn| store::count(conn, tenant, &self.0).await).await.map_err(top_level)
    }
}

#[derive(Default)]
pub struct ImportQueries;

#[Object]
impl ImportQueries {
    /// One import, by its id. Ask again while it runs: its counters move.
    #[graphql(guard = "Needs(Permission::CatalogImport)")]
    async fn import(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id, as `importCatalog` gave it.")] id: ID,
    ) -> Option<Result<Import>> {
        find(ctx, &id).await.transpose()
    }

    /// The imports that match, newest first.
    #[graphql(guard = "Needs(Permission::CatalogImport)", complexity = "page_cost(first, last, child_complexity)")]
    async fn imports(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which imports; all if not given.")] filter: Option<ImportFilter>,
        #[graphql(
            desc = "How many, from the start of the list or after `after`; at most 100, 20 if neither this nor `last` is given."
        )]
        first: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes after it.")] after: Option<String>,
        #[graphql(desc = "How many, from the end of the list or before `before`; at most 100.")] last: Option<i32>,
        #[graphql(desc = "A cursor of this list: what comes before it.")] before: Option<String>,
    ) -> Result<ImportConnection> {
        let args = PageArgs::parse(first, after, last, before).map_err(top_level)?;
        let filter = store::Filter { states: filter.and_then(|filter| filter.state).map(converted) };
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let page = view.snapshot.read(async |conn| store::page(conn, tenant, &filter, &args).await).await.map_err(top_level)?;
        let page = page.map(|import| {
            let position = import.id;
            (import, position)
        });
        Ok(connection(ctx, page, ImportTotals(filter), Import::from))
    }
}

#[derive(Default)]
pub struct ImportMutations;

#[Object]
impl ImportMutations {
    /// Takes a file with metrics, domains and objectives, which a worker imports. Answers as soon as the file is stored. The
    /// same content that is being imported in the same way already is not imported twice: that import is the answer.
    #[graphql(guard = "Needs(Permission::CatalogImport)")]
    async fn import_catalog(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The file, and how it is to be imported.")] input: ImportCatalogInput,
    ) -> Result<ImportCatalogPayload> {
        ImportCatalogPayload::answer(start(ctx, input).await?, Import::from)
    }

    /// Stops an import. One that waits is cancelled at once; one that runs, within a second: entry by entry what was applied
    /// stays, all-or-nothing nothing does. One that has ended is left as it is.
    #[graphql(guard = "Needs(Permission::CatalogImport)")]
    async fn cancel_import(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which import.")] input: CancelImportInput,
    ) -> Result<CancelImportPayload> {
        let actor = ctx.actor().map_err(top_level)?;
        let result = async {
            let id = ImportId(expect("id", Kind::Import, &input.id)?);
            imports::cancel(ctx.app(), actor, id).await
        }
        .await;
        CancelImportPayload::answer(result, Import::from)
    }
}

payloads! {
    /// The import that was started.
    ImportCatalogPayload {
        /// The import, which waits for a worker.
        import: Import
    }
    /// The import that was stopped.
    CancelImportPayload {
        /// The import as it is now. One that runs says `cancelRequestedAt` until its worker has stopped.
        import: Import
    }
}

/// The import with this id.
pub async fn find(ctx: &Context<'_>, id: &ID) -> Result<Option<Import>> {
    let id = ImportId(expect("id", Kind::Import, id).map_err(top_level)?);
    let view = ctx.reading()?;
    let tenant = view.snapshot.tenant();
    let found = view.snapshot.read(async |conn| store::by_id(conn, tenant, id).await).await.map_err(top_level)?;
    Ok(found.map(Import::from))
}

/// The outer result is about the request, the inner one about the file.
async fn start(ctx: &Context<'_>, input: ImportCatalogInput) -> Result<mdl::Result<imports::Import>> {
    let actor = ctx.actor().map_err(top_level)?;
    let mut upload = imports::Upload {
        file_name: input.file_name,
        format: input.format.map(Into::into),
        mode: input.mode.map_or(Mode::AllOrNothing, Into::into),
        dry_run: input.dry_run.unwrap_or(false),
        namespace: input.namespace,
        message: input.message,
    };
    Ok(match (input.file, input.text) {
        (Some(file), None) => {
            let file = file.value(ctx)?;
            upload.file_name = upload.file_name.or(Some(file.filename).filter(|name| !name.is_empty()));
            let content = ReaderStream::new(tokio::fs::File::from_std(file.content));
            imports::start(ctx.app(), actor, content, upload).await
        }
        (None, Some(text)) => imports::start_inline(ctx.app(), actor, text, upload).await,
        _ => Err(Error::invalid("file", Code::Invalid, "Give either a file or text")),
    })
}
