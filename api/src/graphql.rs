//! The GraphQL schema: types wrap the rows of `mdl`, resolvers translate. See `context` for what a resolver is given.

pub mod api_keys;
pub mod connection;
pub mod context;
pub mod error;
pub mod executor;
pub mod global_id;
pub mod guard;
pub mod limits;
pub mod loaders;
pub mod schema;
pub mod sessions;
pub mod users;
