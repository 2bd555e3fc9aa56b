//! `mdl-worker queues` and `mdl-worker workers`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use mdl::ids::TenantId;
use mdl::jobs::queues::{self, MAX_CONCURRENCY, MAX_WEIGHT, Queue, Settings};
use mdl::jobs::workers;
use mdl::tenants::SYSTEM;
use mdl::{Actor, App, output};
use serde_json::{Value, json};

use super::table::{ago, count, fit, print_json, seconds, table};
use super::watch::watch;
use super::{Whom, explain};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct QueuesCommand {
    #[command(subcommand)]
    change: Option<Change>,
    #[command(flatten)]
    see: See,
}

#[derive(Debug, Args)]
struct See {
    /// Slug of the tenant whose jobs are counted; all when left out
    #[arg(long)]
    tenant: Option<String>,
    /// Minutes back for counts and times of jobs that ended
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(i32).range(1..=1440))]
    minutes: i32,
    /// Draw it anew every second until Ctrl-C, also while the database does not answer
    #[arg(long)]
    watch: bool,
    /// As JSON
    #[arg(long, conflicts_with = "watch")]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Let no more jobs of a queue begin; those that run go on
    Pause(Which),
    /// Let the jobs of a queue begin again
    Resume(Which),
    /// Limit how many jobs of a queue are under way at once, on all workers together
    Limit {
        #[command(flatten)]
        which: Which,
        /// The limit; none when left out
        #[arg(value_parser = clap::value_parser!(i32).range(1..=i64::from(MAX_CONCURRENCY)))]
        jobs: Option<i32>,
    },
    /// Set how many jobs of a tenant go for one of another, while both have a backlog in a queue
    Weigh {
        /// Name of the queue
        queue: String,
        /// Slug of the tenant
        #[arg(long)]
        tenant: String,
        /// So many for one of a tenant of weight 1, which all have that were given none
        #[arg(value_parser = clap::value_parser!(i32).range(1..=i64::from(MAX_WEIGHT)))]
        weight: i32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// Name of the queue
    queue: String,
    /// Slug of the tenant whose jobs it is about; everybody's when left out
    #[arg(long)]
    tenant: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl QueuesCommand {
    pub async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        match self.change {
            None => self.see.run(app).await?,
            Some(Change::Pause(which)) => {
                which.tell(&queues::pause(app, &which.actor(app).await?, &which.queue).await.map_err(explain)?);
            }
            Some(Change::Resume(which)) => {
                which.tell(&queues::resume(app, &which.actor(app).await?, &which.queue).await.map_err(explain)?);
            }
            Some(Change::Limit { which, jobs }) => {
                let actor = which.actor(app).await?;
                which.tell(&queues::set_concurrency(app, &actor, &which.queue, jobs).await.map_err(explain)?);
            }
            Some(Change::Weigh { queue, tenant, weight, json }) => {
                let which = Which { queue, tenant: Some(tenant), json };
                let actor = which.actor(app).await?;
                which.tell(&queues::set_weight(app, &actor, &which.queue, weight).await.map_err(explain)?);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Which {
    async fn actor(&self, app: &App) -> anyhow::Result<Actor> {
        let tenant = match &self.tenant {
            None => SYSTEM,
            Some(slug) => Whom::named(app, Some(slug)).await?.ids()[0],
        };
        Ok(Actor::system(tenant))
    }

    /// What is set now.
    fn tell(&self, settings: &Settings) {
        if self.json {
            let mut set = settings_as_json(settings, self.tenant.as_deref());
            set["queue"] = json!(settings.queue);
            print_json(&set);
            return;
        }
        let paused = if settings.paused_at.is_some() { "paused" } else { "not paused" };
        let limit = settings.concurrency.map_or("no limit".to_owned(), |limit| format!("at most {limit} jobs at once"));
        let weight = if settings.weight == 1 { String::new() } else { format!(", weight {}", settings.weight) };
        output::line(format_args!("{}: {paused}, {limit}{weight}", settings.queue));
    }
}

/// How the queues stand, and what is set for them.
struct Seen {
    states: Vec<Queue>,
    settings: Vec<(TenantId, Settings)>,
    whom: Whom,
}

impl See {
    async fn run(&self, app: &App) -> anyhow::Result<()> {
        if self.watch {
            return watch(async || Ok(self.draw(&self.look(app).await?))).await;
        }
        let seen = self.look(app).await?;
        if self.json {
            print_json(&Value::from_iter(seen.states.iter().map(|state| as_json(state, &seen))));
        } else {
            output::line(self.draw(&seen));
        }
        Ok(())
    }

    async fn look(&self, app: &App) -> anyhow::Result<Seen> {
        let whom = Whom::named(app, self.tenant.as_deref()).await?;
        let tenants = whom.ids();
        let tx = app.db.dispatch().await.map_err(explain)?;
        let states = queues::overview(&tx, &tenants, self.minutes).await.map_err(explain)?;
        let settings = queues::settings(&tx, &tenants).await.map_err(explain)?;
        tx.commit().await.map_err(explain)?;
        Ok(Seen { states, settings, whom })
    }

    fn draw(&self, seen: &Seen) -> String {
        let mut table = table(&["queue", "due", "later", "run", "dead", "oldest", "ok", "died", "wait", "takes", "workers", ""]);
        for state in &seen.states {
            table.add_row([
                state.name.clone(),
                count(state.due + state.dispatched),
                count(state.scheduled + state.held),
                count(state.running),
                count(state.dead),
                ago(state.oldest_due_at),
                count(state.succeeded),
                count(state.died),
                seconds(state.wait_p95),
                seconds(state.run_p95),
                if state.workers == 0 { "none".to_owned() } else { state.workers.to_string() },
                notes(&state.name, seen).join(", "),
            ]);
        }
        let minutes = self.minutes;
        format!("{}\n\nok, died: in the last {minutes} minutes; wait, takes: of 95 in a hundred of these at most", fit(table))
    }
}

/// What operators have set.
fn notes(queue: &str, seen: &Seen) -> Vec<String> {
    let mut notes = Vec::new();
    for (tenant, settings) in seen.settings.iter().filter(|(_, settings)| settings.queue == queue) {
        let of = if *tenant == SYSTEM { String::new() } else { format!(" ({})", seen.whom.slug(*tenant)) };
        if settings.paused_at.is_some() {
            notes.push(format!("paused{of}"));
        }
        if let Some(limit) = settings.concurrency {
            notes.push(format!("limit {limit}{of}"));
        }
        if settings.weight != 1 {
            notes.push(format!("weight {}{of}", settings.weight));
        }
    }
    notes
}

/// As GraphQL names it, with whose jobs it is set for: nobody's name for the whole queue.
fn settings_as_json(settings: &Settings, tenant: Option<&str>) -> Value {
    json!({
        "tenant": tenant, "pausedAt": settings.paused_at, "concurrency": settings.concurrency, "weight": settings.weight,
    })
}

fn as_json(state: &Queue, seen: &Seen) -> Value {
    let set = seen.settings.iter().filter(|(_, settings)| settings.queue == state.name).map(|(tenant, settings)| {
        settings_as_json(settings, if *tenant == SYSTEM { None } else { Some(seen.whom.slug(*tenant)) })
    });
    json!({
        "name": state.name, "held": state.held, "scheduled": state.scheduled, "due": state.due, "dispatched": state.dispatched,
        "running": state.running, "dead": state.dead, "oldestDueAt": state.oldest_due_at, "succeeded": state.succeeded,
        "died": state.died, "failureRate": state.failure_rate(), "waitSecondsP50": state.wait_p50, "waitSecondsP95": state.wait_p95,
        "runSecondsP50": state.run_p50, "runSecondsP95": state.run_p95, "workers": state.workers, "settings": Value::from_iter(set),
    })
}

#[derive(Debug, Args)]
pub struct Workers {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Workers {
    pub async fn run(self, app: &App) -> anyhow::Result<ExitCode> {
        let tx = app.db.dispatch().await.map_err(explain)?;
        let found = workers::all(&tx).await.map_err(explain)?;
        tx.commit().await.map_err(explain)?;
        if self.json {
            print_json(&Value::from_iter(found.iter().map(|worker| {
                json!({
                    "name": worker.name, "host": worker.host, "pid": worker.pid, "version": worker.version, "queues": worker.queues,
                    "runningJobs": worker.running, "memoryBytes": worker.memory_bytes, "startedAt": worker.started_at,
                    "lastSeenAt": worker.last_seen_at, "stoppedAt": worker.stopped_at, "alive": worker.is_alive(),
                })
            })));
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = table(&["worker", "version", "", "started", "seen", "jobs", "memory", "queues"]);
        for worker in found {
            let state = match (worker.is_alive(), worker.stopped_at) {
                (true, _) => "works",
                (false, Some(_)) => "stopped",
                (false, None) => "lost",
            };
            table.add_row([
                worker.name.clone(),
                worker.version.clone(),
                state.to_owned(),
                ago(Some(worker.started_at)),
                ago(Some(worker.last_seen_at)),
                count(i64::from(worker.running)),
                worker.memory_bytes.map_or(String::new(), |bytes| format!("{} MiB", bytes >> 20)),
                worker.queues.join(", "),
            ]);
        }
        output::line(fit(table));
        Ok(ExitCode::SUCCESS)
    }
}
