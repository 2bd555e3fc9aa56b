//! A script for pgbench with the statements of a request.
//!
//! Parameters stand in it as literals. What has to differ from one transaction to the next (ids that the API made, a unique key, the
//! key of a metric that is looked up) is found by comparing two requests of the same shape, and becomes an expression of pgbench's
//! variable `n`, the same wherever the same id or key stood, also within JSON.

use anyhow::{Result, bail, ensure};

use super::log::{Statement, quoted};

/// A key that differs from request to request.
pub struct Key {
    /// What it was in the first request.
    pub sent: String,
    /// An expression of SQL, of type text, that gives another for each `:n`.
    pub expression: String,
}

/// The script of a shape, from one request of it, or from two that differ in what has to differ.
pub fn script(first: &[Statement], second: Option<&[Statement]>, key: Option<&Key>) -> Result<String> {
    let mut varying = Varying { key, ids: Vec::new() };
    let mut lines = String::new();
    for (index, statement) in first.iter().enumerate() {
        let other = match second {
            None => statement,
            Some(second) => match second.get(index) {
                Some(other) if second.len() == first.len() && other.sql == statement.sql => other,
                _ => bail!("the two requests did not send the same statements: they part at {:?}", statement.sql),
            },
        };
        ensure!(statement.parameters.len() == other.parameters.len(), "parameters are missing for {:?}", statement.sql);
        let mut values = Vec::with_capacity(statement.parameters.len());
        for (value, other) in statement.parameters.iter().zip(&other.parameters) {
            values.push(varying.value(value.as_deref(), other.as_deref())?);
        }
        lines.push_str(&filled(&statement.sql, &values)?);
        lines.push_str(";\n");
    }
    Ok(format!("\\set n random(1, 1000000000000000000)\n{lines}"))
}

/// What differs between the two requests, and so in each transaction.
struct Varying<'a> {
    key: Option<&'a Key>,
    /// Ids of the first request that the second did not have.
    ids: Vec<String>,
}

impl Varying<'_> {
    /// An expression of SQL for a parameter.
    fn value(&mut self, first: Option<&str>, second: Option<&str>) -> Result<String> {
        let (Some(first), Some(second)) = (first, second) else {
            ensure!(first == second, "a parameter is NULL in one of the two requests only");
            return Ok("NULL".to_owned());
        };
        if first == second || is_timestamp(first) {
            return Ok(literal(first));
        }
        let (words, others) = (words(first), words(second));
        ensure!(words.len() == others.len(), "the two requests differ in more than ids and keys: {first} and {second}");
        // Literals and expressions of type text, which are put together in the end.
        let mut parts = Vec::new();
        let mut constant = String::new();
        for (word, other) in words.into_iter().zip(others) {
            match self.expression(word, other)? {
                None => constant.push_str(word),
                Some(expression) => {
                    if !constant.is_empty() {
                        parts.push(literal(&std::mem::take(&mut constant)));
                    }
                    parts.push(expression);
                }
            }
        }
        if !constant.is_empty() {
            parts.push(literal(&constant));
        }
        Ok(format!("({}){}", parts.join(" || "), cast(first)))
    }

    /// What stands for a word that differs; `None` if it may stay as it is.
    fn expression(&mut self, word: &str, other: &str) -> Result<Option<String>> {
        if word == other {
            return Ok(None);
        }
        if let Some(key) = self.key.filter(|key| key.sent == word) {
            return Ok(Some(format!("({})", key.expression)));
        }
        if is_uuid(word) {
            let known = self.ids.iter().position(|id| id == word);
            let number = known.unwrap_or_else(|| {
                self.ids.push(word.to_owned());
                self.ids.len() - 1
            });
            // As UUIDv7 does it, with the time first: indexes are filled from the right.
            return Ok(Some(format!(
                "(lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || substr(md5('{number}-' || :n), 13))::uuid::text"
            )));
        }
        // A counter or a part of a time.
        ensure!(word.bytes().all(|byte| byte.is_ascii_digit()), "{word} differs from {other}, and is neither an id nor the key");
        Ok(None)
    }
}

/// Parameters are typed by the column they go to; an expression of text is not.
fn cast(value: &str) -> &'static str {
    if is_uuid(value) {
        "::uuid"
    } else if value.starts_with('{') && !value.contains("\":") {
        if value[1..].get(..36).is_some_and(is_uuid) { "::uuid[]" } else { "::text[]" }
    } else if value.starts_with(['{', '[']) {
        "::jsonb"
    } else {
        ""
    }
}

/// The statement with its parameters in place, and its own constants such that pgbench takes nothing in them for a variable.
fn filled(sql: &str, values: &[String]) -> Result<String> {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(at) = rest.find(['\'', '"', '$']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let len = match &rest[..1] {
            "'" => {
                let Some((content, after)) = quoted(rest) else { bail!("a quote is not closed in {sql}") };
                out.push_str(&literal(&content));
                rest = after;
                continue;
            }
            "\"" => match rest[1..].find('"') {
                Some(end) => end + 2,
                None => bail!("a quote is not closed in {sql}"),
            },
            _ => {
                let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
                if digits > 0 {
                    let Some(value) =
                        rest[1..=digits].parse::<usize>().ok().and_then(|number| values.get(number.wrapping_sub(1)))
                    else {
                        bail!("{} has no value in {sql}", &rest[..=digits]);
                    };
                    out.push_str(value);
                    rest = &rest[digits + 1..];
                    continue;
                }
                1
            }
        };
        out.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    out.push_str(rest);
    Ok(out)
}

/// A constant of SQL. pgbench replaces `:name` within quotes, too, so such a colon is written as an escape.
fn literal(text: &str) -> String {
    let follows_colon = |pair: &[u8]| pair[0] == b':' && (pair[1].is_ascii_alphanumeric() || pair[1] == b'_');
    let quoted = text.replace('\'', "''");
    if text.as_bytes().windows(2).any(follows_colon) {
        format!("E'{}'", quoted.replace('\\', "\\\\").replace(':', "\\072"))
    } else {
        format!("'{quoted}'")
    }
}

/// Runs of letters, digits and `-`, and what is between them.
fn words(text: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_word(c) != is_word(first)).unwrap_or(rest.len());
        found.push(&rest[..end]);
        rest = &rest[end..];
    }
    found
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

/// `2026-11-21 07:00:00.123456+00`
fn is_timestamp(text: &str) -> bool {
    let form = b"dddd-dd-dd dd:dd:dd";
    let bytes = text.as_bytes();
    bytes.len() >= form.len()
        && form.iter().zip(bytes).all(|(form, byte)| if *form == b'd' { byte.is_ascii_digit() } else { form == byte })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(sql: &str, parameters: &[&str]) -> Statement {
        Statement { sql: sql.to_owned(), parameters: parameters.iter().map(|value| Some((*value).to_owned())).collect() }
    }

    #[test]
    fn parameters_become_literals() {
        let read = [
            statement("BEGIN", &[]),
            Statement {
                sql: r#"SELECT "a$1", '$1:x' FROM t WHERE k = $1 AND x = ANY ($10::uuid[]) AND y = $2 AND z = $3"#.to_owned(),
                parameters: [vec![Some("it's".to_owned()), None], vec![Some(r#"{"a":true,"b\\":"c"}"#.to_owned()); 8]].concat(),
            },
        ];
        let wanted = r#"\set n random(1, 1000000000000000000)
BEGIN;
SELECT "a$1", E'$1\072x' FROM t WHERE k = 'it''s' AND x = ANY (E'{"a"\072true,"b\\\\"\072"c"}'::uuid[]) AND y = NULL AND z = E'{"a"\072true,"b\\\\"\072"c"}';
"#;
        assert_eq!(script(&read, None, None).unwrap(), wanted);
    }

    #[test]
    fn ids_and_keys_that_differ_are_made_anew() {
        let insert = "INSERT INTO outbox VALUES ($1, $2, $3, $4, $5)";
        let request = |id: &str, key: &str, at: &str| {
            let json = format!(r#"{{"key": "{key}", "id": "{id}"}}"#);
            [statement(insert, &["01900000-0000-7000-8000-000000000000", id, key, &json, at])]
        };
        let first = request("01911111-0000-7000-8000-000000000001", "LOAD-A", "2026-11-21 07:00:00.1+00");
        let second = request("01911111-0000-7000-8000-000000000002", "LOAD-B", "2026-11-21 07:00:01.2+00");
        let key = Key { sent: "LOAD-A".to_owned(), expression: "'FLOOR-' || :n".to_owned() };
        let made = script(&first, Some(&second), Some(&key)).unwrap();
        let id = "(lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || substr(md5('0-' || :n), 13))::uuid::text";
        let wanted = format!(
            "\\set n random(1, 1000000000000000000)\nINSERT INTO outbox VALUES ('01900000-0000-7000-8000-000000000000', ({id})::uuid, \
             (('FLOOR-' || :n)), ('{{\"key\": \"' || ('FLOOR-' || :n) || '\", \"id\": \"' || {id} || '\"}}')::jsonb, \
             E'2026-11-21 07\\07200\\07200.1+00');\n"
        );
        assert_eq!(made, wanted);
    }

    #[test]
    fn requests_that_differ_in_other_ways_are_refused() {
        let (one, other) = ([statement("SELECT $1", &["a"])], [statement("SELECT $1", &["b"])]);
        assert!(script(&one, Some(&other), None).is_err(), "no key was named");
        assert!(script(&one, Some(&[statement("SELECT 1", &[])]), None).is_err(), "other statements");
        assert!(script(&[statement("SELECT $2", &["a"])], None, None).is_err(), "no such parameter");
    }

    #[test]
    fn an_array_stays_an_array() {
        let request = |id: &str| [statement("SELECT unnest($1::uuid[])", &[&format!("{{{id}}}")])];
        let first = request("01911111-0000-7000-8000-000000000001");
        let made = script(&first, Some(&request("01911111-0000-7000-8000-000000000002")), None).unwrap();
        assert!(made.contains("|| '}')::uuid[]"), "{made}");
    }
}
