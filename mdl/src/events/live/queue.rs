//! What waits for one listener, of events or of jobs. It is bounded: who tells waits a while for one that has no room, and then
//! goes on without it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// What waits for one listener at most.
const QUEUE: usize = 256;
/// How much is told at once, of a burst. Less than a queue has room for, so that a listener takes one while the next is read.
pub(crate) const PORTION: usize = 100;
/// Between two looks whether there is room.
const BREATH: Duration = Duration::from_millis(5);

/// The listener's end. After what is in it there is nothing when the other end is dropped.
pub(crate) type Receiver<T> = mpsc::Receiver<Arc<T>>;

/// The two ends of a listener's queue.
pub(crate) fn queue<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Sender(sender), receiver)
}

/// The end of those who tell.
pub(crate) struct Sender<T>(mpsc::Sender<Arc<T>>);

impl<T> Sender<T> {
    /// Tells the listener. `false` when it is not to be told any more: then this end is to be dropped.
    pub fn offer(&self, news: &Arc<T>) -> bool {
        self.0.try_send(news.clone()).is_ok()
    }

    pub fn has_room(&self, count: usize) -> bool {
        self.0.capacity() >= count
    }
}

/// Waits until the listeners have room, but not for longer than this.
pub(crate) async fn wait_for_room(patience: Duration, have_room: impl Fn() -> bool) {
    let start = Instant::now();
    while !have_room() && start.elapsed() < patience {
        sleep(BREATH).await;
    }
}
