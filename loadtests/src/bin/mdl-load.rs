//! A load of many users on a running API.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::{SecondsFormat, Utc};
use clap::Parser;
use mdl_loadtests::load::catalog::{self, Target};
use mdl_loadtests::load::mix::Mix;
use mdl_loadtests::load::profile::{Profile, highest_kept};
use mdl_loadtests::load::timetable::Timetable;
use mdl_loadtests::load::users::Run;

/// API keys outlive the run by this.
const KEYS_LAST_ON: Duration = Duration::from_secs(600);

/// Sends a realistic mix of requests at a fixed rate from many users, each with an API key and a connection of its own, and
/// judges latencies and errors. The exit code is 1 when the profile's limits were not kept.
///
/// It writes into the tenants that it is given: progress of key results, descriptions of metrics, new metrics. Its API keys expire.
#[derive(Parser)]
#[command(name = "mdl-load", version)]
struct Arguments {
    #[arg(value_enum)]
    profile: Profile,
    /// Address of the API, plain HTTP.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Slugs of the tenants; users take turns with them. Each needs metrics, domains and objectives with key results.
    #[arg(long, value_delimiter = ',', default_value = "demo")]
    tenants: Vec<String>,
    /// Who signs in, in each of the tenants, to make the users' API keys.
    #[arg(long)]
    email: String,
    /// Their password.
    #[arg(long, env = "MDL_LOAD_PASSWORD", hide_env_values = true)]
    password: String,
    #[arg(long, default_value_t = 1000)]
    users: usize,
    /// Requests per second, of all users together. Of `stress`, in its last stage; of `spike`, outside of the spike.
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// Length of the run; 60 of `steady`, 100 of `stress` and `spike`, 3600 of `soak` if not given.
    #[arg(long)]
    seconds: Option<f64>,
    /// Share of writes in all requests, at most 0.1. Only one user of ten writes.
    #[arg(long, default_value_t = 0.02)]
    writes: f64,
    /// Begin with nothing in the API's cache. Without it, everything that can be asked is asked until it is kept before the clock starts,
    /// as in an API that runs for long: what is missed then is what writes have made old.
    #[arg(long)]
    cold: bool,
    /// Write goose's report into this file: .html, .md or .json.
    #[arg(long)]
    report: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mdl-load: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { profile, url, tenants, email, password, users, rate, seconds, writes, cold, report } = arguments;
    let seconds = seconds.unwrap_or(profile.default_seconds());
    ensure!(users > 0 && rate > 0.0 && seconds > 0.0, "users, rate and seconds must be positive");
    ensure!((0.0..=0.1).contains(&writes), "the share of writes must be from 0 to 0.1");
    // goose's clients want to know who does TLS, although none is spoken. Err means that it is said already.
    let _first = rustls::crypto::ring::default_provider().install_default();

    let target = Target { url: url.trim_end_matches('/').to_owned(), tenants, email, password };
    let expires_at = Utc::now() + Duration::from_secs_f64(seconds) + KEYS_LAST_ON;
    let expires_at = expires_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    println!("Making {users} API keys in {}…", target.tenants.join(", "));
    let (catalogs, accounts) = catalog::prepare(&target, users, &expires_at).await?;
    let timetable = Timetable::new(profile.stages(rate, seconds), users);
    let stages = timetable.stages().to_vec();
    let lasts = timetable.seconds();
    let run = Run::new(&target.url, timetable, profile.ends_when_overloaded(), accounts, Mix::new(catalogs, writes));
    if !cold {
        println!("Asking everything until it is kept…");
        let (questions, not_kept) = run.warm_up().await.context("cannot warm up")?;
        println!("Asked {questions} questions, of which the API does not keep {not_kept}.");
    }
    println!("{users} users for {lasts:.0} s…");
    let tallies = run.execute(report).await.context("the run broke off")?;

    println!("\n{}", tallies.report(&stages));
    if profile == Profile::Stress
        && let Some(stage) = highest_kept(&stages, &tallies.stages)
    {
        println!("highest rate kept: {:.0}/s", stage.rate);
    }
    let problems = profile.problems(&stages, &tallies.stages);
    problems.iter().for_each(|problem| println!("not kept: {problem}"));
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
