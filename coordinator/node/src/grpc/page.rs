//! Pages (AIP-158): the token is the key of the first row of the next page, in hex, and means nothing to callers.

use tonic::Status;

use super::fields::Fields;
use super::status;

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

/// Takes a page off rows that are in order, and the token of the next one.
pub(super) fn take<K, R>(
    rows: impl Iterator<Item = (K, R)>,
    size: usize,
    key: impl Fn(&K) -> String,
) -> (Vec<R>, String) {
    let mut page = Vec::new();
    for (at, row) in rows {
        if page.len() == size {
            return (page, token(&key(&at)));
        }
        page.push(row);
    }
    (page, String::new())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pages_join_into_the_whole_list() {
        let rows: Vec<u32> = (0..25).collect();
        let (mut all, mut from) = (vec![], String::new());
        loop {
            let first = start(&from, |text| text.parse::<u32>().ok()).unwrap().unwrap_or(0);
            let (page, next) =
                take(rows.iter().filter(|row| **row >= first).map(|row| (*row, *row)), 10, u32::to_string);
            all.extend(page);
            if next.is_empty() {
                break;
            }
            from = next;
        }
        assert_eq!(all, rows);
    }

    #[test]
    fn a_token_that_was_not_given_out_is_refused() {
        for bad in ["x", "zz", "123", "ff"] {
            assert!(start(bad, |text| text.parse::<u32>().ok()).is_err(), "{bad}");
        }
    }
}
