//! PostgreSQL's notifications, as the things they wake.

use std::time::Duration;

use futures::StreamExt;
use mdl::jobs::{CANCEL_CHANNEL, CHANNEL};
use mdl::webhooks;
use tokio_postgres::AsyncMessage;
use tokio_util::sync::CancellationToken;

use crate::Shared;
use crate::link::Outage;

/// How long after a lost connection the next is tried. Meanwhile the relay and the leases go by the clock.
const RECONNECT: Duration = Duration::from_secs(1);

/// Listens until told to stop.
pub async fn listen(shared: Shared, stop: CancellationToken) {
    let mut outage = Outage::of("listen to PostgreSQL's notifications");
    loop {
        let Some(result) = stop.run_until_cancelled(connected(&shared, &mut outage)).await else { return };
        if let Err(error) = result {
            outage.failed(&error);
        }
        let _stopped = stop.run_until_cancelled(tokio::time::sleep(RECONNECT)).await;
    }
}

/// Listens on one connection until it is lost.
async fn connected(shared: &Shared, outage: &mut Outage) -> mdl::Result<()> {
    let mdl::db::DedicatedConnection { client, mut connection } = shared.db.dedicated().await?;
    let mut messages = futures::stream::poll_fn(move |cx| connection.poll_message(cx));
    let subscribed = async {
        client.batch_execute(&format!("LISTEN {CHANNEL}; LISTEN {CANCEL_CHANNEL}; LISTEN {}", webhooks::CHANNEL)).await?;
        outage.over();
        // Whatever came before we listened.
        shared.wake.due();
        shared.leases.look();
        shared.webhooks.notify_one();
        std::future::pending::<mdl::Result<()>>().await
    };
    let driven = async {
        while let Some(message) = messages.next().await {
            if let AsyncMessage::Notification(notification) = message? {
                match notification.channel() {
                    CANCEL_CHANNEL => shared.leases.look(),
                    webhooks::CHANNEL => shared.webhooks.notify_one(),
                    _ => shared.wake.due(),
                }
            }
        }
        Err(mdl::Error::unavailable("PostgreSQL", "the connection was closed"))
    };
    tokio::select! {
        ended = driven => ended,
        failed = subscribed => failed,
    }
}
