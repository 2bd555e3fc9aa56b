//! How long events are kept.

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Events")]
pub struct EventsConfig {
    /// Days that events can be asked for after they happened, by subscribers that come back and for replays to webhooks
    #[arg(id = "event_retention_days", long = "event-retention-days", env = "MDL_EVENT_RETENTION_DAYS", default_value_t = 30, value_parser = clap::value_parser!(i32).range(1..=3650))]
    pub retention_days: i32,
}
