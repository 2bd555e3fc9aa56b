use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use futures::FutureExt;
use mdl::db::Snapshot;
use mdl::ids::{WebhookDeliveryId, WebhookEndpointId};
use mdl::webhooks::secrets::{self, StoredSecret};
use mdl::webhooks::statistics::{self, Statistics};
use mdl::webhooks::{Attempt, Endpoint, store};

use super::{Batched, by_arguments, grouped};

/// Webhook endpoints, and what belongs to them and to their deliveries.
pub struct WebhookLoaders {
    pub endpoints: Batched<WebhookEndpointId, Arc<Endpoint>>,
    /// Those that sign now.
    pub secrets: Batched<WebhookEndpointId, Vec<StoredSecret>>,
    /// By the attempts of so many hours.
    pub statistics: Batched<(WebhookEndpointId, i32), Arc<Statistics>>,
    pub attempts: Batched<WebhookDeliveryId, Vec<Attempt>>,
}

impl WebhookLoaders {
    pub fn new(snapshot: &Arc<Snapshot>) -> Self {
        Self {
            endpoints: Batched::new(snapshot, |snapshot, ids| {
                async move {
                    let found = snapshot.read(async |conn| store::by_ids(conn, snapshot.tenant(), &ids).await).await?;
                    Ok(found.into_iter().map(|endpoint| (endpoint.id, Arc::new(endpoint))).collect())
                }
                .boxed()
            }),
            secrets: Batched::new(snapshot, |snapshot, ids| {
                async move {
                    let found = snapshot.read(async |conn| secrets::valid(conn, &ids).await).await?;
                    Ok(grouped(found.into_iter().map(|secret| (secret.endpoint_id, secret))))
                }
                .boxed()
            }),
            statistics: Batched::new(snapshot, |snapshot, keys| {
                async move {
                    let (tenant, mut all) = (snapshot.tenant(), Vec::new());
                    for (hours, ids) in by_arguments(keys) {
                        let since = Utc::now() - TimeDelta::hours(hours.into());
                        let found = snapshot.read(async |conn| statistics::since(conn, tenant, &ids, since).await).await?;
                        all.extend(found.into_iter().map(|one| ((one.endpoint_id, hours), Arc::new(one))));
                    }
                    Ok(all)
                }
                .boxed()
            }),
            attempts: Batched::new(snapshot, |snapshot, ids| {
                async move {
                    let found = snapshot.read(async |conn| store::attempts(conn, snapshot.tenant(), &ids).await).await?;
                    Ok(grouped(found.into_iter().map(|attempt| (attempt.delivery_id, attempt))))
                }
                .boxed()
            }),
        }
    }
}
