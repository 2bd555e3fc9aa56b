//! Who is acting, and what they may do.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::idempotency::Held;
use crate::ids::{ApiKeyId, SessionId, TenantId, UserId};

/// The authenticated origin of a request or of a job's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub tenant: TenantId,
    pub subject: Subject,
    pub permissions: Permissions,
    /// The request that this actor is acting in, for the audit log.
    pub request_id: Option<String>,
    /// The idempotency key of that request: it is to be done once.
    pub once: Option<Arc<Held>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    User {
        user: UserId,
        session: SessionId,
    },
    ApiKey {
        key: ApiKeyId,
        user: UserId,
    },
    /// The command line, a schedule: no person.
    System,
}

impl Actor {
    /// An operator at the command line, or the system itself.
    pub fn system(tenant: TenantId) -> Self {
        Self { tenant, subject: Subject::System, permissions: Permissions::all(), request_id: None, once: None }
    }

    /// Fails unless this actor may.
    pub fn require(&self, permission: Permission) -> Result<()> {
        if self.permissions.contains(permission) { Ok(()) } else { Err(Error::Forbidden(permission.as_str())) }
    }

    /// The person behind the credential.
    pub fn user(&self) -> Option<UserId> {
        match self.subject {
            Subject::User { user, .. } | Subject::ApiKey { user, .. } => Some(user),
            Subject::System => None,
        }
    }

    /// What the audit log calls this kind of actor.
    pub fn kind(&self) -> &'static str {
        match self.subject {
            Subject::User { .. } => "user",
            Subject::ApiKey { .. } => "api_key",
            Subject::System => "system",
        }
    }

    /// The credential's own id: the user's, or the key's. Rate limits and idempotency keys are counted by it.
    pub fn id(&self) -> Uuid {
        match self.subject {
            Subject::User { user, .. } => user.0,
            Subject::ApiKey { key, .. } => key.0,
            Subject::System => Uuid::nil(),
        }
    }
}

/// One thing that may be allowed. API keys carry these as scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Permission {
    /// Read the catalog: domains, metrics, versions, lineage, objectives.
    CatalogRead,
    /// Create, change and archive catalog entries.
    CatalogWrite,
    /// Import files, and see imports.
    CatalogImport,
    /// See and manage users, memberships and everybody's API keys.
    Manage,
    /// See and steer the queues.
    Operate,
    /// Send documents of one's own where published ones are preferred.
    Explore,
    /// See, publish and withdraw documents.
    PublishDocuments,
    /// See and manage webhook endpoints, and what they were sent.
    Webhooks,
}

impl Permission {
    pub const ALL: [Permission; 8] = [
        Self::CatalogRead,
        Self::CatalogWrite,
        Self::CatalogImport,
        Self::Manage,
        Self::Operate,
        Self::Explore,
        Self::PublishDocuments,
        Self::Webhooks,
    ];

    /// The scope's name, as API keys store it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CatalogRead => "catalog:read",
            Self::CatalogWrite => "catalog:write",
            Self::CatalogImport => "catalog:import",
            Self::Manage => "manage",
            Self::Operate => "operate",
            Self::Explore => "explore",
            Self::PublishDocuments => "documents:publish",
            Self::Webhooks => "webhooks",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == name)
    }
}

/// A set of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Permissions(u8);

impl Permissions {
    pub fn all() -> Self {
        Permission::ALL.into_iter().collect()
    }

    pub fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u8) != 0
    }

    /// What both sets allow.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |permission| self.contains(*permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().fold(0, |bits, permission| bits | 1 << permission as u8))
    }
}

/// What a membership makes of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Viewer,
    Editor,
    Admin,
}

crate::text::text_enum!(Role { Viewer = "viewer", Editor = "editor", Admin = "admin" });

impl Role {
    /// The one table of who may what.
    pub fn permissions(self) -> Permissions {
        use Permission::*;
        match self {
            Role::Viewer => [CatalogRead].into_iter().collect(),
            Role::Editor => [CatalogRead, CatalogWrite, CatalogImport, Explore].into_iter().collect(),
            Role::Admin => Permissions::all(),
        }
    }
}
