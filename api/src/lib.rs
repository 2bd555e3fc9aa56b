//! The GraphQL server: HTTP in front, `mdl` behind.

pub mod auth;
pub mod cache;
pub mod cli;
pub mod documents;
pub mod graphql;
pub mod http;
pub mod live;
pub mod performance;
pub mod rate_limit;
