//! `pg_dump` and `pg_restore`, as child processes that end with us.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio_postgres::config::{Host, SslMode};
use tokio_util::task::AbortOnDropHandle;

use crate::config::BackupConfig;
use crate::error::{Error, Result};

/// Most bytes of what a tool complains of that are kept.
const MOST_COMPLAINTS: u64 = 8 * 1024;

/// A tool did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{tool} failed: {complaint}")]
struct Failed {
    tool: &'static str,
    complaint: String,
}

/// A dump on its way.
pub struct Dump {
    pub output: ChildStdout,
    running: Running,
}

/// A restore that takes a dump.
pub struct Restore {
    input: Option<ChildStdin>,
    running: Running,
}

/// Killed when dropped.
struct Running {
    tool: &'static str,
    child: Child,
    complaints: AbortOnDropHandle<String>,
}

impl Dump {
    /// Dumps the database in this snapshot, in PostgreSQL's custom format.
    pub async fn start(config: &BackupConfig, source: &tokio_postgres::Config, snapshot: &str) -> Result<Self> {
        let mut command = command(config, "pg_dump", source);
        command.args(["--format=custom", "--lock-wait-timeout=60s"]).arg(format!("--snapshot={snapshot}"));
        if version(config, "pg_dump").await? >= 16 {
            command.arg("--compress=zstd:3");
        }
        let mut running = Running::start("pg_dump", command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let output = running.child.stdout.take().ok_or_else(|| Error::internal("pg_dump has no output"))?;
        Ok(Self { output, running })
    }

    /// Waits for its end, once its output has been read.
    pub async fn finish(self) -> Result<()> {
        drop(self.output);
        self.running.finish().await
    }
}

/// Whose the restored objects are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// As in the dump, with all privileges.
    AsDumped,
    /// The connecting role's; privileges are left out.
    Mine,
}

impl Restore {
    /// Restores into this database, which must be empty. The first error ends it.
    pub fn start(config: &BackupConfig, target: &tokio_postgres::Config, ownership: Ownership) -> Result<Self> {
        let mut command = command(config, "pg_restore", target);
        command.args(["--format=custom", "--exit-on-error", "--dbname"]).arg(target.get_dbname().unwrap_or_default());
        if ownership == Ownership::Mine {
            command.args(["--no-owner", "--no-acl"]);
        }
        // What is not durable until the end costs nothing: if the server dies, the restore begins again.
        command.env("PGOPTIONS", "-c synchronous_commit=off -c statement_timeout=0");
        let mut running = Running::start("pg_restore", command.stdin(Stdio::piped()).stdout(Stdio::null()))?;
        let input = running.child.stdin.take();
        Ok(Self { input, running })
    }

    /// Gives it more of the dump. That it does not take any more is told by [`Restore::finish`].
    pub async fn write(&mut self, bytes: &[u8]) {
        if let Some(input) = &mut self.input
            && input.write_all(bytes).await.is_err()
        {
            self.input = None;
        }
    }

    /// That was all; waits until it is restored.
    pub async fn finish(mut self) -> Result<()> {
        drop(self.input.take());
        self.running.finish().await
    }
}

impl Running {
    fn start(tool: &'static str, command: &mut Command) -> Result<Self> {
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().map_err(|error| cannot_start(tool, &error))?;
        let stderr = child.stderr.take().ok_or_else(|| Error::internal("a tool has no stderr"))?;
        Ok(Self { tool, child, complaints: AbortOnDropHandle::new(tokio::spawn(listen(stderr))) })
    }

    async fn finish(mut self) -> Result<()> {
        let status = self.child.wait().await.map_err(Error::internal)?;
        if status.success() {
            return Ok(());
        }
        let said = self.complaints.await.map_err(Error::internal)?;
        let complaint = if said.trim().is_empty() { status.to_string() } else { one_line(&said, self.tool) };
        Err(Error::internal(Failed { tool: self.tool, complaint }))
    }
}

/// Reads all, so that the tool is not held up, and keeps the beginning.
async fn listen(mut stderr: ChildStderr) -> String {
    let mut said = Vec::new();
    // What it says on the way to its end is of no use if it cannot be read.
    let _kept = (&mut stderr).take(MOST_COMPLAINTS).read_to_end(&mut said).await;
    let _rest = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&said).into_owned()
}

fn one_line(said: &str, tool: &str) -> String {
    let prefix = format!("{tool}: ");
    let lines: Vec<_> =
        said.lines().map(|line| line.trim().trim_start_matches(&prefix)).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

/// The tool with this server as its own. The address is in the environment, which other users of the machine cannot read.
fn command(config: &BackupConfig, tool: &'static str, server: &tokio_postgres::Config) -> Command {
    let mut command = Command::new(path(config, tool));
    for variable in ["PGHOSTADDR", "PGSERVICE", "PGPASSWORD", "PGOPTIONS", "PGSSLMODE"] {
        command.env_remove(variable);
    }
    let hosts: Vec<_> = server
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let ports: Vec<_> = server.get_ports().iter().map(u16::to_string).collect();
    let mut set = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            command.env(name, value);
        }
    };
    set("PGHOST", Some(hosts.join(",")));
    set("PGPORT", Some(ports.join(",")));
    set("PGUSER", server.get_user().map(str::to_owned));
    set("PGDATABASE", server.get_dbname().map(str::to_owned));
    set("PGPASSWORD", server.get_password().map(|password| String::from_utf8_lossy(password).into_owned()));
    set("PGAPPNAME", Some(format!("mdl {tool}")));
    set("PGCLIENTENCODING", Some("UTF8".to_owned()));
    set("PGSSLMODE", matches!(server.get_ssl_mode(), SslMode::Require).then(|| "require".to_owned()));
    command.arg("--no-password");
    command
}

fn path(config: &BackupConfig, tool: &str) -> std::path::PathBuf {
    config.tools_dir.as_ref().map_or_else(|| tool.into(), |folder| folder.join(tool))
}

/// The major version of a tool.
async fn version(config: &BackupConfig, tool: &'static str) -> Result<u32> {
    let output = Command::new(path(config, tool)).arg("--version").output().await.map_err(|error| cannot_start(tool, &error))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = said.split(' ').find_map(|word| word.split(['.', 'b', 'r', 'd']).next()?.parse().ok());
    number.ok_or_else(|| Error::internal(format!("{tool} --version says {said:?}")))
}

fn cannot_start(tool: &str, error: &std::io::Error) -> Error {
    super::unequipped(format!(
        "Cannot start {tool}: {error}. Install PostgreSQL's client programs, or say with MDL_BACKUP_TOOLS_DIR where they are"
    ))
}
