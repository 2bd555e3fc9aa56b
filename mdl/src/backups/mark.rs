//! What the comment on a database says of it. Only its owner can change that, and it stays when the database is renamed.

use tokio_postgres::Client;

use super::scratch::quote;
use crate::error::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A restore goes on, or was interrupted.
    Unfinished,
    /// A restore came to its end.
    Restored,
    /// It was in use, and a switch put it aside.
    Kept,
}

impl Mark {
    pub fn text(self) -> &'static str {
        match self {
            Self::Unfinished => "MDL: a restore into it is not finished",
            Self::Restored => "MDL: restored to its end",
            Self::Kept => "MDL: was in use before a switch",
        }
    }

    /// Of a database, if it is there and has one.
    pub async fn of(admin: &Client, database: &str) -> Result<Option<Self>> {
        let query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1";
        let comment: Option<String> = admin.query_opt(query, &[&database]).await?.and_then(|row| row.get(0));
        Ok([Self::Unfinished, Self::Restored, Self::Kept].into_iter().find(|mark| comment.as_deref() == Some(mark.text())))
    }

    pub async fn set(self, admin: &Client, database: &str) -> Result<()> {
        Ok(admin.batch_execute(&format!("COMMENT ON DATABASE {} IS '{}'", quote(database), self.text())).await?)
    }
}

/// Of the database in use: it needs none.
pub async fn clear(admin: &Client, database: &str) -> Result<()> {
    Ok(admin.batch_execute(&format!("COMMENT ON DATABASE {} IS NULL", quote(database))).await?)
}
