//! What the type of a setting does not say: whether a program can do anything with it.

use std::fmt::Display;

use chrono::Utc;
use object_store::ObjectStoreScheme;
use url::Url;

use super::{Config, DatabaseConfig};
use crate::error::{Code, Error, Result, causes};

impl Config {
    /// The same, where an address that may be missing and is empty counts as missing: `${DATABASE_READ_URL:-}` in a compose file is that.
    pub fn without_blanks(mut self) -> Self {
        self.database = self.database.without_blanks();
        let backup = &mut self.backup;
        for url in [&mut backup.database_url, &mut backup.scratch_url, &mut backup.restore_url] {
            url.take_if(|url| url.is_empty());
        }
        self
    }

    /// Refuses a setting that cannot be right, by its name. Asks no server.
    pub fn check(&self) -> Result<()> {
        self.database.check()?;
        postgres("MDL_BACKUP_DATABASE_URL", self.backup.database_url.as_deref())?;
        postgres("MDL_BACKUP_SCRATCH_URL", self.backup.scratch_url.as_deref())?;
        postgres("MDL_RESTORE_DATABASE_URL", self.backup.restore_url.as_deref())?;
        if let Err(error) = redis::Client::open(self.redis.url.as_str()) {
            return Err(refused("REDIS_URL", format!("is no address of Redis, like redis://:password@host:6379/0: {error}")));
        }
        store("MDL_STORAGE_URL", Some(&self.storage.url))?;
        store("MDL_BACKUP_URL", Some(&self.backup.url))?;
        store("MDL_BACKUP_REMOTE_URL", self.backup.remote_url.as_ref())?;
        for given in &self.schedules.overrides {
            if let Some(timing) = &given.timing
                && timing.next(Utc::now()).is_none()
            {
                return Err(refused("MDL_SCHEDULES", format!("{} is to run at {timing}, which never comes", given.name)));
            }
        }
        Ok(())
    }
}

impl DatabaseConfig {
    /// As [`Config::without_blanks`], of these settings alone.
    pub fn without_blanks(mut self) -> Self {
        for url in [&mut self.read_url, &mut self.owner_url] {
            url.take_if(|url| url.is_empty());
        }
        self
    }

    /// As [`Config::check`], of these settings alone.
    pub fn check(&self) -> Result<()> {
        postgres("DATABASE_URL", Some(self.url.as_str()))?;
        postgres("DATABASE_READ_URL", self.read_url.as_deref())?;
        postgres("DATABASE_OWNER_URL", self.owner_url.as_deref())
    }
}

/// The server of PostgreSQL that a setting names. What is said never repeats the address, which may hold a password: of one that is no URL, the
/// client would.
pub fn postgres_address(name: &str, url: &str) -> Result<tokio_postgres::Config> {
    const LIKE: &str = "is no address of PostgreSQL, like postgres://role@host/database";
    if url.is_empty() && name != "DATABASE_URL" {
        return Err(refused(name, "is empty: leave it out"));
    }
    match url.parse::<tokio_postgres::Config>() {
        Err(error) if url.starts_with("postgres") => Err(refused(name, format!("{LIKE}: {}", causes(&error)))),
        Err(_) => Err(refused(name, LIKE)),
        Ok(config) if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() => {
            Err(refused(name, format!("{LIKE}: it names no host")))
        }
        Ok(config) => Ok(config),
    }
}

fn postgres(name: &str, url: Option<&str>) -> Result<()> {
    url.map_or(Ok(()), |url| postgres_address(name, url).map(drop))
}

fn store(name: &str, url: Option<&Url>) -> Result<()> {
    let Some(url) = url else { return Ok(()) };
    match ObjectStoreScheme::parse(url) {
        Ok((ObjectStoreScheme::Local | ObjectStoreScheme::AmazonS3, _)) => Ok(()),
        // Stores that we are built without, too.
        _ => Err(refused(name, "is no place for files: give file:///directory or s3://bucket/prefix")),
    }
}

fn refused(name: &str, why: impl Display) -> Error {
    Error::invalid(name, Code::Invalid, why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(argument: &str) -> String {
        let checked = Config::from_arguments(["test", argument]).expect("settings").check();
        checked.expect_err(argument).to_string()
    }

    #[test]
    fn what_cannot_be_right_is_refused_by_its_name() {
        for (argument, name) in [
            ("--database-url=mysql://x:secret@host/mdl?tls=yes", "DATABASE_URL: "),
            ("--database-url=", "DATABASE_URL: "),
            ("--database-read-url=secret", "DATABASE_READ_URL: "),
            ("--database-owner-url=postgres://owner:secret@host:none/mdl", "DATABASE_OWNER_URL: "),
            ("--backup-scratch-url=secret", "MDL_BACKUP_SCRATCH_URL: "),
            ("--restore-database-url=secret", "MDL_RESTORE_DATABASE_URL: "),
            ("--redis-url=http://:secret@host", "REDIS_URL: "),
            ("--storage-url=ftp://host/secret", "MDL_STORAGE_URL: "),
            ("--storage-url=memory:///secret", "MDL_STORAGE_URL: "),
            ("--backup-url=gs://bucket/secret", "MDL_BACKUP_URL: "),
            ("--backup-remote-url=https://host/secret", "MDL_BACKUP_REMOTE_URL: "),
            ("--schedules=back_up=0 2 31 2 *", "MDL_SCHEDULES: back_up"),
        ] {
            let said = said(argument);
            assert!(said.starts_with(name) && !said.contains("secret"), "{argument}: {said}");
        }
    }

    #[test]
    fn what_may_be_missing_may_be_empty() {
        let config = Config::from_arguments(["test", "--database-read-url=", "--backup-scratch-url="]).unwrap();
        assert!(config.check().is_err());
        let config = config.without_blanks();
        config.check().unwrap();
        assert_eq!((config.database.read_url, config.backup.scratch_url), (None, None));
    }

    #[test]
    fn files_are_kept_in_directories_and_buckets() {
        for url in ["file:///var/lib/mdl", "s3://bucket", "s3://bucket/prefix"] {
            let arguments = ["test".to_owned(), format!("--storage-url={url}"), format!("--backup-url={url}")];
            Config::from_arguments(arguments).unwrap().check().unwrap();
        }
        let said = said("--backup-url=az://container");
        assert!(said.ends_with("give file:///directory or s3://bucket/prefix"), "{said}");
    }

    #[test]
    fn the_defaults_are_right() {
        Config::from_arguments(["test"]).unwrap().check().unwrap();
    }
}
