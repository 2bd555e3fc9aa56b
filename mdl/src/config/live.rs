//! Who may listen to events, and how many at once. Counted in each process.

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Subscriptions")]
pub struct LiveConfig {
    /// Operations that may run at once on one websocket
    #[arg(id = "socket_operations", long = "socket-operations", env = "MDL_SOCKET_OPERATIONS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub socket_operations: u32,
    /// Websockets and event streams that one user or API key may have open at once
    #[arg(id = "live_connections_per_user", long = "live-connections-per-user", env = "MDL_LIVE_CONNECTIONS_PER_USER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_per_user: u32,
    /// Websockets and event streams that one tenant may have open at once
    #[arg(id = "live_connections_per_tenant", long = "live-connections-per-tenant", env = "MDL_LIVE_CONNECTIONS_PER_TENANT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_per_tenant: u32,
    /// Seconds that a websocket may take to say who it is
    #[arg(id = "socket_init_seconds", long = "socket-init-seconds", env = "MDL_SOCKET_INIT_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub socket_init_seconds: u64,
    /// Seconds between two signs of life on a connection without news, and that a client may take for what it is sent
    #[arg(id = "live_ping_seconds", long = "live-ping-seconds", env = "MDL_LIVE_PING_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub ping_seconds: u64,
}
