//! The ids of GraphQL: opaque and unique over all types, as Relay's object identification asks for. Logs, instruments and the terminal show
//! plain UUIDs; where it is known what kind of thing is meant, either will do.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

/// The types that `node` can find. The letter is part of every id handed out: never change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    User,
    ApiKey,
    Domain,
    Metric,
    Objective,
    KeyResult,
    Import,
    Document,
    Backup,
    RestoreDrill,
    Job,
    WebhookEndpoint,
    WebhookDelivery,
}

const LETTERS: &[(Kind, u8)] = &[
    (Kind::User, b'u'),
    (Kind::ApiKey, b'a'),
    (Kind::Domain, b'd'),
    (Kind::Metric, b'm'),
    (Kind::Objective, b'o'),
    (Kind::KeyResult, b'k'),
    (Kind::Import, b'i'),
    (Kind::Document, b'p'),
    (Kind::Backup, b'b'),
    (Kind::RestoreDrill, b'r'),
    (Kind::Job, b'j'),
    (Kind::WebhookEndpoint, b'w'),
    (Kind::WebhookDelivery, b'v'),
];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::User => "user",
            Kind::ApiKey => "API key",
            Kind::Domain => "business domain",
            Kind::Metric => "metric",
            Kind::Objective => "objective",
            Kind::KeyResult => "key result",
            Kind::Import => "import",
            Kind::Document => "published document",
            Kind::Backup => "backup",
            Kind::RestoreDrill => "trial restore",
            Kind::Job => "job",
            Kind::WebhookEndpoint => "webhook endpoint",
            Kind::WebhookDelivery => "webhook delivery",
        })
    }
}

/// The id of a thing, as callers see it.
pub fn encode(kind: Kind, id: Uuid) -> String {
    let letter = LETTERS.iter().find(|(known, _)| *known == kind).map_or(b'?', |(_, letter)| *letter);
    let mut bytes = [0; 17];
    bytes[0] = letter;
    bytes[1..].copy_from_slice(id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What an id stands for; `None` if it was not made by [`encode`].
pub fn decode(id: &str) -> Option<(Kind, Uuid)> {
    let bytes = URL_SAFE_NO_PAD.decode(id).ok()?;
    let (letter, uuid) = bytes.split_first()?;
    let (kind, _) = LETTERS.iter().find(|(_, known)| known == letter)?;
    Some((*kind, Uuid::from_slice(uuid).ok()?))
}

/// The UUID of a thing of one kind, given as its id or as that UUID; otherwise why it is neither.
pub fn expect(kind: Kind, id: &str) -> Result<Uuid, String> {
    match decode(id) {
        Some((found, uuid)) if found == kind => Ok(uuid),
        Some((found, _)) => Err(format!("Is the id of {}, not of {}", one(found), one(kind))),
        None => Uuid::try_parse(id).map_err(|_| format!("Is not the id of {}", one(kind))),
    }
}

/// The kind with its article.
fn one(kind: Kind) -> String {
    let article = if kind.to_string().starts_with(['A', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_out_and_come_back() {
        for (kind, _) in LETTERS {
            let uuid = Uuid::now_v7();
            assert_eq!(decode(&encode(*kind, uuid)), Some((*kind, uuid)));
        }
        assert_eq!(decode("METRIC-1"), None);
        let another = expect(Kind::Import, &encode(Kind::User, Uuid::now_v7()));
        assert_eq!(another, Err("Is the id of a user, not of an import".to_owned()));
        assert_eq!(expect(Kind::ApiKey, "METRIC-1"), Err("Is not the id of an API key".to_owned()));
    }

    #[test]
    fn a_plain_uuid_will_do_where_the_kind_is_known() {
        let uuid = Uuid::now_v7();
        assert_eq!(expect(Kind::Job, &uuid.to_string()), Ok(uuid));
        assert_eq!(expect(Kind::Job, &encode(Kind::Job, uuid)), Ok(uuid));
        for form in [uuid.to_string(), uuid.simple().to_string()] {
            assert_eq!(decode(&form), None, "it does not say of what kind it is");
        }
    }
}
