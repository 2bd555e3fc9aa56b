//! `mdl-worker backup` as an operator runs it, on the servers of a test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::servers::binary;
use crate::{TestApp, variable};

/// An operator's settings for backups: a place, a pair of keys, the roles.
pub struct Backups {
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

/// What a command came to.
#[derive(Debug)]
pub struct Told {
    pub succeeded: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Backups {
    pub fn of(app: &TestApp) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("key.txt");
        let recipient = generate_key(&key);
        let database = &app.database;
        let mut environment = app.environment();
        let mut set = |name: &str, value: String| environment.push((name.to_owned(), value));
        set("MDL_BACKUP_URL", format!("file://{}", folder.path().join("place").display()));
        set("MDL_BACKUP_DATABASE_URL", database.url("mdl_backup"));
        set("MDL_BACKUP_SCRATCH_URL", database.server_url("mdl_scratch"));
        set("MDL_RESTORE_DATABASE_URL", database.server_url("mdl_restore"));
        set("MDL_BACKUP_RECIPIENTS", recipient);
        set("MDL_BACKUP_IDENTITY_FILE", key.display().to_string());
        // Nothing but what the test asks for, whatever the time of day.
        set("MDL_SCHEDULES", "back_up=off;back_up_files=off;prune_backups=off;restore_drill=off".to_owned());
        if let Some(tools) = variable("MDL_TEST_PG_BIN") {
            set("MDL_BACKUP_TOOLS_DIR", tools);
        }
        Self { folder, environment }
    }

    /// The same with some settings changed; an empty value takes one away.
    pub fn set(&mut self, settings: &[(&str, &str)]) {
        for (name, value) in settings {
            self.environment.retain(|(known, _)| known != name);
            if !value.is_empty() {
                self.environment.push(((*name).to_owned(), (*value).to_owned()));
            }
        }
    }

    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// The same for an app in this process.
    pub fn settings(&self) -> Vec<(&str, &str)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// A folder for whatever the test wants to put beside the place.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of a backup in the place.
    pub fn files(&self, id: &str) -> PathBuf {
        self.folder().join("place/backups").join(id)
    }

    /// The command, to be changed before it is run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("mdl-worker"));
        command.arg("backup").args(arguments).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Runs the command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Told {
        told(self.command(arguments)).await
    }

    /// Runs a command that must succeed, and gives what it printed.
    pub async fn must(&self, arguments: &[&str]) -> String {
        let told = self.run(arguments).await;
        assert!(told.succeeded, "{arguments:?}: {told:?}");
        told.stdout
    }

    /// Makes a backup and gives its id.
    pub async fn make(&self, arguments: &[&str]) -> String {
        self.must(&[&["now"], arguments].concat()).await;
        let newest = self.list().await.pop().expect("the backup is listed");
        newest["id"].as_str().expect("its id").to_owned()
    }

    /// The backups that are there, oldest first.
    pub async fn list(&self) -> Vec<Value> {
        let list: Value = serde_json::from_str(&self.must(&["list", "--json"]).await).expect("JSON");
        list.as_array().expect("a list").clone()
    }
}

/// Runs a command without holding up the test's own servers.
pub async fn told(mut command: Command) -> Told {
    let run = move || command.output().expect("mdl-worker, which cargo build --workspace --bins makes");
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(run).await.expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Told { succeeded: status.success(), stdout: text(stdout), stderr: text(stderr) }
}

/// Makes a pair of keys, and gives the public one.
pub fn generate_key(file: &Path) -> String {
    let text = mdl::backups::seal::generate_identity();
    std::fs::write(file, &text).expect("a file with a key");
    let public = text.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("the public key");
    public.to_owned()
}
