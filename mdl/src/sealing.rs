//! Secrets that we have to know again, unlike passwords: encrypted before they are stored.
//!
//! Each is sealed together with what it belongs to, which is not stored with it: a sealed secret that is copied into another
//! row does not open. The form is a version byte (1), the key's mark (4 bytes), a random nonce (24 bytes) and the text of
//! XChaCha20-Poly1305, with its tag.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use rand::Rng;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

const VERSION: u8 = 1;
const MARK: std::ops::Range<usize> = 1..5;
const NONCE: std::ops::Range<usize> = 5..29;

/// A key as the settings have it: 32 random bytes in Base64.
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; 32]>);

impl SealingKey {
    /// Tells keys apart without telling the key.
    fn mark(&self) -> [u8; 4] {
        let hash = Sha256::digest(&self.0[..]);
        [hash[0], hash[1], hash[2], hash[3]]
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

/// Why a setting is no key.
#[derive(Debug, thiserror::Error)]
#[error("a key is 32 random bytes in Base64, as `openssl rand -base64 32` prints them")]
pub struct NotAKey;

impl FromStr for SealingKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| NotAKey)?);
        let key: [u8; 32] = bytes[..].try_into().map_err(|_| NotAKey)?;
        Ok(Self(Zeroizing::new(key)))
    }
}

/// Seals with the first of its keys, and opens with all of them. Cheap to clone.
#[derive(Clone)]
pub struct Sealer(Arc<[([u8; 4], XChaCha20Poly1305)]>);

impl Sealer {
    pub fn new(keys: &[SealingKey]) -> Self {
        Self(keys.iter().map(|key| (key.mark(), XChaCha20Poly1305::new((&*key.0).into()))).collect())
    }

    /// Encrypts a secret of the thing with this id. `Unavailable` when there is no key.
    pub fn seal(&self, secret: &[u8], of: Uuid) -> Result<Vec<u8>> {
        let Some((mark, cipher)) = self.0.first() else {
            return Err(Error::unavailable("Encryption of webhook secrets (MDL_WEBHOOK_KEYS is not set)", "no key"));
        };
        let mut nonce = [0; 24];
        rand::rng().fill(&mut nonce);
        let payload = Payload { msg: secret, aad: of.as_bytes() };
        let text = cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| Error::internal("cannot encrypt"))?;
        Ok([&[VERSION][..], mark, &nonce, &text].concat())
    }

    /// Decrypts what [`Sealer::seal`] made for the same thing. `Unavailable` when its key is not among ours.
    pub fn open(&self, sealed: &[u8], of: Uuid) -> Result<Zeroizing<Vec<u8>>> {
        if sealed.len() < NONCE.end || sealed[0] != VERSION {
            return Err(Error::internal("not a sealed secret"));
        }
        let Some((_, cipher)) = self.0.iter().find(|(mark, _)| mark[..] == sealed[MARK]) else {
            let service = "Decryption of webhook secrets (MDL_WEBHOOK_KEYS lacks the key that encrypted one)";
            return Err(Error::unavailable(service, "no such key"));
        };
        let nonce: [u8; 24] = sealed[NONCE].try_into().map_err(Error::internal)?;
        let payload = Payload { msg: &sealed[NONCE.end..], aad: of.as_bytes() };
        let secret = cipher.decrypt(&XNonce::from(nonce), payload);
        secret.map(Zeroizing::new).map_err(|_| Error::internal("a secret does not belong where it is stored"))
    }

    /// Whether it was sealed with the key that seals now. Others are to be sealed again before their key is given up.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        self.0.first().is_some_and(|(mark, _)| sealed.get(MARK) == Some(&mark[..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SealingKey {
        STANDARD.encode([byte; 32]).parse().unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_for_the_same_thing() {
        let (old, both) = (Sealer::new(&[key(1)]), Sealer::new(&[key(2), key(1)]));
        let id = Uuid::now_v7();
        let sealed = old.seal(b"secret", id).unwrap();
        assert_ne!(sealed, old.seal(b"secret", id).unwrap(), "the nonce is random");
        assert_eq!(&both.open(&sealed, id).unwrap()[..], b"secret");
        assert!(!both.is_current(&sealed) && both.is_current(&both.seal(b"secret", id).unwrap()));

        assert!(old.open(&sealed, Uuid::now_v7()).is_err(), "it belongs to somebody else");
        let error = Sealer::new(&[key(2)]).open(&sealed, id).unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }) && error.to_string().contains("MDL_WEBHOOK_KEYS lacks"), "{error}");
        for at in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[at] ^= 1;
            assert!(old.open(&broken, id).is_err(), "byte {at} was changed");
            assert!(old.open(&sealed[..at], id).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn without_a_key_nothing_is_sealed() {
        let error = Sealer::new(&[]).seal(b"secret", Uuid::nil()).unwrap_err();
        assert!(error.to_string().contains("MDL_WEBHOOK_KEYS is not set"), "{error}");
        assert!("c2hvcnQ=".parse::<SealingKey>().is_err());
    }
}
