use std::sync::Arc;

use futures::FutureExt;
use mdl::db::Snapshot;
use mdl::ids::{KeyResultId, ObjectiveId};
use mdl::metrics::{Columns, related};
use mdl::objectives::{KeyResult, Objective, store};

use super::{Batched, grouped, shares};
use crate::graphql::metrics::Metric;

/// Objectives, key results, and the metrics that they are read from.
pub struct ObjectiveLoaders {
    pub by_id: Batched<ObjectiveId, Arc<Objective>>,
    pub by_key: Batched<String, Arc<Objective>>,
    /// The current key results of an objective.
    pub key_results: Batched<ObjectiveId, Vec<Arc<KeyResult>>>,
    pub key_result_by_id: Batched<KeyResultId, Arc<KeyResult>>,
    /// The current key results that are read from the metric with this key.
    pub key_results_of_metric: Batched<String, Vec<Arc<KeyResult>>>,
    /// The existing metrics of a key result.
    pub key_result_metrics: Batched<(KeyResultId, Columns), Vec<Metric>>,
    /// The keys of a key result's metrics, whether these exist or not.
    pub key_result_metric_keys: Batched<KeyResultId, Vec<String>>,
}

impl ObjectiveLoaders {
    pub fn new(snapshot: &Arc<Snapshot>) -> Self {
        Self {
            by_id: Batched::new(snapshot, |snapshot, ids| {
                async move {
                    let found = snapshot.read(async |conn| store::by_ids(conn, snapshot.tenant(), &ids).await).await?;
                    Ok(found.into_iter().map(|objective| (objective.id, Arc::new(objective))).collect())
                }
                .boxed()
            }),
            by_key: Batched::new(snapshot, |snapshot, keys| {
                async move {
                    let found = snapshot.read(async |conn| store::by_keys(conn, snapshot.tenant(), &keys).await).await?;
                    Ok(found.into_iter().map(|objective| (objective.key.clone(), Arc::new(objective))).collect())
                }
                .boxed()
            }),
            key_results: Batched::new(snapshot, |snapshot, ids| {
                async move {
                    let found = snapshot.read(async |conn| store::key_results_of(conn, snapshot.tenant(), &ids).await).await?;
                    Ok(grouped(found.into_iter().map(|key_result| (key_result.objective_id, Arc::new(key_result)))))
                }
                .boxed()
            }),
            key_result_by_id: Batched::new(snapshot, |snapshot, ids| {
                async move {
                    let tenant = snapshot.tenant();
                    let found = snapshot.read(async |conn| store::key_results_by_ids(conn, tenant, &ids).await).await?;
                    Ok(found.into_iter().map(|key_result| (key_result.id, Arc::new(key_result))).collect())
                }
                .boxed()
            }),
            key_results_of_metric: Batched::new(snapshot, |snapshot, keys| {
                async move {
                    let tenant = snapshot.tenant();
                    let found = snapshot.read(async |conn| store::key_results_of_metrics(conn, tenant, &keys).await).await?;
                    Ok(grouped(found.into_iter().map(|(key, key_result)| (key, Arc::new(key_result)))))
                }
                .boxed()
            }),
            key_result_metrics: Batched::new(snapshot, |snapshot, keys| {
                async move {
                    let mut found = Vec::new();
                    for share in shares(keys) {
                        let (tenant, ids) = (snapshot.tenant(), share.keys());
                        let rows =
                            snapshot.read(async |conn| related::of_key_results(conn, tenant, &ids, share.columns).await).await?;
                        found.extend(rows.into_iter().flat_map(|(id, row)| share.answers(id, Metric::from(row))));
                    }
                    Ok(grouped(found))
                }
                .boxed()
            }),
            key_result_metric_keys: Batched::new(snapshot, |snapshot, ids| {
                async move {
                    let tenant = snapshot.tenant();
                    Ok(grouped(snapshot.read(async |conn| store::metric_keys_of_each(conn, tenant, &ids).await).await?))
                }
                .boxed()
            }),
        }
    }
}
