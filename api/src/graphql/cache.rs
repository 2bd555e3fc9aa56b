//! The response cache, for operators.

use async_graphql::{Context, Enum, InputObject, Object, Result};
use mdl::Error;
use mdl::actor::Permission;
use mdl::documents;
use mdl::error::Code;
use mdl::versions::{self, Purge};

use super::context::ContextExt;
use super::guard::Needs;
use super::users::DonePayload;

/// What kept answers are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum CachedType {
    /// Business domains.
    BusinessDomain,
    /// Imports. They are not kept: only answers of `node` and `nodes` are forgotten, which may be of anything.
    Import,
    /// Metrics with their versions and lineage.
    Metric,
    /// Objectives with their key results.
    Objective,
    /// People and what they may do.
    User,
}

impl CachedType {
    fn kind(self) -> &'static str {
        match self {
            CachedType::BusinessDomain => "business_domain",
            CachedType::Import => "import",
            CachedType::Metric => "metric",
            CachedType::Objective => "objective",
            CachedType::User => "user",
        }
    }
}

/// Which kept answers to forget: all of the tenant if nothing is given.
#[derive(InputObject)]
pub struct PurgeCacheInput {
    /// Those that something of this type is part of.
    #[graphql(name = "type")]
    kind: Option<CachedType>,
    /// Those to this document: the SHA-256 of its text, in hexadecimal, with or without `sha256:` before it. Not together with
    /// `type`.
    document_hash: Option<String>,
}

#[derive(Default)]
pub struct CacheMutations;

#[Object]
impl CacheMutations {
    /// Makes every server forget kept answers of this tenant. Changes made through this API never need it; it is for what was
    /// changed behind its back. Needs the permission OPERATE.
    #[graphql(guard = "Needs(Permission::Operate)")]
    async fn purge_cache(&self, ctx: &Context<'_>, input: PurgeCacheInput) -> Result<DonePayload> {
        let purged = async {
            let what = which(input)?;
            versions::purge(ctx.app(), ctx.actor()?, what).await
        };
        DonePayload::of(purged.await)
    }
}

fn which(input: PurgeCacheInput) -> mdl::Result<Purge> {
    match (input.kind, input.document_hash) {
        (None, None) => Ok(Purge::Everything),
        (Some(kind), None) => Ok(Purge::Type(kind.kind())),
        (None, Some(hash)) => {
            // With the prefix it is the documentId of a request.
            let hash = documents::from_hex(hash.strip_prefix("sha256:").unwrap_or(&hash));
            let wrong = || Error::invalid("document_hash", Code::Invalid, "Must be a SHA-256 in hexadecimal: 64 digits");
            hash.map(Purge::Document).ok_or_else(wrong)
        }
        (Some(_), Some(_)) => Err(Error::invalid("document_hash", Code::Invalid, "Give type or documentHash, not both")),
    }
}
