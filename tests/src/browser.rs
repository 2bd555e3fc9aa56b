//! A headless Chromium, driven over WebDriver.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::http;
use crate::servers::free_port;
use crate::{PATIENCE, eventually, variable};

/// What WebDriver calls an element in its answers.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// One window of a browser that nobody else uses, and that remembers nothing.
pub struct Browser {
    http: reqwest::Client,
    /// `http://127.0.0.1:port/session/id`
    session: String,
    driver: Child,
    profile: std::path::PathBuf,
}

impl Browser {
    /// `None`, with a line that says so, where there is no chromedriver: `ops/dev test` says where it is, if it is there.
    pub async fn start(width: u32, height: u32) -> Option<Self> {
        let (Some(driver), chromium) = (variable("MDL_TEST_CHROMEDRIVER"), variable("MDL_TEST_CHROMIUM")) else {
            eprintln!("skipped: MDL_TEST_CHROMEDRIVER is not set (install chromium-driver, and run ops/dev test)");
            return None;
        };
        let port = free_port();
        let driver = Command::new(&driver)
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{driver}: {error}"));
        let profile = std::env::temp_dir().join(format!("mdl-chromium-{}", uuid::Uuid::now_v7().simple()));
        let mut browser = Self { http: http(), session: format!("http://127.0.0.1:{port}"), driver, profile };
        eventually("chromedriver answers", async || {
            browser.command("status", None).await.ok().filter(|status| status["ready"] == true)
        })
        .await;
        let mut options = json!({ "args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--no-proxy-server",
            format!("--window-size={width},{height}"), format!("--user-data-dir={}", browser.profile.display()),
        ] });
        if let Some(chromium) = chromium {
            options["binary"] = chromium.into();
        }
        let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let made = browser.command("session", Some(json!({ "capabilities": { "alwaysMatch": wanted } }))).await;
        let made = made.expect("a browser session");
        browser.session = format!("{}/session/{}", browser.session, made["sessionId"].as_str().expect("the session's id"));
        Some(browser)
    }

    pub async fn open(&self, url: &str) {
        self.must("url", json!({ "url": url })).await;
    }

    /// Types into the element, as somebody at a keyboard; `\u{e007}` is Enter.
    pub async fn write(&self, selector: &str, text: &str) {
        let element = self.wait_for(selector).await;
        self.must(&format!("element/{element}/value"), json!({ "text": text })).await;
    }

    /// Clicks the element, once it is there and nothing covers it.
    pub async fn click(&self, selector: &str) {
        eventually(&format!("{selector} can be clicked"), async || self.try_click(selector).await).await;
    }

    async fn try_click(&self, selector: &str) -> Option<Value> {
        let element = self.find(selector).await?;
        self.command(&format!("element/{element}/click"), Some(json!({}))).await.ok()
    }

    /// Waits until the element is there.
    pub async fn wait_for(&self, selector: &str) -> String {
        eventually(&format!("{selector} is on the page"), async || self.find(selector).await).await
    }

    /// Waits until the text of the element contains `wanted`.
    pub async fn wait_for_text(&self, selector: &str, wanted: &str) {
        if let Err(text) = self.try_text(selector, wanted, PATIENCE).await {
            panic!("{selector} should say {wanted}, and says {text}");
        }
    }

    /// Clicks, and clicks again, until the text of the element contains `wanted`: an editor that has just appeared or changed
    /// may not be ready for the first click. It is not clicked while it is not there.
    pub async fn click_until(&self, button: &str, selector: &str, wanted: &str) {
        let (start, mut said) = (Instant::now(), Value::Null);
        while start.elapsed() < PATIENCE {
            // One that is covered is clicked the next time.
            let _clicked = self.try_click(button).await;
            match self.try_text(selector, wanted, Duration::from_secs(2)).await {
                Ok(()) => return,
                Err(text) => said = text,
            }
        }
        panic!("{selector} should say {wanted} when {button} is clicked, and says {said}");
    }

    /// The text that there is instead, when the time is over.
    async fn try_text(&self, selector: &str, wanted: &str, time: Duration) -> Result<(), Value> {
        let start = Instant::now();
        loop {
            let text = self.script(&format!("return document.querySelector({})?.textContent", json!(selector))).await;
            if text.as_str().is_some_and(|text| text.contains(wanted)) {
                return Ok(());
            }
            if start.elapsed() > time {
                return Err(text);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs the body of a function in the page, and gives what it returns.
    pub async fn script(&self, body: &str) -> Value {
        self.must("execute/sync", json!({ "script": body, "args": [] })).await
    }

    /// What the page has logged since the last call: warnings and errors, those of its security policy too.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = self.must("se/log", json!({ "type": "browser" })).await;
        let entries = entries.as_array().expect("a list of log entries").iter();
        entries.filter(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG").map(|e| e["message"].to_string()).collect()
    }

    /// The window as a PNG, in Base64.
    pub async fn screenshot(&self) -> String {
        self.command("screenshot", None).await.expect("a screenshot").as_str().expect("Base64").to_owned()
    }

    async fn find(&self, selector: &str) -> Option<String> {
        let by = json!({ "using": "css selector", "value": selector });
        Some(self.command("element", Some(by)).await.ok()?[ELEMENT].as_str()?.to_owned())
    }

    async fn must(&self, command: &str, body: Value) -> Value {
        self.command(command, Some(body)).await.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    async fn command(&self, command: &str, body: Option<Value>) -> Result<Value, String> {
        let url = format!("{}/{command}", self.session);
        let request = match &body {
            Some(body) => self.http.post(url).json(body),
            None => self.http.get(url),
        };
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let worked = answer.status().is_success();
        let mut answer: Value = answer.json().await.map_err(|error| error.to_string())?;
        if worked { Ok(answer["value"].take()) } else { Err(answer["value"]["message"].to_string()) }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Deleting the session ends Chromium; the driver's end alone would leave it behind.
        let session = self.session.clone();
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { http().delete(session).send().await.is_ok() })
        });
        if !ended.join().unwrap_or(false) {
            eprintln!("Could not end the browser");
        }
        if self.driver.kill().is_ok() {
            self.driver.wait().expect("chromedriver has ended");
        }
        // Chromium may still be writing to it.
        let _leftovers = std::fs::remove_dir_all(&self.profile);
    }
}
