//! Standard output of the commands for operators.
//!
//! A reader that has gone, as `head` does, is no failure: what the command does goes on. Anything else that keeps the text from
//! being written, such as a full disk, is told at the end by [`failure`].

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

/// The first error of writing.
static FAILURE: OnceLock<String> = OnceLock::new();

/// Writes a line.
pub fn line(text: impl Display) {
    write(&mut std::io::stdout().lock(), format_args!("{text}\n"));
}

/// So many things, in words: `1 document`, `2 documents`.
pub fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Writes a text that brings its own ends of lines.
pub fn text(text: impl Display) {
    write(&mut std::io::stdout().lock(), text);
}

/// Writes a part of something large. Whether the rest is wanted: somebody reads it, and it can be written.
pub fn part(bytes: &[u8]) -> bool {
    write_bytes(&mut std::io::stdout().lock(), bytes)
}

/// Why something could not be written, if somebody was there to read it.
pub fn failure() -> Option<String> {
    FAILURE.get().map(|error| format!("Could not write to standard output: {error}"))
}

fn write(to: &mut impl Write, text: impl Display) {
    let _wanted = note(write!(to, "{text}").and_then(|()| to.flush()));
}

fn write_bytes(to: &mut impl Write, bytes: &[u8]) -> bool {
    note(to.write_all(bytes).and_then(|()| to.flush()))
}

/// Keeps the first failure. Whether there was none, nor a reader that has gone.
fn note(written: std::io::Result<()>) -> bool {
    if let Err(error) = &written
        && error.kind() != ErrorKind::BrokenPipe
    {
        FAILURE.get_or_init(|| error.to_string());
    }
    written.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Refusing(ErrorKind);

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn one_thing_is_one() {
        assert_eq!([counted(0, "job"), counted(1, "job"), counted(2, "job")], ["0 jobs", "1 job", "2 jobs"]);
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is() {
        write(&mut Refusing(ErrorKind::BrokenPipe), "text");
        assert!(!write_bytes(&mut Refusing(ErrorKind::BrokenPipe), b"text") && write_bytes(&mut Vec::new(), b"text"));
        assert_eq!(failure(), None);
        write(&mut Refusing(ErrorKind::StorageFull), "text");
        assert!(failure().is_some_and(|failure| failure.starts_with("Could not write")));
    }
}
