//! People, and what their membership lets them do.
