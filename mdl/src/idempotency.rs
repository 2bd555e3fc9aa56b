//! Answers of mutations sent with Idempotency-Key.
