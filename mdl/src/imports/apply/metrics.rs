//! Metrics, a batch at a time: the present rows are locked and compared, what differs goes by `COPY` into a temporary table,
//! and from there one statement writes each catalog table.

mod statements;

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use futures::pin_mut;
use tokio_postgres::Row;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use super::super::Severity;
use super::super::entry::{Issue, Kind, MetricDraft, codes};
use super::record::Change;
use super::{Applied, Item, Outcome, Session, refused};
use crate::error::{Error, Result};
use crate::events;
use crate::events::kinds::METRIC_CREATED;
use crate::events::payloads::MetricPayload;
use crate::ids::{DomainId, EventId, MetricId};
use crate::metrics::changes::{self, ChangeTier, FieldChange};
use crate::metrics::definition::{Definition, Details, Direction, IndicatorKind, MetricType, Status, Summary, Tier};
use crate::metrics::{Semver, lineage, news};
use statements::STAGED;

pub use statements::Statements;

/// Rounds in which a batch may find that somebody else has just added a metric that it was about to add.
const ROUNDS: usize = 5;

/// A metric as it is in the database.
struct Present {
    id: MetricId,
    definition: Definition,
    version: Semver,
    revision: i32,
}

/// A metric as it is to be.
struct Staged<'a> {
    is_new: bool,
    id: MetricId,
    draft: &'a MetricDraft,
    event: events::Kind<MetricPayload>,
    version: Semver,
    revision: i32,
    tier: ChangeTier,
    changed_fields: Vec<String>,
    edges_changed: bool,
}

/// What writing some metrics tells of them.
#[derive(Default)]
struct Told {
    changes: Vec<Change>,
    warnings: Vec<Issue>,
}

impl Session {
    /// Writes metrics, all at once where the database lets it, and counts what became of each.
    pub(super) async fn write_metrics(&mut self, items: &[Item<MetricDraft>], applied: &mut Applied) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        // What is still to be written, as (start, end), the first one last.
        let mut left = vec![(0, items.len())];
        while let Some((start, end)) = left.pop() {
            self.client.batch_execute("SAVEPOINT metrics").await?;
            let mut told = Told::default();
            match self.write_some(&items[start..end], &mut told).await {
                Ok(outcomes) => {
                    self.client.batch_execute("RELEASE metrics").await?;
                    outcomes.into_iter().for_each(|outcome| applied.tally.count(outcome));
                    applied.changes.append(&mut told.changes);
                    applied.issues.append(&mut told.warnings);
                }
                Err(error) => {
                    // Asks of any entry whether the error is a row's fault; which row's is found by halving.
                    let issue = refused(&items[start].entry, error)?;
                    self.client.batch_execute("ROLLBACK TO metrics; RELEASE metrics").await?;
                    if end - start == 1 {
                        applied.tally.failed += 1;
                        applied.issues.push(issue);
                    } else {
                        let middle = start + (end - start) / 2;
                        left.push((middle, end));
                        left.push((start, middle));
                    }
                }
            }
        }
        Ok(())
    }

    async fn write_some(&mut self, items: &[Item<MetricDraft>], told: &mut Told) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(items.len());
        let mut left: Vec<&Item<MetricDraft>> = items.iter().collect();
        for _ in 0..ROUNDS {
            let present = self.present(&left).await?;
            let mut staged = Vec::new();
            for &item in &left {
                let before = present.get(&item.draft.key);
                let compared = compare(&item.draft, before);
                if let Some(before) = before {
                    let after = compared.as_ref().map_or(before.version, |(state, _)| state.version);
                    told.warnings.extend(other_version(item, before.version, after));
                }
                match compared {
                    None => outcomes.push(Outcome::Unchanged),
                    Some((state, mut fields)) => {
                        if self.dry_run {
                            self.name_domains(&mut fields).await?;
                            told.changes.push(Change::new(state.is_new, Kind::Metric, &item.draft.key, fields));
                            outcomes.push(if state.is_new { Outcome::Created } else { Outcome::Updated });
                        }
                        staged.push(state);
                    }
                }
            }
            if self.dry_run || staged.is_empty() {
                return Ok(outcomes);
            }
            let lost = self.write_staged(&staged).await?;
            let written = staged.iter().filter(|state| !lost.contains(&state.draft.key));
            outcomes.extend(written.map(|state| if state.is_new { Outcome::Created } else { Outcome::Updated }));
            if lost.is_empty() {
                return Ok(outcomes);
            }
            left.retain(|item| lost.contains(&item.draft.key));
        }
        Err(Error::unavailable("the catalog", "others keep adding the same metrics"))
    }

    /// The metrics with these entries' keys, locked in the order of their keys so that two imports wait instead of blocking each other.
    async fn present(&self, items: &[&Item<MetricDraft>]) -> Result<HashMap<String, Present>> {
        let keys: Vec<&str> = items.iter().map(|item| item.draft.key.as_str()).collect();
        let query = if self.dry_run { &self.metrics.present } else { &self.metrics.lock };
        let rows = self.client.query(query, &[&self.tenant.0, &keys]).await?;
        rows.iter().map(present).collect()
    }

    /// Writes new states. Returns the keys of those that somebody else has added since they were looked for.
    async fn write_staged(&self, staged: &[Staged<'_>]) -> Result<HashSet<String>> {
        let statements = &self.metrics;
        let tenant = &self.tenant.0;
        // Left by another batch of this transaction.
        self.client.batch_execute("TRUNCATE import_staging").await?;
        let sink = self.client.copy_in(&statements.stage).await?;
        let writer = BinaryCopyInWriter::new(sink, &STAGED);
        pin_mut!(writer);
        for state in staged {
            let (upstream, downstream): (Vec<&str>, Vec<&str>) = if state.edges_changed {
                lineage::edges(&state.draft.key, &state.draft.definition.details.relationships).into_iter().unzip()
            } else {
                Default::default()
            };
            let Summary {
                name,
                short_name,
                description,
                category,
                tier,
                domain_id,
                indicator_kind,
                metric_type,
                status,
                tags,
                synonyms,
                formula,
                unit,
                expected_direction,
                owner_team,
                technical_owner,
                business_owner,
                data_classification,
                pii_involved,
            } = &state.draft.definition.summary;
            let summary = &state.draft.definition.summary;
            let domain = self.domains.reference(summary.domain_id);
            let key = (state.id, state.draft.key.as_str());
            let event = news::payload(key, summary, state.version, domain, state.tier, &state.changed_fields);
            let row: [&(dyn ToSql + Sync); 36] = [
                &state.is_new,
                &state.id.0,
                &EventId::new().0,
                &state.event.name,
                &state.event.version,
                &Json(&event),
                &state.draft.key,
                name,
                short_name,
                description,
                category,
                &tier.map(Tier::as_str),
                &domain_id.map(|id| id.0),
                &indicator_kind.map(IndicatorKind::as_str),
                &metric_type.as_str(),
                &status.as_str(),
                tags,
                synonyms,
                formula,
                unit,
                &expected_direction.map(Direction::as_str),
                owner_team,
                technical_owner,
                business_owner,
                data_classification,
                pii_involved,
                &Json(&state.draft.definition),
                &state.version.major,
                &state.version.minor,
                &state.version.patch,
                &state.revision,
                &state.tier.as_str(),
                &state.changed_fields,
                &state.edges_changed,
                &upstream,
                &downstream,
            ];
            writer.as_mut().write(&row).await?;
        }
        writer.finish().await?;

        let new = staged.iter().filter(|state| state.is_new).count() as u64;
        let mut lost = HashSet::new();
        if new > 0 && self.client.execute(&statements.insert, &[tenant, &self.by]).await? < new {
            let rows = self.client.query(&statements.lost, &[tenant]).await?;
            lost.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        }
        if new < staged.len() as u64 {
            self.client.execute(&statements.update, &[tenant, &self.by]).await?;
            self.client.execute(&statements.forget_edges, &[tenant]).await?;
        }
        self.client.execute(&statements.versions, &[tenant, &self.message, &self.by]).await?;
        self.client.execute(&statements.edges, &[tenant]).await?;
        self.client.execute(&statements.events, &[tenant, &self.by, &self.trace]).await?;
        Ok(lost)
    }
}

/// The state that a draft asks for, and what differs; `None` when the metric says the same already.
fn compare<'a>(draft: &'a MetricDraft, present: Option<&Present>) -> Option<(Staged<'a>, Vec<FieldChange>)> {
    static NOTHING: LazyLock<Definition> = LazyLock::new(Definition::default);
    let before = present.map_or(&*NOTHING, |present| &present.definition);
    let fields = changes::between(before, &draft.definition);
    let changed_fields: Vec<String> = fields.iter().map(|change| change.field.clone()).collect();
    let state = match present {
        None => Staged {
            is_new: true,
            id: MetricId::new(),
            draft,
            event: METRIC_CREATED,
            version: draft.version.map_or(Semver::FIRST, |(_, version)| version),
            revision: 1,
            tier: ChangeTier::Initial,
            changed_fields,
            edges_changed: true,
        },
        Some(_) if fields.is_empty() => return None,
        Some(present) => {
            let tier = ChangeTier::of(changed_fields.iter().map(String::as_str));
            Staged {
                is_new: false,
                id: present.id,
                draft,
                event: news::kind_of_update(&present.definition.summary, &draft.definition.summary, &changed_fields),
                version: present.version.bump(tier),
                revision: present.revision + 1,
                tier,
                changed_fields,
                edges_changed: present.definition.details.relationships != draft.definition.details.relationships,
            }
        }
    };
    Some((state, fields))
}

/// Warns of a version that the metric neither has nor gets.
fn other_version(item: &Item<MetricDraft>, before: Semver, after: Semver) -> Option<Issue> {
    let (field, version) = item.draft.version.filter(|(_, version)| *version != before && *version != after)?;
    let message = format!("Only a new metric takes its version from a file: {version} is left out, this one is at {before}");
    Some(item.entry.issue(Severity::Warning, field, codes::CHANGED, message))
}

fn present(row: &Row) -> Result<(String, Present)> {
    let unknown = |what: &str| Error::internal(format!("a metric has an unknown {what}"));
    let word = |i: usize| row.get::<_, Option<&str>>(i);
    let summary = Summary {
        name: row.get(2),
        short_name: row.get(3),
        description: row.get(4),
        category: row.get(5),
        tier: word(6).map(|text| Tier::parse(text).ok_or_else(|| unknown("tier"))).transpose()?,
        domain_id: row.get::<_, Option<Uuid>>(7).map(DomainId),
        indicator_kind: word(8).map(|text| IndicatorKind::parse(text).ok_or_else(|| unknown("indicator kind"))).transpose()?,
        metric_type: MetricType::parse(row.get(9)).ok_or_else(|| unknown("type"))?,
        status: Status::parse(row.get(10)).ok_or_else(|| unknown("status"))?,
        tags: row.get(11),
        synonyms: row.get(12),
        formula: row.get(13),
        unit: row.get(14),
        expected_direction: word(15).map(|text| Direction::parse(text).ok_or_else(|| unknown("direction"))).transpose()?,
        owner_team: row.get(16),
        technical_owner: row.get(17),
        business_owner: row.get(18),
        data_classification: row.get(19),
        pii_involved: row.get(20),
    };
    let Json(details) = row.get::<_, Json<Details>>(21);
    let version = Semver { major: row.get(22), minor: row.get(23), patch: row.get(24) };
    let present =
        Present { id: MetricId(row.get(0)), definition: Definition { summary, details }, version, revision: row.get(25) };
    Ok((row.get(1), present))
}
