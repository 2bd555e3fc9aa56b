//! `mdl-worker backup list`.

use std::process::ExitCode;

use clap::Args;
use mdl::backups;
use mdl::backups::vault::made_at;
use mdl::{App, output};
use serde_json::json;

use crate::cli::explain;
use crate::cli::line::size;

#[derive(Debug, Args)]
pub struct List {
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

impl List {
    pub async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let (listed, silent) = backups::list(app).await.map_err(explain)?;
        for place in silent {
            eprintln!("Not listed: {place}");
        }
        // The id of one that was asked for is older than the backup.
        let mut listed: Vec<_> = listed.into_iter().collect();
        listed.sort_by_key(|(id, backup)| backup.manifest.as_ref().map_or_else(|| made_at(*id), |manifest| manifest.started_at));
        if self.json {
            let list: Vec<_> = listed
                .iter()
                .map(|(id, backup)| {
                    let manifest = backup.manifest.as_ref();
                    json!({
                        "id": id,
                        "startedAt": manifest.map(|manifest| manifest.started_at),
                        "plainBytes": manifest.map(|manifest| manifest.database.plain.bytes),
                        "storedBytes": manifest.map(|manifest| manifest.database.stored.bytes),
                        "rows": manifest.map(|manifest| manifest.rows()),
                        "files": manifest.map(|manifest| manifest.files.count),
                        "schemaVersion": manifest.and_then(|manifest| manifest.schema_version()),
                        "recipients": manifest.map(|manifest| &manifest.recipients),
                        "verifiedAt": backup.proof.as_ref().map(|proof| proof.verified_at),
                        "places": backup.places,
                        "damage": backup.damage,
                    })
                })
                .collect();
            output::line(serde_json::to_string_pretty(&list)?);
            return Ok(ExitCode::SUCCESS);
        }
        if listed.is_empty() {
            output::line("There are no backups");
        }
        for (id, backup) in &listed {
            let about = match &backup.manifest {
                Some(manifest) => format!(
                    "{}  {:>9}  {:>10} rows  {:>6} files",
                    manifest.started_at.format("%Y-%m-%d %H:%M:%S UTC"),
                    size(manifest.database.stored.bytes),
                    manifest.rows(),
                    manifest.files.count
                ),
                None => String::new(),
            };
            let verified = match &backup.proof {
                Some(proof) => format!("verified {}", proof.verified_at.format("%Y-%m-%d %H:%M:%S UTC")),
                None => "never verified".to_owned(),
            };
            let damage = backup.damage.as_ref().map(|damage| format!("  {damage}")).unwrap_or_default();
            output::line(format_args!("{id}  {about}  {verified}  {}{damage}", backup.places.join(" ")));
        }
        Ok(ExitCode::SUCCESS)
    }
}
