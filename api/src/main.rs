use std::process::ExitCode;

use mdl::{config, output};
use mdl_api::cli::Cli;

/// Answers are many small values that live on several threads for a millisecond: the system's allocator spends a third of the
/// time on their locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Resolving a deeply nested answer calls deeply; the default of 2 MiB is close to that in debug builds.
const STACK_BYTES: usize = 8 << 20;

fn main() -> ExitCode {
    let cli = config::parse_from::<Cli, _, _>(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(cli.run()));
    match result {
        Ok(code) => match output::failure() {
            None => code,
            Some(failure) => {
                eprintln!("mdl-api: {failure}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("mdl-api: {error:#}");
            ExitCode::FAILURE
        }
    }
}
