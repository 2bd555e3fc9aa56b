//! One attempt: a signed request, and what came back.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use mdl::error::causes;
use mdl::ids::TenantId;
use mdl::outbound::{self, Guard};
use mdl::webhooks::headers::Headers;
use mdl::webhooks::ledger::{Claimed, Ended};
use mdl::webhooks::message::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, body, message_id, signatures};
use mdl::webhooks::secrets::StoredSecret;
use mdl::webhooks::{Endpoint, ErrorClass, Origin, WebhookUrl, retries};
use mdl::{App, telemetry};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use tracing::{Span, info_span, warn};
use zeroize::Zeroizing;

use super::breaker::Host;
use super::record::Sent;

/// How much of an answer's body is kept, in bytes.
const KEPT: usize = 4_096;

/// An endpoint, ready to be sent to.
pub struct Receiver {
    tenant: TenantId,
    url: WebhookUrl,
    /// Its own headers, and what to sign with; `None` when they cannot be decrypted.
    opened: Option<Opened>,
}

struct Opened {
    headers: HeaderMap,
    secrets: Vec<Zeroizing<Vec<u8>>>,
}

impl Receiver {
    pub fn open<'a>(app: &App, endpoint: Endpoint, secrets: impl Iterator<Item = &'a StoredSecret>) -> Self {
        let open = |headers: &Headers| -> mdl::Result<Opened> {
            let headers = headers.open(&app.sealer, endpoint.id)?;
            let secrets = secrets.map(|secret| app.sealer.open(&secret.sealed, endpoint.id.0)).collect::<mdl::Result<_>>()?;
            Ok(Opened { headers, secrets })
        };
        let opened = open(&endpoint.settings.headers);
        if let Err(error) = &opened {
            warn!(webhook.endpoint = %endpoint.id, error = causes(error), "Could not decrypt the secrets of a webhook endpoint");
        }
        Self { tenant: endpoint.tenant_id, url: endpoint.settings.url, opened: opened.ok() }
    }

    pub fn host(&self) -> Host {
        (self.tenant, self.url.host())
    }
}

/// Continues the trace of the event's request.
pub fn span(delivery: &Claimed) -> Span {
    let span = info_span!(
        "webhook",
        otel.name = "deliver_webhook",
        otel.kind = "client",
        webhook.id = %delivery.id,
        webhook.endpoint = %delivery.endpoint_id,
        webhook.kind = delivery.kind,
        tenant = %delivery.tenant_id,
        delivery.attempt,
    );
    telemetry::continue_trace(&span, &delivery.trace_context);
    span
}

/// Makes attempts. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    app: App,
    guard: Guard,
    client: reqwest::Client,
}

/// What came back, or why nothing did.
struct Answer {
    status: Option<StatusCode>,
    failure: Option<(ErrorClass, String)>,
    response: String,
    /// Until the status was there.
    duration: Duration,
    retry_after: Option<Duration>,
}

impl Sender {
    pub fn new(app: &App, guard: Guard) -> mdl::Result<Self> {
        let client = guard.client(app.config.webhooks.timeout())?;
        Ok(Self { app: app.clone(), guard, client })
    }

    /// Makes one attempt. Never fails: what goes wrong is what came of it.
    pub async fn send(&self, delivery: Claimed, receiver: &Receiver) -> Sent {
        let at = delivery.claimed_at;
        let answer = match &receiver.opened {
            Some(opened) => self.ask(&delivery, &receiver.url, opened, at).await,
            None => {
                Answer::none(ErrorClass::Secret, "The secrets of the endpoint cannot be decrypted: its key is missing".to_owned())
            }
        };
        let gone = matches!(answer.failure, Some((ErrorClass::Gone, _)));
        let again = answer.failure.is_some() && !gone && delivery.origin != Origin::Test;
        let retry_in = again.then(|| retries::delay(&self.app.config.webhooks.retry_seconds, delivery.attempt)).flatten();
        let ended = Ended {
            tenant_id: delivery.tenant_id,
            id: delivery.id,
            endpoint_id: delivery.endpoint_id,
            origin: delivery.origin,
            attempt: delivery.attempt,
            at,
            duration: answer.duration,
            status: answer.status.map(|status| status.as_u16()),
            failure: answer.failure,
            response: answer.response,
            // A receiver that says when is not asked before.
            retry_in: retry_in.map(|delay| delay.max(answer.retry_after.unwrap_or_default())),
            pause: answer.retry_after,
        };
        Sent { ended, gone }
    }

    async fn ask(&self, delivery: &Claimed, url: &WebhookUrl, opened: &Opened, at: DateTime<Utc>) -> Answer {
        if let Err(refused) = self.guard.check(url.as_url()) {
            return Answer::none(ErrorClass::Address, refused.to_string());
        }
        let body = match body(&delivery.kind, delivery.occurred_at, delivery.sequence, &delivery.payload) {
            Ok(body) => body,
            Err(error) => return Answer::none(ErrorClass::Protocol, error.to_string()),
        };
        let id = message_id(delivery.id);
        let mut headers = opened.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let signed = signatures(&opened.secrets, &id, at.timestamp(), &body);
        let own = [(ID_HEADER, id), (TIMESTAMP_HEADER, at.timestamp().to_string()), (SIGNATURE_HEADER, signed)];
        let own = own.into_iter().map(|(name, value)| (HeaderName::from_static(name), value));
        for (name, value) in own.chain(trace_headers()) {
            // All of these are printable.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        let request = self.client.post(url.as_url().clone()).headers(headers).body(Bytes::from(body));
        let start = Instant::now();
        match request.send().await {
            Ok(response) => Answer::from_response(response, start.elapsed()).await,
            Err(error) => Answer::from_error(error, start.elapsed()),
        }
    }
}

/// The W3C trace context of the attempt, so that the receiver's trace can go on from it.
fn trace_headers() -> impl Iterator<Item = (HeaderName, String)> {
    let context = telemetry::trace_context();
    let fields = context.as_object().cloned().unwrap_or_default();
    fields.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.as_str()?.to_owned())))
}

impl Answer {
    fn none(class: ErrorClass, error: String) -> Self {
        let failure = Some((class, error));
        Self { status: None, failure, response: String::new(), duration: Duration::ZERO, retry_after: None }
    }

    fn from_error(error: reqwest::Error, duration: Duration) -> Self {
        // The address may hold a secret, and is not for the log.
        let error = error.without_url();
        if let Some(refused) = outbound::refused(&error) {
            return Self { duration, ..Self::none(ErrorClass::Address, refused.to_string()) };
        }
        let class = match () {
            () if error.is_timeout() => ErrorClass::Timeout,
            () if error.is_connect() => ErrorClass::Connect,
            () => ErrorClass::Protocol,
        };
        Self { duration, ..Self::none(class, causes(&error)) }
    }

    /// Reads no more of the body than is kept.
    async fn from_response(mut response: Response, duration: Duration) -> Self {
        let status = response.status();
        let asked = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let retry_after = response.headers().get(RETRY_AFTER).filter(|_| asked).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|value| retries::retry_after(value, SystemTime::now()));
        let class = match status {
            status if status.is_success() => None,
            StatusCode::GONE => Some(ErrorClass::Gone),
            status if status.is_redirection() => Some(ErrorClass::Redirect),
            _ => Some(ErrorClass::Status),
        };
        let mut kept = Vec::new();
        // The status decides; a body that breaks off changes nothing.
        while kept.len() < KEPT
            && let Ok(Some(chunk)) = response.chunk().await
        {
            kept.extend_from_slice(&chunk[..chunk.len().min(KEPT - kept.len())]);
        }
        let response = String::from_utf8_lossy(&kept).replace('\0', "\u{fffd}");
        let failure = class.map(|class| (class, format!("Answered {status}")));
        Self { status: Some(status), failure, response, duration, retry_after }
    }
}
