//! Everything that needs a real PostgreSQL and a real Redis.

#![expect(clippy::unwrap_used, reason = "what a test does not expect should end it there")]

mod api_keys;
mod authorization;
mod cache;
mod cache_hammer;
mod cache_outages;
mod cache_truth;
mod catalog_changes;
mod catalog_loading;
mod document_clients;
mod document_modes;
mod document_variables;
mod documents;
mod domains;
mod events;
mod graphiql;
mod graphql_http;
mod http;
mod idempotency;
mod import_outages;
mod imports;
mod jobs_bench;
mod jobs_outages;
mod jobs_outcomes;
mod load;
mod metric_lineage;
mod metric_lists;
mod metrics;
mod migrations;
mod objectives;
mod performance;
mod plain_fields;
mod queues_operating;
mod queues_schedules;
mod queues_semantics;
mod replicas;
mod root_fields;
mod sign_in;
mod snapshots;
mod statements;
mod tenancy;
mod two_tenants;
mod users;
mod warming;
mod warming_effect;
