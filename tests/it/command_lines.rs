//! The commands of both programs, whoever reads what they print, and whatever they find.

use std::fs::OpenOptions;
use std::process::{Command, Output, Stdio};

use mdl_tests::servers::binary;
use mdl_tests::{TestApp, TestDatabase, root};

fn run(app: &TestApp, program: &str, arguments: &[&str], output: Stdio) -> Output {
    Command::new(binary(program)).args(arguments).envs(app.environment()).stdout(output).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is() {
    let app = TestApp::start().await;
    let commands = [
        ("mdl-api", &["settings"][..]),
        ("mdl-worker", &["queues"][..]),
        ("mdl-worker", &["jobs", "list", "--json"][..]),
        ("mdl-worker", &["schedules"][..]),
    ];
    for (program, arguments) in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let unread = run(&app, program, arguments, writer.into());
        assert!(unread.status.success(), "{program} {arguments:?}: {unread:?}");
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let unwritten = run(&app, program, arguments, full.into());
        let said = String::from_utf8_lossy(&unwritten.stderr);
        assert!(!unwritten.status.success() && said.contains("Could not write to standard output"), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_and_an_empty_condition_are_named() {
    let app = TestApp::start().await;
    let empty = TestDatabase::empty().await;
    let mut list = Command::new(binary("mdl-worker"));
    list.args(["jobs", "list"]).envs(app.environment()).env("DATABASE_URL", empty.url("mdl_app"));
    let said = String::from_utf8(list.output().unwrap().stderr).unwrap();
    assert!(said.contains("the database is empty; run `mdl-api migrate`"), "{said}");

    let retried = run(&app, "mdl-worker", &["jobs", "retry", "--error", ""], Stdio::piped());
    let said = String::from_utf8(retried.stderr).unwrap();
    assert!(!retried.status.success() && said.contains("an empty text is in every error"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_there_is_not_is_said_to_be_missing() {
    let app = TestApp::start().await;
    let unknown = "01997d2a-5f00-7000-8000-000000000001";
    for action in ["retry", "cancel", "discard"] {
        let told = run(&app, "mdl-worker", &["jobs", action, unknown], Stdio::piped());
        assert!(!told.status.success() && told.stdout.is_empty(), "{told:?}");
        assert_eq!(String::from_utf8_lossy(&told.stderr), "There is no such job\n");
    }
    let nothing = run(&app, "mdl-worker", &["jobs", "retry", "--kind", "no_kind"], Stdio::piped());
    assert!(nothing.status.success() && nothing.stdout == b"Retried: 0 jobs\n", "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_take_an_empty_address_for_none() {
    let app = TestApp::start().await;
    let migrate = |owner: Option<&str>| {
        let mut command = Command::new(binary("mdl-api"));
        command.arg("migrate").envs(app.environment()).env("DATABASE_READ_URL", "");
        if let Some(owner) = owner {
            command.env("DATABASE_OWNER_URL", owner);
        }
        command.output().unwrap()
    };
    let migrated = migrate(None);
    assert!(migrated.status.success(), "{migrated:?}");
    let refused = migrate(Some(""));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("Set DATABASE_OWNER_URL"), "{said}");
}

#[test]
fn redis_cli_is_told_of_a_url_what_it_knows() {
    let script = ". ops/dev.d/manage.sh; open_redis_cli_at echo PING";
    for (url, told) in [
        ("redis://host", "-h host -p 6379 PING"),
        ("rediss://host:7000/2#insecure", "-h host -p 7000 --tls --insecure -n 2 PING"),
        ("rediss://:p%23w@host/?protocol=resp3#insecure", "-h host -p 6379 --tls --insecure PING"),
    ] {
        let mut shell = Command::new("bash");
        let output = shell.args(["-euo", "pipefail", "-c", script]).current_dir(root()).env("REDIS_URL", url).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), told, "{url}: {output:?}");
    }
}

#[test]
fn keys_of_backups_that_are_set_stay() {
    let folder = std::env::temp_dir().join(format!("mdl-test-keys-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("backup-keys.txt"), "# public key: age1own\n").unwrap();
    let script = ". ops/dev.d/run.sh; export_backups; echo $MDL_BACKUP_RECIPIENTS $MDL_BACKUP_IDENTITY_FILE";
    let told = |identity: &str| {
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", script]).current_dir(root()).env_remove("MDL_BACKUP_RECIPIENTS");
        shell.env("DEV", &folder).env("PG_BIN", "").env("MDL_BACKUP_IDENTITY_FILE", identity);
        String::from_utf8(shell.output().unwrap().stdout).unwrap().trim().to_owned()
    };
    assert_eq!(told("/other"), "age1own /other");
    assert_eq!(told(""), format!("age1own {}/backup-keys.txt", folder.display()));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_variable_that_cannot_be_read_is_refused_by_its_name() {
    let commands = [
        ("mdl-api", &["serve"][..]),
        ("mdl-api", &["reseal-webhooks"][..]),
        ("mdl-worker", &["run"][..]),
        ("mdl-worker", &["queues"][..]),
    ];
    for (program, arguments) in commands {
        let mut command = Command::new(binary(program));
        let output = command.args(arguments).env("DATABASE_POOL_SIZE", "many").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{program} {arguments:?}");
        assert!(said.contains("invalid value 'many' for 'DATABASE_POOL_SIZE (--database-pool-size <"), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_variable_is_not_set() {
    let app = TestApp::start().await;
    let empty = [
        "MDL_WEBHOOK_ALLOW",
        "MDL_WEBHOOK_KEYS",
        "MDL_CORS_ORIGINS",
        "MDL_BACKUP_RECIPIENTS",
        "MDL_BACKUP_REMOTE_URL",
        "MDL_SCHEDULES",
        "DATABASE_POOL_SIZE",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ];
    let commands = [
        ("mdl-api", &["serve"][..]),
        ("mdl-api", &[][..]),
        ("mdl-api", &["reseal-webhooks"][..]),
        ("mdl-worker", &["run"][..]),
        ("mdl-worker", &["queues"][..]),
    ];
    for (program, arguments) in commands {
        let mut command = Command::new(binary(program));
        for port in ["MDL_HTTP_ADDR", "MDL_OPS_ADDR", "MDL_WORKER_OPS_ADDR"] {
            command.env(port, "127.0.0.1:0");
        }
        command.envs(app.environment()).envs(empty.map(|name| (name, ""))).env("DATABASE_URL", "mysql://x");
        command.args(arguments);
        let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
        assert!(said.contains("DATABASE_URL: is no address of PostgreSQL"), "{program} {arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_cannot_be_right_is_refused_by_its_name() {
    let app = TestApp::start().await;
    let refused = [
        ("DATABASE_URL", "mysql://x"),
        ("REDIS_URL", "http://x"),
        ("MDL_STORAGE_URL", "file:///proc/nope"),
        ("MDL_BACKUP_URL", "gs://bucket"),
    ];
    for (name, value) in refused {
        for program in ["mdl-api", "mdl-worker"] {
            let mut command = Command::new(binary(program));
            for port in ["MDL_HTTP_ADDR", "MDL_OPS_ADDR", "MDL_WORKER_OPS_ADDR"] {
                command.env(port, "127.0.0.1:0");
            }
            let output = command.envs(app.environment()).env(name, value).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && said.contains(&format!("{name}: ")), "{program} {value}: {said}");
        }
    }
}
