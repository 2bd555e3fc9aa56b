//! Servers and programs that one test has for itself, to stop, flush and kill.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{TestApp, eventually, variable};

/// A Redis that no other test uses.
pub struct PrivateRedis {
    process: Child,
    port: u16,
    /// Where it saves, when it is told to.
    folder: tempfile::TempDir,
}

impl PrivateRedis {
    pub async fn start() -> Self {
        Self::on(free_port(), tempfile::tempdir().expect("a folder")).await
    }

    async fn on(port: u16, folder: tempfile::TempDir) -> Self {
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server, which ops/dev test installs");
        let redis = Self { process, port, folder };
        eventually("Redis answers", async || redis.command("PING").await.ok()).await;
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Forgets everything.
    pub async fn flush(&self) {
        self.command("FLUSHALL").await.expect("FLUSHALL");
    }

    /// Writes everything into a file, which [`PrivateRedis::restart`] begins with.
    pub async fn save(&self) {
        self.command("SAVE").await.expect("SAVE");
    }

    /// Kills the server and starts another in its place: with what was saved last, or empty.
    pub async fn restart(mut self) -> Self {
        self.stop();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder"));
        Self::on(self.port, folder).await
    }

    /// Freezes the server: connections stay open, and nothing is answered.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let told = Command::new("kill").args([signal, &self.process.id().to_string()]).status().expect("kill");
        assert!(told.success());
    }

    pub fn stop(&mut self) {
        self.process.kill().expect("Redis ends");
        self.process.wait().expect("Redis has ended");
    }

    /// Holds back every command of its clients for so long.
    pub async fn hold_back(&self, time: Duration) {
        self.command(&format!("CLIENT PAUSE {} ALL", time.as_millis())).await.expect("CLIENT PAUSE");
    }

    /// Refuses whatever would make it larger than so many bytes; 0 is no limit.
    pub async fn limit_memory(&self, bytes: u64) {
        self.command(&format!("CONFIG SET maxmemory-policy noeviction maxmemory {bytes}")).await.expect("CONFIG SET");
    }

    async fn command(&self, words: &str) -> redis::RedisResult<String> {
        let client = redis::Client::open(self.url())?;
        let mut conn = client.get_multiplexed_async_connection_with_config(&patient()).await?;
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap_or_default());
        command.arg(words.collect::<Vec<_>>()).query_async(&mut conn).await
    }
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        // It may have been stopped by the test.
        if self.process.kill().is_ok() {
            self.process.wait().expect("Redis has ended");
        }
    }
}

/// For connections to a Redis that may be slow to answer, as one on a busy disk is to `SAVE`.
pub fn patient() -> redis::AsyncConnectionConfig {
    redis::AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None)
}

/// The real worker program, as an operator runs it.
pub struct WorkerProcess {
    process: Child,
    ops_port: u16,
}

impl WorkerProcess {
    pub fn start(app: &TestApp) -> Self {
        Self::start_with(&app.environment())
    }

    /// With these settings.
    pub fn start_with(environment: &[(String, String)]) -> Self {
        Self::start_as(Command::new(binary("mdl-worker")).arg("run"), environment)
    }

    /// The same with another program that is a worker.
    pub fn start_as(program: &mut Command, environment: &[(String, String)]) -> Self {
        let ops_port = free_port();
        program.envs(environment.iter().cloned()).env("MDL_WORKER_OPS_ADDR", format!("127.0.0.1:{ops_port}"));
        let process = program.stdout(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{program:?}: {error}"));
        Self { process, ops_port }
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it is the one that publishes events, as its instruments say. One that only begins does not.
    pub async fn publishes(&self) -> bool {
        self.instruments().await.is_some_and(|page| page.lines().any(|line| line == "mdl_events_leader 1"))
    }

    /// What it tells Prometheus; `None` while it does not answer.
    pub async fn instruments(&self) -> Option<String> {
        instruments(self.ops_port).await
    }

    /// SIGSTOP: its connections stay open, and it does nothing.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT: it goes on where it was.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let told = Command::new("kill").args([signal, &self.process.id().to_string()]).status().expect("kill");
        assert!(told.success());
    }

    /// SIGKILL: no goodbye.
    pub fn kill(&mut self) {
        self.process.kill().expect("the worker ends");
        self.process.wait().expect("the worker has ended");
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        self.signal("-TERM");
        let status = self.process.wait().expect("the worker has ended");
        status.code()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.kill();
        }
    }
}

/// The real api program, on a port that it gets again when it is started anew.
pub struct ApiProcess {
    process: Child,
    port: u16,
    ops_port: u16,
    environment: Vec<(String, String)>,
}

impl ApiProcess {
    /// With these settings besides those of the app.
    pub async fn start(app: &TestApp, settings: &[(&str, &str)]) -> Self {
        let mut environment = app.environment();
        environment.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Self::on(free_port(), environment).await
    }

    async fn on(port: u16, environment: Vec<(String, String)>) -> Self {
        let ops_port = free_port();
        let process = Command::new(binary("mdl-api"))
            .arg("serve")
            .envs(environment.iter().cloned())
            .env("MDL_HTTP_ADDR", format!("127.0.0.1:{port}"))
            .env("MDL_OPS_ADDR", format!("127.0.0.1:{ops_port}"))
            .stdout(Stdio::null())
            .spawn()
            .expect("mdl-api, which cargo build --workspace --bins makes");
        let api = Self { process, port, ops_port, environment };
        let health = format!("{}/health", api.base());
        eventually("the api answers", async || reqwest::get(&health).await.ok()).await;
        api
    }

    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it tells Prometheus; `None` while it does not answer.
    pub async fn instruments(&self) -> Option<String> {
        instruments(self.ops_port).await
    }

    /// The memory that it has now.
    pub fn resident_kb(&self) -> u64 {
        memory_kb(self.process.id(), "VmRSS").expect("it runs")
    }

    /// SIGKILL, and another in its place.
    pub async fn kill_and_restart(mut self) -> Self {
        self.kill();
        self.restart().await
    }

    /// Another in the place of one that was killed.
    pub async fn restart(mut self) -> Self {
        let environment = std::mem::take(&mut self.environment);
        Self::on(self.port, environment).await
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let told = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().expect("kill");
        assert!(told.success());
    }

    /// Waits until it has ended by itself. Whether it ended well.
    pub async fn ended_well(mut self) -> bool {
        let waited = tokio::task::spawn_blocking(move || self.process.wait().expect("the api has ended"));
        waited.await.expect("waiting does not panic").success()
    }

    /// SIGKILL: nobody answers on its port.
    pub fn kill(&mut self) {
        self.process.kill().expect("the api ends");
        self.process.wait().expect("the api has ended");
    }
}

impl Drop for ApiProcess {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.kill();
        }
    }
}

async fn instruments(ops_port: u16) -> Option<String> {
    reqwest::get(format!("http://127.0.0.1:{ops_port}/metrics")).await.ok()?.text().await.ok()
}

/// A program of this workspace: built beside this test, or where `MDL_TEST_PROGRAMS` says.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let beside = test.parent().and_then(|deps| deps.parent()).expect("target/…/deps/");
    let path = variable("MDL_TEST_PROGRAMS").map_or_else(|| beside.to_owned(), PathBuf::from).join(name);
    assert!(path.exists(), "{} is missing: cargo build --workspace --bins", path.display());
    path
}

/// A loopback port that nobody listens on now, and that no other test gets while this process runs. It is none of those that
/// the system gives to whoever asks for any.
pub fn free_port() -> u16 {
    let folder = std::env::temp_dir().join("mdl-test-ports");
    std::fs::create_dir_all(&folder).expect("a folder for the locks of ports");
    loop {
        let port = rand::random_range(10_000..32_000);
        let lock = std::fs::File::create(folder.join(port.to_string())).expect("the lock of a port");
        if lock.try_lock().is_ok() && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            // Held until the process ends.
            std::mem::forget(lock);
            return port;
        }
    }
}

/// Memory of a process, as Linux tells it: `VmRSS`, what it holds, or `VmHWM`, the most that it ever held. `None` when it has ended.
pub fn memory_kb(process: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let size = status.lines().find_map(|line| line.strip_prefix(field))?;
    size.trim_start_matches(':').trim().strip_suffix(" kB")?.parse().ok()
}
