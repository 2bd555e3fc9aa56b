//! The GraphQL schema: types wrap the rows of `mdl`, resolvers translate. See `context` for what a resolver is given.

pub mod connection;
pub mod context;
pub mod domains;
pub mod error;
pub mod filter;
pub mod global_id;
pub mod guard;
pub mod input;
pub mod loaders;
pub mod metrics;
pub mod node;
pub mod objectives;
mod payload;
pub mod stats;
