//! Events: what can be told, and subscriptions to it. docs/api/subscriptions.md is the contract.
//!
//! What a subscription gives holds everything itself. It loads nothing: a change that five hundred listen to must not be five
//! hundred reads.

use std::sync::Arc;

use async_graphql::{Context, ID, InputObject, Json, Object, Result, SimpleObject, Subscription};
use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt, stream};
use mdl::actor::Permission;
use mdl::error::{Code, Error};
use mdl::events::kinds::{self, Described};
use mdl::events::live::Filter;
use mdl::events::{self, Stamped};
use mdl::ids::{ImportId, ObjectiveId, TenantId};
use mdl::{App, objectives, page};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::context::ContextExt;
use super::error::top_level;
use super::global_id::{Kind, encode, expect};
use super::guard::{Needs, SignedIn};
use super::imports::ImportProgress;

/// Kinds of things whose changes `catalogChanged` tells; of a tenant, that all of them are others now.
const CATALOG: [&str; 5] = ["metric", "domain", "objective", "keyResult", "tenant"];

/// What a cursor stands for: the sequence of an event.
#[derive(Serialize, Deserialize)]
struct Position {
    event: i64,
}

fn cursor(sequence: i64) -> String {
    page::cursor(&Position { event: sequence })
}

fn sequence(field: &str, cursor: &str) -> mdl::Result<i64> {
    let position = page::parse_cursor::<Position>(field, cursor);
    Ok(position.map_err(|_| Error::invalid(field, Code::Invalid, "Not a cursor of an event"))?.event)
}

/// A kind of event.
pub struct EventType(&'static Described);

/// A kind of event.
#[Object]
impl EventType {
    /// What happened: `metric.definition.changed`.
    async fn name(&self) -> &str {
        self.0.name
    }

    /// Of the payload. Fields may be added to a version; one that is renamed or means something else makes the next.
    async fn version(&self) -> i32 {
        i32::from(self.0.version)
    }

    /// When it is told.
    async fn description(&self) -> &str {
        self.0.meaning
    }

    /// The fields of the payload.
    async fn fields(&self) -> Vec<EventTypeField> {
        self.0.fields.iter().map(|(name, description)| EventTypeField { name, description }).collect()
    }

    /// A payload of this kind, made up.
    async fn example(&self) -> Json<Value> {
        Json(self.0.example())
    }
}

/// A field of an event's payload.
#[derive(SimpleObject)]
pub struct EventTypeField {
    /// Its name in the JSON.
    name: &'static str,
    /// What it says.
    description: &'static str,
}

#[derive(Default)]
pub struct EventQueries;

#[Object]
impl EventQueries {
    /// The kinds of events that subscribers and webhooks can be told.
    #[graphql(guard = "SignedIn")]
    async fn event_types(&self) -> Vec<EventType> {
        kinds::ALL.iter().map(EventType).collect()
    }

    /// The cursor of the last event. Ask for it together with what you show, and subscribe after it: you then miss no change
    /// of what you have read.
    #[graphql(guard = "Needs(Permission::CatalogRead)")]
    async fn event_cursor(&self, ctx: &Context<'_>) -> Result<String> {
        let view = ctx.reading()?;
        let tenant = view.snapshot.tenant();
        let bounds = view.snapshot.read(async |conn| events::bounds(conn, tenant).await).await.map_err(top_level)?;
        Ok(cursor(bounds.last))
    }
}

/// Which changes of the catalog are wanted. Every condition that is given must hold; of a list, one entry must fit.
#[derive(Debug, Default, InputObject)]
pub struct CatalogChangeFilter {
    /// Kinds of events, or their beginnings: `metric` stands for all that begin with `metric.`. Those of `metric`, `domain`,
    /// `objective`, `keyResult` and `tenant` are changes of the catalog; others are refused.
    kinds: Option<Vec<String>>,
    /// Keys or names of business domains: changes of what is in them, and of themselves.
    domains: Option<Vec<String>>,
    /// Tags of metrics.
    tags: Option<Vec<String>>,
    /// Owning teams, technical and business owners, owners of objectives.
    owners: Option<Vec<String>>,
    /// One metric.
    metric: Option<ID>,
    /// Only changes after which a number is another one.
    breaking_only: Option<bool>,
}

impl CatalogChangeFilter {
    fn parse(self) -> mdl::Result<Filter> {
        for kind in self.kinds.iter().flatten() {
            let begins = |known: &Described| {
                known.name.strip_prefix(kind.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let known = kinds::ALL.iter().any(begins) && CATALOG.contains(&kind.split('.').next().unwrap_or_default());
            if !known {
                let message = format!(
                    "{kind:?} is no kind of change of the catalog. Those are {}, and the eventTypes that begin with one of them and a dot",
                    CATALOG.join(", ")
                );
                return Err(Error::invalid("filter.kinds", Code::Invalid, message));
            }
        }
        let metric = self.metric.map(|id| expect("filter.metric", Kind::Metric, &id)).transpose()?;
        Ok(Filter {
            kinds: Some(self.kinds.unwrap_or_else(|| CATALOG.map(str::to_owned).to_vec())),
            domains: self.domains,
            tags: self.tags,
            owners: self.owners,
            subject: metric,
            objective: None,
            breaking_only: self.breaking_only.unwrap_or(false),
        })
    }
}

/// A change of the catalog.
pub struct CatalogChange(Arc<Stamped>);

/// A change of the catalog, as an event tells it.
#[Object]
impl CatalogChange {
    /// The same wherever and however often the event is told.
    async fn id(&self) -> ID {
        ID(self.0.id.to_string())
    }

    /// Subscribe `after` this to go on with what came later.
    async fn cursor(&self) -> String {
        cursor(self.0.sequence)
    }

    /// Its place among the events of the tenant, from 1 without a gap; a filter passes over some.
    async fn sequence(&self) -> i64 {
        self.0.sequence
    }

    /// What happened: a name of `eventTypes`.
    async fn kind(&self) -> &str {
        &self.0.kind
    }

    /// Of the payload.
    async fn version(&self) -> i32 {
        i32::from(self.0.version)
    }

    /// When the change was made.
    async fn occurred_at(&self) -> DateTime<Utc> {
        self.0.occurred_at
    }

    /// The id of what changed, for `node`.
    async fn subject(&self) -> Option<ID> {
        let kind = match self.0.kind.split('.').next() {
            Some("metric") => Kind::Metric,
            Some("domain") => Kind::Domain,
            Some("objective") => Kind::Objective,
            Some("keyResult") => Kind::KeyResult,
            // A tenant is no node.
            _ => return None,
        };
        self.0.subject.map(|id| encode(kind, id))
    }

    /// The key of what changed.
    async fn key(&self) -> Option<&str> {
        self.0.payload["key"].as_str()
    }

    /// The name of what changed.
    async fn name(&self) -> Option<&str> {
        self.0.payload["name"].as_str()
    }

    /// The fields of a metric that changed; empty for anything else.
    async fn changed_fields(&self) -> Vec<&str> {
        self.0.payload["changedFields"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Whether a number is another one now.
    async fn breaking(&self) -> bool {
        self.0.payload["breaking"] == true
    }

    /// All that the event tells: docs/events.md lists the fields.
    async fn payload(&self) -> Json<&Value> {
        Json(&self.0.payload)
    }
}

/// A key result after a change; or nothing of it, when all of the tenant's are others now.
pub struct KeyResultProgress(Arc<Stamped>);

/// A key result, as a change left it.
#[Object]
impl KeyResultProgress {
    /// Subscribe `after` this to go on with what came later.
    async fn cursor(&self) -> String {
        cursor(self.0.sequence)
    }

    /// What happened: a kind that begins with `keyResult.`, or `tenant.restored`.
    async fn kind(&self) -> &str {
        &self.0.kind
    }

    /// When the change was made.
    async fn occurred_at(&self) -> DateTime<Utc> {
        self.0.occurred_at
    }

    /// The id of the key result, for `node`.
    async fn key_result(&self) -> Option<ID> {
        let subject = self.0.subject.filter(|_| self.0.kind != kinds::TENANT_RESTORED.name);
        subject.map(|id| encode(Kind::KeyResult, id))
    }

    /// Its key, unique within its objective.
    async fn key(&self) -> Option<&str> {
        self.0.payload["key"].as_str()
    }

    /// Its name.
    async fn name(&self) -> Option<&str> {
        self.0.payload["name"].as_str()
    }

    /// What the values are counted in.
    async fn unit(&self) -> Option<&str> {
        self.0.payload["unit"].as_str()
    }

    /// Where it began.
    async fn baseline_value(&self) -> Option<f64> {
        self.0.payload["baselineValue"].as_f64()
    }

    /// Where it is to get to.
    async fn target_value(&self) -> Option<f64> {
        self.0.payload["targetValue"].as_f64()
    }

    /// Where it is.
    async fn current_value(&self) -> Option<f64> {
        self.0.payload["currentValue"].as_f64()
    }

    /// The share of the way, from 0 to 1; null when it cannot be computed.
    async fn progress(&self) -> Option<f64> {
        self.0.payload["progress"].as_f64()
    }
}

#[derive(Default)]
pub struct EventSubscriptions;

#[Subscription]
impl EventSubscriptions {
    /// Changes of the catalog: from now on, or all since the event with the cursor `after`.
    #[graphql(guard = "Needs(Permission::CatalogRead)")]
    async fn catalog_changed(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which changes; all if it is left out.")] filter: Option<CatalogChangeFilter>,
        #[graphql(desc = "The cursor of the last event that you have seen.")] after: Option<String>,
    ) -> Result<impl Stream<Item = Result<CatalogChange>> + use<>> {
        let filter = filter.unwrap_or_default().parse().map_err(top_level)?;
        Ok(listen(ctx, filter, after).await?.map(|event| event.map(CatalogChange)))
    }

    /// Changes of the key results of an objective: from now on, or all since the event with the cursor `after`.
    #[graphql(guard = "Needs(Permission::CatalogRead)")]
    async fn key_result_progress(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of the objective.")] objective: ID,
        #[graphql(desc = "The cursor of the last event that you have seen.")] after: Option<String>,
    ) -> Result<impl Stream<Item = Result<KeyResultProgress>> + use<>> {
        let objective = ObjectiveId(expect("objective", Kind::Objective, &objective).map_err(top_level)?);
        let tenant = ctx.actor().map_err(top_level)?.tenant;
        // In a box, which goes when it is done.
        Box::pin(find_objective(ctx.app(), tenant, objective)).await.map_err(top_level)?;
        let filter = Filter { kinds: Some(vec!["keyResult".to_owned()]), objective: Some(objective.0), ..Filter::default() };
        Ok(listen(ctx, filter, after).await?.map(|event| event.map(KeyResultProgress)))
    }

    /// How far an import is: at once, and then whenever it has moved, until it has ended.
    #[graphql(guard = "Needs(Permission::CatalogImport)")]
    async fn import_progress(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of the import.")] id: ID,
    ) -> Result<impl Stream<Item = Result<ImportProgress>> + use<>> {
        let id = ImportId(expect("id", Kind::Import, &id).map_err(top_level)?);
        let tenant = ctx.actor().map_err(top_level)?.tenant;
        ImportProgress::watch(ctx.app().clone(), tenant, id).await.map_err(top_level)
    }
}

/// Nobody listens to what there is not; an archived objective is still there.
async fn find_objective(app: &App, tenant: TenantId, id: ObjectiveId) -> mdl::Result<()> {
    let snapshot = app.db.snapshot(tenant);
    let found = snapshot.read(async |conn| objectives::store::by_ids(conn, tenant, &[id]).await).await?;
    snapshot.finish().await;
    if found.is_empty() { Err(Error::unknown_id("objective")) } else { Ok(()) }
}

/// The events that a filter lets through. Each one's cursor is noted with the operation before the event is given out.
async fn listen(
    ctx: &Context<'_>,
    filter: Filter,
    after: Option<String>,
) -> Result<impl Stream<Item = Result<Arc<Stamped>>> + Send + use<>> {
    let operation = ctx.operation().clone();
    // What a stream that broke off has seen since, is later.
    let after = match operation.resume_after.as_ref() {
        Some(seen) => Some(sequence("Last-Event-ID", seen).map_err(top_level)?),
        None => after.map(|after| sequence("after", &after)).transpose().map_err(top_level)?,
    };
    let tenant = operation.actor().map_err(top_level)?.tenant;
    // In a box, which goes when it is done: it is larger than all that stays of a subscription.
    let subscription = Box::pin(operation.app.live.subscribe(tenant, filter, after)).await.map_err(top_level)?;
    Ok(stream::unfold((subscription, operation), |(mut subscription, operation)| async {
        let event = subscription.next().await?;
        if let Ok(event) = &event {
            operation.note_cursor(cursor(event.sequence));
        }
        Some((event.map_err(top_level), (subscription, operation)))
    }))
}
