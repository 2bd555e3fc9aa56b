//! The limits on the same machine: PostgreSQL with the statements that the API really sends, and HTTP with the same bytes.
//!
//! What one request asked of PostgreSQL is taken from PostgreSQL's own log ([`log`]) and made into a script for pgbench
//! ([`script`]), so that nobody has to keep a copy of the statements, which would drift from what the API sends.

pub mod log;
pub mod script;
pub mod serve;
