//! Backups that have proven they restore.
//!
//! | who | does |
//! |---|---|
//! | [`back_up`] | dumps the database in one snapshot, seals the dump on its way to a place, and publishes it with a manifest |
//! | [`back_up_files`] | stores the uploaded files of the time since the last backup |
//! | [`inventory`] | says what a database has: rows and hashes of each table, constraints, indexes, policies |
//! | [`verify`](fn@verify) | restores a backup into a scratch database, and compares what is there with the manifest |
//! | [`restore`](fn@restore), [`switch`] | bring a backup back, beside the database in use or in its place |
//! | [`restore_tenant`] | brings one tenant's rows and files back into the database in use |
//! | [`prune`] | removes what is old, and never the last one that was verified; and what died backups left |
//! | [`watch`](mod@watch) | notices what an operator should know of: sizes that jump, failures, days without a backup |
//! | [`vault`] | a place with backups: a directory or a bucket |
//! | [`seal`] | encryption to the public keys of age, and the way back |
//! | [`manifest`] | what a backup says of itself |
//! | [`store`] | what the database knows of backups: for people to look at. The vaults are the truth |
//!
//! In a vault a backup is a folder, `backups/<id>`, that counts once it has a `manifest.json`, which is written last. It is good
//! once it has a `verified.json`, which is written after a trial restore, or after a copy was read and found to be the same as
//! what was restored. What has neither a manifest nor a dump was left by a run that died, and the next one removes it. A dump
//! without a manifest was left by one that died later, or somebody lost the manifest: the database knows which, and [`prune`]
//! removes the former. Uploaded files are kept beside it by the SHA-256 of their content, so that each is sent once.

mod files;
pub mod inventory;
mod leftovers;
mod make;
pub mod manifest;
mod mark;
mod operations;
mod progress;
mod restore;
mod retention;
mod scratch;
pub mod seal;
pub mod store;
mod tenant;
mod tools;
pub mod vault;
mod verify;
pub mod watch;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use uuid::Uuid;

use crate::error::{Code, Error};
use crate::ids::{BackupId, DrillId};
use crate::schema::{backups, restore_drills};

pub use files::Brought;
pub use make::{back_up, back_up_files, is_busy};
pub use manifest::Manifest;
pub use operations::{
    BackUp, BackUpFiles, Listed, PruneBackups, RestoreDrillJob, WatchBackups, are_set_up, back_up_and_verify, cancelled, drill,
    list, request,
};
pub use progress::{Phase, Progress, Step};
pub use restore::{Restored, Switched, restore, switch};
pub use retention::{Pruned, prune};
pub use tenant::{TenantChange, TenantRestored, restore_tenant};
pub use vault::Vault;
pub use verify::{Verified, verify};

/// How far a backup has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackupState {
    /// For the worker.
    Queued,
    Running,
    /// Complete, and never restored yet.
    Published,
    /// Restored, and found to be the same.
    Verified,
    Failed,
}

crate::text::text_enum!(BackupState {
    Queued = "queued",
    Running = "running",
    Published = "published",
    Verified = "verified",
    Failed = "failed",
});

/// How far a trial restore has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DrillState {
    Running,
    Succeeded,
    Failed,
}

crate::text::text_enum!(DrillState { Running = "running", Succeeded = "succeeded", Failed = "failed" });

/// One run of a backup and what became of it. Sizes are in bytes.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = backups)]
pub struct Backup {
    pub id: BackupId,
    pub state: BackupState,
    pub phase: String,
    /// Who asked for it; nobody when a schedule or the command line did.
    pub requested_by: Option<Uuid>,
    pub started_at: DateTime<Utc>,
    /// When it last said how far it is.
    pub updated_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    /// When it was last restored on trial and found to be the same.
    pub verified_at: Option<DateTime<Utc>>,
    /// When it was removed, because it was old.
    pub pruned_at: Option<DateTime<Utc>>,
    pub done_bytes: i64,
    /// Of the dump, as the last one was.
    pub expected_bytes: Option<i64>,
    /// Of the dump.
    pub plain_bytes: Option<i64>,
    /// Of the dump as it is stored.
    pub stored_bytes: Option<i64>,
    pub table_count: Option<i32>,
    pub row_count: Option<i64>,
    pub file_count: Option<i64>,
    pub file_bytes: Option<i64>,
    pub encrypted: bool,
    pub dump_seconds: Option<f64>,
    /// The newest migration of the database.
    pub schema_version: Option<String>,
    pub server_version: Option<String>,
    pub program_version: String,
    /// The vaults that have it.
    pub places: Vec<String>,
    /// Why it failed, or what was wrong when it was restored on trial. For operators only.
    pub error: Option<String>,
}

/// One trial restore of a backup into a scratch database.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = restore_drills)]
pub struct RestoreDrill {
    pub id: DrillId,
    pub backup_id: BackupId,
    /// The vault that it was read from.
    pub place: String,
    pub state: DrillState,
    pub phase: String,
    pub requested_by: Option<Uuid>,
    pub started_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    pub done_bytes: i64,
    pub expected_bytes: Option<i64>,
    /// Of reading, restoring and comparing.
    pub restore_seconds: Option<f64>,
    /// What the restored database had otherwise than the manifest says.
    pub differences: Vec<String>,
    pub error: Option<String>,
}

/// A refusal or a finding, in one sentence, that repeating does not mend.
fn refused(message: impl Into<String>) -> Error {
    Error::invalid("", Code::Invalid, message)
}

/// The same for what says nothing about a backup: something is missing that whoever reads it needs.
fn unequipped(message: impl Into<String>) -> Error {
    Error::invalid("", Code::Required, message)
}

/// A name as a word of a command for a shell.
pub fn shell_word(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:@%+=".contains(&byte);
    if !name.is_empty() && name.bytes().all(plain) { name.to_owned() } else { format!("'{}'", name.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::shell_word;

    #[test]
    fn names_are_words_of_a_shell() {
        let words = ["mdl_restored", "two words", "it's", ""].map(shell_word);
        assert_eq!(words, ["mdl_restored", "'two words'", r"'it'\''s'", "''"]);
    }
}
