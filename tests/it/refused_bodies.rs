//! Requests that are refused before their bodies were read, as clients see it that write all of a body before they read.

use std::time::Duration;

use mdl::actor::Role;
use mdl_tests::TestApp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than the buffers between the two have room for.
const LONG: usize = 24 << 20;
const PIECE: usize = 64 << 10;

struct Writer(TcpStream);

impl Writer {
    /// Connects, and announces a body.
    async fn begin(app: &TestApp, headers: &[&str], length: usize) -> Self {
        let address = app.base.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let headers = headers.join("\r\n");
        let head = format!("POST /graphql HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n{headers}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    /// Waits until there is something to read, and reads nothing.
    async fn is_answered(&self) {
        let came = timeout(PATIENCE, self.0.peek(&mut [0])).await.expect("an answer in time").unwrap();
        assert_eq!(came, 1, "an answer, and not the end");
    }

    /// What comes, until it has this in it.
    async fn read_until(&mut self, last: &str) -> String {
        let (mut answer, mut piece) = (String::new(), [0; 4096]);
        while !answer.contains(last) {
            let read = timeout(PATIENCE, self.0.read(&mut piece)).await.expect("an answer in time").unwrap();
            assert!(read > 0, "it ends after {answer}");
            answer.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_a_long_body_gets_to_read_why_it_was_refused() {
    let app = TestApp::start_with(&[("MDL_MAX_BODY_BYTES", "2000")]).await;
    let credential = app.client(Role::Viewer).await.credential.unwrap();
    let bearer = format!("authorization: Bearer {credential}");
    let (bearer, wrong) = (bearer.as_str(), "authorization: Bearer a.b.c");
    let (form, script) = ("content-type: multipart/form-data; boundary=b", "graphql-require-preflight: 1");
    let part = "--b\r\nContent-Disposition: form-data; name=\"0\"; filename=\"a\"\r\n\r\n";
    for (headers, begin, status, code) in [
        (vec![form, script, wrong], part, 401, "UNAUTHENTICATED"),
        (vec![form, bearer], part, 400, "PREFLIGHT_REQUIRED"),
        (vec![form, script, bearer], part, 400, "BAD_REQUEST"),
        (vec!["content-type: application/json", bearer], "", 413, "BODY_TOO_LONG"),
        (vec!["content-type: text/plain", bearer], "", 415, "UNSUPPORTED_MEDIA_TYPE"),
        (vec!["content-type: application/json", "accept: text/html", bearer], "", 406, "NOT_ACCEPTABLE"),
    ] {
        let mut writer = Writer::begin(&app, &headers, LONG).await;
        writer.0.write_all(begin.as_bytes()).await.unwrap();
        writer.is_answered().await;
        let mut left = LONG - begin.len();
        while left > 0 {
            let piece = left.min(PIECE);
            writer
                .0
                .write_all(&vec![b' '; piece])
                .await
                .unwrap_or_else(|error| panic!("{code}: {error}, {left} bytes before the end"));
            left -= piece;
        }
        let answer = writer.read_until(code).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        // The connection is good for another request.
        writer.0.write_all(b"GET /health HTTP/1.1\r\nhost: mdl\r\n\r\n").await.unwrap();
        writer.read_until("\"ok\"").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_is_not_waited_for() {
    let app = TestApp::start().await;
    // It is too long for that, and says so.
    let mut writer = Writer::begin(&app, &["content-type: text/plain"], 100 << 20).await;
    writer.read_until("UNSUPPORTED_MEDIA_TYPE").await;
    let end = timeout(Duration::from_secs(4), async { while writer.0.read(&mut [0; 4096]).await.unwrap() > 0 {} }).await;
    end.expect("the connection ends at once");
    // It never comes: the connection ends after some time.
    let mut writer = Writer::begin(&app, &["content-type: text/plain"], LONG).await;
    writer.read_until("UNSUPPORTED_MEDIA_TYPE").await;
    let end = timeout(PATIENCE, async { while writer.0.read(&mut [0; 4096]).await.unwrap() > 0 {} }).await;
    end.expect("the connection ends");
    // It is not asked for.
    let mut writer = Writer::begin(&app, &["content-type: text/plain", "expect: 100-continue"], 1_000).await;
    let answer = writer.read_until("UNSUPPORTED_MEDIA_TYPE").await;
    assert!(answer.starts_with("HTTP/1.1 415 "), "{answer}");
}
