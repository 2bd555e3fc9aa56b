//! From a request's credential to the [`Actor`] it stands for.
//!
//! Two caches keep a busy credential from costing a signature check and SQL at each request. An access token's signature is
//! checked once, and what it says is kept until it expires. Whether the credential still holds (session and key not revoked,
//! user not suspended, role unchanged) is asked of PostgreSQL and kept for less than a second, so that a revocation reaches
//! every instance within one. Both are bounded, and keyed by the SHA-256 of the credential, never by the credential itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, header};
use chrono::{DateTime, Utc};
use mdl::tokens::{ApiKeyText, Claims, Keys};
use mdl::{Actor, App, Error, Result, api_keys, sessions};
use moka::Expiry;
use moka::future::Cache;
use sha2::{Digest, Sha256};

/// How long an answer of PostgreSQL about a credential is believed. With the time the question takes, below a second.
const RECHECK_AFTER: Duration = Duration::from_millis(800);
/// Credentials kept at most, in each of the two caches; each takes some 300 bytes.
const MAX_KEPT: u64 = 50_000;
/// Longest credential looked at, in bytes; ours are far below.
const MAX_LENGTH: usize = 4096;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

const MALFORMED: Error = Error::Unauthenticated("Send Authorization: Bearer, with an access token or an API key, or X-API-Key");

/// SHA-256 of a credential.
pub type Fingerprint = [u8; 32];

/// Checks credentials. Cheap to clone; all clones share their caches.
#[derive(Clone)]
pub struct Authenticator {
    app: App,
    keys: Arc<Keys>,
    /// What verified access tokens say, until they expire.
    verified: Cache<Fingerprint, Arc<Claims>>,
    /// Who credentials stand for, for [`RECHECK_AFTER`].
    holders: Cache<Fingerprint, Arc<Authenticated>>,
}

/// Who a credential stands for.
#[derive(Clone)]
pub struct Authenticated {
    pub actor: Actor,
    /// When the credential ends by itself. An API key's end is found when it is looked at again.
    expires_at: Option<DateTime<Utc>>,
}

impl Authenticated {
    /// Whether the credential has not ended by itself.
    fn holds(&self) -> bool {
        self.expires_at.is_none_or(|at| Utc::now() < at)
    }

    /// For how long the credential is good, if nobody takes it back.
    pub fn time_left(&self) -> Option<Duration> {
        self.expires_at.map(|at| (at - Utc::now()).to_std().unwrap_or(Duration::ZERO))
    }
}

/// A credential as it was sent.
enum Credential<'a> {
    AccessToken(&'a str),
    ApiKey(&'a str, ApiKeyText),
}

impl Credential<'_> {
    fn fingerprint(&self) -> Fingerprint {
        let (Credential::AccessToken(text) | Credential::ApiKey(text, _)) = self;
        Sha256::digest(text).into()
    }
}

impl Authenticator {
    pub fn new(app: App, keys: Arc<Keys>) -> Self {
        Self {
            app,
            keys,
            verified: Cache::builder().max_capacity(MAX_KEPT).expire_after(UntilExpired).build(),
            holders: Cache::builder().max_capacity(MAX_KEPT).time_to_live(RECHECK_AFTER).build(),
        }
    }

    /// The keys that access tokens are signed with.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Who sends this request: `Authorization: Bearer` with an access token or an API key, or `X-API-Key`. `None` without a
    /// credential. A credential that is malformed, refused or sent twice is an error, never the anonymous.
    ///
    /// The actor's `request_id` is left for the caller to fill in.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Option<Actor>> {
        Ok(self.holder(headers).await?.map(|holder| holder.actor.clone()))
    }

    /// As [`Authenticator::authenticate`], for a connection that stays open: with the end of the credential, where it is known
    /// from the beginning.
    pub async fn authenticate_live(&self, headers: &HeaderMap) -> Result<Option<Authenticated>> {
        Ok(self.holder(headers).await?.map(|holder| Authenticated::clone(&holder)))
    }

    /// Who sends this request, and what names their credential, if that was looked at less than a second ago.
    pub async fn at_hand(&self, headers: &HeaderMap) -> Option<(Fingerprint, Arc<Authenticated>)> {
        let fingerprint = credential(headers).ok()??.fingerprint();
        Some((fingerprint, self.known(&fingerprint).await?))
    }

    async fn known(&self, fingerprint: &Fingerprint) -> Option<Arc<Authenticated>> {
        self.holders.get(fingerprint).await.filter(|holder| holder.holds())
    }

    async fn holder(&self, headers: &HeaderMap) -> Result<Option<Arc<Authenticated>>> {
        let Some(credential) = credential(headers)? else { return Ok(None) };
        let fingerprint = credential.fingerprint();
        if let Some(holder) = self.known(&fingerprint).await {
            return Ok(Some(holder));
        }
        // In a box: nearly all requests do without it.
        Box::pin(self.look_up(credential, fingerprint)).await.map(Some)
    }

    /// Asks PostgreSQL: one of many requests that come at once does, for all of them.
    async fn look_up(&self, credential: Credential<'_>, fingerprint: Fingerprint) -> Result<Arc<Authenticated>> {
        let found = match credential {
            Credential::AccessToken(token) => {
                let claims = self.verify(token, fingerprint).await?;
                let holder = async {
                    let actor = sessions::actor(&self.app, &claims).await?;
                    Ok(Arc::new(Authenticated { actor, expires_at: DateTime::from_timestamp(claims.exp, 0) }))
                };
                self.holders.try_get_with(fingerprint, holder).await
            }
            Credential::ApiKey(_, key) => {
                let holder = async {
                    let actor = api_keys::authenticate(&self.app, &key).await?;
                    Ok(Arc::new(Authenticated { actor, expires_at: None }))
                };
                self.holders.try_get_with(fingerprint, holder).await
            }
        };
        found.map_err(shared)
    }

    async fn verify(&self, token: &str, fingerprint: Fingerprint) -> Result<Arc<Claims>> {
        if let Some(claims) = self.verified.get(&fingerprint).await {
            return Ok(claims);
        }
        let claims = Arc::new(self.keys.verify(token)?);
        self.verified.insert(fingerprint, claims.clone()).await;
        Ok(claims)
    }
}

/// Ends what is known of a token when the token ends.
struct UntilExpired;

impl Expiry<Fingerprint, Arc<Claims>> for UntilExpired {
    fn expire_after_create(&self, _: &Fingerprint, claims: &Arc<Claims>, _: Instant) -> Option<Duration> {
        let left = claims.exp * 1000 - chrono::Utc::now().timestamp_millis();
        Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }
}

/// An error of one's own from one that several requests got at once.
fn shared(error: Arc<Error>) -> Error {
    match &*error {
        Error::Unauthenticated(message) => Error::Unauthenticated(message),
        Error::Unavailable { service, .. } => Error::unavailable(service, error),
        _ => Error::internal(error),
    }
}

fn credential(headers: &HeaderMap) -> Result<Option<Credential<'_>>> {
    let mut authorization = headers.get_all(header::AUTHORIZATION).iter();
    let mut api_key = headers.get_all(X_API_KEY).iter();
    let found = match (authorization.next(), api_key.next()) {
        (None, None) => return Ok(None),
        (Some(value), None) => {
            let (scheme, credential) = value.to_str().ok().and_then(|text| text.trim().split_once(' ')).ok_or(MALFORMED)?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(MALFORMED);
            }
            parse(credential.trim())?
        }
        (None, Some(value)) => match parse(value.to_str().map_err(|_| MALFORMED)?.trim())? {
            Credential::AccessToken(_) => return Err(MALFORMED),
            key => key,
        },
        (Some(_), Some(_)) => return Err(Error::Unauthenticated("Send one credential, not two")),
    };
    if authorization.next().is_some() || api_key.next().is_some() {
        return Err(Error::Unauthenticated("Send one credential, not two"));
    }
    Ok(Some(found))
}

fn parse(credential: &str) -> Result<Credential<'_>> {
    if credential.is_empty() || credential.len() > MAX_LENGTH {
        return Err(MALFORMED);
    }
    if credential.starts_with(ApiKeyText::PREFIX) {
        let key = credential.parse().map_err(|_| Error::Unauthenticated("The API key is not valid, or no longer"))?;
        return Ok(Credential::ApiKey(credential, key));
    }
    Ok(Credential::AccessToken(credential))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use mdl::ids::{ApiKeyId, TenantId};

    use super::*;

    fn read(headers: &[(&'static str, &str)]) -> Result<Option<&'static str>, &'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        match credential(&map) {
            Ok(None) => Ok(None),
            Ok(Some(Credential::AccessToken(_))) => Ok(Some("token")),
            Ok(Some(Credential::ApiKey(..))) => Ok(Some("key")),
            Err(error) => Err(error.code()),
        }
    }

    #[test]
    fn finds_the_credential() {
        let key = ApiKeyText::new(TenantId::new(), ApiKeyId::new()).reveal();
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("authorization", "Bearer a.b.c")]), Ok(Some("token")));
        assert_eq!(read(&[("authorization", "bearer  a.b.c ")]), Ok(Some("token")));
        assert_eq!(read(&[("authorization", &format!("Bearer {key}"))]), Ok(Some("key")));
        assert_eq!(read(&[("x-api-key", &key)]), Ok(Some("key")));
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        let key = ApiKeyText::new(TenantId::new(), ApiKeyId::new()).reveal();
        let long = format!("Bearer {}", "x".repeat(MAX_LENGTH + 1));
        for bad in [
            &[("authorization", "")] as &[_],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer ")],
            &[("authorization", "Basic YTpi")],
            &[("authorization", "a.b.c")],
            &[("authorization", &long)],
            &[("authorization", "Bearer mdl_short")],
            &[("x-api-key", "a.b.c")],
            &[("x-api-key", "")],
            &[("authorization", "Bearer a.b.c"), ("x-api-key", &key)],
            &[("authorization", "Bearer a.b.c"), ("authorization", "Bearer a.b.c")],
        ] {
            assert_eq!(read(bad), Err("UNAUTHENTICATED"), "{bad:?}");
        }
    }
}
