//! Payloads as operators may see them.

use serde_json::Value;

/// In the names of fields whose values nobody is to see.
const SECRET: &[&str] = &["password", "secret", "token", "authorization", "credential", "apikey", "privatekey", "signature"];

/// What stands in their place.
const REDACTED: &str = "[redacted]";

/// The value without what the names of its fields say is secret, at any depth. (Payloads are ids; this is for the day when one is
/// not.)
///
/// ```
/// use mdl::jobs::redacted;
/// use serde_json::json;
///
/// let payload = json!({ "import": 1, "headers": [{ "X-Api-Key": "k" }], "accessToken": "t" });
/// assert_eq!(
///     redacted(&payload),
///     json!({ "import": 1, "headers": [{ "X-Api-Key": "[redacted]" }], "accessToken": "[redacted]" })
/// );
/// ```
pub fn redacted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                let shown = if is_secret(name) { Value::from(REDACTED) } else { redacted(value) };
                (name.clone(), shown)
            };
            Value::Object(fields.iter().map(field).collect())
        }
        Value::Array(entries) => Value::Array(entries.iter().map(redacted).collect()),
        plain => plain.clone(),
    }
}

fn is_secret(name: &str) -> bool {
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    SECRET.iter().any(|word| letters.contains(word))
}
