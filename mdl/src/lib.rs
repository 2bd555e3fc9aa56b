//! What MDL is, apart from how it is asked: the catalog, the people who may touch it, and the ledgers of jobs, events and
//! audit that every change writes to.
//!
//! Features (`domains`, `metrics`, `objectives`, `imports`, `users`, …) use the infrastructure modules, never the reverse.
//! A feature's `store` functions borrow a connection and take the tenant first; its operations own the transaction.

pub mod actor;
pub mod api_keys;
pub mod app;
pub mod audit;
pub mod backups;
pub mod config;
pub mod cron;
pub mod db;
pub mod documents;
pub mod domains;
pub mod error;
pub mod events;
pub mod exports;
pub mod extra;
pub mod global_id;
pub mod idempotency;
pub mod ids;
pub mod imports;
pub mod instruments;
pub mod jobs;
pub mod lazy_redis;
pub mod maintenance;
pub mod metrics;
pub mod migrations;
pub mod objectives;
pub mod outbound;
pub mod output;
pub mod page;
pub mod passwords;
pub mod schedules;
pub mod schema;
pub mod sealing;
pub mod sessions;
pub mod storage;
pub mod telemetry;
pub mod tenants;
pub mod text;
pub mod tokens;
pub mod users;
pub mod versions;
pub mod warming;
pub mod webhooks;

pub use actor::Actor;
pub use app::App;
pub use error::{Error, Result};
