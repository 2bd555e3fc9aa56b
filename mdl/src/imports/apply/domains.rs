//! Business domains: those that a file defines, and those that its metrics and objectives only name.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

use super::super::Severity;
use super::super::entry::{DomainDraft, DomainLabel, Entry, Kind, MetricDraft, ObjectiveDraft, codes};
use super::record::Change;
use super::{Applied, Item, Outcome, Session, differences};
use crate::domains::{Content, key_of_name, payload};
use crate::error::{Code, Error, Result};
use crate::events::kinds::{DOMAIN_CREATED, DOMAIN_UPDATED};
use crate::events::payloads::Reference;
use crate::extra::Extra;
use crate::ids::DomainId;
use crate::metrics::changes::FieldChange;

/// Domains and texts that are remembered before all are forgotten; a company has some dozen domains.
const MAX_KNOWN: usize = 20_000;

/// What is known of the tenant's domains.
#[derive(Default)]
pub struct Domains {
    by_key: HashMap<String, DomainId>,
    by_name: HashMap<String, DomainId>,
    /// Texts by which the database has been asked for domains, and there were some.
    asked: HashSet<String>,
    names: HashMap<DomainId, (String, String)>,
}

impl Domains {
    /// The name of a domain that has been seen.
    pub fn label(&self, id: DomainId) -> Option<&str> {
        self.names.get(&id).map(|(_, name)| name.as_str())
    }

    /// A domain that has been seen, as entries in it are told of.
    pub fn reference(&self, id: Option<DomainId>) -> Option<Reference> {
        let id = id?;
        self.names.get(&id).map(|(key, name)| Reference { id: id.0, key: key.clone(), name: name.clone() })
    }

    /// The domain that is named so, among those that have been seen. A key wins over an equal name.
    fn find(&self, label: &DomainLabel) -> Option<DomainId> {
        let of_name = self.by_name.get(label.text());
        match label {
            DomainLabel::KeyOrName(text) => self.by_key.get(text).or(of_name).copied(),
            DomainLabel::Name(_) => of_name.copied(),
        }
    }

    /// Whether the tenant may have a domain that [`Domains::find`] does not know, or one that wins over what it finds.
    fn is_open(&self, label: &DomainLabel) -> bool {
        let settled = match label {
            DomainLabel::KeyOrName(text) => self.by_key.contains_key(text),
            DomainLabel::Name(text) => self.by_name.contains_key(text),
        };
        !settled && !self.asked.contains(label.text())
    }

    fn learn(&mut self, id: DomainId, key: &str, name: &str) {
        self.by_key.insert(key.to_owned(), id);
        self.by_name.entry(name.to_owned()).or_insert(id);
        self.names.insert(id, (key.to_owned(), name.to_owned()));
    }
}

/// Whether a text that no domain answers to is meant as a key. A domain is made for a name, but nobody can tell the name that
/// belongs to a key.
fn looks_like_key(text: &str) -> bool {
    let digits_end = text.rsplit_once(['-', '_']).is_some_and(|(start, end)| {
        !start.is_empty()
            && start.chars().all(|c| c.is_ascii_uppercase() || c == '-' || c == '_')
            && !end.is_empty()
            && end.chars().all(|c| c.is_ascii_digit())
    });
    text.starts_with("DOMAIN-") || digits_end
}

impl Session {
    /// Sets the domain of each metric. One that does not exist is made, or its key kept with the metric.
    pub(super) async fn resolve_metrics(&mut self, items: &mut [Item<MetricDraft>], applied: &mut Applied) -> Result<()> {
        self.find_domains(items.iter().filter_map(|item| item.draft.domain.as_ref())).await?;
        for item in items {
            let Some(domain) = item.draft.domain.take() else { continue };
            let found = self.domain(&item.entry, &domain, applied).await?;
            item.draft.definition.summary.domain_id = found;
            if found.is_none() {
                item.draft.definition.details.extra.0.insert("business_domain".to_owned(), Value::from(domain.text()));
            }
        }
        Ok(())
    }

    /// Sets the domain of each objective, as for metrics.
    pub(super) async fn resolve_objectives(&mut self, items: &mut [Item<ObjectiveDraft>], applied: &mut Applied) -> Result<()> {
        self.find_domains(items.iter().filter_map(|item| item.draft.domain.as_ref())).await?;
        for item in items {
            let Some(domain) = item.draft.domain.take() else { continue };
            let found = self.domain(&item.entry, &domain, applied).await?;
            item.draft.content.domain_id = found;
            if found.is_none() {
                item.draft.content.extra.0.insert("business_domain".to_owned(), Value::from(domain.text()));
            }
        }
        Ok(())
    }

    /// Learns those of these domains that exist and are not known yet.
    async fn find_domains(&mut self, wanted: impl Iterator<Item = &DomainLabel>) -> Result<()> {
        if self.domains.names.len() + self.domains.asked.len() > MAX_KNOWN {
            self.domains = Domains::default();
        }
        let open: HashSet<&str> = wanted.filter(|label| self.domains.is_open(label)).map(DomainLabel::text).collect();
        if open.is_empty() { Ok(()) } else { self.ask(&open.into_iter().collect::<Vec<_>>()).await }
    }

    /// Learns the domains that have one of these texts as key or name.
    async fn ask(&mut self, texts: &[&str]) -> Result<()> {
        let rows = self
            .client
            .query(
                "SELECT id, key, name FROM business_domains WHERE tenant_id = $1 AND (key = ANY ($2) OR name = ANY ($2))",
                &[&self.tenant.0, &texts],
            )
            .await?;
        for row in rows {
            self.domains.learn(DomainId(row.get(0)), row.get(1), row.get(2));
        }
        let Domains { by_key, by_name, asked, .. } = &mut self.domains;
        let found = texts.iter().filter(|text| by_key.contains_key(**text) || by_name.contains_key(**text));
        asked.extend(found.map(|text| (*text).to_owned()));
        Ok(())
    }

    /// For people, puts the names of domains in the place of their ids.
    pub(super) async fn name_domains(&mut self, fields: &mut [FieldChange]) -> Result<()> {
        for field in fields.iter_mut().filter(|field| field.field == "domain") {
            for value in [&mut field.before, &mut field.after] {
                let Some(id) = value.as_str().and_then(|id| id.parse().ok()).map(DomainId) else { continue };
                if self.domains.label(id).is_none() {
                    self.find_domain(id).await?;
                }
                if let Some(name) = self.domains.label(id) {
                    *value = Value::from(name);
                }
            }
        }
        Ok(())
    }

    /// Learns a domain that nothing in the file has named.
    async fn find_domain(&mut self, id: DomainId) -> Result<()> {
        let query = "SELECT key, name FROM business_domains WHERE tenant_id = $1 AND id = $2";
        if let Some(row) = self.client.query_opt(query, &[&self.tenant.0, &id.0]).await? {
            self.domains.learn(id, row.get(0), row.get(1));
        }
        Ok(())
    }

    /// The domain that an entry names: known by now, or made for it.
    async fn domain(&mut self, entry: &Entry, label: &DomainLabel, applied: &mut Applied) -> Result<Option<DomainId>> {
        if let Some(id) = self.domains.find(label) {
            return Ok(Some(id));
        }
        let text = label.text();
        let is_key = matches!(label, DomainLabel::KeyOrName(_)) && looks_like_key(text);
        let message = if is_key {
            format!("There is no business domain {text:?}. The entry is in no domain, and keeps the key among its extra fields")
        } else {
            format!("There is no business domain {text:?} yet. One of this name is made, for somebody to describe")
        };
        let mut issue = entry.issue(Severity::Warning, label.field(), codes::UNKNOWN_DOMAIN, message);
        issue.raw_value = Some(super::super::entry::cut(text));
        applied.issues.push(issue);
        if is_key {
            return Ok(None);
        }
        let id = self.imply(text).await?;
        Ok(Some(id))
    }

    /// Makes a domain of which only the name is known.
    async fn imply(&mut self, name: &str) -> Result<DomainId> {
        let base = key_of_name(name);
        for attempt in 1..=100 {
            let key =
                if attempt == 1 { base.clone() } else { format!("{}-{attempt}", base.chars().take(190).collect::<String>()) };
            let id = DomainId::new();
            if self.dry_run {
                self.domains.learn(id, &key, name);
                return Ok(id);
            }
            let inserted = self
                .client
                .execute(
                    "INSERT INTO business_domains (tenant_id, id, key, name, implied, created_by, updated_by) \
                     VALUES ($1, $2, $3, $4, true, $5, $5) ON CONFLICT DO NOTHING",
                    &[&self.tenant.0, &id.0, &key, &name, &self.by],
                )
                .await?;
            if inserted == 1 {
                self.event(DOMAIN_CREATED, id.0, &payload(id, &key, &Content::named(name))).await?;
                self.domains.learn(id, &key, name);
                return Ok(id);
            }
            // Somebody has just made it, or another name has the same key.
            self.ask(&[name]).await?;
            if let Some(id) = self.domains.by_name.get(name) {
                return Ok(*id);
            }
        }
        Err(Error::internal(format!("no key is free for the business domain {name:?}")))
    }

    /// Writes a domain that the file defines. One that so far was only implied by its name becomes this one, key and all.
    pub(super) async fn define_domain(&mut self, item: &Item<DomainDraft>, applied: &mut Applied) -> Result<Outcome> {
        let DomainDraft { key, content } = &item.draft;
        let lock = if self.dry_run { "" } else { "FOR UPDATE" };
        let rows = self
            .client
            .query(
                &format!(
                    "SELECT id, key, name, description, owner_team, stakeholders, industry, priority, objective_keys, key_metric_keys, extra, \
                     implied, archived_at IS NOT NULL FROM business_domains WHERE tenant_id = $1 AND (key = $2 OR name = $3) ORDER BY id {lock}"
                ),
                &[&self.tenant.0, key, &content.name],
            )
            .await?;
        let by_key = rows.iter().find(|row| row.get::<_, &str>(1) == key);
        let by_name = rows.iter().find(|row| row.get::<_, &str>(1) != key);
        if let Some(other) = by_name.filter(|row| !row.get::<_, bool>(11)) {
            let message = format!("The business domain {:?} has this name already", other.get::<_, &str>(1));
            return Err(Error::invalid("name", Code::Taken, message));
        }
        let Some(row) = by_key.or(by_name) else {
            let id = DomainId::new();
            if self.dry_run {
                let fields = differences(&Content::default(), content)?;
                applied.changes.push(Change::new(true, Kind::Domain, key, fields));
            } else {
                self.insert_domain(id, key, content).await?;
                self.event(DOMAIN_CREATED, id.0, &payload(id, key, content)).await?;
            }
            self.domains.learn(id, key, &content.name);
            return Ok(Outcome::Created);
        };
        let id = DomainId(row.get(0));
        let mut fields = differences(&content_of(row), content)?;
        for (field, before, after) in [
            ("key", Value::from(row.get::<_, &str>(1)), Value::from(key.as_str())),
            ("implied", Value::from(row.get::<_, bool>(11)), Value::from(false)),
            ("archived", Value::from(row.get::<_, bool>(12)), Value::from(false)),
        ] {
            if before != after {
                fields.push(FieldChange { field: field.to_owned(), before, after });
            }
        }
        if fields.is_empty() {
            self.domains.learn(id, key, &content.name);
            return Ok(Outcome::Unchanged);
        }
        if self.dry_run {
            applied.changes.push(Change::new(false, Kind::Domain, key, fields));
        } else {
            if let (Some(_), Some(implied)) = (by_key, by_name) {
                self.absorb(DomainId(implied.get(0)), id).await?;
            }
            if by_key.is_none() {
                self.await_writers_in(id).await?;
            }
            self.update_domain(id, key, content).await?;
            self.event(DOMAIN_UPDATED, id.0, &payload(id, key, content)).await?;
        }
        self.domains.learn(id, key, &content.name);
        Ok(Outcome::Updated)
    }

    /// Waits for those who write a metric of a domain that gets another key. They tell of it by the key that they have read, which
    /// makes nothing old that is kept under the new one.
    async fn await_writers_in(&self, domain: DomainId) -> Result<()> {
        let lock = "SELECT FROM metrics WHERE tenant_id = $1 AND domain_id = $2 FOR UPDATE";
        self.client.execute(lock, &[&self.tenant.0, &domain.0]).await?;
        Ok(())
    }

    /// What is in an implied domain moves to the defined one of that name, and the implied one goes.
    async fn absorb(&self, implied: DomainId, into: DomainId) -> Result<()> {
        for table in ["metrics", "objectives"] {
            let move_all = format!("UPDATE {table} SET domain_id = $3 WHERE tenant_id = $1 AND domain_id = $2");
            self.client.execute(&move_all, &[&self.tenant.0, &implied.0, &into.0]).await?;
        }
        let remove = "DELETE FROM business_domains WHERE tenant_id = $1 AND id = $2";
        self.client.execute(remove, &[&self.tenant.0, &implied.0]).await?;
        Ok(())
    }

    async fn insert_domain(&self, id: DomainId, key: &str, content: &Content) -> Result<()> {
        self.client
            .execute(
                "INSERT INTO business_domains (tenant_id, id, key, name, description, owner_team, stakeholders, industry, priority, \
                 objective_keys, key_metric_keys, extra, created_by, updated_by) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)",
                &[
                    &self.tenant.0,
                    &id.0,
                    &key,
                    &content.name,
                    &content.description,
                    &content.owner_team,
                    &content.stakeholders,
                    &content.industry,
                    &content.priority,
                    &content.objective_keys,
                    &content.key_metric_keys,
                    &Json(&content.extra),
                    &self.by,
                ],
            )
            .await?;
        Ok(())
    }

    async fn update_domain(&self, id: DomainId, key: &str, content: &Content) -> Result<()> {
        self.client
            .execute(
                "UPDATE business_domains SET key = $3, name = $4, description = $5, owner_team = $6, stakeholders = $7, industry = $8, \
                 priority = $9, objective_keys = $10, key_metric_keys = $11, extra = $12, implied = false, archived_at = NULL, \
                 revision = revision + 1, updated_at = now(), updated_by = $13 WHERE tenant_id = $1 AND id = $2",
                &[
                    &self.tenant.0,
                    &id.0,
                    &key,
                    &content.name,
                    &content.description,
                    &content.owner_team,
                    &content.stakeholders,
                    &content.industry,
                    &content.priority,
                    &content.objective_keys,
                    &content.key_metric_keys,
                    &Json(&content.extra),
                    &self.by,
                ],
            )
            .await?;
        Ok(())
    }
}

fn content_of(row: &Row) -> Content {
    let Json(extra) = row.get::<_, Json<Extra>>(10);
    Content {
        name: row.get(2),
        description: row.get(3),
        owner_team: row.get(4),
        stakeholders: row.get(5),
        industry: row.get(6),
        priority: row.get(7),
        objective_keys: row.get(8),
        key_metric_keys: row.get(9),
        extra,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_wins_over_an_equal_name_whichever_comes_first() {
        let (named, keyed) = (DomainId::new(), DomainId::new());
        let label = |text: &str| DomainLabel::KeyOrName(text.to_owned());
        let name = |text: &str| DomainLabel::Name(text.to_owned());
        let mut domains = Domains::default();
        domains.learn(named, "DOMAIN-GROWTH", "Growth");
        assert!(domains.is_open(&label("Growth")) && !domains.is_open(&name("Growth")), "another may have the key");
        domains.learn(keyed, "Growth", "g");
        assert_eq!((domains.find(&label("Growth")), domains.find(&name("Growth"))), (Some(keyed), Some(named)));
        assert_eq!((domains.find(&label("DOMAIN-GROWTH")), domains.find(&name("DOMAIN-GROWTH"))), (Some(named), None));
        assert!(!domains.is_open(&label("Growth")) && domains.is_open(&label("H")));
    }

    #[test]
    fn keys_are_told_from_names() {
        for key in ["DOMAIN-001", "DOMAIN-CUSTOMER-SUCCESS", "BD_7"] {
            assert!(looks_like_key(key), "{key}");
        }
        for name in ["Revenue", "HR", "E-COMMERCE", "R&D", "Area 51", "Customer Success", "B2B"] {
            assert!(!looks_like_key(name), "{name}");
        }
    }
}
