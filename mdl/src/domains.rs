//! Business domains.
