use std::net::SocketAddr;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Worker")]
pub struct WorkerConfig {
    /// Where the worker serves /health and /metrics, for operators only
    #[arg(id = "worker_ops_addr", long = "worker-ops-addr", env = "MDL_WORKER_OPS_ADDR", default_value = "127.0.0.1:9091")]
    pub ops_addr: SocketAddr,
    /// Jobs of one queue that a worker runs at once
    #[arg(id = "worker_concurrency", long = "worker-concurrency", env = "MDL_WORKER_CONCURRENCY", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub concurrency: u32,
    /// Seconds that a claimed job stays claimed without a sign of life. Longer: a dead worker's jobs wait longer;
    /// shorter: a stalled worker loses its jobs
    #[arg(id = "worker_lease_seconds", long = "worker-lease-seconds", env = "MDL_WORKER_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub lease_seconds: u64,
    /// Seconds that running jobs may still take when the worker is told to stop
    #[arg(id = "worker_grace_seconds", long = "worker-grace-seconds", env = "MDL_WORKER_GRACE_SECONDS", default_value_t = 20)]
    pub grace_seconds: u64,
    /// Job ids that wait in Redis for each queue; the others wait in PostgreSQL, in order of priority
    #[arg(id = "worker_queue_window", long = "worker-queue-window", env = "MDL_WORKER_QUEUE_WINDOW", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub queue_window: u32,
}
