//! A database, a Redis prefix and a kind of job for the tests of the worker.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use mdl::config::Config;
use mdl::ids::{JobId, TenantId};
use mdl::jobs::ledger::Progress;
use mdl::jobs::{self, Enqueue, Job, JobRow, JobState};
use mdl::{Actor, App, Error, migrations};
use mdl_worker::Stop;
use mdl_worker::jobs::{Done, JobContext, Registry};
use mdl_worker::schedule::TABLE;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use url::Url;

/// The servers of the tests: a PostgreSQL as its superuser, and a Redis.
#[expect(clippy::disallowed_methods, reason = "where the test servers are is no setting of the programs")]
fn servers() -> (Url, Url) {
    let url = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set")).parse().unwrap();
    (url("MDL_TEST_DATABASE_URL"), url("MDL_TEST_REDIS_URL"))
}

/// A new, migrated database with one tenant, and what the tests of the worker want to know of it.
pub async fn test_app(settings: &[&str]) -> Bench {
    let (admin_url, redis) = servers();
    let name = format!("mdl_it_jobs_{}", uuid::Uuid::new_v4().simple());
    let admin = connect(&admin_url).await;
    admin.batch_execute(&format!("CREATE DATABASE {name} OWNER mdl_owner")).await.unwrap();
    let url = |user: &str| {
        let mut url = admin_url.clone();
        url.set_username(user).unwrap();
        url.set_path(&name);
        url
    };
    let admin = connect(&url(admin_url.username())).await;
    admin
        .batch_execute(&format!(
            "ALTER DEFAULT PRIVILEGES FOR ROLE mdl_owner GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO mdl_app;
             ALTER DEFAULT PRIVILEGES FOR ROLE mdl_owner GRANT USAGE, SELECT ON SEQUENCES TO mdl_app;
             ALTER SCHEMA public OWNER TO mdl_owner;
             GRANT USAGE ON SCHEMA public TO mdl_app;
             GRANT USAGE, CREATE ON SCHEMA public TO mdl_search;
             GRANT TEMPORARY ON DATABASE {name} TO mdl_app"
        ))
        .await
        .unwrap();
    migrations::run(url("mdl_owner").as_str()).await.unwrap();
    let tenant = TenantId::new();
    admin
        .batch_execute(&format!(
            "INSERT INTO tenants (id, slug, name) VALUES ('{tenant}', 'probe', 'Probe');
             CREATE TABLE effects (job uuid NOT NULL, attempt integer NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
             GRANT SELECT, INSERT ON effects TO mdl_app"
        ))
        .await
        .unwrap();
    let mut arguments = vec!["test".to_owned()];
    for (name, value) in [("database-url", url("mdl_app").as_str()), ("redis-url", redis.as_str()), ("redis-prefix", &name)] {
        arguments.push(format!("--{name}={value}"));
    }
    arguments.extend(["--worker-lease-seconds=30", "--worker-grace-seconds=1", "--storage-url=file:///tmp"].map(str::to_owned));
    // What runs by the clock would be among the jobs that a test counts.
    let off: Vec<_> = TABLE.iter().map(|line| format!("{}=off", line.name)).collect();
    arguments.push(format!("--schedules={}", off.join(";")));
    // The later setting of two wins.
    for setting in settings {
        let name = setting.split('=').next().unwrap();
        arguments.retain(|argument| argument.split('=').next() != Some(name));
        arguments.push((*setting).to_owned());
    }
    Bench { app: app(&arguments), tenant, admin, database: name, admin_url, arguments }
}

fn app(arguments: &[String]) -> App {
    App::new(Config::from_arguments(arguments).unwrap()).unwrap()
}

async fn connect(url: &Url) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url.as_str(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// What a test of the worker works with.
pub struct Bench {
    pub app: App,
    pub tenant: TenantId,
    /// A superuser in the test's database.
    pub admin: tokio_postgres::Client,
    pub database: String,
    admin_url: Url,
    arguments: Vec<String>,
}

impl Bench {
    pub async fn enqueue(&self, job: &impl Job) -> JobId {
        self.enqueue_as(job, &Enqueue::default()).await.unwrap()
    }

    pub async fn enqueue_as(&self, job: &impl Job, how: &Enqueue) -> Option<JobId> {
        let tx = self.app.db.begin(self.tenant).await.unwrap();
        let id = jobs::enqueue(&tx, &Actor::system(self.tenant), job, how).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// Many jobs at once, in the order of their number.
    pub async fn enqueue_many(&self, count: usize, job: &Probe) {
        let tx = self.app.db.begin(self.tenant).await.unwrap();
        for _ in 0..count {
            jobs::enqueue(&tx, &Actor::system(self.tenant), job, &Enqueue::default()).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    pub async fn job(&self, id: JobId) -> JobRow {
        // The connection may be one that a test has cut.
        for _ in 0..20 {
            if let Ok(tx) = self.app.db.begin(self.tenant).await
                && let Ok(job) = jobs::by_id(&tx, self.tenant, id).await
            {
                return job.unwrap();
            }
        }
        panic!("PostgreSQL does not answer");
    }

    /// How many jobs are in this state.
    pub async fn count(&self, state: JobState) -> i64 {
        self.number(&format!("SELECT count(*) FROM jobs WHERE state = '{}'", state.as_str())).await
    }

    /// The one number that this query gives.
    pub async fn number(&self, query: &str) -> i64 {
        self.admin.query_one(query, &[]).await.unwrap().get(0)
    }

    /// Waits until this many jobs are in this state; answers how long that took.
    pub async fn until_count(&self, state: JobState, count: i64) -> Duration {
        self.until(async || self.count(state).await >= count).await
    }

    /// Waits until a job is in this state.
    pub async fn until_job(&self, id: JobId, state: JobState) -> JobRow {
        self.until(async || self.job(id).await.state == state).await;
        self.job(id).await
    }

    /// Waits until something is so; answers how long that took.
    pub async fn until(&self, reached: impl AsyncFn() -> bool) -> Duration {
        let start = Instant::now();
        while !reached().await {
            if start.elapsed() > Duration::from_secs(180) {
                let rows = self.admin.query("SELECT state || ' ' || count(*) FROM jobs GROUP BY state", &[]).await.unwrap();
                panic!("not reached in three minutes: {:?}", rows.iter().map(|row| row.get(0)).collect::<Vec<String>>());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        start.elapsed()
    }

    /// Starts a worker in this process.
    pub fn worker(&self) -> TestWorker {
        let stop = Stop::default();
        TestWorker { running: tokio::spawn(mdl_worker::run(app(&self.arguments), registry(), stop.clone())), stop }
    }

    /// Starts a worker as a process of its own, which can be killed.
    pub fn worker_process(&self) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "jobs_bench::worker_process", "--ignored"])
            .env("MDL_TEST_WORKER", self.arguments.join("\n"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Its database, as the superuser.
    pub fn superuser_url(&self) -> Url {
        let mut url = self.admin_url.clone();
        url.set_path(&self.database);
        url
    }

    /// Whether PostgreSQL accepts new connections to the test's database.
    pub async fn allow_connections(&self, allow: bool) {
        self.outside(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS {allow}", self.database)).await;
    }

    /// Drops the database.
    pub async fn end(self) {
        self.outside(&format!("DROP DATABASE {} WITH (FORCE)", self.database)).await;
    }

    /// Runs a statement that cannot be run in the database it is about.
    async fn outside(&self, statement: &str) {
        connect(&self.admin_url).await.batch_execute(statement).await.unwrap();
    }
}

pub struct TestWorker {
    pub stop: Stop,
    running: JoinHandle<anyhow::Result<()>>,
}

impl TestWorker {
    /// Stops it gently, and waits.
    pub async fn stop(self) {
        self.stop.gently.cancel();
        self.running.await.unwrap().unwrap();
    }

    pub fn has_ended(&self) -> bool {
        self.running.is_finished()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "is a worker, for tests that want to kill one"]
#[expect(clippy::disallowed_methods, reason = "set by Bench::worker_process")]
async fn worker_process() {
    let arguments: Vec<_> = std::env::var("MDL_TEST_WORKER").unwrap().lines().map(str::to_owned).collect();
    mdl_worker::run(app(&arguments), registry(), Stop::default()).await.unwrap();
}

/// A job that does what the test wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Probe {
    /// Take this long, then write an effect.
    Take {
        millis: u64,
    },
    /// Fail until this attempt, for a reason that may pass.
    FailUntil {
        attempt: i32,
    },
    /// Fail for a reason that will not pass.
    Refuse,
    Panic,
    /// Never end.
    Hang,
    /// Hold the thread, so that nothing can end it from outside.
    Block {
        millis: u64,
    },
    /// Is not to be done before this time.
    NotBefore {
        time: DateTime<Utc>,
    },
}

impl Job for Probe {
    const KIND: &'static str = "probe";
    const QUEUE: &'static str = "probes";
    const MAX_ATTEMPTS: i32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(2);

    fn backoff(attempt: i32) -> Duration {
        Duration::from_millis(100) * attempt.unsigned_abs()
    }
}

/// A job that says that it has begun, and waits until it may end: by files in a folder.
#[derive(Debug, Serialize, Deserialize)]
pub struct Gated {
    folder: PathBuf,
    name: String,
}

impl Job for Gated {
    const KIND: &'static str = "gated";
    const QUEUE: &'static str = "probes";
    const MAX_ATTEMPTS: i32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(120);
}

impl Gated {
    /// One of the jobs that a test tells apart by their names.
    pub fn new(folder: &tempfile::TempDir, name: &str) -> Self {
        Self { folder: folder.path().to_owned(), name: name.to_owned() }
    }

    pub fn has_begun(&self) -> bool {
        self.file("begun").exists()
    }

    /// Lets it end, and every attempt after this one.
    pub fn open(&self) {
        std::fs::write(self.file("open"), "").unwrap();
    }

    fn file(&self, says: &str) -> PathBuf {
        self.folder.join(format!("{}.{says}", self.name))
    }
}

/// A job that tells how far it is and waits for its cancellation, for longer than a test takes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Obedient;

impl Job for Obedient {
    const KIND: &'static str = "obedient";
    const QUEUE: &'static str = "probes";
    const MAX_ATTEMPTS: i32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(120);
}

/// A job whose first attempt fails; the time of its second does not come while a test runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failing;

impl Job for Failing {
    const KIND: &'static str = "failing";
    const QUEUE: &'static str = "probes";
    const MAX_ATTEMPTS: i32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(2);

    fn backoff(_: i32) -> Duration {
        Duration::from_secs(3600)
    }
}

pub fn registry() -> Registry {
    Registry::default().with(probe).with(gated).with(obedient).with(failing)
}

async fn failing(_: Failing, _: JobContext) -> mdl::Result<Done> {
    Err(Error::internal("not yet"))
}

async fn obedient(_: Obedient, ctx: JobContext) -> mdl::Result<Done> {
    ctx.progress(&Progress { done: 3, total: Some(7), message: Some("waiting".to_owned()) }).await?;
    ctx.cancelled().cancelled().await;
    Ok(Done::Cancelled)
}

async fn gated(job: Gated, ctx: JobContext) -> mdl::Result<Done> {
    std::fs::write(job.file("begun"), "").map_err(Error::internal)?;
    while !job.file("open").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    write_effect(&ctx).await
}

async fn probe(job: Probe, ctx: JobContext) -> mdl::Result<Done> {
    match job {
        Probe::Take { millis } => {
            if millis > 0 {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            return write_effect(&ctx).await;
        }
        Probe::FailUntil { attempt } if ctx.attempt < attempt => return Err(Error::internal("not yet\0")),
        Probe::FailUntil { .. } => {}
        Probe::Refuse => return Err(Error::not_found("thing", "x")),
        Probe::Panic => panic!("as the test wanted"),
        Probe::Hang => std::future::pending().await,
        Probe::Block { millis } => std::thread::sleep(Duration::from_millis(millis)),
        Probe::NotBefore { time } if Utc::now() < time => return Ok(Done::Snooze(Duration::from_millis(100))),
        Probe::NotBefore { .. } => {}
    }
    Ok(Done::Finished)
}

async fn write_effect(ctx: &JobContext) -> mdl::Result<Done> {
    let tx = ctx.app.db.begin(ctx.tenant).await?;
    effect(&tx, ctx).await?;
    ctx.commit(tx).await?;
    Ok(Done::Finished)
}

async fn effect(mut conn: &diesel_async::AsyncPgConnection, ctx: &JobContext) -> mdl::Result<()> {
    let insert = diesel::sql_query("INSERT INTO effects (job, attempt) VALUES ($1, $2)")
        .bind::<diesel::sql_types::Uuid, _>(ctx.id)
        .bind::<diesel::sql_types::Integer, _>(ctx.attempt);
    diesel_async::RunQueryDsl::execute(insert, &mut conn).await?;
    Ok(())
}
