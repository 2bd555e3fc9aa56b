//! Everything that needs a real PostgreSQL and a real Redis.

mod jobs_bench;
mod jobs_outages;
mod jobs_outcomes;
