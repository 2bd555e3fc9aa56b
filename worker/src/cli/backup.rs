//! `mdl-worker backup`: making, proving, listing and bringing back backups.

mod list;
mod now;
mod prune;
mod restore;
mod switch;

use std::process::ExitCode;

use clap::Subcommand;
use mdl::backups::seal;
use mdl::global_id::{self, Kind};
use mdl::ids::BackupId;
use mdl::{App, output};

use list::List;
use now::{Now, Verify};
use prune::Prune;
use restore::Restore;
use switch::Switch;

#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Make a backup, and restore it on trial
    Now(Now),
    /// List the backups that are there, oldest first
    List(List),
    /// Restore a backup on trial, with all its files, into a scratch database that is dropped again
    Verify(Verify),
    /// Bring a backup back: into a new database, in place of the one in use, or one tenant's rows of it
    Restore(Restore),
    /// Put a restored database in the place of the one in use, which is kept under another name
    Switch(Switch),
    /// Remove backups that are older than their place keeps them, and what died ones left; the newest verified ones stay
    Prune(Prune),
    /// Print a new pair of keys: a file for MDL_BACKUP_IDENTITY_FILE, and in it what to set MDL_BACKUP_RECIPIENTS to
    Keygen,
}

fn backup_id(text: &str) -> Result<BackupId, String> {
    global_id::expect(Kind::Backup, text).map(BackupId)
}

impl BackupCommand {
    pub async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        match self {
            Self::Now(now) => now.run(app).await,
            Self::List(list) => list.run(app).await,
            Self::Verify(verify) => verify.run(app).await,
            Self::Restore(restore) => restore.run(app).await,
            Self::Switch(switch) => switch.run(app).await,
            Self::Prune(prune) => prune.run(app).await,
            Self::Keygen => keygen(),
        }
    }
}

/// Needs no settings: it makes what one of them is to be set to.
pub fn keygen() -> anyhow::Result<ExitCode> {
    output::text(seal::generate_identity());
    Ok(ExitCode::SUCCESS)
}
