//! Backups: where they go, who can read them, and what proves them.

use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::servers::object_store_options;

#[derive(Clone, clap::Args)]
#[command(next_help_heading = "Backups")]
pub struct BackupConfig {
    /// The database as the role mdl_backup, which reads every tenant's rows and writes nothing. Without it there are no backups
    #[arg(id = "backup_database_url", long = "backup-database-url", env = "MDL_BACKUP_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Where backups go: file:///directory, or s3://bucket/prefix. One deployment to a place
    #[arg(id = "backup_url", long = "backup-url", env = "MDL_BACKUP_URL", default_value = "file:///var/lib/mdl-backups")]
    pub url: Url,
    /// A second place, to which each backup is copied: s3://bucket/prefix, or another file:///directory
    #[arg(id = "backup_remote_url", long = "backup-remote-url", env = "MDL_BACKUP_REMOTE_URL")]
    pub remote_url: Option<Url>,
    /// Endpoint of an S3-compatible store other than AWS, for backups
    #[arg(id = "backup_endpoint", long = "backup-endpoint", env = "MDL_BACKUP_ENDPOINT")]
    pub endpoint: Option<Url>,
    /// Region of the bucket for backups
    #[arg(id = "backup_region", long = "backup-region", env = "MDL_BACKUP_REGION", default_value = "us-east-1")]
    pub region: String,
    /// Access key id for the bucket of the backups
    #[arg(id = "backup_access_key_id", long = "backup-access-key-id", env = "MDL_BACKUP_ACCESS_KEY_ID", hide_env_values = true)]
    pub access_key_id: Option<String>,
    /// Secret access key for the bucket of the backups
    #[arg(
        id = "backup_secret_access_key",
        long = "backup-secret-access-key",
        env = "MDL_BACKUP_SECRET_ACCESS_KEY",
        hide_env_values = true
    )]
    pub secret_access_key: Option<String>,
    /// Who can read backups: public keys of age (age1…), comma-separated; `mdl-worker backup keygen` makes a pair
    #[arg(id = "backup_recipients", long = "backup-recipients", env = "MDL_BACKUP_RECIPIENTS", value_delimiter = ',', value_parser = recipient)]
    pub recipients: Vec<String>,
    /// File with the private keys of age, for verifying and restoring
    #[arg(id = "backup_identity_file", long = "backup-identity-file", env = "MDL_BACKUP_IDENTITY_FILE")]
    pub identity_file: Option<PathBuf>,
    /// yes makes backups that anybody who gets at them can read. Otherwise there are none without MDL_BACKUP_RECIPIENTS
    #[arg(id = "backup_unencrypted", long = "backup-unencrypted", env = "MDL_BACKUP_UNENCRYPTED", default_value = "no", value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub unencrypted: bool,
    /// Where backups are restored to see whether they are good: any database of a server, as the role mdl_scratch. A server of its own
    /// spares the one in use
    #[arg(id = "backup_scratch_url", long = "backup-scratch-url", env = "MDL_BACKUP_SCRATCH_URL", hide_env_values = true)]
    pub scratch_url: Option<String>,
    /// The server that backups are brought back to: any of its databases but that of MDL, like postgres, as the role mdl_restore.
    /// Only `mdl-worker backup restore` and `backup switch` use it; the running programs need not have it
    #[arg(id = "restore_database_url", long = "restore-database-url", env = "MDL_RESTORE_DATABASE_URL", hide_env_values = true)]
    pub restore_url: Option<String>,
    /// Folder with pg_dump and pg_restore, at least of the server's version; those on the PATH when unset
    #[arg(id = "backup_tools_dir", long = "backup-tools-dir", env = "MDL_BACKUP_TOOLS_DIR")]
    pub tools_dir: Option<PathBuf>,
    /// Days that backups are kept in a directory
    #[arg(id = "backup_local_days", long = "backup-local-days", env = "MDL_BACKUP_LOCAL_DAYS", default_value_t = 30)]
    pub local_days: u32,
    /// Days that backups are kept in a bucket
    #[arg(id = "backup_remote_days", long = "backup-remote-days", env = "MDL_BACKUP_REMOTE_DAYS", default_value_t = 90)]
    pub remote_days: u32,
    /// Verified backups that stay in each place, however old they are
    #[arg(id = "backup_keep_verified", long = "backup-keep-verified", env = "MDL_BACKUP_KEEP_VERIFIED", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_verified: u32,
    /// Percent by which a backup may be smaller or larger than the average of the last ones before somebody is told
    #[arg(
        id = "backup_size_deviation_percent",
        long = "backup-size-deviation-percent",
        env = "MDL_BACKUP_SIZE_DEVIATION_PERCENT",
        default_value_t = 20
    )]
    pub size_deviation_percent: u32,
    /// Hours without a verified backup after which somebody is told
    #[arg(id = "backup_max_age_hours", long = "backup-max-age-hours", env = "MDL_BACKUP_MAX_AGE_HOURS", default_value_t = 26, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_age_hours: u32,
}

impl BackupConfig {
    /// As options of the object_store crate; only those that its store understands have an effect.
    pub(crate) fn options(&self) -> Vec<(String, String)> {
        object_store_options(
            &self.region,
            self.endpoint.as_ref(),
            self.access_key_id.as_deref(),
            self.secret_access_key.as_deref(),
        )
    }
}

impl fmt::Debug for BackupConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URLs hold passwords.
        f.debug_struct("BackupConfig").field("recipients", &self.recipients).finish_non_exhaustive()
    }
}

fn recipient(text: &str) -> Result<String, &'static str> {
    text.parse::<age::x25519::Recipient>().map(|recipient| recipient.to_string())
}

#[cfg(test)]
mod tests {
    use super::recipient;

    #[test]
    fn recipients_are_public_keys() {
        let identity = age::x25519::Identity::generate();
        let public = identity.to_public().to_string();
        assert_eq!(recipient(&public), Ok(public.clone()));
        use age::secrecy::ExposeSecret;
        assert!(recipient(identity.to_string().expose_secret()).is_err(), "the private key does not belong into this setting");
        assert!(recipient(&public[..20]).is_err());
    }
}
