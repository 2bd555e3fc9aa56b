//! The worker's row among the workers, for operators. Nothing goes by it: jobs are rescued by their leases.

use mdl::jobs::workers::{self, HEARTBEAT, SignOfLife};
use mdl::telemetry;
use tokio_util::sync::CancellationToken;

use crate::Shared;
use crate::link::Outage;

/// Writes it every few seconds, and a last time when the worker has stopped.
pub async fn keep(shared: Shared, all_done: CancellationToken) {
    let (host, queues) = (telemetry::host_name(), shared.queues());
    let mut outage = Outage::of("write this worker's row");
    loop {
        let stopped = all_done.is_cancelled();
        let sign = SignOfLife {
            name: &shared.name,
            host: &host,
            pid: i64::from(std::process::id()),
            version: env!("CARGO_PKG_VERSION"),
            queues: &queues,
            running: i32::try_from(shared.leases.count()).unwrap_or(i32::MAX),
            memory_bytes: resident_bytes(),
        };
        match workers::beat(&shared.db, &sign, stopped).await {
            Ok(()) => outage.over(),
            Err(error) => outage.failed(&error),
        }
        if stopped {
            return;
        }
        let _done = all_done.run_until_cancelled(tokio::time::sleep(HEARTBEAT)).await;
    }
}

/// Memory of this process, where the system tells as Linux does.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
