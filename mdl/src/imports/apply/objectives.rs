//! Objectives and their key results, one by one. Key results that a file does not mention are left alone.

use std::collections::HashMap;

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::super::entry::{KeyResultDraft, Kind, ObjectiveDraft};
use super::record::Change;
use super::{Applied, Item, Outcome, Session, differences};
use crate::error::{Error, Result};
use crate::events::kinds::{
    KEY_RESULT_CREATED, KEY_RESULT_PROGRESS_CHANGED, KEY_RESULT_UPDATED, OBJECTIVE_CREATED, OBJECTIVE_UPDATED,
};
use crate::events::payloads::ObjectivePayload;
use crate::extra::Extra;
use crate::ids::{DomainId, KeyResultId, ObjectiveId};
use crate::metrics::changes::FieldChange;
use crate::objectives::{self, Content, KeyResultContent, KeyResultDirection, ObjectiveStatus, key_results};

/// A key result as it is in the database.
struct Present {
    id: KeyResultId,
    content: KeyResultContent,
    metric_keys: Vec<String>,
    archived: bool,
}

impl Session {
    /// Writes an objective with its key results.
    pub(super) async fn write_objective(&mut self, item: &Item<ObjectiveDraft>, applied: &mut Applied) -> Result<Outcome> {
        let ObjectiveDraft { key, content, key_results, .. } = &item.draft;
        let lock = if self.dry_run { "" } else { "FOR UPDATE" };
        let row = self
            .client
            .query_opt(
                &format!(
                    "SELECT id, name, description, owner, status, priority, pillar, starts_on, ends_on, domain_id, metric_keys, extra, \
                     archived_at IS NOT NULL FROM objectives WHERE tenant_id = $1 AND key = $2 {lock}"
                ),
                &[&self.tenant.0, key],
            )
            .await?;
        let (id, before, archived) = match &row {
            Some(row) => (ObjectiveId(row.get(0)), content_of(row)?, row.get(12)),
            None => (ObjectiveId::new(), Content::default(), false),
        };
        let mut fields = differences(&before, content)?;
        if archived {
            fields.push(FieldChange { field: "archived".to_owned(), before: Value::from(true), after: Value::from(false) });
        }
        for field in fields.iter_mut().filter(|field| field.field == "domain_id") {
            field.field = "domain".to_owned();
        }
        let is_new = row.is_none();
        let objective = objectives::payload(id, key, content, self.domains.reference(content.domain_id));
        if !self.dry_run && (is_new || !fields.is_empty()) {
            self.put_objective(id, key, content, is_new).await?;
            let kind = if is_new { OBJECTIVE_CREATED } else { OBJECTIVE_UPDATED };
            self.event(kind, id.0, &objective).await?;
        }
        let (present, mut position) = if is_new { (HashMap::new(), 0) } else { self.key_results_of(id).await? };
        for draft in key_results {
            for mut field in self.write_key_result(&objective, draft, present.get(&draft.key), &mut position).await? {
                field.field = format!("key_results.{}.{}", draft.key, field.field);
                fields.push(field);
            }
        }
        let outcome = match (is_new, fields.is_empty()) {
            (true, _) => Outcome::Created,
            (false, false) => Outcome::Updated,
            (false, true) => return Ok(Outcome::Unchanged),
        };
        if self.dry_run {
            self.name_domains(&mut fields).await?;
            applied.changes.push(Change::new(is_new, Kind::Objective, key, fields));
        }
        Ok(outcome)
    }

    /// The key results of an objective by key, and the first position that is free.
    async fn key_results_of(&self, id: ObjectiveId) -> Result<(HashMap<String, Present>, i32)> {
        let rows = self
            .client
            .query(
                "SELECT k.id, k.key, name, description, unit, direction, baseline_value, target_value, current_value, extra, k.position, \
                 k.archived_at IS NOT NULL, ARRAY (SELECT metric_key FROM key_result_metrics m \
                 WHERE m.tenant_id = k.tenant_id AND m.key_result_id = k.id ORDER BY m.position, metric_key) \
                 FROM key_results k WHERE k.tenant_id = $1 AND k.objective_id = $2",
                &[&self.tenant.0, &id.0],
            )
            .await?;
        let mut free = 0;
        let mut found = HashMap::new();
        for row in &rows {
            free = free.max(row.get::<_, i32>(10) + 1);
            let Json(extra) = row.get::<_, Json<Extra>>(9);
            let direction =
                KeyResultDirection::parse(row.get(5)).ok_or_else(|| Error::internal("a key result has an unknown direction"))?;
            let content = KeyResultContent {
                name: row.get(2),
                description: row.get(3),
                unit: row.get(4),
                direction,
                baseline_value: row.get(6),
                target_value: row.get(7),
                current_value: row.get(8),
                extra,
            };
            found.insert(
                row.get(1),
                Present { id: KeyResultId(row.get(0)), content, metric_keys: row.get(12), archived: row.get(11) },
            );
        }
        Ok((found, free))
    }

    /// Writes a key result where it differs. Returns in which fields it did.
    async fn write_key_result(
        &self,
        objective: &ObjectivePayload,
        draft: &KeyResultDraft,
        present: Option<&Present>,
        position: &mut i32,
    ) -> Result<Vec<FieldChange>> {
        let nothing = KeyResultContent::default();
        let mut metric_keys = Vec::new();
        for key in &draft.metric_keys {
            if !metric_keys.contains(key) {
                metric_keys.push(key.clone());
            }
        }
        let mut fields = differences(present.map_or(&nothing, |present| &present.content), &draft.content)?;
        let linked: &[String] = present.map_or(&[], |present| &present.metric_keys);
        let relink = linked != metric_keys;
        if relink {
            fields.push(FieldChange {
                field: "metric_keys".to_owned(),
                before: Value::from(linked),
                after: Value::from(metric_keys.clone()),
            });
        }
        if present.is_some_and(|present| present.archived) {
            fields.push(FieldChange { field: "archived".to_owned(), before: Value::from(true), after: Value::from(false) });
        }
        if present.is_none() {
            fields.iter_mut().for_each(|field| field.before = Value::Null);
        }
        if self.dry_run || (present.is_some() && fields.is_empty()) {
            return Ok(fields);
        }
        let id = present.map_or_else(KeyResultId::new, |present| present.id);
        self.put_key_result(id, ObjectiveId(objective.id), draft, present.is_none().then_some(*position)).await?;
        if relink {
            let unlink = "DELETE FROM key_result_metrics WHERE tenant_id = $1 AND key_result_id = $2";
            self.client.execute(unlink, &[&self.tenant.0, &id.0]).await?;
            self.client
                .execute(
                    "INSERT INTO key_result_metrics (tenant_id, key_result_id, metric_key, position) \
                     SELECT $1, $2, key, ordinality::int - 1 FROM unnest($3::text[]) WITH ORDINALITY AS t (key)",
                    &[&self.tenant.0, &id.0, &metric_keys],
                )
                .await?;
        }
        let kind = match present {
            None => {
                *position += 1;
                KEY_RESULT_CREATED
            }
            Some(present) if present.content.current_value != draft.content.current_value => KEY_RESULT_PROGRESS_CHANGED,
            Some(_) => KEY_RESULT_UPDATED,
        };
        self.event(kind, id.0, &key_results::payload(id, &draft.key, &draft.content, objective)).await?;
        Ok(fields)
    }

    async fn put_objective(&self, id: ObjectiveId, key: &str, content: &Content, is_new: bool) -> Result<()> {
        let statement = if is_new {
            "INSERT INTO objectives (tenant_id, id, key, name, description, owner, status, priority, pillar, starts_on, ends_on, domain_id, \
             metric_keys, extra, created_by, updated_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15)"
        } else {
            "UPDATE objectives SET key = $3, name = $4, description = $5, owner = $6, status = $7, priority = $8, pillar = $9, starts_on = $10, \
             ends_on = $11, domain_id = $12, metric_keys = $13, extra = $14, revision = revision + 1, updated_at = now(), updated_by = $15, \
             archived_at = NULL WHERE tenant_id = $1 AND id = $2"
        };
        self.client
            .execute(
                statement,
                &[
                    &self.tenant.0,
                    &id.0,
                    &key,
                    &content.name,
                    &content.description,
                    &content.owner,
                    &content.status.as_str(),
                    &content.priority,
                    &content.pillar,
                    &content.starts_on,
                    &content.ends_on,
                    &content.domain_id.map(|id| id.0),
                    &content.metric_keys,
                    &Json(&content.extra),
                    &self.by,
                ],
            )
            .await?;
        Ok(())
    }

    /// Inserts at a position, or updates.
    async fn put_key_result(
        &self,
        id: KeyResultId,
        objective: ObjectiveId,
        draft: &KeyResultDraft,
        position: Option<i32>,
    ) -> Result<()> {
        let statement = if position.is_some() {
            "INSERT INTO key_results (tenant_id, id, objective_id, key, name, description, unit, direction, baseline_value, target_value, \
             current_value, extra, position, created_by, updated_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)"
        } else {
            "UPDATE key_results SET key = $4, name = $5, description = $6, unit = $7, direction = $8, baseline_value = $9, target_value = $10, \
             current_value = $11, extra = $12, position = coalesce($13, position), revision = revision + 1, updated_at = now(), updated_by = $14, \
             archived_at = NULL WHERE tenant_id = $1 AND id = $2 AND objective_id = $3"
        };
        let content = &draft.content;
        self.client
            .execute(
                statement,
                &[
                    &self.tenant.0,
                    &id.0,
                    &objective.0,
                    &draft.key,
                    &content.name,
                    &content.description,
                    &content.unit,
                    &content.direction.as_str(),
                    &content.baseline_value,
                    &content.target_value,
                    &content.current_value,
                    &Json(&content.extra),
                    &position,
                    &self.by,
                ],
            )
            .await?;
        Ok(())
    }
}

fn content_of(row: &Row) -> Result<Content> {
    let Json(extra) = row.get::<_, Json<Extra>>(11);
    Ok(Content {
        name: row.get(1),
        description: row.get(2),
        owner: row.get(3),
        status: ObjectiveStatus::parse(row.get(4)).ok_or_else(|| Error::internal("an objective has an unknown status"))?,
        priority: row.get(5),
        pillar: row.get(6),
        starts_on: row.get(7),
        ends_on: row.get(8),
        domain_id: row.get::<_, Option<Uuid>>(9).map(DomainId),
        metric_keys: row.get(10),
        extra,
    })
}
