//! What both programs tell Prometheus of themselves as processes.

use mdl::instruments::{ALL, Kind};
use mdl_tests::servers::{ApiProcess, WorkerProcess};
use mdl_tests::{TestApp, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn both_programs_tell_of_their_processes() {
    let app = TestApp::start().await;
    let api = ApiProcess::start(&app, &[]).await;
    let worker = WorkerProcess::start(&app);
    let pages = [
        ("mdl-api", eventually("the api tells", async || api.instruments().await).await),
        ("mdl-worker", eventually("the worker tells", async || worker.instruments().await).await),
    ];
    for (program, page) in pages {
        for (name, kind, meaning) in ALL.iter().filter(|(name, ..)| name.starts_with("process_")) {
            let kind = if *kind == Kind::Counter { "counter" } else { "gauge" };
            assert!(page.contains(&format!("# TYPE {name} {kind}\n")), "{program} {name}: {page}");
            assert!(page.contains(&format!("# HELP {name} {meaning}\n")), "{program} {name}: {page}");
        }
        let told = page.lines().filter(|line| line.starts_with("process_")).filter_map(|line| line.split(' ').next());
        for name in told {
            assert!(ALL.iter().any(|(known, ..)| *known == name), "{program} tells of {name}, which is not in instruments.rs");
        }
        let value = |name: &str| -> f64 {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{program} {name}")).parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6, "{program}");
        assert!(value("process_open_fds") > 3.0, "{program}");
        let age = chrono::Utc::now().timestamp() as f64 - value("process_start_time_seconds");
        assert!((-5.0..600.0).contains(&age), "{program} is {age} s old");
    }
}
