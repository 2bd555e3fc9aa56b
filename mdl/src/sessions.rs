//! Sign-in, and the refresh tokens that descend from it.
