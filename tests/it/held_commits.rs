//! Commits that wait until a test lets them go: what happens while somebody else's is under way.

use mdl_tests::{TestDatabase, eventually};
use tokio_postgres::Client;

/// Holds the commits of transactions that write metrics.
pub struct HeldCommits(Client);

impl HeldCommits {
    /// From now on, of those that do this: `INSERT` or `UPDATE`.
    pub async fn of(database: &TestDatabase, event: &str) -> Self {
        let superuser = database.superuser().await;
        let hold = format!(
            "CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql
                AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER wait_for_test AFTER {event} ON metrics DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION wait_for_test();
             SELECT pg_advisory_lock(1)"
        );
        superuser.batch_execute(&hold).await.unwrap();
        Self(superuser)
    }

    /// Waits until one is held.
    pub async fn one(&self) {
        eventually("a commit is held", async || self.somebody_waits_for("advisory").await.then_some(())).await;
    }

    /// Whether somebody waits for a row that is locked.
    pub async fn hold_somebody_else_up(&self) -> bool {
        self.somebody_waits_for("transactionid").await
    }

    async fn somebody_waits_for(&self, kind: &str) -> bool {
        let waiting = "SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE datname = current_database() AND locktype = $1 AND NOT granted";
        !self.0.query(waiting, &[&kind]).await.unwrap().is_empty()
    }

    pub async fn let_go(&self) {
        self.0.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    }
}
