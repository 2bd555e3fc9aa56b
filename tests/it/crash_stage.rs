//! What the crash suite plays on: an API and workers as programs of their own, with servers that no other test uses.
//!
//! `MDL_TEST_CRASH_SECONDS` is for how long things go wrong, `MDL_TEST_CRASH_SEED` repeats what went wrong when. See
//! docs/operations/outages.md.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use diesel::sql_query;
use diesel::sql_types::{Integer, Timestamptz, Uuid};
use diesel_async::AsyncPgConnection;
use mdl::actor::Role;
use mdl::config::Config;
use mdl::ids::TenantId;
use mdl::jobs::Job;
use mdl::{App, Error, instruments};
use mdl_tests::postgres::PrivatePostgres;
use mdl_tests::servers::{ApiProcess, PrivateRedis, WorkerProcess};
use mdl_tests::{Client, Receiver, TestApp, TestDatabase, variable};
use mdl_worker::Stop;
use mdl_worker::jobs::{Done, JobContext};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::webhooks::endpoint;

/// Jobs of a queue that a worker runs at once.
pub const CONCURRENCY: i64 = 4;
/// For how long a worker may be silent before its jobs are taken away.
pub const LEASE: Duration = Duration::from_secs(2);

/// A tenant, who writes in it, and who is told of it.
pub struct Company {
    pub id: TenantId,
    /// Of the API's process, with an API key.
    pub client: Client,
    pub receiver: Receiver,
}

/// Everything, and what chance decides. The programs end before their servers.
pub struct Stage {
    pub api: ApiProcess,
    pub workers: Vec<WorkerProcess>,
    pub companies: Vec<Company>,
    pub app: Arc<TestApp>,
    pub redis: PrivateRedis,
    pub postgres: Option<PrivatePostgres>,
    pub random: StdRng,
    pub seed: u64,
    until: Instant,
}

impl Stage {
    /// With so many workers, on the PostgreSQL of all tests.
    pub async fn set(workers: usize) -> Self {
        Self::set_on(TestDatabase::migrated().await, None, workers).await
    }

    /// With a PostgreSQL of its own.
    pub async fn set_with_postgres(workers: usize) -> Self {
        let postgres = PrivatePostgres::start();
        let database = TestDatabase::migrated_on(postgres.url("postgres")).await;
        Self::set_on(database, Some(postgres), workers).await
    }

    async fn set_on(database: TestDatabase, postgres: Option<PrivatePostgres>, workers: usize) -> Self {
        let seed = variable("MDL_TEST_CRASH_SEED").map_or_else(rand::random, |seed| seed.parse().unwrap());
        println!("MDL_TEST_CRASH_SEED={seed}");
        let redis = PrivateRedis::start().await;
        let (lease, concurrency) = (LEASE.as_secs().to_string(), CONCURRENCY.to_string());
        let settings = [
            ("REDIS_URL", redis.url()),
            ("MDL_WORKER_LEASE_SECONDS", lease),
            ("MDL_WORKER_CONCURRENCY", concurrency),
            ("MDL_RATE_LIMIT_PER_SECOND", "100000".to_owned()),
            ("MDL_RATE_LIMIT_BURST", "100000".to_owned()),
            // The shortest, since the deliveries that a dead worker had taken wait for twice that and half a minute.
            ("MDL_WEBHOOK_TIMEOUT_SECONDS", "1".to_owned()),
            ("MDL_WEBHOOK_RETRY_SECONDS", ["1"; 20].join(",")),
        ];
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let app = TestApp::start_on(database, &settings).await;
        app.database
            .execute(
                "CREATE TABLE runs (
                     job uuid NOT NULL, attempt integer NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(),
                     worker_clock timestamptz NOT NULL
                 );
                 GRANT SELECT, INSERT ON runs TO mdl_app",
            )
            .await;
        let other = app.other_tenant().await;
        let api = ApiProcess::start(&app, &[]).await;
        let mut companies = Vec::new();
        for tenant in [&app.tenant, &other] {
            let admin = app.client_of(&tenant.slug, Role::Admin).await;
            let scopes = json!({ "name": "writer", "scopes": ["CATALOG_READ", "CATALOG_WRITE"] });
            let key = admin.mutate("createApiKey", scopes, "key").await.payload()["key"].as_str().unwrap().to_owned();
            // One in twenty is refused, and comes again.
            let receiver = Receiver::answering(|number, _| {
                let status = if number % 20 == 7 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NO_CONTENT };
                axum::response::IntoResponse::into_response(status)
            })
            .await;
            endpoint(&admin, &receiver.url).await;
            companies.push(Company { id: tenant.id, client: admin.at(&api.base()).with(key), receiver });
        }
        let workers = (0..workers).map(|_| worker(&app, &[])).collect();
        let seconds = variable("MDL_TEST_CRASH_SECONDS").map_or(8, |seconds| seconds.parse().unwrap());
        let until = Instant::now() + Duration::from_secs(seconds);
        let random = StdRng::seed_from_u64(seed);
        Self { api, workers, companies, app: Arc::new(app), redis, postgres, random, seed, until }
    }

    /// After a moment, whether things are to go wrong once more.
    pub async fn goes_on(&mut self) -> bool {
        self.moment().await;
        Instant::now() < self.until
    }

    /// Lets things go well for a while.
    pub async fn moment(&mut self) {
        let moment = Duration::from_millis(self.random.random_range(300..900));
        tokio::time::sleep(moment).await;
    }
}

/// Starts a worker with these settings besides those of the app.
pub fn worker(app: &TestApp, settings: &[(&str, &str)]) -> WorkerProcess {
    let mut environment = app.environment();
    environment.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let mut program = Command::new(std::env::current_exe().unwrap());
    WorkerProcess::start_as(program.args(["--exact", "crash_stage::a_worker", "--ignored", "--nocapture"]), &environment)
}

/// `mdl-worker` with one more kind of job.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "is a worker, for the crash suite"]
async fn a_worker() {
    let _first = rustls::crypto::ring::default_provider().install_default();
    let app = App::new(Config::from_arguments(["mdl-worker"]).unwrap()).unwrap();
    let (listener, metrics) = (mdl_worker::ops::bind(&app).await.unwrap(), instruments::install().unwrap());
    tokio::spawn(mdl_worker::ops::serve(app.clone(), listener, metrics));
    let stop = Stop::default();
    mdl_worker::start::database(&app, &stop.gently).await;
    mdl_worker::run(app, mdl_worker::jobs::registry().with(run), stop).await.unwrap();
}

/// A job that notes each of its runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deed {
    pub millis: u64,
    /// The first attempt fails.
    pub fails: bool,
}

impl Job for Deed {
    const KIND: &'static str = "deed";
    const QUEUE: &'static str = "deeds";
    const MAX_ATTEMPTS: i32 = 100;
    const TIMEOUT: Duration = Duration::from_secs(20);

    fn backoff(_: i32) -> Duration {
        Duration::from_millis(500)
    }
}

async fn run(deed: Deed, ctx: JobContext) -> mdl::Result<Done> {
    tokio::time::sleep(Duration::from_millis(deed.millis)).await;
    if deed.fails && ctx.attempt == 1 {
        return Err(Error::internal("as the test wanted"));
    }
    let tx = ctx.app.db.begin(ctx.tenant).await?;
    let mut conn: &AsyncPgConnection = &tx;
    let note = sql_query("INSERT INTO runs (job, attempt, worker_clock) VALUES ($1, $2, $3)")
        .bind::<Uuid, _>(ctx.id)
        .bind::<Integer, _>(ctx.attempt)
        .bind::<Timestamptz, _>(Utc::now());
    diesel_async::RunQueryDsl::execute(note, &mut conn).await?;
    ctx.commit(tx).await?;
    Ok(Done::Finished)
}
