//! What callers and operators are told when PostgreSQL ends a session, or lets nobody in.

use diesel_async::RunQueryDsl;
use mdl::Error;
use mdl::config::DatabaseConfig;
use mdl::db::Db;
use mdl::error::causes;
use mdl_tests::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_session_is_unavailable_and_the_next_is_sound() {
    let app = TestApp::start().await;
    let db = &app.app.db;
    let tx = db.begin(app.system().tenant).await.unwrap();
    let end = diesel::sql_query("SELECT pg_terminate_backend(pg_backend_pid())");
    let error = Error::from(end.execute(&mut &*tx).await.unwrap_err());
    assert_eq!(error.code(), "UNAVAILABLE", "{}", causes(&error));
    drop(tx);
    db.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gets_no_connection_is_told_why() {
    let app = TestApp::start().await;
    let config = DatabaseConfig { pool_wait_seconds: 10, ..app.app.config.database.clone() };
    let ask = async |url: String| {
        let db = Db::new(&DatabaseConfig { url, ..config.clone() }, app.app.versions.clone());
        causes(&db.ping().await.unwrap_err())
    };
    let missing = app.database.url("mdl_app").replace(app.database.name(), "there_is_none");
    let told = ask(missing).await;
    assert!(told.contains("there_is_none") && !told.contains("bb8"), "{told}");
    let told = ask("postgres://mdl_app:secret@127.0.0.1:1/mdl".to_owned()).await;
    assert!(told.contains("refused") && !told.contains("secret"), "{told}");
}
