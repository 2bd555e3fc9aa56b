//! Objectives and key results.
