//! Everything that needs a real PostgreSQL and a real Redis.

#![expect(clippy::unwrap_used, reason = "what a test does not expect should end it there")]

mod api_keys;
mod domains;
mod graphiql;
mod graphql_http;
mod http;
mod idempotency;
mod jobs_bench;
mod jobs_outages;
mod jobs_outcomes;
mod metric_lineage;
mod metric_lists;
mod metrics;
mod migrations;
mod objectives;
mod sign_in;
mod statements;
mod tenancy;
mod users;
