use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use mdl::db::Snapshot;
use mdl::ids::MetricId;
use mdl::metrics::lineage::{self, Side};
use mdl::metrics::{Columns, Definition, Details, MetricVersion, store, versions};
use mdl::page::{ByText, Page, PageArgs};

use super::{Batched, by_arguments, grouped, shares};
use crate::graphql::coalesced::Coalesced;
use crate::graphql::metrics::Metric;
use crate::graphql::metrics::list::with_wrapped;

/// Which neighbours of a metric are wanted, and what of them.
pub type NeighbourArgs = (Side, PageArgs<ByText>, Columns);

/// Metrics by what they are asked for by.
type Fetched<K> = BoxFuture<'static, mdl::Result<Vec<(K, Metric)>>>;

/// Metrics, their history and their lineage.
pub struct MetricLoaders {
    pub by_id: Batched<(MetricId, Columns), Metric>,
    pub by_key: Batched<(String, Columns), Metric>,
    /// For metrics that were loaded without.
    pub details: Batched<MetricId, Arc<Details>>,
    pub versions: Batched<(MetricId, PageArgs<i32>), Page<MetricVersion>>,
    pub version_count: Batched<MetricId, i64>,
    /// Whole definitions as they were at a revision.
    pub documents: Batched<(MetricId, i32), Arc<Definition>>,
    pub neighbours: Batched<(String, NeighbourArgs), Page<(Metric, ByText)>>,
    pub neighbour_count: Batched<(String, Side), i64>,
    pub unresolved: Batched<String, Vec<(String, Side)>>,
}

impl MetricLoaders {
    pub fn new(snapshot: &Arc<Snapshot>) -> Self {
        Self {
            by_id: Batched::new(snapshot, by_id),
            by_key: Batched::new(snapshot, by_key),
            details: Batched::new(snapshot, |snapshot, ids| {
                async move {
                    let tenant = snapshot.tenant();
                    let found = snapshot.read(async |conn| store::details_by_ids(conn, tenant, &ids).await).await?;
                    Ok(found.into_iter().map(|(id, details)| (id, Arc::new(details))).collect())
                }
                .boxed()
            }),
            versions: Batched::new(snapshot, |snapshot, keys| {
                async move {
                    let mut found = Vec::new();
                    for (args, ids) in by_arguments(keys) {
                        let tenant = snapshot.tenant();
                        let pages = snapshot.read(async |conn| versions::page_of_each(conn, tenant, &ids, &args).await).await?;
                        found.extend(pages.into_iter().map(|(id, page)| ((id, args.clone()), page)));
                    }
                    Ok(found)
                }
                .boxed()
            }),
            version_count: Batched::new(snapshot, |snapshot, ids| {
                async move { snapshot.read(async |conn| versions::count_of_each(conn, snapshot.tenant(), &ids).await).await }
                    .boxed()
            }),
            documents: Batched::new(snapshot, |snapshot, wanted| {
                async move {
                    let tenant = snapshot.tenant();
                    let found = snapshot.read(async |conn| versions::documents(conn, tenant, &wanted).await).await?;
                    Ok(found.into_iter().map(|(key, definition)| (key, Arc::new(definition))).collect())
                }
                .boxed()
            }),
            neighbours: Batched::new(snapshot, |snapshot, keys| {
                async move {
                    let mut found = Vec::new();
                    for ((side, args, columns), keys) in by_arguments(keys) {
                        let tenant = snapshot.tenant();
                        let pages = snapshot
                            .read(async |conn| lineage::neighbours_of_each(conn, tenant, side, &keys, &args, columns).await)
                            .await?;
                        found.extend(
                            pages.into_iter().map(|(key, page)| ((key, (side, args.clone(), columns)), with_wrapped(page))),
                        );
                    }
                    Ok(found)
                }
                .boxed()
            }),
            neighbour_count: Batched::new(snapshot, |snapshot, keys| {
                async move {
                    let mut found = Vec::new();
                    for (side, keys) in by_arguments(keys) {
                        let tenant = snapshot.tenant();
                        let counts = snapshot.read(async |conn| lineage::count_of_each(conn, tenant, side, &keys).await).await?;
                        found.extend(counts.into_iter().map(|(key, count)| ((key, side), count)));
                    }
                    Ok(found)
                }
                .boxed()
            }),
            unresolved: Batched::new(snapshot, |snapshot, keys| {
                async move {
                    let tenant = snapshot.tenant();
                    let found = snapshot.read(async |conn| lineage::unresolved(conn, tenant, &keys).await).await?;
                    Ok(grouped(found.into_iter().map(|(key, missing, side)| (key, (missing, side)))))
                }
                .boxed()
            }),
        }
    }
}

/// Single metrics, for operations that read nothing else.
pub struct SingleMetrics {
    pub by_id: Coalesced<(MetricId, Columns), Metric>,
    pub by_key: Coalesced<(String, Columns), Metric>,
}

impl Default for SingleMetrics {
    fn default() -> Self {
        Self { by_id: Coalesced::new(by_id), by_key: Coalesced::new(by_key) }
    }
}

fn by_id(snapshot: Arc<Snapshot>, keys: Vec<(MetricId, Columns)>) -> Fetched<(MetricId, Columns)> {
    async move {
        let mut found = Vec::new();
        for share in shares(keys) {
            let (tenant, ids) = (snapshot.tenant(), share.keys());
            let rows = snapshot.read(async |conn| store::by_ids(conn, tenant, &ids, share.columns).await).await?;
            found.extend(rows.into_iter().flat_map(|row| share.answers(row.0.id, Metric::from(row))));
        }
        Ok(found)
    }
    .boxed()
}

fn by_key(snapshot: Arc<Snapshot>, keys: Vec<(String, Columns)>) -> Fetched<(String, Columns)> {
    async move {
        let mut found = Vec::new();
        for share in shares(keys) {
            let (tenant, keys) = (snapshot.tenant(), share.keys());
            let rows = snapshot.read(async |conn| store::by_keys(conn, tenant, &keys, share.columns).await).await?;
            found.extend(rows.into_iter().flat_map(|row| share.answers(row.0.key.clone(), Metric::from(row))));
        }
        Ok(found)
    }
    .boxed()
}
