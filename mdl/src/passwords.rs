//! Password hashes (argon2id), and what a password must be.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{Error as HashError, PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::text::Problems;

/// Shortest password, in characters.
pub const MIN_LENGTH: usize = 12;
/// Longest password, in characters.
pub const MAX_LENGTH: usize = 200;

/// Stands in for the hash of a user who does not exist. It has the parameters of a real one, so that checking a password
/// against it takes as long, and no password matches it: nobody knows one that hashes to these bytes.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGF0IGFsbCEh$QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE";

/// Hashes and checks passwords off the async threads, a bounded number at once: each takes 19 MiB and some milliseconds of a
/// core. Cheap to clone.
#[derive(Clone)]
pub struct Hasher {
    permits: Arc<Semaphore>,
}

/// What a check of a password found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    Wrong,
    Right,
    /// Right, but hashed with parameters that are no longer used: hash it again.
    RightButOutdated,
}

impl Hasher {
    /// At most `parallel` at once; others wait.
    pub fn new(parallel: u32) -> Self {
        Self { permits: Arc::new(Semaphore::new(parallel as usize)) }
    }

    /// The hash to store, in PHC string format, with a salt of its own.
    pub async fn hash(&self, password: &str) -> Result<String> {
        let password = Zeroizing::new(password.to_owned());
        self.run(move || Ok(PasswordHasher::<PasswordHash>::hash_password(&Argon2::default(), password.as_bytes())?.to_string()))
            .await
    }

    /// Checks a password. Without a hash (there is no such user) it takes as long and is wrong.
    pub async fn check(&self, password: &str, hash: Option<&str>) -> Result<Check> {
        let password = Zeroizing::new(password.to_owned());
        let known = hash.is_some();
        let hash = hash.unwrap_or(NOBODY).to_owned();
        self.run(move || {
            let hash = PasswordHash::new(&hash)?;
            match Argon2::default().verify_password(password.as_bytes(), &hash) {
                Ok(()) if !known => Ok(Check::Wrong),
                Ok(()) if is_current(&hash) => Ok(Check::Right),
                Ok(()) => Ok(Check::RightButOutdated),
                Err(HashError::PasswordInvalid) => Ok(Check::Wrong),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T, HashError> + Send + 'static) -> Result<T> {
        let permit: OwnedSemaphorePermit = self.permits.clone().acquire_owned().await.map_err(Error::internal)?;
        let result = tokio::task::spawn_blocking(move || {
            let result = work();
            // Kept until the work is done, even when the caller has gone away.
            drop(permit);
            result
        });
        result.await.map_err(Error::internal)?.map_err(Error::internal)
    }
}

fn is_current(hash: &PasswordHash) -> bool {
    hash.algorithm == argon2::ARGON2ID_IDENT
        && hash.version == Some(argon2::Version::default().into())
        && Params::try_from(hash).is_ok_and(|params| {
            let now = Params::DEFAULT;
            (params.m_cost(), params.t_cost(), params.p_cost()) == (now.m_cost(), now.t_cost(), now.p_cost())
        })
}

/// Adds what is wrong with a new password of the user with this (normalised) e-mail address.
pub fn check_policy(problems: &mut Problems, field: &str, password: &str, email: &str) {
    let length = password.chars().count();
    if length < MIN_LENGTH {
        problems.add(field, Code::Invalid, format!("A password has at least {MIN_LENGTH} characters"));
    } else if length > MAX_LENGTH {
        problems.add(field, Code::TooLong, format!("A password has at most {MAX_LENGTH} characters"));
    } else if password.trim().to_lowercase() == email {
        problems.add(field, Code::Invalid, "The password must not be the e-mail address");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn checks_what_it_hashed() {
        let hasher = Hasher::new(2);
        let hash = hasher.hash("correct horse battery").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_ne!(hash, hasher.hash("correct horse battery").await.unwrap());
        assert_eq!(hasher.check("correct horse battery", Some(&hash)).await.unwrap(), Check::Right);
        assert_eq!(hasher.check("correct horse batterz", Some(&hash)).await.unwrap(), Check::Wrong);
        assert_eq!(hasher.check("", Some(&hash)).await.unwrap(), Check::Wrong);
    }

    #[tokio::test]
    async fn asks_to_hash_again_when_the_parameters_are_old() {
        let weak = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, Params::new(8 * 1024, 1, 1, None).unwrap());
        let hash: PasswordHash = weak.hash_password(b"an old password").unwrap();
        let check = Hasher::new(1).check("an old password", Some(&hash.to_string())).await.unwrap();
        assert_eq!(check, Check::RightButOutdated);
    }

    #[tokio::test]
    async fn nobody_has_the_parameters_of_everybody() {
        assert!(is_current(&PasswordHash::new(NOBODY).unwrap()));
        assert_eq!(Hasher::new(1).check("anything", None).await.unwrap(), Check::Wrong);
    }

    #[tokio::test]
    async fn a_broken_hash_is_an_error() {
        assert!(Hasher::new(1).check("anything", Some("not a hash")).await.is_err());
    }

    #[test]
    fn says_what_a_password_must_be() {
        let messages = |password: &str| {
            let mut problems = Problems::default();
            check_policy(&mut problems, "password", password, "ada@example.com");
            problems.into_vec().into_iter().map(|p| p.to_string()).collect::<Vec<_>>()
        };
        assert!(messages("a long passphrase").is_empty());
        assert!(messages(&"ä".repeat(12)).is_empty());
        assert_eq!(messages("short"), ["password: A password has at least 12 characters"]);
        assert_eq!(messages(&"x".repeat(201)), ["password: A password has at most 200 characters"]);
        assert_eq!(messages("Ada@example.com "), ["password: The password must not be the e-mail address"]);
    }
}
