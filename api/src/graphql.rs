//! The GraphQL schema: types wrap the rows of `mdl`, resolvers translate. See `context` for what a resolver is given.

pub mod api_keys;
pub mod backups;
pub mod cache;
pub mod connection;
pub mod context;
pub mod documents;
pub mod domains;
pub mod eager;
pub mod error;
pub mod executor;
pub mod filter;
pub mod global_id;
pub mod guard;
pub mod imports;
pub mod input;
pub mod limits;
pub mod loaders;
pub mod metrics;
pub mod node;
pub mod objectives;
mod payload;
pub mod schema;
pub mod sessions;
pub mod stats;
pub mod users;
