//! The servers behind us: PostgreSQL, Redis, the file storage.

use std::fmt;

use url::Url;

#[derive(Clone, clap::Args)]
#[command(next_help_heading = "PostgreSQL")]
pub struct DatabaseConfig {
    /// The database, as the role mdl_app, which owns nothing: postgres://mdl_app:…@host/mdl
    #[arg(
        id = "database_url",
        long = "database-url",
        env = "DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://mdl_app@127.0.0.1:5432/mdl"
    )]
    pub url: String,
    /// A streaming replica of the database, or several behind one address, as mdl_app: queries of the api read there once it has
    /// replayed what they must see. Without it the primary serves all reads
    #[arg(id = "database_read_url", long = "database-read-url", env = "DATABASE_READ_URL", hide_env_values = true)]
    pub read_url: Option<String>,
    /// The same database as its owner mdl_owner; only migrations use it
    #[arg(id = "database_owner_url", long = "database-owner-url", env = "DATABASE_OWNER_URL", hide_env_values = true)]
    pub owner_url: Option<String>,
    /// Most connections of one process. Too few: requests wait for one; too many: PostgreSQL spends its time switching
    #[arg(id = "database_pool_size", long = "database-pool-size", env = "DATABASE_POOL_SIZE", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub pool_size: u32,
    /// Seconds that a request waits for a free connection before it is answered UNAVAILABLE
    #[arg(
        id = "database_pool_wait_seconds",
        long = "database-pool-wait-seconds",
        env = "DATABASE_POOL_WAIT_SECONDS",
        default_value_t = 5
    )]
    pub pool_wait_seconds: u64,
    /// Seconds after which PostgreSQL ends a statement; imports set their own
    #[arg(
        id = "database_statement_timeout_seconds",
        long = "database-statement-timeout-seconds",
        env = "DATABASE_STATEMENT_TIMEOUT_SECONDS",
        default_value_t = 30
    )]
    pub statement_timeout_seconds: u64,
    /// Milliseconds after which a statement is logged as slow, with its text and the operation's name
    #[arg(
        id = "database_slow_statement_milliseconds",
        long = "database-slow-statement-milliseconds",
        env = "DATABASE_SLOW_STATEMENT_MILLISECONDS",
        default_value_t = 500
    )]
    pub slow_statement_milliseconds: u64,
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URLs hold passwords.
        f.debug_struct("DatabaseConfig").field("pool_size", &self.pool_size).finish_non_exhaustive()
    }
}

#[derive(Clone, clap::Args)]
#[command(next_help_heading = "Redis")]
pub struct RedisConfig {
    /// Redis, which carries job ids and caches: redis://:password@host:6379/0
    #[arg(
        id = "redis_url",
        long = "redis-url",
        env = "REDIS_URL",
        hide_env_values = true,
        default_value = "redis://127.0.0.1:6379/0"
    )]
    pub url: Url,
    /// What every key and channel starts with; give each deployment on a shared Redis its own
    #[arg(id = "redis_prefix", long = "redis-prefix", env = "MDL_REDIS_PREFIX", default_value = "mdl")]
    pub prefix: String,
    /// Most connections of one process
    #[arg(id = "redis_pool_size", long = "redis-pool-size", env = "MDL_REDIS_POOL_SIZE", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pool_size: u32,
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "File storage")]
pub struct StorageConfig {
    /// Where uploads are kept: file:///directory, or s3://bucket/prefix. api and worker must see the same
    #[arg(id = "storage_url", long = "storage-url", env = "MDL_STORAGE_URL", default_value = "file:///var/lib/mdl")]
    pub url: Url,
    /// Endpoint of an S3-compatible store other than AWS
    #[arg(id = "storage_endpoint", long = "storage-endpoint", env = "MDL_STORAGE_ENDPOINT")]
    pub endpoint: Option<Url>,
    /// Region of the bucket
    #[arg(id = "storage_region", long = "storage-region", env = "MDL_STORAGE_REGION", default_value = "us-east-1")]
    pub region: String,
    /// Access key id for the bucket
    #[arg(
        id = "storage_access_key_id",
        long = "storage-access-key-id",
        env = "MDL_STORAGE_ACCESS_KEY_ID",
        hide_env_values = true
    )]
    pub access_key_id: Option<String>,
    /// Secret access key for the bucket
    #[arg(
        id = "storage_secret_access_key",
        long = "storage-secret-access-key",
        env = "MDL_STORAGE_SECRET_ACCESS_KEY",
        hide_env_values = true
    )]
    pub secret_access_key: Option<String>,
}

impl StorageConfig {
    /// As options of the object_store crate; only those that its store understands have an effect.
    pub(crate) fn options(&self) -> Vec<(String, String)> {
        object_store_options(
            &self.region,
            self.endpoint.as_ref(),
            self.access_key_id.as_deref(),
            self.secret_access_key.as_deref(),
        )
    }
}

/// What the object_store crate calls these.
pub(super) fn object_store_options(
    region: &str,
    endpoint: Option<&Url>,
    access_key_id: Option<&str>,
    secret_access_key: Option<&str>,
) -> Vec<(String, String)> {
    let mut options = vec![("region".to_owned(), region.to_owned())];
    let mut add = |name: &str, value: Option<String>| options.extend(value.map(|value| (name.to_owned(), value)));
    add("endpoint", endpoint.map(Url::to_string));
    add("allow_http", endpoint.map(|url| (url.scheme() == "http").to_string()));
    add("access_key_id", access_key_id.map(str::to_owned));
    add("secret_access_key", secret_access_key.map(str::to_owned));
    options
}
