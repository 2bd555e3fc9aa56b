//! What people do to objectives.

use chrono::Utc;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::try_join;
use serde_json::json;
use uuid::Uuid;

use super::{Content, Objective, store};
use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::db::{Prepare, Transaction};
use crate::error::{Code, Error, Problem, Result};
use crate::events::Kind;
use crate::events::kinds::{OBJECTIVE_ARCHIVED, OBJECTIVE_CREATED, OBJECTIVE_UPDATED};
use crate::events::payloads::{ObjectivePayload, Reference};
use crate::ids::{ObjectiveId, TenantId};
use crate::metrics::definition::check_key;
use crate::schema::objectives;
use crate::text::Problems;
use crate::versions::{Entities, Entity, Thing, Touched};
use crate::{audit, domains, events};

/// An objective to be.
#[derive(Debug, Clone, PartialEq)]
pub struct NewObjective {
    pub key: String,
    /// Key or name of its business domain.
    pub domain: Option<String>,
    /// Its `domain_id` is set from `domain`.
    pub content: Content,
}

#[derive(Insertable)]
#[diesel(table_name = objectives, treat_none_as_default_value = false)]
struct NewRow<'a> {
    tenant_id: TenantId,
    id: ObjectiveId,
    key: &'a str,
    created_by: Option<Uuid>,
    updated_by: Option<Uuid>,
}

/// Adds an objective.
pub async fn create(app: &App, actor: &Actor, mut new: NewObjective) -> Result<Objective> {
    actor.require(Permission::CatalogWrite)?;
    let mut problems = Problems::default();
    check_key(&mut problems, "key", &new.key);
    let is_key = problems.is_empty();
    new.content.check(&mut problems);

    let tx = app.db.begin(actor.tenant).await?;
    new.content.domain_id = match &new.domain {
        Some(domain) => domains::named(&tx, actor.tenant, domain, &mut problems).await?,
        None => None,
    };
    if is_key && !store::by_keys(&tx, actor.tenant, std::slice::from_ref(&new.key)).await?.is_empty() {
        problems.push(taken(&new.key));
    }
    problems.check()?;
    let by = actor.user().map(|user| user.0);
    let row = NewRow { tenant_id: actor.tenant, id: ObjectiveId::new(), key: &new.key, created_by: by, updated_by: by };
    let objective: Objective = diesel::insert_into(objectives::table)
        .values((row, &new.content))
        .returning(Objective::as_returning())
        .get_result(&mut &*tx)
        .await
        .map_err(Error::from)
        // Somebody else has just added it.
        .map_err(|error| error.on_constraint("objectives_key_key", || taken(&new.key)))?;
    record(&tx, actor, OBJECTIVE_CREATED, &objective).await?;
    tx.commit().await?;
    Ok(objective)
}

/// Changes an objective: `edit` is given its present content. `domain` is as in [`crate::metrics::Update`]. A change of
/// nothing writes nothing.
pub async fn update(
    app: &App,
    actor: &Actor,
    id: ObjectiveId,
    expected_revision: Option<i32>,
    domain: Option<Option<String>>,
    edit: impl FnOnce(&mut Content) + Send,
) -> Result<Objective> {
    actor.require(Permission::CatalogWrite)?;
    let tx = app.db.begin(actor.tenant).await?;
    let objective = lock(&tx, actor.tenant, id, expected_revision).await?;
    let mut content = objective.content.clone();
    edit(&mut content);
    let mut problems = Problems::default();
    content.domain_id = match &domain {
        None => objective.content.domain_id,
        Some(None) => None,
        Some(Some(domain)) => domains::named(&tx, actor.tenant, domain, &mut problems).await?,
    };
    content.check(&mut problems);
    problems.check()?;
    if content == objective.content {
        return Ok(objective);
    }
    let objective = write(&tx, actor, Objective { content, ..objective }).await?;
    record(&tx, actor, OBJECTIVE_UPDATED, &objective).await?;
    tx.commit().await?;
    Ok(objective)
}

/// Takes an objective, and with it its key results, out of the lists.
pub async fn archive(app: &App, actor: &Actor, id: ObjectiveId, expected_revision: Option<i32>) -> Result<Objective> {
    actor.require(Permission::CatalogWrite)?;
    let tx = app.db.begin(actor.tenant).await?;
    let objective = lock(&tx, actor.tenant, id, expected_revision).await?;
    if objective.archived_at.is_some() {
        return Ok(objective);
    }
    let objective = write(&tx, actor, Objective { archived_at: Some(Utc::now()), ..objective }).await?;
    record(&tx, actor, OBJECTIVE_ARCHIVED, &objective).await?;
    tx.commit().await?;
    Ok(objective)
}

fn taken(key: &str) -> Problem {
    Problem::new("key", Code::Taken, format!("There is an objective {key:?} already"))
}

async fn write(mut conn: &AsyncPgConnection, actor: &Actor, objective: Objective) -> Result<Objective> {
    let row = objectives::table.filter(objectives::tenant_id.eq(objective.tenant_id).and(objectives::id.eq(objective.id)));
    Ok(diesel::update(row)
        .set((
            &objective.content,
            objectives::revision.eq(objective.revision + 1),
            objectives::updated_at.eq(Utc::now()),
            objectives::updated_by.eq(actor.user().map(|user| user.0)),
            objectives::archived_at.eq(objective.archived_at),
        ))
        .returning(Objective::as_returning())
        .prepared()
        .get_result(&mut conn)
        .await?)
}

async fn lock(conn: &AsyncPgConnection, tenant: TenantId, id: ObjectiveId, expected: Option<i32>) -> Result<Objective> {
    let objective = store::lock(conn, tenant, id).await?.ok_or_else(|| Error::unknown_id("objective"))?;
    match expected {
        Some(expected) if expected != objective.revision => {
            Err(Error::VersionConflict { kind: "objective", expected, actual: objective.revision })
        }
        _ => Ok(objective),
    }
}

async fn record(tx: &Transaction, actor: &Actor, kind: Kind<ObjectivePayload>, objective: &Objective) -> Result<()> {
    let details = json!({ "key": objective.key, "name": objective.content.name });
    let touched = touched(objective);
    let told = async {
        let domain = domains::reference(tx, actor.tenant, objective.content.domain_id).await?;
        let payload = payload(objective.id, &objective.key, &objective.content, domain);
        events::push(tx, actor, kind, objective.id.0, &payload).await
    };
    try_join!(audit::record_touching(tx, actor, kind.name, ("objective", objective.id.0), &details, touched), told)?;
    Ok(())
}

/// What a change of this objective, or of its key results, touches.
pub(super) fn touched(objective: &Objective) -> Touched {
    let things = [Thing::objective(&objective.key), Thing::objective_by_id(objective.id.0)];
    Touched::things(Entities::of(&[Entity::Objectives]), things)
}

/// An objective as it is told of. `domain` is the one that the content names.
pub(crate) fn payload(id: ObjectiveId, key: &str, content: &Content, domain: Option<Reference>) -> ObjectivePayload {
    ObjectivePayload {
        id: id.0,
        key: key.to_owned(),
        name: content.name.clone(),
        status: content.status.as_str().to_owned(),
        owner: content.owner.clone(),
        domain,
    }
}
