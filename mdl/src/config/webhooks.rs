//! How webhooks are sent, and to where.

use std::time::Duration;

use crate::outbound::Allowed;
use crate::sealing::SealingKey;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Webhooks")]
pub struct WebhookConfig {
    /// Keys that encrypt the secrets of webhooks in the database, each 32 random bytes in Base64; comma-separated. The first
    /// encrypts, all of them decrypt. Without one, no endpoint can be made. Api and worker need the same
    #[arg(id = "webhook_keys", long = "webhook-keys", env = "MDL_WEBHOOK_KEYS", value_delimiter = ',', hide_env_values = true)]
    pub keys: Vec<SealingKey>,
    /// Receivers that would be refused otherwise, comma-separated: host:port, by http too, or a network such as 10.1.0.0/16. For
    /// development, and for receivers inside
    #[arg(id = "webhook_allow", long = "webhook-allow", env = "MDL_WEBHOOK_ALLOW", value_delimiter = ',')]
    pub allow: Vec<Allowed>,
    /// Endpoints that one tenant may have
    #[arg(id = "webhook_max_endpoints", long = "webhook-max-endpoints", env = "MDL_WEBHOOK_MAX_ENDPOINTS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_endpoints: u32,
    /// Seconds that a receiver may take to answer
    #[arg(id = "webhook_timeout_seconds", long = "webhook-timeout-seconds", env = "MDL_WEBHOOK_TIMEOUT_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub timeout_seconds: u64,
    /// Seconds from each failed attempt to the next, comma-separated; after the last of them there is no other. A tenth is left
    /// to chance
    #[arg(
        id = "webhook_retry_seconds",
        long = "webhook-retry-seconds",
        env = "MDL_WEBHOOK_RETRY_SECONDS",
        value_delimiter = ',',
        default_value = "5,300,1800,7200,18000,36000,50400,72000,86400"
    )]
    pub retry_seconds: Vec<u64>,
    /// Hours that an endpoint may fail without a success in between, before it is disabled
    #[arg(
        id = "webhook_disable_after_hours",
        long = "webhook-disable-after-hours",
        env = "MDL_WEBHOOK_DISABLE_AFTER_HOURS",
        default_value_t = 120
    )]
    pub disable_after_hours: u32,
    /// Requests to receivers that a worker has under way at once, with those that it has claimed and is about to send
    #[arg(id = "webhook_concurrency", long = "webhook-concurrency", env = "MDL_WEBHOOK_CONCURRENCY", default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub concurrency: u32,
    /// Requests to one endpoint that a worker has under way at once; one that fails gets one at a time
    #[arg(id = "webhook_endpoint_concurrency", long = "webhook-endpoint-concurrency", env = "MDL_WEBHOOK_ENDPOINT_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub endpoint_concurrency: u32,
    /// Days that finished deliveries and their attempts are kept
    #[arg(
        id = "webhook_retention_days",
        long = "webhook-retention-days",
        env = "MDL_WEBHOOK_RETENTION_DAYS",
        default_value_t = 30
    )]
    pub retention_days: u32,
}

impl WebhookConfig {
    /// How long one attempt may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// For how long a claimed delivery is nobody else's: an attempt, and time to write down what came of it.
    pub fn lease(&self) -> Duration {
        2 * self.timeout() + Duration::from_secs(30)
    }
}
