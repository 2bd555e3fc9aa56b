//! `mdl-worker schedules`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use mdl::schedules::{self, Schedule, Slot};
use mdl::tenants::SYSTEM;
use mdl::{Actor, App, output};
use serde_json::{Value, json};

use super::explain;
use super::table::{ago, fit, print_json, table};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SchedulesCommand {
    #[command(subcommand)]
    change: Option<Change>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Enqueue its job now, besides its times
    Run(Which),
    /// Let its times pass without a job
    Pause(Which),
    /// Let its times count again; those that passed are not made up for
    Resume(Which),
}

#[derive(Debug, Args)]
struct Which {
    /// Name of the schedule
    name: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl SchedulesCommand {
    pub async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let actor = Actor::system(SYSTEM);
        match self.change {
            None => list(app, self.json).await?,
            Some(Change::Run(Which { name, json })) => {
                let slot = schedules::run_now(app, &actor, &name).await.map_err(explain)?;
                if json {
                    print_json(&json!({ "name": name, "time": slot.slot, "job": slot.job_id }));
                } else {
                    output::line(format_args!("Enqueued the job {}", slot.job_id.map(|id| id.to_string()).unwrap_or_default()));
                }
            }
            Some(Change::Pause(which)) => which.tell(&schedules::pause(app, &actor, &which.name).await.map_err(explain)?),
            Some(Change::Resume(which)) => which.tell(&schedules::resume(app, &actor, &which.name).await.map_err(explain)?),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Which {
    fn tell(&self, schedule: &Schedule) {
        if self.json {
            print_json(&json!({ "name": schedule.name, "pausedAt": schedule.paused_at }));
        } else {
            output::line(format_args!(
                "{} is {}",
                schedule.name,
                if schedule.paused_at.is_some() { "paused" } else { "not paused" }
            ));
        }
    }
}

async fn list(app: &App, json: bool) -> anyhow::Result<()> {
    let tx = app.db.begin(SYSTEM).await.map_err(explain)?;
    let mut rows: Vec<(Schedule, Vec<Slot>)> = Vec::new();
    for schedule in schedules::all(&tx).await.map_err(explain)? {
        let slots = schedules::slots(&tx, &schedule.name, 3).await.map_err(explain)?;
        rows.push((schedule, slots));
    }
    tx.commit().await.map_err(explain)?;
    if json {
        let rows = rows.iter().map(|(schedule, slots)| -> anyhow::Result<Value> {
            let last = slots.iter().map(|slot| json!({ "time": slot.slot, "outcome": slot.outcome.as_str(), "job": slot.job_id }));
            Ok(json!({
                "name": schedule.name, "description": schedule.description, "expression": schedule.expression,
                "timeZone": schedule.time_zone, "kind": schedule.kind, "enabled": schedule.enabled, "pausedAt": schedule.paused_at,
                "nextRuns": schedule.upcoming(3).map_err(explain)?, "lastRuns": Value::from_iter(last),
            }))
        });
        print_json(&Value::Array(rows.collect::<anyhow::Result<_>>()?));
        return Ok(());
    }
    let mut table = table(&["schedule", "times", "last", "next", ""]);
    for (schedule, slots) in &rows {
        let last = slots.first().map(|slot| format!("{} ({})", ago(Some(slot.slot)), slot.outcome.as_str()));
        let state = match (schedule.enabled, schedule.paused_at) {
            (false, _) => "off",
            (true, Some(_)) => "paused",
            (true, None) => "",
        };
        table.add_row([
            schedule.name.clone(),
            format!("{} {}", schedule.expression, schedule.time_zone),
            last.unwrap_or_default(),
            ago(schedule.upcoming(1).map_err(explain)?.first().copied()),
            state.to_owned(),
        ]);
    }
    output::line(fit(table));
    Ok(())
}
