//! Everything that needs a real PostgreSQL and a real Redis.

#![expect(clippy::unwrap_used, reason = "what a test does not expect should end it there")]

mod authorization;
mod catalog_changes;
mod catalog_loading;
mod import_outages;
mod imports;
mod jobs_bench;
mod jobs_outages;
mod jobs_outcomes;
mod migrations;
mod root_fields;
mod sign_in;
mod snapshots;
mod tenancy;
mod two_tenants;
