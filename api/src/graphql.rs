//! The GraphQL schema: types wrap the rows of `mdl`, resolvers translate. See `context` for what a resolver is given.

pub mod connection;
pub mod context;
pub mod error;
pub mod global_id;
pub mod guard;
pub mod loaders;
