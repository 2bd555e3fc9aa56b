//! The limits of this machine that the API's speed is held against.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use mdl_loadtests::floor::{log, script, serve};

/// As in mdl-api: a bare handler is to have what the API has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The limits of this machine that the API's speed is held against.
#[derive(Parser)]
#[command(name = "mdl-floor", version)]
enum Command {
    /// Answer every request with the same bytes, from an axum handler that does nothing else.
    Serve {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:8099")]
        address: SocketAddr,
        /// The file with the bytes.
        #[arg(long)]
        body: PathBuf,
    },
    /// Print a pgbench script with the statements that one request sent.
    ///
    /// PostgreSQL must have logged them with log_line_prefix 'mdl-floor %p ' and log_statement 'all'. Of two requests of the same
    /// shape, what differs is made anew in each transaction: ids, and the key that is named.
    Pgbench {
        /// What was logged of a request.
        log: PathBuf,
        /// What was logged of a second request of the same shape.
        second: Option<PathBuf>,
        /// The key that the first request had and the second had not.
        #[arg(long, requires_all = ["key_expression", "second"])]
        key: Option<String>,
        /// What gives another key for each `:n`, an expression of SQL.
        #[arg(long, requires = "key")]
        key_expression: Option<String>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Command::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mdl-floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve { address, body } => {
            let body = std::fs::read(&body).with_context(|| format!("cannot read {}", body.display()))?;
            serve::serve(address, body).await
        }
        Command::Pgbench { log, second, key, key_expression } => {
            let first = statements(&log)?;
            let second = second.as_deref().map(statements).transpose()?;
            let key = key.zip(key_expression).map(|(sent, expression)| script::Key { sent, expression });
            let script = script::script(&first, second.as_deref(), key.as_ref())?;
            std::io::stdout().write_all(script.as_bytes()).context("cannot write the script")
        }
    }
}

fn statements(path: &Path) -> Result<Vec<log::Statement>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    log::statements(&text).with_context(|| path.display().to_string())
}
