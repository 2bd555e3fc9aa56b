//! Headers that a receiver wants beside ours, such as a token of its gateway.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::ids::WebhookEndpointId;
use crate::sealing::Sealer;
use crate::text::{Problems, jsonb};

/// Most headers of one endpoint.
const MAX_HEADERS: usize = 20;
/// Longest value, in bytes.
const MAX_VALUE: usize = 4_000;
/// What we or HTTP itself say.
const OURS: &[&str] = &[
    "accept-encoding",
    "connection",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];
/// The same, all that begin so.
const OUR_PREFIXES: &[&str] = &["webhook-", "content-", "proxy-", "trace"];

/// Headers as they are stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, AsExpression, FromSqlRow)]
#[diesel(sql_type = diesel::sql_types::Jsonb)]
#[serde(transparent)]
pub struct Headers(pub Vec<Header>);
jsonb!(Headers);

/// One header as it is stored: `{name, value}` or, encrypted, `{name, sealed}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub name: String,
    #[serde(flatten)]
    pub value: Stored,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stored {
    #[serde(rename = "value")]
    Plain(String),
    /// In Base64.
    #[serde(rename = "sealed")]
    Sealed(String),
}

/// One header as somebody wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderDraft {
    pub name: String,
    /// A secret without a value keeps the one that its name had before, as long as the address is at the same origin.
    pub value: Option<String>,
    /// It is encrypted, and never shown again.
    pub secret: bool,
}

impl Headers {
    /// As drafts that change nothing.
    pub fn to_drafts(&self) -> Vec<HeaderDraft> {
        let draft = |header: &Header| {
            let (value, secret) = match &header.value {
                Stored::Plain(value) => (Some(value.clone()), false),
                Stored::Sealed(_) => (None, true),
            };
            HeaderDraft { name: header.name.clone(), value, secret }
        };
        self.0.iter().map(draft).collect()
    }

    /// The names of those drafts that keep one of these values without saying it, if there are any.
    pub fn names_kept_by(&self, drafts: &[HeaderDraft]) -> Option<String> {
        let is_sealed = |draft: &HeaderDraft| {
            let mut sealed = self.0.iter().filter(|header| matches!(header.value, Stored::Sealed(_)));
            sealed.any(|header| header.name.eq_ignore_ascii_case(draft.name.trim()))
        };
        let kept = drafts.iter().filter(|draft| draft.secret && draft.value.is_none() && is_sealed(draft));
        let names: Vec<&str> = kept.map(|draft| draft.name.trim()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// What is to be stored for these drafts. What is wrong with them is added to the problems.
    pub fn from_drafts(
        drafts: &[HeaderDraft],
        before: &Headers,
        sealer: &Sealer,
        endpoint: WebhookEndpointId,
        problems: &mut Problems,
    ) -> Result<Self> {
        problems.count("headers", drafts.len(), MAX_HEADERS);
        let mut headers: Vec<Header> = Vec::new();
        for (i, draft) in drafts.iter().enumerate() {
            let field = |name: &str| format!("headers.{i}.{name}");
            let Ok(name) = draft.name.trim().parse::<HeaderName>() else {
                problems.add(&field("name"), Code::Invalid, "Is not a name of a header");
                continue;
            };
            let name = name.as_str().to_owned();
            if OURS.contains(&name.as_str()) || OUR_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
                problems.add(&field("name"), Code::Invalid, format!("{name} is not for you to set"));
            }
            if headers.iter().any(|header| header.name == name) {
                problems.add(&field("name"), Code::Taken, format!("{name} is there twice"));
            }
            let value = match (&draft.value, draft.secret) {
                (Some(value), _) if value.len() > MAX_VALUE || HeaderValue::from_str(value).is_err() => {
                    let message = format!("Must be at most {MAX_VALUE} bytes, on one line");
                    problems.add(&field("value"), Code::Invalid, message);
                    continue;
                }
                (Some(value), false) => Stored::Plain(value.clone()),
                (Some(value), true) => Stored::Sealed(STANDARD.encode(sealer.seal(value.as_bytes(), endpoint.0)?)),
                (None, secret) => match before.0.iter().find(|header| header.name == name).map(|header| &header.value) {
                    Some(kept @ Stored::Sealed(_)) if secret => kept.clone(),
                    _ => {
                        problems.add(&field("value"), Code::Required, "Is missing");
                        continue;
                    }
                },
            };
            headers.push(Header { name, value });
        }
        Ok(Self(headers))
    }

    /// As they are sent.
    pub fn open(&self, sealer: &Sealer, endpoint: WebhookEndpointId) -> Result<HeaderMap> {
        let mut map = HeaderMap::new();
        for header in &self.0 {
            let value = match &header.value {
                Stored::Plain(value) => HeaderValue::from_str(value),
                Stored::Sealed(sealed) => {
                    let sealed = STANDARD.decode(sealed).map_err(Error::internal)?;
                    HeaderValue::from_bytes(&sealer.open(&sealed, endpoint.0)?)
                }
            };
            let mut value = value.map_err(Error::internal)?;
            value.set_sensitive(matches!(header.value, Stored::Sealed(_)));
            map.insert(header.name.parse::<HeaderName>().map_err(Error::internal)?, value);
        }
        Ok(map)
    }

    /// The same, with everything encrypted by the key that encrypts now; `None` when it is already.
    pub fn resealed(&self, sealer: &Sealer, endpoint: WebhookEndpointId) -> Result<Option<Self>> {
        let mut changed = false;
        let mut headers = self.clone();
        for header in &mut headers.0 {
            let Stored::Sealed(text) = &mut header.value else { continue };
            let sealed = STANDARD.decode(&text).map_err(Error::internal)?;
            if !sealer.is_current(&sealed) {
                *text = STANDARD.encode(sealer.seal(&sealer.open(&sealed, endpoint.0)?, endpoint.0)?);
                changed = true;
            }
        }
        Ok(changed.then_some(headers))
    }
}
