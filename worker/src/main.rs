//! `mdl-worker`: background jobs.

use std::process::ExitCode;
use std::time::Duration;

use mdl::config::{self, Config};
use mdl::{App, instruments, output, telemetry};
use mdl_worker::cli::{Cli, Command};
use mdl_worker::{Stop, jobs, ops, start};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// Parsed entries are many small values that move between threads: the system's allocator spends a third of the
/// time on their locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let parsed = config::parse_from::<Cli, _, _>(std::env::args_os());
    let Cli { command, run: settings } = parsed.unwrap_or_else(|error| error.exit());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Fails only when a provider is installed already, and then there is one.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let work = async |config| run(config).await.map(|()| ExitCode::SUCCESS);
    let result = runtime.block_on(async {
        match command {
            None => work(settings.config).await,
            Some(Command::Run(settings)) => work(settings.config).await,
            Some(command) => ask(command).await,
        }
    });
    // A handler that blocks its thread must not keep the program alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(code) => match output::failure() {
            None => code,
            Some(failure) => {
                eprintln!("{failure}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what an operator asked for, and says what goes wrong meanwhile.
async fn ask(command: Command) -> anyhow::Result<ExitCode> {
    let said = telemetry::say_on_stderr()?;
    match command.ask().await {
        // It was logged, with more about it: nobody needs it twice.
        Err(error) if said.has(&format!("{error:#}")) => Ok(ExitCode::FAILURE),
        done => done,
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    let _telemetry = telemetry::init(&config.telemetry, "mdl-worker")?;
    let metrics = instruments::install()?;
    let app = App::new(config)?;
    let listener = ops::bind(&app).await?;
    let registry = jobs::registry();
    let served: Vec<_> =
        registry.queues().iter().map(|queue| format!("{queue} ({})", registry.kinds_of(queue).join(", "))).collect();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        ops = %app.config.worker.ops_addr,
        "Serving {} with {} jobs at once in each queue",
        if served.is_empty() { "no queue".to_owned() } else { served.join(", ") },
        app.config.worker.concurrency,
    );

    let stop = Stop::default();
    stop_on_signals(stop.clone())?;
    let serving = tokio::spawn(ops::serve(app.clone(), listener, metrics));
    start::database(&app, &stop.gently).await;
    let versions = app.versions.clone();
    let result = match stop.gently.is_cancelled() {
        true => Ok(()),
        false => mdl_worker::run(app, registry, stop).await,
    };
    versions.settle(LAST_NEWS).await;
    serving.abort();
    if result.is_ok() {
        info!("Stopped");
    }
    result
}

/// How long the last writes may take to become known to other processes.
const LAST_NEWS: Duration = Duration::from_secs(2);

/// The first signal stops gently, the second at once.
fn stop_on_signals(stop: Stop) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for (token, sentence) in [
            (stop.gently, "Stopping: taking no more jobs, and waiting for those that run. Once more to stop at once"),
            (stop.now, "Stopping at once"),
        ] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            info!("{sentence}");
            token.cancel();
        }
    });
    Ok(())
}
