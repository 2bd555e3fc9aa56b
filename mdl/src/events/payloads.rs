//! What events tell. A payload is complete: whoever gets it need not ask the API to know whether it concerns them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a kind of event is told with.
pub trait Payload: Serialize {
    /// As the documentation calls it.
    const NAME: &'static str;
    /// The fields of its JSON, each with its meaning.
    const FIELDS: &'static [(&'static str, &'static str)];

    /// One that is made up, for documentation and for trying things out.
    fn example() -> Self;
}

/// An entry of the catalog that another belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub id: Uuid,
    pub key: String,
    pub name: String,
}

/// A metric, as the change left it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricPayload {
    pub id: Uuid,
    pub key: String,
    pub name: String,
    pub version: String,
    pub status: String,
    pub tier: Option<String>,
    pub domain: Option<Reference>,
    pub tags: Vec<String>,
    pub owners: Vec<String>,
    pub changed_fields: Vec<String>,
    pub change_tier: String,
    pub breaking: bool,
}

impl Payload for MetricPayload {
    const NAME: &'static str = "MetricPayload";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", "UUID of the metric; the API asks for it by its key"),
        ("key", "Stable name of the metric"),
        ("name", "Its name for people"),
        ("version", "Its semantic version after the change"),
        ("status", "`draft`, `in_review`, `active`, `deprecated` or `removed`"),
        ("tier", "`tier_1`, `tier_2` or `tier_3`; null if it has none"),
        ("domain", "Its business domain, with `id`, `key` and `name`; null if it is in none"),
        ("tags", "Its tags"),
        ("owners", "Its owning team, technical owner and business owner, as far as they are known"),
        ("changedFields", "What changed, as the history names it; for a new metric every field that is set"),
        ("changeTier", "How much the change matters: `initial`, `patch`, `minor` or `major`"),
        ("breaking", "Whether the number itself is another one: a change of tier `major`"),
    ];

    fn example() -> Self {
        Self {
            id: Uuid::from_u128(0x0199_7d2a_5f00_7000_8000_0000_0000_0001),
            key: "METRIC-LOGIN-SUCCESS-RATE".to_owned(),
            name: "Login Success Rate".to_owned(),
            version: "2.0.0".to_owned(),
            status: "active".to_owned(),
            tier: Some("tier_1".to_owned()),
            domain: Some(domain()),
            tags: vec!["authentication".to_owned(), "reliability".to_owned()],
            owners: vec!["Identity Platform".to_owned(), "Dana Whitfield".to_owned()],
            changed_fields: vec!["definition.formula".to_owned()],
            change_tier: "major".to_owned(),
            breaking: true,
        }
    }
}

/// A business domain, as the change left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainPayload {
    pub id: Uuid,
    pub key: String,
    pub name: String,
    pub owner_team: Option<String>,
}

impl Payload for DomainPayload {
    const NAME: &'static str = "DomainPayload";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", "UUID of the domain"),
        ("key", "Stable name of the domain"),
        ("name", "Its name for people"),
        ("ownerTeam", "The team that owns it, if one is named"),
    ];

    fn example() -> Self {
        Self {
            id: Uuid::from_u128(0x0199_7d2a_5f00_7000_8000_0000_0000_0002),
            key: "DOMAIN-IDENTITY".to_owned(),
            name: "Identity".to_owned(),
            owner_team: Some("Identity Platform".to_owned()),
        }
    }
}

/// An objective, as the change left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectivePayload {
    pub id: Uuid,
    pub key: String,
    pub name: String,
    pub status: String,
    pub owner: Option<String>,
    pub domain: Option<Reference>,
}

impl Payload for ObjectivePayload {
    const NAME: &'static str = "ObjectivePayload";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", "UUID of the objective"),
        ("key", "Stable name of the objective"),
        ("name", "Its name for people"),
        ("status", "`draft`, `active`, `achieved`, `missed` or `cancelled`"),
        ("owner", "Who owns it, if somebody is named"),
        ("domain", "Its business domain, with `id`, `key` and `name`; null if it is in none"),
    ];

    fn example() -> Self {
        Self {
            id: Uuid::from_u128(0x0199_7d2a_5f00_7000_8000_0000_0000_0003),
            key: "OBJ-001".to_owned(),
            name: "Make signing in effortless".to_owned(),
            status: "active".to_owned(),
            owner: Some("Dana Whitfield".to_owned()),
            domain: Some(domain()),
        }
    }
}

/// A key result, as the change left it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyResultPayload {
    pub id: Uuid,
    pub key: String,
    pub name: String,
    pub objective: Reference,
    pub owner: Option<String>,
    pub domain: Option<Reference>,
    pub unit: Option<String>,
    pub baseline_value: Option<f64>,
    pub target_value: Option<f64>,
    pub current_value: Option<f64>,
    pub progress: Option<f64>,
}

impl Payload for KeyResultPayload {
    const NAME: &'static str = "KeyResultPayload";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", "UUID of the key result"),
        ("key", "Stable name within its objective"),
        ("name", "Its name for people"),
        ("objective", "Its objective, with `id`, `key` and `name`"),
        ("owner", "Who owns its objective, if somebody is named"),
        ("domain", "The business domain of its objective, with `id`, `key` and `name`; null if that is in none"),
        ("unit", "What the values are counted in"),
        ("baselineValue", "Where it began; null if nobody said"),
        ("targetValue", "Where it is to get to; null if nobody said"),
        ("currentValue", "Where it is; null if nobody said"),
        ("progress", "The share of the way, from 0 to 1; null when it cannot be computed"),
    ];

    fn example() -> Self {
        Self {
            id: Uuid::from_u128(0x0199_7d2a_5f00_7000_8000_0000_0000_0004),
            key: "KR-001".to_owned(),
            name: "Login success rate of 99 %".to_owned(),
            objective: objective(),
            owner: Some("Dana Whitfield".to_owned()),
            domain: Some(domain()),
            unit: Some("percentage".to_owned()),
            baseline_value: Some(96.0),
            target_value: Some(99.0),
            current_value: Some(97.5),
            progress: Some(0.5),
        }
    }
}

/// An import that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportPayload {
    pub id: Uuid,
    pub state: String,
    pub file_name: Option<String>,
    pub dry_run: bool,
    pub error: Option<String>,
    pub created: i64,
    pub updated: i64,
    pub unchanged: i64,
    pub failed: i64,
    pub warnings: i64,
}

impl Payload for ImportPayload {
    const NAME: &'static str = "ImportPayload";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", "UUID of the import"),
        ("state", "`succeeded`, `failed` or `cancelled`"),
        ("fileName", "Of the uploaded file, if it had one"),
        ("dryRun", "Whether it only tried what would change"),
        ("error", "Why nothing was imported; null after a success"),
        ("created", "Entries that are new"),
        ("updated", "Entries that changed"),
        ("unchanged", "Entries that were the same already"),
        ("failed", "Entries that were refused"),
        ("warnings", "Things worth a look"),
    ];

    fn example() -> Self {
        Self {
            id: Uuid::from_u128(0x0199_7d2a_5f00_7000_8000_0000_0000_0005),
            state: "succeeded".to_owned(),
            file_name: Some("metrics.yaml".to_owned()),
            dry_run: false,
            error: None,
            created: 12,
            updated: 3,
            unchanged: 385,
            failed: 0,
            warnings: 1,
        }
    }
}

/// An API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyPayload {
    pub id: Uuid,
    pub name: String,
    pub hint: String,
    pub expires_at: Option<DateTime<Utc>>,
    pub user_id: Uuid,
}

impl Payload for ApiKeyPayload {
    const NAME: &'static str = "ApiKeyPayload";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", "UUID of the key"),
        ("name", "What whoever made it called it"),
        ("hint", "Its last four characters"),
        ("expiresAt", "When it stops working, in RFC 3339"),
        ("userId", "UUID of the user that it acts for"),
    ];

    fn example() -> Self {
        Self {
            id: Uuid::from_u128(0x0199_7d2a_5f00_7000_8000_0000_0000_0006),
            name: "nightly export".to_owned(),
            hint: "x7Qa".to_owned(),
            expires_at: DateTime::from_timestamp(1_798_761_600, 0),
            user_id: Uuid::from_u128(0x0199_7d2a_5f00_7000_8000_0000_0000_0007),
        }
    }
}

/// Something about a backup, for those who operate the deployment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupPayload {
    pub id: Option<Uuid>,
    pub place: Option<String>,
    pub stored_bytes: Option<u64>,
    pub rows: Option<u64>,
    pub files: Option<u64>,
    pub deviation: Option<f64>,
    pub verified_at: Option<DateTime<Utc>>,
    pub error: Option<String>,
}

impl Payload for BackupPayload {
    const NAME: &'static str = "BackupPayload";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", "UUID of the backup; null when it is about there being none"),
        ("place", "Address of the directory or bucket, if it is about one"),
        ("storedBytes", "Size of the database's dump as it is stored"),
        ("rows", "Rows of all tables in it"),
        ("files", "Uploaded files in it"),
        ("deviation", "By what share it is larger (or, negative, smaller) than the average of those before"),
        ("verifiedAt", "When it was last restored on trial and found to be the same"),
        ("error", "What went wrong; null when nothing did"),
    ];

    fn example() -> Self {
        Self {
            id: Some(Uuid::from_u128(0x0199_7d2a_5f00_7000_8000_0000_0000_0008)),
            place: Some("s3://backups/mdl".to_owned()),
            stored_bytes: Some(104_857_600),
            rows: Some(1_250_000),
            files: Some(310),
            deviation: Some(0.02),
            verified_at: DateTime::from_timestamp(1_763_697_600, 0),
            error: None,
        }
    }
}

/// A company whose data was brought back from a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantPayload {
    pub id: Uuid,
    pub backup: Uuid,
}

impl Payload for TenantPayload {
    const NAME: &'static str = "TenantPayload";
    const FIELDS: &'static [(&'static str, &'static str)] =
        &[("id", "UUID of the tenant"), ("backup", "UUID of the backup whose rows it has now")];

    fn example() -> Self {
        Self {
            id: Uuid::from_u128(0x0199_7d2a_5f00_7000_8000_0000_0000_0009),
            backup: Uuid::from_u128(0x0199_7d2a_5f00_7000_8000_0000_0000_0008),
        }
    }
}

/// A webhook endpoint that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookPayload {
    pub id: Uuid,
    pub description: String,
    pub reason: String,
    pub failing_since: Option<DateTime<Utc>>,
    pub discarded: i64,
}

impl Payload for WebhookPayload {
    const NAME: &'static str = "WebhookPayload";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", "UUID of the endpoint"),
        ("description", "What it is for, as somebody has written"),
        ("reason", "`gone` when it answered 410, `failing` when it has failed for too long"),
        ("failingSince", "Its first failure since the last success; null if there was none before"),
        ("discarded", "Deliveries that it had not got yet, and will not get unless they are replayed"),
    ];

    fn example() -> Self {
        Self {
            id: Uuid::from_u128(0x0199_7d2a_5f00_7000_8000_0000_0000_000a),
            description: "Data platform".to_owned(),
            reason: "failing".to_owned(),
            failing_since: DateTime::from_timestamp(1_795_000_000, 0),
            discarded: 17,
        }
    }
}

fn domain() -> Reference {
    let DomainPayload { id, key, name, .. } = DomainPayload::example();
    Reference { id, key, name }
}

fn objective() -> Reference {
    let ObjectivePayload { id, key, name, .. } = ObjectivePayload::example();
    Reference { id, key, name }
}
