//! Whether and how answers are made before somebody asks for them.

use std::fmt;

use url::Url;

#[derive(Clone, clap::Args)]
#[command(next_help_heading = "Cache warming")]
pub struct WarmingConfig {
    /// At least 32 characters that api and worker share: with them the worker may have answers made and kept, and read none.
    /// Without them nothing is warmed, and what is asked is not counted
    #[arg(id = "warm_secret", long = "warm-secret", env = "MDL_WARM_SECRET", hide_env_values = true, value_parser = secret)]
    pub secret: Option<String>,
    /// Where the worker reaches each instance of the api (http://10.0.0.5:8080); comma-separated. One address for all of them
    /// warms what they share in Redis, and the memory of one
    #[arg(id = "warm_api_urls", long = "warm-api-urls", env = "MDL_WARM_API_URLS", value_delimiter = ',')]
    pub api_urls: Vec<Url>,
    /// Operations of each tenant that are warmed: those that were used most lately
    #[arg(id = "warm_operations", long = "warm-operations", env = "MDL_WARM_OPERATIONS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub operations: u32,
    /// Requests that warming sends to an api at once
    #[arg(id = "warm_concurrency", long = "warm-concurrency", env = "MDL_WARM_CONCURRENCY", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub concurrency: u32,
    /// Milliseconds that an answer may take: after a slower one the api counts as busy, and is left alone until the next time
    #[arg(id = "warm_busy_milliseconds", long = "warm-busy-milliseconds", env = "MDL_WARM_BUSY_MILLISECONDS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=30_000))]
    pub busy_milliseconds: u64,
    /// Entries that an import has to change for a warming to follow it
    #[arg(
        id = "warm_after_import_entries",
        long = "warm-after-import-entries",
        env = "MDL_WARM_AFTER_IMPORT_ENTRIES",
        default_value_t = 100
    )]
    pub after_import_entries: u32,
}

impl fmt::Debug for WarmingConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WarmingConfig").field("api_urls", &self.api_urls).finish_non_exhaustive()
    }
}

/// Short ones can be guessed.
fn secret(text: &str) -> Result<String, String> {
    if text.len() >= 32 { Ok(text.to_owned()) } else { Err("it needs at least 32 characters: openssl rand -hex 32".to_owned()) }
}
