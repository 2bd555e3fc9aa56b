//! Quotes and lines of a CSV file, watched beside its reader: a cell whose closing quote is missing would swallow the rest of the
//! file, and nobody would hear of it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::rc::Rc;

use super::super::super::entry::{Issue, Place, codes};
use super::super::super::input::Text;

/// Longest quoted cell, in bytes.
const MAX_CELL: u64 = 1024 * 1024;

/// What is known so far.
#[derive(Default)]
pub struct Quotes {
    /// Whether a quote is open.
    pub open: Cell<bool>,
    /// On which the open quote is.
    pub line: Cell<u64>,
    length: Cell<u64>,
    lines: Cell<u64>,
    /// The last byte.
    pub last: Cell<u8>,
    /// Bytes so far.
    offset: Cell<u64>,
    /// Ends of lines that the reader has not come to, by offset, and whether that line is empty.
    ends: RefCell<VecDeque<(u64, bool)>>,
    /// Where the last line ended.
    newline: Cell<Option<u64>>,
    /// Lines that the reader has left behind.
    left: Cell<u64>,
}

impl Quotes {
    /// The line on which the record begins whose position is given: its first that is not empty. (The reader itself counts
    /// from before the line feed of a CRLF.)
    pub fn line_at(&self, offset: u64) -> u64 {
        let mut ends = self.ends.borrow_mut();
        while ends.front().is_some_and(|(end, empty)| *end <= offset || *empty) {
            ends.pop_front();
            self.left.set(self.left.get() + 1);
        }
        self.left.get() + 1
    }

    fn line_ends(&self, at: u64) {
        let before = self.newline.replace(Some(at));
        let start = before.map_or(0, |before| before + 1);
        let empty = start == at || (start + 1 == at && self.last.get() == b'\r');
        self.ends.borrow_mut().push_back((at, empty));
        self.lines.set(self.lines.get() + 1);
    }
}

/// The text on its way to the reader.
pub struct Guarded {
    pub text: Rc<RefCell<Text>>,
    pub quotes: Rc<Quotes>,
}

impl Read for Guarded {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut text = self.text.borrow_mut();
        let count = text.read(out)?;
        let quotes = &*self.quotes;
        for byte in &out[..count] {
            match byte {
                b'"' => {
                    quotes.open.set(!quotes.open.get());
                    quotes.line.set(quotes.lines.get() + 1);
                    quotes.length.set(0);
                }
                b'\n' => quotes.line_ends(quotes.offset.get()),
                _ => {}
            }
            quotes.length.set(quotes.length.get() + 1);
            quotes.offset.set(quotes.offset.get() + 1);
            quotes.last.set(*byte);
        }
        if quotes.open.get() && quotes.length.get() > MAX_CELL {
            let line = quotes.line.get();
            let message = format!(
                "The quoted cell that begins on line {line} is longer than {MAX_CELL} bytes: its closing quote may be missing"
            );
            return Err(text.refuse(Issue::refusal(Place::line(line), codes::TOO_LONG, message)));
        }
        Ok(count)
    }
}
