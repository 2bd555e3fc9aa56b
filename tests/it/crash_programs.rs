//! Programs that end without a goodbye, or stand still.

use rand::Rng;

use crate::crash_stage::{CONCURRENCY, LEASE, Stage, worker};
use crate::crash_workload::{Workload, assert_whole};

/// A worker is stopped so often at most until it is caught with a job.
const MOST_STOPS: i64 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn crash_killed_programs() {
    let mut stage = Stage::set(3).await;
    let workload = Workload::start(&mut stage);
    let mut killed = 0;
    while stage.goes_on().await {
        match stage.random.random_range(0..4) {
            0 => stage.api = stage.api.kill_and_restart().await,
            _ => {
                let which = stage.random.random_range(0..stage.workers.len());
                stage.workers[which].kill();
                stage.workers[which] = worker(&stage.app, &[]);
                killed += 1;
            }
        }
    }
    let acknowledged = workload.end().await;
    // One that is killed between the effect of a job and the note of its end leaves it to be run again.
    assert_whole(&stage, acknowledged, killed * CONCURRENCY).await;
}

/// Attempts that were taken over from a worker that was silent for too long.
async fn lost(stage: &Stage) -> i64 {
    stage.app.database.number("SELECT count(*) FROM job_attempts WHERE outcome = 'lost'").await
}

/// What a worker still does that was thought dead does not count.
#[tokio::test(flavor = "multi_thread")]
async fn crash_worker_stands_still_past_its_lease() {
    let mut stage = Stage::set(2).await;
    let workload = Workload::start(&mut stage);
    let mut stopped = 0;
    // Until one of them stood still while it had a job.
    while stage.goes_on().await || (lost(&stage).await == 0 && stopped < MOST_STOPS) {
        let which = stage.random.random_range(0..stage.workers.len());
        stage.workers[which].pause();
        tokio::time::sleep(LEASE * 2).await;
        stage.workers[which].resume();
        stopped += 1;
    }
    let acknowledged = workload.end().await;
    assert!(lost(&stage).await > 0, "nothing was taken over");
    assert_whole(&stage, acknowledged, stopped * CONCURRENCY).await;
}

/// The one that publishes stands still until another has taken its place, and then goes on.
#[tokio::test(flavor = "multi_thread")]
async fn crash_two_relays_compete() {
    let mut stage = Stage::set(2).await;
    let workload = Workload::start(&mut stage);
    let mut changes = 0;
    while stage.goes_on().await {
        let leader = leader(&stage).await;
        stage.workers[leader].pause();
        mdl_tests::eventually("another publishes", async || stage.workers[1 - leader].publishes().await.then_some(())).await;
        stage.workers[leader].resume();
        changes += 1;
    }
    let acknowledged = workload.end().await;
    assert_whole(&stage, acknowledged, changes * CONCURRENCY).await;
}

async fn leader(stage: &Stage) -> usize {
    mdl_tests::eventually("one publishes", async || {
        for (number, worker) in stage.workers.iter().enumerate() {
            if worker.publishes().await {
                return Some(number);
            }
        }
        None
    })
    .await
}
