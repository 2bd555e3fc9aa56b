use std::sync::Arc;

use futures::FutureExt;
use mdl::api_keys::{self, ApiKey};
use mdl::db::Snapshot;
use mdl::ids::{ApiKeyId, UserId};
use mdl::users::{self, Member, User};

use super::Batched;

/// People.
pub struct PeopleLoaders {
    /// Users, whether or not they are still members.
    pub users: Batched<UserId, Arc<User>>,
    pub members: Batched<UserId, Arc<Member>>,
    /// API keys, whether or not they still work.
    pub api_keys: Batched<ApiKeyId, Arc<ApiKey>>,
}

impl PeopleLoaders {
    pub fn new(snapshot: &Arc<Snapshot>) -> Self {
        Self {
            users: Batched::new(snapshot, |snapshot, ids| {
                async move {
                    let found = snapshot.read(async |conn| users::by_ids(conn, snapshot.tenant(), &ids).await).await?;
                    Ok(found.into_iter().map(|user| (user.id, Arc::new(user))).collect())
                }
                .boxed()
            }),
            members: Batched::new(snapshot, |snapshot, ids| {
                async move {
                    let found = snapshot.read(async |conn| users::members(conn, snapshot.tenant(), &ids).await).await?;
                    Ok(found.into_iter().map(|member| (member.user.id, Arc::new(member))).collect())
                }
                .boxed()
            }),
            api_keys: Batched::new(snapshot, |snapshot, ids| {
                async move {
                    let found = snapshot.read(async |conn| api_keys::by_ids(conn, snapshot.tenant(), &ids).await).await?;
                    Ok(found.into_iter().map(|key| (key.id, Arc::new(key))).collect())
                }
                .boxed()
            }),
        }
    }
}
