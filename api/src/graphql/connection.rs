//! Relay connections from our pages.

use std::borrow::Cow;

use async_graphql::connection::PageInfo;
use async_graphql::{Context, Object, ObjectType, TypeName};
use mdl::page::{Page, cursor};
use serde::Serialize;

use super::eager::{Eager, EagerList, Plain, WriteJson};

/// A page of nodes, with further fields (`totalCount`).
pub struct Connection<Node, Fields> {
    edges: Vec<Edge<Node>>,
    has_previous_page: bool,
    has_next_page: bool,
    fields: Fields,
}

struct Edge<Node> {
    cursor: String,
    node: Node,
}

/// A connection from a page whose items come with their positions.
pub fn connection<T, P, Node, Fields>(
    ctx: &Context<'_>,
    page: Page<(T, P)>,
    fields: Fields,
    wrap: impl Fn(T) -> Node,
) -> Connection<Node, Fields>
where
    P: Serialize,
{
    // Who selects no edges sees two cursors at most, those of `pageInfo`.
    let with_edges = ctx.look_ahead().field("edges").exists();
    let last = page.items.len().saturating_sub(1);
    let edge = |(place, (item, position)): (usize, (T, P))| {
        let seen = with_edges || place == 0 || place == last;
        Edge { cursor: if seen { cursor(&position) } else { String::new() }, node: wrap(item) }
    };
    Connection {
        edges: page.items.into_iter().enumerate().map(edge).collect(),
        has_previous_page: page.has_previous,
        has_next_page: page.has_next,
        fields,
    }
}

#[Object(name_type)]
impl<Node: Plain, Fields: ObjectType> Connection<Node, Fields> {
    /// Information to aid in pagination.
    fn page_info(&self) -> PageInfo {
        PageInfo {
            has_previous_page: self.has_previous_page,
            has_next_page: self.has_next_page,
            start_cursor: self.edges.first().map(|edge| edge.cursor.clone()),
            end_cursor: self.edges.last().map(|edge| edge.cursor.clone()),
        }
    }

    /// A list of edges.
    fn edges(&self) -> EagerList<&Edge<Node>> {
        EagerList(self.edges.iter().collect())
    }

    /// A list of nodes.
    fn nodes(&self) -> EagerList<&Node> {
        EagerList(self.edges.iter().map(|edge| &edge.node).collect())
    }

    #[graphql(flatten)]
    fn fields(&self) -> &Fields {
        &self.fields
    }
}

impl<Node: Plain, Fields: ObjectType> TypeName for Connection<Node, Fields> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Connection", Node::type_name()).into()
    }
}

/// An edge in a connection.
#[Object(name_type)]
impl<Node: Plain> Edge<Node> {
    /// A cursor for use in pagination
    fn cursor(&self) -> &str {
        &self.cursor
    }

    /// The item at the end of the edge
    fn node(&self) -> Eager<&Node> {
        Eager(&self.node)
    }
}

impl<Node: Plain> TypeName for Edge<Node> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Edge", Node::type_name()).into()
    }
}

impl<Node: Plain> Plain for Edge<Node> {
    fn write(&self, field: &str, _: &Context<'_>, json: &mut Vec<u8>) -> bool {
        let at_hand = field == "cursor";
        if at_hand {
            self.cursor.write(json);
        }
        at_hand
    }
}
