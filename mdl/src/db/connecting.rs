//! Why a pool has no connections: it says by itself only that it took too long.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bb8::RunError;

use crate::error::{BoxError, causes};

/// How long a failure to connect explains why nobody gets a connection: the pool tries again all the time.
const RECENT: Duration = Duration::from_secs(60);

/// The last failure to connect, until it works again.
#[derive(Debug, Clone, Default)]
pub struct LastFailure(Arc<Mutex<Option<(Instant, String)>>>);

impl LastFailure {
    /// Keeps why connecting failed, or forgets it after a success.
    pub fn note(&self, error: Option<&dyn std::error::Error>) {
        // Neither PostgreSQL nor its client repeats a password.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = error.map(|error| (Instant::now(), causes(error)));
    }

    /// Why nobody got a connection.
    pub fn explain<E: std::error::Error + Send + Sync + 'static>(&self, error: RunError<E>) -> BoxError {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let why = last.and_then(|(at, why)| (at.elapsed() < RECENT).then_some(why));
        match (error, why) {
            (RunError::TimedOut, Some(why)) => why.into(),
            (RunError::TimedOut, None) => NoneFree.into(),
            (RunError::User(error), _) => error.into(),
        }
    }
}

/// All connections were in use, or the server was silent.
#[derive(Debug)]
struct NoneFree;

impl fmt::Display for NoneFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection was free or could be made in time")
    }
}

impl std::error::Error for NoneFree {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_until_connecting_works() {
        let last = LastFailure::default();
        let told = || last.explain(RunError::<std::fmt::Error>::TimedOut).to_string();
        let refused = std::io::Error::other("connection refused");
        last.note(Some(&refused));
        assert_eq!(told(), "connection refused");
        last.note(None);
        assert!(told().starts_with("no connection was free"), "{}", told());
    }
}
