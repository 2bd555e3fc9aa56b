//! One kept answer: its bytes, and how old it is.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tracing::error;

/// Shorter answers fit into one packet as they are.
const COMPRESS_FROM_BYTES: usize = 860;
/// Of 1 to 11. Each step above takes long and saves little.
const BROTLI_QUALITY: u32 = 5;
const BROTLI_WINDOW: u32 = 20;
/// What an entry takes besides its bytes, about.
const OVERHEAD: usize = 400;

/// How a body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    Brotli,
}

impl Coding {
    /// As `Content-Encoding` says it.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Coding::Identity => None,
            Coding::Gzip => Some("gzip"),
            Coding::Brotli => Some("br"),
        }
    }
}

/// An answer without errors. It is compressed when that is first asked for, once.
#[derive(Debug)]
pub struct Entry {
    pub body: Bytes,
    /// A weak validator: the same whenever the body is, however it is compressed.
    pub etag: HeaderValue,
    /// Milliseconds since 1970, by the clock of the process that made it.
    pub made_at: u64,
    /// When it is to be forgotten at the latest.
    pub expires: Instant,
    gzip: OnceCell<Bytes>,
    brotli: OnceCell<Bytes>,
}

impl Entry {
    /// One that is made now.
    pub fn new(body: Bytes, ttl: Duration) -> Self {
        Self::made_at(body, now(), ttl)
    }

    /// One that was made then, and still keeps for so long.
    pub fn made_at(body: Bytes, made_at: u64, left: Duration) -> Self {
        let hash = Sha256::digest(&body);
        let etag = format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(&hash[..15]));
        let etag = HeaderValue::try_from(etag).expect("base64 can stand in a header");
        Self { body, etag, made_at, expires: Instant::now() + left, gzip: OnceCell::new(), brotli: OnceCell::new() }
    }

    pub fn age(&self) -> Duration {
        Duration::from_millis(now().saturating_sub(self.made_at))
    }

    /// What it takes in memory, about. Compressed bytes are counted before they are there: they are a quarter at most.
    pub fn weight(&self) -> u32 {
        let compressed = if self.body.len() < COMPRESS_FROM_BYTES { 0 } else { self.body.len() / 2 };
        (self.body.len() + compressed + OVERHEAD).try_into().unwrap_or(u32::MAX)
    }

    /// The body in this coding, or as it is when that is not worth it.
    pub async fn encoded(&self, wanted: Coding) -> (Bytes, Coding) {
        if self.body.len() < COMPRESS_FROM_BYTES {
            return (self.body.clone(), Coding::Identity);
        }
        let compressed = match wanted {
            Coding::Identity => None,
            Coding::Gzip => Some(self.gzip.get_or_try_init(|| compress(self.body.clone(), gzip)).await),
            Coding::Brotli => Some(self.brotli.get_or_try_init(|| compress(self.body.clone(), brotli)).await),
        };
        match compressed {
            None => (self.body.clone(), Coding::Identity),
            Some(Ok(bytes)) => (bytes.clone(), wanted),
            Some(Err(error)) => {
                error!(%error, "Could not compress an answer; sending it as it is");
                (self.body.clone(), Coding::Identity)
            }
        }
    }
}

/// Away from the tasks that answer requests: a long answer takes some milliseconds.
async fn compress(body: Bytes, how: fn(&[u8]) -> std::io::Result<Vec<u8>>) -> std::io::Result<Bytes> {
    let compressed = tokio::task::spawn_blocking(move || how(&body)).await.map_err(std::io::Error::other)??;
    Ok(compressed.into())
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::default());
    encoder.write_all(body)?;
    encoder.finish()
}

fn brotli(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = brotli::CompressorWriter::new(Vec::with_capacity(body.len() / 4), 4096, BROTLI_QUALITY, BROTLI_WINDOW);
    encoder.write_all(body)?;
    encoder.flush()?;
    Ok(encoder.into_inner())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn compresses_what_is_worth_it() {
        let long = Entry::new("{\"data\":\"metric\"}".repeat(100).into(), Duration::from_secs(1));
        for (coding, read) in [
            (
                Coding::Gzip,
                (|bytes| {
                    let mut text = String::new();
                    flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
                    text
                }) as fn(&[u8]) -> String,
            ),
            (Coding::Brotli, |bytes| {
                let mut text = String::new();
                brotli::Decompressor::new(bytes, 4096).read_to_string(&mut text).unwrap();
                text
            }),
        ] {
            let (bytes, used) = long.encoded(coding).await;
            assert_eq!(used, coding);
            assert!(bytes.len() < long.body.len() / 4);
            assert_eq!(read(&bytes).as_bytes(), &long.body);
            assert_eq!(long.encoded(coding).await.0.as_ptr(), bytes.as_ptr(), "made once");
        }
        let short = Entry::new("{}".into(), Duration::from_secs(1));
        assert_eq!(short.encoded(Coding::Brotli).await, (short.body.clone(), Coding::Identity));
    }

    #[test]
    fn etags_are_of_the_content() {
        let etag = |body: &'static str| Entry::new(body.into(), Duration::from_secs(1)).etag;
        assert_eq!(etag("{}"), etag("{}"));
        assert_ne!(etag("{}"), etag("[]"));
        assert!(etag("{}").to_str().unwrap().starts_with("W/\""));
    }
}
