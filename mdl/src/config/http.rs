use std::net::SocketAddr;
use std::path::PathBuf;

use url::Url;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpConfig {
    /// Where the api listens
    #[arg(id = "http_addr", long = "http-addr", env = "MDL_HTTP_ADDR", default_value = "127.0.0.1:8080")]
    pub addr: SocketAddr,
    /// Where the api serves /metrics, for operators only
    #[arg(id = "ops_addr", long = "ops-addr", env = "MDL_OPS_ADDR", default_value = "127.0.0.1:9090")]
    pub ops_addr: SocketAddr,
    /// The address people use; with https the api sends Strict-Transport-Security
    #[arg(id = "public_url", long = "public-url", env = "MDL_PUBLIC_URL")]
    pub public_url: Option<Url>,
    /// Origins whose pages may call the api (CORS); comma-separated
    #[arg(id = "cors_origins", long = "cors-origins", env = "MDL_CORS_ORIGINS", value_delimiter = ',', value_parser = origin)]
    pub cors_origins: Vec<String>,
    /// Seconds after which a request is given up
    #[arg(id = "request_timeout_seconds", long = "request-timeout-seconds", env = "MDL_REQUEST_TIMEOUT_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub request_timeout_seconds: u64,
    /// Seconds in which a client must take something of what it is sent; then its connection is closed. One that is sent nothing stays open
    #[arg(id = "write_timeout_seconds", long = "write-timeout-seconds", env = "MDL_WRITE_TIMEOUT_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub write_timeout_seconds: u64,
    /// Longest body of a GraphQL request, in bytes; uploads have their own limit
    #[arg(id = "max_body_bytes", long = "max-body-bytes", env = "MDL_MAX_BODY_BYTES", default_value_t = 1_048_576)]
    pub max_body_bytes: usize,
    /// Requests per second that one user or API key, or an address without a credential, may send for long
    #[arg(id = "rate_limit_per_second", long = "rate-limit-per-second", env = "MDL_RATE_LIMIT_PER_SECOND", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate_limit_per_second: u32,
    /// Requests that one user or API key, or an address without a credential, may send at once
    #[arg(id = "rate_limit_burst", long = "rate-limit-burst", env = "MDL_RATE_LIMIT_BURST", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate_limit_burst: u32,
    /// Sign-in attempts per minute and address
    #[arg(id = "sign_in_limit_per_minute", long = "sign-in-limit-per-minute", env = "MDL_SIGN_IN_LIMIT_PER_MINUTE", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub sign_in_limit_per_minute: u32,
    /// Connections that may be open at once, websockets included; fewer when the process may not open as many files (ulimit -n).
    /// Others are closed at once
    #[arg(id = "max_connections", long = "max-connections", env = "MDL_MAX_CONNECTIONS", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// The same of one address, and at most half of all. Loopback addresses have no limit of their own, and none has with
    /// MDL_TRUST_FORWARDED_FOR
    #[arg(id = "max_connections_per_address", long = "max-connections-per-address", env = "MDL_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections_per_address: u32,
    /// Take the client's address from the last entry of X-Forwarded-For: only behind a proxy that sets it
    #[arg(id = "trust_forwarded_for", long = "trust-forwarded-for", env = "MDL_TRUST_FORWARDED_FOR", default_value_t = false, action = clap::ArgAction::Set)]
    pub trust_forwarded_for: bool,
    /// The folder that `npm run build` made in web/
    #[arg(id = "web_dir", long = "web-dir", env = "MDL_WEB_DIR", default_value = "web/dist")]
    pub web_dir: PathBuf,
    /// Bring the database to this version's schema at start (needs DATABASE_OWNER_URL)
    #[arg(id = "migrate_on_start", long = "migrate-on-start", env = "MDL_MIGRATE_ON_START", default_value_t = false, action = clap::ArgAction::Set)]
    pub migrate_on_start: bool,
    /// Seconds that running requests may still take when the api is told to stop
    #[arg(
        id = "shutdown_grace_seconds",
        long = "shutdown-grace-seconds",
        env = "MDL_SHUTDOWN_GRACE_SECONDS",
        default_value_t = 10
    )]
    pub shutdown_grace_seconds: u64,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "GraphQL limits")]
pub struct GraphqlConfig {
    /// Deepest nesting of an operation
    #[arg(id = "graphql_max_depth", long = "graphql-max-depth", env = "MDL_GRAPHQL_MAX_DEPTH", default_value_t = 15)]
    pub max_depth: usize,
    /// Greatest cost of an operation: its fields, times the page sizes above them
    #[arg(
        id = "graphql_max_complexity",
        long = "graphql-max-complexity",
        env = "MDL_GRAPHQL_MAX_COMPLEXITY",
        default_value_t = 50_000
    )]
    pub max_complexity: usize,
    /// Most aliases in an operation
    #[arg(id = "graphql_max_aliases", long = "graphql-max-aliases", env = "MDL_GRAPHQL_MAX_ALIASES", default_value_t = 30)]
    pub max_aliases: usize,
    /// Most tokens (names, punctuation, values) in a document
    #[arg(id = "graphql_max_tokens", long = "graphql-max-tokens", env = "MDL_GRAPHQL_MAX_TOKENS", default_value_t = 5_000)]
    pub max_tokens: usize,
    /// Most operations in one batched request
    #[arg(id = "graphql_max_batch", long = "graphql-max-batch", env = "MDL_GRAPHQL_MAX_BATCH", default_value_t = 10)]
    pub max_batch: usize,
    /// Answer introspection without a credential
    #[arg(id = "graphql_public_introspection", long = "graphql-public-introspection", env = "MDL_GRAPHQL_PUBLIC_INTROSPECTION", default_value_t = false, action = clap::ArgAction::Set)]
    pub public_introspection: bool,
}

/// An origin as browsers send it: scheme, host, and a port that is not the scheme's own.
fn origin(text: &str) -> Result<String, String> {
    let origin = text.parse().map(|url: Url| url.origin().ascii_serialization());
    origin.ok().filter(|origin| origin == text).ok_or_else(|| "an origin is like https://app.example.com, and no more".to_owned())
}

#[cfg(test)]
mod tests {
    use super::origin;

    #[test]
    fn origins() {
        for good in ["https://app.example.com", "http://localhost:3000", "http://127.0.0.1:5173"] {
            assert_eq!(origin(good).as_deref(), Ok(good));
        }
        for bad in ["*", "example.com", "https://example.com/", "https://example.com:443", "https://example.com/app", "null"] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
