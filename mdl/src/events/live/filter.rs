//! Which events a listener wants.

use serde_json::Value;
use uuid::Uuid;

use crate::events::Stamped;
use crate::events::kinds::TENANT_RESTORED;

/// Every condition that is given must hold; of a list, one entry must fit. That the tenant was restored concerns everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Kinds, or the beginnings of kinds: `metric` stands for all that begin with `metric.`.
    pub kinds: Option<Vec<String>>,
    /// Keys or names of business domains: events of entries in them, and of themselves. A key result is in that of its objective.
    pub domains: Option<Vec<String>>,
    pub tags: Option<Vec<String>>,
    /// Owners of any sort, as the entries name them; of key results, those of their objectives.
    pub owners: Option<Vec<String>>,
    /// What the event happened to.
    pub subject: Option<Uuid>,
    /// The objective that a key result belongs to.
    pub objective: Option<Uuid>,
    /// Only changes after which a number is another one.
    pub breaking_only: bool,
}

impl Filter {
    pub fn wants(&self, event: &Stamped) -> bool {
        event.kind == TENANT_RESTORED.name || self.fits(event)
    }

    fn fits(&self, event: &Stamped) -> bool {
        let payload = &event.payload;
        let any = |wanted: &Option<Vec<String>>, fits: &dyn Fn(&str) -> bool| {
            wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|wanted| fits(wanted)))
        };
        let is = |value: &Value, wanted: &str| value.as_str() == Some(wanted);
        let lists = |value: &Value, wanted: &str| value.as_array().is_some_and(|list| list.iter().any(|entry| is(entry, wanted)));
        any(&self.kinds, &|wanted| is_of_kind(&event.kind, wanted))
            && self.subject.is_none_or(|subject| event.subject == Some(subject))
            && (!self.breaking_only || payload["breaking"] == true)
            && any(&self.domains, &|wanted| {
                let domain = if event.kind.starts_with("domain.") { payload } else { &payload["domain"] };
                is(&domain["key"], wanted) || is(&domain["name"], wanted)
            })
            && any(&self.tags, &|wanted| lists(&payload["tags"], wanted))
            && any(&self.owners, &|wanted| {
                lists(&payload["owners"], wanted) || is(&payload["owner"], wanted) || is(&payload["ownerTeam"], wanted)
            })
            && self.objective.is_none_or(|objective| {
                payload["objective"]["id"].as_str().and_then(|id| Uuid::parse_str(id).ok()) == Some(objective)
            })
    }
}

/// Whether a kind is this one, or begins with it and a dot.
fn is_of_kind(kind: &str, wanted: &str) -> bool {
    kind.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use serde_json::json;

    use super::*;
    use crate::events::sample;
    use crate::ids::{EventId, TenantId};

    fn event(kind: &str) -> Stamped {
        let payload = sample(kind).unwrap();
        Stamped {
            tenant: TenantId::new(),
            sequence: 1,
            id: EventId::new(),
            kind: kind.to_owned(),
            version: 1,
            subject: payload["id"].as_str().and_then(|id| id.parse().ok()),
            payload,
            actor: None,
            occurred_at: Utc::now(),
            trace_context: json!({}),
        }
    }

    #[test]
    fn every_condition_holds() {
        let list = |entry: &str| Some(vec!["other".to_owned(), entry.to_owned()]);
        let metric = event("metric.definition.changed");
        let id = metric.subject;
        let fits = [
            Filter::default(),
            Filter { kinds: list("metric"), ..Filter::default() },
            Filter { kinds: list("metric.definition"), domains: list("DOMAIN-IDENTITY"), ..Filter::default() },
            Filter { kinds: list("metric.definition.changed"), domains: list("Identity"), ..Filter::default() },
            Filter { tags: list("reliability"), owners: list("Dana Whitfield"), ..Filter::default() },
            Filter { subject: id, breaking_only: true, ..Filter::default() },
        ];
        for filter in &fits {
            assert!(filter.wants(&metric), "{filter:?}");
        }
        let misses = [
            Filter { kinds: list("metr"), ..Filter::default() },
            Filter { kinds: Some(Vec::new()), ..Filter::default() },
            Filter { domains: list("DOMAIN-OTHER"), ..Filter::default() },
            Filter { tags: list("reliability"), owners: list("Somebody"), ..Filter::default() },
            Filter { subject: Some(Uuid::nil()), ..Filter::default() },
            Filter { objective: Some(Uuid::nil()), ..Filter::default() },
        ];
        for filter in &misses {
            assert!(!filter.wants(&metric), "{filter:?}");
        }
        for filter in fits.iter().chain(&misses) {
            assert!(filter.wants(&event("tenant.restored")), "{filter:?}");
        }
        let breaking = Filter { breaking_only: true, ..Filter::default() };
        assert!(!breaking.wants(&event("domain.updated")));
    }

    #[test]
    fn things_are_in_domains_and_objectives() {
        let domain = Filter { domains: Some(vec!["DOMAIN-IDENTITY".to_owned()]), ..Filter::default() };
        for kind in ["metric.created", "domain.updated", "objective.created", "keyResult.updated"] {
            assert!(domain.wants(&event(kind)), "{kind}");
        }
        let owner = Filter { owners: Some(vec!["Dana Whitfield".to_owned()]), ..Filter::default() };
        assert!(owner.wants(&event("keyResult.updated")), "its objective's");
        let objective = event("objective.created").subject;
        let filter = Filter { objective, ..Filter::default() };
        assert!(filter.wants(&event("keyResult.progress.changed")));
        assert!(!filter.wants(&event("metric.created")));
    }
}
