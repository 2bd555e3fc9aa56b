//! Every setting, and the only place that reads the environment. Both programs take the same settings, as environment
//! variables or as flags of the same meaning; `--help` and docs/configuration.md list them.

mod auth;
mod backup;
mod cache;
mod check;
mod documents;
mod events;
mod http;
mod imports;
mod live;
mod schedules;
mod servers;
mod telemetry;
mod warming;
mod webhooks;
mod worker;

pub use auth::AuthConfig;
pub use backup::BackupConfig;
pub use cache::CacheConfig;
pub use check::postgres_address;
pub use documents::{DocumentsConfig, DocumentsMode};
pub use events::EventsConfig;
pub use http::{GraphqlConfig, HttpConfig};
pub use imports::ImportConfig;
pub use live::LiveConfig;
pub use schedules::{ScheduleConfig, ScheduleOverride};
pub use servers::{DatabaseConfig, RedisConfig, StorageConfig};
pub use telemetry::{LogFormat, TelemetryConfig};
pub use warming::WarmingConfig;
pub use webhooks::WebhookConfig;
pub use worker::WorkerConfig;

/// All settings, by topic.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    #[command(flatten)]
    pub database: DatabaseConfig,
    #[command(flatten)]
    pub redis: RedisConfig,
    #[command(flatten)]
    pub storage: StorageConfig,
    #[command(flatten)]
    pub auth: AuthConfig,
    #[command(flatten)]
    pub http: HttpConfig,
    #[command(flatten)]
    pub graphql: GraphqlConfig,
    #[command(flatten)]
    pub documents: DocumentsConfig,
    #[command(flatten)]
    pub cache: CacheConfig,
    #[command(flatten)]
    pub events: EventsConfig,
    #[command(flatten)]
    pub warming: WarmingConfig,
    #[command(flatten)]
    pub live: LiveConfig,
    #[command(flatten)]
    pub imports: ImportConfig,
    #[command(flatten)]
    pub webhooks: WebhookConfig,
    #[command(flatten)]
    pub worker: WorkerConfig,
    #[command(flatten)]
    pub schedules: ScheduleConfig,
    #[command(flatten)]
    pub backup: BackupConfig,
    #[command(flatten)]
    pub telemetry: TelemetryConfig,
}

impl Config {
    /// The settings of a program started with these arguments and no others; tests change what they need.
    pub fn from_arguments<I, T>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            config: Config,
        }
        <Program as clap::Parser>::try_parse_from(arguments).map(|program| program.config)
    }
}

/// Every setting as a table in Markdown: the environment variable, its default, what it means.
pub fn reference() -> String {
    let command = <Config as clap::Args>::augment_args(clap::Command::new("settings"));
    let mut text = String::new();
    let mut topic = None;
    for argument in command.get_arguments() {
        if argument.get_help_heading() != topic {
            topic = argument.get_help_heading();
            text += &format!("\n## {}\n\n| variable | default | meaning |\n|---|---|---|\n", topic.unwrap_or_default());
        }
        let variable = argument.get_env().unwrap_or_default().display().to_string();
        let default: Vec<_> = argument.get_default_values().iter().map(|value| format!("`{}`", value.display())).collect();
        let meaning = argument.get_help().map(ToString::to_string).unwrap_or_default();
        text += &format!("| `{variable}` | {} | {meaning} |\n", default.join(", "));
    }
    text
}
