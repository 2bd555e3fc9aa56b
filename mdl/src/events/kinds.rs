//! The kinds of events: the one table of what subscribers can be told, each with the type of its payload.
//!
//! A kind is a constant that knows its payload, so nothing else can be pushed under its name. A kind or a field of a payload
//! that is added changes nothing for those who listen; one that is renamed or means something else gets the next version.

use std::marker::PhantomData;

use serde_json::Value;

use super::payloads::{
    ApiKeyPayload, BackupPayload, DomainPayload, ImportPayload, KeyResultPayload, MetricPayload, ObjectivePayload, Payload,
    TenantPayload, WebhookPayload,
};

/// A kind of event, told with a payload `P`.
pub struct Kind<P> {
    pub name: &'static str,
    /// Of the payload.
    pub version: i16,
    payload: PhantomData<fn(&P)>,
}

impl<P> Kind<P> {
    const fn new(name: &'static str, version: i16) -> Self {
        Self { name, version, payload: PhantomData }
    }
}

impl<P> Clone for Kind<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Kind<P> {}

/// A kind as people read about it.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    pub name: &'static str,
    pub version: i16,
    /// When it is told, as a sentence without its full stop.
    pub meaning: &'static str,
    /// Name of the payload's type.
    pub payload: &'static str,
    /// The payload's fields, each with its meaning.
    pub fields: &'static [(&'static str, &'static str)],
    example: fn() -> Value,
}

impl Described {
    /// A payload of this kind, made up.
    pub fn example(&self) -> Value {
        (self.example)()
    }
}

macro_rules! kinds {
    ($($payload:ty { $($constant:ident = $name:literal, $version:literal, $meaning:literal;)+ })+) => {
        $($(
            #[doc = $meaning]
            pub const $constant: Kind<$payload> = Kind::new($name, $version);
        )+)+

        /// Every kind, in the order of the documentation.
        pub const ALL: &[Described] = &[$($(
            Described {
                name: $name,
                version: $version,
                meaning: $meaning,
                payload: <$payload as Payload>::NAME,
                fields: <$payload as Payload>::FIELDS,
                example: example::<$payload>,
            },
        )+)+];
    };
}

// Name, version of the payload, and when it is told. Of the kinds that fit a change, the first one of its group is told.
kinds! {
    MetricPayload {
        METRIC_CREATED = "metric.created", 1, "A metric was added to the catalog";
        METRIC_ARCHIVED = "metric.archived", 1, "A metric was taken out of the catalog's lists; its history stays";
        METRIC_DEPRECATED = "metric.deprecated", 1, "A metric's status became deprecated: it should not be used for anything new";
        METRIC_DEFINITION_CHANGED = "metric.definition.changed", 1, "How a metric is computed changed: its formula, its unit, its category or any other field of its definition";
        METRIC_UPDATED = "metric.updated", 1, "Anything else about a metric changed";
    }
    DomainPayload {
        DOMAIN_CREATED = "domain.created", 1, "A business domain was added, by somebody or because an import named it";
        DOMAIN_UPDATED = "domain.updated", 1, "A business domain changed";
        DOMAIN_ARCHIVED = "domain.archived", 1, "A business domain was taken out of the lists";
    }
    ObjectivePayload {
        OBJECTIVE_CREATED = "objective.created", 1, "An objective was added";
        OBJECTIVE_UPDATED = "objective.updated", 1, "An objective changed";
        OBJECTIVE_ARCHIVED = "objective.archived", 1, "An objective and its key results were taken out of the lists";
    }
    KeyResultPayload {
        KEY_RESULT_CREATED = "keyResult.created", 1, "A key result was added to an objective";
        KEY_RESULT_PROGRESS_CHANGED = "keyResult.progress.changed", 1, "The current value of a key result changed";
        KEY_RESULT_UPDATED = "keyResult.updated", 1, "Anything else about a key result changed";
        KEY_RESULT_ARCHIVED = "keyResult.archived", 1, "A key result was taken out of its objective";
    }
    ImportPayload {
        IMPORT_COMPLETED = "import.completed", 1, "An import was applied, or a dry run of one has ended";
        IMPORT_FAILED = "import.failed", 1, "An import ended without success; `error` says why";
        IMPORT_CANCELLED = "import.cancelled", 1, "Somebody stopped an import; what it had committed entry by entry stays";
    }
    BackupPayload {
        BACKUP_COMPLETED = "backup.completed", 1, "A backup was restored on trial and is good; told to members of mdl-system, as all of backups is";
        BACKUP_FAILED = "backup.failed", 1, "No backup was made; `error` says why";
        BACKUP_COPY_FAILED = "backup.copy.failed", 1, "A backup is not in the second place; `error` says why";
        BACKUP_VERIFICATION_FAILED = "backup.verification.failed", 1, "A backup was not restored on trial, or to something else than was backed up";
        BACKUP_SIZE_DEVIATED = "backup.size.deviated", 1, "A backup is much smaller or larger than those before";
        BACKUP_OVERDUE = "backup.overdue", 1, "No backup was verified for too long; told once, until one is";
    }
    TenantPayload {
        TENANT_RESTORED = "tenant.restored", 1, "The tenant's catalog, people and imports are again as they were in a backup: read everything anew";
    }
    ApiKeyPayload {
        API_KEY_EXPIRING = "apiKey.expiring", 1, "An API key will stop working within a week; told once of each key";
    }
    WebhookPayload {
        WEBHOOK_ENDPOINT_DISABLED = "webhook.endpoint.disabled", 1, "A webhook endpoint was given up: it is gone, or has failed for too long";
    }
}

/// The kind of this name.
pub fn by_name(name: &str) -> Option<&'static Described> {
    ALL.iter().find(|kind| kind.name == name)
}

/// A made-up payload of a kind; `None` for a name that is no kind.
pub fn sample(name: &str) -> Option<Value> {
    by_name(name).map(Described::example)
}

/// The kinds as a chapter of the documentation, in Markdown.
pub fn reference() -> String {
    let mut text = String::from("| kind | version | payload | told when |\n|---|---|---|---|\n");
    for kind in ALL {
        let (payload, anchor) = (kind.payload, kind.payload.to_lowercase());
        text += &format!("| `{}` | {} | [{payload}](#{anchor}) | {} |\n", kind.name, kind.version, kind.meaning);
    }
    let mut described = Vec::new();
    for kind in ALL {
        if described.contains(&kind.payload) {
            continue;
        }
        described.push(kind.payload);
        text += &format!("\n### {}\n\n| field | meaning |\n|---|---|\n", kind.payload);
        for (field, meaning) in kind.fields {
            text += &format!("| `{field}` | {meaning} |\n");
        }
        text += &format!("\n```json\n{:#}\n```\n", kind.example());
    }
    text
}

fn example<P: Payload>() -> Value {
    serde_json::to_value(P::example()).expect("a payload is plain data")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;
    use crate::versions::Entities;

    #[test]
    fn every_field_of_a_payload_is_described() {
        for kind in ALL {
            let Value::Object(example) = kind.example() else { panic!("{} is no object", kind.name) };
            let fields: BTreeSet<_> = example.keys().map(String::as_str).collect();
            let described: BTreeSet<_> = kind.fields.iter().map(|(field, _)| *field).collect();
            assert_eq!(fields, described, "{}", kind.name);
        }
    }

    #[test]
    fn names_are_unique_and_say_what_changed() {
        let names: HashSet<_> = ALL.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), ALL.len());
        for name in names {
            let (thing, happened) = name.split_once('.').unwrap();
            assert!(!happened.is_empty());
            // An unknown thing would empty the caches of everything, as a restored tenant does.
            assert_eq!(Entities::of_kind(thing) == Entities::ALL, thing == "tenant", "{name}");
        }
    }
}
