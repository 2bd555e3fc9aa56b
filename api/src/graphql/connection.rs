//! Relay connections from our pages.

use async_graphql::connection::{Connection, Edge, EmptyFields};
use async_graphql::{ObjectType, OutputType};
use mdl::page::{Page, cursor};
use serde::Serialize;

/// A connection with further fields (`totalCount`), from a page whose items come with their positions.
pub fn connection<T, P, Node, Fields>(
    page: Page<(T, P)>,
    fields: Fields,
    wrap: impl Fn(T) -> Node,
) -> Connection<String, Node, Fields>
where
    P: Serialize,
    Node: OutputType,
    Fields: ObjectType,
{
    let mut connection = Connection::with_additional_fields(page.has_previous, page.has_next, fields);
    connection.edges = page.items.into_iter().map(|(item, position)| Edge::new(cursor(&position), wrap(item))).collect();
    connection
}

/// A connection without further fields.
pub fn plain_connection<T, P, Node>(page: Page<(T, P)>, wrap: impl Fn(T) -> Node) -> Connection<String, Node>
where
    P: Serialize,
    Node: OutputType,
{
    connection(page, EmptyFields, wrap)
}
