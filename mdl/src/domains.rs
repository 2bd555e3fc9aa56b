//! Business domains: the areas of the business that metrics belong to.

pub mod store;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::try_join;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::db::Transaction;
use crate::error::{Code, Error, Problem, Result};
use crate::events::Kind;
use crate::events::kinds::{DOMAIN_ARCHIVED, DOMAIN_CREATED, DOMAIN_UPDATED};
use crate::events::payloads::{DomainPayload, Reference};
use crate::extra::Extra;
use crate::ids::{DomainId, TenantId};
use crate::metrics::definition::check_key;
use crate::schema::business_domains;
use crate::text::Problems;
use crate::{audit, events};

/// An area of the business.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable)]
#[diesel(table_name = business_domains, primary_key(tenant_id, id), check_for_backend(diesel::pg::Pg))]
pub struct Domain {
    pub tenant_id: TenantId,
    pub id: DomainId,
    /// The stable human name: `DOMAIN-REVENUE`.
    pub key: String,
    #[diesel(embed)]
    pub content: Content,
    /// Made because a metric named it, and not yet defined by anybody.
    pub implied: bool,
    pub revision: i32,
    pub created_at: DateTime<Utc>,
    pub created_by: Option<Uuid>,
    pub updated_at: DateTime<Utc>,
    pub updated_by: Option<Uuid>,
    pub archived_at: Option<DateTime<Utc>>,
}

/// What a person or a file says about a domain.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = business_domains, check_for_backend(diesel::pg::Pg), treat_none_as_null = true, treat_none_as_default_value = false)]
#[serde(default)]
pub struct Content {
    pub name: String,
    pub description: String,
    pub owner_team: Option<String>,
    pub stakeholders: Vec<String>,
    pub industry: Option<String>,
    pub priority: Option<String>,
    pub objective_keys: Vec<String>,
    pub key_metric_keys: Vec<String>,
    /// Imported fields that the model has no place for.
    pub extra: Extra,
}

impl Content {
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Everything that is wrong with this content.
    pub fn check(&self, problems: &mut Problems) {
        problems.line("name", &self.name, 200);
        problems.text("description", &self.description, 20_000);
        for (field, text) in [("owner_team", &self.owner_team), ("industry", &self.industry), ("priority", &self.priority)] {
            if let Some(text) = text {
                problems.line(field, text, 300);
            }
        }
        for (field, list) in [
            ("stakeholders", &self.stakeholders),
            ("objective_keys", &self.objective_keys),
            ("key_metric_keys", &self.key_metric_keys),
        ] {
            problems.count(field, list.len(), 200);
            for (i, text) in list.iter().enumerate() {
                problems.line(&format!("{field}.{i}"), text, 300);
            }
        }
        self.extra.check(problems, Extra::MAX);
    }
}

/// A key for a domain that is only known by its name: `Customer Success` becomes `DOMAIN-CUSTOMER-SUCCESS`.
pub fn key_of_name(name: &str) -> String {
    let words: Vec<String> =
        name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_uppercase).collect();
    let key = format!("DOMAIN-{}", words.join("-"));
    key.chars().take(200).collect()
}

/// The domain that an input names, by key or name, in its field `domain`. That there is none is one of the problems.
pub(crate) async fn named(
    conn: &AsyncPgConnection,
    tenant: TenantId,
    name: &str,
    problems: &mut Problems,
) -> Result<Option<DomainId>> {
    // PostgreSQL cannot be asked for a name with the NUL character.
    let found = if name.contains('\0') { None } else { store::by_key_or_name(conn, tenant, name).await? };
    if found.is_none() {
        problems.add("domain", Code::NotFound, format!("There is no business domain {name:?}"));
    }
    Ok(found.map(|domain| domain.id))
}

#[derive(Insertable)]
#[diesel(table_name = business_domains, treat_none_as_default_value = false)]
struct NewRow<'a> {
    tenant_id: TenantId,
    id: DomainId,
    key: &'a str,
    created_by: Option<Uuid>,
    updated_by: Option<Uuid>,
}

/// Adds a domain.
pub async fn create(app: &App, actor: &Actor, key: &str, content: &Content) -> Result<Domain> {
    actor.require(Permission::CatalogWrite)?;
    let mut problems = Problems::default();
    check_key(&mut problems, "key", key);
    content.check(&mut problems);
    let tx = app.db.begin(actor.tenant).await?;
    check_free(&tx, actor.tenant, None, key, &content.name, &mut problems).await?;
    problems.check()?;
    let by = actor.user().map(|user| user.0);
    let row = NewRow { tenant_id: actor.tenant, id: DomainId::new(), key, created_by: by, updated_by: by };
    let domain: Domain = diesel::insert_into(business_domains::table)
        .values((row, content))
        .returning(Domain::as_returning())
        .get_result(&mut &*tx)
        .await
        .map_err(|error| taken(error.into(), key, &content.name))?;
    record(&tx, actor, DOMAIN_CREATED, &domain).await?;
    tx.commit().await?;
    Ok(domain)
}

/// Changes a domain: `edit` is given its present content. A change of nothing writes nothing.
pub async fn update(
    app: &App,
    actor: &Actor,
    id: DomainId,
    expected_revision: Option<i32>,
    edit: impl FnOnce(&mut Content) + Send,
) -> Result<Domain> {
    actor.require(Permission::CatalogWrite)?;
    let tx = app.db.begin(actor.tenant).await?;
    let domain = lock(&tx, actor.tenant, id, expected_revision).await?;
    let mut content = domain.content.clone();
    edit(&mut content);
    let mut problems = Problems::default();
    content.check(&mut problems);
    check_free(&tx, actor.tenant, Some(id), &domain.key, &content.name, &mut problems).await?;
    problems.check()?;
    if content == domain.content {
        return Ok(domain);
    }
    let domain = write(&tx, actor, Domain { content, implied: false, ..domain }).await?;
    record(&tx, actor, DOMAIN_UPDATED, &domain).await?;
    tx.commit().await?;
    Ok(domain)
}

/// Takes a domain out of the lists. Its metrics stay in it.
pub async fn archive(app: &App, actor: &Actor, id: DomainId, expected_revision: Option<i32>) -> Result<Domain> {
    actor.require(Permission::CatalogWrite)?;
    let tx = app.db.begin(actor.tenant).await?;
    let domain = lock(&tx, actor.tenant, id, expected_revision).await?;
    if domain.archived_at.is_some() {
        return Ok(domain);
    }
    let domain = write(&tx, actor, Domain { archived_at: Some(Utc::now()), ..domain }).await?;
    record(&tx, actor, DOMAIN_ARCHIVED, &domain).await?;
    tx.commit().await?;
    Ok(domain)
}

/// Writes the next revision of the row.
async fn write(mut conn: &AsyncPgConnection, actor: &Actor, domain: Domain) -> Result<Domain> {
    let row =
        business_domains::table.filter(business_domains::tenant_id.eq(domain.tenant_id).and(business_domains::id.eq(domain.id)));
    diesel::update(row)
        .set((
            &domain.content,
            business_domains::implied.eq(domain.implied),
            business_domains::revision.eq(domain.revision + 1),
            business_domains::updated_at.eq(Utc::now()),
            business_domains::updated_by.eq(actor.user().map(|user| user.0)),
            business_domains::archived_at.eq(domain.archived_at),
        ))
        .returning(Domain::as_returning())
        .get_result(&mut conn)
        .await
        .map_err(|error| taken(error.into(), &domain.key, &domain.content.name))
}

async fn lock(conn: &AsyncPgConnection, tenant: TenantId, id: DomainId, expected: Option<i32>) -> Result<Domain> {
    let domain = store::lock(conn, tenant, id).await?.ok_or_else(|| Error::unknown_id("business domain"))?;
    match expected {
        Some(expected) if expected != domain.revision => {
            Err(Error::VersionConflict { kind: "business domain", expected, actual: domain.revision })
        }
        _ => Ok(domain),
    }
}

/// Says whether other domains have this key or name.
async fn check_free(
    conn: &AsyncPgConnection,
    tenant: TenantId,
    own: Option<DomainId>,
    key: &str,
    name: &str,
    problems: &mut Problems,
) -> Result<()> {
    // PostgreSQL cannot be asked for the NUL character.
    if key.contains('\0') || name.contains('\0') {
        return Ok(());
    }
    for other in store::alike(conn, tenant, key, name).await?.iter().filter(|other| Some(other.id) != own) {
        if other.key == key {
            problems.push(key_taken(key));
        }
        if other.content.name == name {
            problems.push(name_taken(name));
        }
    }
    Ok(())
}

/// That somebody else has just written such a domain.
fn taken(error: Error, key: &str, name: &str) -> Error {
    error
        .on_constraint("business_domains_key_key", || key_taken(key))
        .on_constraint("business_domains_name_key", || name_taken(name))
}

fn key_taken(key: &str) -> Problem {
    Problem::new("key", Code::Taken, format!("There is a business domain {key:?} already"))
}

fn name_taken(name: &str) -> Problem {
    Problem::new("name", Code::Taken, format!("There is a business domain named {name:?} already"))
}

async fn record(tx: &Transaction, actor: &Actor, kind: Kind<DomainPayload>, domain: &Domain) -> Result<()> {
    let details = json!({ "key": domain.key, "name": domain.content.name });
    let payload = payload(domain.id, &domain.key, &domain.content);
    try_join!(
        audit::record(tx, actor, kind.name, ("business_domain", domain.id.0), &details),
        events::push(tx, actor, kind, domain.id.0, &payload)
    )?;
    Ok(())
}

/// A domain as it is told of.
pub(crate) fn payload(id: DomainId, key: &str, content: &Content) -> DomainPayload {
    DomainPayload { id: id.0, key: key.to_owned(), name: content.name.clone(), owner_team: content.owner_team.clone() }
}

/// The domain of an entry that is told of.
pub(crate) async fn reference(conn: &AsyncPgConnection, tenant: TenantId, id: Option<DomainId>) -> Result<Option<Reference>> {
    let Some(id) = id else { return Ok(None) };
    let found = store::by_ids(conn, tenant, &[id]).await?.pop();
    Ok(found.map(|domain| Reference { id: id.0, key: domain.key, name: domain.content.name }))
}
