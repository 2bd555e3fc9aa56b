//! Turns within one operation: a loader gives the other fields a turn before it reads, and the operation is polled again where
//! it stands, instead of through the scheduler and every layer of HTTP around it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// Turns that an operation takes before other requests get one.
const MOST_TURNS: usize = 200;

/// Whether somebody is polling, and whether there is a reason to do it once more.
const IDLE: u8 = 0;
const POLLING: u8 = 1;
const WOKEN: u8 = 2;

/// Lets everything else that is ready in the same operation go on first.
pub async fn give_turn() {
    let mut given = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Runs a future that wakes itself while it is polled: it goes on at once.
pub async fn in_place<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let turns = Arc::new(Turns { state: AtomicU8::new(IDLE), outer: AtomicWaker::new() });
    let waker = Waker::from(turns.clone());
    std::future::poll_fn(|cx| {
        turns.outer.register(cx.waker());
        for _ in 0..MOST_TURNS {
            turns.state.store(POLLING, Ordering::Release);
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(output);
            }
            let idle = turns.state.compare_exchange(POLLING, IDLE, Ordering::AcqRel, Ordering::Acquire);
            if idle.is_ok() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

struct Turns {
    state: AtomicU8,
    outer: AtomicWaker,
}

impl Wake for Turns {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Whoever polls looks again before they leave. Who has been woken already comes anyway.
        if self.state.swap(WOKEN, Ordering::AcqRel) == IDLE {
            self.outer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn turns_are_taken_where_the_future_stands() {
        let mut polls = 0;
        let mut future = std::pin::pin!(in_place(join_all((0..20).map(|_| async {
            for _ in 0..10 {
                give_turn().await;
            }
        }))));
        std::future::poll_fn(|cx| {
            polls += 1;
            future.as_mut().poll(cx)
        })
        .await;
        assert_eq!(polls, 1);
    }

    #[tokio::test]
    async fn nobody_holds_the_thread_for_ever() {
        let mut polls = 0;
        let mut future = std::pin::pin!(in_place(async {
            for _ in 0..MOST_TURNS * 3 {
                give_turn().await;
            }
        }));
        std::future::poll_fn(|cx| {
            polls += 1;
            future.as_mut().poll(cx)
        })
        .await;
        assert_eq!(polls, 4);
    }

    /// Wakes from other threads, at every moment of a poll.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_wake_is_lost() {
        let (requests, mut asked) = tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<()>>(64);
        tokio::spawn(async move {
            while let Some(answer) = asked.recv().await {
                let _gone = answer.send(());
            }
        });
        let ask = |times: usize| {
            let requests = requests.clone();
            async move {
                for _ in 0..times {
                    let (answer, answered) = tokio::sync::oneshot::channel();
                    requests.send(answer).await.unwrap();
                    give_turn().await;
                    answered.await.unwrap();
                }
            }
        };
        let all = in_place(join_all((0..40).map(|_| ask(500))));
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("every wake arrives");
    }
}
