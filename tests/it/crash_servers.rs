//! Servers that forget, stand still, are full, or are away.

use std::time::Duration;

use mdl_tests::eventually;
use rand::seq::SliceRandom;

use crate::crash_stage::{CONCURRENCY, Stage};
use crate::crash_workload::{Workload, assert_whole};

/// For how long.
const AWAY: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn crash_redis() {
    let mut stage = Stage::set(2).await;
    let workload = Workload::start(&mut stage);
    while stage.goes_on().await {
        let mut outages = [Outage::Forgets, Outage::Ends, Outage::Freezes, Outage::HoldsBack, Outage::IsFull];
        outages.shuffle(&mut stage.random);
        for outage in outages {
            match outage {
                Outage::Forgets => stage.redis.flush().await,
                Outage::Ends => {
                    stage.redis.stop();
                    tokio::time::sleep(AWAY).await;
                    stage.redis = stage.redis.restart().await;
                }
                Outage::Freezes => {
                    stage.redis.pause();
                    tokio::time::sleep(AWAY).await;
                    stage.redis.resume();
                }
                Outage::HoldsBack => {
                    stage.redis.hold_back(AWAY).await;
                    tokio::time::sleep(AWAY).await;
                }
                Outage::IsFull => {
                    // Less than it has.
                    stage.redis.limit_memory(1).await;
                    tokio::time::sleep(AWAY).await;
                    stage.redis.limit_memory(0).await;
                }
            }
            stage.moment().await;
        }
    }
    let acknowledged = workload.end().await;
    // Redis only carries: nothing that happens to it is a reason to do anything twice.
    assert_whole(&stage, acknowledged, 0).await;
}

#[derive(Clone, Copy)]
enum Outage {
    Forgets,
    Ends,
    Freezes,
    HoldsBack,
    IsFull,
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_postgresql() {
    let mut stage = Stage::set_with_postgres(2).await;
    let workload = Workload::start(&mut stage);
    let mut ends = 0;
    while stage.goes_on().await {
        for away in [Duration::ZERO, AWAY * 2] {
            let postgres = stage.postgres.as_ref().unwrap();
            postgres.stop();
            tokio::time::sleep(away).await;
            postgres.begin();
            ends += 1;
            let count = "SELECT count(*) FROM metrics";
            let before = stage.app.database.number(count).await;
            eventually("writers go on", async || (stage.app.database.number(count).await > before).then_some(())).await;
            stage.moment().await;
        }
    }
    let acknowledged = workload.end().await;
    // A commit whose answer was lost may have been one, and then its job runs again.
    assert_whole(&stage, acknowledged, ends * 2 * CONCURRENCY).await;
}
