//! The GraphQL server: HTTP in front, `mdl` behind.

pub mod graphql;
