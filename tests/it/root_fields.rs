//! One call of every root field, for the tests that must not forget any. A new root field fails them until it is here.

mod seed;

use mdl::actor::Role;
use mdl_tests::app::{PASSWORD, email};
use serde_json::{Value, json};

pub use seed::{MARK, Seed, call, fingerprint};

/// Who may use a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    Nobody,
    SignedIn,
    Viewer,
    Editor,
    Admin,
    /// A member of mdl-system, which no role of another tenant is.
    Deployment,
}

impl Needs {
    /// Whether a caller in this role may; `None` is a caller without a credential.
    pub fn allow(self, role: Option<Role>) -> bool {
        match role {
            None => self == Needs::Nobody,
            Some(Role::Viewer) => self <= Needs::Viewer,
            Some(Role::Editor) => self <= Needs::Editor,
            Some(Role::Admin) => self <= Needs::Admin,
        }
    }
}

/// A root field, and an operation that uses it alone.
pub struct RootField {
    pub name: &'static str,
    pub needs: Needs,
    pub operation: &'static str,
    /// The operation's variables, naming things of the seed.
    pub variables: fn(&Seed) -> Value,
}

/// A field that takes one `input` object.
macro_rules! mutation {
    ($name:literal, $input:literal, $selection:literal, $needs:expr, $variables:expr) => {
        RootField {
            name: $name,
            needs: $needs,
            operation: concat!(
                "mutation($input: ",
                $input,
                "!) { ",
                $name,
                "(input: $input) { ",
                $selection,
                " userErrors { field code message } } }"
            ),
            variables: $variables,
        }
    };
}

pub const QUERIES: &[RootField] = &[
    RootField {
        name: "me",
        needs: Needs::SignedIn,
        operation: "{ me { role tenant { slug } user { id email name } } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "users",
        needs: Needs::Admin,
        operation: "{ users(first: 100) { edges { node { id email name } } } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "apiKeys",
        needs: Needs::SignedIn,
        operation: "{ apiKeys(first: 100) { edges { node { id name } } } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "node",
        needs: Needs::Viewer,
        operation: "query($id: ID!) { node(id: $id) { id ... on Metric { name notes } } }",
        variables: |seed| json!({ "id": seed.metric }),
    },
    RootField {
        name: "nodes",
        needs: Needs::Viewer,
        operation: "query($ids: [ID!]!) { nodes(ids: $ids) { id ... on Metric { name } ... on BusinessDomain { name } ... on Objective { name } ... on KeyResult { name } ... on Import { fileName } } }",
        variables: |seed| json!({ "ids": [seed.metric, seed.domain, seed.objective, seed.key_result, seed.import, seed.user, seed.api_key] }),
    },
    RootField {
        name: "metric",
        needs: Needs::Viewer,
        operation: "query($id: ID) { metric(id: $id) { name notes versions(first: 5) { nodes { version } } } }",
        variables: |seed| json!({ "id": seed.metric }),
    },
    RootField {
        name: "metrics",
        needs: Needs::Viewer,
        operation: "{ metrics(first: 100, search: \"xyzzy\") { totalCount nodes { name tags domain { name } } } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "businessDomain",
        needs: Needs::Viewer,
        operation: "query($id: ID) { businessDomain(id: $id) { name metrics(first: 10) { nodes { name } } } }",
        variables: |seed| json!({ "id": seed.domain }),
    },
    RootField {
        name: "businessDomains",
        needs: Needs::Viewer,
        operation: "{ businessDomains(first: 100) { totalCount nodes { name } } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "objective",
        needs: Needs::Viewer,
        operation: "query($id: ID) { objective(id: $id) { name keyResults { name } } }",
        variables: |seed| json!({ "id": seed.objective }),
    },
    RootField {
        name: "objectives",
        needs: Needs::Viewer,
        operation: "{ objectives(first: 100) { totalCount nodes { name keyResults { name metrics { name } } } } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "catalogStats",
        needs: Needs::Viewer,
        operation: "{ catalogStats { metricCount byDomain { count domain { name } } } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "import",
        needs: Needs::Editor,
        operation: "query($id: ID!) { import(id: $id) { id fileName issues(first: 10) { nodes { message } } } }",
        variables: |seed| json!({ "id": seed.import }),
    },
    RootField {
        name: "imports",
        needs: Needs::Editor,
        operation: "{ imports(first: 100) { nodes { id fileName } } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "queues",
        needs: Needs::Admin,
        operation: "{ queues { name held scheduled due dispatched running dead oldestDueAt succeeded died failureRate waitSecondsP50 waitSecondsP95 runSecondsP50 runSecondsP95 workers pausedAt concurrency pausedForAllAt concurrencyForAll } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "jobs",
        needs: Needs::Admin,
        operation: "{ jobs(first: 100, filter: { error: \"xyz\" }) { totalCount nodes { id queue kind payload error attempts { error } enqueuedBy { name } } } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "job",
        needs: Needs::Admin,
        operation: "query($id: ID!) { job(id: $id) { id queue payload error progress { done total message } } }",
        variables: |seed| json!({ "id": seed.job }),
    },
    RootField {
        name: "workers",
        needs: Needs::Admin,
        operation: "{ workers { name host pid version queues runningJobs memoryBytes startedAt lastSeenAt stoppedAt alive } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "schedules",
        needs: Needs::Admin,
        operation: "{ schedules { name description expression timeZone kind overlap catchUp enabled pausedAt nextRuns lastRuns { time outcome firedAt jobId } } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "eventTypes",
        needs: Needs::SignedIn,
        operation: "{ eventTypes { name version description fields { name description } example } }",
        variables: |_| json!({}),
    },
    RootField { name: "eventCursor", needs: Needs::Viewer, operation: "{ eventCursor }", variables: |_| json!({}) },
    RootField {
        name: "documents",
        needs: Needs::Admin,
        operation: "{ documents(first: 100) { totalCount nodes { id documentId name text publishedBy { name } } } }",
        variables: |_| json!({}),
    },
    // Of the deployment: members of the tenant mdl-system see them, for others there are none.
    RootField {
        name: "backups",
        needs: Needs::Admin,
        operation: "{ backups(first: 10) { newestVerified { id } nodes { id backupId state requestedBy { name } } } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "restoreDrills",
        needs: Needs::Admin,
        operation: "{ restoreDrills(first: 10) { nodes { id backupId state requestedBy { name } } } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "performanceStats",
        needs: Needs::Admin,
        operation: "{ performanceStats { instance postgresql { size } redis { size } } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "webhookEndpoint",
        needs: Needs::Admin,
        operation: "query($id: ID!) { webhookEndpoint(id: $id) { id url description secrets { expiresAt } statistics { pending } } }",
        variables: |seed| json!({ "id": seed.webhook }),
    },
    RootField {
        name: "webhookEndpoints",
        needs: Needs::Admin,
        operation: "{ webhookEndpoints(first: 100) { totalCount nodes { id url description statistics { pending } } } }",
        variables: |_| json!({}),
    },
    RootField {
        name: "webhookDelivery",
        needs: Needs::Admin,
        operation: "query($id: ID!) { webhookDelivery(id: $id) { id kind payload endpoint { url } attempts { status } } }",
        variables: |seed| json!({ "id": seed.delivery }),
    },
    RootField {
        name: "webhookDeliveries",
        needs: Needs::Admin,
        operation: "{ webhookDeliveries(first: 100) { totalCount nodes { id kind payload endpoint { url } attempts { status } } } }",
        variables: |_| json!({}),
    },
];

pub const MUTATIONS: &[RootField] = &[
    mutation!("signIn", "SignInInput", "session { accessToken }", Needs::Nobody, |_| {
        json!({ "input": { "tenant": "acme", "email": email(Role::Viewer), "password": "wrong" } })
    }),
    mutation!("refreshSession", "RefreshSessionInput", "session { accessToken }", Needs::Nobody, |_| {
        json!({ "input": { "refreshToken": "mdlr_none" } })
    }),
    mutation!("signOut", "SignOutInput", "", Needs::Nobody, |_| json!({ "input": { "refreshToken": "mdlr_none" } })),
    mutation!("changePassword", "ChangePasswordInput", "", Needs::SignedIn, |_| {
        json!({ "input": { "currentPassword": "wrong", "newPassword": "another long password" } })
    }),
    mutation!("createUser", "CreateUserInput", "user { id }", Needs::Admin, |_| {
        json!({ "input": { "email": "new@example.com", "name": "New", "password": PASSWORD, "role": "VIEWER" } })
    }),
    mutation!("updateUser", "UpdateUserInput", "user { id }", Needs::Admin, |seed| {
        json!({ "input": { "id": seed.user, "name": "Renamed" } })
    }),
    mutation!(
        "setRole",
        "SetRoleInput",
        "user { id }",
        Needs::Admin,
        |seed| json!({ "input": { "id": seed.user, "role": "ADMIN" } })
    ),
    mutation!("suspendUser", "UserInput", "user { id }", Needs::Admin, |seed| json!({ "input": { "id": seed.user } })),
    mutation!("resumeUser", "UserInput", "user { id }", Needs::Admin, |seed| json!({ "input": { "id": seed.user } })),
    mutation!("resetPassword", "ResetPasswordInput", "", Needs::Admin, |seed| {
        json!({ "input": { "id": seed.user, "password": "another long password" } })
    }),
    mutation!("createApiKey", "CreateApiKeyInput", "apiKey { id }", Needs::SignedIn, |_| {
        json!({ "input": { "name": "key", "scopes": ["CATALOG_READ"] } })
    }),
    mutation!(
        "revokeApiKey",
        "RevokeApiKeyInput",
        "apiKey { id }",
        Needs::SignedIn,
        |seed| json!({ "input": { "id": seed.api_key } })
    ),
    mutation!(
        "revokeAllApiKeys",
        "RevokeAllApiKeysInput",
        "revokedCount",
        Needs::Admin,
        |seed| json!({ "input": { "userId": seed.user } })
    ),
    mutation!("createBusinessDomain", "CreateBusinessDomainInput", "businessDomain { id }", Needs::Editor, |_| {
        json!({ "input": { "key": "D", "name": "D" } })
    }),
    mutation!("updateBusinessDomain", "UpdateBusinessDomainInput", "businessDomain { id }", Needs::Editor, |seed| {
        json!({ "input": { "id": seed.domain, "description": "changed" } })
    }),
    mutation!("archiveBusinessDomain", "ArchiveBusinessDomainInput", "businessDomain { id }", Needs::Editor, |seed| {
        json!({ "input": { "id": seed.domain } })
    }),
    mutation!(
        "createMetric",
        "CreateMetricInput",
        "metric { id }",
        Needs::Editor,
        |_| json!({ "input": { "key": "M", "name": "M" } })
    ),
    mutation!("updateMetric", "UpdateMetricInput", "metric { id }", Needs::Editor, |seed| {
        json!({ "input": { "id": seed.metric, "description": "changed" } })
    }),
    mutation!(
        "archiveMetric",
        "ArchiveMetricInput",
        "metric { id }",
        Needs::Editor,
        |seed| json!({ "input": { "id": seed.metric } })
    ),
    mutation!(
        "restoreMetric",
        "RestoreMetricInput",
        "metric { id }",
        Needs::Editor,
        |seed| json!({ "input": { "id": seed.metric } })
    ),
    mutation!("createObjective", "CreateObjectiveInput", "objective { id }", Needs::Editor, |_| {
        json!({ "input": { "key": "O", "name": "O" } })
    }),
    mutation!("updateObjective", "UpdateObjectiveInput", "objective { id }", Needs::Editor, |seed| {
        json!({ "input": { "id": seed.objective, "description": "changed" } })
    }),
    mutation!("createKeyResult", "CreateKeyResultInput", "keyResult { id }", Needs::Editor, |seed| {
        json!({ "input": { "objectiveId": seed.objective, "key": "K", "name": "K" } })
    }),
    mutation!("updateKeyResult", "UpdateKeyResultInput", "keyResult { id }", Needs::Editor, |seed| {
        json!({ "input": { "id": seed.key_result, "currentValue": 5.0 } })
    }),
    mutation!("archiveKeyResult", "ArchiveKeyResultInput", "keyResult { id }", Needs::Editor, |seed| {
        json!({ "input": { "id": seed.key_result } })
    }),
    mutation!("archiveObjective", "ArchiveObjectiveInput", "objective { id }", Needs::Editor, |seed| {
        json!({ "input": { "id": seed.objective } })
    }),
    mutation!("importCatalog", "ImportCatalogInput", "import { id }", Needs::Editor, |_| {
        json!({ "input": { "text": "{\"metrics\": []}", "fileName": "none.json" } })
    }),
    mutation!(
        "cancelImport",
        "CancelImportInput",
        "import { id }",
        Needs::Editor,
        |seed| json!({ "input": { "id": seed.import } })
    ),
    mutation!("publishDocuments", "PublishDocumentsInput", "documents { id }", Needs::Admin, |_| {
        json!({ "input": { "manifest": "{ me { role } }" } })
    }),
    mutation!("withdrawDocument", "WithdrawDocumentInput", "document { id }", Needs::Admin, |seed| {
        json!({ "input": { "id": seed.document } })
    }),
    mutation!("retryJobs", "JobSelectionInput", "count", Needs::Admin, |seed| json!({ "input": { "ids": [seed.job] } })),
    mutation!("rescheduleJobs", "RescheduleJobsInput", "count", Needs::Admin, |seed| {
        json!({ "input": { "ids": [seed.job], "runAt": "2100-01-01T00:00:00Z" } })
    }),
    mutation!("cancelJobs", "JobSelectionInput", "count", Needs::Admin, |seed| json!({ "input": { "ids": [seed.job] } })),
    mutation!("discardJobs", "JobSelectionInput", "count", Needs::Admin, |seed| json!({ "input": { "ids": [seed.job] } })),
    mutation!("pauseQueue", "QueueInput", "settings { queue }", Needs::Admin, |_| json!({ "input": { "queue": "imports" } })),
    mutation!("resumeQueue", "QueueInput", "settings { queue }", Needs::Admin, |_| json!({ "input": { "queue": "imports" } })),
    mutation!("setQueueConcurrency", "SetQueueConcurrencyInput", "settings { queue }", Needs::Admin, |_| {
        json!({ "input": { "queue": "imports", "concurrency": 2 } })
    }),
    mutation!("runScheduleNow", "ScheduleInput", "run { time }", Needs::Deployment, |_| {
        json!({ "input": { "name": "prune_jobs" } })
    }),
    mutation!("pauseSchedule", "ScheduleInput", "schedule { name }", Needs::Deployment, |_| {
        json!({ "input": { "name": "prune_jobs" } })
    }),
    mutation!("resumeSchedule", "ScheduleInput", "schedule { name }", Needs::Deployment, |_| {
        json!({ "input": { "name": "prune_jobs" } })
    }),
    mutation!("createWebhookEndpoint", "CreateWebhookEndpointInput", "endpoint { id }", Needs::Admin, |_| {
        json!({ "input": { "url": "https://receiver.example/" } })
    }),
    mutation!("updateWebhookEndpoint", "UpdateWebhookEndpointInput", "endpoint { id }", Needs::Admin, |seed| {
        json!({ "input": { "id": seed.webhook, "description": "changed" } })
    }),
    mutation!("rotateWebhookSecret", "RotateWebhookSecretInput", "endpoint { id }", Needs::Admin, |seed| {
        json!({ "input": { "id": seed.webhook } })
    }),
    mutation!("testWebhook", "TestWebhookInput", "delivery { id }", Needs::Admin, |seed| {
        json!({ "input": { "id": seed.webhook, "kind": "metric.created" } })
    }),
    mutation!("retryDelivery", "RetryDeliveryInput", "delivery { id }", Needs::Admin, |seed| {
        json!({ "input": { "id": seed.delivery } })
    }),
    mutation!("replayEvents", "ReplayEventsInput", "count", Needs::Admin, |seed| {
        json!({ "input": { "id": seed.webhook, "from": 1 } })
    }),
    mutation!("disableWebhookEndpoint", "WebhookEndpointInput", "endpoint { id }", Needs::Admin, |seed| {
        json!({ "input": { "id": seed.webhook } })
    }),
    mutation!("enableWebhookEndpoint", "WebhookEndpointInput", "endpoint { id }", Needs::Admin, |seed| {
        json!({ "input": { "id": seed.webhook } })
    }),
    mutation!("deleteWebhookEndpoint", "WebhookEndpointInput", "deletedId", Needs::Admin, |seed| {
        json!({ "input": { "id": seed.webhook } })
    }),
    mutation!("purgeCache", "PurgeCacheInput", "", Needs::Admin, |_| json!({ "input": {} })),
    RootField {
        name: "backUpNow",
        needs: Needs::Deployment,
        operation: "mutation { backUpNow { backup { id } userErrors { message } } }",
        variables: |_| json!({}),
    },
    mutation!("removeMembership", "UserInput", "user { id }", Needs::Admin, |seed| json!({ "input": { "id": seed.user } })),
];
