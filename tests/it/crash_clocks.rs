//! Workers whose clocks are wrong.
#![cfg(target_os = "linux")]

use std::path::PathBuf;

use mdl::webhooks::message::TIMESTAMP_HEADER;
use mdl_tests::variable;

use crate::crash_stage::{Stage, worker};
use crate::crash_workload::{Workload, assert_whole};

#[tokio::test(flavor = "multi_thread")]
async fn crash_clocks_ten_minutes_off() {
    let library = libfaketime();
    let library = library.to_str().unwrap();
    let mut stage = Stage::set(0).await;
    for clock in ["+10m", "-10m"] {
        stage.workers.push(worker(&stage.app, &[("LD_PRELOAD", library), ("FAKETIME", clock), ("DONT_FAKE_MONOTONIC", "1")]));
    }
    let workload = Workload::start(&mut stage);
    while stage.goes_on().await {}
    let acknowledged = workload.end().await;
    assert_whole(&stage, acknowledged, 0).await;
    let database = &stage.app.database;
    let off = "SELECT count(DISTINCT round(extract(epoch FROM worker_clock - at) / 60)) FROM runs
               WHERE abs(extract(epoch FROM worker_clock - at)) BETWEEN 590 AND 610";
    assert_eq!(database.number(off).await, 2, "one is ahead, and one is behind");
    for message in stage.companies.iter().flat_map(|company| company.receiver.received()) {
        let arrived = (chrono::Utc::now() - message.at.elapsed()).timestamp();
        let age = arrived - message.header(TIMESTAMP_HEADER).parse::<i64>().unwrap();
        assert!((-5..120).contains(&age), "receivers refuse what is not of these minutes: {age} s");
    }
    assert_eq!(
        database.number("SELECT count(*) FROM schedule_slots WHERE slot > now()").await,
        0,
        "nothing fires before its time"
    );
}

/// Where Debian and others put it. Without it there is nothing to test with, and the test says so by failing.
fn libfaketime() -> PathBuf {
    let given = variable("MDL_TEST_LIBFAKETIME").map(PathBuf::from);
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = folders.chain([PathBuf::from("/usr/lib64")]).map(|folder| folder.join("faketime/libfaketime.so.1"));
    let library = given.or_else(|| found.into_iter().find(|path| path.exists()));
    library.expect("libfaketime: install the package faketime (ops/dev test does), or set MDL_TEST_LIBFAKETIME to its path")
}
