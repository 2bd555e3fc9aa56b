//! What is sent, and how it is signed: Standard Webhooks 1.0 (<https://www.standardwebhooks.com>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use hmac::{Hmac, Mac};
use serde::Serialize;
use serde_json::Value;
use sha2::Sha256;

use crate::error::Result;
use crate::ids::WebhookDeliveryId;

/// The same on every attempt, so that receivers can tell a repetition.
pub const ID_HEADER: &str = "webhook-id";
/// When this attempt was made, in seconds since 1970. Receivers refuse what is some minutes old.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// Signatures separated by spaces, one of each secret.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// What a receiver knows a delivery by: `msg_` and 32 hexadecimal digits.
pub fn message_id(delivery: WebhookDeliveryId) -> String {
    format!("msg_{}", delivery.0.simple())
}

/// The body of a message, in the first version of payloads.
#[derive(Debug, Serialize)]
struct Body<'a> {
    r#type: &'a str,
    timestamp: String,
    sequence: Option<i64>,
    data: &'a Value,
}

/// The body that tells of an event; the same bytes each time.
pub fn body(kind: &str, occurred_at: DateTime<Utc>, sequence: Option<i64>, data: &Value) -> Result<Vec<u8>> {
    let timestamp = occurred_at.to_rfc3339_opts(SecondsFormat::Millis, true);
    Ok(serde_json::to_vec(&Body { r#type: kind, timestamp, sequence, data })?)
}

/// The value of [`SIGNATURE_HEADER`]: HMAC-SHA256 of `id.timestamp.body` by each secret.
pub fn signatures<S: AsRef<[u8]>>(secrets: &[S], id: &str, timestamp: i64, body: &[u8]) -> String {
    let one = |secret: &S| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_ref()).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    secrets.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn signs_as_the_standard_says() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signed = signatures(&[&secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(
            signatures(&[&secret, &secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            format!("{signed} {signed}")
        );
    }
}
