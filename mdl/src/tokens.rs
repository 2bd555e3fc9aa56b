//! Credentials as text: access tokens, refresh tokens, API keys.
//!
//! A refresh token and an API key name their tenant and their row, so that checking one never needs to look across tenants:
//! after the prefix comes base32 (lower case, no padding) of tenant (16 bytes), id (16 bytes) and a random secret (32 bytes).
//! Only the SHA-256 of the secret is stored. The secret is random, so that a slow hash would add nothing.
//!
//! An access token is a JWT, checked without asking anybody: see [`Keys`].

mod access;

use std::fmt;

use data_encoding::BASE32_NOPAD;
use rand::Rng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

pub use access::{AccessToken, Claims, Keys, generate_key_pem};

use crate::ids::{ApiKeyId, TenantId};

/// Bytes of tenant, id and secret.
const LENGTH: usize = 16 + 16 + 32;

/// The 32 random bytes of a credential. Never shown in debug output; wiped when dropped.
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    fn random() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rand::rng().fill(&mut bytes[..]);
        Self(bytes)
    }

    /// What is stored in place of the secret: its SHA-256.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.0[..]).into()
    }

    /// Whether this is the secret that was stored as `hash`. Takes as long for a wrong one as for the right one.
    pub fn matches(&self, hash: &[u8]) -> bool {
        self.hash().ct_eq(hash).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The text is not a credential of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Not a credential of this kind")]
pub struct Malformed;

/// An API key as its holder knows it.
///
/// ```
/// use mdl::ids::{ApiKeyId, TenantId};
/// use mdl::tokens::ApiKeyText;
///
/// let key = ApiKeyText::new(TenantId::new(), ApiKeyId::new());
/// let text = key.reveal();
/// assert!(text.starts_with("mdl_") && text.len() == 107);
///
/// let parsed: ApiKeyText = text.parse()?;
/// assert_eq!((parsed.tenant, parsed.id), (key.tenant, key.id));
/// assert!(parsed.secret.matches(&key.secret.hash()));
///
/// // Debug output names the key and keeps its secret.
/// assert!(!format!("{key:?}").contains(&text[60..]));
/// assert!("mdl_abc".parse::<ApiKeyText>().is_err());
/// assert!(text.to_uppercase().parse::<ApiKeyText>().is_err());
/// # Ok::<(), mdl::tokens::Malformed>(())
/// ```
#[derive(Debug)]
pub struct ApiKeyText {
    pub tenant: TenantId,
    pub id: ApiKeyId,
    pub secret: Secret,
}

impl ApiKeyText {
    pub const PREFIX: &str = "mdl_";

    /// A new key with a secret of its own.
    pub fn new(tenant: TenantId, id: ApiKeyId) -> Self {
        Self { tenant, id, secret: Secret::random() }
    }

    /// The whole key, to be shown to its holder once.
    pub fn reveal(&self) -> String {
        write(Self::PREFIX, self.tenant.0, self.id.0, &self.secret)
    }
}

impl std::str::FromStr for ApiKeyText {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (tenant, id, secret) = read(Self::PREFIX, text)?;
        Ok(Self { tenant: TenantId(tenant), id: ApiKeyId(id), secret })
    }
}

/// A refresh token as its holder knows it. It works once.
///
/// ```
/// use mdl::ids::TenantId;
/// use mdl::tokens::{ApiKeyText, RefreshTokenText};
///
/// let token = RefreshTokenText::new(TenantId::new());
/// let text = token.reveal();
/// assert!(text.starts_with("mdlr_"));
/// assert_eq!(text.parse::<RefreshTokenText>()?.id, token.id);
/// assert!(text.parse::<ApiKeyText>().is_err());
/// # Ok::<(), mdl::tokens::Malformed>(())
/// ```
#[derive(Debug)]
pub struct RefreshTokenText {
    pub tenant: TenantId,
    /// Id of the row in `refresh_tokens`.
    pub id: Uuid,
    pub secret: Secret,
}

impl RefreshTokenText {
    pub const PREFIX: &str = "mdlr_";

    /// A new token with an id and a secret of its own.
    pub fn new(tenant: TenantId) -> Self {
        Self { tenant, id: Uuid::now_v7(), secret: Secret::random() }
    }

    /// The whole token, to be given to its holder.
    pub fn reveal(&self) -> String {
        write(Self::PREFIX, self.tenant.0, self.id, &self.secret)
    }
}

impl std::str::FromStr for RefreshTokenText {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (tenant, id, secret) = read(Self::PREFIX, text)?;
        Ok(Self { tenant: TenantId(tenant), id, secret })
    }
}

fn write(prefix: &str, tenant: Uuid, id: Uuid, secret: &Secret) -> String {
    let mut bytes = Zeroizing::new([0; LENGTH]);
    bytes[..16].copy_from_slice(tenant.as_bytes());
    bytes[16..32].copy_from_slice(id.as_bytes());
    bytes[32..].copy_from_slice(&secret.0[..]);
    let mut text = BASE32_NOPAD.encode(&bytes[..]);
    text.make_ascii_lowercase();
    text.insert_str(0, prefix);
    text
}

fn read(prefix: &str, text: &str) -> Result<(Uuid, Uuid, Secret), Malformed> {
    let body = text.strip_prefix(prefix).ok_or(Malformed)?;
    // One text for one key: upper case is not another spelling.
    if body.len() != BASE32_NOPAD.encode_len(LENGTH) || body.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(Malformed);
    }
    let bytes = Zeroizing::new(BASE32_NOPAD.decode(body.to_ascii_uppercase().as_bytes()).map_err(|_| Malformed)?);
    let mut secret = Zeroizing::new([0; 32]);
    secret.copy_from_slice(bytes.get(32..LENGTH).ok_or(Malformed)?);
    let id = |bytes: &[u8]| Uuid::from_slice(bytes).map_err(|_| Malformed);
    Ok((id(&bytes[..16])?, id(&bytes[16..32])?, Secret(secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_wrote() {
        let (tenant, id, secret) = (Uuid::now_v7(), Uuid::now_v7(), Secret::random());
        let text = write("mdl_", tenant, id, &secret);
        let (tenant_read, id_read, secret_read) = read("mdl_", &text).unwrap();
        assert_eq!((tenant, id), (tenant_read, id_read));
        assert_eq!(secret.0, secret_read.0);
        assert!(text[4..].bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b)));
    }

    #[test]
    fn refuses_every_other_text() {
        let text = write("mdl_", Uuid::now_v7(), Uuid::now_v7(), &Secret::random());
        let body = &text[4..];
        for bad in [
            String::new(),
            "mdl_".to_owned(),
            body.to_owned(),
            format!("mdlr_{body}"),
            format!("mdl_{body}a"),
            format!("mdl_{}", &body[1..]),
            format!("mdl_1{}", &body[1..]),
            format!("mdl_{}b", &body[..102]), // bits beyond the last byte
            format!("mdl_ü{}", &body[2..]),
            format!(" {text}"),
        ] {
            assert!(read("mdl_", &bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn another_secret_does_not_match() {
        let secret = Secret::random();
        assert!(secret.matches(&secret.hash()));
        assert!(!secret.matches(&Secret::random().hash()));
        assert!(!secret.matches(b"short"));
    }
}
