//! What the comment on a database says of it: a restored one can be switched to, and what nobody restored can not.

use mdl_tests::TestApp;
use mdl_tests::backups::Backups;

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_leaves_what_operators_say_of_their_databases() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    let id = backups.make(&["--no-verify"]).await;
    let (name, beside) = (app.database.name(), format!("{}_beside", app.database.name()));
    backups.must(&["restore", &id, "--into", &beside]).await;
    let comment = async |database: &str, text: &str| {
        app.database.execute_beside(&format!("COMMENT ON DATABASE \"{database}\" IS E'{text}'")).await;
    };
    comment(name, "The catalog.\\nAsk O\\'Hara before dropping it \\\\ renaming it").await;
    comment(&beside, "Of Monday\\nMDL: restored to its end\\n").await;
    let theirs = "The catalog.\nAsk O'Hara before dropping it \\ renaming it";
    assert_eq!(said_of(&app, name).await.as_deref(), Some(theirs));

    let told = backups.must(&["switch", &beside, "--yes"]).await;
    let aside = kept(&told);
    assert_eq!(said_of(&app, name).await.as_deref(), Some("Of Monday\n"));
    let marked = format!("{theirs}\nMDL: was in use before a switch");
    assert_eq!(said_of(&app, &aside).await.as_deref(), Some(marked.as_str()));
    // And back.
    let told = backups.must(&["switch", &aside, "--yes"]).await;
    assert_eq!(said_of(&app, name).await.as_deref(), Some(theirs));
    app.database.drop_other(&kept(&told)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_restored_is_not_switched_to() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    let beside = format!("{} beside", app.database.name());
    app.database.execute_beside(&format!("CREATE DATABASE \"{beside}\" TEMPLATE template0 OWNER mdl_owner")).await;
    let told = backups.run(&["switch", &beside, "--yes"]).await;
    assert!(!told.succeeded && told.stderr.contains("was neither restored to its end nor in use before"), "{told:?}");
    let id = backups.make(&["--no-verify"]).await;
    let told = backups.run(&["restore", &id, "--into", &beside]).await;
    assert!(!told.succeeded && told.stderr.contains("already"), "it is not dropped: {told:?}");
    app.database.drop_other(&beside).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_connected_to_a_database_is_told_not_to_switch_it() {
    let app = TestApp::start().await;
    let mut backups = Backups::of(&app);
    let id = backups.make(&["--no-verify"]).await;
    backups.set(&[("MDL_RESTORE_DATABASE_URL", &app.database.url("mdl_restore"))]);
    let beside = format!("{}_beside", app.database.name());
    backups.must(&["restore", &id, "--into", &beside]).await;
    let told = backups.run(&["switch", &beside, "--yes"]).await;
    assert!(!told.succeeded && told.stderr.contains("MDL_RESTORE_DATABASE_URL names the database"), "{told:?}");
    assert_eq!(app.database.others(&beside).await, [beside.as_str()], "nothing was renamed");
    app.database.drop_other(&beside).await;
}

/// As an interrupted restore leaves it, under the name of the database in use, which was lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_unfinished_is_put_aside_as_what_it_is() {
    let app = TestApp::start().await;
    let backups = Backups::of(&app);
    let id = backups.make(&["--no-verify"]).await;
    let name = app.database.name();
    app.database.drop_other(name).await;
    app.database.execute_beside(&format!("CREATE DATABASE \"{name}\" TEMPLATE template0 OWNER mdl_restore")).await;
    let unfinished = "MDL: a restore into it is not finished";
    app.database.execute_beside(&format!("COMMENT ON DATABASE \"{name}\" IS '{unfinished}'")).await;
    let told = backups.run(&["switch", name, "--yes"]).await;
    assert!(!told.succeeded && told.stderr.contains("was interrupted: run it again"), "{told:?}");
    let told = backups.must(&["restore", &id, "--in-place", "--yes"]).await;
    assert!(app.database.number("SELECT count(*) FROM tenants").await > 0);
    let aside = kept(&told);
    assert_eq!(said_of(&app, &aside).await.as_deref(), Some(unfinished), "it was never in use");
    let told = backups.run(&["switch", &aside, "--yes"]).await;
    assert!(!told.succeeded && told.stderr.contains("was interrupted: run it again"), "{told:?}");
    app.database.drop_other(&aside).await;
}

/// The comment on a database.
async fn said_of(app: &TestApp, database: &str) -> Option<String> {
    let query = format!("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{database}'");
    app.database.text(&query).await
}

/// The name under which a switch keeps what was in use.
fn kept(told: &str) -> String {
    told.split("is kept as ").nth(1).and_then(|rest| rest.split(':').next()).expect("the name of the old one").to_owned()
}
