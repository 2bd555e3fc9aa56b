//! A live view: drawn anew until Ctrl-C, also while the database does not answer, which is when somebody looks at it.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

/// How often it is drawn.
const REDRAW: Duration = Duration::from_secs(1);

/// A server that does not answer may be waited for longer than somebody takes old figures for new ones.
const PATIENCE: Duration = Duration::from_secs(10);

/// Draws what `look` gives, and in the place of that why it gives nothing. Ends when nobody reads it any more.
pub async fn watch(look: impl AsyncFn() -> anyhow::Result<String>) -> anyhow::Result<()> {
    let mut seen = Instant::now();
    loop {
        let drawn = match tokio::time::timeout(PATIENCE, look()).await {
            Ok(Ok(drawn)) => {
                seen = Instant::now();
                drawn
            }
            Ok(Err(error)) => nothing(&format!("{error:#}"), seen),
            Err(_) => nothing("There is no answer", seen),
        };
        // To the upper left corner, and what was there before away.
        match writeln!(std::io::stdout(), "\x1b[H\x1b[2J{drawn}") {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
        tokio::time::sleep(REDRAW).await;
    }
}

fn nothing(why: &str, seen: Instant) -> String {
    format!("{why}\n\nNothing was seen for {} s; trying again until Ctrl-C", seen.elapsed().as_secs())
}
