use std::sync::Arc;

use futures::FutureExt;
use mdl::db::Snapshot;
use mdl::domains::{self, Domain};
use mdl::ids::DomainId;
use mdl::metrics::Columns;
use mdl::objectives::{self, Objective};
use mdl::page::{ByText, Page, PageArgs};

use super::{Batched, by_arguments};
use crate::graphql::metrics::Metric;
use crate::graphql::metrics::list::with_wrapped;

/// Pages ordered by key, which is also the cursor.
pub type MetricPage = Page<(Metric, ByText)>;
pub type ObjectivePage = Page<(Arc<Objective>, ByText)>;

/// Domains, and what is in them.
pub struct DomainLoaders {
    pub by_id: Batched<DomainId, Arc<Domain>>,
    /// Pages of their metrics.
    pub metrics: Batched<(DomainId, (PageArgs<ByText>, Columns)), MetricPage>,
    pub metric_count: Batched<DomainId, i64>,
    pub objectives: Batched<(DomainId, PageArgs<ByText>), ObjectivePage>,
    pub objective_count: Batched<DomainId, i64>,
}

impl DomainLoaders {
    pub fn new(snapshot: &Arc<Snapshot>) -> Self {
        Self {
            by_id: Batched::new(snapshot, |snapshot, ids| {
                async move {
                    let found = snapshot.read(async |conn| domains::store::by_ids(conn, snapshot.tenant(), &ids).await).await?;
                    Ok(found.into_iter().map(|domain| (domain.id, Arc::new(domain))).collect())
                }
                .boxed()
            }),
            metrics: Batched::new(snapshot, |snapshot, keys| {
                async move {
                    let mut found = Vec::new();
                    for ((args, columns), ids) in by_arguments(keys) {
                        let pages = snapshot
                            .read(async |conn| {
                                let tenant = snapshot.tenant();
                                mdl::metrics::related::page_of_each_domain(conn, tenant, &ids, &args, columns).await
                            })
                            .await?;
                        found.extend(pages.into_iter().map(|(id, page)| ((id, (args.clone(), columns)), with_wrapped(page))));
                    }
                    Ok(found)
                }
                .boxed()
            }),
            metric_count: Batched::new(snapshot, |snapshot, ids| {
                async move {
                    let tenant = snapshot.tenant();
                    snapshot.read(async |conn| mdl::metrics::related::count_of_each_domain(conn, tenant, &ids).await).await
                }
                .boxed()
            }),
            objectives: Batched::new(snapshot, |snapshot, keys| {
                async move {
                    let mut found = Vec::new();
                    for (args, ids) in by_arguments(keys) {
                        let tenant = snapshot.tenant();
                        let pages = snapshot
                            .read(async |conn| objectives::store::page_of_each_domain(conn, tenant, &ids, &args).await)
                            .await?;
                        found.extend(pages.into_iter().map(|(id, page)| ((id, args.clone()), page.map(shared))));
                    }
                    Ok(found)
                }
                .boxed()
            }),
            objective_count: Batched::new(snapshot, |snapshot, ids| {
                async move {
                    let tenant = snapshot.tenant();
                    snapshot.read(async |conn| objectives::store::count_of_each_domain(conn, tenant, &ids).await).await
                }
                .boxed()
            }),
        }
    }
}

fn shared<T>((value, position): (T, ByText)) -> (Arc<T>, ByText) {
    (Arc::new(value), position)
}
