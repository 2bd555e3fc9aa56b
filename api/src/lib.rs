//! The GraphQL server: HTTP in front, `mdl` behind.

pub mod auth;
pub mod graphql;
pub mod rate_limit;
