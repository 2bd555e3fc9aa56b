use url::Url;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Logs and traces")]
pub struct TelemetryConfig {
    /// What is logged, as tracing's filter directives: info, mdl=debug,tower_http=warn
    #[arg(id = "log", long = "log", env = "MDL_LOG", default_value = "info", value_parser = directives)]
    pub log: String,
    /// How: pretty for people, json for machines, auto for pretty on a terminal
    #[arg(id = "log_format", long = "log-format", env = "MDL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
    /// Where traces go (OTLP over HTTP, e.g. http://127.0.0.1:4318); nowhere when unset
    #[arg(id = "otlp_endpoint", long = "otlp-endpoint", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<Url>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Auto,
    Pretty,
    Json,
}

fn directives(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
