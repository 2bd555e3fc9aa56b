use std::path::PathBuf;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Sign-in")]
pub struct AuthConfig {
    /// File with the Ed25519 private key (PKCS#8 PEM) that signs access tokens; `mdl-api keygen` makes one. Without it the
    /// api makes a key that lasts until it ends, which signs everybody out
    #[arg(id = "signing_key_file", long = "signing-key-file", env = "MDL_SIGNING_KEY_FILE")]
    pub signing_key_file: Option<PathBuf>,
    /// Files with keys that signed before; tokens signed with them stay valid. Comma-separated
    #[arg(id = "retired_key_files", long = "retired-key-files", env = "MDL_RETIRED_KEY_FILES", value_delimiter = ',')]
    pub retired_key_files: Vec<PathBuf>,
    /// The issuer named in access tokens
    #[arg(id = "token_issuer", long = "token-issuer", env = "MDL_TOKEN_ISSUER", default_value = "mdl")]
    pub token_issuer: String,
    /// The audience named in access tokens
    #[arg(id = "token_audience", long = "token-audience", env = "MDL_TOKEN_AUDIENCE", default_value = "mdl-api")]
    pub token_audience: String,
    /// Minutes that an access token is valid
    #[arg(id = "access_token_minutes", long = "access-token-minutes", env = "MDL_ACCESS_TOKEN_MINUTES", default_value_t = 15, value_parser = clap::value_parser!(i64).range(1..=1440))]
    pub access_token_minutes: i64,
    /// Days after which a session ends, however often it was refreshed
    #[arg(id = "session_days", long = "session-days", env = "MDL_SESSION_DAYS", default_value_t = 30, value_parser = clap::value_parser!(i64).range(1..=365))]
    pub session_days: i64,
    /// The tenant (its slug) of a sign-in that names none
    #[arg(id = "default_tenant", long = "default-tenant", env = "MDL_DEFAULT_TENANT", default_value = "demo")]
    pub default_tenant: String,
    /// Password checks that may run at once; each takes 19 MiB and a core for some milliseconds
    #[arg(id = "password_checks", long = "password-checks", env = "MDL_PASSWORD_CHECKS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub password_checks: u32,
}
