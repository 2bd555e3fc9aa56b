//! The catalog, page by page in the order of keys, out of one snapshot. What is archived is left out.

use std::collections::HashMap;

use super::entries;
use super::node::{Node, Object};
use crate::db::Snapshot;
use crate::error::{Error, Result};
use crate::ids::{DomainId, KeyResultId, ObjectiveId};
use crate::metrics::Columns;
use crate::objectives::KeyResult;
use crate::page::PageArgs;
use crate::{domains, metrics, objectives};

/// Metrics or domains that are in memory at once. The details of a metric and the extra fields of a domain are at most 256 KiB as JSON, the
/// rest of either is less than a MiB: a page is a hundred KiB usually, and at most some tens of MiB.
const PAGE: usize = 25;
/// Objectives that are in memory at once, with all of their key results. Those of one are some MiB at most, if they are no more than the
/// hundred that an import takes.
const OBJECTIVES: usize = 5;

/// A list of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    Domains,
    Metrics,
    Objectives,
}

impl List {
    /// As imports name it.
    pub fn name(self) -> &'static str {
        match self {
            List::Domains => "business_domains",
            List::Metrics => "metrics",
            List::Objectives => "objectives",
        }
    }
}

/// Where a page begins: at the beginning of a list, or behind an entry.
#[derive(Debug, Clone)]
pub enum Cursor {
    Domains(Option<domains::store::Position>),
    Metrics(Option<metrics::store::Position>),
    Objectives(Option<objectives::store::Position>),
}

/// Entries of one list.
pub struct Page {
    pub list: List,
    /// Each is made of its row when it is asked for, and the row goes.
    pub entries: Box<dyn Iterator<Item = Result<Object>> + Send>,
    /// `None` at the end of the catalog.
    pub next: Option<Cursor>,
}

impl Cursor {
    /// The beginning of the catalog. Domains come first: the others name them.
    pub const BEGINNING: Self = Self::Domains(None);

    pub async fn page(self, snapshot: &Snapshot) -> Result<Page> {
        match self {
            Cursor::Domains(after) => of_domains(snapshot, after).await,
            Cursor::Metrics(after) => of_metrics(snapshot, after).await,
            Cursor::Objectives(after) => of_objectives(snapshot, after).await,
        }
    }
}

async fn of_domains(snapshot: &Snapshot, after: Option<domains::store::Position>) -> Result<Page> {
    use domains::store::{Filter, Order, page};

    let (tenant, args) = (snapshot.tenant(), PageArgs { after, ..PageArgs::first(PAGE) });
    let found = snapshot.read(async |conn| page(conn, tenant, &Filter::default(), Order::Key, false, &args).await).await?;
    let next = match found.items.last() {
        Some((_, last)) if found.has_next => Cursor::Domains(Some(last.clone())),
        _ => Cursor::Metrics(None),
    };
    let defined = found.items.into_iter().filter(|(domain, _)| entries::is_defined(domain));
    let entries = defined.map(|(domain, _)| Ok(entries::domain(&domain)));
    Ok(Page { list: List::Domains, entries: Box::new(entries), next: Some(next) })
}

async fn of_metrics(snapshot: &Snapshot, after: Option<metrics::store::Position>) -> Result<Page> {
    use metrics::store::{Listing, page};

    let (tenant, args) = (snapshot.tenant(), PageArgs { after, ..PageArgs::first(PAGE) });
    let listing = Listing { columns: Columns::ALL, ..Listing::default() };
    let found = snapshot.read(async |conn| page(conn, tenant, &listing, &args).await).await?;
    let next = match found.items.last() {
        Some((_, last)) if found.has_next => Cursor::Metrics(Some(last.clone())),
        _ => Cursor::Objectives(None),
    };
    let labels = labels(snapshot, found.items.iter().filter_map(|((metric, _), _)| metric.summary.domain_id)).await?;
    let entries = found.items.into_iter().map(move |((metric, details), _)| {
        let details = details.ok_or_else(|| Error::internal("a metric was read without its details"))?;
        Ok(entries::metric(&metric, &details, label(&labels, metric.summary.domain_id)))
    });
    Ok(Page { list: List::Metrics, entries: Box::new(entries), next: Some(next) })
}

async fn of_objectives(snapshot: &Snapshot, after: Option<objectives::store::Position>) -> Result<Page> {
    use objectives::store::{Filter, Order, page};

    let (tenant, args) = (snapshot.tenant(), PageArgs { after, ..PageArgs::first(OBJECTIVES) });
    let found = snapshot.read(async |conn| page(conn, tenant, &Filter::default(), Order::Key, false, &args).await).await?;
    let next = match found.items.last() {
        Some((_, last)) if found.has_next => Some(Cursor::Objectives(Some(last.clone()))),
        _ => None,
    };
    let labels = labels(snapshot, found.items.iter().filter_map(|(objective, _)| objective.content.domain_id)).await?;
    let ids: Vec<ObjectiveId> = found.items.iter().map(|(objective, _)| objective.id).collect();
    let mut key_results = key_results(snapshot, &ids).await?;
    let entries = found.items.into_iter().map(move |(objective, _)| {
        let key_results = key_results.remove(&objective.id).unwrap_or_default();
        Ok(entries::objective(&objective, label(&labels, objective.content.domain_id), &key_results))
    });
    Ok(Page { list: List::Objectives, entries: Box::new(entries), next })
}

/// What entries say to be in these domains.
async fn labels(snapshot: &Snapshot, ids: impl Iterator<Item = DomainId>) -> Result<HashMap<DomainId, Node>> {
    let mut ids: Vec<DomainId> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let tenant = snapshot.tenant();
    let found = snapshot.read(async |conn| domains::store::by_ids(conn, tenant, &ids).await).await?;
    Ok(found.iter().map(|domain| (domain.id, entries::label(domain))).collect())
}

fn label(labels: &HashMap<DomainId, Node>, id: Option<DomainId>) -> Option<Node> {
    labels.get(&id?).cloned()
}

/// Key results in their order, each with the keys of its metrics.
type Measured = Vec<(KeyResult, Vec<String>)>;

/// The key results of each of these objectives.
async fn key_results(snapshot: &Snapshot, ids: &[ObjectiveId]) -> Result<HashMap<ObjectiveId, Measured>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let tenant = snapshot.tenant();
    let rows = snapshot.read(async |conn| objectives::store::key_results_of(conn, tenant, ids).await).await?;
    let row_ids: Vec<KeyResultId> = rows.iter().map(|row| row.id).collect();
    let links = snapshot.read(async |conn| objectives::store::metric_keys_of_each(conn, tenant, &row_ids).await).await?;
    let mut metric_keys: HashMap<KeyResultId, Vec<String>> = HashMap::new();
    for (id, key) in links {
        metric_keys.entry(id).or_default().push(key);
    }
    let mut found: HashMap<ObjectiveId, Measured> = HashMap::new();
    for row in rows {
        let keys = metric_keys.remove(&row.id).unwrap_or_default();
        found.entry(row.objective_id).or_default().push((row, keys));
    }
    Ok(found)
}
