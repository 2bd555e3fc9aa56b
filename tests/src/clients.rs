//! Clients of other makers, from npm: the scripts of `tests/clients`.

use std::fs::File;
use std::future::ready;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use crate::{eventually, root};

/// The folder of the clients with its packages installed, as [`packages`] does.
pub fn folder() -> Option<PathBuf> {
    packages("tests/clients")
}

/// A folder of the project with its packages of npm installed; `None` where that cannot be, which the test then says and passes.
pub fn packages(name: &str) -> Option<PathBuf> {
    let folder = root().join(name);
    if Command::new("node").arg("--version").output().is_err() {
        eprintln!("skipped: node is missing, which runs {name}");
        return None;
    }
    // Several tests may come here at once, each a process.
    let lock = File::open(folder.join("package.json")).expect("a package.json");
    lock.lock().expect("a lock on package.json");
    if !has_all(&folder) {
        let installed = Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder).output();
        if !installed.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: npm ci in {name} failed: {installed:?}");
            return None;
        }
    }
    Some(folder)
}

/// Whether every package is there: a folder may be of an earlier version.
fn has_all(folder: &Path) -> bool {
    let text = std::fs::read_to_string(folder.join("package.json")).expect("a package.json");
    let package: Value = serde_json::from_str(&text).expect("package.json is JSON");
    let wanted = package["dependencies"].as_object().expect("it has dependencies");
    wanted.keys().all(|name| folder.join("node_modules").join(name).is_dir())
}

/// A Python that has the packages of `requirements.txt`; `None` where that cannot be, which the test then says and passes.
pub fn python() -> Option<PathBuf> {
    let folder = root().join("tests/clients");
    let lock = File::open(folder.join("requirements.txt")).expect("tests/clients/requirements.txt");
    lock.lock().expect("a lock on requirements.txt");
    let python = folder.join(".venv/bin/python");
    let there = |python: &PathBuf| {
        Command::new(python).args(["-c", "import standardwebhooks"]).output().is_ok_and(|output| output.status.success())
    };
    if there(&python) {
        return Some(python);
    }
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(&folder).output();
        let done = output.as_ref().is_ok_and(|output| output.status.success());
        if !done {
            eprintln!("skipped: {program} {} in tests/clients failed: {output:?}", arguments.join(" "));
        }
        done
    };
    let made = run("python3", &["-m", "venv", "--clear", ".venv"])
        && run(".venv/bin/python", &["-m", "pip", "install", "--quiet", "--requirement", "requirements.txt"]);
    made.then_some(python)
}

/// What a script prints as JSON.
pub async fn run(script: &'static str, arguments: &[&str], input: &str) -> Value {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let input = input.to_owned();
    let run = move || {
        let mut node = Command::new("node");
        node.arg(script).args(arguments).current_dir(root().join("tests/clients"));
        let mut node = node.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("node");
        node.stdin.take().expect("its input").write_all(input.as_bytes()).expect("node reads");
        node.wait_with_output().expect("node ends")
    };
    let output = tokio::task::spawn_blocking(run).await.expect("node does not panic us");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{script}: {error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A script that runs until it is dropped.
pub struct Script {
    process: Child,
    /// What it prints, until it has ended.
    output: Receiver<String>,
    lines: Vec<String>,
}

impl Script {
    pub fn start(script: &str, environment: &[(&str, &str)]) -> Self {
        let mut node = Command::new("node");
        node.arg(script).envs(environment.iter().copied()).current_dir(root().join("tests/clients"));
        let mut process = node.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("node");
        let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            for line in lines {
                // The test may be over.
                let _heard = sender.send(line.expect("text"));
            }
        });
        Self { process, output, lines: Vec::new() }
    }

    /// All that it has printed, as soon as that is so many lines.
    pub async fn until(&mut self, count: usize) -> &[String] {
        eventually(&format!("a script prints {count} lines"), || {
            let ended = self.process.try_wait().expect("its state").is_some();
            self.lines.extend(self.output.try_iter());
            ready((ended || self.lines.len() >= count).then_some(()))
        })
        .await;
        if self.lines.len() < count {
            panic!("it ended: {:?}", self.failed().await);
        }
        &self.lines
    }

    /// Waits until it has failed. All that it printed, and what it says of the failure.
    pub async fn failed(&mut self) -> (&[String], String) {
        let status = eventually("a script ends", || ready(self.process.try_wait().expect("its state"))).await;
        self.lines.extend(self.output.iter());
        let mut error = String::new();
        self.process.stderr.take().expect("its errors").read_to_string(&mut error).expect("text");
        assert!(!status.success(), "it ended well after {:?}", self.lines);
        (&self.lines, error)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.process.kill().expect("the script ends");
            self.process.wait().expect("the script has ended");
        }
    }
}
