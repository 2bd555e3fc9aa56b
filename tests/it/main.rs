//! Everything that needs a real PostgreSQL and a real Redis.

#![expect(clippy::unwrap_used, reason = "what a test does not expect should end it there")]

mod catalog_loading;
mod imports;
mod jobs_bench;
mod jobs_outages;
mod jobs_outcomes;
mod migrations;
mod sign_in;
mod tenancy;
