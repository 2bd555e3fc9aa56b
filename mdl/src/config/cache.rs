#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Response cache")]
pub struct CacheConfig {
    /// Bytes of answers that one api process keeps in memory; 0 turns the cache off, in Redis too
    #[arg(id = "cache_bytes", long = "cache-bytes", env = "MDL_CACHE_BYTES", default_value_t = 67_108_864)]
    pub bytes: u64,
    /// Seconds that an answer is kept at most. Changes are noticed at once whatever this is; it bounds what is left of a
    /// writer that dies between its commit and the news of it
    #[arg(id = "cache_ttl_seconds", long = "cache-ttl-seconds", env = "MDL_CACHE_TTL_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub ttl_seconds: u64,
}
