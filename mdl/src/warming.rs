//! Answers that are made before somebody asks for them, so that a restart or an import is not felt.
//!
//! | who | does |
//! |---|---|
//! | the api | counts what is asked, a sample of it, and tells Redis every few seconds: [`used`] |
//! | the schedule `warm_caches`, and an api that starts | enqueue [`WarmCaches`] |
//! | that job, and an import that has changed much | enqueue [`WarmCache`] for each tenant that was there lately |
//! | that job | asks each api to make the answers that were used most, over HTTP: [`Warm`] is what it sends |
//!
//! The request names the tenant and the permissions that it asks with, and is answered with one word and no data: whoever has
//! the secret can have answers made and kept, and see none. ADR 11 tells why.

mod score;
pub mod used;

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::actor::{Actor, Permission, Permissions};
use crate::app::App;
use crate::config::WarmingConfig;
use crate::error::Result;
use crate::ids::{ImportId, TenantId};
use crate::imports;
use crate::jobs::{self, Enqueue, Job};
use crate::maintenance;
use crate::tenants::SYSTEM;

pub use score::Score;

/// Where an api takes [`Warm`], by POST.
pub const PATH: &str = "/internal/warm";

/// What has just been written is known everywhere by then.
const AFTER_WRITE: TimeDelta = TimeDelta::seconds(1);

/// Enqueues [`WarmCache`] for each tenant that was there lately. Belongs to no company.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct WarmCaches {}

impl Job for WarmCaches {
    const KIND: &'static str = "warm_caches";
    const QUEUE: &'static str = maintenance::QUEUE;
    const MAX_ATTEMPTS: i32 = 1;
    const TIMEOUT: Duration = Duration::from_secs(60);
}

/// Warms the tenant's answers in every api.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct WarmCache {}

impl Job for WarmCache {
    const KIND: &'static str = "warm_cache";
    const QUEUE: &'static str = maintenance::QUEUE;
    /// What could not be warmed now is warmed the next time, if it is still used then.
    const MAX_ATTEMPTS: i32 = 1;
    const TIMEOUT: Duration = Duration::from_secs(300);
}

/// An operation, and what those may who asked it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    #[serde(with = "names")]
    pub permissions: Permissions,
    /// The text of the document.
    pub query: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_name: Option<String>,
    /// As they were sent.
    #[serde(default)]
    pub variables: Value,
}

/// The body of a request to [`PATH`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Warm {
    pub tenant: TenantId,
    #[serde(flatten)]
    pub asked: Asked,
}

/// The body of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warmed {
    pub outcome: WarmOutcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmOutcome {
    /// It was made now.
    Made,
    /// It was there.
    Kept,
}

/// Whether this is the secret. Takes as long whichever it is.
pub fn is_secret(config: &WarmingConfig, sent: &str) -> bool {
    let secret = config.secret.as_deref();
    secret.is_some_and(|secret| Sha256::digest(secret).ct_eq(&Sha256::digest(sent)).into())
}

/// Enqueues a warming of the tenant, unless one waits already.
pub async fn enqueue(app: &App, tenant: TenantId) -> Result<()> {
    enqueue_job(app, tenant, &WarmCache {}).await
}

/// Enqueues a warming of all tenants: an api has started, and has nothing in its memory.
pub async fn enqueue_all(app: &App) -> Result<()> {
    enqueue_job(app, SYSTEM, &WarmCaches {}).await
}

async fn enqueue_job(app: &App, tenant: TenantId, job: &impl Job) -> Result<()> {
    let how = Enqueue { unique_key: Some("all".to_owned()), run_at: Some(Utc::now() + AFTER_WRITE), ..Enqueue::default() };
    let tx = app.db.begin(tenant).await?;
    jobs::enqueue(&tx, &Actor::system(tenant), job, &how).await?;
    tx.commit().await
}

/// Enqueues a warming if this import, which has ended, has changed much.
pub async fn after_import(app: &App, tenant: TenantId, import: ImportId) -> Result<()> {
    let config = &app.config.warming;
    if !config.is_on() {
        return Ok(());
    }
    let snapshot = app.db.snapshot(tenant);
    let import = snapshot.read(async |conn| imports::store::by_id(conn, tenant, import).await).await?;
    snapshot.finish().await;
    let changed = import.filter(|import| !import.dry_run).map_or(0, |import| import.created_count + import.updated_count);
    if changed >= i64::from(config.after_import_entries) { enqueue(app, tenant).await } else { Ok(()) }
}

impl WarmingConfig {
    /// Whether a worker with these settings warms.
    pub fn is_on(&self) -> bool {
        self.secret.is_some() && !self.api_urls.is_empty()
    }
}

/// Permissions as a list of their names.
mod names {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Permission, Permissions};

    pub fn serialize<S: Serializer>(permissions: &Permissions, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(permissions.iter().map(Permission::as_str))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Permissions, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let parse = |name: String| Permission::parse(&name).ok_or_else(|| D::Error::custom("there is no such permission"));
        names.into_iter().map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::actor::Role;
    use crate::config::Config;

    #[test]
    fn what_is_asked_survives_the_way() {
        let asked = Asked {
            permissions: Role::Editor.permissions(),
            query: "query Q($a: Int) { metric { name } }".to_owned(),
            operation_name: Some("Q".to_owned()),
            variables: json!({ "a": 1 }),
        };
        let warm = Warm { tenant: TenantId::new(), asked };
        let sent = serde_json::to_value(&warm).unwrap();
        assert!(sent["permissions"].as_array().unwrap().contains(&json!("catalog:read")), "{sent}");
        assert_eq!(serde_json::from_value::<Warm>(sent.clone()).unwrap(), warm);
        let mut unknown = sent;
        unknown["permissions"] = json!(["everything"]);
        assert!(serde_json::from_value::<Warm>(unknown).is_err());
    }

    #[test]
    fn without_a_secret_none_is_right() {
        let config = |arguments: &[&str]| Config::from_arguments(["test"].iter().chain(arguments)).map(|config| config.warming);
        assert!(!is_secret(&config(&[]).unwrap(), ""));
        let secret = "0123456789abcdef0123456789abcdef";
        let with = config(&["--warm-secret", secret]).unwrap();
        assert!(is_secret(&with, secret));
        assert!(!is_secret(&with, "") && !is_secret(&with, &secret[1..]));
        assert!(!format!("{with:?}").contains(secret));
        assert!(config(&["--warm-secret", "short"]).is_err());
    }
}
