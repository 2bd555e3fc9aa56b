//! Keyset pagination, as Relay connections ask for it: pages before or after a cursor, never by offset.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};

/// The greatest number of entries on a page.
pub const MAX_PAGE: usize = 100;
/// The number of entries when the caller does not say.
pub const DEFAULT_PAGE: usize = 20;

/// Which page of a list is wanted. `C` is what the list is ordered by: the values of the last entry seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PageArgs<C> {
    pub limit: usize,
    /// `true`: the page ends at the end of the list, or at `before`.
    pub backward: bool,
    pub after: Option<C>,
    pub before: Option<C>,
}

impl<C: DeserializeOwned> PageArgs<C> {
    /// From the arguments of a connection field. Cursors are what [`cursor`] made for the same order.
    pub fn parse(first: Option<i32>, after: Option<String>, last: Option<i32>, before: Option<String>) -> Result<Self> {
        let (count, backward) = match (first, last) {
            (Some(_), Some(_)) => return Err(Error::invalid("last", Code::Invalid, "Give first or last, not both")),
            (first, None) => (first, false),
            (None, last) => (last, true),
        };
        let field = if backward { "last" } else { "first" };
        let limit = match count {
            None => DEFAULT_PAGE,
            Some(count) => usize::try_from(count).ok().filter(|count| *count <= MAX_PAGE).ok_or_else(|| {
                Error::invalid(field, Code::OutOfRange, format!("Must be between 0 and {MAX_PAGE}, not {count}"))
            })?,
        };
        Ok(Self { limit, backward, after: decode("after", after)?, before: decode("before", before)? })
    }
}

impl<C> PageArgs<C> {
    /// The first entries of a list.
    pub fn first(limit: usize) -> Self {
        Self { limit, backward: false, after: None, before: None }
    }

    /// How many rows to ask the database for: one more than the page, to know whether another follows.
    pub fn fetch(&self) -> i64 {
        self.limit as i64 + 1
    }
}

/// A page of a list, in the list's own order whichever way it was asked for.
#[derive(Debug, Clone)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub has_previous: bool,
    pub has_next: bool,
}

impl<T> Page<T> {
    /// From up to [`PageArgs::fetch`] rows. For a backward page the rows come in reverse order, nearest to the end first.
    pub fn from_rows<C>(mut rows: Vec<T>, args: &PageArgs<C>) -> Self {
        let more = rows.len() > args.limit;
        rows.truncate(args.limit);
        if args.backward {
            rows.reverse();
            Self { items: rows, has_previous: more, has_next: args.before.is_some() }
        } else {
            Self { items: rows, has_previous: args.after.is_some(), has_next: more }
        }
    }

    pub fn empty() -> Self {
        Self { items: Vec::new(), has_previous: false, has_next: false }
    }

    /// The page with each entry made another.
    pub fn map<U>(self, entry: impl FnMut(T) -> U) -> Page<U> {
        let items = self.items.into_iter().map(entry).collect();
        Page { items, has_previous: self.has_previous, has_next: self.has_next }
    }
}

/// An opaque cursor for the values that order an entry.
pub fn cursor<C: Serialize>(position: &C) -> String {
    // Writing plain values into memory as JSON cannot fail.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).expect("cursor values are plain data"))
}

fn decode<C: DeserializeOwned>(field: &str, cursor: Option<String>) -> Result<Option<C>> {
    cursor.map(|cursor| parse_cursor(field, &cursor)).transpose()
}

/// What [`cursor`] made a cursor of, given as the argument `field`.
pub fn parse_cursor<C: DeserializeOwned>(field: &str, cursor: &str) -> Result<C> {
    let parsed = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|json| serde_json::from_slice(&json).ok());
    parsed.ok_or_else(|| Error::invalid(field, Code::Invalid, "Not a cursor of this list in this order"))
}

/// The cursor of a list ordered by one text column alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ByText(pub String);
