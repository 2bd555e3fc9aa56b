//! The users of a run, each with a connection and a timetable of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::{StreamExt, TryStreamExt, stream};
use goose::config::GooseConfiguration;
use goose::goose::{GooseUser, Scenario, Transaction, TransactionResult};
use goose::metrics::{GooseMetric, GooseRawRequest, GooseRequestMetric};
use goose::prelude::{GooseMethod, TransactionFunction};
use goose::{GooseAttack, is_killswitch_triggered};
use memchr::memmem;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep_until};

use super::catalog::{AT_ONCE, Account};
use super::mix::{Mix, Operation};
use super::tally::{Cache, Outcome, Tallies};
use super::timetable::{Slot, Timetable};

/// After this an unanswered request is an error.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// A request that could be sent only this much too late is left out, and counts as failed: the run has to end.
const LEFT_OUT_AFTER: Duration = Duration::from_secs(5);
/// Timers ring up to this late. Who was free and waited for one counts from when it rang.
const TIMER: Duration = Duration::from_millis(2);
/// From when all users are there to the first request.
const PAUSE: Duration = Duration::from_millis(500);
/// How often everything is asked at most until it is kept.
const WARM_UP_ROUNDS: usize = 5;

/// Everything that the users of a run share.
pub struct Run {
    url: String,
    timetable: Timetable,
    ends_when_overloaded: bool,
    accounts: Vec<Account>,
    mix: Mix,
    tallies: Mutex<Tallies>,
    overloaded: AtomicBool,
    next_user: AtomicUsize,
    everybody: Barrier,
    start: OnceLock<Instant>,
}

impl Run {
    /// A run against the API at `url`, with as many users as accounts.
    pub fn new(url: &str, timetable: Timetable, ends_when_overloaded: bool, accounts: Vec<Account>, mix: Mix) -> Self {
        Self {
            url: url.to_owned(),
            ends_when_overloaded,
            everybody: Barrier::new(accounts.len()),
            accounts,
            mix,
            tallies: Mutex::new(Tallies::new(timetable.stages().len())),
            timetable,
            overloaded: AtomicBool::new(false),
            next_user: AtomicUsize::new(0),
            start: OnceLock::new(),
        }
    }

    /// Sends every query of the mix until all answers come from the cache, so that the run begins as one that has lasted. An API that
    /// has just started keeps nothing for long. Gives how many queries there are, and how many are not kept even so.
    pub async fn warm_up(&self) -> Result<(usize, usize)> {
        let mut warmed = self.ask_everything().await?;
        for _ in 1..WARM_UP_ROUNDS {
            if warmed.1 == 0 {
                break;
            }
            warmed = self.ask_everything().await?;
        }
        Ok(warmed)
    }

    /// How many queries there are, and how many of the answers were made for this.
    async fn ask_everything(&self) -> Result<(usize, usize)> {
        let http = reqwest::Client::builder().no_proxy().no_gzip().timeout(TIMEOUT).build().context("no HTTP client")?;
        let ask = |(tenant, operation): (usize, Operation)| {
            let account = self.accounts.iter().find(|account| account.tenant == tenant);
            let request = account.map(|account| self.request(&http, account, &operation));
            async move {
                let request = request.with_context(|| format!("there is no user of tenant {}", tenant + 1))?;
                receive(request, true).await.map_err(|error| anyhow!("{}: {error}", operation.document))
            }
        };
        let answers = stream::iter(self.mix.queries()).map(ask).buffer_unordered(AT_ONCE);
        let count = async |(asked, made), cache| Ok((asked + 1, made + usize::from(cache == Some(Cache::Miss))));
        answers.try_fold((0, 0), count).await
    }

    /// Lets goose run the users until the timetable ends, and gives what came of it. With `report`, goose prints its own tables
    /// as well, and writes them with graphs into this file.
    pub async fn execute(self, report: Option<PathBuf>) -> Result<Tallies> {
        let configuration = configuration(&self.url, self.accounts.len(), report)?;
        let run = Arc::new(self);
        let shared = run.clone();
        let life: TransactionFunction = Arc::new(move |user| {
            let run = shared.clone();
            Box::pin(async move { run.live(user).await })
        });
        let scenario = Scenario::new("Catalog").register_transaction(Transaction::new(life).set_name("timetable"));
        let attack = GooseAttack::initialize_with_config(configuration).context("goose")?.register_scenario(scenario);
        attack.execute().await.context("goose")?;
        let mut tallies = run.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut *tallies, Tallies::new(0)))
    }

    /// A user's whole life.
    async fn live(&self, user: &mut GooseUser) -> TransactionResult {
        let number = self.next_user.fetch_add(1, Ordering::Relaxed);
        // Unpacking answers would take the load's time from the API, with which it shares the machine.
        let client = reqwest::Client::builder().no_proxy().no_gzip().timeout(TIMEOUT).pool_max_idle_per_host(1);
        user.set_client_builder(client).await?;
        let account = &self.accounts[number % self.accounts.len()];
        let mut rng = StdRng::seed_from_u64(number as u64);
        self.everybody.wait().await;
        let start = *self.start.get_or_init(|| Instant::now() + PAUSE);
        for slot in self.timetable.of_user(number) {
            if is_killswitch_triggered() || self.overloaded.load(Ordering::Relaxed) {
                break;
            }
            let due = start + slot.at;
            sleep_until(due).await;
            let late = due.elapsed();
            if late > LEFT_OUT_AFTER {
                self.overloaded.store(self.ends_when_overloaded, Ordering::Relaxed);
                self.tallies().not_sent(slot.stage);
                continue;
            }
            let operation = self.mix.draw(account.tenant, account.is_editor, &mut rng);
            let from = if late <= TIMER { Instant::now() } else { due };
            let outcome = self.send(user, account, &operation, slot, from).await;
            tell_goose(user, number, &outcome);
            self.tallies().record(outcome);
        }
        Ok(())
    }

    async fn send(&self, user: &GooseUser, account: &Account, operation: &Operation, slot: Slot, from: Instant) -> Outcome {
        let request = self.request(&user.client, account, operation);
        let (cache, error) = match receive(request, operation.is_query).await {
            Ok(cache) => (cache.filter(|_| operation.is_query), None),
            Err(error) => (None, Some(error)),
        };
        Outcome { stage: slot.stage, document: operation.document, latency: from.elapsed(), cache, error }
    }

    fn request(&self, client: &reqwest::Client, account: &Account, operation: &Operation) -> reqwest::RequestBuilder {
        client
            .post(format!("{}/graphql", self.url))
            .header("content-type", "application/json")
            .header("accept", "application/graphql-response+json")
            .bearer_auth(&account.api_key)
            .body(operation.body.clone())
    }

    fn tallies(&self) -> std::sync::MutexGuard<'_, Tallies> {
        // A panic elsewhere leaves counters that are still counters.
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends and reads to the last byte. The error is a sentence without what differs from request to request.
async fn receive(request: reqwest::RequestBuilder, is_query: bool) -> Result<Option<Cache>, String> {
    let without_url = |error: reqwest::Error| format!("{:#}", anyhow::Error::from(error.without_url()));
    let response = request.send().await.map_err(without_url)?;
    let status = response.status();
    let cache = response.headers().get("x-cache").and_then(|value| Cache::parse(value.to_str().ok()?));
    let body = response.bytes().await.map_err(without_url)?;
    // Quotes within texts are escaped, so this can be nothing but the field of an answer.
    if !status.is_success() || memmem::find(&body, b"\"errors\":").is_some() {
        return Err(format!("{status}: {}", beginning(&body)));
    }
    if !is_query && memmem::find(&body, b"\"userErrors\":[]").is_none() {
        return Err(format!("refused: {}", beginning(&body)));
    }
    Ok(cache)
}

fn beginning(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(200).collect()
}

fn configuration(url: &str, users: usize, report: Option<PathBuf>) -> Result<GooseConfiguration> {
    let mut configuration = GooseConfiguration::default();
    configuration.host = url.to_owned();
    configuration.users = Some(users);
    // All within a second or a few, whatever their number.
    configuration.hatch_rate = Some(users.to_string());
    // Of a scenario that is a whole life.
    configuration.iterations = 1;
    configuration.quiet = 1;
    configuration.no_telnet = true;
    configuration.no_websocket = true;
    // There is only the one transaction, and it takes as long as the run.
    configuration.no_transaction_metrics = true;
    configuration.no_scenario_metrics = true;
    match report {
        Some(report) => configuration.report_file = vec![report.to_str().context("the report's name is not UTF-8")?.to_owned()],
        None => configuration.no_metrics = true,
    }
    Ok(configuration)
}

/// For goose's report: its own requests could not begin before they are sent.
fn tell_goose(user: &GooseUser, number: usize, outcome: &Outcome) {
    let Some(channel) = &user.metrics_channel else { return };
    let raw = GooseRawRequest { method: GooseMethod::Post, url: "/graphql".to_owned(), headers: Vec::new(), body: String::new() };
    let metric = GooseRequestMetric {
        elapsed: u64::try_from(user.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        scenario_index: 0,
        scenario_name: "Catalog".to_owned(),
        transaction_index: "0".to_owned(),
        transaction_name: "timetable".to_owned(),
        raw,
        name: outcome.document.to_owned(),
        final_url: "/graphql".to_owned(),
        redirected: false,
        response_time: u64::try_from(outcome.latency.as_millis()).unwrap_or(u64::MAX),
        status_code: if outcome.error.is_none() { 200 } else { 0 },
        success: outcome.error.is_none(),
        update: false,
        user: number,
        error: outcome.error.clone().unwrap_or_default(),
        coordinated_omission_elapsed: 0,
        user_cadence: 0,
    };
    // goose is gone only when the run ends before its time; what was counted here counts all the same.
    let _ended = channel.send(GooseMetric::Request(Box::new(metric)));
}
