//! Every Prometheus name of both programs. (Operational counters are called instruments here: metrics are our product.)

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

pub const HTTP_REQUESTS: &str = "mdl_http_requests_total";
pub const HTTP_REQUEST_SECONDS: &str = "mdl_http_request_seconds";
pub const CONNECTIONS_REFUSED: &str = "mdl_connections_refused_total";
pub const GRAPHQL_OPERATIONS: &str = "mdl_graphql_operations_total";
pub const GRAPHQL_OPERATION_SECONDS: &str = "mdl_graphql_operation_seconds";
pub const DOCUMENTS: &str = "mdl_graphql_documents_total";
pub const DOCUMENT_PARSES: &str = "mdl_graphql_document_parses_total";
pub const DB_STATEMENTS: &str = "mdl_db_statements_total";
pub const DB_READ_SECONDS: &str = "mdl_db_read_seconds";
pub const DB_TRANSACTION_SECONDS: &str = "mdl_db_transaction_seconds";
pub const DB_POOL_WAIT_SECONDS: &str = "mdl_db_pool_wait_seconds";
pub const DB_POOL_CONNECTIONS: &str = "mdl_db_pool_connections";
pub const DB_REPLICA_READS: &str = "mdl_db_replica_reads_total";
pub const JOBS_FINISHED: &str = "mdl_jobs_finished_total";
pub const JOB_RUN_SECONDS: &str = "mdl_job_run_seconds";
pub const JOB_WAIT_SECONDS: &str = "mdl_job_wait_seconds";
pub const JOBS_RESCUED: &str = "mdl_jobs_rescued_total";
pub const JOBS_RUNNING: &str = "mdl_jobs_running";
pub const WEBHOOK_ATTEMPTS: &str = "mdl_webhook_attempts_total";
pub const WEBHOOK_ATTEMPT_SECONDS: &str = "mdl_webhook_attempt_seconds";
pub const WEBHOOK_WAIT_SECONDS: &str = "mdl_webhook_wait_seconds";
pub const WEBHOOK_ENDPOINTS: &str = "mdl_webhook_endpoints";
pub const WEBHOOK_BREAKERS_OPEN: &str = "mdl_webhook_breakers_open";
pub const OUTBOX_EVENTS: &str = "mdl_outbox_events";
pub const OUTBOX_OLDEST_SECONDS: &str = "mdl_outbox_oldest_seconds";
pub const EVENTS_PUBLISHED: &str = "mdl_events_published_total";
pub const EVENTS_LEADER: &str = "mdl_events_leader";
pub const SCHEDULE_TIMES: &str = "mdl_schedule_times_total";
pub const LIVE_CONNECTIONS: &str = "mdl_live_connections";
pub const LIVE_SUBSCRIPTIONS: &str = "mdl_live_subscriptions";
pub const LIVE_EVENTS: &str = "mdl_live_events_total";
pub const LIVE_SLOW: &str = "mdl_live_slow_total";
pub const IMPORT_ROWS: &str = "mdl_import_rows_total";
pub const SIGN_INS: &str = "mdl_sign_ins_total";
pub const RATE_LIMITED: &str = "mdl_rate_limited_total";
pub const CACHE_REQUESTS: &str = "mdl_cache_requests_total";
pub const CACHE_FILLS: &str = "mdl_cache_fills_total";
pub const CACHE_BYTES: &str = "mdl_cache_bytes";
pub const CACHE_BUMPS: &str = "mdl_cache_bumps_total";
pub const CACHE_BUMP_SECONDS: &str = "mdl_cache_bump_seconds";
pub const CACHE_LIVE: &str = "mdl_cache_live";
pub const BACKUPS: &str = "mdl_backups_total";
pub const BACKUP_SECONDS: &str = "mdl_backup_seconds";
pub const BACKUP_BYTES: &str = "mdl_backup_bytes";
pub const BACKUP_DEVIATION: &str = "mdl_backup_size_deviation_ratio";
pub const BACKUP_VERIFIED_AT: &str = "mdl_backup_last_verified_timestamp";
pub const BACKUP_OVERDUE: &str = "mdl_backup_overdue";
pub const WARMED: &str = "mdl_warmed_answers_total";
pub const WARM_SECONDS: &str = "mdl_warm_seconds";
// As Prometheus calls them for every program; `sample_process` sets them.
pub const PROCESS_CPU_SECONDS: &str = "process_cpu_seconds_total";
pub const PROCESS_RESIDENT_MEMORY_BYTES: &str = "process_resident_memory_bytes";
pub const PROCESS_VIRTUAL_MEMORY_BYTES: &str = "process_virtual_memory_bytes";
pub const PROCESS_VIRTUAL_MEMORY_MAX_BYTES: &str = "process_virtual_memory_max_bytes";
pub const PROCESS_OPEN_FDS: &str = "process_open_fds";
pub const PROCESS_MAX_FDS: &str = "process_max_fds";
pub const PROCESS_THREADS: &str = "process_threads";
pub const PROCESS_START_TIME_SECONDS: &str = "process_start_time_seconds";

/// Name, kind and meaning of each instrument, as `/metrics` and docs/operations/instruments.md show it.
pub const ALL: &[(&str, Kind, &str)] = &[
    (HTTP_REQUESTS, Kind::Counter, "HTTP requests by route, method and status"),
    (HTTP_REQUEST_SECONDS, Kind::Seconds, "Time from request to response, by route"),
    (CONNECTIONS_REFUSED, Kind::Counter, "Connections closed at once because there were too many, by limit (together, address)"),
    (GRAPHQL_OPERATIONS, Kind::Counter, "GraphQL operations by name, type and outcome (ok, error, rejected)"),
    (GRAPHQL_OPERATION_SECONDS, Kind::Seconds, "Time to execute an operation, by name"),
    (
        DOCUMENTS,
        Kind::Counter,
        "Documents of requests by source (inline, automatic, trusted) and outcome (found, missing, refused)",
    ),
    (DOCUMENT_PARSES, Kind::Counter, "Documents that were parsed, because they were not kept"),
    (DB_STATEMENTS, Kind::Counter, "SQL statements by outcome"),
    (DB_READ_SECONDS, Kind::Seconds, "Time of one read on an operation's snapshot"),
    (DB_TRANSACTION_SECONDS, Kind::Seconds, "Time from BEGIN to COMMIT of a write"),
    (DB_POOL_WAIT_SECONDS, Kind::Seconds, "Time waited for a connection of the pool"),
    (DB_POOL_CONNECTIONS, Kind::Gauge, "Connections of the pool by state (idle, used)"),
    (
        DB_REPLICA_READS,
        Kind::Counter,
        "Snapshots that may be taken on the read replica, by outcome (replica; or the primary, as the replica was behind or down, or what it needs unknown)",
    ),
    (JOBS_FINISHED, Kind::Counter, "Attempts by queue, kind and outcome (succeeded, failed, dead, cancelled, lost)"),
    (JOB_RUN_SECONDS, Kind::Seconds, "Time of one attempt, by kind"),
    (JOB_WAIT_SECONDS, Kind::Seconds, "Time from when a job was due to its start, by queue"),
    (JOBS_RESCUED, Kind::Counter, "Jobs whose lease ended or that Redis forgot, taken up again"),
    (JOBS_RUNNING, Kind::Gauge, "Jobs that this worker has claimed and not yet written the ends of, by queue"),
    (
        WEBHOOK_ATTEMPTS,
        Kind::Counter,
        "Attempts to deliver a webhook by outcome (delivered, retried, failed), and those that came to nothing (void)",
    ),
    (WEBHOOK_ATTEMPT_SECONDS, Kind::Seconds, "Time that receivers of webhooks take to answer"),
    (WEBHOOK_WAIT_SECONDS, Kind::Seconds, "Time from when a webhook was due to its attempt"),
    (WEBHOOK_ENDPOINTS, Kind::Gauge, "Webhook endpoints of all tenants by state (working, failing, disabled)"),
    (
        WEBHOOK_BREAKERS_OPEN,
        Kind::Gauge,
        "Hosts that this worker leaves alone because they answer no webhooks, those of each tenant by themselves",
    ),
    (OUTBOX_EVENTS, Kind::Gauge, "Events that are committed and not yet published, as the leading worker sees them"),
    (OUTBOX_OLDEST_SECONDS, Kind::Gauge, "Age of the oldest event that is not yet published, as the leading worker sees it"),
    (EVENTS_PUBLISHED, Kind::Counter, "Events published by this worker"),
    (EVENTS_LEADER, Kind::Gauge, "1 in the one worker that publishes events"),
    (SCHEDULE_TIMES, Kind::Counter, "Times of schedules by schedule and outcome (fired, skipped, missed)"),
    (LIVE_CONNECTIONS, Kind::Gauge, "Open connections of subscribers by transport (websocket, sse)"),
    (LIVE_SUBSCRIPTIONS, Kind::Gauge, "Running subscriptions"),
    (LIVE_EVENTS, Kind::Counter, "Answers sent to subscribers by transport (websocket, sse)"),
    (LIVE_SLOW, Kind::Counter, "Subscribers let go because they did not take their events in time"),
    (IMPORT_ROWS, Kind::Counter, "Imported entries by outcome (created, updated, unchanged, failed)"),
    (SIGN_INS, Kind::Counter, "Sign-in attempts by outcome (ok, refused)"),
    (RATE_LIMITED, Kind::Counter, "Requests refused by a rate limit, by limit"),
    (CACHE_REQUESTS, Kind::Counter, "Operations by where their answer came from (memory, redis, shared, miss, bypass)"),
    (CACHE_FILLS, Kind::Counter, "Answers made for the cache, by outcome (kept, errors, too_large)"),
    (CACHE_BYTES, Kind::Gauge, "Bytes of answers kept in memory"),
    (CACHE_BUMPS, Kind::Counter, "Attempts to tell Redis of a write (ok, failed), and commits that did not wait for it (late)"),
    (CACHE_BUMP_SECONDS, Kind::Seconds, "Time to tell Redis of a write"),
    (CACHE_LIVE, Kind::Gauge, "1 while changes elsewhere are heard of at once; at 0 answers are kept for a second at most"),
    (
        BACKUPS,
        Kind::Counter,
        "Backups by what happened (published, copied, verified, failed, copy_failed, verify_failed; abandoned: a dead one's dump was removed)",
    ),
    (BACKUP_SECONDS, Kind::Seconds, "Time of a backup's parts (dump, files, copy, verify)"),
    (BACKUP_BYTES, Kind::Gauge, "Bytes of the last backup of the database, as stored"),
    (
        BACKUP_DEVIATION,
        Kind::Gauge,
        "By what share the last backup is larger (or, negative, smaller) than the average of those before",
    ),
    (BACKUP_VERIFIED_AT, Kind::Gauge, "When the newest verified backup was made, in seconds since 1970; 0 when there is none"),
    (BACKUP_OVERDUE, Kind::Gauge, "1 when no backup has been verified for longer than MDL_BACKUP_MAX_AGE_HOURS"),
    (WARMED, Kind::Counter, "Operations that were to be warmed, by outcome (made, kept, refused, or left to a busy api)"),
    (WARM_SECONDS, Kind::Seconds, "Time to warm one api for one tenant"),
    (PROCESS_CPU_SECONDS, Kind::Counter, "Whole seconds of processor time of this process, in its own code and in the kernel's"),
    (PROCESS_RESIDENT_MEMORY_BYTES, Kind::Gauge, "Memory that this process has in use"),
    (PROCESS_VIRTUAL_MEMORY_BYTES, Kind::Gauge, "Address space that this process has taken"),
    (PROCESS_VIRTUAL_MEMORY_MAX_BYTES, Kind::Gauge, "Address space that it may take; 0 when nothing bounds it"),
    (PROCESS_OPEN_FDS, Kind::Gauge, "Files and connections that this process has open"),
    (PROCESS_MAX_FDS, Kind::Gauge, "Files and connections that it may have open; 0 when nothing bounds them"),
    (PROCESS_THREADS, Kind::Gauge, "Threads of this process"),
    (PROCESS_START_TIME_SECONDS, Kind::Gauge, "When this process was started, in seconds since 1970"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    /// A histogram of seconds.
    Seconds,
}

/// From half a millisecond, a fast read, to a minute, a long import batch.
const BUCKETS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Makes Prometheus the recorder of this process. Call once, before the first instrument is used.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    let handle =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), BUCKETS)?.install_recorder()?;
    for (name, kind, meaning) in ALL {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *meaning),
            Kind::Gauge => metrics::describe_gauge!(*name, *meaning),
            Kind::Seconds => metrics::describe_histogram!(*name, metrics::Unit::Seconds, *meaning),
        }
    }
    Ok(handle)
}

/// Reads what the system says of this process into the instruments named `process_…`. For each scrape.
pub fn sample_process() {
    Collector::default().collect();
}
