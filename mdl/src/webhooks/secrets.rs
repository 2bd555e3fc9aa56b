//! What messages are signed with. A secret is shown once, when it is made; the database has it encrypted.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use diesel::dsl::now;
use diesel::prelude::*;
use diesel::sql_types::Timestamptz;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use rand::Rng;
use serde_json::json;
use zeroize::Zeroizing;

use super::{Endpoint, store};
use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::audit;
use crate::error::{Code, Error, Result};
use crate::ids::{TenantId, WebhookEndpointId, WebhookSecretId};
use crate::schema::{webhook_endpoints, webhook_secrets};
use crate::sealing::Sealer;

/// Longest time that a replaced secret still signs.
pub const MAX_OVERLAP: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most secrets that sign at once: each adds a signature to every message.
const MAX_VALID: usize = 5;

/// A secret as the receiver knows it.
pub struct SigningSecret(Zeroizing<[u8; 32]>);

impl SigningSecret {
    pub fn random() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rand::rng().fill(&mut bytes[..]);
        Self(bytes)
    }

    /// `whsec_` and Base64, as the libraries of Standard Webhooks take it.
    pub fn reveal(&self) -> String {
        format!("whsec_{}", STANDARD.encode(&self.0[..]))
    }
}

/// A secret as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = webhook_secrets, check_for_backend(diesel::pg::Pg))]
pub struct StoredSecret {
    pub id: WebhookSecretId,
    pub endpoint_id: WebhookEndpointId,
    pub sealed: Vec<u8>,
    pub created_at: DateTime<Utc>,
    /// Set when a newer one has taken its place.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Makes a new secret, which signs from now on. Those before it sign as well for the time of the overlap, so that a receiver
/// can take its time to learn the new one.
///
/// Problems: `overlap` (more than [`MAX_OVERLAP`]), or too many secrets that still sign.
pub async fn rotate(app: &App, actor: &Actor, id: WebhookEndpointId, overlap: Duration) -> Result<(Endpoint, SigningSecret)> {
    actor.require(Permission::Webhooks)?;
    if overlap > MAX_OVERLAP {
        return Err(Error::invalid("overlap_hours", Code::OutOfRange, "Must be a week at most"));
    }
    let tx = app.db.begin(actor.tenant).await?;
    let endpoint = store::lock(&tx, actor.tenant, id).await?.ok_or_else(|| Error::unknown_id("webhook endpoint"))?;
    // The database's time, by which it is judged whether a secret still signs.
    let moment: DateTime<Utc> = diesel::select(now.into_sql::<Timestamptz>()).get_result(&mut &*tx).await?;
    let expires_at = moment + overlap;
    let replaced = webhook_secrets::table
        .filter(webhook_secrets::tenant_id.eq(actor.tenant).and(webhook_secrets::endpoint_id.eq(id)))
        .filter(webhook_secrets::expires_at.is_null().or(webhook_secrets::expires_at.gt(expires_at)));
    diesel::update(replaced).set(webhook_secrets::expires_at.eq(expires_at)).execute(&mut &*tx).await?;
    let secret = SigningSecret::random();
    insert(&tx, &app.sealer, actor.tenant, id, &secret).await?;
    if valid(&tx, &[id]).await?.len() > MAX_VALID {
        let message = format!("{MAX_VALID} secrets sign already; wait until the older ones have expired, or give no overlap");
        return Err(Error::invalid("overlap_hours", Code::TooMany, message));
    }
    audit::record(&tx, actor, "webhook.secret_rotated", ("webhook", id.0), &json!({ "expiresAt": expires_at })).await?;
    tx.commit().await?;
    Ok((endpoint, secret))
}

/// Stores a secret, encrypted.
pub(super) async fn insert(
    mut conn: &AsyncPgConnection,
    sealer: &Sealer,
    tenant: TenantId,
    endpoint: WebhookEndpointId,
    secret: &SigningSecret,
) -> Result<()> {
    diesel::insert_into(webhook_secrets::table)
        .values((
            webhook_secrets::tenant_id.eq(tenant),
            webhook_secrets::id.eq(WebhookSecretId::new()),
            webhook_secrets::endpoint_id.eq(endpoint),
            webhook_secrets::sealed.eq(sealer.seal(&secret.0[..], endpoint.0)?),
        ))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// The secrets that sign the messages of these endpoints now, the newest of each first. The endpoints may be of any tenants
/// that the transaction sees.
pub async fn valid(mut conn: &AsyncPgConnection, endpoints: &[WebhookEndpointId]) -> Result<Vec<StoredSecret>> {
    let query = webhook_secrets::table
        .filter(webhook_secrets::endpoint_id.eq_any(endpoints))
        .filter(webhook_secrets::expires_at.is_null().or(webhook_secrets::expires_at.gt(now)))
        .order(webhook_secrets::id.desc())
        .select(StoredSecret::as_select());
    Ok(query.load(&mut conn).await?)
}

/// Encrypts everything with the first key of the settings that another key encrypted, in all tenants. After it the other keys
/// can go. Returns how many rows were changed; running it again, or on several machines, does no harm.
pub async fn reseal(app: &App) -> Result<usize> {
    let tx = app.db.dispatch().await?;
    let mut count = 0;
    let secrets: Vec<StoredSecret> =
        webhook_secrets::table.order(webhook_secrets::id).select(StoredSecret::as_select()).for_update().load(&mut &*tx).await?;
    for secret in secrets.iter().filter(|secret| !app.sealer.is_current(&secret.sealed)) {
        let of = secret.endpoint_id.0;
        let sealed = app.sealer.seal(&app.sealer.open(&secret.sealed, of)?, of)?;
        diesel::update(webhook_secrets::table.filter(webhook_secrets::id.eq(secret.id)))
            .set(webhook_secrets::sealed.eq(sealed))
            .execute(&mut &*tx)
            .await?;
        count += 1;
    }
    let endpoints: Vec<Endpoint> =
        webhook_endpoints::table.order(webhook_endpoints::id).select(Endpoint::as_select()).for_update().load(&mut &*tx).await?;
    for endpoint in &endpoints {
        if let Some(headers) = endpoint.settings.headers.resealed(&app.sealer, endpoint.id)? {
            diesel::update(webhook_endpoints::table.filter(webhook_endpoints::id.eq(endpoint.id)))
                .set(webhook_endpoints::headers.eq(headers))
                .execute(&mut &*tx)
                .await?;
            count += 1;
        }
    }
    tx.commit().await?;
    Ok(count)
}
