//! PostgreSQL servers that one test has for itself: one that is written to, and replicas of it that follow.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use url::Url;

use crate::servers::free_port;
use crate::{root, variable};

/// Whose servers they are when the tests run as root, which PostgreSQL refuses to be.
const SERVER_USER: &str = "postgres";

/// A server, stopped and deleted at the end.
pub struct PrivatePostgres {
    folder: tempfile::TempDir,
    port: u16,
}

impl PrivatePostgres {
    /// One with the roles and the empty database of `ops/roles.sql`.
    pub fn start() -> Self {
        let server = Self::new();
        let data = server.data();
        run(server
            .program("initdb")
            .args(["-U", "postgres", "--auth=trust", "--locale=C", "--encoding=UTF8", "--no-sync", "-D"])
            .arg(&data));
        server.begin();
        let roles = std::fs::read(root().join("ops/roles.sql")).expect("ops/roles.sql");
        let file = server.folder.path().join("roles.sql");
        std::fs::write(&file, roles).expect("a file in the server's folder");
        run(Command::new(bin().join("psql")).args(["-X", "-q", "-f"]).arg(&file).arg(server.url("postgres").as_str()));
        server
    }

    /// Another server that has everything this one has, and follows it.
    pub fn replica(&self) -> Self {
        let server = Self::new();
        let data = server.data();
        let mut backup = server.program("pg_basebackup");
        run(backup.args(["-R", "--checkpoint=fast", "--no-sync", "-D"]).arg(&data).args(["-d", self.url("postgres").as_str()]));
        server.begin();
        server
    }

    /// The address of a database, for the superuser.
    pub fn url(&self, database: &str) -> Url {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port).parse().expect("a URL")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it as a power cut would.
    pub fn stop(&self) {
        run(self.program("pg_ctl").args(["-s", "-w", "-m", "immediate", "stop", "-D"]).arg(self.data()));
    }

    /// Starts it again after [`PrivatePostgres::stop`].
    pub fn begin(&self) {
        let data = self.data();
        let log = self.folder.path().join("log");
        let options = format!("-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off", self.port);
        let mut start = self.program("pg_ctl");
        run(start.args(["-s", "-w", "-t", "60", "start", "-D"]).arg(&data).arg("-l").arg(&log).arg("-o").arg(options));
    }

    /// Runs statements as the superuser.
    pub async fn execute(&self, statements: &str) {
        let (client, connection) =
            tokio_postgres::connect(self.url("postgres").as_str(), tokio_postgres::NoTls).await.expect("it runs");
        let driver = tokio::spawn(connection);
        client.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
        drop(client);
        driver.await.expect("the connection ends").expect("without an error");
    }

    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        if is_root() {
            run(Command::new("chown").arg(SERVER_USER).arg(folder.path()));
        }
        Self { folder, port: free_port() }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A program of PostgreSQL, as whoever the server belongs to.
    fn program(&self, name: &str) -> Command {
        let path = bin().join(name);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", SERVER_USER, "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir(self.folder.path());
        command
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        // The test may have stopped it.
        let mut stop = self.program("pg_ctl");
        stop.args(["-s", "-w", "-m", "immediate", "stop", "-D"]).arg(self.data());
        let _stopped = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// Runs a program that must succeed. Its output goes to a file: a server that it starts would keep a pipe open.
fn run(command: &mut Command) {
    let output = tempfile::NamedTempFile::new().expect("a file");
    let (out, err) = (output.reopen().expect("the same file"), output.reopen().expect("the same file"));
    let status = command.stdin(Stdio::null()).stdout(out).stderr(err).status();
    let status = status.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = std::fs::read_to_string(output.path()).unwrap_or_default();
    assert!(status.success(), "{command:?}: {status}\n{said}");
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id");
    output.stdout == b"0\n"
}

/// Where the programs of PostgreSQL are: where `initdb` on the path leads to, or the newest where Debian puts them.
fn bin() -> PathBuf {
    let path = variable("PATH").unwrap_or_default();
    let initdb = path.split(':').find_map(|folder| Path::new(folder).join("initdb").canonicalize().ok());
    if let Some(folder) = initdb.as_deref().and_then(Path::parent) {
        return folder.to_owned();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let version = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    let version = version.expect("PostgreSQL's server programs, which ops/dev test installs");
    PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))
}
