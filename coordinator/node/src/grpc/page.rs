//! Pages (AIP-158): the token is the key of the first row of the next page, in hex, and means nothing to callers.
//!
//! A page ends at the number of rows that was asked for, or before the answer is larger than a message may be: gRPC
//! clients refuse such an answer whole, so the caller could never read on. One row is shown whatever its size.

use tonic::Status;

use super::fields::Fields;
use super::status;

/// Rows that are looked at under one hold of the state's lock.
pub(super) const MAX_LOOKED_AT_PER_HOLD: usize = 1_024;
/// Rows that are shown under one hold of the state's lock; showing one, with its addresses and transactions, costs far
/// more than passing it over.
pub(super) const MAX_SHOWN_PER_HOLD: usize = 64;
/// Rows that are looked at for one page. When few of them are wanted the page is short, or empty, and has a token: what
/// one request costs is bounded whatever it filters by.
const MAX_LOOKED_AT: usize = 64 * MAX_LOOKED_AT_PER_HOLD;
/// Bytes of an answer that are left for what is not rows: the token, which names a key, and how fresh the read was.
const RESERVED_BYTES: usize = 4 * 1024;
/// Bytes that a row takes in its list beside its own: the field's number and the row's length.
const ROW_OVERHEAD_BYTES: usize = 8;

/// The key that a page begins with; `None` for the first page.
pub(super) fn start<T>(token: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let key = decode(token).and_then(|text| parse(&text));
    match key {
        Some(key) => Ok(Some(key)),
        None => Err(invalid()),
    }
}

fn invalid() -> Status {
    let mut fields = Fields::default();
    fields.fault("page_token", "is not one that this service gave out");
    fields.finish::<()>(None).err().unwrap_or_else(status::unexpected)
}

/// The token of a page that begins with a key.
pub(super) fn token(key: &str) -> String {
    key.bytes().fold(String::new(), |mut hex, byte| {
        for nibble in [byte >> 4, byte & 15] {
            hex.extend(char::from_digit(u32::from(nibble), 16));
        }
        hex
    })
}

fn decode(token: &str) -> Option<String> {
    let digits: Vec<u32> = token.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let bytes = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    });
    String::from_utf8(bytes.collect::<Option<_>>()?).ok()
}

/// How much one page holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Rows.
    pub(super) rows: usize,
    /// Bytes of the whole answer.
    pub(super) message_bytes: usize,
}

/// A page of rows that are in order. It is filled under as many short holds of the state's lock as it takes, because
/// entries wait meanwhile. So a row that changes while a page is made is shown as it was or as it is.
pub(super) struct Page<K, R> {
    rows: Vec<R>,
    bounds: Bounds,
    bytes: usize,
    next: Option<K>,
    looked_at: usize,
    full: bool,
}

impl<K: Clone, R: prost::Message> Page<K, R> {
    /// A page that begins with a key, or with the first row of all.
    pub(super) fn begin(first: Option<K>, bounds: Bounds) -> Self {
        Self { rows: Vec::new(), bounds, bytes: 0, next: first, looked_at: 0, full: false }
    }

    /// Whether more rows must be looked at, from [`Page::at`] on.
    pub(super) fn is_open(&self) -> bool {
        !self.full
    }

    /// Where to look on; `None` at the first row of all.
    pub(super) fn at(&self) -> Option<K> {
        self.next.clone()
    }

    /// Looks at rows for as long as one hold of the lock may last. `show` leaves out what is not wanted.
    pub(super) fn look<'a, V>(&mut self, rows: impl Iterator<Item = (&'a K, V)>, show: impl Fn(&K, V) -> Option<R>)
    where
        K: 'a,
    {
        let (mut looked_at, mut shown) = (0, 0);
        for (key, value) in rows {
            if looked_at == MAX_LOOKED_AT_PER_HOLD || shown == MAX_SHOWN_PER_HOLD {
                self.next = Some(key.clone());
                self.looked_at += looked_at;
                self.full = self.looked_at >= MAX_LOOKED_AT;
                return;
            }
            looked_at += 1;
            let Some(row) = show(key, value) else { continue };
            let bytes = row.encoded_len() + ROW_OVERHEAD_BYTES;
            if !self.has_room_for(bytes) {
                self.next = Some(key.clone());
                self.full = true;
                return;
            }
            self.bytes += bytes;
            self.rows.push(row);
            shown += 1;
        }
        self.next = None;
        self.full = true;
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        let room = self.bounds.message_bytes.saturating_sub(RESERVED_BYTES).saturating_sub(self.bytes);
        self.rows.len() < self.bounds.rows && (self.rows.is_empty() || bytes <= room)
    }

    /// The rows, and the token of the next page; empty after the last row of all.
    pub(super) fn finish(self, name: impl Fn(&K) -> String) -> (Vec<R>, String) {
        let next = self.next.map(|key| token(&name(&key)));
        (self.rows, next.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use prost::Message;

    use super::*;

    const LARGE: usize = 4 << 20;

    /// Reads a list to its end; the pages, and the most rows that were looked at under one hold.
    fn read(rows: u32, size: usize, wanted: impl Fn(u32) -> bool) -> (Vec<Vec<u32>>, usize) {
        let rows: Vec<u32> = (0..rows).collect();
        let (mut pages, mut from, mut longest) = (vec![], String::new(), 0);
        loop {
            let first = start(&from, |text| text.parse::<u32>().ok()).unwrap();
            let mut page = Page::begin(first, Bounds { rows: size, message_bytes: LARGE });
            while page.is_open() {
                let looked_at = std::cell::Cell::new(0);
                let at = page.at().unwrap_or(0);
                page.look(rows.iter().filter(|row| **row >= at).map(|row| (row, *row)), |_, row| {
                    looked_at.set(looked_at.get() + 1);
                    wanted(row).then_some(row)
                });
                longest = longest.max(looked_at.get());
            }
            let (page, next) = page.finish(u32::to_string);
            pages.push(page);
            if next.is_empty() {
                return (pages, longest);
            }
            from = next;
        }
    }

    #[test]
    fn pages_join_into_the_whole_list() {
        let (pages, _) = read(25, 10, |_| true);
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
        assert_eq!(pages.concat(), (0..25).collect::<Vec<_>>());
        let (pages, _) = read(20, 10, |_| true);
        assert_eq!(pages.len(), 2, "no token leads to an empty page");
    }

    #[test]
    fn one_hold_is_short_and_still_nothing_is_left_out() {
        let (pages, longest) = read(5_000, 1_000, |_| true);
        assert_eq!(longest, MAX_SHOWN_PER_HOLD);
        assert_eq!(pages.concat(), (0..5_000).collect::<Vec<_>>());
        let (pages, longest) = read(5_000, 10, |row| row == 4_999);
        assert_eq!((pages, longest), (vec![vec![4_999]], MAX_LOOKED_AT_PER_HOLD));
    }

    #[test]
    fn a_page_of_a_list_in_which_little_is_wanted_is_short_and_has_a_token() {
        let rows = u32::try_from(MAX_LOOKED_AT).unwrap() + 10;
        let (pages, _) = read(rows, 10, |row| row == rows - 1);
        assert_eq!(pages, [vec![], vec![rows - 1]]);
    }

    /// The sizes of the pages of a list of texts, and the largest answer in bytes without its token.
    fn pages_of(texts: &[String], message_bytes: usize) -> (Vec<usize>, usize) {
        let (mut sizes, mut largest, mut first) = (vec![], 0_usize, None);
        loop {
            let mut page = Page::begin(first, Bounds { rows: 1_000, message_bytes });
            while page.is_open() {
                let rows: Vec<(usize, &String)> = texts.iter().enumerate().collect();
                let at = page.at().unwrap_or(0);
                let later = rows.iter().map(|(key, text)| (key, *text)).filter(|(key, _)| **key >= at);
                page.look(later, |_, text| Some(text.clone()));
            }
            let (rows, next) = page.finish(usize::to_string);
            sizes.push(rows.len());
            largest = largest.max(rows.iter().map(|row| row.encoded_len() + ROW_OVERHEAD_BYTES).sum::<usize>());
            if next.is_empty() {
                return (sizes, largest);
            }
            first = start(&next, |text| text.parse().ok()).unwrap();
        }
    }

    #[test]
    fn a_page_ends_before_the_answer_is_larger_than_a_message_may_be() {
        let message_bytes = 65_536;
        let texts = vec!["x".repeat(10_000); 20];
        let (sizes, largest) = pages_of(&texts, message_bytes);
        assert_eq!(sizes, [6, 6, 6, 2]);
        assert!(largest + RESERVED_BYTES <= message_bytes, "{largest}");
    }

    #[test]
    fn a_row_that_is_larger_than_a_message_has_a_page_of_its_own() {
        let mut texts = vec!["x".repeat(10); 3];
        texts[1] = "x".repeat(100_000);
        assert_eq!(pages_of(&texts, 65_536).0, [1, 1, 1]);
        assert_eq!(pages_of(&texts, 0).0, [1, 1, 1]);
    }

    #[test]
    fn a_token_that_was_not_given_out_is_refused() {
        for bad in ["x", "zz", "123", "ff"] {
            assert!(start(bad, |text| text.parse::<u32>().ok()).is_err(), "{bad}");
        }
    }
}
