//! Credentials as text: access tokens, refresh tokens, API keys.
