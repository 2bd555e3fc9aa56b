//! Purging by hand, for when something was changed behind MDL's back.

use serde_json::json;
use tracing::info;
use uuid::Uuid;

use super::{Entities, Entity, Touched};
use crate::actor::{Actor, Permission};
use crate::app::App;
use crate::audit;
use crate::documents::{DocumentHash, to_hex};
use crate::error::Result;

/// Which kept answers of the tenant are to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    Everything,
    /// Those that something of this kind is part of, as [`Entities::of_kind`] names it.
    Type(&'static str),
    /// Those to this document, with whatever variables.
    Document(DocumentHash),
}

/// Makes every process forget kept answers of the actor's tenant.
pub async fn purge(app: &App, actor: &Actor, what: Purge) -> Result<()> {
    actor.require(Permission::Operate)?;
    let tx = app.db.begin(actor.tenant).await?;
    let details = match what {
        Purge::Everything => {
            tx.touch(Entities::ALL);
            json!({})
        }
        Purge::Type(kind) => {
            tx.touch(entities_of(kind));
            json!({ "type": kind })
        }
        Purge::Document(hash) => {
            tx.touch(Touched::document(hash));
            json!({ "document": to_hex(&hash) })
        }
    };
    audit::record(&tx, actor, "cache.purged", ("cache", Uuid::nil()), &details).await?;
    tx.commit().await?;
    info!(what = %details, "Purged kept answers");
    Ok(())
}

/// As [`Entities::of_kind`], but for imports: nobody says that what one of them wrote was changed, too.
fn entities_of(kind: &str) -> Entities {
    match kind {
        "import" => Entities::of(&[Entity::Imports]),
        _ => Entities::of_kind(kind),
    }
}
