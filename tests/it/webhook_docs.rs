//! The receivers of docs/webhooks.md, with the official libraries, get what is sent: across a rotation, and after a kill.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::response::IntoResponse;
use mdl::actor::Role;
use mdl_tests::servers::{WorkerProcess, free_port};
use mdl_tests::{Receiver, TestApp, clients, eventually, root};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::webhooks::{endpoint, until_state};

/// A receiver of the documentation, as a program of its own.
struct Sample {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// With what it remembers.
    folder: tempfile::TempDir,
}

impl Sample {
    /// Starts the example in this language; `None` where its runtime is missing.
    async fn start(language: &str, port: u16, secret: &str) -> Option<Self> {
        // Beside node_modules, where its imports are found.
        Self::start_in(tempfile::tempdir_in(root().join("tests/clients")).unwrap(), language, port, secret).await
    }

    /// The same where another has been.
    async fn start_in(folder: tempfile::TempDir, language: &str, port: u16, secret: &str) -> Option<Self> {
        let (program, name): (PathBuf, &str) = match language {
            "js" => clients::folder().map(|_| ("node".into(), "receiver.mjs"))?,
            _ => clients::python().map(|python| (python, "receiver.py"))?,
        };
        let path = folder.path().join(name);
        std::fs::write(&path, example(language)).unwrap();
        let mut process = Command::new(program)
            .arg(path)
            .env("WEBHOOK_SECRET", secret)
            .env("PORT", port.to_string())
            .env("SEEN", folder.path().join("seen"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (output, seen) = (BufReader::new(process.stdout.take().unwrap()), lines.clone());
        std::thread::spawn(move || output.lines().for_each(|line| seen.lock().unwrap().push(line.unwrap())));
        let sample = Self { process, lines, folder };
        eventually("the example is ready", async || sample.lines().contains(&"ready".to_owned()).then_some(())).await;
        Some(sample)
    }

    /// SIGKILL. What it remembers is left.
    fn kill(mut self) -> tempfile::TempDir {
        self.end();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    fn end(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for so many lines that begin with this word.
    async fn until(&self, word: &str, count: usize) -> Vec<String> {
        let found = || self.lines().into_iter().filter(|line| line.starts_with(word)).collect::<Vec<_>>();
        eventually(&format!("{count} lines of {word}"), async || Some(found()).filter(|lines| lines.len() >= count)).await
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        self.end();
    }
}

/// The first block of this language in the documentation.
fn example(language: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/webhooks.md")).unwrap();
    let block = page.split(&format!("```{language}\n")).nth(1).expect("an example");
    block.split("```").next().unwrap().to_owned()
}

async fn create_metric(client: &mdl_tests::Client, key: &str) {
    client.write("createMetric", json!({ "key": key, "name": key })).await;
}

async fn receives_across_a_rotation(language: &str) {
    let app = TestApp::start().await;
    let port = free_port();
    let admin = app.client(Role::Admin).await;
    let made = endpoint(&admin, &format!("http://127.0.0.1:{port}/")).await;
    let Some(sample) = Sample::start(language, port, &made.secret).await else { return };
    app.start_worker();
    create_metric(&admin, "METRIC-1").await;
    let first = sample.until("new", 1).await;
    assert!(first[0].ends_with(" metric.created 1"), "{first:?}");

    let rotated = admin.mutate("rotateWebhookSecret", json!({ "id": made.id, "overlapHours": 1 }), "secret").await;
    let secret = rotated.payload()["secret"].as_str().unwrap().to_owned();
    assert_ne!(secret, made.secret);
    create_metric(&admin, "METRIC-2").await;
    sample.until("new", 2).await;
    drop(sample);
    let sample = Sample::start(language, port, &secret).await.unwrap();
    create_metric(&admin, "METRIC-3").await;
    sample.until("new", 1).await;
    until_state(&admin, 3, "DELIVERED").await;

    // The old one ends: whoever has only that refuses.
    app.database.execute("UPDATE webhook_secrets SET expires_at = now() WHERE expires_at IS NOT NULL").await;
    drop(sample);
    let sample = Sample::start(language, port, &made.secret).await.unwrap();
    create_metric(&admin, "METRIC-4").await;
    eventually("it is refused", async || {
        let refused = "SELECT count(*) FROM webhook_attempts WHERE status = 400";
        (app.database.number(refused).await >= 1).then_some(())
    })
    .await;
    assert_eq!(sample.lines(), ["ready"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_from_npm_verifies_across_a_rotation() {
    receives_across_a_rotation("js").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_from_pypi_verifies_across_a_rotation() {
    receives_across_a_rotation("python").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_when_the_worker_was_killed_comes_again_with_the_same_id() {
    let app = TestApp::start().await;
    let admin = app.client(Role::Admin).await;
    let victim: Arc<Mutex<Option<WorkerProcess>>> = Arc::default();
    let killed = victim.clone();
    // The worker dies when it has sent and before it can know of an answer.
    let receiver = Receiver::answering(move |_, _| {
        if let Some(mut worker) = killed.lock().unwrap().take() {
            worker.kill();
        }
        StatusCode::NO_CONTENT.into_response()
    })
    .await;
    let made = endpoint(&admin, &receiver.url).await;
    create_metric(&admin, "METRIC-1").await;
    {
        // It is there before its first request can look for it.
        let mut slot = victim.lock().unwrap();
        *slot = Some(WorkerProcess::start(&app));
    }
    receiver.until(1).await;
    assert_eq!(app.database.number("SELECT count(*) FROM webhook_attempts").await, 0, "nobody knows of the answer");
    assert_eq!(app.database.number("SELECT count(*) FROM webhook_deliveries WHERE state = 'pending' AND attempt = 1").await, 1);

    // The claim ends; waiting for it would take a minute.
    app.database.execute("UPDATE webhook_deliveries SET next_attempt_at = now()").await;
    app.start_worker();
    let all = until_state(&admin, 1, "DELIVERED").await;
    let received = receiver.until(2).await;
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    assert_eq!((received[0].body.clone(), &all[0]["attempts"][0]["number"]), (received[1].body.clone(), &json!(2)));

    // The receivers of the documentation take it once.
    for language in ["js", "python"] {
        let port = free_port();
        let Some(sample) = Sample::start(language, port, &made.secret).await else { continue };
        for message in &received {
            let mut request = admin.http.post(format!("http://127.0.0.1:{port}/")).body(message.body.clone());
            for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
                request = request.header(name, message.header(name));
            }
            assert_eq!(request.send().await.unwrap().status(), StatusCode::NO_CONTENT, "{language}");
        }
        sample.until("again", 1).await;
        assert_eq!(sample.until("new", 1).await.len(), 1, "{language}");
    }
}

/// Passes connections on to a port, and kills the receiver there when it begins its first answer, which is lost.
async fn lose_first_answer(to: u16, sample: Sample) -> (u16, oneshot::Receiver<tempfile::TempDir>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (killed, when_killed) = oneshot::channel();
    tokio::spawn(async move {
        let (mut from, _) = listener.accept().await.unwrap();
        let mut answering = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
        let (mut answer, mut request) = answering.split();
        let mut first = [0];
        tokio::select! {
            _ = tokio::io::copy(&mut from, &mut request) => panic!("nobody waits for an answer"),
            begun = answer.peek(&mut first) => assert_eq!(begun.unwrap(), 1),
        }
        let _ = killed.send(sample.kill());
        drop((from, answering));
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                // Nobody may be there yet.
                if let Ok(mut to) = TcpStream::connect(("127.0.0.1", to)).await {
                    let _ended = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    });
    (port, when_killed)
}

async fn ignores_what_it_had_done_when_it_was_killed(language: &str) {
    let app = TestApp::start_with(&[("MDL_WEBHOOK_RETRY_SECONDS", "1,1,1,1,1,1,1,1,1,1")]).await;
    let admin = app.client(Role::Admin).await;
    let port = free_port();
    // The address in between comes later: it needs the receiver, which needs the secret.
    let made = endpoint(&admin, &format!("http://127.0.0.1:{port}/")).await;
    let Some(sample) = Sample::start(language, port, &made.secret).await else { return };
    let lines = sample.lines.clone();
    let (lossy, killed) = lose_first_answer(port, sample).await;
    app.database.execute(&format!("UPDATE webhook_endpoints SET url = 'http://127.0.0.1:{lossy}/'")).await;
    app.start_worker();
    create_metric(&admin, "METRIC-1").await;
    let folder = killed.await.unwrap();
    let done = eventually("what it printed is read", async || lines.lock().unwrap().get(1).cloned()).await;
    let id = done.strip_prefix("new ").and_then(|rest| rest.split(' ').next()).expect("it was done once");

    let sample = Sample::start_in(folder, language, port, &made.secret).await.unwrap();
    let all = until_state(&admin, 1, "DELIVERED").await;
    assert_eq!(sample.until("again", 1).await, [format!("again {id}")]);
    assert_eq!(sample.lines().len(), 2, "ready, and nothing new");
    assert!(all[0]["attempts"].as_array().unwrap().len() > 1);
    assert_eq!(all[0]["messageId"], id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_receiver_of_npm_ignores_what_comes_again() {
    ignores_what_it_had_done_when_it_was_killed("js").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_receiver_of_pypi_ignores_what_comes_again() {
    ignores_what_it_had_done_when_it_was_killed("python").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_replayed_and_tried_out() {
    let app = TestApp::start().await;
    app.start_worker();
    let admin = app.client(Role::Admin).await;
    let receiver = Receiver::start().await;
    let made = endpoint(&admin, &receiver.url).await;
    for key in ["METRIC-1", "METRIC-2", "METRIC-3"] {
        create_metric(&admin, key).await;
    }
    until_state(&admin, 3, "DELIVERED").await;

    let again = json!({ "id": made.id, "from": 2, "to": 3, "kinds": ["metric.created"] });
    let replayed = admin.mutate("replayEvents", again, "count").await;
    assert_eq!(replayed.payload()["count"], 2, "{}", replayed.body);
    let all = until_state(&admin, 5, "DELIVERED").await;
    let told: Vec<_> =
        all[3..].iter().map(|one| (one["origin"].clone(), one["sequence"].clone(), one["replayOf"].clone())).collect();
    let of = |sequence: i64| all[..3].iter().find(|one| one["sequence"] == sequence).unwrap()["id"].clone();
    assert_eq!(told, [(json!("REPLAY"), json!(2), of(2)), (json!("REPLAY"), json!(3), of(3))]);
    let ids: std::collections::HashSet<_> =
        receiver.until(5).await.iter().map(|one| one.header("webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), 5, "a replay is a new message");

    let tested = admin.mutate("testWebhook", json!({ "id": made.id, "kind": "import.failed" }), "delivery { kind }").await;
    assert_eq!(tested.payload()["delivery"]["kind"], "import.failed");
    let message = receiver.until(6).await.pop().unwrap().json();
    assert_eq!((&message["type"], &message["sequence"]), (&json!("import.failed"), &Value::Null));

    app.database.execute("UPDATE event_streams SET kept_from = 3").await;
    let too_old = admin.mutate("replayEvents", json!({ "id": made.id, "from": 1 }), "count").await;
    assert_eq!(too_old.user_errors(), ["from: OUT_OF_RANGE"]);
    for (field, input) in [
        ("testWebhook", json!({ "id": made.id, "kind": "nonsense" })),
        ("replayEvents", json!({ "id": made.id, "from": 3, "kinds": ["nonsense"] })),
    ] {
        assert_eq!(admin.mutate(field, input, "").await.user_errors().len(), 1, "{field}");
    }
    admin.mutate("disableWebhookEndpoint", json!({ "id": made.id }), "").await;
    let disabled = admin.mutate("testWebhook", json!({ "id": made.id, "kind": "metric.created" }), "").await;
    assert_eq!(disabled.user_errors(), ["id: INVALID"]);
}
