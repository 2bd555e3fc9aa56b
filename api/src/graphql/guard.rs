//! Who may use a field. Every root field carries one of these guards; a test fails when one does not.
//!
//! A guard also begins each root field of a mutation with a view of its own. Reads are lazy, and a mutation's resolver reads
//! through its view only after its operation has committed: so it returns what it wrote, and the next field sees it too.

use async_graphql::parser::types::OperationType;
use async_graphql::{Context, Guard, Result};
use mdl::actor::Permission;

use super::context::ContextExt;
use super::error::top_level;

/// The caller must be known and hold this permission.
pub struct Needs(pub Permission);

impl Guard for Needs {
    async fn check(&self, ctx: &Context<'_>) -> Result<()> {
        begin(ctx);
        ctx.actor().and_then(|actor| actor.require(self.0)).map_err(top_level)
    }
}

/// The caller must be known.
pub struct SignedIn;

impl Guard for SignedIn {
    async fn check(&self, ctx: &Context<'_>) -> Result<()> {
        begin(ctx);
        ctx.actor().map(drop).map_err(top_level)
    }
}

/// Anybody may: signing in needs no credential.
pub struct Anybody;

impl Guard for Anybody {
    async fn check(&self, ctx: &Context<'_>) -> Result<()> {
        begin(ctx);
        Ok(())
    }
}

/// The root fields of a mutation run one after the other, so nothing reads through the view that is forgotten here.
fn begin(ctx: &Context<'_>) {
    let at_root = ctx.path_node.is_some_and(|node| node.parent.is_none());
    if at_root && ctx.query_env.operation.node.ty == OperationType::Mutation {
        ctx.operation().renew_view();
    }
}
