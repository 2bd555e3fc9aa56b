//! What the comment on a database says of it. Only its owner can change that, and it stays when the database is renamed. Our mark
//! is a line of its own; the other lines are an operator's.

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
    const ALL: [Self; 3] = [Self::Unfinished, Self::Restored, Self::Kept];

    pub fn text(self) -> &'static str {
        match self {
            Self::Unfinished => "MDL: a restore into it is not finished",
            Self::Restored => "MDL: restored to its end",
            Self::Kept => "MDL: was in use before a switch",
        }
    }

    /// Of a database, if it is there and has one.
    pub async fn of(admin: &Client, database: &str) -> Result<Option<Self>> {
        Ok(comment(admin, database).await?.split('\n').find_map(Self::in_line))
    }

    pub async fn set(self, admin: &Client, database: &str) -> Result<()> {
        Ok(admin.batch_execute(&statement(admin, database, Some(self)).await?).await?)
    }

    fn in_line(line: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mark| line.trim() == mark.text())
    }
}

/// Of the database in use: it needs none.
pub async fn clear(admin: &Client, database: &str) -> Result<()> {
    Ok(admin.batch_execute(&statement(admin, database, None).await?).await?)
}

/// The statement that gives a database this mark and no other, and leaves what an operator has said of it.
pub async fn statement(admin: &Client, database: &str, mark: Option<Mark>) -> Result<String> {
    let text = match marked(&comment(admin, database).await?, mark) {
        Some(text) => admin.query_one("SELECT quote_literal($1::text)", &[&text]).await?.get(0),
        None => "NULL".to_owned(),
    };
    Ok(format!("COMMENT ON DATABASE {} IS {text}", quote(database)))
}

/// Empty if there is none.
async fn comment(admin: &Client, database: &str) -> Result<String> {
    let query = "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = $1";
    Ok(admin.query_opt(query, &[&database]).await?.map(|row| row.get(0)).unwrap_or_default())
}

fn marked(comment: &str, mark: Option<Mark>) -> Option<String> {
    let theirs: Vec<_> = comment.split('\n').filter(|line| Mark::in_line(line).is_none()).collect();
    let theirs = theirs.join("\n");
    match (theirs.is_empty(), mark) {
        (true, mark) => mark.map(|mark| mark.text().to_owned()),
        (false, Some(mark)) => Some(format!("{theirs}\n{}", mark.text())),
        (false, None) => Some(theirs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_has_said_stays() {
        for theirs in ["", "Ask Ann", "Ask Ann,\n\nthen Bob\n"] {
            let kept = marked(theirs, Some(Mark::Kept)).unwrap();
            assert_eq!(kept.lines().last().and_then(Mark::in_line), Some(Mark::Kept));
            let restored = marked(&kept, Some(Mark::Restored)).unwrap();
            assert_eq!(restored.lines().filter_map(Mark::in_line).collect::<Vec<_>>(), [Mark::Restored]);
            assert_eq!(marked(&restored, None).unwrap_or_default(), theirs);
        }
    }
}
