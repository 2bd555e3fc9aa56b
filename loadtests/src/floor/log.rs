//! Statements and their parameters, from what PostgreSQL logs with `log_statement = all`.

use anyhow::{Context, Result, bail, ensure};

/// What `log_line_prefix` has to be: a mark that nothing else begins with, and the backend's process.
pub const LINE_PREFIX: &str = "mdl-floor %p ";

const MARK: &str = "mdl-floor ";

/// A statement as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// With `$1`, `$2`, … where parameters stand.
    pub sql: String,
    /// In PostgreSQL's text form; `None` is NULL.
    pub parameters: Vec<Option<String>>,
}

/// The statements of one request, in their order. They have come over one connection: a request uses one, and statements of
/// others mean that something else was logged as well.
pub fn statements(log: &str) -> Result<Vec<Statement>> {
    let mut found: Vec<Statement> = Vec::new();
    let mut backend = None;
    for (process, message) in messages(log) {
        if let Some(sql) = sql_of(&message)? {
            ensure!(
                *backend.get_or_insert(process) == process,
                "the log has statements of several connections: log one request alone"
            );
            found.push(Statement { sql, parameters: Vec::new() });
        } else if let Some(list) = message.strip_prefix("DETAIL:  parameters: ").or(message.strip_prefix("DETAIL:  Parameters: "))
        {
            let statement = found.last_mut().context("parameters before any statement")?;
            statement.parameters = parameters(list).with_context(|| format!("cannot read the parameters {list}"))?;
        }
    }
    ensure!(!found.is_empty(), "the log has no statement; is log_line_prefix '{LINE_PREFIX}', and log_statement 'all'?");
    Ok(found)
}

/// The messages with our prefix and their processes; lines that continue one are indented by a tab.
fn messages(log: &str) -> Vec<(&str, String)> {
    let mut found: Vec<(&str, String)> = Vec::new();
    let mut ours = false;
    for line in log.lines() {
        if let Some(continued) = line.strip_prefix('\t') {
            if let (true, Some((_, message))) = (ours, found.last_mut()) {
                message.push('\n');
                message.push_str(continued);
            }
        } else {
            let parts = line.strip_prefix(MARK).and_then(|rest| rest.split_once(' '));
            ours = parts.is_some();
            found.extend(parts.map(|(process, message)| (process, message.to_owned())));
        }
    }
    found
}

/// `LOG:  execute s1: SELECT …`, or `LOG:  statement: BEGIN`.
fn sql_of(message: &str) -> Result<Option<String>> {
    let Some(said) = message.strip_prefix("LOG:  ") else { return Ok(None) };
    if let Some(sql) = said.strip_prefix("statement: ") {
        return Ok(Some(sql.to_owned()));
    }
    let Some((name, sql)) = said.strip_prefix("execute ").and_then(|rest| rest.split_once(": ")) else { return Ok(None) };
    if name.starts_with("fetch from ") {
        bail!("a cursor cannot be taken over into a script: {said}");
    }
    Ok(Some(sql.to_owned()))
}

/// `$1 = 'it''s', $2 = NULL`
fn parameters(list: &str) -> Result<Vec<Option<String>>> {
    let mut rest = list;
    let mut found = Vec::new();
    loop {
        let start = format!("${} = ", found.len() + 1);
        rest = rest.strip_prefix(&start).with_context(|| format!("expected {start}"))?;
        let value;
        (value, rest) = match rest.strip_prefix("NULL") {
            Some(after) => (None, after),
            None => {
                let (text, after) = quoted(rest).context("expected a quoted value")?;
                (Some(text), after)
            }
        };
        found.push(value);
        match rest.strip_prefix(", ") {
            Some(after) => rest = after,
            None if rest.is_empty() => return Ok(found),
            None => bail!("expected a comma before {rest}"),
        }
    }
}

/// The content of a constant in single quotes that `text` begins with, and what comes after it.
pub(super) fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('\'')?;
    let mut content = String::new();
    loop {
        let end = rest.find('\'')?;
        content.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(after) => {
                content.push('\'');
                rest = after;
            }
            None => return Some((content, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_come_with_their_parameters() {
        let log = "mdl-floor 7 LOG:  statement: BEGIN\n\
                   2026-11-21 07:00:00 UTC [9] LOG:  checkpoint starting: time\n\
                   \tof somebody else\n\
                   mdl-floor 7 LOG:  execute s3: SELECT *\n\
                   \t  FROM metrics WHERE key = $1 AND note IS NOT DISTINCT FROM $2\n\
                   mdl-floor 7 DETAIL:  parameters: $1 = 'it''s, $2 = ''x''', $2 = NULL\n\
                   mdl-floor 7 LOG:  execute <unnamed>: COMMIT\n";
        let found = statements(log).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], Statement { sql: "BEGIN".to_owned(), parameters: vec![] });
        assert_eq!(found[1].sql, "SELECT *\n  FROM metrics WHERE key = $1 AND note IS NOT DISTINCT FROM $2");
        assert_eq!(found[1].parameters, [Some("it's, $2 = 'x'".to_owned()), None]);
        assert_eq!(found[2].sql, "COMMIT");
    }

    #[test]
    fn newer_servers_write_parameters_with_a_capital() {
        let log = "mdl-floor 7 LOG:  execute s1: SELECT $1\nmdl-floor 7 DETAIL:  Parameters: $1 = 'a\n\tb'\n";
        assert_eq!(statements(log).unwrap()[0].parameters, [Some("a\nb".to_owned())]);
    }

    #[test]
    fn only_one_request_is_taken() {
        let log = "mdl-floor 7 LOG:  statement: BEGIN\nmdl-floor 8 LOG:  statement: BEGIN\n";
        assert!(statements(log).unwrap_err().to_string().contains("several connections"));
        assert!(statements("2026 LOG:  statement: BEGIN\n").unwrap_err().to_string().contains("no statement"));
        let log = "mdl-floor 7 LOG:  execute s1: SELECT $1\nmdl-floor 7 DETAIL:  parameters: $1 = broken\n";
        assert!(statements(log).is_err());
    }
}
