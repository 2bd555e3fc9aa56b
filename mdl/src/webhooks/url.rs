//! The address of a receiver.

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Text;
use url::Url;

use crate::outbound::{Guard, Refused};

/// Longest URL, in characters.
const MAX_LENGTH: usize = 2_000;

/// A URL that was one to send to when it was stored. A [`Guard`] looks at it again before each request.
#[derive(Debug, Clone, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub struct WebhookUrl(Url);

impl WebhookUrl {
    /// Parses what somebody has written; the error is a sentence for them.
    ///
    /// ```
    /// use mdl::outbound::Guard;
    /// use mdl::webhooks::WebhookUrl;
    ///
    /// let guard = Guard::new(&[]);
    /// assert!(WebhookUrl::parse("https://receiver.example/hooks", &guard).is_ok());
    /// // Whatever its spelling: this is 127.0.0.1.
    /// let error = WebhookUrl::parse("https://0x7f.1/", &guard).unwrap_err();
    /// assert_eq!(error, "127.0.0.1 is this host, not of the public internet");
    /// ```
    pub fn parse(text: &str, guard: &Guard) -> Result<Self, String> {
        let mut url = Url::parse(text.trim()).map_err(|error| format!("Is not a URL: {error}"))?;
        url.set_fragment(None);
        if url.as_str().chars().count() > MAX_LENGTH {
            return Err(format!("Is longer than {MAX_LENGTH} characters"));
        }
        guard.check(&url).map_err(|refused: Refused| refused.to_string())?;
        Ok(Self(url))
    }

    pub fn as_url(&self) -> &Url {
        &self.0
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether scheme, host and port are the same.
    pub fn is_at_origin_of(&self, other: &Self) -> bool {
        self.0.origin() == other.0.origin()
    }

    /// Host and port: what the receivers of one machine have in common.
    pub fn host(&self) -> String {
        format!("{}:{}", self.0.host_str().unwrap_or_default(), self.0.port_or_known_default().unwrap_or_default())
    }
}

impl FromSql<Text, Pg> for WebhookUrl {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(std::str::from_utf8(value.as_bytes())?.parse()?))
    }
}

impl ToSql<Text, Pg> for WebhookUrl {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        <str as ToSql<Text, Pg>>::to_sql(self.0.as_str(), out)
    }
}
