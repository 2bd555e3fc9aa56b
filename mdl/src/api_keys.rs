//! Credentials of programs.
