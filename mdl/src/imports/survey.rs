//! The first pass over a file: nothing is written, and everything that is wrong with the file is found.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::entry::{Entry, Issue, Kind, Place, codes};
use super::reader::{Next, Reading};
use super::{Format, Import, MAX_KEPT};
use crate::app::App;
use crate::error::Result;

/// Most domains in one file: they are kept, because they are applied before everything that names them.
const MAX_DOMAINS: usize = 10_000;

/// What a file holds.
pub struct Survey {
    pub format: Option<Format>,
    pub total: i64,
    /// Entries that have errors.
    pub failed: i64,
    /// Issues of entries, in the order of the file: the first ones, and how many there are.
    pub issues: Vec<Issue>,
    pub issue_count: i64,
    /// Warnings that belong to no entry.
    pub warnings: Vec<Issue>,
    /// All entries that are domains, whether they are good or not.
    pub domains: Vec<Entry>,
}

/// Why a file cannot be imported.
pub struct Refusal {
    pub issue: Box<Issue>,
    /// As far as it was told.
    pub format: Option<Format>,
}

/// Reads the file to its end. The inner error says why it cannot be read.
pub async fn survey(app: &App, import: &Import, bytes_read: Arc<AtomicU64>) -> Result<Result<Survey, Refusal>> {
    let mut survey = Survey {
        format: None,
        total: 0,
        failed: 0,
        issues: Vec::new(),
        issue_count: 0,
        warnings: Vec::new(),
        domains: Vec::new(),
    };
    let mut reading = Reading::start(app, import, bytes_read).await?;
    loop {
        let chunk = match reading.next().await? {
            Next::Chunk(chunk) => chunk,
            Next::End => return Ok(Ok(Survey { format: reading.format(), ..survey })),
            Next::Refused(issue) => return Ok(Err(Refusal { issue, format: reading.format() })),
        };
        let room = (MAX_KEPT as usize).saturating_sub(survey.warnings.len());
        survey.warnings.extend(chunk.warnings.into_iter().take(room));
        for entry in chunk.entries {
            survey.total += 1;
            survey.failed += i64::from(entry.draft.is_none());
            survey.issue_count += entry.issues.len() as i64;
            let room = (MAX_KEPT as usize).saturating_sub(survey.issues.len());
            survey.issues.extend(entry.issues.iter().take(room).cloned());
            if entry.kind == Some(Kind::Domain) {
                if survey.domains.len() == MAX_DOMAINS {
                    let message = format!("Has more than {MAX_DOMAINS} business domains");
                    let issue = Issue::refusal(Place { path: None, ..entry.place }, codes::TOO_MANY, message);
                    return Ok(Err(Refusal { issue, format: reading.format() }));
                }
                survey.domains.push(entry);
            }
        }
    }
}
