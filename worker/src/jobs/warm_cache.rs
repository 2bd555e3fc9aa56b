//! Asks each api for the answers that a tenant used most lately, so that they are there when somebody asks. Nobody waits for
//! this: an api that has other things to do is left alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use mdl::config::WarmingConfig;
use mdl::ids::TenantId;
use mdl::warming::{PATH, Warm, WarmCache, WarmOutcome, Warmed, used};
use mdl::{Error, Result, instruments};
use metrics::{counter, histogram};
use reqwest::{Client, StatusCode, redirect};
use tracing::{info, warn};
use url::Url;

use super::{Done, JobContext};

/// How much longer than a busy api takes is waited, to see that it is busy.
const BEYOND_BUSY: Duration = Duration::from_secs(1);

pub async fn run(_: WarmCache, ctx: JobContext) -> Result<Done> {
    let config = &ctx.app.config.warming;
    let Some(secret) = config.secret.as_deref() else { return Ok(Done::Finished) };
    let asked = used::top(&ctx.app, ctx.tenant, config.operations).await?;
    let wanted: Vec<_> = asked.into_iter().map(|asked| Warm { tenant: ctx.tenant, asked }).collect();
    if wanted.is_empty() {
        return Ok(Done::Finished);
    }
    let client = Client::builder()
        .timeout(Duration::from_millis(config.busy_milliseconds) + BEYOND_BUSY)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(Error::internal)?;
    // One after the other: what the first has made, the others find in Redis.
    for url in &config.api_urls {
        let instance = Instance::new(&client, url, secret, config)?;
        let warming = instance.warm(ctx.tenant, &wanted);
        if ctx.cancelled().run_until_cancelled(warming).await.is_none() {
            return Ok(Done::Cancelled);
        }
    }
    Ok(Done::Finished)
}

/// One api, while it is warmed.
struct Instance<'a> {
    client: &'a Client,
    address: &'a Url,
    warm: Url,
    secret: &'a str,
    concurrency: usize,
    busy_after: Duration,
    /// Whether it is to be left alone.
    stopped: AtomicBool,
}

/// What became of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Made,
    Kept,
    /// The api says that it is not to be warmed.
    Refused,
    /// It was not asked for, or not answered.
    Left,
}

impl<'a> Instance<'a> {
    fn new(client: &'a Client, address: &'a Url, secret: &'a str, config: &WarmingConfig) -> Result<Self> {
        Ok(Self {
            client,
            address,
            warm: address.join(PATH).map_err(Error::internal)?,
            secret,
            concurrency: config.concurrency as usize,
            busy_after: Duration::from_millis(config.busy_milliseconds),
            stopped: AtomicBool::new(false),
        })
    }

    async fn warm(&self, tenant: TenantId, wanted: &[Warm]) {
        let start = Instant::now();
        let asking: Vec<_> = wanted.iter().map(|warm| self.ask(warm)).collect();
        let outcomes = stream::iter(asking).buffer_unordered(self.concurrency);
        let (mut made, mut kept, mut refused, mut left) = (0, 0, 0, 0);
        outcomes
            .for_each(|outcome| {
                let (name, count) = match outcome {
                    Outcome::Made => ("made", &mut made),
                    Outcome::Kept => ("kept", &mut kept),
                    Outcome::Refused => ("refused", &mut refused),
                    Outcome::Left => ("left", &mut left),
                };
                *count += 1;
                counter!(instruments::WARMED, "outcome" => name).increment(1);
                std::future::ready(())
            })
            .await;
        histogram!(instruments::WARM_SECONDS).record(start.elapsed().as_secs_f64());
        let api = self.address.host_str().unwrap_or_default();
        info!(tenant.id = %tenant, api, made, kept, refused, left, "Warmed the answers of an api");
    }

    async fn ask(&self, warm: &Warm) -> Outcome {
        if self.stopped.load(Ordering::Relaxed) {
            return Outcome::Left;
        }
        let start = Instant::now();
        let sent = self.client.post(self.warm.clone()).bearer_auth(self.secret).json(warm).send().await;
        let outcome = match sent {
            Err(error) => self.stop(&format!("it does not answer: {}", error.without_url())),
            Ok(response) => match response.status() {
                StatusCode::OK => match response.json::<Warmed>().await {
                    Ok(Warmed { outcome: WarmOutcome::Made }) => Outcome::Made,
                    Ok(Warmed { outcome: WarmOutcome::Kept }) => Outcome::Kept,
                    Err(error) => self.stop(&format!("its answer cannot be read: {}", error.without_url())),
                },
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => self.stop("it is busy"),
                StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => self.stop("it has another MDL_WARM_SECRET, or none"),
                status if status.is_client_error() => Outcome::Refused,
                status => self.stop(&format!("it answers {status}")),
            },
        };
        if start.elapsed() > self.busy_after {
            self.stop("it is slow");
        }
        outcome
    }

    /// Leaves this api alone until the next time.
    fn stop(&self, why: &str) -> Outcome {
        if !self.stopped.swap(true, Ordering::Relaxed) {
            warn!(api = self.address.host_str().unwrap_or_default(), why, "Stopped warming an api");
        }
        Outcome::Left
    }
}
