//! Who may use a field. Every root field carries one of these guards; a test fails when one does not.

use async_graphql::{Context, Guard, Result};
use mdl::actor::Permission;

use super::context::ContextExt;
use super::error::top_level;

/// The caller must be known and hold this permission.
pub struct Needs(pub Permission);

impl Guard for Needs {
    async fn check(&self, ctx: &Context<'_>) -> Result<()> {
        ctx.actor().and_then(|actor| actor.require(self.0)).map_err(top_level)
    }
}

/// The caller must be known.
pub struct SignedIn;

impl Guard for SignedIn {
    async fn check(&self, ctx: &Context<'_>) -> Result<()> {
        ctx.actor().map(drop).map_err(top_level)
    }
}

/// Anybody may: signing in needs no credential.
pub struct Anybody;

impl Guard for Anybody {
    async fn check(&self, _: &Context<'_>) -> Result<()> {
        Ok(())
    }
}
