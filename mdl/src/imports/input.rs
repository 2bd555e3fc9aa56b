//! From stored bytes to text: decompression, encodings, and the limits on both.
//!
//! Parsers read through [`Text`], which only ever yields valid UTF-8. What makes it stop is kept in it as the [`Halt`] to
//! report, because parsers wrap read errors in errors of their own.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use flate2::bufread::MultiGzDecoder;

use super::entry::{Issue, Place, codes};
use crate::config::ImportConfig;

const BUFFER: usize = 64 * 1024;
/// Below this many bytes of text, no compression ratio is suspicious.
const RATIO_FROM: u64 = 1024 * 1024;

/// Why reading a file stopped before its end.
#[derive(Debug)]
pub enum Halt {
    /// The file cannot be imported: it says where and why.
    Refused(Box<Issue>),
    /// The file could not be fetched; it may be fine.
    Storage(io::Error),
    /// Nobody wants the entries any more.
    Stopped,
}

impl From<Box<Issue>> for Halt {
    fn from(issue: Box<Issue>) -> Self {
        Halt::Refused(issue)
    }
}

type Fault = Arc<Mutex<Option<Halt>>>;

/// Keeps the first reason, and gives the parser in between an error to pass on.
fn fail(fault: &Fault, halt: Halt) -> io::Error {
    let mut fault = fault.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if fault.is_none() {
        *fault = Some(halt);
    }
    io::Error::new(io::ErrorKind::InvalidData, "the file cannot be read further")
}

/// The file's text: valid UTF-8 without a byte order mark.
pub struct Text {
    inner: Box<dyn Read + Send>,
    fault: Fault,
    buffer: Vec<u8>,
    /// The part of the buffer that is valid text and not yet consumed.
    ready: std::ops::Range<usize>,
    started: bool,
    /// Of the start of the unvalidated part, in the text.
    offset: u64,
    line: u64,
}

impl Text {
    /// Reads `stored`, adding to `bytes_read` what comes out of it.
    pub fn open(stored: impl Read + Send + 'static, bytes_read: Arc<AtomicU64>, limits: &ImportConfig) -> io::Result<Self> {
        let fault = Fault::default();
        bytes_read.store(0, Ordering::Relaxed);
        let mut stored =
            BufReader::with_capacity(BUFFER, Stored { inner: stored, bytes_read: bytes_read.clone(), fault: fault.clone() });
        let inner: Box<dyn Read + Send> = if stored.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
            Box::new(Inflated {
                inner: MultiGzDecoder::new(stored),
                fault: fault.clone(),
                bytes_read,
                produced: 0,
                max_bytes: limits.max_inflated_bytes,
                max_ratio: limits.max_inflate_ratio,
            })
        } else {
            Box::new(stored)
        };
        Ok(Self { inner, fault, buffer: Vec::with_capacity(BUFFER), ready: 0..0, started: false, offset: 0, line: 1 })
    }

    /// Stops reading for a reason that a parser found.
    pub fn refuse(&self, issue: Box<Issue>) -> io::Error {
        fail(&self.fault, Halt::Refused(issue))
    }

    /// Why reading stopped, if it did.
    pub fn halt(&self) -> Option<Halt> {
        self.fault.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    /// The whole text, for formats that are read whole.
    pub fn into_string(mut self, max_bytes: u64) -> Result<String, Halt> {
        let mut text = Vec::new();
        let read = (&mut self).take(max_bytes + 1).read_to_end(&mut text);
        if let Err(error) = read {
            return Err(self.halt().unwrap_or(Halt::Storage(error)));
        }
        if text.len() as u64 > max_bytes {
            let message = format!(
                "Is longer than {max_bytes} bytes, the most that this format may have; JSON, NDJSON and CSV may be longer"
            );
            return Err(Issue::refusal(Place::default(), codes::TOO_LONG, message).into());
        }
        String::from_utf8(text).map_err(|error| Halt::Storage(io::Error::other(error)))
    }

    /// Fills the buffer and finds how much of it is valid text.
    fn refill(&mut self) -> io::Result<()> {
        let valid = self.ready.end;
        self.buffer.drain(..valid);
        self.ready = 0..0;
        let want = BUFFER - self.buffer.len();
        (&mut self.inner).take(want as u64).read_to_end(&mut self.buffer).map_err(|error| {
            // Reading from what is neither the storage nor gzip does not fail, so a reason has been kept already.
            fail(&self.fault, Halt::Storage(error))
        })?;
        let at_end = self.buffer.len() < BUFFER;
        let mut start = 0;
        if !self.started {
            self.started = true;
            start = self.byte_order_mark()?;
        }
        let end = match std::str::from_utf8(&self.buffer[start..]) {
            Ok(_) => self.buffer.len(),
            Err(error) => {
                let valid = start + error.valid_up_to();
                match error.error_len() {
                    None if !at_end => valid,
                    None => return Err(self.bad_text(valid, codes::TRUNCATED, "The file ends in the middle of a character")),
                    Some(_) => return Err(self.bad_text(valid, codes::ENCODING, "Is not UTF-8 text")),
                }
            }
        };
        self.line += newlines(&self.buffer[start..end]);
        self.offset += end as u64;
        self.ready = start..end;
        Ok(())
    }

    /// How many bytes the mark of UTF-8 takes; the marks and patterns of other encodings are refused.
    fn byte_order_mark(&self) -> io::Result<usize> {
        let other = match &self.buffer[..self.buffer.len().min(4)] {
            [0xef, 0xbb, 0xbf, ..] => return Ok(3),
            [0xff, 0xfe, 0, 0] | [0, 0, 0xfe, 0xff] | [0, 0, 0, 1..=255] | [1..=255, 0, 0, 0] => "UTF-32",
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=255, 0, 1..=255] | [1..=255, 0, 1..=255, 0] => "UTF-16",
            _ => return Ok(0),
        };
        Err(self.refuse(Issue::refusal(Place::line(1), codes::ENCODING, format!("The file is {other}; save it as UTF-8"))))
    }

    fn bad_text(&self, at: usize, code: &'static str, what: &str) -> io::Error {
        let line = self.line + newlines(&self.buffer[..at]);
        let byte = self.offset + at as u64;
        let mut issue = Issue::refusal(Place::line(line), code, format!("{what}: byte {byte} of the text, on line {line}"));
        let shown: Vec<String> = self.buffer[at..].iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        issue.raw_value = Some(shown.join(" "));
        self.refuse(issue)
    }
}

impl BufRead for Text {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.ready.is_empty() {
            self.refill()?;
        }
        Ok(&self.buffer[self.ready.clone()])
    }

    fn consume(&mut self, amount: usize) {
        self.ready.start += amount;
    }
}

impl Read for Text {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(out.len());
        out[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// The bytes as stored.
struct Stored<R> {
    inner: R,
    bytes_read: Arc<AtomicU64>,
    fault: Fault,
}

impl<R: Read> Read for Stored<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(out) {
            Ok(count) => {
                self.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(fail(&self.fault, Halt::Storage(error))),
        }
    }
}

/// Decompressed bytes, as many as are allowed.
struct Inflated<R> {
    inner: MultiGzDecoder<R>,
    fault: Fault,
    bytes_read: Arc<AtomicU64>,
    produced: u64,
    max_bytes: u64,
    max_ratio: u64,
}

impl<R: BufRead> Read for Inflated<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let refuse = |code, message: String| fail(&self.fault, Halt::Refused(Issue::refusal(Place::default(), code, message)));
        let count = match self.inner.read(out) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(refuse(
                    codes::TRUNCATED,
                    format!("The gzip data ends too early, after {} bytes of text", self.produced),
                ));
            }
            Err(error) => {
                return Err(refuse(
                    codes::CORRUPT_GZIP,
                    format!("The gzip data is damaged after {} bytes of text: {error}", self.produced),
                ));
            }
        };
        self.produced += count as u64;
        if self.produced > self.max_bytes {
            return Err(refuse(codes::TOO_LONG, format!("Is longer than {} bytes when decompressed", self.max_bytes)));
        }
        let stored = self.bytes_read.load(Ordering::Relaxed).max(1);
        if self.produced > RATIO_FROM && self.produced / stored > self.max_ratio {
            return Err(refuse(codes::INFLATE_RATIO, format!("Decompresses to more than {} times its length", self.max_ratio)));
        }
        Ok(count)
    }
}
