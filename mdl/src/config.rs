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

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue};

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
        T: Into<OsString> + Clone,
    {
        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            config: Config,
        }
        parse_from::<Program, I, T>(arguments).map(|program| program.config)
    }
}

/// What a program was started with: its arguments, and the environment. An empty variable counts as not set, as `MDL_CORS_ORIGINS=` in a
/// .env file is meant; an empty flag does not.
pub fn parse_from<P, I, T>(arguments: I) -> Result<P, clap::Error>
where
    P: clap::Parser,
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let mut command = without_blanks(P::command());
    let mut matches = command.try_get_matches_from_mut(arguments).map_err(name_variable)?;
    P::from_arg_matches_mut(&mut matches).map_err(|error| name_variable(error.format(&mut command)))
}

/// The same command, which does not look at the variables that are empty.
#[expect(clippy::disallowed_methods, reason = "this is where settings are read")]
fn without_blanks(command: clap::Command) -> clap::Command {
    let is_blank = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|argument| match argument.get_env() {
        Some(name) if is_blank(name) => argument.env(None::<&'static str>),
        _ => argument,
    });
    command.mut_subcommands(without_blanks)
}

/// The same error, with the environment variable of the setting that it is about: clap names only the flag. What may be a secret is not
/// repeated.
fn name_variable(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg).cloned() else { return error };
    let command = <Config as clap::Args>::augment_args(clap::Command::new("settings"));
    let long = flag.split(' ').next().and_then(|flag| flag.strip_prefix("--"));
    let Some(setting) = command.get_arguments().find(|argument| long.is_some() && argument.get_long() == long) else {
        return error;
    };
    if let Some(variable) = setting.get_env() {
        let named = format!("{} ({flag})", variable.display());
        error.insert(ContextKind::InvalidArg, ContextValue::String(named));
    }
    if setting.is_hide_env_values_set() {
        error.insert(ContextKind::InvalidValue, ContextValue::String("…".to_owned()));
    }
    error
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

#[cfg(test)]
mod tests {
    use super::Config;

    fn said(argument: &str) -> String {
        Config::from_arguments(["test", argument]).expect_err(argument).to_string()
    }

    #[test]
    fn a_refused_value_is_told_with_its_variable() {
        for (argument, told) in [
            ("--http-addr=here", "invalid value 'here' for 'MDL_HTTP_ADDR (--http-addr <"),
            ("--http-addr=", "for 'MDL_HTTP_ADDR (--http-addr <"),
            ("--database-pool-size=1", "invalid value '1' for 'DATABASE_POOL_SIZE (--database-pool-size <"),
            ("--log-format=xml", "invalid value 'xml' for 'MDL_LOG_FORMAT (--log-format <"),
        ] {
            let said = said(argument);
            assert!(said.contains(told), "{argument}: {said}");
        }
    }

    #[test]
    fn a_refused_secret_is_not_repeated() {
        for (argument, variable) in [
            ("--redis-url=:secret@host", "REDIS_URL"),
            ("--warm-secret=secret", "MDL_WARM_SECRET"),
            ("--webhook-keys=secret", "MDL_WEBHOOK_KEYS"),
        ] {
            let said = said(argument);
            assert!(said.contains(&format!("'…' for '{variable} (--")) && !said.contains("'secret"), "{argument}: {said}");
            assert!(!said.contains(":secret@"), "{said}");
        }
    }
}
