//! [`mdl::global_id`], as values of GraphQL.

use async_graphql::ID;
use mdl::error::{Code, Error};
pub use mdl::global_id::Kind;
use uuid::Uuid;

/// The id of a thing, as callers see it.
pub fn encode(kind: Kind, id: Uuid) -> ID {
    ID(mdl::global_id::encode(kind, id))
}

/// What an id stands for; `None` if it was not made by [`encode`].
pub fn decode(id: &ID) -> Option<(Kind, Uuid)> {
    mdl::global_id::decode(id)
}

/// The id of a thing of one kind, or its UUID as logs and the terminal show it, given as the argument `field`.
pub fn expect(field: &str, kind: Kind, id: &ID) -> mdl::Result<Uuid> {
    mdl::global_id::expect(kind, id).map_err(|why| Error::invalid(field, Code::Invalid, why))
}
