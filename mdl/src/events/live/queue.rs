//! What waits for one listener, of events or of jobs. It is bounded: one that does not take it in time is told so, and let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::counter;
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::instruments;

/// What waits for one listener at most. More would only hide for longer that it does not keep up.
const QUEUE: usize = 256;

/// The two ends of a listener's queue.
pub(crate) fn queue<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let dropped = Arc::new(AtomicBool::new(false));
    (Sender { queue: sender, dropped: dropped.clone() }, Receiver { queue: receiver, dropped })
}

/// The end of those who tell.
pub(crate) struct Sender<T> {
    queue: mpsc::Sender<Arc<T>>,
    /// Set when the listener is let go because it did not keep up.
    dropped: Arc<AtomicBool>,
}

/// The listener's end.
pub(crate) struct Receiver<T> {
    queue: mpsc::Receiver<Arc<T>>,
    dropped: Arc<AtomicBool>,
}

impl<T> Sender<T> {
    /// Tells the listener. `false` when it is not to be told any more: then this end is to be dropped.
    pub fn offer(&self, news: &Arc<T>) -> bool {
        match self.queue.try_send(news.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.let_go();
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Once it has taken what is in its queue, and this end is dropped, the listener is told that it was too slow.
    pub fn let_go(&self) {
        self.dropped.store(true, Ordering::Release);
    }
}

impl<T> Receiver<T> {
    /// What comes next. After an error there is nothing.
    pub async fn next(&mut self) -> Option<Result<Arc<T>>> {
        if let Some(news) = self.queue.recv().await {
            return Some(Ok(news));
        }
        // Told once.
        self.dropped.swap(false, Ordering::AcqRel).then(|| {
            counter!(instruments::LIVE_SLOW).increment(1);
            Err(Error::TooSlow)
        })
    }
}
