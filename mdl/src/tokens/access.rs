//! Access tokens: JWTs signed with Ed25519, which every instance can check by itself.
//!
//! The key that signs now is one file; keys that signed before stay accepted until they are taken off the list. A token
//! names its key in `kid`. No other algorithm is ever accepted, whatever a token's header says. The role is not in the token:
//! it is looked up with the membership, so that a change works at once.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, bail};
use chrono::{DateTime, TimeDelta, Utc};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey};
use ed25519_dalek::{SigningKey, VerifyingKey};
use hmac::{Hmac, Mac};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::warn;
use zeroize::Zeroizing;

use crate::config::AuthConfig;
use crate::error::{Error, Result};
use crate::ids::{SessionId, TenantId, UserId};

const REFUSED: Error = Error::Unauthenticated("The access token is not valid, or no longer");

/// What the key of [`Keys::blind`] is derived from the signing key by.
const BLINDING: &[u8] = b"mdl: hashes of requests with an idempotency key";

/// What an access token says. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub aud: String,
    pub sub: UserId,
    /// The tenant.
    pub tid: TenantId,
    /// The session that the token belongs to; it ends with it.
    pub sid: SessionId,
    pub iat: i64,
    pub exp: i64,
}

/// A signed token and when it ends.
pub struct AccessToken {
    pub text: String,
    pub expires_at: DateTime<Utc>,
}

/// The keys that sign and check access tokens, and what the tokens must say.
pub struct Keys {
    signing: EncodingKey,
    /// Derived from the signing key.
    blinding: Zeroizing<[u8; 32]>,
    header: Header,
    accepted: HashMap<String, DecodingKey>,
    validation: Validation,
    issuer: String,
    audience: String,
    lifetime: TimeDelta,
}

impl Keys {
    /// Reads the key files. Fails with a sentence that names the file which is missing or holds no Ed25519 key. Retired keys
    /// may be private or public keys.
    pub fn load(config: &AuthConfig) -> anyhow::Result<Self> {
        let signing = match &config.signing_key_file {
            Some(file) => read_signing_key(file).map_err(|error| named("MDL_SIGNING_KEY_FILE", &error))?,
            None => {
                warn!(
                    "No signing key is set (MDL_SIGNING_KEY_FILE): access tokens end with this process, and no other accepts them"
                );
                random_key()
            }
        };
        let retired = config.retired_key_files.iter().map(|file| read_public_key(file)).collect::<anyhow::Result<Vec<_>>>();
        let retired = retired.map_err(|error| named("MDL_RETIRED_KEY_FILES", &error))?;

        let public = signing.verifying_key();
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(key_id(&public));
        let accepted =
            retired.iter().chain([&public]).map(|key| (key_id(key), DecodingKey::from_ed_der(key.as_bytes()))).collect();

        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = 0;
        validation.set_issuer(&[&config.token_issuer]);
        validation.set_audience(&[&config.token_audience]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);

        Ok(Self {
            signing: EncodingKey::from_ed_der(signing.to_pkcs8_der().context("Could not encode the signing key")?.as_bytes()),
            blinding: Zeroizing::new(mac(signing.as_bytes(), BLINDING)),
            header,
            accepted,
            validation,
            issuer: config.token_issuer.clone(),
            audience: config.token_audience.clone(),
            lifetime: TimeDelta::minutes(config.access_token_minutes),
        })
    }

    /// Signs a token for a session. It ends with the session at the latest.
    pub fn issue(&self, tenant: TenantId, user: UserId, session: SessionId, session_ends: DateTime<Utc>) -> Result<AccessToken> {
        let now = Utc::now();
        let expires_at = (now + self.lifetime).min(session_ends);
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: user,
            tid: tenant,
            sid: session,
            iat: now.timestamp(),
            exp: expires_at.timestamp(),
        };
        let text = jsonwebtoken::encode(&self.header, &claims, &self.signing).map_err(Error::internal)?;
        Ok(AccessToken { text, expires_at })
    }

    /// Checks key, signature, issuer, audience and time. What this does not know is whether the session was revoked: see
    /// [`crate::sessions::actor`].
    pub fn verify(&self, token: &str) -> Result<Claims> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| REFUSED)?;
        let key = header.kid.and_then(|kid| self.accepted.get(&kid)).ok_or(REFUSED)?;
        let token = jsonwebtoken::decode::<Claims>(token, key, &self.validation).map_err(|_| REFUSED)?;
        Ok(token.claims)
    }

    /// What is stored of a request in place of its hash: its variables may hold a password, which nobody is to guess with the database
    /// alone. The same in every process with this signing key, and another one after that key was changed.
    pub fn blind(&self, hash: &[u8; 32]) -> [u8; 32] {
        mac(&self.blinding, hash)
    }
}

/// What is wrong with the files of a setting.
fn named(setting: &str, error: &anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("{setting}: {error:#}")
}

/// A new private key for [`AuthConfig::signing_key_file`]: PKCS#8, PEM.
///
/// ```
/// assert!(mdl::tokens::generate_key_pem().starts_with("-----BEGIN PRIVATE KEY-----\n"));
/// ```
pub fn generate_key_pem() -> String {
    // Encoding a key just made cannot fail.
    random_key().to_pkcs8_pem(LineEnding::LF).expect("a new key can be encoded").to_string()
}

/// HMAC-SHA256.
fn mac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn random_key() -> SigningKey {
    let mut seed = Zeroizing::new([0; 32]);
    rand::rng().fill(&mut seed[..]);
    SigningKey::from_bytes(&seed)
}

/// The first 16 hexadecimal digits of the SHA-256 of the public key.
fn key_id(key: &VerifyingKey) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(key.as_bytes())[..8])
}

fn read_pem(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let pem = std::fs::read_to_string(file).with_context(|| format!("Could not read the key file {}", file.display()))?;
    Ok(Zeroizing::new(pem))
}

fn read_signing_key(file: &Path) -> anyhow::Result<SigningKey> {
    SigningKey::from_pkcs8_pem(&read_pem(file)?).with_context(|| {
        format!("{} does not hold an Ed25519 private key (PKCS#8 PEM, as mdl-api keygen makes it)", file.display())
    })
}

fn read_public_key(file: &Path) -> anyhow::Result<VerifyingKey> {
    let pem = read_pem(file)?;
    if let Ok(private) = SigningKey::from_pkcs8_pem(&pem) {
        return Ok(private.verifying_key());
    }
    match VerifyingKey::from_public_key_pem(&pem) {
        Ok(public) => Ok(public),
        Err(_) => bail!("{} does not hold an Ed25519 key (PEM), private or public", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Config;

    fn config() -> AuthConfig {
        Config::from_arguments(["test"]).unwrap().auth
    }

    fn key_file(name: &str, content: &str) -> PathBuf {
        let file = std::env::temp_dir().join(format!("mdl-{name}-{}.pem", uuid::Uuid::now_v7()));
        std::fs::write(&file, content).unwrap();
        file
    }

    fn issue(keys: &Keys) -> AccessToken {
        keys.issue(TenantId::new(), UserId::new(), SessionId::new(), Utc::now() + TimeDelta::days(1)).unwrap()
    }

    #[test]
    fn accepts_its_own_tokens() {
        let keys = Keys::load(&config()).unwrap();
        let (tenant, user, session) = (TenantId::new(), UserId::new(), SessionId::new());
        let token = keys.issue(tenant, user, session, Utc::now() + TimeDelta::days(1)).unwrap();
        let claims = keys.verify(&token.text).unwrap();
        assert_eq!((claims.tid, claims.sub, claims.sid), (tenant, user, session));
        assert_eq!(claims.exp - claims.iat, 15 * 60);
    }

    #[test]
    fn ends_with_the_session() {
        let keys = Keys::load(&config()).unwrap();
        let end = Utc::now() + TimeDelta::minutes(2);
        assert_eq!(keys.issue(TenantId::new(), UserId::new(), SessionId::new(), end).unwrap().expires_at, end);
        let ended = keys.issue(TenantId::new(), UserId::new(), SessionId::new(), Utc::now() - TimeDelta::seconds(1)).unwrap();
        assert!(keys.verify(&ended.text).is_err());
    }

    #[test]
    fn refuses_other_keys_algorithms_issuers_and_audiences() {
        let keys = Keys::load(&config()).unwrap();
        assert!(Keys::load(&config()).unwrap().verify(&issue(&keys).text).is_err());
        assert!(keys.verify("").is_err());
        assert!(keys.verify("a.b.c").is_err());

        // The same kid, signed with the public key as an HMAC secret, or not at all.
        let token = issue(&keys);
        let claims = keys.verify(&token.text).unwrap();
        let mut header = keys.header.clone();
        header.alg = Algorithm::HS256;
        let forged = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(b"public")).unwrap();
        assert!(keys.verify(&forged).is_err());
        let payload = token.text.split('.').nth(1).unwrap();
        let none = data_encoding::BASE64URL_NOPAD
            .encode(format!(r#"{{"alg":"none","kid":"{}"}}"#, keys.header.kid.as_ref().unwrap()).as_bytes());
        assert!(keys.verify(&format!("{none}.{payload}.")).is_err());

        for change in [
            |claims: &mut Claims| claims.iss = "other".to_owned(),
            |claims: &mut Claims| claims.aud = "other".to_owned(),
            |claims: &mut Claims| claims.exp -= 15 * 60 + 1,
        ] {
            let mut claims = claims.clone();
            change(&mut claims);
            let token = jsonwebtoken::encode(&keys.header, &claims, &keys.signing).unwrap();
            assert!(keys.verify(&token).is_err(), "{claims:?}");
        }
    }

    #[test]
    fn accepts_retired_keys_until_they_are_gone() {
        let (old, new) = (key_file("old", &generate_key_pem()), key_file("new", &generate_key_pem()));
        let mut config = config();
        config.signing_key_file = Some(old.clone());
        let token = issue(&Keys::load(&config).unwrap());

        config.signing_key_file = Some(new.clone());
        assert!(Keys::load(&config).unwrap().verify(&token.text).is_err());
        config.retired_key_files = vec![old.clone()];
        assert!(Keys::load(&config).unwrap().verify(&token.text).is_ok());
        for file in [old, new] {
            std::fs::remove_file(file).unwrap();
        }
    }

    #[test]
    fn hashes_are_blinded_by_the_signing_key() {
        let file = key_file("blinding", &generate_key_pem());
        let mut config = config();
        let hash = [7; 32];
        let other = Keys::load(&config).unwrap().blind(&hash);
        config.signing_key_file = Some(file.clone());
        let blind = || Keys::load(&config).unwrap().blind(&hash);
        assert_eq!(blind(), blind());
        assert!(blind() != hash && blind() != other);
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn refuses_a_bad_file_by_its_name() {
        let file = key_file("bad", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        let mut config = config();
        config.signing_key_file = Some(file.clone());
        let error = Keys::load(&config).err().unwrap().to_string();
        assert!(error.contains(&file.display().to_string()) && error.contains("Ed25519"), "{error}");
        std::fs::remove_file(&file).unwrap();
        let error = Keys::load(&config).err().unwrap().to_string();
        assert!(
            error.starts_with("MDL_SIGNING_KEY_FILE: Could not read the key file") && error.contains(&file.display().to_string()),
            "{error}"
        );

        config.signing_key_file = None;
        config.retired_key_files = vec![file];
        assert!(Keys::load(&config).is_err());
    }
}
