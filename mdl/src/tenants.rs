//! Companies that share this deployment and nothing else.
