//! `mdl-worker backup switch`, and how what is in use is asked for and told.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;
use mdl::backups::{self, Switched};
use mdl::{App, output};
use serde_json::json;

use crate::cli::explain;
use crate::cli::table::print_json;

#[derive(Debug, Args)]
pub struct Switch {
    /// The restored database
    database: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Switch {
    pub async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        if !self.yes {
            confirm(app, &format!("The database in use will be replaced by {}, and kept under another name.", self.database))?;
        }
        let switched = switch(app, &self.database).await?;
        if self.json {
            print_json(&json!({ "database": self.database, "inUse": true, "kept": kept(&switched) }));
        } else {
            tell_switched(app, &self.database, &switched)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

pub async fn switch(app: &App, database: &str) -> anyhow::Result<Switched> {
    backups::switch(app, database).await.map_err(explain)
}

/// The name of what was in use before.
pub fn kept(switched: &Switched) -> Option<&str> {
    match switched {
        Switched::Now { kept } => kept.as_deref(),
        Switched::Before => None,
    }
}

pub fn tell_switched(app: &App, database: &str, switched: &Switched) -> anyhow::Result<()> {
    match switched {
        Switched::Now { kept } => {
            let aside = kept
                .as_ref()
                .map(|kept| format!(" What was in use before is kept as {kept}: drop it when it is not needed any more"));
            let (name, aside) = (name_in_use(app)?, aside.unwrap_or_default());
            output::line(format_args!("The database {database} is in use now, under the name {name}.{aside}"));
        }
        // That they could not be told is said where they are waited for.
        Switched::Before => output::line(format_args!("{database} is in use already; caches are told to forget what they keep")),
    }
    Ok(())
}

/// The name of the database in use.
fn name_in_use(app: &App) -> anyhow::Result<String> {
    Ok(app.config.database.url.parse::<tokio_postgres::Config>()?.get_dbname().unwrap_or_default().to_owned())
}

/// Goes on only if somebody types the name of the database in use.
pub fn confirm(app: &App, consequence: &str) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("{consequence} Say --yes to do that without a terminal");
    }
    let in_use = name_in_use(app)?;
    eprint!("{consequence}\nType the name of the database in use ({in_use}) to go on: ");
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed)?;
    anyhow::ensure!(typed.trim() == in_use, "Nothing was done");
    Ok(())
}
