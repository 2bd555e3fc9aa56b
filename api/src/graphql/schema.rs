//! The schema: the roots, each a list of parts. A feature adds its part to one line of each list.

use std::sync::Arc;

use async_graphql::extensions::ExtensionFactory;
use async_graphql::{MergedObject, MergedSubscription, SchemaBuilder, ValidationMode};
use mdl::config::GraphqlConfig;
use mdl::tokens::Keys;

use super::api_keys::{ApiKeyMutations, ApiKeyQueries};
use super::backups::{BackupMutations, BackupQueries};
use super::cache::CacheMutations;
use super::documents::{DocumentMutations, DocumentQueries};
use super::domains::{DomainMutations, DomainQueries};
use super::events::{EventQueries, EventSubscriptions};
use super::imports::{ImportMutations, ImportQueries};
use super::limits::MAX_SELECTION_SETS;
use super::loaders::SingleMetrics;
use super::metrics::{MetricMutations, MetricQueries};
use super::node::NodeQueries;
use super::objectives::{ObjectiveMutations, ObjectiveQueries};
use super::performance::PerformanceQueries;
use super::queues::{JobSubscriptions, QueueMutations, QueueQueries};
use super::schedules::{ScheduleMutations, ScheduleQueries};
use super::sessions::{SessionMutations, SessionQueries};
use super::stats::StatsQueries;
use super::users::{UserMutations, UserQueries};
use super::webhooks::{WebhookMutations, WebhookQueries};
use crate::documents::Validator;
use crate::performance::Performance;

/// What can be read.
#[derive(MergedObject, Default)]
pub struct Query(
    NodeQueries,
    SessionQueries,
    UserQueries,
    ApiKeyQueries,
    MetricQueries,
    DomainQueries,
    ObjectiveQueries,
    StatsQueries,
    ImportQueries,
    DocumentQueries,
    BackupQueries,
    PerformanceQueries,
    QueueQueries,
    ScheduleQueries,
    EventQueries,
    WebhookQueries,
);

/// What can be changed. The fields of one request run one after the other, each in a transaction of its own.
#[derive(MergedObject, Default)]
pub struct Mutation(
    SessionMutations,
    UserMutations,
    ApiKeyMutations,
    MetricMutations,
    DomainMutations,
    ObjectiveMutations,
    ImportMutations,
    DocumentMutations,
    CacheMutations,
    BackupMutations,
    QueueMutations,
    ScheduleMutations,
    WebhookMutations,
);

/// What can be listened to.
#[derive(MergedSubscription, Default)]
pub struct Subscription(EventSubscriptions, JobSubscriptions);

pub type Schema = async_graphql::Schema<Query, Mutation, Subscription>;

/// The schema that executes. Depth and aliases are limited before it sees a document: see `limits`. It is told only of
/// documents that its [`Validator`], which it has as data, found to fit: so it computes their cost and no more.
pub fn schema(limits: &GraphqlConfig, keys: Arc<Keys>, performance: Arc<Performance>) -> Schema {
    let schema = limited(limits).validation_mode(ValidationMode::Fast);
    schema.data(keys).data(performance).data(Arc::new(Validator::new(limits))).finish()
}

/// The schema that validates, with the extension that keeps it from executing.
pub fn strict(limits: &GraphqlConfig, extension: impl ExtensionFactory) -> Schema {
    limited(limits).extension(extension).finish()
}

/// The schema in the schema definition language, as `schema.graphql` holds it.
pub fn sdl() -> String {
    let options = async_graphql::SDLExportOptions::new()
        .sorted_fields()
        .sorted_arguments()
        .sorted_enum_items()
        .prefer_single_line_descriptions();
    builder().finish().sdl_with_options(options)
}

fn limited(limits: &GraphqlConfig) -> SchemaBuilder<Query, Mutation, Subscription> {
    builder().limit_complexity(limits.max_complexity).limit_recursive_depth(MAX_SELECTION_SETS)
}

fn builder() -> SchemaBuilder<Query, Mutation, Subscription> {
    // No extensions for executing: with one, async-graphql wraps every field of every answer.
    async_graphql::Schema::build(Query::default(), Mutation::default(), Subscription::default()).data(SingleMetrics::default())
}
